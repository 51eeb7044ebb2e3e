-- Adds another user's records to those of a user, each at its own time: entries of a stream cannot be put between others, so
-- the stream is written anew. The newest within the quota and their time to live stay. A record that is there already is not
-- added again, so that the script may be repeated.
--
-- KEYS  1 user hash, 2 impressions or attributed stream
-- ARGV  1 records of one user that are kept, 2 their time to live in ms, then for each record its time in ms and its content
--       (JSON)
-- Reply 1; 0 when the user is deleted
if redis.call('HEXISTS', KEYS[1], 'deleted') == 1 then
  return 0
end
local most, ttl, time = tonumber(ARGV[1]), tonumber(ARGV[2]), redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local records, known = {}, {}
local function add(at, data)
  local name = string.format('%.0f ', at) .. data
  if at > now - ttl and not known[name] then
    known[name] = true
    records[#records + 1] = { at = at, number = #records, data = data }
  end
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do
  add(tonumber(string.match(entry[1], '^%d+')), entry[2][2])
end
for i = 3, #ARGV, 2 do
  add(tonumber(ARGV[i]), ARGV[i + 1])
end
if #records == 0 then
  return 1
end
table.sort(records, function(one, other) -- table.sort is not stable
  return one.at < other.at or one.at == other.at and one.number < other.number
end)
redis.call('UNLINK', KEYS[2])
local last, counter = -1, 0
for i = math.max(1, #records - most + 1), #records do
  local record = records[i]
  counter = record.at == last and counter + 1 or 0
  last = record.at
  redis.call('XADD', KEYS[2], string.format('%.0f-%d', record.at, counter), 'd', record.data)
end
redis.call('PEXPIRE', KEYS[2], math.max(1, last + ttl - now))
return 1
