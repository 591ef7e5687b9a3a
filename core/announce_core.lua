-- A core says that it is live, and learns who else is: one atomic step. core/store.h has the rules,
-- core/memory_cluster.cc the same step in C++: the differential test compares the two.
--
--   KEYS[1] is presence.cores; core lifetime_ms now_us -> the cores that are live
--
-- The time is Redis' own, so that the cores' clocks need not agree; tests pass another.

local key, core, lifetime, now_us = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not now_us then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local function text(number)
  return string.format('%.0f', number)
end

local now = math.floor(now_us / 1000)
local now_text = text(now)
local added = redis.pcall('ZADD', key, now_text, core)
if type(added) == 'table' then
  if not string.find(added.err, 'WRONGTYPE', 1, true) then error(added.err) end
  redis.call('DEL', key)  -- the key is ours by its name: whatever somebody else has put there
  redis.call('ZADD', key, now_text, core)
end
-- The clock has gone back, or it is that of another Redis: who has died must not live for as long as that was.
for _, ahead in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now_text, '+inf')) do
  redis.call('ZADD', key, now_text, ahead)
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now - lifetime))
return redis.call('ZRANGE', key, '0', '-1')
