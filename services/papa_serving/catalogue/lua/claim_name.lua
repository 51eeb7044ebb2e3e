-- Takes one of the places that a tenant has for catalogues, or renews the claim of a catalogue that has one.
--
-- KEYS  1 hash of the tenant's catalogues: name → mark of its last claim
-- ARGV  1 name, 2 mark, 3 how many catalogues the tenant may have
-- Reply 1 when the catalogue has its place, 0 when all places are taken
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
