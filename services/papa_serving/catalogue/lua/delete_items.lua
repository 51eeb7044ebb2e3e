-- Removes items of a catalogue from the index, the order and the records.
--
-- KEYS  1 vector set, 2 zset of the ids, then the hash of each item
-- ARGV  the item ids, in the order of their hashes
-- Reply how many there were
local vectors, ids, deleted = KEYS[1], KEYS[2], 0
for i = 1, #ARGV do
  redis.call('VREM', vectors, ARGV[i])
  redis.call('ZREM', ids, ARGV[i])
  deleted = deleted + redis.call('UNLINK', KEYS[i + 2])
end
return deleted
