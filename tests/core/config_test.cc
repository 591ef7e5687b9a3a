#include "core/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

namespace presence::core {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class CoreConfigTest : public testing::Test {
 protected:
  ConfigReader::Outcome Read(std::map<std::string, std::string> environment) {
    config_ = Config();
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
  EXPECT_EQ(store.connections_per_user_max, 100u);
  EXPECT_EQ(store.logout_lifetime, std::chrono::hours(10));
  const HubOptions hub = config_.MakeHubOptions(7);
  EXPECT_EQ(hub.scope, PresenceScope::kEveryone);
  EXPECT_EQ(hub.edge_grace, std::chrono::seconds(5));
  EXPECT_EQ(hub.isolation_max, std::chrono::seconds(5));
  EXPECT_EQ(store.room_log_length, 1'000u);
  EXPECT_EQ(store.room_log_age, std::chrono::seconds(120));
  EXPECT_EQ(hub.room_log_age, std::chrono::seconds(120));
}

TEST_F(CoreConfigTest, RoomsHaveLogsOrNone) {
  ASSERT_EQ(Read({{"ROOM_LOG_LENGTH", "7"}, {"ROOM_LOG_AGE", "1.5"}}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.MakeStoreOptions(7).room_log_length, 7u);
  EXPECT_EQ(config_.MakeStoreOptions(7).room_log_age, std::chrono::seconds(2)) << "rather longer";
  EXPECT_EQ(config_.MakeHubOptions(7).room_log_age, std::chrono::seconds(2));
}

TEST_F(CoreConfigTest, ALengthOfNothingMeansNoLogs) {
  ASSERT_EQ(Read({{"ROOM_LOG_LENGTH", "0"}}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.MakeHubOptions(7).room_log_age, std::chrono::seconds(0));
}

TEST_F(CoreConfigTest, TakesEachSetting) {
  EXPECT_EQ(Read({{"REDIS_URL", "memory:"},
                  {"METRICS_LISTEN", "off"},
                  {"PRESENCE_SCOPE", "rooms"},
                  {"WS_HEARTBEAT_INTERVAL", "0.5"},
                  {"WS_PRESENCE_TTL", "2"},
                  {"WS_TYPING_TTL", "7"},
                  {"EDGE_GRACE", "9"},
                  {"CONNECTIONS_PER_USER", "0"},
                  {"LOGOUT_LIFETIME", "86400.5"},
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
  EXPECT_EQ(store.connections_per_user_max, 0u);
  EXPECT_EQ(store.logout_lifetime, std::chrono::seconds(86'401)) << "rather longer";
  const HubOptions hub = config_.MakeHubOptions(7);
  EXPECT_EQ(hub.scope, PresenceScope::kRooms);
  EXPECT_EQ(hub.edge_grace, std::chrono::seconds(9));
  EXPECT_EQ(hub.isolation_max, std::chrono::seconds(1)) << "with the spread and the way, before 2 H + 3 s are over";
  EXPECT_EQ(hub.core_name, "core-7");
}

TEST_F(CoreConfigTest, ReportsAllMistakesTogether) {
  EXPECT_EQ(Read({{"REDIS_URL", "http://:secret@somewhere/"},
                  {"API_LISTEN", "nowhere"},
                  {"METRICS_LISTEN", "perhaps"},
                  {"PRESENCE_SCOPE", "nobody"},
                  {"CONNECTIONS_PER_USER", "-1"},
                  {"LOGOUT_LIFETIME", "59"},
                  {"ROOM_LOG_LENGTH", "100001"},
                  {"ROOM_LOG_AGE", "0"},
                  {"WS_HEARTBEAT_INTERVAL", "60"},
                  {"WS_PRESENCE_TTL", "179"}}),
            ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(
      reader_->Mistakes(),
      UnorderedElementsAre(HasSubstr("REDIS_URL"), HasSubstr("API_LISTEN"), HasSubstr("METRICS_LISTEN"),
                           HasSubstr("PRESENCE_SCOPE"), HasSubstr("WS_PRESENCE_TTL"), HasSubstr("CONNECTIONS_PER_USER"),
                           HasSubstr("LOGOUT_LIFETIME"), HasSubstr("ROOM_LOG_LENGTH"), HasSubstr("ROOM_LOG_AGE")));
  EXPECT_THAT(reader_->MistakesText(), testing::Not(HasSubstr("secret")));
}

TEST_F(CoreConfigTest, SentinelsSayWhereThePrimaryIs) {
  ASSERT_EQ(Read({{"REDIS_SENTINELS", "10.0.0.1, 10.0.0.2:5000"},
                  {"REDIS_MASTER_NAME", "chat"},
                  {"REDIS_SENTINEL_PASSWORD", "word"}}),
            ConfigReader::Outcome::kRun)
      << reader_->MistakesText();
  const SentinelOptions sentinels = *config_.sentinels();
  ASSERT_EQ(sentinels.sentinels.size(), 2u);
  EXPECT_EQ(sentinels.sentinels[0].port, 26379);
  EXPECT_EQ(sentinels.sentinels[1].port, 5000);
  EXPECT_EQ(sentinels.sentinels[1].password, "word");
  EXPECT_EQ(sentinels.primary_name, "chat");
}

TEST_F(CoreConfigTest, SentinelsMustBeAddressesAndNeedARedis) {
  EXPECT_EQ(Read({{"REDIS_SENTINELS", "10.0.0.1:none"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("REDIS_SENTINELS")));
  EXPECT_EQ(Read({{"REDIS_SENTINELS", "10.0.0.1"}, {"REDIS_URL", "memory:"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("contradict")));
}

TEST_F(CoreConfigTest, RoomsAreOpenUnlessSomebodyIsToBeAsked) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  HubOptions hub = config_.MakeHubOptions(7);
  EXPECT_EQ(hub.room_auth, RoomAuth::kOpen);
  EXPECT_EQ(hub.room_subscribers_max, 100'000u);
  EXPECT_EQ(hub.room_access.cache, std::chrono::seconds(60));
  EXPECT_EQ(hub.room_access.grace, std::chrono::seconds(300));

  ASSERT_EQ(Read({{"ROOM_AUTH", "claims"}, {"ROOM_SUBSCRIBERS_MAX", "0"}}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.MakeHubOptions(7).room_auth, RoomAuth::kClaims);
  EXPECT_EQ(config_.MakeHubOptions(7).room_subscribers_max, 0u);

  ASSERT_EQ(Read({{"ROOM_AUTH", "redis"}}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.MakeHubOptions(7).room_auth, RoomAuth::kAsked);

  ASSERT_EQ(Read({{"ROOM_AUTH", "grpc"},
                  {"ROOM_AUTHORIZER", "rights:50055"},
                  {"ROOM_AUTHORIZER_CA", "ca.pem"},
                  {"ROOM_AUTHORIZER_TIMEOUT", "0.5"},
                  {"ROOM_AUTHORIZER_CONCURRENCY", "10"},
                  {"ROOM_AUTH_CACHE", "7"},
                  {"ROOM_AUTH_GRACE", "0"}}),
            ConfigReader::Outcome::kRun)
      << reader_->MistakesText();
  hub = config_.MakeHubOptions(7);
  EXPECT_EQ(hub.room_auth, RoomAuth::kAsked);
  EXPECT_EQ(hub.room_access.cache, std::chrono::seconds(7));
  EXPECT_EQ(hub.room_access.grace, std::chrono::seconds(0));
  EXPECT_EQ(hub.room_access.checks_max, 5u) << "half of the questions at a time";
  EXPECT_EQ(config_.room_authorizer_timeout, std::chrono::milliseconds(500));
  EXPECT_EQ(config_.room_authorizer_tls.peer_ca, "ca.pem");
}

// --- access.

TEST_F(CoreConfigTest, OnLoopbackEverythingIsOpenUnlessSomethingSaysOtherwise) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.effective_api_auth(), ApiAuth::kOpen);
  EXPECT_EQ(config_.effective_link_auth(), LinkAuth::kOpen);
}

TEST_F(CoreConfigTest, WhatIsSetDecidesWhoMayCall) {
  ASSERT_EQ(Read({{"KEYCLOAK_URL", "http://keycloak:8080"}, {"LINK_SECRET", "sixteen bytes at least"}}),
            ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.effective_api_auth(), ApiAuth::kJwt);
  EXPECT_EQ(config_.effective_link_auth(), LinkAuth::kSecret);
}

TEST_F(CoreConfigTest, ACertificateAuthorityMeansMutualTls) {
  ASSERT_EQ(Read({{"API_TLS_CERT", "a"},
                  {"API_TLS_KEY", "b"},
                  {"API_TLS_CLIENT_CA", "c"},
                  {"LINK_TLS_CERT", "d"},
                  {"LINK_TLS_KEY", "e"},
                  {"LINK_TLS_CLIENT_CA", "f"},
                  {"LINK_SECRET_FILE", "g"}}),
            ConfigReader::Outcome::kRun)
      << reader_->MistakesText();
  EXPECT_EQ(config_.effective_api_auth(), ApiAuth::kMtls);
  EXPECT_EQ(config_.effective_link_auth(), LinkAuth::kMtls);
  EXPECT_EQ(config_.api_tls.peer_ca, "c");
  EXPECT_EQ(config_.link_tls.certificate, "d");
}

TEST_F(CoreConfigTest, BeyondLoopbackSomebodyMustHaveSaidWhoMayCome) {
  for (const char* listen : {"0.0.0.0:1", ":1", "[::]:1", "10.0.0.1:1", "core.example.org:1"}) {
    EXPECT_EQ(Read({{"API_LISTEN", listen}, {"LINK_LISTEN", listen}}), ConfigReader::Outcome::kInvalid) << listen;
    EXPECT_THAT(reader_->Mistakes(),
                UnorderedElementsAre(
                    AllOf(HasSubstr("API_LISTEN"), HasSubstr("set KEYCLOAK_URL"), HasSubstr("API_AUTH=open")),
                    AllOf(HasSubstr("LINK_LISTEN"), HasSubstr("set LINK_SECRET"), HasSubstr("LINK_AUTH=open"))));
    EXPECT_EQ(Read({{"API_LISTEN", listen}, {"LINK_LISTEN", listen}, {"API_AUTH", "open"}, {"LINK_AUTH", "open"}}),
              ConfigReader::Outcome::kRun);
    EXPECT_EQ(Read({{"API_LISTEN", listen},
                    {"LINK_LISTEN", listen},
                    {"KEYCLOAK_URL", "http://keycloak:8080"},
                    {"LINK_SECRET", "sixteen bytes at least"}}),
              ConfigReader::Outcome::kRun);
  }
  for (const char* listen : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"}) {
    EXPECT_EQ(Read({{"API_LISTEN", listen}, {"LINK_LISTEN", listen}}), ConfigReader::Outcome::kRun) << listen;
  }
}

TEST_F(CoreConfigTest, WhatDoesNotGoTogetherIsRefusedWithWhatToSet) {
  const struct {
    std::map<std::string, std::string> environment;
    const char* says;
  } kTable[] = {
      {{{"API_AUTH", "jwt"}}, "API_AUTH=jwt needs keys"},
      {{{"API_AUTH", "mtls"}}, "API_AUTH=mtls needs API_TLS_CLIENT_CA"},
      {{{"API_AUTH", "open"}, {"API_TLS_CERT", "a"}, {"API_TLS_KEY", "b"}, {"API_TLS_CLIENT_CA", "c"}},
       "API_AUTH=open, but"},
      {{{"API_TLS_CERT", "a"}}, "API_TLS_CERT and API_TLS_KEY belong together"},
      {{{"API_TLS_CLIENT_CA", "c"}}, "API_TLS_CLIENT_CA needs API_TLS_CERT"},
      {{{"LINK_AUTH", "secret"}}, "LINK_AUTH=secret needs LINK_SECRET"},
      {{{"LINK_AUTH", "mtls"}, {"LINK_SECRET", "sixteen bytes at least"}}, "LINK_AUTH=mtls needs LINK_TLS_CLIENT_CA"},
      {{{"LINK_AUTH", "open"}, {"LINK_SECRET", "sixteen bytes at least"}}, "LINK_AUTH=open, but"},
      {{{"LINK_TLS_KEY", "a"}}, "LINK_TLS_CERT and LINK_TLS_KEY belong together"},
      {{{"LINK_TLS_CLIENT_CA", "c"}}, "LINK_TLS_CLIENT_CA needs LINK_TLS_CERT"},
      {{{"JWKS_FILE", "/nowhere/keys.json"}}, "JWKS_FILE cannot be read"},
      {{{"ROOM_AUTH", "redis"}, {"REDIS_URL", "memory:"}}, "ROOM_AUTH=redis needs a Redis"},
      {{{"ROOM_AUTH", "grpc"}}, "ROOM_AUTH=grpc needs ROOM_AUTHORIZER"},
      {{{"ROOM_AUTHORIZER", "127.0.0.1:1"}}, "ROOM_AUTHORIZER is set, but nobody would ask it"},
      {{{"ROOM_AUTHORIZER_CERT", "a"}}, "ROOM_AUTHORIZER_CERT and ROOM_AUTHORIZER_KEY belong together"},
      {{{"GRPC_CHANNELZ", "on"}, {"KEYCLOAK_URL", "http://keycloak:8080"}}, "channelz cannot ask for a role"},
  };
  for (const auto& row : kTable) {
    EXPECT_EQ(Read(row.environment), ConfigReader::Outcome::kInvalid) << row.says;
    EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr(row.says)));
    EXPECT_THAT(reader_->MistakesText(), testing::Not(HasSubstr("sixteen bytes at least")));
  }
}

TEST_F(CoreConfigTest, TheApiTakesRolesOfItsOwnClientAlone) {
  ASSERT_EQ(Read({{"KEYCLOAK_URL", "http://keycloak:8080/"}, {"KEYCLOAK_CLIENT_ID", "presence-api"}}),
            ConfigReader::Outcome::kRun);
  VerifierOptions options = config_.ApiVerifierOptions();
  EXPECT_THAT(options.issuers, ElementsAre("http://keycloak:8080/realms/colink"));
  EXPECT_THAT(options.client_ids, ElementsAre("presence-api"));
  EXPECT_THAT(options.role_clients, ElementsAre("presence-api"));

  ASSERT_EQ(Read({{"KEYCLOAK_URL", "http://keycloak:8080"}, {"JWT_AUDIENCE", "colink-api"}}),
            ConfigReader::Outcome::kRun);
  options = config_.ApiVerifierOptions();
  EXPECT_THAT(options.audiences, ElementsAre("colink-api"));
  EXPECT_THAT(options.role_clients, ElementsAre("colink-api"));
}

}  // namespace
}  // namespace presence::core
