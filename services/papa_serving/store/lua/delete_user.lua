-- Deletes a user: sets the tombstone and removes everything else that Redis holds of them, in one step.
--
-- KEYS  1 user hash, 2 pending zset, 3 letters zset, 4 ids hash, 5 older ids hash, 6 lineage zset, 7 records hash,
--       8 items zset, 9 attributed stream, 10 impressions stream, 11 events stream, 12 dead stream, 13 users zset,
--       14 seen zset; and the item hashes, ARGV[4] .. item id, in the same slot
-- ARGV  1 receipt id, 2 time to live of the tombstone in ms, 3 consumer group, 4 start of the item keys;
--       of a merge 5 digest of the other user, 6 what begin_merge.lua saw, else "" and ""; 7 the user's
--       entry in the users zset
-- Reply the receipt, JSON (deleted_at in ms); while a tombstone stands, the one of the first deletion;
--       nothing where the user has changed since the merge began
local BATCH = 1000 -- far below what unpack can take
local state, group = KEYS[1], ARGV[3]

local function in_batches(members, work)
  for first = 1, #members, BATCH do
    work({ unpack(members, first, math.min(first + BATCH - 1, #members)) })
  end
end

local receipt = redis.call('HGET', state, 'deleted')
if receipt then
  return receipt
end
if ARGV[5] ~= '' then -- a merge, which must have seen all that goes now
  local newest = redis.call('ZRANGE', KEYS[8], -1, -1)[1] or ''
  if (redis.call('HGET', state, 'version') or '0') .. ' ' .. newest ~= ARGV[6] then
    return false
  end
end
local events = redis.call('ZRANGE', KEYS[2], 0, -1)
local letters = redis.call('ZRANGE', KEYS[3], 0, -1)
local items = redis.call('ZRANGE', KEYS[8], 0, -1)
local revisions = redis.call('HLEN', KEYS[7])
redis.call('XLEN', KEYS[11]) -- a key of another type fails before the first change
redis.call('XLEN', KEYS[12])
redis.call('ZCARD', KEYS[13])
local time = redis.call('TIME')

local alive = 0
in_batches(events, function(ids)
  redis.call('XDEL', KEYS[11], unpack(ids))
  redis.call('XACK', KEYS[11], group, unpack(ids))
end)
in_batches(letters, function(ids)
  redis.call('XDEL', KEYS[12], unpack(ids))
end)
in_batches(items, function(ids)
  for i, id in ipairs(ids) do
    ids[i] = ARGV[4] .. id
  end
  alive = alive + redis.call('UNLINK', unpack(ids))
end)
redis.call('UNLINK', KEYS[14], unpack(KEYS, 1, 10))
redis.call('ZREM', KEYS[13], ARGV[7])
receipt = cjson.encode({
  receipt_id = ARGV[1],
  deleted_at = time[1] * 1000 + math.floor(time[2] / 1000),
  events = #events,
  dead_letters = #letters,
  items = alive,
  revisions = revisions,
  merged_into = ARGV[5],
})
redis.call('HSET', state, 'deleted', receipt)
redis.call('PEXPIRE', state, ARGV[2])
redis.pcall('PUBLISH', state, 'deleted')
return receipt
