-- Reads events of a partition for its owner; changes nothing.
--
-- KEYS  1 lease hash, 2 events stream
-- ARGV  1 owner, 2 epoch, 3 consumer group, 4 first entry id ("-", or "(" and the last one seen), 5 how many at most
-- Reply {entries, attempts}: as XRANGE gives them, and {entry id, attempts} of those that were attempted; nothing when the
--       epoch is over
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return false
end
local entries = redis.call('XRANGE', KEYS[2], ARGV[4], '+', 'COUNT', ARGV[5])
local attempts = {}
if #entries > 0 then
  local pending = redis.call('XPENDING', KEYS[2], ARGV[3], entries[1][1], entries[#entries][1], #entries)
  for i, delivery in ipairs(pending) do
    attempts[i] = { delivery[1], delivery[4] }
  end
end
return { entries, attempts }
