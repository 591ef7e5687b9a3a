// One edge process of the simulation: real Shards, with simulated sockets and links.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "edge/shard.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/session.h"
#include "tests/sim/sim_link.h"

namespace presence::sim {

class World;

class EdgeProcess;

class ShardNode final : private edge::ShardOutput {
 public:
  ShardNode(World& world, EdgeProcess& edge, uint32_t number);

  edge::Shard& shard() { return shard_; }
  const std::shared_ptr<SimLink>& link() const { return link_; }
  uint64_t attach() const { return attach_; }
  SimTime attached_at() const { return attached_at_; }  // when it asked for this link

  void Tick();
  // Looks for a core until it has one.
  void Attach();
  // Ends its link and comes to this core, after that time.
  void MoveTo(const std::shared_ptr<CoreProcess>& core, SimTime pause = SimTime(0));
  void OnLinkFrame(const std::shared_ptr<SimLink>& link, const std::string& bytes);
  void OnLinkEnded(const std::shared_ptr<SimLink>& link);

  // A handshake. False: refused, since the shard is not ready.
  bool Accept(const std::shared_ptr<Session>& session);
  // False: it is over a limit.
  bool OnClientText(Session& session, std::string_view text);
  void OnClientClosed(Session& session);

 private:
  struct Slot {
    uint32_t generation = 0;
    std::shared_ptr<Session> session;
  };

  link::v1::EdgeEvent& AddEvent() override;
  void DropLink(std::string_view why) override;
  void Send(absl::Span<const uint32_t> slots, const edge::FrameRef& frame, edge::SendPolicy policy) override;
  void Close(uint32_t slot, uint16_t code, std::string_view reason) override;
  void CheckToken(uint32_t slot, std::string_view token) override;
  void DrainEdge(std::chrono::milliseconds /*window*/) override {}
  void SetLogLevel(link::v1::LogLevel /*level*/) override {}
  void SeekCore() override;
  void Report(Severity severity, uint32_t slot, std::string_view what, std::string_view detail) override;

  void AttachTo(const std::shared_ptr<CoreProcess>& core);
  // The next core of a round that SeekCore has begun.
  void AskNext();
  void GiveUpSeeking();
  void End(const std::shared_ptr<SimLink>& link);
  // The client's side of an order that is about to be carried out.
  void Foresee(const link::v1::CoreCommand& command);
  void ForeseeAnswer(uint64_t sequence, const link::v1::Refuse* refuse);
  void ForeseeErrors(const link::v1::DeliverTo& deliver);
  Session* Find(uint64_t connection) const;
  void Flush();
  void Free(Session& session);

  World& world_;
  EdgeProcess& edge_;
  const uint32_t number_;
  edge::Shard shard_;
  std::vector<Slot> slots_;
  std::shared_ptr<SimLink> link_;       // null: none
  std::shared_ptr<SimLink> candidate_;  // to a core that is asked whether it takes the shard; null: none
  std::vector<std::shared_ptr<CoreProcess>> to_ask_;
  uint64_t attach_ = 0;
  SimTime attached_at_{0};
  link::v1::EdgeFrame gathered_;
  std::map<uint64_t, link::v1::RoomJoined> joins_;  // that were sent and are not answered, by sequence
  bool flush_planned_ = false;
};

class EdgeProcess final : public Process, public std::enable_shared_from_this<EdgeProcess> {
 public:
  EdgeProcess(World& world, uint64_t incarnation, MachineClock machine_clock);
  void Start(uint32_t shards);
  // Refuses newcomers, and sends its clients to other edges over this time.
  void Drain(std::chrono::milliseconds window);
  bool ready() const;  // all its shards are: GET /health
  void Crash();

  uint64_t incarnation() const { return incarnation_; }
  Now Clocks() const;
  ShardNode& shard(uint32_t number) { return *shards_[number]; }
  uint32_t shards() const { return static_cast<uint32_t>(shards_.size()); }

 private:
  void Tick();

  World& world_;
  const uint64_t incarnation_;
  std::vector<std::unique_ptr<ShardNode>> shards_;
};

}  // namespace presence::sim
