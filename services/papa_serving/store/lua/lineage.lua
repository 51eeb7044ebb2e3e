-- Lists the records of a user's revisions, newest first.
--
-- KEYS  1 user's lineage zset, 2 user's records hash
-- ARGV  1 how many at most, 2 the revision that all must be older than, or ""
-- Reply their JSON; 0 when ARGV[2] is not in the lineage
local newest = '+inf'
if ARGV[2] ~= '' then
  local number = redis.call('ZSCORE', KEYS[1], ARGV[2])
  if not number then
    return 0
  end
  newest = '(' .. number
end
local revisions = redis.call('ZREVRANGEBYSCORE', KEYS[1], newest, '-inf', 'LIMIT', 0, ARGV[1])
local records = {}
for i, revision in ipairs(revisions) do
  records[i] = redis.call('HGET', KEYS[2], revision)
end
return records
