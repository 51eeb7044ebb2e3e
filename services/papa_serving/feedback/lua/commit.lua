-- The commit: makes a revision current and removes the events that it applied, in one step.
--
-- KEYS  1 lease hash, 2 events stream, 3 user hash, 4 pending zset, 5 lineage zset, 6 records hash, 7 ids hash,
--       8 older ids hash, 9 users zset
-- ARGV  1 owner, 2 epoch ("" and "" for a revision from elsewhere, which applies no events), 3 consumer group,
--       4 revision, 5 its parent ("" for none), 6 its record (JSON), 7 how many revisions of a user are kept, 8 time to
--       live of event ids in ms, 9 the user's entry in the users zset, then the entry ids of its events
-- Reply "done N" (N older revisions went), "done" (by an earlier sending of the same revision), "deleted", "fenced", "conflict" (another parent), or
--       "stale" (the events are not the user's oldest unapplied ones)
local FIRST_ENTRY, AT_ONCE = 10, 1000
local lease, events, state, pending, lineage, records, ids, older_ids, users = unpack(KEYS)
local group, revision, parent = ARGV[3], ARGV[4], ARGV[5]
local known = redis.call('HMGET', state, 'deleted', 'current', 'revisions', 'version', 'pending')
if known[1] then
  return 'deleted'
end
if redis.call('HEXISTS', records, revision) == 1 then
  return 'done'
end
local count = #ARGV - FIRST_ENTRY + 1
if ARGV[1] ~= '' or count > 0 then
  local held = redis.call('HMGET', lease, 'owner', 'epoch')
  if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
    return 'fenced'
  end
end
if (known[2] or '') ~= parent then
  return 'conflict'
end
local oldest = count > 0 and redis.call('ZRANGE', pending, 0, count - 1) or {}
for i = 1, count do
  if oldest[i] ~= ARGV[FIRST_ENTRY + i - 1] then
    return 'stale'
  end
end

-- A script that fails half-way keeps what it has done. So what may fail, a key of another type, is read before the first
-- change.
redis.call('ZCARD', users)
local kept = redis.call('ZCARD', lineage) + 1
local number = (tonumber(known[3]) or 0) + 1
local version = (tonumber(known[4]) or 0) + 1
local waiting = (tonumber(known[5]) or 0) - count
if count > 0 then -- before it adds, as in acquire.lua
  redis.call('XACK', events, group, unpack(oldest))
  redis.call('XDEL', events, unpack(oldest))
  redis.call('ZREM', pending, unpack(oldest))
end
redis.call('HSET', records, revision, ARGV[6])
redis.call('ZADD', lineage, number, revision)
redis.call('ZADD', users, 0, ARGV[9])
redis.call('HSET', state, 'current', revision, 'record', ARGV[6], 'revisions', number, 'version', version,
  'pending', waiting)
if waiting <= 0 then -- the ids of events that wait never expire, see append.lua
  redis.call('PEXPIRE', ids, ARGV[8])
  redis.call('PEXPIRE', older_ids, ARGV[8])
end
-- The oldest beyond the quota go, but not the parent: it is what the trainer falls back on. Their files are swept later.
local beyond, doomed = math.min(kept - tonumber(ARGV[7]), AT_ONCE), {}
for _, name in ipairs(beyond > 0 and redis.call('ZRANGE', lineage, 0, beyond) or {}) do
  if #doomed < beyond and name ~= parent then
    doomed[#doomed + 1] = name
  end
end
if #doomed > 0 then
  redis.call('ZREM', lineage, unpack(doomed))
  redis.call('HDEL', records, unpack(doomed))
end
redis.pcall('PUBLISH', state, version)
return 'done ' .. #doomed
