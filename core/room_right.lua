-- What a user may do in a room: 2 to write, 1 to read alone, 0 nothing. One atomic look, so that somebody whom a backend moves from one set
-- to another is never found in neither. core/redis_rights.h says what the sets mean.
--
--   KEYS are room.write:{room}, user.write:{user}, room.read:{room}, user.read:{user}; user room -> 0, 1 or 2

local user, room = ARGV[1], ARGV[2]
for i, member in ipairs({user, room, user, room}) do
  for _, granted in ipairs(redis.call('SMISMEMBER', KEYS[i], member, '*')) do
    if granted == 1 then return i <= 2 and 2 or 1 end
  end
end
return 0
