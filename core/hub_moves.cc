// Shards that go from one core to another. The one to which a shard has come says so on the bus when it has the whole declaration; the one
// that had it forgets it at once, and not when EDGE_GRACE is over: until then it would count every connection a second time, and keep orders
// waiting for a shard that will not come back to it.
//
// A core that alone is cut off from the store could refresh nobody's entry there, and the others would sweep its users: its shards must go to
// another core in time. It cannot tell that from a store that is away for all, so it ends no link: each shard is told to look around, again
// and again, and leaves when a core that has the store takes it.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/hub_state.h"

namespace presence::core {
namespace {

// Between 0 and 1, as good as random, and the same for the same link.
double FractionOf(LinkId link) {
  return static_cast<double>((link.value() * 0x9E3779B97F4A7C15u) >> 32) / 4294967296.0;
}

}  // namespace

void Hub::State::TellAttached() {
  if (!ledger_.store_up()) return;
  for (const auto& [key, shard] : connections_.shards()) {
    if (shard->told || shard->link == nullptr || shard->link->phase != Link::Phase::kLive) continue;
    link::v1::BusEnvelope envelope;
    envelope.set_core(options_.incarnation);
    link::v1::ShardAttached& attached = *envelope.mutable_shard_attached();
    attached.set_incarnation(key.incarnation);
    attached.set_shard(key.shard);
    attached.set_attach(shard->attach);
    // Without a sequence, as the greeting: nobody waits for it to come back, and there are no more of them than shards.
    store_.Publish(0, envelope, {});
    shard->told = true;
  }
}

void Hub::State::TellAttachedAgain() {
  for (const auto& [key, shard] : connections_.shards()) shard->told = false;
}

void Hub::State::OnShardAttached(Now now, const link::v1::ShardAttached& attached) {
  Shard* shard = connections_.FindShard({attached.incarnation(), attached.shard()});
  if (shard == nullptr || attached.attach() == shard->attach) return;
  if (attached.attach() > shard->attach) return GiveUp(now, *shard);
  // An old stream of the shard, from which nobody will hear anything any more: that core does not know that it is here now.
  shard->told = false;
}

void Hub::State::GiveUp(Now now, Shard& shard) {
  ++counters_.shards_taken_over;
  if (shard.link != nullptr) {
    ++counters_.links_superseded;
    CloseLink(now, *shard.link, absl::FailedPreconditionError("superseded by a higher attach of this shard"));
  }
  Forget(shard, [this](ConnectionIndex index) {
    // Nothing has happened to it, so no tap is told: it is told of by the other core.
    orders_.Moved({connections_[index].incarnation, connections_[index].id});
  });
}

void Hub::State::Forget(Shard& shard, absl::FunctionRef<void(ConnectionIndex)> forgotten) {
  for (uint32_t slot = 0; slot < shard.slots_end(); ++slot) {
    const ConnectionIndex index = shard.InSlot(slot);
    if (index == kNoConnection) continue;
    forgotten(index);
    DropRights(index);
    DropJoins(index);
    connections_.Close(index);
    ledger_.TakenOver(index);
  }
  connections_.DropShard(shard);
}

// Else it would count its devices twice and fill its rooms for as long as the store is away; and bring back, on its return, who has long
// logged off at another core. If it comes back here, or nobody says that he has it until its grace is over, it goes on from there.
void Hub::State::SetAside(Shard& shard) {
  if (std::exchange(shard.set_aside, true)) return;
  for (uint32_t slot = 0; slot < shard.slots_end(); ++slot) {
    const ConnectionIndex index = shard.InSlot(slot);
    if (index == kNoConnection) continue;
    DropRights(index);
    DropJoins(index);
    connections_.SetRooms(index, {});
    ledger_.Withhold(index);
  }
}

// Edges that crash all the time, while the store is away, leave such shards behind. Of those that have been lost for longest nothing is
// said when it is back: their entries, where it still has them, end by the sweep.
void Hub::State::BoundSetAside() {
  size_t connections = 0;
  std::vector<Shard*> shards;
  for (const auto& [key, shard] : connections_.shards()) {
    if (!shard->set_aside) continue;
    connections += shard->connections;
    shards.push_back(shard.get());
  }
  std::stable_sort(shards.begin(), shards.end(),
                   [](const Shard* a, const Shard* b) { return a->lost_at < b->lost_at; });
  for (Shard* shard : shards) {
    // One without connections has nothing to say, either.
    if (shard->connections != 0 && connections <= options_.set_aside_max) continue;
    connections -= shard->connections;
    counters_.removals_forgotten += shard->connections;
    Forget(*shard, [](ConnectionIndex) {});
  }
}

std::optional<SteadyTime> Hub::State::CutOffSince() const {
  if (ledger_.store_up() || !others_known_) return std::nullopt;
  return registry_read_at_;
}

bool Hub::State::HasStoreForOthers(Now now) const {
  return ledger_.store_up() && now.steady - store_up_at_ >= options_.store_settled;
}

void Hub::State::SendShardsAway(Now now) {
  const std::optional<SteadyTime> since = CutOffSince();
  if (!since) return;
  for (auto& [id, link] : links_) {
    if (link.phase != Link::Phase::kLive) continue;
    const auto wait = std::chrono::duration_cast<SteadyTime::duration>(options_.isolation_spread * FractionOf(id));
    if (now.steady < std::max(*since + options_.isolation_max + wait, link.seek_again_at)) continue;
    // The longer, the less often: all may be without the store.
    const auto pause = now.steady - (*since + options_.isolation_max);
    link.seek_again_at = now.steady + std::clamp<SteadyTime::duration>(pause, options_.seek_first, options_.seek_every);
    ++counters_.shards_sent_away;
    links_.Command(link).mutable_seek_core();
  }
}

}  // namespace presence::core
