-- Counts of one partition.
--
-- KEYS  1 events stream, 2 dead stream
-- Reply {unapplied events, age of the oldest in ms, dead letters}
local age = 0
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if oldest then
  local time = redis.call('TIME')
  age = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(string.match(oldest[1], '^%d+'))
end
return { redis.call('XLEN', KEYS[1]), math.max(0, age), redis.call('XLEN', KEYS[2]) }
