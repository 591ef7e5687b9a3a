#include "tests/sim/watcher.h"

#include <algorithm>
#include <utility>

#include "core/presence_text.h"
#include "tests/sim/world.h"

namespace presence::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr size_t kRowsMax = 3;  // few, so that much is taken in parts
constexpr size_t kBytesMax = 64 * 1024;

}  // namespace

bool Watcher::Watches(const std::string& user_id) const {
  return user_ids_.empty() || std::find(user_ids_.begin(), user_ids_.end(), user_id) != user_ids_.end();
}

std::string Watcher::Believes(const std::string& user_id) const {
  if (core_ == nullptr || !core_->alive || !told_first_) return "";
  const auto found = known_.find(user_id);
  return found == known_.end() ? "offline" : found->second.status;
}

void Watcher::Look() {
  Random& random = world_.random();
  if (core_ != nullptr && !core_->alive) Forget();
  if (core_ != nullptr && !world_.calm() && random.OneIn(20)) {
    world_.scheduler().AtProcess(world_.now(), core_, [this, core = core_] {
      if (core == core_) Leave();
    });
  }
  if (core_ == nullptr) {
    if (const std::shared_ptr<CoreProcess> core = world_.AnyCore(); core != nullptr) {
      if (random.OneIn(3)) resume_version_ = 0;
      world_.scheduler().AtProcess(world_.now(), core, [this, core] {
        if (core_ == nullptr) Open(core);
      });
    }
  }
  world_.scheduler().After(random.Between(milliseconds(100), world_.calm() ? milliseconds(500) : seconds(3)),
                           [this] { Look(); });
}

void Watcher::Open(const std::shared_ptr<CoreProcess>& core) {
  core::WatchTarget target;
  target.user_ids = user_ids_;
  target.resume_version = resume_version_;
  const absl::StatusOr<core::WatcherId> id = core->watches().Open(std::move(target), *this);
  world_.Check(id.ok() || !core->serving(), "a watcher is let in");
  if (!id.ok()) return;
  core_ = core;
  id_ = *id;
  told_first_ = false;
  told_resume_version_ = 0;
  in_snapshot_.clear();
}

void Watcher::Leave() {
  core_->watches().Close(id_);
  Forget();
}

void Watcher::Forget() {
  core_ = nullptr;
  told_first_ = false;
}

void Watcher::OnReady() {
  while (const core::WatchUpdate* const update = core_->watches().Take(id_, kRowsMax, kBytesMax)) Take(*update);
}

void Watcher::OnEnded(const absl::Status& why, bool /*slow*/) {
  world_.Check(absl::IsUnavailable(why), "a watcher that reads is not sent away: " + why.ToString());
  Forget();
}

void Watcher::Take(const core::WatchUpdate& update) {
  const bool told_before = told_first_;
  for (const core::PresenceRow& row : update.presences) {
    world_.Check(Watches(row->user_id), "a watcher is told of its users");
    Known& known = known_[row->user_id];
    // Only the first part may repeat; a Redis that has lost its data may go back.
    world_.Check(!told_first_ || row->version >= known.version || !world_.RedisRemembers(),
                 "of one user the versions that a watcher is told only grow");
    world_.Trace("watcher: " + row->user_id + " " + std::string(core::StatusName(row->status)));
    known = {std::string(core::StatusName(row->status)), row->version};
    if (!told_first_) in_snapshot_.insert(row->user_id);
  }
  if (update.snapshot_done) {
    world_.Trace(update.snapshot ? "watcher: snapshot done" : "watcher: resumed");
    world_.Check(!told_first_, "the first part ends once");
    told_first_ = true;
    // A snapshot names those who are there.
    for (auto& [user, known] : known_) {
      if (update.snapshot && !in_snapshot_.contains(user)) known.status = "offline";
    }
  }
  // What cannot be resumed becomes a snapshot, and begins with 0.
  world_.Check(update.resume_version >= told_resume_version_ || !told_before, "resume_version only grows");
  resume_version_ = told_resume_version_ = update.resume_version;
}

}  // namespace presence::sim
