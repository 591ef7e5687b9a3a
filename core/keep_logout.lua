-- Keeps a logout, and tells which were kept lately: one atomic step each. core/store.h has the rules,
-- core/memory_sessions.cc the same steps in C++: the differential test compares the two.
--
-- KEYS[1] is presence.logouts. A name is "user:{user_id}" or "session:{session_id}".
--
--   keep  now_us name logged_out_at_ms lifetime_s log_lifetime_ms   -> nothing
--   read  now_us within_ms names_max                                -> {1 all of them or 0, names}
--
-- The time is Redis' own, so that it does not matter which core asks; tests pass another.

local log, operation, now_us = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now_us then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local function text(number)
  return string.format('%.0f', number)
end

if operation == 'keep' then
  local name, at, lifetime, log_lifetime = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
  local key = 'revoked:' .. name
  local kept = redis.pcall('GET', key)
  kept = type(kept) == 'string' and string.match(kept, '^%d+$')
  if not kept or tonumber(kept) < tonumber(at) then redis.call('SET', key, at, 'EX', lifetime) end
  local added = redis.pcall('ZADD', log, text(now_us), name)
  if type(added) == 'table' then
    if not string.find(added.err, 'WRONGTYPE', 1, true) then error(added.err) end
    redis.call('DEL', log)  -- the key is ours by its name: whatever somebody else has put there
    redis.call('ZADD', log, text(now_us), name)
  end
  redis.call('ZREMRANGEBYSCORE', log, '-inf', '(' .. text(now_us - log_lifetime * 1000))
  return
end

local within, names_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local names = redis.pcall('ZRANGEBYSCORE', log, text(now_us - within * 1000), '+inf', 'LIMIT', '0', text(names_max + 1))
if names.err then
  if not string.find(names.err, 'WRONGTYPE', 1, true) then error(names.err) end
  redis.call('DEL', log)
  return {0, {}}
end
if #names > names_max then return {0, {}} end
return {1, names}
