-- Appends events of one partition, user by user; what it accepts is complete before it answers.
--
-- KEYS  1 events stream, 2 dead stream, 3 users zset; then for each user: user hash, pending zset, letters zset, ids hash, older ids
--         hash, attributed stream, noted ids hash, older noted ids hash, and the item hash of each of the user's labels that
--         names an item, in order
-- ARGV  1 backlog limit, 2 time to live of event ids in ms, 3 consumer group, 4 event ids of one user that are remembered,
--         5 attributed events of one user that are kept, 6 their time to live in ms; then for each user: tenant, user, number
--         of events, and one string of all the events as
--         papa_serving.feedback.entries makes it
-- Reply "code sequence" for each event, then how many event ids were forgotten, all joined by spaces; the sequence is 0 for
--       what was refused, and for a merge's label that was brought before and whose id is forgotten
local ACCEPTED, DUPLICATE, NO_ITEM, DELETED, FULL, REUSED, USER_FULL, NO_EVENT = 0, 1, 2, 3, 4, 5, 6, 7
local NOTED, NOTED_BEFORE = 8, 9 -- accepted, now or before, as no label, because the item is gone
local HEAD = '>I4I4I4I4c8dB'
local stream, dead, users, group = KEYS[1], KEYS[2], KEYS[3], ARGV[3]
redis.call('ZCARD', users)
redis.call('XLEN', dead) -- a key of another type fails before the first change, as in commit.lua
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room = tonumber(ARGV[1]) - redis.call('XLEN', stream)
local ttl = tonumber(ARGV[2])
local half_of_ids, forgotten = math.floor(tonumber(ARGV[4]) / 2), 0
-- Events that are no label remember their ids apart, half as many: so many views there may be, they push out no label's id.
local half_of_noted = math.max(1, math.floor(tonumber(ARGV[4]) / 4))
local most_ids = math.floor(math.max(tonumber(ARGV[4]), tonumber(ARGV[1])) / 2) -- while the older half must stay
local MERGED_ID = '^merged/(%x+)/(%d+)$' -- of a label that a merge brings, gateway/transfer.py: the merge's name, its sequence
local MERGES = 16 -- how many of the newest merges are remembered; the older ones have ended
local ENDED = 1000 -- how many of the events that a guest has taken back during a merge are remembered, see begin_merge.lua
local UNKNOWN = string.rep('\0', 8) -- the digest of an event whose id was forgotten, see retry_dead_letter.lua
local most_attributed, attributed_ttl = ARGV[5], tonumber(ARGV[6])
local next_key, next_arg = 4, 7
local reply = {}

local function unpack_events(packed, count)
  local events, ids, at = {}, {}, 1
  for i = 1, count do
    local event, id_length, sample_length, trace_length, note_length = {}, nil, nil, nil, nil
    id_length, sample_length, trace_length, note_length, event.digest, event.grade, event.typed, at =
      struct.unpack(HEAD, packed, at)
    event.id = string.sub(packed, at, at + id_length - 1)
    at = at + id_length
    event.sample = string.sub(packed, at, at + sample_length - 1)
    at = at + sample_length
    event.trace = string.sub(packed, at, at + trace_length - 1)
    at = at + trace_length
    event.note = string.sub(packed, at, at + note_length - 1)
    at = at + note_length
    event.takes_back = event.grade == 0 and sample_length > 0
    events[i], ids[i] = event, event.id
  end
  return events, ids
end

-- The ids become the older ones, whose place they take. Returns what marks them: the user's last sequence.
local function set_aside(state, sequence, ids_key, older_key)
  redis.call('HDEL', state, 'ids_since')
  redis.call('UNLINK', older_key) -- or RENAME would free it at once, which blocks Redis
  redis.call('RENAME', ids_key, older_key)
  redis.call('HSET', state, 'set_aside', sequence)
  return sequence
end

-- What is known of these event ids: for each the digest and the sequence, or false.
local function recall(ids_key, older_key, older_count, ids)
  local known = redis.call('HMGET', ids_key, unpack(ids))
  if older_count > 0 then
    local older = redis.call('HMGET', older_key, unpack(ids))
    for i = 1, #ids do
      known[i] = known[i] or older[i]
    end
  end
  return known
end

