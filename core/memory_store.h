// One core's store on a MemoryDatabase: for REDIS_URL=memory:, which needs nothing installed, and for tests and the
// simulator, where several of them share one database as cores share one Redis.
//
// One thread. Calls take effect at once; answers and publications are queued, in one order, and handed to the
// listener by RunPending(). Deterministic.
//
// The faults of a Redis can be played: unreachable, heard no more, and stalled. Limits as in RedisStore: a stalled store that has
// not answered for 2 s of the database's clock is given up for down.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/memory_database.h"
#include "core/store.h"

namespace presence::core {

class MemoryStore final : public Store, private BusSubscriber {
 public:
  static constexpr std::chrono::milliseconds kAnswerMax{2000};

  // Queues OnStoreUp. The database and the listener must outlive the store.
  MemoryStore(StoreOptions options, MemoryDatabase& database, StoreListener& listener);
  ~MemoryStore() override;

  // Hands out what is queued, without what that causes to be queued. False when there was nothing.
  bool RunPending();
  bool HasPending() const { return !pending_.empty(); }

  // The network to Redis. Going away loses every answer and publication that is queued (what was asked for has
  // happened nevertheless): OnStoreDown, then kUnavailable for each. Coming back: OnStoreUp.
  void SetReachable(bool reachable);
  // The subscription alone. When it is lost, publications that are queued are, too; answers that are queued come late: behind the OnStoreUp
  // of its return, as those on the connection for commands may. What is asked in between is answered kUnavailable.
  void SetSubscribed(bool subscribed);
  // A stalled Redis. Calls wait and take effect, in order, when it thaws, also those that have been given up by then.
  void SetFrozen(bool frozen);
  bool up() const { return up_; }
  // Says of each read by how many further RunPending its answer is late: what was asked after it may be answered before. Null: none is.
  void SetReadDelay(std::function<unsigned()> delay) { read_delay_ = std::move(delay); }

  void Write(const PresenceWrite& write) override;
  void Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) override;
  void Sweep(int users_max) override;
  void SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) override;
  void Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                   const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void Append(uint64_t id, std::string_view request_id, std::string_view fingerprint,
              const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void ReadRoomLog(uint64_t id, const RoomLogQuery& query) override;
  void SaveAnswer(std::string_view request_id, std::string_view answer) override;
  void KeepLogout(uint64_t id, const Logout& logout) override;
  void ReadLogouts(std::chrono::milliseconds within) override;
  void Announce() override;
  void Withdraw() override;
  void Reply(uint64_t core, const link::v1::ClusterReplies& replies) override;
  void GetPresence(std::string_view user_id, std::function<void(absl::StatusOr<StoredPresence>)> done) override;
  void GetPresences(absl::Span<const std::string> user_ids,
                    std::function<void(absl::StatusOr<std::vector<StoredPresence>>)> done) override;
  void ListPresence(std::string_view after_user_id, uint32_t limit,
                    std::function<void(absl::StatusOr<PresencePage>)> done) override;
  void ReadChanges(uint64_t id, uint64_t since_version) override;

 private:
  // Something to tell the listener. `lost` tells it, instead, that the answer will not come; null: nobody waits for
  // it.
  struct Pending {
    std::function<void()> tell;
    std::function<void()> lost;
    bool publication = false;
    unsigned late = 0;  // so many turns are still to pass
  };
  // A call that waits for the thaw.
  struct Waiting {
    WallTime since;
    std::function<Pending()> run;
    std::function<void()> lost;
  };

  void OnPublication(std::shared_ptr<const Publication> publication) override;
  void Call(std::function<Pending()> run, std::function<void()> lost);
  void Queue(Pending pending) { pending_.push_back(std::move(pending)); }
  // What must be told, whatever happens to the store until then.
  void QueueSurely(std::function<void()> tell) {
    std::function<void()> again = tell;
    pending_.push_back({std::move(tell), std::move(again)});
  }
  // The same for a read, whose answer may be late.
  void Read(std::function<Pending()> run, std::function<void()> lost);
  // Unless something of it is away.
  void GoUp();
  void GoDown(std::string_view why);
  // OnStoreDown, if the listener has heard that the store was up.
  void TellDown(std::string_view why);
  void GiveUpStalled();

  const StoreOptions options_;
  MemoryDatabase& database_;
  StoreListener& listener_;
  std::function<unsigned()> read_delay_;
  std::deque<Pending> pending_;
  std::deque<Pending> late_;                              // answers that come when the subscription stands again
  std::deque<Waiting> waiting_;                           // while frozen
  std::deque<std::function<void()>> abandoned_;           // given up, but they will still take effect at the thaw
  std::deque<std::shared_ptr<const Publication>> heard_;  // while frozen
  bool reachable_ = true;
  bool subscribed_ = true;
  bool frozen_ = false;
  bool up_ = false;
  bool told_up_ = false;   // the listener has heard OnStoreUp, and no OnStoreDown since
  uint64_t last_run_ = 0;  // of the database, when this store last came up
};

}  // namespace presence::core
