-- Adds one item of a catalogue or replaces it, so that index, order and record always agree and all embeddings of the
-- catalogue are of one encoder.
--
-- KEYS  1 vector set, 2 zset of the ids, 3 encoder of the catalogue, 4 hash of the item
-- ARGV  1 item id, 2 vector (float32), 3 attributes (JSON), 4 how many items the catalogue may hold, 5 encoder,
--       then field, value, … of the item's hash
-- Reply 2 when it was added as the first one, 1 when it was added, 0 when it was replaced, -1 when the catalogue is full,
--       -2 when its items are of another encoder
local vectors, ids, encoder, item = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local count, known = redis.call('ZCARD', ids), redis.call('EXISTS', item)
if count > 0 and redis.call('GET', encoder) ~= ARGV[5] then
  return -2
end
if known == 0 and count >= tonumber(ARGV[4]) then
  return -1
end
-- First, since it refuses a vector of another length.
redis.call('VADD', vectors, 'FP32', ARGV[2], ARGV[1], 'Q8', 'SETATTR', ARGV[3])
redis.call('ZADD', ids, 0, ARGV[1])
redis.call('HSET', item, unpack(ARGV, 6))
local time = redis.call('TIME')
redis.call('HSET', item, 'updated', time[1] * 1000 + math.floor(time[2] / 1000))
if count == 0 then
  redis.call('SET', encoder, ARGV[5])
  return 2
end
return 1 - known
