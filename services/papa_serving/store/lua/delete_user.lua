-- Deletes a user: sets the tombstone and removes everything else that Redis holds of them, in one step.
--
-- KEYS  1 user hash, 2 pending zset, 3 letters zset, 4 ids hash, 5 older ids hash, 6 lineage zset, 7 records hash,
--       8 items zset, 9 attributed stream, 10 impressions stream, 11 counts hash, 12 seen zset, 13 events stream,
--       14 dead stream, 15 users zset, 16 sums of the tenant hash, 17 sums hash, 18 noted ids hash,
--       19 older noted ids hash; and the item hashes, ARGV[4] .. item id,
--       in the same slot
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
redis.call('XLEN', KEYS[13]) -- a key of another type fails before the first change
redis.call('XLEN', KEYS[14])
redis.call('ZCARD', KEYS[15])
local counts = redis.call('HGETALL', KEYS[11])
redis.call('HLEN', KEYS[16])
redis.call('HLEN', KEYS[17])
local time = redis.call('TIME')

local alive = 0
in_batches(events, function(ids)
  redis.call('XDEL', KEYS[13], unpack(ids))
  redis.call('XACK', KEYS[13], group, unpack(ids))
end)
in_batches(letters, function(ids)
  redis.call('XDEL', KEYS[14], unpack(ids))
end)
in_batches(items, function(ids)
  for i, id in ipairs(ids) do
    ids[i] = ARGV[4] .. id
  end
  alive = alive + redis.call('UNLINK', unpack(ids))
end)
-- What experiments have counted of the user leaves the sums, see attribution/lua/count.lua.
local function subtract(field, number)
  for i = 16, 17 do
    if redis.call('HEXISTS', KEYS[i], field) == 1 then
      redis.call('HINCRBY', KEYS[i], field, -number)
    end
  end
end
for i = 1, #counts, 2 do
  local arm, numbers = counts[i], {}
  for number in string.gmatch(counts[i + 1], '%d+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  local shown = numbers[1]
  subtract(arm .. ' users', 1)
  subtract(arm .. ' shown', shown)
  subtract(arm .. ' shown_squared', shown * shown)
  for at, measure in ipairs({ 'click', 'like', 'purchase' }) do
    local hits = numbers[at + 1]
    subtract(arm .. ' ' .. measure .. ' hits', hits)
    subtract(arm .. ' ' .. measure .. ' hits_squared', hits * hits)
    subtract(arm .. ' ' .. measure .. ' cross', hits * shown)
  end
end
redis.call('UNLINK', unpack(KEYS, 1, 12))
redis.call('UNLINK', KEYS[18], KEYS[19])
redis.call('ZREM', KEYS[15], ARGV[7])
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
