// A whole core in the test's process: the real runtime, hub, services and gRPC servers on free ports, with a memory store.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "core/admin_service.h"
#include "core/api_service.h"
#include "core/core_runtime.h"
#include "core/link_service.h"
#include "core/listeners.h"
#include "core/memory_store.h"
#include "core/serving_state.h"
#include "tests/core/link_events.h"

namespace presence::core {

// Only ever reached by a test that fails.
inline constexpr auto kPatience = std::chrono::seconds(20);

inline std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + kPatience;
}

class TestCore {
 public:
  static constexpr uint64_t kIncarnation = 99;

  explicit TestCore(
      const std::function<void(CoreRuntimeOptions&)>& change = [](CoreRuntimeOptions&) {},
      std::unique_ptr<Access> its_access = Access::Open())
      : access(std::move(its_access)) {
    CoreRuntimeOptions options;
    options.hub.core_name = "core-under-test";
    options.hub.incarnation = kIncarnation;
    options.hub.link_silence_max = std::chrono::hours(1);  // test edges send no heartbeats
    options.tick = std::chrono::milliseconds(10);
    options.on_store_changed = [this](bool up) {
      serving.SetStoreUp(up);
      absl::MutexLock lock(&mutex_);
      store_up_ = up;
    };
    change(options);
    runtime = std::make_unique<CoreRuntime>(options, [this](asio::io_context&, StoreListener& listener) {
      StoreOptions store_options;
      store_options.core_incarnation = kIncarnation;
      // A peer is there until it leaves, however slow the machine is.
      store_options.core_lifetime = std::chrono::hours(1);
      auto memory = std::make_unique<MemoryStore>(store_options, database, listener);
      store = memory.get();
      const auto run_pending = [this] {
        const bool peer_ran = run_peer && run_peer();
        return store->RunPending() || peer_ran;
      };
      return HostedStore{run_pending, std::move(memory)};
    });
    api = std::make_unique<ApiService>(*runtime, *access);
    admin = std::make_unique<AdminService>(*runtime, *access);
    link = std::make_unique<LinkService>(*runtime, LinkAccess());
    runtime->Start();
    AwaitStore(true);
    SetUpGrpc();
    api_server = Listening({.setting = "API_LISTEN",
                            .listen = {"127.0.0.1", 0},
                            .reflection = true,
                            .receive_bytes_max = kApiReceiveBytesMax,
                            .metadata_bytes_max = kApiMetadataBytesMax,
                            .streams_max = kApiStreamsMax},
                           {api.get(), admin.get()});
    link_server = Listening({.setting = "LINK_LISTEN",
                             .listen = {"127.0.0.1", 0},
                             .receive_bytes_max = kLinkReceiveBytesMax,
                             .streams_max = kLinkStreamsMax},
                            {link.get()});
    // As main.cc does.
    serving.Follow(api_server->health(), "", ServingState::Needs::kStore);
    serving.Follow(api_server->health(), "presence.v1.PresenceService", ServingState::Needs::kStore);
    serving.Follow(api_server->health(), "presence.admin.v1.AdminService", ServingState::Needs::kNothing);
    serving.Follow(link_server->health(), "", ServingState::Needs::kNothing);
    serving.Follow(link_server->health(), "presence.link.v1.Link", ServingState::Needs::kNothing);
  }

  ~TestCore() {
    serving.Forget();
    link_server->Shutdown(std::chrono::milliseconds(0));
    api_server->Shutdown(std::chrono::milliseconds(0));
    runtime->Stop();
  }

