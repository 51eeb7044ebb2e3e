-- Moves a user's pointer to a revision of the lineage, or to the base.
--
-- KEYS  1 user hash, 2 user's records hash
-- ARGV  1 revision, "" for the base, then the fields of the user hash to answer with
-- Reply the values of those fields afterwards; 0 when the user has no such revision
local state, records, revision = KEYS[1], KEYS[2], ARGV[1]
local record = ''
if redis.call('HEXISTS', state, 'deleted') == 0 then
  if revision ~= '' then
    record = redis.call('HGET', records, revision)
    if not record then
      return 0
    end
  end
  if (redis.call('HGET', state, 'current') or '') ~= revision then
    redis.call('HDEL', state, 'record') -- out of memory, Redis lets only those add who have removed
    redis.call('HSET', state, 'current', revision, 'record', record)
    redis.pcall('PUBLISH', state, redis.call('HINCRBY', state, 'version', 1))
  end
end
return redis.call('HMGET', state, unpack(ARGV, 2))
