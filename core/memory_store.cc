#include "core/memory_store.h"

#include <utility>
#include <vector>

#include "common/check.h"

namespace presence::core {
namespace {

constexpr char kUnavailable[] = "the store is away";

// A PresenceWrite that owns what it names.
struct OwnedWrite {
  explicit OwnedWrite(const PresenceWrite& write)
      : fields(write),
        user_id(write.user_id),
        username(write.username),
        session_id(write.session_id),
        rooms(write.room_ids.begin(), write.room_ids.end()) {}

  PresenceWrite fields;
  std::string user_id, username, session_id;
  std::vector<std::string> rooms;

  template <typename Use>
  WriteResult With(Use use) const {
    const std::vector<std::string_view> room_ids(rooms.begin(), rooms.end());
    PresenceWrite write = fields;
    write.user_id = user_id;
    write.username = username;
    write.session_id = session_id;
    write.room_ids = room_ids;
    return use(write);
  }
};

struct OwnedRefresh {
  RefreshEntry fields;
  std::string user_id;
};

}  // namespace

MemoryStore::MemoryStore(StoreOptions options, MemoryDatabase& database, StoreListener& listener)
    : options_(options), database_(database), listener_(listener), last_run_(database.run()) {
  database_.Subscribe(this);
  GoUp();
}

MemoryStore::~MemoryStore() {
  database_.Unsubscribe(this);
}

bool MemoryStore::RunPending() {
  GiveUpStalled();
  size_t count = pending_.size();
  const bool any = count > 0;
  for (; count > 0 && !pending_.empty(); --count) {
    Pending pending = std::move(pending_.front());
    pending_.pop_front();
    if (pending.late > 0) {
      --pending.late;
      pending_.push_back(std::move(pending));
      continue;
    }
    if (pending.tell) pending.tell();
  }
  return any;
}

void MemoryStore::SetReachable(bool reachable) {
  if (reachable == reachable_) return;
  reachable_ = reachable;
  if (!reachable) GoDown("unreachable");
  GoUp();
}

void MemoryStore::SetSubscribed(bool subscribed) {
  if (subscribed == subscribed_) return;
  subscribed_ = subscribed;
  if (subscribed) return GoUp();
  if (!told_up_) return GoDown("no subscription");
  up_ = false;
  heard_.clear();
  for (Pending& pending : std::exchange(pending_, {})) {
    if (!pending.publication) late_.push_back(std::move(pending));
  }
  TellDown("no subscription");
}

void MemoryStore::SetFrozen(bool frozen) {
  if (frozen == frozen_) return;
  frozen_ = frozen;
  if (frozen) return;
  for (auto& run : std::exchange(abandoned_, {})) run();
  // What the calls below publish comes behind what was published during the stall.
  for (auto& publication : std::exchange(heard_, {})) OnPublication(std::move(publication));
  for (Waiting& waiting : std::exchange(waiting_, {})) Queue(waiting.run());
  GoUp();
}

void MemoryStore::Write(const PresenceWrite& write) {
  Call(
      [this, owned = OwnedWrite(write)] {
        const WriteResult result = owned.With([this](const PresenceWrite& w) { return database_.Write(options_, w); });
        const uint64_t id = owned.fields.id;
        return Pending{[this, id, result] { listener_.OnWritten(id, result); },
                       [this, id] { listener_.OnWritten(id, WriteResult{}); }};
      },
      [this, id = write.id] { listener_.OnWritten(id, WriteResult{}); });
}

void MemoryStore::Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) {
  std::vector<OwnedRefresh> owned;
  owned.reserve(entries.size());
  for (const RefreshEntry& entry : entries) owned.push_back({entry, std::string(entry.user_id)});
  Call(
      [this, id, owned = std::move(owned)] {
        std::vector<uint32_t> missing;
        for (uint32_t i = 0; i < owned.size(); ++i) {
          RefreshEntry entry = owned[i].fields;
          entry.user_id = owned[i].user_id;
          if (!database_.Refresh(options_, entry)) missing.push_back(i);
        }
        return Pending{[this, id, missing = std::move(missing)] { listener_.OnRefreshed(id, missing); },
                       [this, id] { listener_.OnRefreshed(id, {}); }};
      },
      [this, id] { listener_.OnRefreshed(id, {}); });
}

void MemoryStore::Sweep(int users_max) {
  Call(
      [this, users_max] {
        // On with those who are left, once per RunPending: others get in between.
        if (users_max <= 0 || database_.Sweep(options_, users_max) < users_max) return Pending{};
        return Pending{[this, users_max] { Sweep(users_max); }, nullptr};
      },
      nullptr);
}

