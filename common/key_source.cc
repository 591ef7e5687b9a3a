#include "common/key_source.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/percent.h"

namespace presence {
namespace {

using std::chrono::milliseconds;

// UNAVAILABLE when it cannot be read. One byte more than is allowed shows that it is too long.
absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return absl::UnavailableError("no such file");
  std::ifstream file(path, std::ios::binary);
  std::string text(JwkSet::kDocumentBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof())) return absl::UnavailableError("the file cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

std::unique_ptr<KeyFetcher> FetcherFor(const KeySourceOptions& options) {
  if (options.url.empty()) return nullptr;
  KeyFetcherOptions fetcher;
  fetcher.timeout = options.fetch_timeout;
  fetcher.body_bytes_max = JwkSet::kDocumentBytesMax;
  fetcher.ca_file = options.ca_file;
  return std::make_unique<KeyFetcher>(fetcher);
}

}  // namespace

std::string CertsUrl(std::string_view keycloak_url, std::string_view realm) {
  while (!keycloak_url.empty() && keycloak_url.back() == '/') keycloak_url.remove_suffix(1);
  std::string url(keycloak_url);
  url += "/realms/";
  url += PercentEncode(realm);
  url += "/protocol/openid-connect/certs";
  return url;
}

absl::StatusOr<std::unique_ptr<KeySource>> KeySource::Start(KeySourceOptions options) {
  if (options.file.empty() == options.url.empty()) {
    return absl::InvalidArgumentError("keys come from exactly one of a file and a URL");
  }
  if (!options.url.empty() && !absl::StartsWithIgnoreCase(options.url, "http://") &&
      !absl::StartsWithIgnoreCase(options.url, "https://")) {
    return absl::InvalidArgumentError("the URL of the keys must begin with http:// or https://");
  }
  std::unique_ptr<KeySource> source(new KeySource(std::move(options)));
  source->thread_ = std::thread([raw = source.get()] { raw->Run(); });
  return source;
}

KeySource::KeySource(KeySourceOptions options)
    : options_(std::move(options)), fetcher_(FetcherFor(options_)), jitter_(std::random_device{}()) {}

KeySource::~KeySource() {
  Stop();
}

void KeySource::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (fetcher_ != nullptr) fetcher_->Interrupt();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const JwkSet> KeySource::Current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

std::string KeySource::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

KeySourceStats KeySource::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

RefreshAnswer KeySource::RequestRefresh(std::string_view kid, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    const SteadyTime now = std::chrono::steady_clock::now();
    if (stopping_ || RecentlyUnknown(kid, now)) return RefreshAnswer::kPointless;
    if (waiting_next_.size() + waiting_current_.size() >= kWaitingMax) return RefreshAnswer::kBusy;
    waiting_next_.push_back({std::string(kid), std::move(done)});
    if (refresh_at_) return RefreshAnswer::kWaiting;
    const auto spare = (options_.requested_refreshes_at_once - 1) * options_.requested_refresh_interval;
    refresh_at_ = std::max(now, allowance_full_at_ - spare);
    allowance_full_at_ = std::max(*refresh_at_, allowance_full_at_) + options_.requested_refresh_interval;
  }
  wake_.notify_all();
  return RefreshAnswer::kWaiting;
}

bool KeySource::RecentlyUnknown(std::string_view kid, SteadyTime now) const {
  const size_t hash = absl::Hash<std::string_view>{}(kid);
  return std::any_of(unknown_kids_.begin(), unknown_kids_.end(),
                     [&](const UnknownKid& one) { return one.hash == hash && now < one.until; });
}

std::vector<KeySource::Waiter> KeySource::TakeAnswered(bool good) {
  const auto has = [this](const Waiter& one) { return current_ != nullptr && !current_->Find(one.kid).empty(); };
  const SteadyTime now = std::chrono::steady_clock::now();
  for (const Waiter& one : waiting_current_) {
    if (!good || has(one) || RecentlyUnknown(one.kid, now)) continue;
    const UnknownKid unknown{absl::Hash<std::string_view>{}(one.kid), now + options_.unknown_kid_memory};
    if (unknown_kids_.size() < kUnknownKidsMax) {
      unknown_kids_.push_back(unknown);
    } else {
      unknown_kids_[oldest_unknown_kid_] = unknown;
      oldest_unknown_kid_ = (oldest_unknown_kid_ + 1) % kUnknownKidsMax;
    }
  }
  std::vector<Waiter> answered = std::exchange(waiting_current_, {});
  const auto waits_on = std::stable_partition(waiting_next_.begin(), waiting_next_.end(), has);
  std::move(waiting_next_.begin(), waits_on, std::back_inserter(answered));
  waiting_next_.erase(waiting_next_.begin(), waits_on);
  if (waiting_next_.empty() && refresh_at_) {
    refresh_at_.reset();
    allowance_full_at_ -= options_.requested_refresh_interval;  // nobody needs it any more
  }
  return answered;
}

