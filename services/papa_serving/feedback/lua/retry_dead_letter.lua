-- Appends a dead letter's event again as the user's newest. Its id is remembered anew, with the new sequence, so that a
-- retry stays a duplicate and taking it back finds it. Where the id was forgotten meanwhile, nobody knows the digest of what
-- was said: it is zero, and append.lua recognises the event by its id alone. While the user is being merged into another, the
-- state remembers which sequence the event had when the merge began, see begin_merge.lua.
--
-- KEYS  1 events stream, 2 dead stream, 3 user hash, 4 pending zset, 5 letters zset, 6 call, 7 ids hash, 8 older ids hash
-- ARGV  1 letter id, 2 time to live of the call in ms
-- Reply 1; 0 when the letter is gone
local events, dead, state, pending, letters, call, ids, older_ids = unpack(KEYS)
if redis.call('EXISTS', call) == 1 then
  return 1
end
local letter = redis.call('XRANGE', dead, ARGV[1], ARGV[1])[1]
if not letter then
  return 0
end
local said = {}
for i = 1, #letter[2], 2 do
  said[letter[2][i]] = letter[2][i + 1]
end
redis.call('ZCARD', pending) -- a key of another type fails before the first change, as in commit.lua
redis.call('ZCARD', letters)
redis.call('XLEN', events)
local known, older = redis.call('HGET', ids, said.e), redis.call('HGET', older_ids, said.e)
known = known or older
local sequence = redis.call('HINCRBY', state, 'sequence', 1)
local entry = redis.call('XADD', events, '*', 't', said.t, 'u', said.u, 'e', said.e, 'g', said.g, 'n', sequence,
  's', said.s, 'r', said.r, 'c', said.c or '', 'k', said.k or '')
redis.call('ZADD', pending, sequence, entry)
redis.call('XDEL', dead, ARGV[1])
redis.call('ZREM', letters, ARGV[1])
if not known or tonumber(string.match(known, '^%d+', 9)) <= tonumber(said.n) then -- else the id is a later event's
  local sign = (said.k or '') ~= '' and 'x' or tonumber(said.g) > 0 and '+' or '-'
  if redis.call('EXISTS', ids) == 0 then
    local time = redis.call('TIME')
    redis.call('HSET', state, 'ids_since', time[1] * 1000 + math.floor(time[2] / 1000))
  end
  redis.call('HDEL', older_ids, said.e)
  redis.call('HSET', ids, said.e, (known and string.sub(known, 1, 8) or string.rep('\0', 8)) .. sequence .. sign)
end
redis.call('PERSIST', ids) -- while an event waits, see append.lua
redis.call('PERSIST', older_ids)
local merge = redis.call('HMGET', state, 'merging', 'renumbered')
if merge[1] then
  local RENUMBERED, moved, first = 1000, {}, tostring(said.n)
  for number, before in string.gmatch(merge[2] or '', '(%d+):(%d+)') do
    if number == first then
      first = before
    else
      moved[#moved + 1] = number .. ':' .. before
    end
  end
  moved[#moved + 1] = sequence .. ':' .. first
  redis.call('HSET', state, 'renumbered', table.concat(moved, ' ', math.max(1, #moved - RENUMBERED + 1)))
end
redis.call('HINCRBY', state, 'pending', 1)
redis.call('HINCRBY', state, 'dead', -1)
redis.call('SET', call, 1, 'PX', ARGV[2])
redis.pcall('PUBLISH', state, redis.call('HINCRBY', state, 'version', 1))
return 1
