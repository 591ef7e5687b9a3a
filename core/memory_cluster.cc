// MemoryDatabase: what cores say to each other. The steps of publish_once.lua and announce_core.lua, and the channels.
#include <algorithm>
#include <utility>

#include "core/memory_database.h"

namespace presence::core {
namespace {

std::string RequestKey(std::string_view request_id) {
  return std::string("presence.request:").append(request_id);
}

// What stands in front of the answer, see publish_once.lua.
std::string RequestHead(std::string_view fingerprint) {
  return std::to_string(fingerprint.size()).append(":").append(fingerprint);
}
size_t RequestHeadSize(const std::string& saved) {
  return saved.find(':') + 1 + std::stoul(saved);
}

}  // namespace

void MemoryDatabase::Publish(const link::v1::BusEnvelope& envelope, std::string_view outside) {
  Distribute({BusChannel::kBus, envelope, {}});
  if (!outside.empty()) Distribute({BusChannel::kMessageBroadcast, {}, std::string(outside)});
}

OnceResult MemoryDatabase::PublishOnce(const StoreOptions& options, std::string_view request_id,
                                       std::string_view fingerprint, const link::v1::BusEnvelope& envelope,
                                       std::string_view outside) {
  DropLapsed();
  OnceResult result = UseRequest(options, request_id, fingerprint);
  if (result.outcome == OnceResult::Outcome::kPublished) Publish(envelope, outside);
  return result;
}

OnceResult MemoryDatabase::UseRequest(const StoreOptions& options, std::string_view request_id,
                                      std::string_view fingerprint) {
  const std::string key = RequestKey(request_id), head = RequestHead(fingerprint);
  const auto [saved, fresh] = texts_.try_emplace(key, head);
  if (!fresh) {
    if (!saved->second.starts_with(head)) return {OnceResult::Outcome::kConflict, {}};
    return {OnceResult::Outcome::kRepeated, saved->second.substr(head.size())};
  }
  SetExpiry(key, ReadClock().ms + std::chrono::milliseconds(options.request_lifetime).count());
  return {OnceResult::Outcome::kPublished, {}};
}

void MemoryDatabase::SaveAnswer(std::string_view request_id, std::string_view answer) {
  DropLapsed();
  const auto saved = texts_.find(RequestKey(request_id));
  if (saved == texts_.end()) return;
  saved->second.resize(RequestHeadSize(saved->second));
  saved->second += answer;
}

std::vector<uint64_t> MemoryDatabase::AnnounceCore(const StoreOptions& options) {
  const int64_t now_ms = ReadClock().ms;
  cores_[options.core_incarnation] = now_ms;
  std::vector<uint64_t> live;
  for (auto core = cores_.begin(); core != cores_.end();) {
    // The clock has gone back: who has died must not live for as long as that was.
    core->second = std::min(core->second, now_ms);
    if (core->second <= now_ms - options.core_lifetime.count()) {
      core = cores_.erase(core);
    } else {
      live.push_back((core++)->first);
    }
  }
  return live;
}

void MemoryDatabase::Reply(uint64_t core, const link::v1::ClusterReplies& replies) {
  Publication publication;
  publication.channel = BusChannel::kReplies;
  publication.core = core;
  publication.replies = replies;
  Distribute(std::move(publication));
}

void MemoryDatabase::PublishOutside(BusChannel channel, std::string_view text) {
  Distribute({channel, {}, std::string(text)});
}

void MemoryDatabase::Subscribe(BusSubscriber* subscriber) {
  subscribers_.push_back(subscriber);
}
void MemoryDatabase::Unsubscribe(BusSubscriber* subscriber) {
  std::erase(subscribers_, subscriber);
}

void MemoryDatabase::Distribute(Publication publication) {
  const auto shared = std::make_shared<const Publication>(std::move(publication));
  for (BusSubscriber* subscriber : subscribers_) subscriber->OnPublication(shared);
}

}  // namespace presence::core
