-- Removes a dead letter for good.
--
-- KEYS  1 dead stream, 2 user hash, 3 letters zset, 4 call
-- ARGV  1 letter id, 2 time to live of the call in ms
-- Reply 1; 0 when the letter is gone
local dead, state, letters, call = unpack(KEYS)
if redis.call('EXISTS', call) == 1 then
  return 1
end
redis.call('ZCARD', letters) -- a key of another type fails before the first change, as in commit.lua
redis.call('HLEN', state)
if redis.call('XDEL', dead, ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', letters, ARGV[1])
redis.call('HINCRBY', state, 'dead', -1)
redis.call('SET', call, 1, 'PX', ARGV[2])
redis.pcall('PUBLISH', state, redis.call('HINCRBY', state, 'version', 1))
return 1
