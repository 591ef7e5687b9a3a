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

TEST_F(EdgeConfigTest, TlsToTheCoreFollowsFromItsFiles) {
  ASSERT_EQ(Read({}), ConfigReader::Outcome::kRun);
  EXPECT_FALSE(config_.uses_link_tls());
  ASSERT_EQ(Read({{"CORE_LINK_CA", "ca.pem"}, {"CORE_LINK_SERVER_NAME", "core"}}), ConfigReader::Outcome::kRun);
  EXPECT_TRUE(config_.uses_link_tls());
  ASSERT_EQ(Read({{"CORE_LINK_TLS", "on"}}), ConfigReader::Outcome::kRun);
  EXPECT_TRUE(config_.uses_link_tls()) << "the system's authorities";
}

TEST_F(EdgeConfigTest, TlsSettingsThatContradictAreMistakes) {
  EXPECT_EQ(Read({{"CORE_LINK_TLS", "off"}, {"CORE_LINK_CA", "ca.pem"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("CORE_LINK_TLS=off")));
  EXPECT_EQ(Read({{"CORE_LINK_SERVER_NAME", "core"}}), ConfigReader::Outcome::kInvalid);
  EXPECT_THAT(reader_->Mistakes(), ElementsAre(HasSubstr("CORE_LINK_SERVER_NAME needs TLS")));
}

}  // namespace
}  // namespace presence::edge
