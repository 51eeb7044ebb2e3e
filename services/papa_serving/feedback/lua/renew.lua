-- Prolongs a lease, also an expired one that nobody has taken since.
--
-- KEYS  1 lease hash
-- ARGV  1 owner, 2 epoch, 3 duration in ms
-- Reply the expiry in ms; nothing when the epoch is over
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return false
end
local time = redis.call('TIME')
local expiry = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
redis.call('HDEL', KEYS[1], 'until') -- before it adds, as in acquire.lua
redis.call('HSET', KEYS[1], 'until', expiry, 'length', ARGV[3])
return expiry
