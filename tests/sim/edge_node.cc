#include "tests/sim/edge_node.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

#include "common/connection_id.h"
#include "tests/sim/core_node.h"
#include "tests/sim/world.h"

namespace presence::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

edge::ShardOptions OptionsOf(const World& world, uint64_t incarnation, uint32_t number) {
  edge::ShardOptions options = world.shard_options();
  options.edge_name = "edge";
  options.incarnation = incarnation;
  options.shard = number;
  return options;
}

constexpr uint16_t kLoggedOut = 4401;
constexpr std::string_view kErrorHead = R"({"type":"error")";

edge::TokenFacts FactsOf(const Session& session) {
  edge::TokenFacts facts;
  facts.user_id = session.user_id;
  facts.username = session.username;
  facts.session_id = session.login.session_id;
  facts.issued_at_ms = session.login.issued_at_s * 1000;
  facts.room_rights = session.login.rights.get();
  return facts;
}

// The payload of one unmasked text frame (RFC 6455, section 5.2).
std::string_view TextOf(const edge::FrameRef& frame) {
  const std::string_view bytes = frame.bytes();
  const auto length = static_cast<unsigned char>(bytes[1]);
  return bytes.substr(length < 126 ? 2 : length == 126 ? 4 : 10);
}

}  // namespace

ShardNode::ShardNode(World& world, EdgeProcess& edge, uint32_t number)
    : world_(world), edge_(edge), number_(number), shard_(OptionsOf(world, edge.incarnation(), number), *this) {}

void ShardNode::Tick() {
  shard_.OnTick(edge_.Clocks());
}

void ShardNode::Attach() {
  const std::shared_ptr<CoreProcess> core = world_.AnyCore();
  if (core == nullptr) {
    const SimTime pause = world_.random().Between(milliseconds(100), seconds(1));
    world_.scheduler().AtProcess(world_.now() + pause, edge_.shared_from_this(), [this] { Attach(); });
    return;
  }
  AttachTo(core);
}

void ShardNode::MoveTo(const std::shared_ptr<CoreProcess>& core, SimTime pause) {
  GiveUpSeeking();
  End(std::exchange(link_, nullptr));
  gathered_.Clear();
  shard_.OnLinkDown(edge_.Clocks());
  if (pause.count() == 0) return AttachTo(core);
  world_.scheduler().AtProcess(world_.now() + pause, edge_.shared_from_this(), [this, core] { AttachTo(core); });
}

void ShardNode::AttachTo(const std::shared_ptr<CoreProcess>& core) {
  link_ = world_.Connect(edge_.shared_from_this(), number_, core);
  ++attach_;
  attached_at_ = world_.now();
  char line[64];
  std::snprintf(line, sizeof line, "%04x/%u attaches to core %04x", static_cast<unsigned>(edge_.incarnation() & 0xffff),
                number_, static_cast<unsigned>(core->incarnation() & 0xffff));
  world_.Trace(line);
  shard_.OnLinkUp(edge_.Clocks());
}

void ShardNode::End(const std::shared_ptr<SimLink>& link) {
  link->edge_open = false;
  world_.SendUp(link, {SimLink::Item::Kind::kEnd, ""});
}

void ShardNode::SeekCore() {
  if (candidate_ != nullptr) return;
  to_ask_.clear();
  for (const auto& node : world_.cores()) {
    if (node.process != nullptr && node.process != link_->core) to_ask_.push_back(node.process);
  }
  world_.Trace("a shard seeks another core");
  // Not from inside the shard.
  world_.scheduler().AtProcess(world_.now(), edge_.shared_from_this(), [this] { AskNext(); });
}

void ShardNode::AskNext() {
  if (to_ask_.empty() || candidate_ != nullptr) return;
  candidate_ = world_.Connect(edge_.shared_from_this(), number_, to_ask_.back());
  to_ask_.pop_back();
  link::v1::EdgeFrame frame;
  shard_.AskForStore(frame.add_events()->mutable_hello());
  world_.SendUp(candidate_, {SimLink::Item::Kind::kFrame, frame.SerializeAsString()});
  // As CoreLink does: one that says nothing is passed over.
  world_.scheduler().AtProcess(world_.now() + seconds(1), edge_.shared_from_this(), [this, asked = candidate_] {
    if (candidate_ != asked) return;
    world_.SendUp(asked, {SimLink::Item::Kind::kEnd, ""});
    OnLinkEnded(asked);
  });
}

void ShardNode::GiveUpSeeking() {
  to_ask_.clear();
  if (candidate_ != nullptr) End(std::exchange(candidate_, nullptr));
}

