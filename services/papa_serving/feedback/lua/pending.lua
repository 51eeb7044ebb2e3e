-- Reads a user's unapplied events, whoever owns the partition; changes nothing.
--
-- KEYS  1 events stream, 2 pending zset
-- ARGV  1 the sequence that all must be above, 2 how many at most
-- Reply the entries as XRANGE gives them, in order
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    found[#found + 1] = entry
  end
end
return found
