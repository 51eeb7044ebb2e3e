-- Replaces the record of the store's backbone, where it still names a certain hash.
--
-- KEYS  1 the record, JSON
-- ARGV  1 the hash that it must name, 2 the record that takes its place
-- Reply 1, or 0 when there is no record or it names another hash
local known = redis.call('GET', KEYS[1])
if not known or cjson.decode(known)['backbone'] ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
