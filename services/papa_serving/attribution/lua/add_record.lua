-- Keeps a record of what a user was shown or did, unless the user is deleted; the oldest beyond the quota, or past their time to
-- live, go.
--
-- KEYS  1 user hash, 2 impressions or attributed stream
-- ARGV  1 records of one user that are kept, 2 their time to live in ms, 3 the record (JSON)
-- Reply 1; 0 when the user is deleted
if redis.call('HEXISTS', KEYS[1], 'deleted') == 1 then
  return 0
end
local time, ttl = redis.call('TIME'), tonumber(ARGV[2])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[1], '*', 'd', ARGV[3])
redis.call('XTRIM', KEYS[2], 'MINID', math.max(0, now - ttl))
redis.call('PEXPIRE', KEYS[2], ttl)
return 1
