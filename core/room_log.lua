-- The logs of rooms: a message is numbered, kept, counted once for its request_id, and published, in one atomic step; and a page of a log is
-- read. core/store.h has the rules and the keys, core/room_position.h what a position is, core/memory_rooms.cc the same steps in C++:
-- the differential test compares the two.
--
-- KEYS: presence.room:{room_id}, presence.log:{room_id}, presence.rooms, and, with a request_id, presence.request:{request_id}, as in
-- publish_once.lua.
--
-- ARGV: the operation, now_us, run, envelope, length_max, bytes_max, age_ms, memory_ms, and
--   append  outside fingerprint request_lifetime_ms
--           -> {0 published, 1 repeated or 2 conflict, answer, epoch, sequence}
--   read    epoch sequence entries_max page_bytes_max seen_epoch seen_sequence doubted_epoch doubted_sequence; the envelope is what is put
--           down when one of these two is lost
--           -> {epoch, sequence, since when Redis has its data (us), 1 more follow or 0, {envelope...}}; a room of which nothing
--              is known has the present moment for its epoch, and the sequence 0
--
-- presence.room:{room_id} is ten numbers of eight bytes, little-endian, and the name of the run of Redis that began the epoch. The numbers: epoch
-- and sequence; the bytes of all entries that ever were in the log; of those that have left it, at least; the mark: when it was made (ms), epoch
-- and sequence of the entry that was made then, the bytes before it; epoch and sequence before the epoch. An entry of the log has the fields e,
-- the envelope as published, and b, the bytes up to its end, a number of that kind.
--
-- A message must be cheap. So nobody looks for entries that are too old: when the mark is older than they may be, all in front of it goes at once,
-- and this entry is the new mark. They live for their age at least, and twice that at most, and so does the log, whose time is set only then.
-- What is over the length goes sixteen at a time. Numbers are packed and not written out, since that is what Lua takes its time for.

local operation, this_run, envelope, age = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[7])
local now_us = tonumber(ARGV[2])  -- from tests; empty otherwise
if not now_us then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
local now = math.floor(now_us / 1000)
local room_key, log_key, rooms_key, request_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local NUMBERS = '<I8I8I8I8I8I8I8I8I8I8'
local EXACT_MAX = 9007199254740992  -- above, Lua's numbers have gaps
-- At most so many entries are dropped for their bytes by one append, and so many are read at once. Each may be 1 MiB, and all that XRANGE finds
-- is copied while Redis does nothing else: so the first step is one entry, and each further one as many as there were before it.
local DROPPED_MAX = 32
local READ_AT_ONCE = 8

