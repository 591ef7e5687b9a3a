-- A publication that happens once for each request_id, and what a repeat is answered: one atomic step each. core/store.h
-- has the rules, core/memory_cluster.cc the same steps in C++: the differential test compares the two.
--
-- KEYS[1] is presence.request:{request_id}, a string: the length of the fingerprint, ':', the fingerprint, and behind
-- it the answer, as soon as that is known.
--
--   publish  fingerprint envelope outside lifetime_ms   -> {0 published, 1 repeated or 2 conflict, answer}
--   save     answer                                     -> nothing

local key, operation = KEYS[1], ARGV[1]

-- How long the part in front of the answer is; nil when `saved` is nothing that was written here.
local function head_size(saved)
  local length = type(saved) == 'string' and string.match(saved, '^(%d+):')
  return length and #length + 1 + tonumber(length)
end

if operation == 'save' then
  local saved = redis.pcall('GET', key)
  local size = head_size(saved)
  if size then redis.call('SET', key, string.sub(saved, 1, size) .. ARGV[2], 'XX', 'KEEPTTL') end
  return
end

local fingerprint, envelope, outside, lifetime = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local head = #fingerprint .. ':' .. fingerprint
if not redis.call('SET', key, head, 'NX', 'PX', lifetime) then
  local saved = redis.pcall('GET', key)
  if head_size(saved) then
    if string.sub(saved, 1, #head) == head then return {1, string.sub(saved, #head + 1)} end
    return {2, ''}
  end
  redis.call('SET', key, head, 'PX', lifetime)  -- the key is ours by its name: whatever somebody else has put there
end
redis.call('PUBLISH', 'presence.bus', envelope)
if outside ~= '' then redis.call('PUBLISH', 'message:broadcast', outside) end
return {0, ''}
