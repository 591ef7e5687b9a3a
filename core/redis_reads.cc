// The reads of RedisStore. Each takes a few rounds of commands, in chunks that keep Redis free for others in between.
#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "common/check.h"
#include "core/presence_text.h"
#include "core/redis_store.h"

namespace presence::core {
namespace {

constexpr size_t kListChunkMin = 64;      // so that a run of unreadable entries costs few rounds
constexpr size_t kEverybodyChunk = 1000;  // names of online users
constexpr size_t kUsersChunk = 500;       // hashes read at once

absl::Status Away() {
  return absl::UnavailableError("the store is away");
}

template <typename Number>
Number ParseNumber(std::string_view text) {
  Number number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// The rooms behind the first NUL of a connection's entry, see presence_transition.lua.
void AppendRooms(std::string_view entry, std::vector<std::string>* rooms) {
  for (size_t at = entry.find('\0'); at != std::string_view::npos;) {
    const size_t end = entry.find('\0', at + 1);
    rooms->emplace_back(entry.substr(at + 1, end == std::string_view::npos ? end : end - at - 1));
    at = end;
  }
}

// The number in front of the next space, which is taken away, too.
template <typename Number>
Number TakeNumber(std::string_view* text) {
  const size_t space = std::min(text->find(' '), text->size());
  const Number number = ParseNumber<Number>(text->substr(0, space));
  text->remove_prefix(std::min(space + 1, text->size()));
  return number;
}

// What HGETALL of a user's hash says, see presence_transition.lua. What is not there stays as it is in `change`.
void ReadUser(RedisReply fields, StoredChange* change) {
  for (size_t i = 0; i + 1 < fields.size(); i += 2) {
    const std::string_view field = fields[i].text();
    std::string_view value = fields[i + 1].text();
    if (field.starts_with("conn-")) {
      AppendRooms(value, &change->room_ids);
    } else if (field == "username") {
      change->presence.username = value;
    } else if (field == "state") {
      const int status = TakeNumber<int>(&value);
      if (status != link::v1::STATUS_UNSPECIFIED && link::v1::Status_IsValid(status)) {
        change->presence.status = static_cast<Status>(status);
      }
      change->presence.version = TakeNumber<uint64_t>(&value);
      change->presence.last_seen_ms = TakeNumber<int64_t>(&value);
      change->changed_ms = TakeNumber<int64_t>(&value);
    }
  }
  std::sort(change->room_ids.begin(), change->room_ids.end());
  change->room_ids.erase(std::unique(change->room_ids.begin(), change->room_ids.end()), change->room_ids.end());
}

}  // namespace

void RedisStore::GetPresence(std::string_view user_id, std::function<void(absl::StatusOr<StoredPresence>)> done) {
  command_.Start(2).Add("GET").Add(std::string("presence:").append(user_id));
  Send([this, user_id = std::string(user_id), done = std::move(done)](RedisReply reply) {
    if (reply.lost()) return done(Away());
    // Somebody has stored a list or a hash there: as good as no entry.
    const bool foreign = reply.text().starts_with("WRONGTYPE");
    if (!foreign && !Usable(reply)) return done(Away());
    done(ParsePresenceEntry(user_id, foreign ? std::string_view() : reply.text()));
  });
}

void RedisStore::GetPresences(absl::Span<const std::string> user_ids,
                              std::function<void(absl::StatusOr<std::vector<StoredPresence>>)> done) {
  PRESENCE_CHECK(user_ids.size() <= kPresencesMax, "GetPresences is for 1,000 users at most");
  // One name more than were asked for: MGET takes no empty list, and this way nobody is no case of its own.
  command_.Start(2 + user_ids.size()).Add("MGET");
  for (const std::string& user_id : user_ids) command_.Add("presence:" + user_id);
  command_.Add("presence.sweep");
  Send([this, ids = std::vector<std::string>(user_ids.begin(), user_ids.end()),
        done = std::move(done)](RedisReply texts) {
    if (!Usable(texts)) return done(Away());
    std::vector<StoredPresence> users;
    users.reserve(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) users.push_back(ParsePresenceEntry(ids[i], texts[i].text()));
    done(std::move(users));
  });
}

// -------------------------------------------------------------------------------------------------- ListPresence

struct RedisStore::ListCall {
  std::string after;
  size_t limit;
  std::function<void(absl::StatusOr<PresencePage>)> done;
  PresencePage page;
};

void RedisStore::ListPresence(std::string_view after_user_id, uint32_t limit,
                              std::function<void(absl::StatusOr<PresencePage>)> done) {
  ListRound(std::make_shared<ListCall>(ListCall{std::string(after_user_id), limit, std::move(done), {}}));
}

void RedisStore::ListRound(std::shared_ptr<ListCall> call) {
  // One more than there is room for, to know whether others follow.
  const size_t chunk = std::max(call->limit - call->page.users.size() + 1, kListChunkMin);
  command_.Start(7)
      .Add("ZRANGEBYLEX")
      .Add("presence.online")
      .Add(call->after.empty() ? "-" : "(" + call->after)
      .Add("+");
  command_.Add("LIMIT").Add("0").Add(uint64_t{chunk});
  Send([this, call, chunk](RedisReply reply) {
    if (!Usable(reply)) return call->done(Away());
    if (reply.size() == 0) return call->done(std::move(call->page));
    std::vector<std::string> ids;
    ids.reserve(reply.size());
    command_.Start(1 + reply.size()).Add("MGET");
    for (size_t i = 0; i < reply.size(); ++i) {
      ids.emplace_back(reply[i].text());
      command_.Add("presence:" + ids.back());
    }
    Send([this, call, chunk, ids = std::move(ids)](RedisReply texts) {
      if (!Usable(texts)) return call->done(Away());
      for (size_t i = 0; i < ids.size(); ++i) {
        if (call->page.users.size() == call->limit) {
          call->page.more = true;
          return call->done(std::move(call->page));
        }
        // Unreadable, or gone since: reads as offline.
        StoredPresence presence = ParsePresenceEntry(ids[i], texts[i].text());
        if (presence.status != link::v1::STATUS_OFFLINE) call->page.users.push_back(std::move(presence));
      }
      if (ids.size() < chunk) return call->done(std::move(call->page));
      call->after = ids.back();
      ListRound(call);
    });
  });
}

// --------------------------------------------------------------------------------------------------- ReadChanges

struct RedisStore::ChangesCall {
  uint64_t id = 0;
  uint64_t since = 0;
  uint64_t now_us = 0;
  uint64_t began_us = 0;
  bool swept = false;
  bool failed = false;  // a reply was of no use: nothing may be concluded from the others
  ChangeLog log;
  std::set<std::string, std::less<>> logged;  // in an incomplete log: whom the change log names
  size_t read = 0;                            // users whose hash has been read
};

void RedisStore::ReadChanges(uint64_t id, uint64_t since_version) {
  const auto call = std::make_shared<ChangesCall>();
  call->id = id;
  call->since = since_version;
  command_.Start(1).Add("TIME");
  Send([this, call](RedisReply reply) {
    if (!Usable(reply)) {
      call->failed = true;
      return;
    }
    const auto us = options_.clock ? std::chrono::floor<std::chrono::microseconds>(options_.clock().time_since_epoch())
                                   : std::chrono::seconds(ParseNumber<int64_t>(reply[0].text())) +
                                         std::chrono::microseconds(ParseNumber<int64_t>(reply[1].text()));
    call->now_us = static_cast<uint64_t>(us.count());
  });
  command_.Start(3).Add("HGET").Add("presence.sweep").Add("began");
  Send([this, call](RedisReply reply) {
    if (!Usable(reply)) {
      call->failed = true;
      return;
    }
    call->swept = reply.is_text();
    call->began_us = ParseNumber<uint64_t>(reply.text());
  });
  command_.Start(5).Add("ZRANGEBYSCORE").Add("presence.changes").Add(since_version).Add("+inf").Add("WITHSCORES");
  Send([this, call](RedisReply reply) {
    if (!Usable(reply) || call->failed) return listener_.OnChangesRead(call->id, Away());
    const auto lifetime = std::chrono::microseconds(options_.store.change_log_lifetime);
    const uint64_t horizon = call->now_us - static_cast<uint64_t>(lifetime.count());
    call->log.complete = call->swept && call->since >= std::max(horizon, call->began_us);
    call->log.changes.resize(reply.size() / 2);
    for (size_t i = 0; i + 1 < reply.size(); i += 2) {
      StoredChange& change = call->log.changes[i / 2];
      change.presence.user_id = reply[i].text();
      change.presence.version = ParseNumber<uint64_t>(reply[i + 1].text());
      change.changed_ms = static_cast<int64_t>(change.presence.version / 1000);
      if (!call->log.complete) call->logged.insert(change.presence.user_id);
    }
    if (call->log.complete) return ReadUsers(call);
    ListEverybody(call, {});
  });
}

void RedisStore::ListEverybody(std::shared_ptr<ChangesCall> call, std::string_view after_user_id) {
  command_.Start(7).Add("ZRANGEBYLEX").Add("presence.online");
  command_.Add(after_user_id.empty() ? std::string("-") : std::string("(").append(after_user_id)).Add("+");
  command_.Add("LIMIT").Add("0").Add(uint64_t{kEverybodyChunk});
  Send([this, call](RedisReply reply) {
    if (!Usable(reply)) return listener_.OnChangesRead(call->id, Away());
    for (size_t i = 0; i < reply.size(); ++i) {
      const std::string_view user_id = reply[i].text();
      if (!call->logged.contains(user_id)) call->log.changes.emplace_back().presence.user_id = user_id;
    }
    if (reply.size() < kEverybodyChunk) return ReadUsers(call);
    ListEverybody(call, reply[reply.size() - 1].text());
  });
}

void RedisStore::ReadUsers(std::shared_ptr<ChangesCall> call) {
  if (call->read == call->log.changes.size()) {
    // Of those who are only in the index: who went since then, or lost the hash, is not asked for.
    if (!call->log.complete) {
      std::erase_if(call->log.changes, [&](const StoredChange& change) {
        return change.presence.status == link::v1::STATUS_OFFLINE && !call->logged.contains(change.presence.user_id);
      });
    }
    return listener_.OnChangesRead(call->id, std::move(call->log));
  }
  const size_t end = std::min(call->read + kUsersChunk, call->log.changes.size());
  for (size_t i = call->read; i < end; ++i) {
    command_.Start(2).Add("HGETALL").Add("presence.user:" + call->log.changes[i].presence.user_id);
    const bool last = i + 1 == end;
    Send([this, call, i, last](RedisReply reply) {
      // Somebody has stored something else there: as good as no hash.
      const bool foreign = reply.is_error() && reply.text().starts_with("WRONGTYPE");
      if (!foreign && !Usable(reply)) {
        call->failed = true;  // the user may be online: must not be told to be offline
      } else if (!call->failed) {
        ReadUser(reply, &call->log.changes[i]);
      }
      if (!last) return;
      if (call->failed) return listener_.OnChangesRead(call->id, Away());
      ReadUsers(call);
    });
  }
  call->read = end;
}

}  // namespace presence::core
