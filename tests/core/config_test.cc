#include "core/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

namespace presence::core {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class CoreConfigTest : public testing::Test {
 protected:
  ConfigReader::Outcome Read(std::map<std::string, std::string> environment) {
    reader_.emplace("presence-core", "test", [environment](const std::string& name) -> std::optional<std::string> {
      const auto it = environment.find(name);
      return it == environment.end() ? std::nullopt : std::optional(it->second);
    });
    DeclareSettings(*reader_, config_);
    const char* const argv[] = {"presence-core"};
    return reader_->Read(1, argv);
  }

  Config config_;
  std::optional<ConfigReader> reader_;
};

TEST_F(CoreConfigTest, RunsWithoutAnySetting) {
  EXPECT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.api_listen.ToString(), "127.0.0.1:50051");
  EXPECT_EQ(config_.link_listen.ToString(), "127.0.0.1:50052");
  EXPECT_EQ(config_.metrics_listen->ToString(), "127.0.0.1:9464");
  EXPECT_EQ(config_.redis_address()->ToString(), ParseRedisUrl("redis://127.0.0.1:6379/0")->ToString());
  EXPECT_FALSE(config_.core_name.empty());

  const StoreOptions store = config_.MakeStoreOptions(7);
  EXPECT_EQ(store.core_incarnation, 7u);
  EXPECT_EQ(store.presence_ttl, std::chrono::seconds(300));
  EXPECT_EQ(store.entry_lifetime, std::chrono::seconds(63)) << "2 x 30 s and 3 s";
  const HubOptions hub = config_.MakeHubOptions(7);
  EXPECT_EQ(hub.scope, PresenceScope::kEveryone);
  EXPECT_EQ(hub.edge_grace, std::chrono::seconds(5));
}

TEST_F(CoreConfigTest, TakesEachSetting) {
  EXPECT_EQ(Read({{"REDIS_URL", "memory:"},
                  {"METRICS_LISTEN", "off"},
                  {"PRESENCE_SCOPE", "rooms"},
                  {"WS_HEARTBEAT_INTERVAL", "0.5"},
                  {"WS_PRESENCE_TTL", "2"},
                  {"WS_TYPING_TTL", "7"},
                  {"EDGE_GRACE", "9"},
                  {"CORE_NAME", "core-7"},
                  {"GRPC_REFLECTION", "off"}}),
            ConfigReader::Outcome::kRun)
      << reader_->MistakesText();
  EXPECT_TRUE(config_.in_memory());
  EXPECT_EQ(config_.metrics_listen, std::nullopt);
  EXPECT_FALSE(config_.grpc_reflection);
  const StoreOptions store = config_.MakeStoreOptions(7);
  EXPECT_EQ(store.entry_lifetime, std::chrono::milliseconds(4000));
  EXPECT_EQ(store.presence_ttl, std::chrono::seconds(2));
  EXPECT_EQ(store.typing_ttl, std::chrono::seconds(7));
  const HubOptions hub = config_.MakeHubOptions(7);
  EXPECT_EQ(hub.scope, PresenceScope::kRooms);
  EXPECT_EQ(hub.edge_grace, std::chrono::seconds(9));
  EXPECT_EQ(hub.core_name, "core-7");
}

TEST_F(CoreConfigTest, ReportsAllMistakesTogether) {
  EXPECT_EQ(Read({{"REDIS_URL", "http://:secret@somewhere/"},
                  {"API_LISTEN", "nowhere"},
                  {"METRICS_LISTEN", "perhaps"},
                  {"PRESENCE_SCOPE", "nobody"},
                  {"WS_HEARTBEAT_INTERVAL", "60"},
                  {"WS_PRESENCE_TTL", "179"}}),
            ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(),
              UnorderedElementsAre(HasSubstr("REDIS_URL"), HasSubstr("API_LISTEN"), HasSubstr("METRICS_LISTEN"),
                                   HasSubstr("PRESENCE_SCOPE"), HasSubstr("WS_PRESENCE_TTL")));
  EXPECT_THAT(reader_->MistakesText(), testing::Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace presence::core
