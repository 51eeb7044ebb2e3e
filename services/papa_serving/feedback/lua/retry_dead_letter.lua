-- Appends a dead letter's event again as the user's newest.
--
-- KEYS  1 events stream, 2 dead stream, 3 user hash, 4 pending zset, 5 letters zset, 6 call
-- ARGV  1 letter id, 2 time to live of the call in ms
-- Reply 1; 0 when the letter is gone
local events, dead, state, pending, letters, call = unpack(KEYS)
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
local sequence = redis.call('HINCRBY', state, 'sequence', 1)
local entry = redis.call('XADD', events, '*', 't', said.t, 'u', said.u, 'e', said.e, 'g', said.g, 'n', sequence,
  's', said.s, 'r', said.r, 'c', said.c or '', 'k', said.k or '')
redis.call('ZADD', pending, sequence, entry)
redis.call('XDEL', dead, ARGV[1])
redis.call('ZREM', letters, ARGV[1])
redis.call('HINCRBY', state, 'pending', 1)
redis.call('HINCRBY', state, 'dead', -1)
redis.call('SET', call, 1, 'PX', ARGV[2])
redis.pcall('PUBLISH', state, redis.call('HINCRBY', state, 'version', 1))
return 1
