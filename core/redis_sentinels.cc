#include "core/redis_sentinels.h"

#include <charconv>
#include <chrono>
#include <utility>

#include "common/log.h"

namespace presence::core {
namespace {

constexpr std::chrono::seconds kAskEvery{1};
constexpr uint16_t kSentinelPort = 26379;

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

// The value behind a name in Sentinel's flat list of names and values.
std::string_view FieldOf(RedisReply list, std::string_view name) {
  for (size_t i = 0; i + 1 < list.size(); i += 2) {
    if (list[i].text() == name) return list[i + 1].text();
  }
  return {};
}

}  // namespace

absl::StatusOr<RedisAddress> ParseSentinel(std::string_view text) {
  const std::string wrong = "'" + std::string(text) + "' is not host:port";
  if (text.find_first_of("@/ ") != std::string_view::npos) return absl::InvalidArgumentError(wrong);
  RedisAddress address;
  address.port = kSentinelPort;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t bracket = text.find(']');
    if (bracket == std::string_view::npos) return absl::InvalidArgumentError(wrong);
    address.host = text.substr(1, bracket - 1);
    port = text.substr(bracket + 1);
  } else {
    const size_t colon = text.find(':');
    address.host = text.substr(0, colon);
    if (colon != std::string_view::npos) port = text.substr(colon);
  }
  const bool port_good =
      port.empty() || (port.starts_with(':') && ParseNumber(port.substr(1), &address.port) && address.port != 0);
  if (address.host.empty() || !port_good) return absl::InvalidArgumentError(wrong);
  return address;
}

RedisAddress BeforeSentinels(RedisAddress address, const SentinelOptions& sentinels) {
  if (sentinels.empty()) return address;
  address.host.clear();
  address.unix_path.clear();
  return address;
}

RedisAddress AtPrimary(RedisAddress address, const PrimaryWord& primary) {
  address.unix_path.clear();
  address.host = primary.host;
  address.port = primary.port;
  return address;
}

RedisSentinels::RedisSentinels(asio::io_context& io, SentinelOptions options,
                               std::function<void(const PrimaryWord&)> moved)
    : options_(std::move(options)), moved_(std::move(moved)), choice_(options_.sentinels.size()), timer_(io) {
  for (const RedisAddress& address : options_.sentinels) {
    Sentinel& sentinel = sentinels_.emplace_back();
    sentinel.address = address.ToString();
    RedisConnection::Listener& listener = *this;
    sentinel.connection =
        std::make_unique<RedisConnection>(io, RedisConnection::Options{address, "presence-core", {}}, listener);
  }
  AskEachSecond();
}

RedisSentinels::~RedisSentinels() {
  *alive_ = false;
}

void RedisSentinels::OnConnectionReady(RedisConnection& connection) {
  for (size_t i = 0; i < sentinels_.size(); ++i) {
    if (sentinels_[i].connection.get() == &connection) Ask(i);
  }
}

void RedisSentinels::OnConnectionLost(RedisConnection&, std::string_view why) {
  static log::LineLimit limit("lost Sentinels", 1, 3);
  if (limit.Admit(log::Level::kWarning)) log::Warning("No connection to a Sentinel, trying on: {}", Escaped(why));
}

void RedisSentinels::AskEachSecond() {
  Ask();
  timer_.expires_after(kAskEvery);
  timer_.async_wait([this, alive = alive_](const asio::error_code& error) {
    if (!error && *alive) AskEachSecond();
  });
}

void RedisSentinels::Ask() {
  for (size_t i = 0; i < sentinels_.size(); ++i) Ask(i);
}

// The address by the one command, which names the promoted replica from the moment of its promotion on, and how new that is by the
// other one, which goes on naming the old primary for a while.
void RedisSentinels::Ask(size_t index) {
  Sentinel& sentinel = sentinels_[index];
  if (sentinel.asked) return;
  command_.Start(3).Add("SENTINEL").Add("get-master-addr-by-name").Add(options_.primary_name);
  if (!sentinel.connection->Send(command_, [this, index](RedisReply reply) { OnAddress(index, reply); })) return;
  sentinel.asked = true;
  command_.Start(3).Add("SENTINEL").Add("master").Add(options_.primary_name);
  if (!sentinel.connection->Send(command_, [this, index](RedisReply reply) { OnDetails(index, reply); })) {
    sentinel.asked = false;
  }
}

void RedisSentinels::OnAddress(size_t index, RedisReply reply) {
  PrimaryWord& word = sentinels_[index].word;
  word = PrimaryWord();
  if (reply.size() == 2 && ParseNumber(reply[1].text(), &word.port)) word.host = reply[0].text();
}

void RedisSentinels::OnDetails(size_t index, RedisReply reply) {
  Sentinel& sentinel = sentinels_[index];
  sentinel.asked = false;
  if (reply.lost()) return;
  PrimaryWord word = std::exchange(sentinel.word, {});
  if (word.host.empty() || word.port == 0 || !ParseNumber(FieldOf(reply, "config-epoch"), &word.epoch)) {
    static log::LineLimit limit("Sentinels that do not know the primary", 1, 3);
    if (limit.Admit(log::Level::kWarning)) {
      log::Warning("Sentinel {} does not know a primary '{}' ({}): check REDIS_MASTER_NAME and REDIS_SENTINEL_PASSWORD",
                   Escaped(sentinel.address), Escaped(options_.primary_name), Escaped(reply.text()));
    }
    return;
  }
  const auto moved = choice_.OnAnswer(std::chrono::steady_clock::now(), index, std::move(word));
  if (!moved) return;
  log::Info("The primary Redis is {}:{}, says Sentinel {} (epoch {})", Escaped(moved->host), moved->port,
            Escaped(sentinel.address), moved->epoch);
  moved_(*moved);
}

}  // namespace presence::core