void ShardNode::OnLinkFrame(const std::shared_ptr<SimLink>& link, const std::string& bytes) {
  if (link == candidate_) {
    world_.Trace("a shard has found a better core");
    to_ask_.clear();
    End(std::exchange(link_, std::exchange(candidate_, nullptr)));
    gathered_.Clear();
    ++attach_;
    shard_.OnLinkMoved(edge_.Clocks());
  }
  link::v1::CoreFrame frame;
  world_.Check(frame.ParseFromString(bytes), "a CoreFrame parses");
  for (const link::v1::CoreCommand& command : frame.commands()) {
    if (!link->edge_open) return;  // the shard has given it up meanwhile
    Foresee(command);
    shard_.OnCommand(edge_.Clocks(), command);
  }
}

void ShardNode::Foresee(const link::v1::CoreCommand& command) {
  if (command.has_bind() && command.bind().reply_to() != 0) return ForeseeAnswer(command.bind().reply_to(), nullptr);
  if (command.has_refuse()) return ForeseeAnswer(command.refuse().reply_to(), &command.refuse());
  if (command.has_deliver_to()) return ForeseeErrors(command.deliver_to());
  if (!command.has_leave_room() && !command.has_change_status()) return;
  Session* const session =
      Find(command.has_leave_room() ? command.leave_room().connection() : command.change_status().connection());
  if (session != nullptr) session->Ordered(world_.now(), command);
}

void ShardNode::ForeseeAnswer(uint64_t sequence, const link::v1::Refuse* refuse) {
  const auto join = joins_.find(sequence);
  if (join == joins_.end()) return;
  if (Session* const session = Find(join->second.connection()); session != nullptr && refuse != nullptr) {
    session->Refused(world_, join->second.room_id(), refuse->code());
  }
  joins_.erase(join);
}

void ShardNode::ForeseeErrors(const link::v1::DeliverTo& deliver) {
  if (!deliver.text().starts_with(kErrorHead)) return;
  for (const uint64_t connection : deliver.connections()) {
    if (Session* const session = Find(connection)) session->denials.push_back({Session::Denial::What::kTyping, 403});
  }
}

// Null: it is not open any more.
Session* ShardNode::Find(uint64_t connection) const {
  const ConnectionId id = ConnectionId::Unpack(connection);
  if (id.slot >= slots_.size() || slots_[id.slot].generation != id.generation) return nullptr;
  Session* const session = slots_[id.slot].session.get();
  return session == nullptr || session->closing ? nullptr : session;
}

void ShardNode::OnLinkEnded(const std::shared_ptr<SimLink>& link) {
  if (!std::exchange(link->edge_open, false)) return;
  if (link == candidate_) {
    candidate_ = nullptr;
    return AskNext();
  }
  GiveUpSeeking();
  gathered_.Clear();
  link_ = nullptr;
  shard_.OnLinkDown(edge_.Clocks());
  const SimTime pause = world_.random().Between(milliseconds(1), seconds(1));
  world_.scheduler().AtProcess(world_.now() + pause, edge_.shared_from_this(), [this] { Attach(); });
}

bool ShardNode::Accept(const std::shared_ptr<Session>& session) {
  if (!shard_.ready(edge_.Clocks())) return false;
  uint32_t slot = 0;
  while (slot < slots_.size() && slots_[slot].session != nullptr) ++slot;
  if (slot == slots_.size()) slots_.emplace_back();
  slots_[slot].session = session;
  session->slot = slot;
  session->generation = ++slots_[slot].generation;
  session->at_open = world_.published();
  if (session->login.rights != nullptr) session->tokens.push_back({world_.now(), session->login.rights});
  shard_.OnConnectionOpened(edge_.Clocks(), slot, session->generation, FactsOf(*session));
  return true;
}

bool ShardNode::OnClientText(Session& session, std::string_view text) {
  if (session.freed) return false;
  const bool was_closing = session.closing;
  const auto refused = [this] { return shard_.counters().frames_over_frames + shard_.counters().frames_over_bytes; };
  const uint64_t refused_before = refused(), told_before = session.refusals;
  shard_.OnBytesReceived(edge_.Clocks(), session.slot, text.size());
  shard_.OnClientText(edge_.Clocks(), session.slot, text);
  if (session.closing) {
    world_.Check(was_closing || world_.floods(), "what a client says closes it only when it floods");
    return false;
  }
  world_.Check(refused() - refused_before == session.refusals - told_before, "a refused frame gets one error 429");
  return refused() == refused_before;
}

void ShardNode::OnClientClosed(Session& session) {
  Free(session);
}

void ShardNode::Free(Session& session) {
  if (std::exchange(session.freed, true)) return;
  session.closing = true;
  shard_.OnConnectionClosed(edge_.Clocks(), session.slot);
  slots_[session.slot].session = nullptr;
}

