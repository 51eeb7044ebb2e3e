-- Frees the place of a catalogue that was seen empty, unless it has been claimed since.
--
-- KEYS  1 hash of the tenant's catalogues: name → mark of its last claim
-- ARGV  1 name, 2 the mark from before it was seen empty
-- Reply how many places were freed
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
