-- The logs of rooms: a message is numbered, kept, counted once for its request_id, and published, in one atomic step; and a page of a log is
-- read. core/store.h has the rules and the keys, core/room_position.h what a position is, core/memory_rooms.cc the same steps in C++:
-- the differential test compares the two.
--
-- KEYS: presence.room:{room_id}, presence.log:{room_id}, presence.rooms, and, with a request_id, presence.request:{request_id}, as in
-- publish_once.lua.
--
--   append  now_us run envelope outside length_max bytes_max age_ms memory_ms fingerprint request_lifetime_ms
--           -> {0 published, 1 repeated or 2 conflict, answer, epoch, sequence}
--   read    now_us run note seen_epoch seen_sequence doubted_epoch doubted_sequence age_ms memory_ms epoch sequence entries_max bytes_max
--           -> {epoch, sequence, since when Redis has its data (us), 1 more follow or 0, {envelope...}}; a room of which nothing
--              is known has the present moment for its epoch, and the sequence 0
--
-- presence.room:{room_id} is a string, "epoch sequence bytes oldest run previous_epoch previous_sequence": the position, the bytes in the log,
-- about when its oldest entry was made (ms), which run of Redis began the epoch, and what was before it. An entry of the log has the fields
-- e, the envelope as published, and t (ms).

local operation = ARGV[1]
local now_us = tonumber(ARGV[2])  -- from tests; empty otherwise
if not now_us then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
local now = math.floor(now_us / 1000)
local room_key, log_key, rooms_key, request_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- At most so many entries are dropped by one append, and so many are read at once. Each may be 1 MiB, and all that XRANGE finds is copied while
-- Redis does nothing else: so the first step is one entry, and each further one as many as there were before it.
local DROPPED_MAX = 32
local READ_AT_ONCE = 8
local EXACT_MAX = 9007199254740992  -- above, Lua's numbers have gaps

local function text(number)
  return string.format('%.0f', number)
end