void MemoryStore::SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) {
  Call(
      [this, room = std::string(room_id), user = std::string(user_id), name = std::string(username)] {
        database_.SetTyping(options_, room, user, name);
        return Pending{};
      },
      nullptr);
}

void MemoryStore::Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) {
  Call(
      [this, id, envelope, outside = std::string(outside)] {
        database_.Publish(envelope, outside);
        return Pending{[this, id] { listener_.OnPublished(id, true); },
                       [this, id] { listener_.OnPublished(id, false); }};
      },
      [this, id] { listener_.OnPublished(id, false); });
}

void MemoryStore::PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                              const link::v1::BusEnvelope& envelope, std::string_view outside) {
  const auto lost = [this, id] { listener_.OnPublishedOnce(id, OnceResult{}); };
  Call(
      [this, id, request = std::string(request_id), fingerprint = std::string(fingerprint), envelope,
       outside = std::string(outside), lost] {
        return Pending{[this, id, result = database_.PublishOnce(options_, request, fingerprint, envelope, outside)] {
                         listener_.OnPublishedOnce(id, result);
                       },
                       lost};
      },
      lost);
}

void MemoryStore::Append(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                         const link::v1::BusEnvelope& envelope, std::string_view outside) {
  const auto lost = [this, id] { listener_.OnAppended(id, AppendResult{}); };
  Call(
      [this, id, request = std::string(request_id), fingerprint = std::string(fingerprint), envelope,
       outside = std::string(outside), lost] {
        return Pending{[this, id, result = database_.Append(options_, request, fingerprint, envelope, outside)] {
                         listener_.OnAppended(id, result);
                       },
                       lost};
      },
      lost);
}

void MemoryStore::ReadRoomLog(uint64_t id, const RoomLogQuery& query) {
  const auto lost = [this, id] { listener_.OnRoomLogRead(id, absl::UnavailableError(kUnavailable)); };
  Call(
      [this, id, room = std::string(query.room_id), query, lost] {
        RoomLogQuery call = query;
        call.room_id = room;
        return Pending{[this, id, page = absl::StatusOr<RoomLogPage>(database_.ReadRoomLog(options_, call))] {
                         listener_.OnRoomLogRead(id, page);
                       },
                       lost};
      },
      lost);
}

void MemoryStore::SaveAnswer(std::string_view request_id, std::string_view answer) {
  Call(
      [this, request = std::string(request_id), answer = std::string(answer)] {
        database_.SaveAnswer(request, answer);
        return Pending{};
      },
      nullptr);
}

void MemoryStore::KeepLogout(uint64_t id, const Logout& logout) {
  Call(
      [this, id, user = std::string(logout.user_id), session = std::string(logout.session_id),
       at_ms = logout.logged_out_at_ms] {
        database_.KeepLogout(options_, {user, session, at_ms});
        return Pending{[this, id] { listener_.OnLogoutKept(id, true); },
                       [this, id] { listener_.OnLogoutKept(id, false); }};
      },
      [this, id] { listener_.OnLogoutKept(id, false); });
}

void MemoryStore::ReadLogouts(std::chrono::milliseconds within) {
  const auto lost = [this] { listener_.OnLogoutsRead(absl::UnavailableError(kUnavailable)); };
  Call(
      [this, within, lost] {
        return Pending{[this, log = absl::StatusOr<LogoutLog>(database_.ReadLogouts(options_, within))] {
                         listener_.OnLogoutsRead(log);
                       },
                       lost};
      },
      lost);
}

void MemoryStore::Announce() {
  const auto lost = [this] { listener_.OnCoresRead(absl::UnavailableError(kUnavailable)); };
  Call(
      [this, lost] {
        return Pending{[this, live = absl::StatusOr<std::vector<uint64_t>>(database_.AnnounceCore(options_))] {
                         listener_.OnCoresRead(live);
                       },
                       lost};
      },
      lost);
}

void MemoryStore::Withdraw() {
  Call(
      [this] {
        database_.WithdrawCore(options_);
        return Pending{};
      },
      nullptr);
}

void MemoryStore::Reply(uint64_t core, const link::v1::ClusterReplies& replies) {
  Call(
      [this, core, replies] {
        database_.Reply(core, replies);
        return Pending{};
      },
      nullptr);
}

void MemoryStore::GetPresence(std::string_view user_id, std::function<void(absl::StatusOr<StoredPresence>)> done) {
  const auto lost = [done] { done(absl::UnavailableError(kUnavailable)); };
  Read(
      [this, user = std::string(user_id), done, lost] {
        return Pending{[done, presence = database_.GetPresence(user)] { done(presence); }, lost};
      },
      lost);
}

