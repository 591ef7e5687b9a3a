#include "core/serving_state.h"

#include <grpcpp/health_check_service_interface.h>

#include <utility>

namespace presence::core {

void ServingState::Follow(grpc::HealthCheckServiceInterface& health, std::string service, Needs needs) {
  absl::MutexLock lock(&mutex_);
  followed_.push_back({&health, std::move(service), needs});
  Tell();
}

void ServingState::SetStoreUp(bool up) {
  absl::MutexLock lock(&mutex_);
  store_up_ = up;
  Tell();
}

void ServingState::SetDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  Tell();
}

void ServingState::Forget() {
  absl::MutexLock lock(&mutex_);
  followed_.clear();
}

void ServingState::Tell() {
  for (const Followed& followed : followed_) {
    const bool serving = !draining_ && (store_up_ || followed.needs == Needs::kNothing);
    followed.health->SetServingStatus(followed.service, serving);
  }
}

}  // namespace presence::core
