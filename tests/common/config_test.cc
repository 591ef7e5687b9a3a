#include "common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace presence {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Outcome = ConfigReader::Outcome;

enum class Scope { kEveryone, kRooms };

struct Config {
  std::string redis_url = "redis://:default-password@localhost:6379/0";
  std::string service_name = "presence";
  std::string client_secret;
  int shards = 0;
  bool compress = false;
  Duration ttl = 300s;
  Duration turn = 5ms;
  uint64_t send_buffer_bytes_max = 1 << 20;
  uint16_t port = 8006;
  std::vector<std::string> origins = {"http://localhost:3000", "http://localhost:5173"};
  Scope scope = Scope::kEveryone;
  ListenAddress api = {"127.0.0.1", 50051};
};

// A program with one setting of each type, its environment and its command line.
class ConfigReaderTest : public ::testing::Test {
 protected:
  ConfigReaderTest() {
    reader_.Section("Service");
    reader_.Port("SERVICE_PORT", &config_.port, "where clients connect");
    reader_.Text("SERVICE_NAME", &config_.service_name, "how the service calls itself");
    reader_.Integer("EDGE_SHARDS", &config_.shards, 0, 256, "threads; 0: one per hardware thread");
    reader_.Bool("COMPRESS", &config_.compress, "offer compression");
    reader_.Listen("API_LISTEN", &config_.api, "the public API");
    reader_.List("ALLOWED_ORIGINS", &config_.origins, "web pages that may connect");
    reader_.Bytes("SEND_BUFFER_MAX", &config_.send_buffer_bytes_max, {1024, 1 << 30}, "per connection");
    reader_.Section("Presence");
    reader_.Seconds("WS_PRESENCE_TTL", &config_.ttl, {500ms, 1h}, "how long an entry outlives its last heartbeat");
    reader_.Milliseconds("TURN", &config_.turn, {1ms, 1s}, "the longest turn");
    reader_.Choice("PRESENCE_SCOPE", &config_.scope, {{"everyone", Scope::kEveryone}, {"rooms", Scope::kRooms}},
                   "who hears of a change");
    reader_.Section("Secrets");
    reader_.Url("REDIS_URL", &config_.redis_url, "where the state lives");
    reader_.Secret("CLIENT_SECRET", &config_.client_secret, "known to the issuer and us");
  }

  Outcome Read(std::vector<const char*> arguments = {}) {
    arguments.insert(arguments.begin(), "presence-test");
    return reader_.Read(static_cast<int>(arguments.size()), arguments.data());
  }

  std::map<std::string, std::string> environment_;
  Config config_;
  ConfigReader reader_{"presence-test", "A program for this test.",
                       [this](const std::string& name) -> std::optional<std::string> {
                         const auto found = environment_.find(name);
                         if (found == environment_.end()) return std::nullopt;
                         return found->second;
                       }};
};

TEST_F(ConfigReaderTest, WithNothingGivenEveryFieldKeepsItsDefault) {
  EXPECT_EQ(Read(), Outcome::kRun);
  EXPECT_EQ(config_.port, 8006);
  EXPECT_EQ(config_.ttl, 300s);
  EXPECT_THAT(config_.origins, ElementsAre("http://localhost:3000", "http://localhost:5173"));
  EXPECT_THAT(reader_.Changed(), IsEmpty());
}

TEST_F(ConfigReaderTest, EveryTypeIsReadFromTheEnvironment) {
  environment_ = {{"SERVICE_PORT", "0"},
                  {"SERVICE_NAME", "presence two"},
                  {"EDGE_SHARDS", "8"},
                  {"COMPRESS", "yes"},
                  {"API_LISTEN", "[::1]:50060"},
                  {"ALLOWED_ORIGINS", " https://a.example , https://b.example,"},
                  {"SEND_BUFFER_MAX", "64KiB"},
                  {"WS_PRESENCE_TTL", "0.5"},
                  {"TURN", "2.5"},
                  {"PRESENCE_SCOPE", "Rooms"},
                  {"REDIS_URL", "redis://redis:6379/1"},
                  {"CLIENT_SECRET", "s3cret"}};
  ASSERT_EQ(Read(), Outcome::kRun) << reader_.MistakesText();
  EXPECT_EQ(config_.port, 0);
  EXPECT_EQ(config_.service_name, "presence two");
  EXPECT_EQ(config_.shards, 8);
  EXPECT_TRUE(config_.compress);
  EXPECT_EQ(config_.api, (ListenAddress{"::1", 50060}));
  EXPECT_THAT(config_.origins, ElementsAre("https://a.example", "https://b.example"));
  EXPECT_EQ(config_.send_buffer_bytes_max, 65536u);
  EXPECT_EQ(config_.ttl, 500ms);
  EXPECT_EQ(config_.turn, 2500us);
  EXPECT_EQ(config_.scope, Scope::kRooms);
  EXPECT_EQ(config_.redis_url, "redis://redis:6379/1");
  EXPECT_EQ(config_.client_secret, "s3cret");
}

