-- Notes what was recommended to a user, unless the user was deleted, and forgets what lies beyond the window.
--
-- KEYS  1 user hash, 2 seen zset
-- ARGV  1 time to live in ms, 2 how many are kept, then the members
-- Reply for each member 1 where it was not within the window, else 0; -1 while a tombstone stands
local state, seen, lifetime = KEYS[1], KEYS[2], tonumber(ARGV[1])
if redis.call('HEXISTS', state, 'deleted') == 1 then
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', seen, '-inf', now - lifetime)
local new = {}
for i = 3, #ARGV do
  new[i - 2] = redis.call('ZSCORE', seen, ARGV[i]) and 0 or 1
  redis.call('ZADD', seen, now, ARGV[i])
end
redis.call('ZREMRANGEBYRANK', seen, 0, -1 - tonumber(ARGV[2]))
redis.call('PEXPIRE', seen, lifetime)
return new
