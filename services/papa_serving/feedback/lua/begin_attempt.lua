-- Counts one more attempt at each of a user's events, as deliveries in the consumer group.
--
-- KEYS  1 lease hash, 2 events stream, 3 user's pending zset, 4 call
-- ARGV  1 owner, 2 epoch, 3 consumer group, 4 time to live of the call in ms, then the entry ids
-- Reply the counts joined by spaces, 0 for events that are gone; nothing when the epoch is over
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return false
end
local answered = redis.call('GET', KEYS[4])
if answered then
  return answered
end
local events, group = KEYS[2], ARGV[3]
local counts = {}
for i = 5, #ARGV do
  local id, count = ARGV[i], 0
  if redis.call('ZSCORE', KEYS[3], id) then
    local delivery = redis.call('XPENDING', events, group, id, id, 1)[1]
    count = (delivery and delivery[4] or 0) + 1
    redis.call('XCLAIM', events, group, ARGV[1], 0, id, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
  end
  counts[#counts + 1] = count
end
answered = table.concat(counts, ' ')
redis.call('SET', KEYS[4], answered, 'PX', ARGV[4])
return answered