TEST_F(ConfigReaderTest, FlagBeatsEnvironmentAndTheLastFlagCounts) {
  environment_ = {{"SERVICE_PORT", "9000"}, {"EDGE_SHARDS", "2"}};
  EXPECT_EQ(Read({"--service_port=9001", "--service-port", "9002", "--COMPRESS"}), Outcome::kRun);
  EXPECT_EQ(config_.port, 9002);
  EXPECT_EQ(config_.shards, 2);
  EXPECT_TRUE(config_.compress);
}

TEST_F(ConfigReaderTest, AVariableThatIsSetButEmptyCountsAsUnset) {
  environment_ = {{"SERVICE_PORT", ""}, {"ALLOWED_ORIGINS", ""}};
  EXPECT_EQ(Read(), Outcome::kRun);
  EXPECT_EQ(config_.port, 8006);
  EXPECT_EQ(config_.origins.size(), 2u);
}

TEST_F(ConfigReaderTest, AnEmptyFlagEmptiesAList) {
  EXPECT_EQ(Read({"--allowed_origins="}), Outcome::kRun);
  EXPECT_THAT(config_.origins, IsEmpty());
}

TEST_F(ConfigReaderTest, ANegativeNumberMayFollowItsFlag) {
  EXPECT_EQ(Read({"--edge_shards", "-1"}), Outcome::kInvalid);
  EXPECT_THAT(reader_.Mistakes(), ElementsAre("--edge_shards=-1: expected a whole number from 0 to 256"));
}

TEST_F(ConfigReaderTest, AllMistakesAreReportedTogetherAndLeaveTheirFieldsAlone) {
  environment_ = {{"EDGE_SHARDS", "many"}, {"WS_PRESENCE_TTL", "0.4"}, {"PRESENCE_SCOPE", "all"}};
  reader_.Check([&] { return config_.port >= 1024; }, "SERVICE_PORT is below 1024: choose a higher one");
  reader_.CheckStatus([] { return absl::NotFoundError("API_TLS_CERT is not a file"); });
  reader_.CheckStatus([] { return absl::OkStatus(); });
  EXPECT_EQ(Read({"--servce_port=80", "--service_port=80", "stray", "--api_listen"}), Outcome::kInvalid);
  EXPECT_THAT(reader_.Mistakes(),
              ElementsAre("unknown flag --servce_port: did you mean --service_port?",
                          "unexpected argument \"stray\": settings are given as --name=value",
                          "--api_listen has no value: write --api_listen=... (host:port)",
                          "EDGE_SHARDS=many: expected a whole number from 0 to 256",
                          "WS_PRESENCE_TTL=0.4: expected a number of seconds from 0.5 to 3600",
                          "PRESENCE_SCOPE=all: expected one of everyone, rooms",
                          "SERVICE_PORT is below 1024: choose a higher one", "API_TLS_CERT is not a file"));
  EXPECT_THAT(reader_.MistakesText(), AllOf(HasSubstr("presence-test cannot start: 8 mistakes"), HasSubstr("--help")));
  EXPECT_EQ(config_.shards, 0);
  EXPECT_EQ(config_.ttl, 300s);
}

TEST_F(ConfigReaderTest, AFlagLikeNoOtherGetsNoSuggestionAndItsValueIsNoSecondMistake) {
  EXPECT_EQ(Read({"--frobnicate", "7"}), Outcome::kInvalid);
  EXPECT_THAT(reader_.Mistakes(), ElementsAre("unknown flag --frobnicate: --help lists all"));
}

class BadValueTest : public ConfigReaderTest,
                     public ::testing::WithParamInterface<std::pair<const char*, const char*>> {};

TEST_P(BadValueTest, IsRefused) {
  environment_[GetParam().first] = GetParam().second;
  EXPECT_EQ(Read(), Outcome::kInvalid);
  ASSERT_EQ(reader_.Mistakes().size(), 1u);
  EXPECT_THAT(reader_.Mistakes()[0], HasSubstr(GetParam().first));
}

