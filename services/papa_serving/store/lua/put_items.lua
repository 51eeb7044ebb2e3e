-- Stores items of one user, unless the user is deleted; the oldest beyond the user's quota go, those of this call never:
-- they come first in the index where their time to live is shorter than it was.
--
-- KEYS  1 user hash, 2 user's items zset, then the hash of each item; and the hashes of those that go, ARGV[3] .. item id
-- ARGV  1 time to live in ms, 2 how many items of a user are kept, 3 start of the item keys,
--       then for each item: item id, sample, revision, generation, seed, notes ("" for none)
-- Reply how many of the oldest went, or -1 when the user is deleted
local AT_ONCE = 1000
local state, index = KEYS[1], KEYS[2]
if redis.call('HEXISTS', state, 'deleted') == 1 then
  return -1
end
redis.call('ZCARD', index) -- a key of another type fails before the first change
for i = 3, #KEYS do
  redis.call('HLEN', KEYS[i])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl, stored = tonumber(ARGV[1]), {}
for i = 3, #KEYS do
  local at = 4 + (i - 3) * 6
  redis.call('HSET', KEYS[i], 'sample', ARGV[at + 1], 'revision', ARGV[at + 2], 'generation', ARGV[at + 3],
    'seed', ARGV[at + 4])
  if ARGV[at + 5] ~= '' then
    redis.call('HSET', KEYS[i], 'notes', ARGV[at + 5])
  end
  redis.call('PEXPIRE', KEYS[i], ttl)
  redis.call('ZADD', index, now + ttl, ARGV[at])
  stored[ARGV[at]] = true
end
redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
local doomed = {}
local beyond = math.min(redis.call('ZCARD', index) - tonumber(ARGV[2]), AT_ONCE)
if beyond > 0 then
  local hashes = {}
  for _, id in ipairs(redis.call('ZRANGE', index, 0, beyond + #KEYS - 3)) do
    if #doomed < beyond and not stored[id] then
      doomed[#doomed + 1] = id
      hashes[#hashes + 1] = ARGV[3] .. id
    end
  end
  if #doomed > 0 then
    redis.call('ZREM', index, unpack(doomed))
    redis.call('UNLINK', unpack(hashes))
  end
end
redis.call('PEXPIRE', index, ttl)
return #doomed
