// A server stream that is filled on the loop thread: what WatchPresence and Tap have in common.
//
//   gRPC's threads ──OnWriteDone, OnCancel──▶ posted to the loop ──▶ Fill, StartWrite, Finish
//
// Everything but the posting happens on the loop thread, so nothing here is locked but the end of the context. Invariants:
//   * Begin is the first call: it is posted before gRPC knows of the reactor, so before any reaction;
//   * at most one write is in flight; none begins after Finish, which is called once, and which gRPC allows beside a write;
//   * the stream lives until gRPC is done with it (OnDone, which comes only after Finish, so after Close) and no closure on the loop
//     refers to it. A closure that never runs, since the loop has stopped, is dropped with the loop;
//   * a client that does not read when the stream is ended is cut off after the linger, so it holds nothing for long;
//   * an idle stream holds no memory of its largest response.
// When the client's host takes nothing more (a stopped process), neither the end nor the cut can be sent: then the last response is held
// until the listener's keepalive has found that out, and nothing else.
#pragma once

#include <grpc/grpc.h>
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "core/core_runtime.h"
#include "core/grpc_status.h"
#include "core/service_metrics.h"

namespace presence::core {

// A stream that ends at once.
template <typename Response>
class RefusedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  RefusedStream(const absl::Status& why, StreamMetrics& metrics) {
    metrics.refused.fetch_add(1, std::memory_order_relaxed);
    this->Finish(ToGrpc(why));
  }
  void OnDone() override { delete this; }
};

template <typename Response>
class LoopStream : public grpc::ServerWriteReactor<Response>,
                   public std::enable_shared_from_this<LoopStream<Response>> {
 public:
  static constexpr std::chrono::milliseconds kLinger{5'000};

  // The reactor for gRPC. From the method's thread, once.
  template <typename Stream>
  static grpc::ServerWriteReactor<Response>* Start(std::shared_ptr<Stream> stream) {
    LoopStream& base = *stream;
    base.self_ = stream;
    base.Post([](LoopStream& self) { self.Begin(); });
    return &base;
  }

 protected:
  // The runtime and the metrics must outlive the call.
  LoopStream(grpc::CallbackServerContext& context, CoreRuntime& runtime, StreamMetrics& metrics,
             std::chrono::milliseconds linger = kLinger)
      : runtime_(runtime), metrics_(metrics), linger_(linger), context_(&context) {}
  ~LoopStream() override = default;

  // --- on the loop thread, by the derived stream.

  // The first one. Says Opened, Refuse or End, perhaps later.
  virtual void Begin() = 0;
  // Something into the cleared response; false: there is nothing, and Pump will be called when there is.
  virtual bool Fill(Response* response) = 0;
  // The client is gone, or the stream has ended: let go of everything. Once.
  virtual void Close() = 0;

  // Writes, if there is something and nothing is in flight.
  void Pump() {
    if (writing_ || ended_) return;
    response_.Clear();
    if (Fill(&response_)) {
      writing_ = true;
      metrics_.responses.Add();
      this->StartWrite(&response_);
    } else if (std::exchange(grown_, false)) {
      response_ = Response();  // Clear keeps all of the largest one, for ever
    }
  }

  // Fill has written a response whose memory is not to be kept.
  void Grew() { grown_ = true; }

  // How it began; once, one of the two. Refuse ends it.
  void Opened() {
    opened_ = true;
    metrics_.opened.Add();
  }
  void Refuse(const absl::Status& why) {
    metrics_.refused.fetch_add(1, std::memory_order_relaxed);
    End(why);
  }
  // End, since the client lets too much wait.
  void EndSlow(const absl::Status& why) {
    metrics_.ended_slow.Add();
    End(why);
  }

  // After what is in flight. The first one counts.
  void End(const absl::Status& why) {
    if (std::exchange(ended_, true)) return;
    Close();
    CutOffLater();  // before Finish, behind which OnDone may come at any moment
    this->Finish(ToGrpc(why));
  }

  bool opened() const { return opened_; }
  bool ended() const { return ended_; }
  CoreRuntime& runtime() { return runtime_; }

 private:
  template <typename Work>
  void Post(Work work) {
    runtime_.OnLoop([self = this->shared_from_this(), work](LoopParts&) { work(*self); });
  }

  // The alarm keeps its callback as long as itself, and the stream keeps the alarm: a share would never end.
  void CutOffLater() {
    alarm_.Set(std::chrono::system_clock::now() + linger_, [weak = this->weak_from_this()](bool fired) {
      if (!fired) return;
      if (const auto self = weak.lock()) self->CutOff();
    });
  }

  void CutOff() ABSL_LOCKS_EXCLUDED(mutex_) {
    grpc_call* call = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (context_ == nullptr) return;
      call = context_->c_call();
      grpc_call_ref(call);
    }
    // Not under the lock: it may run reactions.
    grpc_call_cancel(call, nullptr);
    grpc_call_unref(call);
  }

  // --- on gRPC's threads.

  void OnWriteDone(bool ok) final {
    Post([ok](LoopStream& self) {
      self.writing_ = false;
      if (ok) self.Pump();  // else OnCancel follows
    });
  }
  void OnCancel() final {
    Post([](LoopStream& self) { self.End(absl::CancelledError("the call was cancelled")); });
  }
  void OnDone() final ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      context_ = nullptr;  // gRPC destroys it when this returns
    }
    alarm_.Cancel();
    self_.reset();  // whatever is posted still holds it
  }

  CoreRuntime& runtime_;
  StreamMetrics& metrics_;
  const std::chrono::milliseconds linger_;
  absl::Mutex mutex_;
  grpc::CallbackServerContext* context_ ABSL_GUARDED_BY(mutex_);
  grpc::Alarm alarm_;
  std::shared_ptr<LoopStream> self_;  // gRPC's share, until OnDone

  // Of the loop thread.
  Response response_;
  bool opened_ = false;
  bool writing_ = false;
  bool grown_ = false;
  bool ended_ = false;
};

}  // namespace presence::core