void KeySource::Run() {
  std::unique_lock lock(mutex_);
  SteadyTime next = std::chrono::steady_clock::now();
  while (true) {
    const SteadyTime due = refresh_at_ ? std::min(next, *refresh_at_) : next;
    if (wake_.wait_until(lock, due, [&] { return stopping_ || (refresh_at_ && *refresh_at_ < due); })) {
      if (stopping_) return;
      continue;  // requested for an earlier time
    }
    refresh_at_.reset();
    waiting_current_ = std::exchange(waiting_next_, {});
    lock.unlock();
    const Outcome outcome = Attempt();
    lock.lock();
    if (stopping_) return;
    const std::vector<Waiter> answered = TakeAnswered(outcome.good);
    lock.unlock();
    for (const Waiter& one : answered) {
      if (one.done) one.done();
    }
    lock.lock();
    next = std::chrono::steady_clock::now() + outcome.next;
  }
}

KeySource::Outcome KeySource::Attempt() {
  absl::Status status;
  milliseconds delay = options_.file_poll_interval;
  if (fetcher_ == nullptr) {
    // Read as a whole each time: a few KB a second, and no guessing from time stamps whether it has changed.
    absl::StatusOr<std::string> text = ReadFile(options_.file);
    status = text.ok() ? Adopt(*std::move(text)) : text.status();
  } else {
    absl::StatusOr<FetchedKeys> fetched = fetcher_->Fetch(options_.url);
    status = fetched.ok() ? Adopt(std::move(fetched->body)) : fetched.status();
    if (status.ok()) {
      delay = fetched->max_age ? std::clamp<milliseconds>(*fetched->max_age, options_.refresh_min, options_.refresh_max)
                               : options_.refresh_default;
      retry_ = milliseconds(0);
    } else {
      retry_ = std::min(std::max(retry_ * 2, options_.retry_min), options_.retry_max);
      delay =
          milliseconds(std::uniform_int_distribution<milliseconds::rep>(retry_.count() / 2, retry_.count())(jitter_));
    }
  }
  Record(status);
  return {.good = status.ok(), .next = delay};
}

void KeySource::Record(const absl::Status& outcome) {
  const std::string message(outcome.message().data(), outcome.message().size());
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    ++stats_.attempts;
    if (!outcome.ok()) ++stats_.failures;
    news = message != last_error_ && !stopping_;
    last_error_ = message;
  }
  if (!news) return;  // one line when it breaks and one when it works again, however often it is tried
  if (outcome.ok()) {
    log::Info("Keys: the last attempt succeeded again");
  } else {
    log::Error("Keys: {}; trying on", Escaped(message));
  }
}

absl::Status KeySource::Adopt(std::string document) {
  if (!document_.empty() && document == document_) return absl::OkStatus();
  absl::StatusOr<JwkSet> parsed = JwkSet::Parse(document);
  if (!parsed.ok()) return parsed.status();
  if (parsed->empty()) {
    if (parsed->skipped().empty()) return absl::InvalidArgumentError("JWK set: no keys");
    const std::string_view reason = parsed->skipped().front().reason;
    return absl::InvalidArgumentError(
        absl::StrCat("JWK set: no usable key; the first: ", absl::string_view(reason.data(), reason.size())));
  }
  log::Info("Keys: {} can verify tokens, {} skipped", parsed->keys().size(), parsed->skipped().size());
  for (const JwkSet::Skipped& skipped : parsed->skipped()) {
    log::Debug("Keys: '{}' skipped: {}", skipped.kid, skipped.reason);
  }
  auto set = std::make_shared<const JwkSet>(*std::move(parsed));
  document_ = std::move(document);
  const std::lock_guard lock(mutex_);
  current_.swap(set);  // the old one dies behind the lock, if nobody else has it
  ++stats_.changes;
  return absl::OkStatus();
}

}  // namespace presence