local function append_user()
  local state, pending, letters, ids_key, older_key, attributed, noted_key, older_noted_key =
    unpack(KEYS, next_key, next_key + 7)
  local tenant, user = ARGV[next_arg], ARGV[next_arg + 1]
  local oldest = tonumber(redis.call('ZRANGE', pending, 0, 0, 'WITHSCORES')[2])
  redis.call('ZCARD', letters)
  redis.call('XLEN', attributed)
  local ids_count, older_count = redis.call('HLEN', ids_key), redis.call('HLEN', older_key)
  local noted_count, older_noted_count = redis.call('HLEN', noted_key), redis.call('HLEN', older_noted_key)
  local events, ids = unpack_events(ARGV[next_arg + 3], tonumber(ARGV[next_arg + 2]))
  next_key, next_arg = next_key + 8, next_arg + 4
  local fields = redis.call('HMGET', state, 'deleted', 'sequence', 'likes', 'dislikes', 'pending', 'version',
    'ids_since', 'set_aside', 'merged', 'merging', 'ended')
  local deleted, sequence = fields[1], tonumber(fields[2]) or 0
  local likes, dislikes = tonumber(fields[3]) or 0, tonumber(fields[4]) or 0
  local waiting = tonumber(fields[5]) or 0
  local since, mark = tonumber(fields[7]), tonumber(fields[8]) or sequence
  -- The older ids must stay while an event of theirs waits: its sequence is not above the mark.
  local older_must_stay = older_count > 0 and oldest ~= nil and oldest <= mark
  -- What is older than one time to live is set aside, and goes when the next is.
  if since and now - since > ttl and not older_must_stay then
    since = nil
    if ids_count > 0 then
      mark = set_aside(state, sequence, ids_key, older_key)
      ids_count, older_count, older_must_stay = 0, ids_count, oldest ~= nil
    end
  end
  local known = recall(ids_key, older_key, older_count, ids)
  if noted_count + older_noted_count > 0 then
    local noted = recall(noted_key, older_noted_key, older_noted_count, ids)
    for i = 1, #ids do
      known[i] = known[i] or noted[i]
    end
  end
  local said_here, ids_here, noted_here, pending_here, ended_here, letters_gone, kept = {}, {}, {}, {}, {}, 0, 0
  -- A user may have two halves of ids. When one is full it is set aside and the half before goes, if it may. Further ids
  -- are refused when there are too many meanwhile.
  local new_ids, room_for_ids = 0, older_must_stay and most_ids - ids_count or math.huge

  -- By the merge's name, the sequence of the last label that it brought. Ids may be forgotten between two attempts.
  local merges, brought, merged = {}, {}, false
  for name, number in string.gmatch(fields[9] or '', '(%x+):(%d+)') do
    merges[#merges + 1], brought[name] = name, tonumber(number)
  end

  local function remember(id, said, is_there)
    new_ids = new_ids + (is_there and 0 or 1)
    said_here[id] = said
    ids_here[#ids_here + 1], ids_here[#ids_here + 2] = id, said
  end

  -- Accepts an event that is no label: nothing waits for a trainer, and nothing is there to be taken back.
  local function accept_noted(event, sign)
    sequence = sequence + 1
    local said = event.digest .. sequence .. sign
    said_here[event.id] = said
    noted_here[#noted_here + 1], noted_here[#noted_here + 2] = event.id, said
  end

  -- Keeps what an accepted event says beside its label.
  local function keep(event)
    if event.note ~= '' then
      redis.call('XADD', attributed, 'MAXLEN', most_attributed, '*', 'd', event.note)
      kept = kept + 1
    end
  end

  -- Takes an event back: of one that waits, or is dead, nothing is left; one that was applied is named to the trainer.
  local function cancel(event)
    local id = event.sample
    local newest = said_here[id] or redis.call('HGET', ids_key, id)
    local said = newest or redis.call('HGET', older_key, id) or redis.call('HGET', noted_key, id)
      or redis.call('HGET', older_noted_key, id)
    if not said then
      return NO_EVENT, 0
    end
    local number, sign = string.match(said, '^(%d+)([+xn-]?)', 9)
    if sign == 'x' or sign == 'n' then -- taken back before, or no label
      accept_noted(event, 'x')
      keep(event)
      return ACCEPTED, sequence
    end
    sequence = sequence + 1
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
    ended_here[#ended_here + 1] = number
    remember(id, string.sub(said, 1, 8) .. number .. 'x', newest)
    remember(event.id, event.digest .. sequence .. 'x')
    keep(event)
    return ACCEPTED, sequence
  end

  local function judge(event, said, item)
    if deleted then
      return DELETED, 0
    end
    said = said_here[event.id] or said
    if said then
      local digest = string.sub(said, 1, 8)
      if digest ~= event.digest and digest ~= UNKNOWN then
        return REUSED, 0
      end
      local number, sign = string.match(said, '^(%d+)(n?)', 9)
      return sign == 'n' and NOTED_BEFORE or DUPLICATE, number
    end
    local merge, number = string.match(event.id, MERGED_ID)
    if merge and tonumber(number) <= (brought[merge] or 0) then
      return DUPLICATE, 0
    end
    if event.grade == 0 and not event.takes_back then
      accept_noted(event, 'x')
      keep(event)
      return ACCEPTED, sequence
    end
    if new_ids + (event.takes_back and 2 or 1) > room_for_ids then -- taking back writes the other's id too
      return USER_FULL, 0
    end
    if event.takes_back then -- also where the backlog is full: it mostly makes room
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
      if not sample and event.typed == 1 then -- nothing to learn from, but what the user did is kept
        accept_noted(event, 'n')
        keep(event)
        return NOTED, sequence
      end
      if not sample then
        return NO_ITEM, 0
      end
    end
    sequence, room, waiting = sequence + 1, room - 1, waiting + 1
    local entry = redis.call('XADD', stream, '*', 't', tenant, 'u', user, 'e', event.id, 'g', event.grade,
      'n', sequence, 's', sample, 'r', revision, 'c', event.trace)
    remember(event.id, event.digest .. sequence .. (event.grade > 0 and '+' or '-'))
    pending_here[tostring(sequence)] = entry
    if merge then
      merges[#merges + 1] = not brought[merge] and merge or nil
      brought[merge], merged = tonumber(number), true
    end
    if event.grade > 0 then
      likes = likes + 1
    else
      dislikes = dislikes + 1
    end
    keep(event)
    return ACCEPTED, sequence
  end

  for i, event in ipairs(events) do
    local item = nil
    if event.sample == '' and event.grade ~= 0 then
      item, next_key = KEYS[next_key], next_key + 1
    end
    reply[#reply + 1], reply[#reply + 2] = judge(event, known[i], item)
  end
  if #ids_here + #noted_here > 0 then
    if #ids_here > 0 and ids_count > 0 and ids_count + new_ids > half_of_ids and not older_must_stay then
      forgotten, since = forgotten + older_count, nil
      mark = set_aside(state, tonumber(fields[2]) or 0, ids_key, older_key)
    end
    local version = (tonumber(fields[6]) or 0) + 1
    redis.call('ZADD', users, 0, tenant .. '\0' .. user) -- store/redis_keys.py, user_entry
    if #ids_here > 0 then
      redis.call('HSET', ids_key, unpack(ids_here))
    end
    if #noted_here > 0 then
      if noted_count > 0 and noted_count + #noted_here / 2 > half_of_noted then
        forgotten = forgotten + older_noted_count
        redis.call('UNLINK', older_noted_key) -- see set_aside
        redis.call('RENAME', noted_key, older_noted_key)
      end
      redis.call('HSET', noted_key, unpack(noted_here))
      redis.call('PEXPIRE', noted_key, ttl)
      redis.call('PEXPIRE', older_noted_key, ttl)
    end
    if fields[10] and #ended_here > 0 then -- the user is being merged into another, who may have these labels already
      local ended = {}
      for number in string.gmatch(fields[11] or '', '%d+') do
        ended[#ended + 1] = number
      end
      for _, number in ipairs(ended_here) do
        ended[#ended + 1] = number
      end
      redis.call('HSET', state, 'ended', table.concat(ended, ' ', math.max(1, #ended - ENDED + 1)))
    end
    local new_pending = {}
    for number, entry in pairs(pending_here) do
      new_pending[#new_pending + 1], new_pending[#new_pending + 2] = number, entry
    end
    if #new_pending > 0 then
      redis.call('ZADD', pending, unpack(new_pending))
    end
    if merged then
      local newest = {}
      for i = math.max(1, #merges - MERGES + 1), #merges do
        newest[#newest + 1] = merges[i] .. ':' .. brought[merges[i]]
      end
      redis.call('HSET', state, 'merged', table.concat(newest, ' '))
    end
    if letters_gone > 0 then
      redis.call('HINCRBY', state, 'dead', -letters_gone)
    end
    redis.call('HSET', state, 'sequence', sequence, 'likes', likes, 'dislikes', dislikes,
      'pending', waiting, 'version', version, 'ids_since', since or now, 'set_aside', mark)
    -- While an event waits, nothing is forgotten by time; commit.lua and bury.lua begin the time when the last one leaves.
    for _, key in ipairs({ ids_key, older_key }) do
      if waiting > 0 then
        redis.call('PERSIST', key)
      else
        redis.call('PEXPIRE', key, ttl)
      end
    end
    if kept > 0 then
      redis.call('XTRIM', attributed, 'MINID', math.max(0, now - attributed_ttl))
      redis.call('PEXPIRE', attributed, attributed_ttl)
    end
    redis.pcall('PUBLISH', state, version)
  end
end

while next_arg <= #ARGV do
  append_user()
end
reply[#reply + 1] = forgotten
return table.concat(reply, ' ')