INSTANTIATE_TEST_SUITE_P(Values, BadValueTest,
                         ::testing::Values(std::pair{"SERVICE_PORT", "65536"}, std::pair{"SERVICE_PORT", "-1"},
                                           std::pair{"SERVICE_PORT", "80 "}, std::pair{"SERVICE_PORT", "0x50"},
                                           std::pair{"EDGE_SHARDS", "99999999999999999999"},
                                           std::pair{"EDGE_SHARDS", "1.5"}, std::pair{"COMPRESS", "maybe"},
                                           std::pair{"WS_PRESENCE_TTL", "30s"}, std::pair{"WS_PRESENCE_TTL", "nan"},
                                           std::pair{"WS_PRESENCE_TTL", "inf"}, std::pair{"WS_PRESENCE_TTL", "1e300"},
                                           std::pair{"SEND_BUFFER_MAX", "1TiB"}, std::pair{"SEND_BUFFER_MAX", "KiB"},
                                           std::pair{"SEND_BUFFER_MAX", "18446744073709551615GiB"},
                                           std::pair{"API_LISTEN", "localhost"}, std::pair{"API_LISTEN", "::1:50051"},
                                           std::pair{"API_LISTEN", "localhost:http"},
                                           std::pair{"REDIS_URL", "localhost:6379"}));

TEST_F(ConfigReaderTest, SecretsAreNeverPrinted) {
  config_.client_secret = "never-show-this";
  environment_ = {{"REDIS_URL", "redis://user:never-show-this@redis:6379/0"}, {"CLIENT_SECRET", "never-show-this"}};
  EXPECT_EQ(Read(), Outcome::kRun);
  EXPECT_THAT(reader_.Changed(), ElementsAre("REDIS_URL=redis://user:[hidden]@redis:6379/0", "CLIENT_SECRET=[hidden]"));
  EXPECT_THAT(reader_.HelpText(), AllOf(Not(HasSubstr("default-password")), Not(HasSubstr("never-show-this"))));
}

TEST_F(ConfigReaderTest, AUrlMayBeASchemeAlone) {
  EXPECT_EQ(Read({"--redis_url=memory:"}), Outcome::kRun);
  EXPECT_EQ(config_.redis_url, "memory:");
}

TEST_F(ConfigReaderTest, AListenerMayBeSwitchedOff) {
  std::optional<ListenAddress> metrics = ListenAddress{"127.0.0.1", 9464};
  reader_.ListenOrOff("METRICS_LISTEN", &metrics, "the metrics");
  EXPECT_EQ(Read({"--metrics_listen=Off"}), Outcome::kRun);
  EXPECT_EQ(metrics, std::nullopt);
}

TEST_F(ConfigReaderTest, ASecretInABadUrlIsNotPrintedEither) {
  environment_ = {{"REDIS_URL", "://:never-show-this@redis"}};
  EXPECT_EQ(Read(), Outcome::kInvalid);
  EXPECT_THAT(reader_.MistakesText(), Not(HasSubstr("never-show-this")));
}

TEST_F(ConfigReaderTest, AValueCannotForgeALineOfTheReport) {
  environment_ = {{"EDGE_SHARDS", "1\n  all is well"}};
  EXPECT_EQ(Read(), Outcome::kInvalid);
  EXPECT_THAT(reader_.Mistakes()[0], HasSubstr("EDGE_SHARDS=1\\n  all is well"));
}

TEST_F(ConfigReaderTest, HelpWinsOverMistakesAndListsEverySettingUnderItsSection) {
  EXPECT_EQ(Read({"--nonsense", "--help"}), Outcome::kHelp);
  const std::string help = reader_.HelpText();
  EXPECT_THAT(help, HasSubstr("presence-test: A program for this test."));
  EXPECT_THAT(help, HasSubstr("\nService\n"
                              "  SERVICE_PORT     where clients connect\n"
                              "                   [port, 0 to 65535 (0: any free one); default: 8006]\n"));
  EXPECT_THAT(help, HasSubstr("\nPresence\n"
                              "  WS_PRESENCE_TTL  how long an entry outlives its last heartbeat\n"
                              "                   [seconds, 0.5 to 3600; default: 300]\n"));
  EXPECT_THAT(help, HasSubstr("[one of everyone, rooms; default: everyone]"));
  EXPECT_THAT(help, HasSubstr("[bytes, 1KiB to 1GiB; default: 1MiB]"));
  EXPECT_LT(help.find("\nService\n"), help.find("\nPresence\n"));
}

TEST(ListenAddressTest, IsWrittenAsItIsRead) {
  EXPECT_EQ((ListenAddress{"127.0.0.1", 80}).ToString(), "127.0.0.1:80");
  EXPECT_EQ((ListenAddress{"::1", 80}).ToString(), "[::1]:80");
  EXPECT_EQ((ListenAddress{"", 80}).ToString(), ":80");
}

}  // namespace
}  // namespace presence
