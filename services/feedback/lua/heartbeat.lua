-- Announces a trainer and forgets those whose time is over.
--
-- KEYS  1 trainers zset
-- ARGV  1 member, 2 duration in ms
-- Reply the live ones
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now) -- before it adds, as in acquire.lua
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