local function get(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or ''  -- the keys are ours by their names: whatever else is there is nothing
end

-- Since when this Redis has kept its data; from now on, when nothing says so.
local function data_since()
  local since = string.match(get(rooms_key), '^%d+$')
  if since and #since <= 16 then return tonumber(since) end
  redis.call('SET', rooms_key, text(now_us))
  return now_us
end

local epoch, sequence, bytes, oldest, run, previous_epoch, previous_sequence =
  string.match(get(room_key), '^(%d+) (%d+) (%d+) (%d+) (%S*) ?(%d*) ?(%d*)$')
epoch, sequence, bytes, oldest = tonumber(epoch), tonumber(sequence), tonumber(bytes), tonumber(oldest)
-- What nobody here could have written, or could count on from, is nothing, too.
if epoch and (epoch == 0 or sequence == 0 or math.max(epoch, sequence, bytes, oldest) >= EXACT_MAX) then epoch = nil end
if epoch then  -- a release before this one did not write what was before: nothing that counts
  previous_epoch, previous_sequence = tonumber(previous_epoch) or epoch, tonumber(previous_sequence) or 0
end

-- Of the operation: which run of Redis this is, and for how long the log and the room are kept (ms).
local this_run, age, memory
-- In the envelope of what begins an epoch, and only there.
local stated_epoch, stated_sequence = 0, 0

local function begin(at_least, before_epoch, before_sequence)
  if not epoch then
    redis.call('DEL', log_key)
    bytes, oldest = 0, now
  end
  epoch, sequence = at_least, 1
  previous_epoch, previous_sequence = before_epoch, before_sequence
  stated_epoch, stated_sequence = before_epoch, before_sequence
end

-- Fields 9 to 12 of link.v1.BusEnvelope, fixed64: protobuf takes them from either end as well.
local function fixed64_field(number, value)
  return value == 0 and '' or string.char(number * 8 + 1) .. struct.pack('<I8', value)
end
local function position_fields()
  return fixed64_field(9, epoch) .. fixed64_field(10, sequence) .. fixed64_field(11, stated_epoch) ..
         fixed64_field(12, stated_sequence)
end

-- At the position that is now the room's. `length`: of the log with it.
local length
local function log(envelope)
  local id = text(epoch) .. '-' .. text(sequence)
  local added = redis.pcall('XADD', log_key, id, 'e', envelope, 't', text(now))
  if type(added) == 'table' and added.err then
    local foreign = string.find(added.err, 'WRONGTYPE', 1, true) or string.find(added.err, 'equal or smaller', 1, true)
    if not foreign then error(added.err) end  -- nothing has been written
    redis.call('DEL', log_key)
    redis.call('XADD', log_key, id, 'e', envelope, 't', text(now))
    bytes = 0
  end
  bytes = bytes + #envelope
  length = redis.call('XLEN', log_key)
  if length == 1 then bytes, oldest = #envelope, now end  -- what was there before has ended with its age
end

local function publish(envelope)
  redis.call('SET', room_key, table.concat({text(epoch), text(sequence), text(bytes), text(oldest), this_run,
                                            text(previous_epoch), text(previous_sequence)}, ' '), 'PX', memory)
  redis.call('PEXPIRE', log_key, text(age))
  redis.call('PUBLISH', 'presence.bus', envelope)
end

if operation == 'read' then
  this_run, age, memory = ARGV[3], tonumber(ARGV[9]), ARGV[10]
  local since = data_since()
  -- What somebody has seen, and Redis does not have, is lost: IsLost in core/room_position.h.
  local memory_us = tonumber(memory) * 1000
  local at, before, before_sequence = epoch or now_us, epoch and previous_epoch or since, epoch and previous_sequence or 0
  local function is_lost(seen_epoch, seen_sequence)
    if seen_sequence == 0 or seen_epoch > now_us + memory_us then return false end
    if epoch and seen_epoch >= epoch then return seen_epoch > epoch or seen_sequence > sequence end
    if before_sequence ~= 0 then return seen_epoch > before or (seen_epoch == before and seen_sequence > before_sequence) end
    return seen_epoch >= before and seen_epoch + memory_us > at
  end
  local seen, doubted = tonumber(ARGV[5]), tonumber(ARGV[7])
  local seen_lost, doubted_lost = is_lost(seen, tonumber(ARGV[6])), is_lost(doubted, tonumber(ARGV[8]))
  if seen_lost or doubted_lost then
    -- An epoch before which nothing counts: everybody who was there, wherever, may miss something, and nobody proves it again.
    local next_epoch = math.max(now_us, (epoch or 0) + 1, seen_lost and seen + 1 or 0, doubted_lost and doubted + 1 or 0)
    begin(next_epoch, next_epoch, 0)
    local note = position_fields() .. ARGV[4]
    log(note)
    publish(note)
  end

  if not epoch then return {now_us, 0, since, 0, {}} end
  local from = ARGV[12] == '0' and '-' or '(' .. ARGV[11] .. '-' .. ARGV[12]
  local entries_max, bytes_max = tonumber(ARGV[13]), tonumber(ARGV[14])
  local page, size, last = {}, 0, nil
  while #page < entries_max and size < bytes_max do
    local count = math.min(math.max(1, #page), READ_AT_ONCE, entries_max - #page)
    local batch = redis.pcall('XRANGE', log_key, from, '+', 'COUNT', count)
    if #batch == 0 then last = nil break end
    for _, entry in ipairs(batch) do
      if size >= bytes_max then break end
      page[#page + 1] = entry[2][2]
      size = size + #entry[2][2]
      last = entry[1]
    end
    from = '(' .. last
  end
  local more = last and last ~= text(epoch) .. '-' .. text(sequence)
  return {epoch, sequence, since, more and 1 or 0, page}
end

this_run, age, memory = ARGV[3], tonumber(ARGV[8]), ARGV[9]
local envelope, outside, length_max, bytes_max = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local fingerprint, request_lifetime = ARGV[10], ARGV[11]

if request_key then
  local saved = get(request_key)
  local head_length = string.match(saved, '^(%d+):')
  if head_length then
    local head = #fingerprint .. ':' .. fingerprint
    if string.sub(saved, 1, #head) == head then return {1, string.sub(saved, #head + 1), 0, 0} end
    return {2, '', 0, 0}
  end
end

if not epoch then
  begin(now_us, data_since(), 0)
elseif run ~= this_run then
  begin(math.max(now_us, epoch + 1), epoch, sequence)
else
  sequence = sequence + 1
end
envelope = envelope .. position_fields()
log(envelope)

-- What is too much, or too old, goes; over a bound by a sixteenth more, so that not each append has to look. Never the newest.
if length > length_max or bytes > bytes_max or now - oldest > age + math.floor(age / 16) then
  local keep = length > length_max and length_max - math.min(16, math.floor(length_max / 16)) or length_max
  local bytes_keep = bytes > bytes_max and bytes_max - math.floor(bytes_max / 16) or bytes_max
  local dropped, from, enough = {}, '-', false
  while not enough and #dropped < DROPPED_MAX do
    for _, entry in ipairs(redis.call('XRANGE', log_key, from, '+', 'COUNT', math.max(1, #dropped))) do
      oldest = tonumber(entry[2][4]) or 0
      local left = length - #dropped
      enough = left == 1 or not (left > keep or bytes > bytes_keep or now - oldest > age)
      if enough then break end
      dropped[#dropped + 1] = entry[1]
      bytes = math.max(0, bytes - #entry[2][2])
      from = '(' .. entry[1]
    end
  end
  if #dropped > 0 then redis.call('XDEL', log_key, unpack(dropped)) end
end

if request_key then redis.call('SET', request_key, #fingerprint .. ':' .. fingerprint, 'PX', request_lifetime) end
publish(envelope)
if outside ~= '' then redis.call('PUBLISH', 'message:broadcast', outside) end
return {0, '', epoch, sequence}
