-- Announces a trainer and forgets those whose time is over; also those that would be live for longer than they asked for,
-- since the clock must have been set back after they did.
--
-- KEYS  1 members hash
-- ARGV  1 member, 2 duration in ms
-- Reply the live ones
local members, member, duration = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', members, member) -- before it adds, as in acquire.lua
redis.call('HSET', members, member, string.format('%d %d', now + duration, duration))
local all, live = redis.call('HGETALL', members), {}
for i = 1, #all, 2 do
  local till, length = string.match(all[i + 1], '^(%d+) (%d+)$')
  local left = tonumber(till) - now
  if left > 0 and left <= tonumber(length) then
    live[#live + 1] = all[i]
  else
    redis.call('HDEL', members, all[i])
  end
end
return live
