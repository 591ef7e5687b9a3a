// What the standard health services (grpc.health.v1.Health) of this core's servers say.
//
// PresenceService serves while the store is up and the core is not draining; operators may look without a store. The link serves until the core drains, store or not: edges
// attached to a core without Redis keep their clients and deliver among each other, while edges without any
// core would have to close them.
//
// Any thread.
#pragma once

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace grpc {
class HealthCheckServiceInterface;
}

namespace presence::core {

class ServingState {
 public:
  enum class Needs { kStore, kNothing };

  // Keeps the health of `service` up to date; "" is the server as a whole. The health service must outlive the last call to
  // this object.
  void Follow(grpc::HealthCheckServiceInterface& health, std::string service, Needs needs) ABSL_LOCKS_EXCLUDED(mutex_);

  void SetStoreUp(bool up) ABSL_LOCKS_EXCLUDED(mutex_);
  // For good.
  void SetDraining() ABSL_LOCKS_EXCLUDED(mutex_);
  // The servers are going away.
  void Forget() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Followed {
    grpc::HealthCheckServiceInterface* health;
    std::string service;
    Needs needs;
  };

  void Tell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  bool store_up_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Followed> followed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace presence::core
