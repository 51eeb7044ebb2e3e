-- Stores items of one user, unless the user is deleted.
--
-- KEYS  1 user hash, 2 user's items zset, then the hash of each item
-- ARGV  1 time to live in ms, then for each item: item id, sample, revision, generation, seed
-- Reply 1, or 0 when the user is deleted
local state, index = KEYS[1], KEYS[2]
if redis.call('HEXISTS', state, 'deleted') == 1 then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl = tonumber(ARGV[1])
for i = 3, #KEYS do
  local at = 2 + (i - 3) * 5
  redis.call('HSET', KEYS[i], 'sample', ARGV[at + 1], 'revision', ARGV[at + 2], 'generation', ARGV[at + 3],
    'seed', ARGV[at + 4])
  redis.call('PEXPIRE', KEYS[i], ttl)
  redis.call('ZADD', index, now + ttl, ARGV[at])
end
redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
redis.call('PEXPIRE', index, ttl)
return 1
