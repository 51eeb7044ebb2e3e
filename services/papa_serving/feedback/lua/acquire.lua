-- Takes a partition's lease when it is free or expired, or prolongs it for its owner.
-- One that seems to last longer than it was given for has expired: the clock was set back since.
-- (Out of memory, Redis refuses a script that adds before it has removed something; so this one removes first, and the
-- log can be drained.)
--
-- KEYS  1 lease hash, 2 events stream
-- ARGV  1 owner, 2 duration in ms, 3 consumer group
-- Reply {epoch, expiry in ms}; nothing while another owner's lease lasts
local lease, owner = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', lease, 'owner', 'epoch', 'until', 'length')
local epoch = tonumber(held[2]) or 0
local expiry = now + tonumber(ARGV[2])
local left = (tonumber(held[3]) or 0) - now
local lasts = (held[1] or '') ~= '' and left > 0 and left <= (tonumber(held[4]) or left)
if lasts and held[1] ~= owner then
  return false
end
redis.call('HDEL', lease, 'until')
if not lasts then
  epoch = epoch + 1
  redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM') -- an error says that it exists
end
redis.call('HSET', lease, 'owner', owner, 'epoch', epoch, 'until', expiry, 'length', ARGV[2])
return { epoch, expiry }
