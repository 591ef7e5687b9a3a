// One Attach stream to one core, from the dial to its end; private to core_link.cc.
//
// The loop's side (Write, Take, LetGo) is called on the shard's loop alone; gRPC's threads fill the inbox and give notice. When eight
// frames wait, no further one is read before one is taken. Owns itself from Start until gRPC has said OnDone and the loop has let go.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "edge/core_link.h"
#include "presence/link/v1/link.grpc.pb.h"

namespace presence::edge {

absl::Status ToAbsl(const grpc::Status& status);

// The edge's secret, for a call or stream of this context.
void ShowSecret(const LinkCredentials& credentials, grpc::ClientContext& context);

class CoreStream : public grpc::ClientBidiReactor<link::v1::EdgeFrame, link::v1::CoreFrame>,
                   public std::enable_shared_from_this<CoreStream> {
 public:
  // What the stream tells, from gRPC's threads; whoever listens posts it to the loop.
  struct Notices {
    std::function<void()> readable;  // the inbox was empty and has a frame, or the core has ended the stream
    std::function<void(bool ok)> written;
    // Carries the stream itself: the last reference to a channel must die on the loop, since gRPC would otherwise join the thread
    // of its own that it is called on.
    std::function<void(absl::Status, std::shared_ptr<CoreStream>)> done;
  };

  // `number`: the caller's, to know it by.
  CoreStream(uint64_t number, const std::string& address, const LinkCredentials& credentials, Notices notices);

  void Start();

  // --- the loop's side.
  uint64_t number() const { return number_; }
  // Sends what `writing` holds, which must not change until the notice `written`. REQUIRES: no write is in flight.
  link::v1::EdgeFrame& writing() { return *writing_; }
  void SwapWriting(std::unique_ptr<link::v1::EdgeFrame>& frame) { writing_.swap(frame); }
  void Write();
  void Written() { write_in_flight_ = false; }
  bool write_in_flight() const { return write_in_flight_; }

  // The oldest frame that was read; null: none.
  std::unique_ptr<link::v1::CoreFrame> Take();
  void Recycle(std::unique_ptr<link::v1::CoreFrame> frame);
  bool HasFrame();
  // The core has ended it, and no frame is left.
  bool Ended();

  // Ends it. No Write or Take afterwards.
  void LetGo();
  bool let_go() const { return let_go_; }

  link::v1::Link::Stub& stub() { return *stub_; }

  // --- gRPC's threads.
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override { notices_.written(ok); }
  void OnDone(const grpc::Status& status) override;

 private:
  const uint64_t number_;
  Notices notices_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<link::v1::Link::Stub> stub_;
  grpc::ClientContext context_;
  link::v1::CoreFrame reading_;
  std::shared_ptr<CoreStream> self_;

  // The loop's.
  std::unique_ptr<link::v1::EdgeFrame> writing_ = std::make_unique<link::v1::EdgeFrame>();
  bool write_in_flight_ = false;
  bool let_go_ = false;

  std::mutex mutex_;
  std::deque<std::unique_ptr<link::v1::CoreFrame>> inbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<link::v1::CoreFrame>> spare_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // eight frames wait: the next read is started by Take
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace presence::edge