link::v1::EdgeEvent& ShardNode::AddEvent() {
  world_.Check(link_ != nullptr, "events are made only while a link is up");
  if (!std::exchange(flush_planned_, true)) {
    world_.scheduler().AtProcess(world_.now() + world_.GatherDelay(), edge_.shared_from_this(), [this] { Flush(); });
  }
  return *gathered_.add_events();
}

void ShardNode::Flush() {
  flush_planned_ = false;
  if (link_ == nullptr || gathered_.events_size() == 0) return;
  for (const link::v1::EdgeEvent& event : gathered_.events()) {
    if (event.has_room_joined()) joins_[event.sequence()] = event.room_joined();
  }
  world_.SendUp(link_, {SimLink::Item::Kind::kFrame, gathered_.SerializeAsString()});
  gathered_.Clear();
}

void ShardNode::DropLink(std::string_view why) {
  // The simulated cores keep the protocol: only silence is a reason.
  world_.Check(why == "the core is silent", std::string("the shard finds no fault: ").append(why));
  world_.scheduler().AtProcess(world_.now(), edge_.shared_from_this(), [this, link = link_] {
    world_.SendUp(link, {SimLink::Item::Kind::kEnd, ""});
    OnLinkEnded(link);
  });
}

void ShardNode::Send(absl::Span<const uint32_t> slots, const edge::FrameRef& frame, edge::SendPolicy /*policy*/) {
  const ReceivedFrame read = ReadFrame(world_, TextOf(frame));
  for (const uint32_t slot : slots) {
    world_.Check(slot < slots_.size() && slots_[slot].session != nullptr && !slots_[slot].session->closing,
                 "a frame goes to an open connection");
    slots_[slot].session->OnFrame(world_, read, attach_);
  }
}

void ShardNode::Close(uint32_t slot, uint16_t code, std::string_view reason) {
  const std::shared_ptr<Session> session = slots_[slot].session;
  world_.Check(session != nullptr && !session->closing, "only an open connection is closed");
  world_.Trace("close " + session->user_id + " " + std::to_string(code) + " " + std::string(reason));
  session->closing = true;
  session->close_code = code;
  if (code == kLoggedOut) world_.callers().CheckLoggedOut(*session);
  // A client that is there answers; for one that is not, the socket waits for a while.
  const SimTime delay = session->vanished ? seconds(3) : world_.ClientDelay();
  world_.scheduler().AtProcess(world_.now() + delay, edge_.shared_from_this(), [this, session] { Free(*session); });
  if (!session->vanished) world_.scheduler().After(world_.ClientDelay(), [session] { session->client_open = false; });
}

void ShardNode::CheckToken(uint32_t slot, std::string_view token) {
  // The simulated clients show good tokens of their own, of the same session: the text is when it was issued. The check takes a while.
  int64_t issued_at_s = 0;
  std::from_chars(token.data(), token.data() + token.size(), issued_at_s);
  world_.scheduler().AtProcess(world_.now() + world_.ClientDelay(), edge_.shared_from_this(),
                               [this, session = slots_[slot].session, issued_at_s] {
                                 if (session->freed) return;
                                 session->login.issued_at_s = issued_at_s;
                                 session->login.rights = session->next_rights;
                                 if (session->login.rights != nullptr) {
                                   session->tokens.push_back({world_.now(), session->login.rights});
                                 }
                                 shard_.OnTokenChecked(edge_.Clocks(), session->slot, session->generation,
                                                       {edge::TokenCheck::Outcome::kGood, FactsOf(*session)});
                               });
}

void ShardNode::Report(Severity /*severity*/, uint32_t slot, std::string_view what, std::string_view detail) {
  world_.Check(slot < slots_.size() && slots_[slot].session != nullptr, "reports are about connections");
  world_.Trace(std::string(what).append(" ").append(detail));
}

EdgeProcess::EdgeProcess(World& world, uint64_t incarnation, MachineClock machine_clock)
    : world_(world), incarnation_(incarnation) {
  clock = machine_clock;
}

Now EdgeProcess::Clocks() const {
  return clock.Read(world_.now());
}

void EdgeProcess::Start(uint32_t shards) {
  for (uint32_t i = 0; i < shards; ++i) {
    shards_.push_back(std::make_unique<ShardNode>(world_, *this, i));
    shards_.back()->Attach();
  }
  Tick();
}

void EdgeProcess::Drain(milliseconds window) {
  for (const auto& shard : shards_) shard->shard().Drain(Clocks(), window);
}

bool EdgeProcess::ready() const {
  return std::all_of(shards_.begin(), shards_.end(),
                     [this](const auto& shard) { return shard->shard().ready(Clocks()); });
}

void EdgeProcess::Crash() {
  alive = false;
  shards_.clear();
}

void EdgeProcess::Tick() {
  for (const auto& shard : shards_) shard->Tick();
  world_.TickLater(shared_from_this(), [this] { Tick(); });
}

}  // namespace presence::sim