local function get(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or ''  -- the keys are ours by their names: whatever else is there is nothing
end

-- Since when this Redis has kept its data; from now on, when nothing says so.
local function data_since()
  local since = string.match(get(rooms_key), '^%d+$')
  if since and #since <= 16 then return tonumber(since) end
  redis.call('SET', rooms_key, string.format('%.0f', now_us))
  return now_us
end

local room = get(room_key)
local epoch, sequence, bytes, gone, marked, mark_epoch, mark_sequence, mark_bytes, previous_epoch, previous_sequence, run_at
if #room >= 80 then
  epoch, sequence, bytes, gone, marked, mark_epoch, mark_sequence, mark_bytes, previous_epoch, previous_sequence, run_at =
    struct.unpack(NUMBERS, room)
  -- What nobody here could have written, or could count on from, is nothing, too.
  if epoch == 0 or sequence == 0 or math.max(epoch, sequence, bytes, gone, mark_epoch, mark_sequence, mark_bytes) >= EXACT_MAX then
    epoch = nil
  end
end

-- What is to be put down, and in which epoch, if a new one begins; what is said of what was before it.
local adds, begins, stated_epoch, stated_sequence, since = true, nil, 0, 0, nil
if operation == 'append' then
  if request_key then
    local saved, fingerprint = get(request_key), ARGV[10]
    if string.find(saved, '^%d+:') then
      local head = #fingerprint .. ':' .. fingerprint
      if string.sub(saved, 1, #head) == head then return {1, string.sub(saved, #head + 1), 0, 0} end
      return {2, '', 0, 0}
    end
  end
  if not epoch then
    begins, stated_epoch = now_us, data_since()
  elseif string.sub(room, run_at) ~= this_run then
    begins, stated_epoch, stated_sequence = math.max(now_us, epoch + 1), epoch, sequence
  end
else
  since = data_since()
  -- What somebody has seen, and Redis does not have, is lost: IsLost in core/room_position.h.
  local memory_us = tonumber(ARGV[8]) * 1000
  local at, before, before_sequence = epoch or now_us, epoch and previous_epoch or since, epoch and previous_sequence or 0
  local function is_lost(seen_epoch, seen_sequence)
    if seen_sequence == 0 or seen_epoch > now_us + memory_us then return false end
    if epoch and seen_epoch >= epoch then return seen_epoch > epoch or seen_sequence > sequence end
    if before_sequence ~= 0 then return seen_epoch > before or (seen_epoch == before and seen_sequence > before_sequence) end
    return seen_epoch >= before and seen_epoch + memory_us > at
  end
  adds = false
  for i = 13, 15, 2 do
    local seen = tonumber(ARGV[i])
    if is_lost(seen, tonumber(ARGV[i + 1])) then
      -- An epoch before which nothing counts: everybody who was there, wherever, may miss something, and nobody proves it again.
      adds, begins = true, math.max(begins or now_us, (epoch or 0) + 1, seen + 1)
      stated_epoch = begins
    end
  end
end

if adds then
  if not epoch then
    redis.call('DEL', log_key)
    bytes, gone = 0, 0
  end
  if begins then
    epoch, sequence, previous_epoch, previous_sequence = begins, 1, stated_epoch, stated_sequence
  else
    sequence = sequence + 1
  end

  -- Fields 9 to 12 of link.v1.BusEnvelope, fixed64, are put where protobuf writes them: behind a message, in front of RoomLost.
  local position = struct.pack('<BI8BI8', 9 * 8 + 1, epoch, 10 * 8 + 1, sequence)
  if stated_epoch ~= 0 then position = position .. struct.pack('<BI8', 11 * 8 + 1, stated_epoch) end
  if stated_sequence ~= 0 then position = position .. struct.pack('<BI8', 12 * 8 + 1, stated_sequence) end
  if operation == 'append' then envelope = envelope .. position else envelope = position .. envelope end

  local id, before = string.format('%.0f-%.0f', epoch, sequence), bytes
  bytes = bytes + #envelope
  local length_max, upto = tonumber(ARGV[5]), struct.pack('<I8', bytes)
  local step = math.max(1, math.min(16, math.floor(length_max / 16)))
  local added
  if sequence % step == 0 or begins then
    added = redis.pcall('XADD', log_key, 'NOMKSTREAM', 'MAXLEN', '=', length_max - step + 1, id, 'e', envelope, 'b', upto)
  else
    added = redis.pcall('XADD', log_key, 'NOMKSTREAM', id, 'e', envelope, 'b', upto)
  end
  local is_new = not added  -- what was there before has ended with its time
  if type(added) == 'table' and added.err then
    is_new = string.find(added.err, 'WRONGTYPE', 1, true) or string.find(added.err, 'equal or smaller', 1, true)
    if not is_new then error(added.err) end  -- nothing has been written
    redis.call('DEL', log_key)
  end
  if is_new then
    redis.call('XADD', log_key, id, 'e', envelope, 'b', upto)
    gone = before
  end
  if is_new or now - marked > age then
    if not is_new then
      redis.call('XTRIM', log_key, 'MINID', '=', string.format('%.0f-%.0f', mark_epoch, mark_sequence))
      gone = mark_bytes
    end
    marked, mark_epoch, mark_sequence, mark_bytes = now, epoch, sequence, before
    redis.call('PEXPIRE', log_key, 2 * age)
  end

  -- Over its bytes a log loses a sixteenth more, so that not each message has to look. Never the newest.
  local bytes_max = tonumber(ARGV[6])
  if bytes - gone > bytes_max then
    local keep, from, first, dropped = bytes_max, '-', nil, 0
    while from and dropped < DROPPED_MAX do
      local batch = redis.call('XRANGE', log_key, from, '+', 'COUNT', math.min(math.max(1, dropped), DROPPED_MAX - dropped))
      from = nil
      for _, entry in ipairs(batch) do
        local its_upto = #(entry[2][4] or '') == 8 and struct.unpack('<I8', entry[2][4]) or 0
        if dropped == 0 then
          gone = math.max(0, its_upto - #entry[2][2])  -- as it is: more has left it than was known
          if bytes - gone > bytes_max then keep = bytes_max - math.floor(bytes_max / 16) end
        end
        first = entry[1]
        if first == id or bytes - gone <= keep then from = nil break end
        dropped, gone, from = dropped + 1, its_upto, '(' .. first
      end
    end
    if from then  -- that one, too
      local its_epoch, its_sequence = string.match(first, '^(%d+)%-(%d+)$')
      first = string.format('%.0f-%.0f', tonumber(its_epoch), tonumber(its_sequence) + 1)
    end
    if dropped > 0 then redis.call('XTRIM', log_key, 'MINID', '=', first) end
  end

  if request_key then redis.call('SET', request_key, #ARGV[10] .. ':' .. ARGV[10], 'PX', ARGV[11]) end
  redis.call('SET', room_key, struct.pack(NUMBERS, epoch, sequence, bytes, gone, marked, mark_epoch, mark_sequence, mark_bytes,
                                          previous_epoch, previous_sequence) .. this_run, 'PX', ARGV[8])
  redis.call('PUBLISH', 'presence.bus', envelope)
  if operation == 'append' then
    if ARGV[9] ~= '' then redis.call('PUBLISH', 'message:broadcast', ARGV[9]) end
    return {0, '', epoch, sequence}
  end
end

if not epoch then return {now_us, 0, since, 0, {}} end
local from = ARGV[10] == '0' and '-' or '(' .. ARGV[9] .. '-' .. ARGV[10]
local entries_max, page_bytes_max = tonumber(ARGV[11]), tonumber(ARGV[12])
local page, size, last = {}, 0, nil
while #page < entries_max and size < page_bytes_max do
  local count = math.min(math.max(1, #page), READ_AT_ONCE, entries_max - #page)
  local batch = redis.pcall('XRANGE', log_key, from, '+', 'COUNT', count)
  if #batch == 0 then last = nil break end
  for _, entry in ipairs(batch) do
    if size >= page_bytes_max then break end
    page[#page + 1] = entry[2][2]
    size = size + #entry[2][2]
    last = entry[1]
  end
  from = '(' .. last
end
local more = last and last ~= string.format('%.0f-%.0f', epoch, sequence)
return {epoch, sequence, since, more and 1 or 0, page}
