// ROOM_AUTH=grpc: asks a backend that implements presence.v1.RoomAuthorizer.
//
// Lives on the thread of its io_context; gRPC's threads only post onto it. At most `calls_max` calls are under way and `waiting_max` questions
// wait for their turn, none for longer than `timeout`; past that, and for a call that fails or takes longer, the answer is kUnavailable. Nothing is tried
// again here: the hub does. New certificate files are taken for the next dial, as soon as a question comes.
//
// Does not do: remembering answers (room_access.h), balancing beyond what gRPC does with a name of several addresses.
#pragma once

#include <asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "common/tls_files.h"
#include "core/room_authorizer.h"
#include "core/room_rights_metrics.h"

namespace presence::core {

struct GrpcRoomAuthorizerOptions {
  std::string address{};            // ROOM_AUTHORIZER, a gRPC target
  std::shared_ptr<TlsFiles> tls{};  // null: without
  std::chrono::milliseconds timeout{2000};
  size_t calls_max = 64;
  size_t waiting_max = 10'000;
};

class GrpcRoomAuthorizer final : public RoomAuthorizer {
 public:
  // Listener and metrics must outlive it, the io_context what it has posted.
  GrpcRoomAuthorizer(asio::io_context& io, GrpcRoomAuthorizerOptions options, RoomRightListener& listener,
                     RoomRightsMetrics& metrics);
  // Cancels what is under way and waits for gRPC to let go of it.
  ~GrpcRoomAuthorizer() override;

  void Ask(const RoomQuestion& question) override;

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace presence::core
