-- Gives a partition up; the epoch stays, so that the next owner's is higher.
--
-- KEYS  1 lease hash
-- ARGV  1 owner, 2 epoch
-- Reply 1, or 0 when the epoch was over already
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], 'owner', 'until', 'length')
return 1
