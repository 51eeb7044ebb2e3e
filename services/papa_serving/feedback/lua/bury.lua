-- Moves events to the dead letters; those that are not in the stream any more are skipped.
--
-- KEYS  1 lease hash, 2 events stream, 3 dead stream; then for each event: user hash, pending zset, letters zset,
--       ids hash, older ids hash
-- ARGV  1 owner, 2 epoch, 3 consumer group, 4 reason, 5 time to live of event ids in ms, then the entry id of each event
-- Reply how many were moved; nothing when the epoch is over
local FIRST_ENTRY = 6
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return false
end
local events, dead, group = KEYS[2], KEYS[3], ARGV[3]
redis.call('XLEN', dead) -- a key of another type fails before the first change, as in commit.lua
for i = FIRST_ENTRY, #ARGV do
  local key = 4 + (i - FIRST_ENTRY) * 5
  redis.call('HLEN', KEYS[key])
  redis.call('ZCARD', KEYS[key + 1])
  redis.call('ZCARD', KEYS[key + 2])
end
local moved = 0
for i = FIRST_ENTRY, #ARGV do
  local id = ARGV[i]
  local state, pending, letters, ids, older_ids = unpack(KEYS, 4 + (i - FIRST_ENTRY) * 5, 8 + (i - FIRST_ENTRY) * 5)
  local entry = redis.call('XRANGE', events, id, id)[1]
  if entry then
    local delivery = redis.call('XPENDING', events, group, id, id, 1)[1]
    local fields = entry[2]
    for _, value in ipairs({ 'entry', id, 'reason', ARGV[4], 'attempts', delivery and delivery[4] or 0 }) do
      fields[#fields + 1] = value
    end
    local sequence = redis.call('ZSCORE', pending, id) or 0
    redis.call('XACK', events, group, id) -- before it adds, as in acquire.lua
    redis.call('XDEL', events, id)
    redis.call('ZREM', pending, id)
    redis.call('ZADD', letters, sequence, redis.call('XADD', dead, '*', unpack(fields)))
    if redis.call('HINCRBY', state, 'pending', -1) <= 0 then -- the ids of events that wait never expire, see append.lua
      redis.call('PEXPIRE', ids, ARGV[5])
      redis.call('PEXPIRE', older_ids, ARGV[5])
    end
    redis.call('HINCRBY', state, 'dead', 1)
    redis.pcall('PUBLISH', state, redis.call('HINCRBY', state, 'version', 1))
    moved = moved + 1
  end
end
return moved
