// Who may call, told from tokens as Keycloak makes them.
#include "core/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/link_access.h"
#include "tests/fakes/token_forge.h"

namespace presence::core {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message());
}

class AccessTest : public testing::Test {
 protected:
  // Of a service account, as client credentials get it.
  static json ClaimsWith(const std::vector<std::string>& realm_roles) {
    json claims = GoodClaims();
    claims["preferred_username"] = "service-account-orders";
    claims["realm_access"] = {{"roles", realm_roles}};
    return claims;
  }
  static std::string Bearer(const json& claims, const SigningKey& key = EcKeyForTests()) {
    return "Bearer " + *SignToken(claims, key);
  }
  absl::Status Check(const json& claims, Role role) { return access_->CheckToken(Bearer(claims), role); }

  std::shared_ptr<const JwkSet> keys_ = std::make_shared<const JwkSet>(KeysOf({RsaKeyForTests(), EcKeyForTests()}));
  WallTime now_ = ForgedNow();
  int refreshes_ = 0;
  std::string refreshed_kid_;
  bool refresh_possible_ = true;
  VerifierOptions options_{.issuers = {"http://keycloak:8080/realms/colink"}, .role_clients = {"presence-api"}};
  std::unique_ptr<Access> access_ = Access::ByToken(options_, {.keys = [this] { return keys_; },
                                                               .refresh_keys =
                                                                   [this](std::string_view kid) {
                                                                     ++refreshes_;
                                                                     refreshed_kid_ = kid;
                                                                     return refresh_possible_;
                                                                   },
                                                               .now = [this] { return now_; }});
};

TEST_F(AccessTest, EachRoleIncludesTheLesserOnes) {
  const struct {
    const char* role;
    bool read, publish, admin;
  } kTable[] = {{"presence-read", true, false, false},
                {"presence-publish", true, true, false},
                {"presence-admin", true, true, true},
                {"offline_access", false, false, false}};
  for (const auto& row : kTable) {
    EXPECT_EQ(Check(ClaimsWith({row.role}), Role::kRead).ok(), row.read) << row.role;
    EXPECT_EQ(Check(ClaimsWith({row.role}), Role::kPublish).ok(), row.publish) << row.role;
    EXPECT_EQ(Check(ClaimsWith({row.role}), Role::kAdmin).ok(), row.admin) << row.role;
  }
}

TEST_F(AccessTest, WhatLacksTheRoleIsToldWhichOne) {
  // Asked twice: remembered or not, the answer is the same.
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = Check(ClaimsWith({"presence-read"}), Role::kPublish);
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(MessageOf(status), HasSubstr("presence-publish"));
    EXPECT_THAT(MessageOf(Check(GoodClaims(), Role::kAdmin)), HasSubstr("presence-admin"));
  }
}

