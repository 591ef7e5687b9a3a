// The gRPC end of the link in one shard: one Attach stream to one core at a time, found again whenever it is lost, and the
// unary calls that REST needs.
//
// Lives on the shard's thread; gRPC's threads only fill an inbox and post. Events gather in one frame while a write is in
// flight (natural batching); frames that were read wait in the inbox until the shard asks for them, and when eight wait no
// further one is read, so a core that is faster than the shard is held back by gRPC's flow control.
//
// Does not judge silence and does not know what the events mean: that is the shard's. Finding a core: the addresses of
// CORE_LINK in turn, from one that incarnation and shard choose; after each round a pause of 100 ms to 1 s with jitter. A better core than
// the one that is there is looked for beside it: a second stream takes the place of the first when its core has answered.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "presence/link/v1/link.pb.h"

namespace asio {
class io_context;
}

namespace presence {
class TlsFiles;
}

namespace presence::edge {

// What an edge shows its cores, and what it expects of them.
struct LinkCredentials {
  std::shared_ptr<TlsFiles> tls;  // asked at each dial; null: no TLS
  std::string server_name;        // what the core's certificate must name; empty: the host of the address
  std::string secret;             // goes with each call; empty: none
};

struct CoreLinkOptions {
  std::vector<std::string> addresses;   // host:port or a gRPC name; at least one
  uint64_t start = 0;                   // which address to try first, modulo their number
  size_t frame_bytes_max = 256 * 1024;  // one larger event goes alone
  LinkCredentials credentials{};
};

// Calls come from the shard's loop, never from inside a call to the link, except where said.
class CoreLinkHandler {
 public:
  virtual ~CoreLinkHandler() = default;
  // A stream is started: say Hello. Whether anybody is there shows later, by OnLinkFrames or OnLinkDown.
  virtual void OnLinkUp() = 0;
  // TakeFrame has something.
  virtual void OnLinkFrames() = 0;
  virtual void OnLinkDown(const absl::Status& why) = 0;
  // Seek has begun a stream to another core: say what it is to be greeted with. Whether that core wants the shard shows later.
  virtual void OnAskForStore(link::v1::Hello* hello) = 0;
  // It does: its stream is the link now, with its answer in TakeFrame (OnLinkFrames follows), and the former one is ended without
  // OnLinkDown. What TakeFrame has given out of that one is gone.
  virtual void OnLinkMoved() = 0;
};

class CoreLink {
 public:
  using PresenceDone = std::function<void(const absl::StatusOr<link::v1::PresenceRecord>&)>;
  using EndSessionsDone = std::function<void(const absl::StatusOr<link::v1::EndSessionsResponse>&)>;
  using PresenceListDone = std::function<void(const absl::StatusOr<link::v1::ListPresenceResponse>&)>;

  // The handler must outlive the link. Nothing happens before Start.
  CoreLink(asio::io_context& io, CoreLinkOptions options, CoreLinkHandler& handler);
  ~CoreLink();
  CoreLink(const CoreLink&) = delete;
  CoreLink& operator=(const CoreLink&) = delete;

  void Start();
  // No further attempt; the stream ends, OnLinkDown is not called. Destroy the link only after Stop and after the loop has
  // run until stopped() says so.
  void Stop();
  bool stopped() const;

  // A cleared event at the end of the gathered frame. Between OnLinkUp and OnLinkDown only.
  link::v1::EdgeEvent& AddEvent();
  // Writes what has gathered, unless a write is in flight: then it follows that one by itself.
  void Flush();

  // The oldest frame that was read and not yet taken; nullptr: none. Valid until the next call.
  const link::v1::CoreFrame* TakeFrame();

  // Asks the cores at the other addresses, in any order, each once and for at most 1 s, by OnAskForStore. Nothing without a stream, or
  // while such a round is under way.
  void Seek();

  // Ends the stream; OnLinkDown follows in a later turn.
  void Drop(std::string_view why);

  // Unary, over the connection of the current stream. `done` comes once, on the loop: UNAVAILABLE without a core,
  // DEADLINE_EXCEEDED after `timeout`. At most calls_in_flight_max at once, else RESOURCE_EXHAUSTED.
  static constexpr size_t calls_in_flight_max = 1024;
  void LookUpPresence(std::string_view user_id, std::chrono::milliseconds timeout, PresenceDone done);
  void ListPresence(uint32_t limit, std::string_view after_user_id, std::chrono::milliseconds timeout,
                    PresenceListDone done);
  // Of a verified logout token; see link.proto.
  void EndSessions(const link::v1::EndSessionsRequest& request, std::chrono::milliseconds timeout,
                   EndSessionsDone done);

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace presence::edge
