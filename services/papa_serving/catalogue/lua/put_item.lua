-- Adds one item of a catalogue or replaces it, so that index, order and record always agree.
--
-- KEYS  1 vector set, 2 zset of the ids, 3 hash of the item
-- ARGV  1 item id, 2 vector (float32), 3 attributes (JSON), 4 how many items the catalogue may hold,
--       then field, value, … of the item's hash
-- Reply 1 when it was added, 0 when it was replaced, -1 when the catalogue is full
local vectors, ids, item = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('EXISTS', item)
if known == 0 and redis.call('ZCARD', ids) >= tonumber(ARGV[4]) then
  return -1
end
-- First, since it refuses a vector of another length.
redis.call('VADD', vectors, 'FP32', ARGV[2], ARGV[1], 'Q8', 'SETATTR', ARGV[3])
redis.call('ZADD', ids, 0, ARGV[1])
redis.call('HSET', item, unpack(ARGV, 5))
local time = redis.call('TIME')
redis.call('HSET', item, 'updated', time[1] * 1000 + math.floor(time[2] / 1000))
return 1 - known
