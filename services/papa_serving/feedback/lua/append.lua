-- Appends events of one partition, user by user; what it accepts is complete before it answers.
--
-- KEYS  1 events stream, 2 dead stream; then for each user: user hash, pending zset, letters zset, ids hash, older ids
--         hash, and the item hash of each of the user's events that names an item, in order
-- ARGV  1 backlog limit, 2 time to live of event ids in ms, 3 consumer group, 4 event ids of one user that are remembered; then
--         for each user: tenant, user, number of events, and one string of all the events as
--         papa_serving.feedback.entries makes it
-- Reply "code sequence" for each event, then how many event ids were forgotten, all joined by spaces; the sequence is 0 for
--       what was refused
local ACCEPTED, DUPLICATE, NO_ITEM, DELETED, FULL, REUSED, USER_FULL, NO_EVENT = 0, 1, 2, 3, 4, 5, 6, 7
local HEAD = '>I4I4I4c8d'
local stream, dead, group = KEYS[1], KEYS[2], ARGV[3]
redis.call('XLEN', dead) -- a key of another type fails before the first change, as in commit.lua
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room = tonumber(ARGV[1]) - redis.call('XLEN', stream)
local ttl = tonumber(ARGV[2])
local half_of_ids, forgotten = math.ceil(tonumber(ARGV[4]) / 2), 0
local next_key, next_arg = 3, 5
local reply = {}

local function unpack_events(packed, count)
  local events, ids, at = {}, {}, 1
  for i = 1, count do
    local event, id_length, sample_length, trace_length = {}, nil, nil, nil
    id_length, sample_length, trace_length, event.digest, event.grade, at = struct.unpack(HEAD, packed, at)
    event.id = string.sub(packed, at, at + id_length - 1)
    at = at + id_length
    event.sample = string.sub(packed, at, at + sample_length - 1)
    at = at + sample_length
    event.trace = string.sub(packed, at, at + trace_length - 1)
    at = at + trace_length
    events[i], ids[i] = event, event.id
  end
  return events, ids
end

-- What is known of these event ids: for each the digest and the sequence, or false. Ids are remembered for one to two
-- times to live: what is older than one moves aside, and expires there. So does half of what a user may have, which
-- takes the place of the half before; the ids of all events that wait are always known.
local function recall(state, since, waiting, ids_key, older_key, ids)
  local count = redis.call('HLEN', ids_key)
  local full = count >= math.max(half_of_ids, waiting)
  if full or (since and now - since > ttl) then
    since = nil
    if count > 0 then
      forgotten = forgotten + (full and redis.call('HLEN', older_key) or 0)
      redis.call('HDEL', state, 'ids_since')
      redis.call('RENAME', ids_key, older_key)
    end
  end
  local known = redis.call('HMGET', ids_key, unpack(ids))
  if redis.call('EXISTS', older_key) == 1 then
    local older = redis.call('HMGET', older_key, unpack(ids))
    for i = 1, #ids do
      known[i] = known[i] or older[i]
    end
  end
  return known, since
end