  // A connection of its own, as another process would have.
  static std::shared_ptr<grpc::Channel> Dial(const GrpcServer& server) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server.address(), grpc::InsecureChannelCredentials(), arguments);
  }

  // Runs `change` on the loop thread, and returns when it has run.
  void OnLoop(const std::function<void()>& change) {
    absl::Notification done;
    runtime->OnLoop([&](LoopParts&) {
      change();
      done.Notify();
    });
    EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::FromChrono(kPatience)));
  }

  void SetReachable(bool reachable) {
    OnLoop([&] { store->SetReachable(reachable); });
    AwaitStore(reachable);
  }

  // Puts a device of a user into the store, as an edge would.
  void PutOnline(const std::string& user_id, Status status = link::v1::STATUS_ONLINE) {
    const std::string username = "name of " + user_id;
    OnLoop([&] {
      PresenceWrite write;
      write.key = {.incarnation = 1, .connection = ++devices_};
      write.attach = 1;
      write.user_id = user_id;
      write.username = username;
      write.status = status;
      database.Write(StoreOptions(), write);
    });
  }

  void AwaitStore(bool up) {
    absl::MutexLock lock(&mutex_);
    const auto as_wanted = [this, up] {
      mutex_.AssertHeld();
      return store_up_ == up;
    };
    ASSERT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&as_wanted), absl::FromChrono(kPatience)));
  }

  MemoryDatabase database{[] { return ReadClocks().wall; }};
  ServingState serving;
  std::unique_ptr<CoreRuntime> runtime;
  MemoryStore* store = nullptr;
  const std::unique_ptr<Access> access;
  std::function<bool()> run_peer;  // of a PeerCore; the loop's
  std::unique_ptr<ApiService> api;
  std::unique_ptr<AdminService> admin;
  std::unique_ptr<LinkService> link;
  std::unique_ptr<GrpcServer> api_server, link_server;

 private:
  static std::unique_ptr<GrpcServer> Listening(const GrpcServer::Options& options,
                                               std::initializer_list<grpc::Service*> services) {
    auto server = GrpcServer::Listen(options, services);
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  absl::Mutex mutex_;
  bool store_up_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t devices_ = 0;
};

// One shard of an edge, talking to a core over gRPC.
class TestEdge {
 public:
  explicit TestEdge(TestCore& core)
      : channel_(TestCore::Dial(*core.link_server)), stub_(link::v1::Link::NewStub(channel_)) {
    context_.set_deadline(Deadline());
    stream_ = stub_->Attach(&context_);
  }
  ~TestEdge() {
    if (!stream_) return;
    Kill();
    Finish();
  }

  void Say(std::initializer_list<link::v1::EdgeEvent> events) { Say(Frame(events)); }
  void Say(const link::v1::EdgeFrame& frame) { EXPECT_TRUE(stream_->Write(frame)); }
  // Does not care whether anybody is there any more.
  void TryToSay(std::initializer_list<link::v1::EdgeEvent> events) { stream_->Write(Frame(events)); }

  // The next frame; empty at the end of the stream.
  link::v1::CoreFrame ReadFrame() {
    link::v1::CoreFrame frame;
    if (!stream_->Read(&frame)) frame.Clear();
    return frame;
  }

  // Skips others. A failure when the stream ends before.
  link::v1::CoreCommand Await(link::v1::CoreCommand::CommandCase kind) {
    for (;;) {
      while (next_ < read_.commands_size()) {
        const link::v1::CoreCommand& command = read_.commands(next_++);
        if (command.command_case() == kind) return command;
      }
      read_ = ReadFrame();
      next_ = 0;
      if (read_.commands_size() == 0) {
        ADD_FAILURE() << "the stream has ended before command " << kind << " came";
        return {};
      }
    }
  }

  // A shard with one connection, which is in `room`; returns the room's handle.
  uint32_t AttachWithRoom(uint32_t shard, const std::string& room) {
    Say({Hello(1, shard), ResyncDone(), Opened(1, Connection(0, shard), "user"),
         Joined(2, Connection(0, shard), room)});
    return Await(link::v1::CoreCommand::kBind).bind().handle();
  }

  void CloseItsSide() { stream_->WritesDone(); }
  // As when the process dies.
  void Kill() { context_.TryCancel(); }
  // Reads to the end, whatever comes.
  grpc::Status Finish() {
    link::v1::CoreFrame frame;
    while (stream_->Read(&frame)) {
    }
    const grpc::Status status = stream_->Finish();
    stream_.reset();
    return status;
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<link::v1::Link::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<link::v1::EdgeFrame, link::v1::CoreFrame>> stream_;
  link::v1::CoreFrame read_;
  int next_ = 0;
};

}  // namespace presence::core