TEST_F(AccessTest, RolesOfTheApisOwnClientCountAndNoOther) {
  json claims = GoodClaims();
  claims["resource_access"] = {{"presence-api", {{"roles", {"presence-publish"}}}},
                               {"somebody-elses", {{"roles", {"presence-admin"}}}}};
  EXPECT_TRUE(Check(claims, Role::kPublish).ok());
  EXPECT_EQ(Check(claims, Role::kAdmin).code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(AccessTest, WhatIsNoListOfRolesGrantsNothing) {
  for (const json& odd :
       {json("presence-admin"), json({{"roles", "presence-admin"}}), json({{"roles", {{"presence-admin", 1}}}}),
        json({"presence-admin"}), json(nullptr), json({{"roles", {7, nullptr}}})}) {
    json claims = GoodClaims();
    claims["realm_access"] = odd;
    claims["resource_access"] = odd;
    EXPECT_EQ(Check(claims, Role::kRead).code(), absl::StatusCode::kPermissionDenied) << odd.dump();
    claims["resource_access"] = {{"presence-api", odd}};
    EXPECT_EQ(Check(claims, Role::kRead).code(), absl::StatusCode::kPermissionDenied) << odd.dump();
  }
}

TEST_F(AccessTest, AServiceAccountNeedsNoUserName) {
  json claims = ClaimsWith({"presence-read"});
  claims.erase("preferred_username");
  EXPECT_TRUE(Check(claims, Role::kRead).ok());
}

TEST_F(AccessTest, WhatIsNoGoodTokenIsUnauthenticatedAndNotRepeated) {
  json expired = ClaimsWith({"presence-admin"});
  expired["exp"] = kForgedNowSeconds - 31;
  json foreign = ClaimsWith({"presence-admin"});
  foreign["iss"] = "http://elsewhere/realms/colink";
  json refresh = ClaimsWith({"presence-admin"});
  refresh["typ"] = "Refresh";
  const std::string good = Bearer(ClaimsWith({"presence-admin"}));
  const struct {
    std::string authorization, why;
  } kTable[] = {
      {"", "bearer token is required"},
      {"Basic YWxpY2U6c2VjcmV0", "bearer token is required"},
      {"Bearer", "bearer token is required"},
      {"Bearer ", "bearer token is required"},
      {"Bearer garbage", "not three parts"},
      {good + "x", "not base64url"},
      {good.substr(0, good.size() - 20) + std::string(20, 'A'), "signature is wrong"},
      {"Bearer " + std::string(TokenVerifier::kTokenBytesMax + 1, 'a'), "longer than 8 KiB"},
      {Bearer(ClaimsWith({"presence-admin"}), NewKey(SignatureAlgorithm::kEs256, "ec-1")), "signature is wrong"},
      {Bearer(expired), "exp has passed"},
      {Bearer(foreign), "iss is not accepted"},
      {Bearer(refresh), "typ is not an access token's"}};
  for (const auto& row : kTable) {
    const absl::Status status = access_->CheckToken(row.authorization, Role::kRead);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << row.why;
    EXPECT_THAT(MessageOf(status), HasSubstr(row.why));
    if (row.authorization.size() > 20) {
      EXPECT_THAT(MessageOf(status), Not(HasSubstr(row.authorization.substr(8, 12))));
    }
  }
  EXPECT_EQ(refreshes_, 0) << "no new key can make any of these good";
}

TEST_F(AccessTest, TheSchemeIsReadWithoutRegardToCase) {
  const std::string token = *SignToken(ClaimsWith({"presence-read"}), EcKeyForTests());
  EXPECT_TRUE(access_->CheckToken("bearer " + token, Role::kRead).ok());
  EXPECT_TRUE(access_->CheckToken("BEARER   " + token, Role::kRead).ok());
}

TEST_F(AccessTest, WithoutKeysTheCallerTriesAgain) {
  keys_ = nullptr;
  EXPECT_EQ(Check(ClaimsWith({"presence-read"}), Role::kRead).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(access_->CheckToken("", Role::kRead).code(), absl::StatusCode::kUnauthenticated)
      << "no key will make that good";
}

TEST_F(AccessTest, AnUnknownKeyIsLookedForAndThenRefused) {
  const SigningKey next = NewKey(SignatureAlgorithm::kEs256, "ec-2");
  const std::string bearer = Bearer(ClaimsWith({"presence-read"}), next);
  EXPECT_EQ(access_->CheckToken(bearer, Role::kRead).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(refreshes_, 1);
  EXPECT_EQ(refreshed_kid_, "ec-2");

  refresh_possible_ = false;  // they were looked for just now
  EXPECT_EQ(access_->CheckToken(bearer, Role::kRead).code(), absl::StatusCode::kUnauthenticated);

  keys_ = std::make_shared<const JwkSet>(KeysOf({EcKeyForTests(), next}));
  EXPECT_TRUE(access_->CheckToken(bearer, Role::kRead).ok());
}

TEST_F(AccessTest, ARememberedTokenExpiresAllTheSame) {
  const std::string bearer = Bearer(ClaimsWith({"presence-read"}));  // for 300 s, and 30 s of leeway
  ASSERT_TRUE(access_->CheckToken(bearer, Role::kRead).ok());
  now_ += seconds(329);
  EXPECT_TRUE(access_->CheckToken(bearer, Role::kRead).ok());
  now_ += seconds(1);
  const absl::Status status = access_->CheckToken(bearer, Role::kRead);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(MessageOf(status), HasSubstr("exp has passed"));
}

TEST_F(AccessTest, ANewKeySetForgetsWhatTheOldOneVerified) {
  const std::string bearer = Bearer(ClaimsWith({"presence-read"}));
  ASSERT_TRUE(access_->CheckToken(bearer, Role::kRead).ok());
  keys_ = std::make_shared<const JwkSet>(KeysOf({RsaKeyForTests()}));  // the key was withdrawn
  refresh_possible_ = false;
  EXPECT_EQ(access_->CheckToken(bearer, Role::kRead).code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(AccessTest, ARememberedTokenIsNotVerifiedAgain) {
  // With a key of the same name and another content the signature would be wrong, if anybody looked: the key is exchanged in
  // place, which nobody does but this test.
  auto keys = std::make_shared<JwkSet>(KeysOf({EcKeyForTests()}));
  keys_ = keys;
  const std::string bearer = Bearer(ClaimsWith({"presence-read"}));
  ASSERT_TRUE(access_->CheckToken(bearer, Role::kRead).ok());
  JwkSet other = KeysOf({NewKey(SignatureAlgorithm::kEs256, "ec-1")});
  std::swap(const_cast<VerificationKey&>(keys->keys()[0]), const_cast<VerificationKey&>(other.keys()[0]));
  EXPECT_TRUE(access_->CheckToken(bearer, Role::kRead).ok());
  EXPECT_EQ(access_->CheckToken(Bearer(ClaimsWith({"presence-admin"})), Role::kRead).code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(AccessTest, MoreTokensThanAreRememberedAreStillGood) {
  json claims = ClaimsWith({"presence-read"});
  for (size_t i = 0; i < Access::kCacheEntriesMax + 500; ++i) {
    claims["sid"] = "session-" + std::to_string(i);
    ASSERT_TRUE(access_->CheckToken(Bearer(claims), Role::kRead).ok()) << i;
  }
}

TEST(OpenAccess, LetsEverybodyDoEverything) {
  const auto access = Access::Open();
  EXPECT_TRUE(access->CheckToken("", Role::kAdmin).ok());
  const grpc::CallbackServerContext context;
  EXPECT_TRUE(access->Check(context, Role::kAdmin).ok());
}

TEST(LinkAccess, WithoutARuleEverybodyIsAnEdge) {
  EXPECT_TRUE(LinkAccess().CheckSecret(nullptr).ok());
}

TEST(LinkAccess, TheSecretMustBeShownAndRight) {
  const LinkAccess access({.certificate = false, .secret = "sixteen bytes at least"});
  const std::string_view good = "sixteen bytes at least", wrong = "sixteen bytes at most", none;
  EXPECT_TRUE(access.CheckSecret(&good).ok());
  for (const std::string_view* shown : {&wrong, &none}) {
    const absl::Status status = access.CheckSecret(shown);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
    EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("wrong link secret"), Not(HasSubstr("sixteen"))));
  }
  EXPECT_THAT(MessageOf(access.CheckSecret(nullptr)), HasSubstr("set LINK_SECRET"));
}

}  // namespace
}  // namespace presence::core
