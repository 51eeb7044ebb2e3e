-- Notes that a user is being merged into another, and what the user is like now.
--
-- KEYS  1 user hash, 2 items zset
-- ARGV  1 digest of the other user, 2 a name for the merge if it begins now
-- Reply {"deleted", receipt}; {"other"} where a merge into somebody else has begun; {"seen", what delete_user.lua compares,
--       the merge's name, sequences of events that were taken back since it began, "NEW:FIRST" of each dead letter that was
--       retried since}
local known = redis.call('HMGET', KEYS[1], 'deleted', 'merging', 'version', 'merge', 'ended', 'renumbered')
if known[1] then
  return { 'deleted', known[1] }
end
if known[2] and known[2] ~= ARGV[1] then
  return { 'other' }
end
local newest = redis.call('ZRANGE', KEYS[2], -1, -1)[1] or ''
local merge = known[4] or ARGV[2]
redis.call('HSET', KEYS[1], 'merging', ARGV[1], 'merge', merge)
return { 'seen', (known[3] or '0') .. ' ' .. newest, merge, known[5] or '', known[6] or '' }