void MemoryStore::GetPresences(absl::Span<const std::string> user_ids,
                               std::function<void(absl::StatusOr<std::vector<StoredPresence>>)> done) {
  PRESENCE_CHECK(user_ids.size() <= kPresencesMax, "GetPresences is for 1,000 users at most");
  const auto lost = [done] { done(absl::UnavailableError(kUnavailable)); };
  Read(
      [this, ids = std::vector<std::string>(user_ids.begin(), user_ids.end()), done, lost] {
        std::vector<StoredPresence> users;
        users.reserve(ids.size());
        for (const std::string& id : ids) users.push_back(database_.GetPresence(id));
        return Pending{[done, users = std::move(users)] { done(users); }, lost};
      },
      lost);
}

void MemoryStore::ListPresence(std::string_view after_user_id, uint32_t limit,
                               std::function<void(absl::StatusOr<PresencePage>)> done) {
  const auto lost = [done] { done(absl::UnavailableError(kUnavailable)); };
  Read(
      [this, after = std::string(after_user_id), limit, done, lost] {
        return Pending{[done, page = database_.ListPresence(after, limit)] { done(page); }, lost};
      },
      lost);
}

void MemoryStore::ReadChanges(uint64_t id, uint64_t since_version) {
  const auto lost = [this, id] { listener_.OnChangesRead(id, absl::UnavailableError(kUnavailable)); };
  Read(
      [this, id, since_version, lost] {
        return Pending{[this, id, log = absl::StatusOr<ChangeLog>(database_.ReadChanges(options_, since_version))] {
                         listener_.OnChangesRead(id, log);
                       },
                       lost};
      },
      lost);
}

void MemoryStore::OnPublication(std::shared_ptr<const Publication> publication) {
  if (!up_) return;
  if (publication->channel == BusChannel::kReplies && publication->core != options_.core_incarnation) return;
  if (frozen_) {
    heard_.push_back(std::move(publication));
    return;
  }
  Queue({[this, publication = std::move(publication)] {
           switch (publication->channel) {
             case BusChannel::kBus:
               return listener_.OnBus(publication->envelope);
             case BusChannel::kMessageBroadcast:
               return listener_.OnOutsideMessage(publication->text);
             case BusChannel::kPresenceUpdates:
               return listener_.OnOutsidePresence(publication->text);
             case BusChannel::kReplies:
               return listener_.OnReplies(publication->replies);
           }
         },
         nullptr, /*publication=*/true});
}

void MemoryStore::Call(std::function<Pending()> run, std::function<void()> lost) {
  GiveUpStalled();
  if (!up_) {
    if (lost) QueueSurely(std::move(lost));
  } else if (frozen_) {
    waiting_.push_back({database_.now(), std::move(run), std::move(lost)});
  } else {
    // The call's publications are queued by itself, in front of its answer.
    Queue(run());
  }
}

void MemoryStore::Read(std::function<Pending()> run, std::function<void()> lost) {
  Call(
      [this, run = std::move(run)] {
        Pending pending = run();
        if (read_delay_) pending.late = read_delay_();
        return pending;
      },
      std::move(lost));
}

void MemoryStore::GoUp() {
  if (up_ || !reachable_ || !subscribed_ || frozen_) return;
  const bool lost_state = !database_.swept() || database_.run() != last_run_;
  last_run_ = database_.run();
  up_ = true;
  Queue({[this, lost_state] {
           told_up_ = true;
           listener_.OnStoreUp(lost_state);
         },
         nullptr});
  for (Pending& late : std::exchange(late_, {})) Queue(std::move(late));
}

void MemoryStore::TellDown(std::string_view why) {
  // A listener that has not heard yet that the store was up need not hear that it is not.
  if (std::exchange(told_up_, false)) QueueSurely([this, why = std::string(why)] { listener_.OnStoreDown(why); });
}

void MemoryStore::GoDown(std::string_view why) {
  up_ = false;
  heard_.clear();
  std::deque<Pending> dropped = std::exchange(pending_, {});
  TellDown(why);
  for (std::deque<Pending>* queue : {&dropped, &late_}) {
    for (Pending& pending : std::exchange(*queue, {})) {
      if (pending.lost) QueueSurely(std::move(pending.lost));
    }
  }
  for (Waiting& waiting : std::exchange(waiting_, {})) {
    if (waiting.lost) QueueSurely(std::move(waiting.lost));
    abandoned_.push_back([run = std::move(waiting.run)] { run(); });
  }
}

void MemoryStore::GiveUpStalled() {
  if (!waiting_.empty() && database_.now() - waiting_.front().since >= kAnswerMax) GoDown("no answer within 2 s");
}

}  // namespace presence::core
