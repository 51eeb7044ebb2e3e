-- Removes items of a catalogue from the index, the order and the records; with the last one, the encoder.
--
-- KEYS  1 vector set, 2 zset of the ids, 3 encoder of the catalogue, then the hash of each item
-- ARGV  the item ids, in the order of their hashes
-- Reply how many there were
local vectors, ids, encoder, deleted = KEYS[1], KEYS[2], KEYS[3], 0
for i = 1, #ARGV do
  redis.call('VREM', vectors, ARGV[i])
  redis.call('ZREM', ids, ARGV[i])
  deleted = deleted + redis.call('UNLINK', KEYS[i + 3])
end
if redis.call('ZCARD', ids) == 0 then
  redis.call('UNLINK', encoder)
end
return deleted
