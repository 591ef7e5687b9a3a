-- Every change of presence in Redis, one atomic step each. core/store.h has the rules and the keys,
-- core/memory_database.cc the same steps in C++: the differential test compares the two, reply by reply and key by key.
--
--   write    kind connection attach user user_json username username_json status silent_ms rooms
--            previous_status previous_version session issued_at_ms newcomer linger_ms
--            -> {0 fenced, 1 applied, 2 revoked or 3 too many, status, version}
--   refresh  {user connection attach pinged}*     -> the positions, from 0, of those that are missing
--   sweep    users_max                            -> {how many users were due, of which failed}
--
-- presence.user:{user_id} is a hash:
--   state       "status version last_seen changed connection"; status 0: nothing known yet
--   username, and user_json, username_json where the text needs escapes in JSON: they are made in C++, never here
--   held        "status until"
--   conn-...    for each connection: "attach deadline status", and each of its rooms behind a NUL;
--               status 0: a tombstone; with a '-' in front of the first NUL, or of the end: it lingers
--
-- Numbers are written with %.0f (Lua's own conversion keeps 14 digits), are whole and below 2^53. Where it can, the
-- script hands on the text that it has read: at some two million heartbeats a minute each microsecond here is 3 % of
-- a processor.

local now_us = tonumber(ARGV[2])  -- from tests; empty otherwise
if not now_us then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
local now = math.floor(now_us / 1000)
local run, core = ARGV[3], ARGV[4]
local presence_ttl = ARGV[5]
local entry_lifetime, tombstone_lifetime = tonumber(ARGV[6]), tonumber(ARGV[7])
local quiet_period, sweep_gap_max, log_lifetime = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local connections_max = tonumber(ARGV[11])
local first = 12  -- of the operation's own arguments

local OFFLINE = 1
-- Of one user: somebody who reconnects all the time leaves a tombstone per connection, and every write reads them all.
-- One that is lost costs little: a late write could bring its connection back, until the sweep ends it.
local TOMBSTONES_MAX = 64
local STATUS_NAMES = {'offline', 'away', 'online'}

local function text(number)
  return string.format('%.0f', number)
end
local now_text = text(now)

-- "2025-01-14T12:00:00Z". The calendar is counted in eras of 400 years whose years begin in March.
local timestamps = {}  -- by second: it is nearly always the same one
local function timestamp(ms)
  local floor = math.floor
  local seconds = floor(ms / 1000)
  if timestamps[seconds] then return timestamps[seconds] end
  local days = floor(seconds / 86400)
  local second = seconds - days * 86400
  days = days + 719468
  local era = floor(days / 146097)
  local day = days - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * day + 2) / 153)
  day = day - floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  timestamps[seconds] = string.format('%04d-%02d-%02dT%02d:%02d:%02dZ', year, month, day, floor(second / 3600),
                                      floor(second / 60) % 60, second % 60)
  return timestamps[seconds]
end

-- ---- link.v1.BusEnvelope, by hand: tag, then varint or length and bytes; what is empty is left out.

local function varint(number)
  local bytes = ''
  while number >= 128 do
    bytes = bytes .. string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return bytes .. string.char(number)
end

local function number_field(tag, number)
  return number == 0 and '' or string.char(tag) .. varint(number)
end

