-- Counts what a user was shown and did, for each experiment, and keeps the sums over users that intervals need
-- (papa_serving.attribution.lift). Nothing is counted for a deleted user.
--
-- KEYS  1 user hash, 2 user's counts hash, 3 sums of the tenant hash, 4 sums hash
-- ARGV  1 time to live in ms; then for each arm: its name, items shown, then clicks, likes and purchases
-- Reply 1; 0 when the user is deleted
local MEASURES = { 'click', 'like', 'purchase' }
if redis.call('HEXISTS', KEYS[1], 'deleted') == 1 then
  return 0
end
for i = 2, 4 do
  redis.call('HLEN', KEYS[i]) -- a key of another type fails before the first change
end
local function add(field, number)
  if number ~= 0 then
    redis.call('HINCRBY', KEYS[3], field, number)
    redis.call('HINCRBY', KEYS[4], field, number)
  end
end
for at = 2, #ARGV, 5 do
  local arm, news = ARGV[at], {}
  for i = 1, 4 do
    news[i] = tonumber(ARGV[at + i])
  end
  local before = redis.call('HGET', KEYS[2], arm)
  local counts = {}
  for number in string.gmatch(before or '0 0 0 0', '%d+') do
    counts[#counts + 1] = tonumber(number)
  end
  local shown, more = counts[1], news[1]
  add(arm .. ' users', before and 0 or 1)
  add(arm .. ' shown', more)
  add(arm .. ' shown_squared', 2 * shown * more + more * more)
  for i, measure in ipairs(MEASURES) do
    local hits, new = counts[i + 1], news[i + 1]
    add(arm .. ' ' .. measure .. ' hits', new)
    add(arm .. ' ' .. measure .. ' hits_squared', 2 * hits * new + new * new)
    add(arm .. ' ' .. measure .. ' cross', (hits + new) * (shown + more) - hits * shown)
    counts[i + 1] = hits + new
  end
  counts[1] = shown + more
  redis.call('HSET', KEYS[2], arm, table.concat(counts, ' '))
end
for i = 2, 4 do
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return 1
