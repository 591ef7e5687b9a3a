#include "edge/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

namespace presence::edge {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class EdgeConfigTest : public testing::Test {
 protected:
  ConfigReader::Outcome Read(std::map<std::string, std::string> environment) {
    environment.emplace("KEYCLOAK_URL", "http://keycloak:8080/");
    config_ = Config();
    reader_.emplace("presence-edge", "test", [environment](const std::string& name) -> std::optional<std::string> {
      const auto it = environment.find(name);
      return it == environment.end() ? std::nullopt : std::optional(it->second);
    });
    Declare(config_, *reader_);
    const char* const argv[] = {"presence-edge"};
    return reader_->Read(1, argv);
  }

  Config config_;
  std::optional<ConfigReader> reader_;
};

TEST_F(EdgeConfigTest, TheRealmIsTheIssuerUnlessOneIsNamed) {
  ASSERT_EQ(Read({{"KEYCLOAK_CLIENT_ID", "colink-web"}}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.tokens.KeyOptions().url, "http://keycloak:8080/realms/colink/protocol/openid-connect/certs");
  EXPECT_THAT(config_.tokens.PartyOptions().issuers, ElementsAre("http://keycloak:8080/realms/colink"));
  EXPECT_THAT(config_.tokens.PartyOptions().client_ids, ElementsAre("colink-web"));

  ASSERT_EQ(Read({{"JWT_ISSUER", "https://login/realms/a, https://login/realms/b"},
                  {"JWT_AUDIENCE", "colink-api"},
                  {"KEYCLOAK_CLIENT_ID", "colink-web"}}),
            ConfigReader::Outcome::kRun);
  EXPECT_THAT(config_.tokens.PartyOptions().issuers, ElementsAre("https://login/realms/a", "https://login/realms/b"));
  EXPECT_THAT(config_.tokens.PartyOptions().audiences, ElementsAre("colink-api"));
  EXPECT_THAT(config_.tokens.PartyOptions().client_ids, ElementsAre()) << "the audience takes its place";
}

TEST_F(EdgeConfigTest, WhereATokenNamesItsRooms) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.RoomClaims().claim, "rooms");
  EXPECT_EQ(config_.RoomClaims().role_prefix, "room:");
  EXPECT_THAT(config_.RoomClaims().role_clients, ElementsAre());
  ASSERT_EQ(Read({{"ROOM_CLAIM", "channels"},
                  {"ROOM_ROLE_PREFIX", "chat/"},
                  {"JWT_AUDIENCE", "colink-api"},
                  {"KEYCLOAK_CLIENT_ID", "colink-web"}}),
            ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.RoomClaims().claim, "channels");
  EXPECT_EQ(config_.RoomClaims().role_prefix, "chat/");
  EXPECT_THAT(config_.RoomClaims().role_clients, ElementsAre("colink-api", "colink-web"));
}

TEST_F(EdgeConfigTest, TokensCountWhenTheyAreShownUnlessTheirEndIsToMatter) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.token_expiry, TokenExpiry::kIgnore);
  EXPECT_EQ(config_.token_expiry_warning, std::chrono::seconds(60));
  EXPECT_FALSE(config_.auth_first_message);
  EXPECT_EQ(config_.auth_timeout, std::chrono::seconds(5));
  ASSERT_EQ(Read({{"WS_TOKEN_EXPIRY", "close"},
                  {"WS_TOKEN_EXPIRY_WARNING", "0"},
                  {"WS_AUTH_FIRST_MESSAGE", "on"},
                  {"WS_AUTH_TIMEOUT", "0.5"},
                  {"WS_AUTH_PENDING_MAX", "10"}}),
            ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.token_expiry, TokenExpiry::kClose);
  EXPECT_EQ(config_.token_expiry_warning, std::chrono::seconds(0));
  EXPECT_TRUE(config_.auth_first_message);
  EXPECT_EQ(config_.auth_timeout, std::chrono::milliseconds(500));
  EXPECT_EQ(config_.auth_pending_max, 10u);
  EXPECT_EQ(Read({{"WS_AUTH_TIMEOUT", "0"}, {"WS_TOKEN_EXPIRY", "warn"}, {"WS_AUTH_PENDING_MAX", "0"}}),
            ConfigReader::Outcome::kInvalid);
  EXPECT_EQ(reader_->Mistakes().size(), 3u);
}

TEST_F(EdgeConfigTest, TlsToTheCoreFollowsFromItsFiles) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_FALSE(config_.uses_link_tls());
  ASSERT_EQ(Read({{"CORE_LINK_CA", "ca.pem"}, {"CORE_LINK_SERVER_NAME", "core"}}), ConfigReader::Outcome::kRun);
  EXPECT_TRUE(config_.uses_link_tls());
  ASSERT_EQ(Read({{"CORE_LINK_TLS", "on"}}), ConfigReader::Outcome::kRun);
  EXPECT_TRUE(config_.uses_link_tls()) << "the system's authorities";
}