local function bytes_field(tag, bytes)
  return bytes == '' and '' or string.char(tag) .. varint(#bytes) .. bytes
end

-- ---- a user's hash

-- The connections and what is held; `state` is parsed by read_state, where it is needed.
local function read_user(id)
  -- With room for what refresh adds: growing a table costs more than the text that goes into it.
  local user = {id = id, key = 'presence.user:' .. id, entries = {}, username = '', held = 0, held_until = 0,
                state = false, field = false, value = false, pinged = false}
  local flat = redis.pcall('HGETALL', user.key)
  if flat.err then
    if not string.find(flat.err, 'WRONGTYPE', 1, true) then error(flat.err) end
    redis.call('DEL', user.key)  -- the key is ours by its name: whatever somebody else has put there
    flat = {}
  end
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    if field == 'state' or field == 'username' or field == 'user_json' or field == 'username_json' then
      user[field] = value
    elseif field == 'held' then
      local held, held_until = string.match(value, '^([0-3]) (%d+)$')
      if held then user.held, user.held_until = tonumber(held), tonumber(held_until) end
    else
      local attach, deadline, status, rooms = string.match(value, '^(%d+) (%d+) ([0-3])(.*)$')
      if attach then
        user.entries[field] = {attach = tonumber(attach), deadline = tonumber(deadline), deadline_text = deadline,
                               status = tonumber(status), rooms = rooms}
      end
    end
  end
  return user
end

local function read_state(user)
  user.status, user.version, user.version_text, user.last_seen, user.last_seen_text, user.changed, user.changed_text,
    user.connection = 0, 0, '0', 0, '0', 0, '0', ''
  if user.state then
    local status, version, last_seen, changed, connection = string.match(user.state, '^([0-3]) (%d+) (%d+) (%d+) (.*)$')
    if status then
      user.status, user.version, user.version_text = tonumber(status), tonumber(version), version
      user.last_seen, user.last_seen_text = tonumber(last_seen), last_seen
      user.changed, user.changed_text, user.connection = tonumber(changed), changed, connection
    end
  end
  user.known = user.status ~= 0
end

local function state_text(user)
  return user.status .. ' ' .. user.version_text .. ' ' .. user.last_seen_text .. ' ' .. user.changed_text .. ' ' ..
         user.connection
end

local function entry_text(attach, deadline_text, status, rooms)
  return attach .. ' ' .. deadline_text .. ' ' .. status .. rooms
end

-- Its connection is gone, and its client expected elsewhere.
local function lingers(entry)
  return entry.rooms ~= '' and string.byte(entry.rooms) == 45
end

local function see(user, at)
  if at > user.last_seen then
    user.last_seen = at
    user.last_seen_text = at == now and now_text or text(at)
  end
end

-- Adds the rooms of all entries to a set; true when there are any.
local function collect_rooms(user, set)
  local any = false
  for _, entry in pairs(user.entries) do
    if entry.rooms ~= '' then
      for room in string.gmatch(entry.rooms, '%z([^%z]+)') do
        set[room] = true
        any = true
      end
    end
  end
  return any
end

local function write_presence(user)
  redis.call('SETEX', 'presence:' .. user.id, presence_ttl,
             '{"user_id":' .. (user.user_json or '"' .. user.id .. '"') ..
             ',"username":' .. (user.username_json or '"' .. user.username .. '"') ..
             ',"status":"' .. STATUS_NAMES[user.status] ..
             '","connection_id":"' .. user.connection ..
             '","last_seen":"' .. timestamp(user.last_seen) ..
             '","version":' .. user.version_text .. '}')
end

-- The earliest moment at which something of the user can end, as number and as text; nil when nothing can.
local function earliest_deadline(user)
  local earliest, earliest_text
  for _, entry in pairs(user.entries) do
    if entry.status ~= 0 and (not earliest or entry.deadline < earliest) then
      earliest, earliest_text = entry.deadline, entry.deadline_text
    end
  end
  if user.held ~= 0 and (not earliest or user.held_until < earliest) then
    return user.held_until, text(user.held_until)
  end
  return earliest, earliest_text
end

local function publish_change(user, room_set)
  local rooms = {}
  for room in pairs(room_set) do rooms[#rooms + 1] = room end
  table.sort(rooms)
  local change = {bytes_field(0x0A, user.id), bytes_field(0x12, user.username), number_field(0x18, user.status),
                  number_field(0x20, user.version), number_field(0x28, user.changed)}
  for _, room in ipairs(rooms) do change[#change + 1] = bytes_field(0x32, room) end
  redis.call('PUBLISH', 'presence.bus', bytes_field(0x2A, table.concat(change)))
end

local function publish_update(user)
  redis.call('PUBLISH', 'presence:updates',
             '{"origin":"presence.core/' .. core .. '","type":"presence","user_id":' ..
             (user.user_json or '"' .. user.id .. '"') ..
             ',"username":' .. (user.username_json or '"' .. user.username .. '"') ..
             ',"status":"' .. STATUS_NAMES[user.status] ..
             '","timestamp":"' .. timestamp(user.changed) ..
             '","version":' .. user.version_text .. '}')
end

-- ---- quiet: Redis, or every core, was away, and nobody's silence means anything yet

local function read_quiet()
  local sweep = redis.call('HMGET', 'presence.sweep', 'at', 'run', 'quiet_until')
  local at, quiet_until = tonumber(sweep[1]), tonumber(sweep[3]) or 0
  if now < quiet_until then return true, quiet_until end
  -- Where no sweep has noticed yet, the next one will.
  return not at or sweep[2] ~= run or now - at > sweep_gap_max, now + quiet_period
end

local function drop_expired(user, quiet)
  for name, entry in pairs(user.entries) do
    if entry.deadline <= now and (entry.status == 0 or not quiet) then
      redis.call('HDEL', user.key, name)
      user.entries[name] = nil
    end
  end
  if user.held ~= 0 and user.held_until <= now and not quiet then
    redis.call('HDEL', user.key, 'held')
    user.held, user.held_until = 0, 0
  end
end

-- Makes room for the tombstone of connection `added`, or, without one, for none: the earliest to end go.
local function bound_tombstones(user, added)
  local tombstones = {}
  for name, entry in pairs(user.entries) do
    if entry.status == 0 and name ~= added then tombstones[#tombstones + 1] = name end
  end
  local excess = #tombstones - TOMBSTONES_MAX + (added and 1 or 0)
  if excess <= 0 then return end
  table.sort(tombstones, function(a, b)
    local first_ends, second_ends = user.entries[a].deadline, user.entries[b].deadline
    if first_ends ~= second_ends then return first_ends < second_ends end
    return a < b
  end)
  for i = 1, excess do
    redis.call('HDEL', user.key, tombstones[i])
    user.entries[tombstones[i]] = nil
  end
end

-- Derives the user's status from the entries, writes down what follows from it, and publishes.
-- `previous`: the status before the transition, 0 when nobody knows. `fields`: of the hash, also to be written.
local function settle(user, previous, rooms_before, fields)
  local derived, connection = OFFLINE, user.connection
  for name, entry in pairs(user.entries) do
    if entry.status > derived or (entry.status == derived and derived > OFFLINE and name < connection) then
      derived, connection = entry.status, name
    end
  end
  user.connection = connection
  if user.held ~= 0 and derived >= user.held then
    redis.call('HDEL', user.key, 'held')
    user.held, user.held_until = 0, 0
  end
  local status = math.max(derived, user.held)
  local changed = status ~= math.max(previous, OFFLINE)
  local restored = not changed and previous ~= 0 and user.status ~= status
  if changed then
    user.version = math.max(user.version + 1, now_us)
    user.version_text = text(user.version)
    user.changed, user.changed_text = now, now_text
  elseif restored then
    user.changed = math.floor(user.version / 1000)
    user.changed_text = text(user.changed)
  end
  if changed or restored then
    user.status = status
    if status == OFFLINE then
      redis.call('ZREM', 'presence.online', user.id)
    else
      redis.call('ZADD', 'presence.online', '0', user.id)
    end
    redis.call('ZADD', 'presence.changes', user.version_text, user.id)
  end

  fields[#fields + 1] = 'state'
  fields[#fields + 1] = state_text(user)
  redis.call('HSET', user.key, unpack(fields))
  if user.status ~= 0 then write_presence(user) end
  local deadline, deadline_text = earliest_deadline(user)
  if deadline then
    redis.call('ZADD', 'presence.deadlines', deadline_text, user.id)
    if not user.present then redis.call('PERSIST', user.key) end
  else
    redis.call('ZREM', 'presence.deadlines', user.id)
    redis.call('PEXPIRE', user.key, log_lifetime)  -- gone; the version is kept for a while
  end

  local rooms_after = {}
  local any_after = collect_rooms(user, rooms_after)
  if changed then
    for room in pairs(rooms_before) do rooms_after[room] = true end
    publish_change(user, rooms_after)
    publish_update(user)
  elseif any_after then
    for room in pairs(rooms_before) do rooms_after[room] = nil end
    if next(rooms_after) then publish_change(user, rooms_after) end
  end
  return {1, status, user.version}
end

-- ---- who is not let in

-- A logout is kept, by keep_logout.lua, which covers a token of that session that was issued then.
local function logged_out(user, session, issued_at)
  local kept
  if session == '' then
    kept = redis.call('MGET', 'revoked:user:' .. user.id)
  else
    kept = redis.call('MGET', 'revoked:user:' .. user.id, 'revoked:session:' .. session)
  end
  for i = 1, #kept do
    local at = kept[i] and string.match(kept[i], '^%d+$')
    if at and issued_at <= tonumber(at) then return true end
  end
  return false
end

local function live_entries(user, quiet)
  local count = 0
  for _, entry in pairs(user.entries) do
    if entry.status ~= 0 and not lingers(entry) and (quiet or entry.deadline > now) then count = count + 1 end
  end
  return count
end

-- Whose place a newcomer takes: the least present one, so that nobody is less present for it while others are still on the way.
local function first_to_make_way(user)
  local found
  for name, entry in pairs(user.entries) do
    if lingers(entry) then
      local best = user.entries[found]
      if not best or entry.status < best.status or (entry.status == best.status and name < found) then found = name end
    end
  end
  return found
end

-- ---- the operations

local function write()
  local kind, name, attach = ARGV[first], ARGV[first + 1], tonumber(ARGV[first + 2])
  local username, silent = ARGV[first + 5], tonumber(ARGV[first + 8])
  local user = read_user(ARGV[first + 3])
  read_state(user)
  local old = user.entries[name]
  if old and (old.status ~= 0 or old.deadline > now) then
    -- A shard never opens a closed connection again: what is of the attach that has closed it is late.
    local late = old.attach == attach and (old.status == 0 or lingers(old)) and kind ~= 'remove' and kind ~= 'linger'
    if old.attach > attach or late then return {0, math.max(user.status, OFFLINE), user.version} end
  end

  local quiet, quiet_until = read_quiet()
  local told = kind ~= 'assert'  -- what the user's status was before
  local known = old and old.status ~= 0
  local expected = kind == 'linger'
  if expected and not (known and (quiet or old.deadline > now)) then kind = 'remove' end
  local ends = kind == 'remove' or kind == 'linger'
  local newcomer = ARGV[first + 14] == '1' and not ends and not known
  local revoked = not ends and logged_out(user, ARGV[first + 12], tonumber(ARGV[first + 13]))
  if revoked then
    if not told and not known then return {2, math.max(user.status, OFFLINE), user.version} end
    kind = 'remove'
  elseif newcomer and connections_max > 0 and live_entries(user, quiet) >= connections_max then
    return {3, math.max(user.status, OFFLINE), user.version}
  end

  local rooms_before = {}
  collect_rooms(user, rooms_before)
  user.present = earliest_deadline(user) ~= nil
  local previous = user.status
  if told then
    local told_previous, previous_version = tonumber(ARGV[first + 10]), tonumber(ARGV[first + 11])
    -- The caller knows of a later change than Redis does: that one was published, and is lost here.
    if previous == 0 or (told_previous ~= 0 and previous_version > user.version) then previous = told_previous end
    if previous_version > user.version then
      user.version, user.version_text = previous_version, text(previous_version)
    end
  end

  drop_expired(user, quiet)
  local replaced = newcomer and not revoked and first_to_make_way(user)
  bound_tombstones(user, kind == 'remove' and not revoked and name or replaced)
  local entry
  if kind == 'remove' then
    entry = {deadline = now + tombstone_lifetime, status = 0, rooms = ''}
  elseif kind == 'linger' then
    -- Its rooms are still those who are to be told when it ends.
    entry = {deadline = now + tonumber(ARGV[first + 15]), status = old.status,
             rooms = lingers(old) and old.rooms or '-' .. old.rooms}
  else
    entry = {deadline = now + entry_lifetime - silent, status = tonumber(ARGV[first + 7]), rooms = ARGV[first + 9]}
  end
  local fields = {}
  if revoked then  -- no tombstone: this answer may be lost, and the connection be asserted again, or with a newer token
    redis.call('HDEL', user.key, name)
    user.entries[name] = nil
  else
    entry.attach, entry.deadline_text = attach, text(entry.deadline)
    user.entries[name] = entry
    fields = {name, entry_text(ARGV[first + 2], entry.deadline_text, entry.status, entry.rooms)}
  end
  if replaced then
    local gone = user.entries[replaced]
    gone.deadline, gone.status, gone.rooms = now + tombstone_lifetime, 0, ''
    gone.deadline_text = text(gone.deadline)
    fields[#fields + 1] = replaced
    fields[#fields + 1] = entry_text(text(gone.attach), gone.deadline_text, 0, '')
  end
  local function set(field, value)
    if value == user[field] then return end
    user[field] = value
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if ARGV[first + 4] ~= '' then set('user_json', ARGV[first + 4]) end
  if username ~= '' then
    set('username', username)
    if ARGV[first + 6] ~= '' then
      set('username_json', ARGV[first + 6])
    elseif user.username_json then
      redis.call('HDEL', user.key, 'username_json')
      user.username_json = nil
    end
  end
  if user.connection == '' then user.connection = name end
  see(user, now - silent)

  if (kind == 'reassert' or expected) and quiet then
    local derived = math.max(user.held, OFFLINE)
    for _, other in pairs(user.entries) do derived = math.max(derived, other.status) end
    if derived < previous then
      user.held, user.held_until = previous, quiet_until
      fields[#fields + 1] = 'held'
      fields[#fields + 1] = previous .. ' ' .. text(quiet_until)
    end
  end
  local result = settle(user, previous, rooms_before, fields)
  if revoked then result[1] = 2 end
  return result
end

-- Reads and settles each user once, however many of the entries are of the same user: there may be thousands.
local function refresh()
  local quiet = read_quiet()
  local deadline, missing = now + entry_lifetime, {}
  local deadline_text = text(deadline)
  local users, touched = {}, {}
  for i = first, #ARGV, 4 do
    local id, name, attach, pinged = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '1'
    local user = users[id]
    if not user then
      user = read_user(id)
      users[id] = user
    end
    local entry = user.state and user.entries[name]  -- without it somebody has been at the hash: to be asserted again
    if not entry or entry.status == 0 or lingers(entry) or entry.attach > tonumber(attach) or
      (entry.deadline <= now and not quiet) then
      missing[#missing + 1] = (i - first) / 4
    else
      entry.attach, entry.deadline, entry.deadline_text = tonumber(attach), deadline, deadline_text
      local value = entry_text(attach, deadline_text, entry.status, entry.rooms)
      if user.field then  -- one field waits for `state`, to be written with it: nearly all users have just one
        redis.call('HSET', user.key, user.field, user.value)
      else
        touched[#touched + 1] = user
      end
      user.field, user.value, user.pinged = name, value, user.pinged or pinged
    end
  end
  for _, user in ipairs(touched) do
    local unwritten = user.pinged or redis.call('EXPIRE', 'presence:' .. user.id, presence_ttl) == 0
    if unwritten then read_state(user) end
    if user.pinged and user.known then
      see(user, now)
      redis.call('HSET', user.key, user.field, user.value, 'state', state_text(user))
    else
      redis.call('HSET', user.key, user.field, user.value)
    end
    if unwritten and user.known then write_presence(user) end
    local _, earliest_text = earliest_deadline(user)
    redis.call('ZADD', 'presence.deadlines', earliest_text, user.id)
  end
  return missing
end

-- Ends what of the user has expired.
local function end_expired(id)
  local user = read_user(id)
  read_state(user)
  if user.known then
    local rooms_before = {}
    collect_rooms(user, rooms_before)
    user.present = true
    drop_expired(user, false)
    settle(user, user.status, rooms_before, {})
  else  -- somebody has taken the hash away
    redis.call('ZREM', 'presence.deadlines', id)
    redis.call('ZREM', 'presence.online', id)
  end
end

local function sweep()
  local old = redis.call('HMGET', 'presence.sweep', 'at', 'run', 'quiet_until', 'began')
  local at, quiet_until, began = tonumber(old[1]), tonumber(old[3]) or 0, tonumber(old[4]) or 0
  if not at or old[2] ~= run then
    began = now_us  -- what was in the change log before may be lost
    quiet_until = now + quiet_period
  elseif now - at > sweep_gap_max then
    quiet_until = now + quiet_period
  end
  redis.call('HSET', 'presence.sweep', 'at', now_text, 'run', run, 'quiet_until', text(quiet_until),
             'began', text(began))
  redis.call('ZREMRANGEBYSCORE', 'presence.changes', '-inf', '(' .. text(now_us - log_lifetime * 1000))
  if now < quiet_until then return {0, 0} end

  local due = redis.call('ZRANGEBYSCORE', 'presence.deadlines', '-inf', text(now), 'LIMIT', '0', ARGV[first])
  local failed = 0
  for _, id in ipairs(due) do
    if not pcall(end_expired, id) then
      -- It must not stand in front of the others for ever. Put off rather than forgotten: where the reason passes, as
      -- that of an ACL, this user, too, ends.
      failed = failed + 1
      redis.call('ZADD', 'presence.deadlines', text(now + entry_lifetime), id)
    end
  end
  return {#due, failed}
end

if ARGV[1] == 'write' then return write() end
if ARGV[1] == 'refresh' then return refresh() end
return sweep()
