-- Puts back revisions that the revision store has and Redis lost, and points at the last of them.
--
-- KEYS  1 user hash, 2 pending zset, 3 lineage zset, 4 records hash, 5 events stream, 6 ids hash, 7 older ids hash
-- ARGV  1 consumer group, 2 ids of the events that they applied (JSON list), 3 time to live of event ids in ms, then for
--       each revision, oldest first: its name, its record (JSON), the last sequence that it applied
-- Reply 1; 0 when the user is deleted
local state, pending, lineage, records, events, ids, older_ids = unpack(KEYS)
local known = redis.call('HMGET', state, 'deleted', 'revisions', 'sequence', 'pending')
if known[1] then
  return 0
end
redis.call('ZCARD', pending) -- a key of another type fails before the first change
redis.call('ZCARD', lineage)
redis.call('HLEN', records)
redis.call('XLEN', events)
local revisions, sequence, waiting = tonumber(known[2]) or 0, tonumber(known[3]) or 0, tonumber(known[4]) or 0
local applied, last = {}, 0
for _, id in ipairs(cjson.decode(ARGV[2])) do
  applied[id] = true
end
local name, record
for i = 4, #ARGV, 3 do
  name, record, last = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local number = tonumber(string.match(name, '^%d+'))
  redis.call('HSET', records, name, record)
  redis.call('ZADD', lineage, number, name)
  revisions = math.max(revisions, number)
end
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', pending, '-inf', last)) do
  local found = redis.call('XRANGE', events, entry, entry)[1]
  local fields = found and found[2] or {}
  for at = 1, #fields, 2 do
    if fields[at] == 'e' and applied[fields[at + 1]] then
      redis.call('XACK', events, ARGV[1], entry)
      redis.call('XDEL', events, entry)
      redis.call('ZREM', pending, entry)
      waiting = waiting - 1
    end
  end
end
redis.call('HSET', state, 'current', name, 'record', record, 'revisions', revisions,
  'sequence', math.max(sequence, last), 'pending', waiting)
if waiting <= 0 then -- the ids of events that wait never expire, see append.lua
  redis.call('PEXPIRE', ids, ARGV[3])
  redis.call('PEXPIRE', older_ids, ARGV[3])
end
redis.pcall('PUBLISH', state, redis.call('HINCRBY', state, 'version', 1))
return 1