TEST_F(EdgeConfigTest, TlsForClientsTakesACertificateAndItsKey) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_FALSE(config_.service_files.any());
  ASSERT_EQ(Read({{"SERVICE_TLS_CERT", "edge.pem"}, {"SERVICE_TLS_KEY", "edge.key"}, {"SERVICE_HSTS_MAX_AGE", "3600"}}),
            ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.service_files.certificate, "edge.pem");
  EXPECT_EQ(config_.service_files.key, "edge.key");
  EXPECT_EQ(config_.strict_transport_age, std::chrono::hours(1));
  for (const char* alone : {"SERVICE_TLS_CERT", "SERVICE_TLS_KEY"}) {
    EXPECT_EQ(Read({{alone, "x.pem"}}), ConfigReader::Outcome::kInvalid);
    EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("set both or none")));
  }
  EXPECT_EQ(Read({{"SERVICE_HSTS_MAX_AGE", "3600"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("SERVICE_HSTS_MAX_AGE needs SERVICE_TLS_CERT")));
}

TEST_F(EdgeConfigTest, TlsSettingsThatContradictAreMistakes) {
  EXPECT_EQ(Read({{"CORE_LINK_TLS", "off"}, {"CORE_LINK_CA", "ca.pem"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("CORE_LINK_TLS=off")));
  EXPECT_EQ(Read({{"CORE_LINK_SERVER_NAME", "core"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("CORE_LINK_SERVER_NAME needs TLS")));
}

TEST_F(EdgeConfigTest, LimitsHaveDefaultsThatAClientWithAllItsRoomsDoesNotMeet) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_GT(config_.frames_burst, config_.rooms_per_connection_max);
  EXPECT_GT(config_.frames_per_second, 0u);
  EXPECT_GT(config_.bytes_per_second, 0u);
  EXPECT_GE(config_.bytes_burst, 2 * config_.message_bytes_max);
  EXPECT_GT(config_.connections_per_address, 0u);
  EXPECT_GT(config_.handshakes_per_second_per_address, 0u);
  EXPECT_LT(config_.handshakes_pending_max, config_.connections_max);
  EXPECT_THAT(config_.trusted_proxies, ElementsAre());
}

TEST_F(EdgeConfigTest, LimitsCanBeSetAndMostOfThemSwitchedOff) {
  ASSERT_EQ(Read({{"WS_FRAMES_PER_SECOND", "7"},
                  {"WS_FRAMES_BURST", "70"},
                  {"WS_BYTES_PER_SECOND", "1KiB"},
                  {"WS_BYTES_BURST", "2KiB"},
                  {"HTTP_HEAD_BYTES", "12000"},
                  {"WS_HANDSHAKE_TIMEOUT", "2.5"},
                  {"HANDSHAKES_PENDING_MAX", "99"},
                  {"WS_CONNECTIONS_PER_ADDRESS", "5"},
                  {"HANDSHAKES_PER_SECOND_PER_ADDRESS", "6"},
                  {"TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::1"}}),
            ConfigReader::Outcome::kRun);
  EXPECT_EQ(config_.frames_per_second, 7u);
  EXPECT_EQ(config_.frames_burst, 70u);
  EXPECT_EQ(config_.bytes_per_second, 1024u);
  EXPECT_EQ(config_.bytes_burst, 2048u);
  EXPECT_EQ(config_.head_bytes_max, 12'000u);
  EXPECT_EQ(config_.handshake_timeout, std::chrono::milliseconds(2500));
  EXPECT_EQ(config_.handshakes_pending_max, 99u);
  EXPECT_EQ(config_.connections_per_address, 5u);
  EXPECT_EQ(config_.handshakes_per_second_per_address, 6u);
  EXPECT_THAT(config_.trusted_proxies, ElementsAre("10.0.0.0/8", "2001:db8::1"));

  ASSERT_EQ(Read({{"WS_FRAMES_PER_SECOND", "0"},
                  {"WS_BYTES_PER_SECOND", "0"},
                  {"WS_CONNECTIONS_PER_ADDRESS", "0"},
                  {"HANDSHAKES_PER_SECOND_PER_ADDRESS", "0"}}),
            ConfigReader::Outcome::kRun);
}

TEST_F(EdgeConfigTest, LimitsOutOfBoundsAndProxiesThatAreNoneAreMistakes) {
  EXPECT_EQ(Read({{"HTTP_HEAD_BYTES", "16001"}, {"WS_FRAMES_BURST", "0"}, {"TRUSTED_PROXIES", "10.0.0.1/8"}}),
            ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(),
              ElementsAre(HasSubstr("WS_FRAMES_BURST"), HasSubstr("HTTP_HEAD_BYTES"), HasSubstr("TRUSTED_PROXIES")));
}

}  // namespace
}  // namespace presence::edge