local function append_user()
  local state, pending, letters, ids_key, older_key = unpack(KEYS, next_key, next_key + 4)
  local tenant, user = ARGV[next_arg], ARGV[next_arg + 1]
  redis.call('ZCARD', pending)
  redis.call('ZCARD', letters)
  local events, ids = unpack_events(ARGV[next_arg + 3], tonumber(ARGV[next_arg + 2]))
  next_key, next_arg = next_key + 5, next_arg + 4
  local fields = redis.call('HMGET', state, 'deleted', 'sequence', 'likes', 'dislikes', 'pending', 'version', 'ids_since')
  local deleted, sequence = fields[1], tonumber(fields[2]) or 0
  local likes, dislikes = tonumber(fields[3]) or 0, tonumber(fields[4]) or 0
  local waiting = tonumber(fields[5]) or 0
  local known, since = recall(state, tonumber(fields[7]), waiting, ids_key, older_key, ids)
  local said_here, ids_here, pending_here, letters_gone, changed = {}, {}, {}, 0, false

  local function remember(id, said)
    said_here[id], changed = said, true
    ids_here[#ids_here + 1], ids_here[#ids_here + 2] = id, said
  end

  -- Takes an event back: of one that waits, or is dead, nothing is left; one that was applied is named to the trainer.
  local function cancel(event)
    local id = event.sample
    local said = said_here[id] or redis.call('HGET', ids_key, id) or redis.call('HGET', older_key, id)
    if not said then
      return NO_EVENT, 0
    end
    local number, sign = string.match(said, '^(%d+)([+x-]?)', 9)
    sequence = sequence + 1
    if sign ~= 'x' then
      local entry = pending_here[number] or redis.call('ZRANGEBYSCORE', pending, number, number)[1]
      local letter = redis.call('ZRANGEBYSCORE', letters, number, number)[1]
      if entry then
        redis.call('XACK', stream, group, entry)
        redis.call('XDEL', stream, entry)
        redis.call('ZREM', pending, entry)
        pending_here[number] = nil
        waiting, room = waiting - 1, room + 1
      elseif letter then
        redis.call('XDEL', dead, letter)
        redis.call('ZREM', letters, letter)
        letters_gone = letters_gone + 1
      else
        pending_here[tostring(sequence)] = redis.call('XADD', stream, '*', 't', tenant, 'u', user, 'e', event.id,
          'g', 0, 'n', sequence, 's', '', 'r', '', 'c', event.trace, 'k', number)
        waiting, room = waiting + 1, room - 1
      end
      likes = likes - (sign == '+' and 1 or 0)
      dislikes = dislikes - (sign == '-' and 1 or 0)
      remember(id, string.sub(said, 1, 8) .. number .. 'x')
    end
    remember(event.id, event.digest .. sequence .. 'x')
    return ACCEPTED, sequence
  end

  local function judge(event, said, item)
    if deleted then
      return DELETED, 0
    end
    said = said_here[event.id] or said
    if said then
      if string.sub(said, 1, 8) ~= event.digest then
        return REUSED, 0
      end
      return DUPLICATE, string.match(said, '^%d+', 9)
    end
    if event.grade == 0 then -- also where the backlog is full: it mostly makes room
      return cancel(event)
    end
    if room <= 0 then
      return FULL, 0
    end
    if waiting > 0 and waiting >= room then -- no more than is free for everybody else
      return USER_FULL, 0
    end
    local sample, revision = event.sample, ''
    if item then
      local found = redis.call('HMGET', item, 'sample', 'revision')
      sample, revision = found[1], found[2]
      if not sample then
        return NO_ITEM, 0
      end
    end
    sequence, room, waiting = sequence + 1, room - 1, waiting + 1
    local entry = redis.call('XADD', stream, '*', 't', tenant, 'u', user, 'e', event.id, 'g', event.grade,
      'n', sequence, 's', sample, 'r', revision, 'c', event.trace)
    remember(event.id, event.digest .. sequence .. (event.grade > 0 and '+' or '-'))
    pending_here[tostring(sequence)] = entry
    if event.grade > 0 then
      likes = likes + 1
    else
      dislikes = dislikes + 1
    end
    return ACCEPTED, sequence
  end

  for i, event in ipairs(events) do
    local item = nil
    if event.sample == '' then
      item, next_key = KEYS[next_key], next_key + 1
    end
    reply[#reply + 1], reply[#reply + 2] = judge(event, known[i], item)
  end
  if changed then
    local version = (tonumber(fields[6]) or 0) + 1
    redis.call('HSET', ids_key, unpack(ids_here))
    local new_pending = {}
    for number, entry in pairs(pending_here) do
      new_pending[#new_pending + 1], new_pending[#new_pending + 2] = number, entry
    end
    if #new_pending > 0 then
      redis.call('ZADD', pending, unpack(new_pending))
    end
    if letters_gone > 0 then
      redis.call('HINCRBY', state, 'dead', -letters_gone)
    end
    redis.call('HSET', state, 'sequence', sequence, 'likes', likes, 'dislikes', dislikes,
      'pending', waiting, 'version', version, 'ids_since', since or now)
    if not since then
      redis.call('PEXPIRE', ids_key, 2 * ttl)
    end
    redis.pcall('PUBLISH', state, version)
  end
end

while next_arg <= #ARGV do
  append_user()
end
reply[#reply + 1] = forgotten
return table.concat(reply, ' ')
