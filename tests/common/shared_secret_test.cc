#include "common/shared_secret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/fakes/certificates.h"

namespace presence {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::string kGood = "sixteen bytes at least";

std::string WhyNot(const std::string& value, const std::string& path) {
  const auto secret = LoadSecret("LINK_SECRET", value, path);
  EXPECT_EQ(secret.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(secret.status().message());
}

TEST(SharedSecret, ComesFromTheSettingOrAFile) {
  const FolderForTests folder;
  EXPECT_EQ(*LoadSecret("LINK_SECRET", "", ""), "");
  EXPECT_EQ(*LoadSecret("LINK_SECRET", kGood, ""), kGood);
  EXPECT_EQ(*LoadSecret("LINK_SECRET", "", folder.Write("secret", kGood)), kGood);
  EXPECT_EQ(*LoadSecret("LINK_SECRET", "", folder.Write("secret", kGood + "\n")), kGood);
  EXPECT_EQ(*LoadSecret("LINK_SECRET", "", folder.Write("secret", kGood + "\r\n")), kGood);
  const std::string longest(kSecretBytesMax, 'x');
  EXPECT_EQ(*LoadSecret("LINK_SECRET", "", folder.Write("secret", longest + "\r\n")), longest);
}

TEST(SharedSecret, IsRefusedWhenItIsTooShortTooLongOrNotThere) {
  const FolderForTests folder;
  EXPECT_THAT(WhyNot("fifteen bytes..", ""),
              AllOf(HasSubstr("LINK_SECRET must hold 16"), Not(HasSubstr("fifteen bytes.."))));
  EXPECT_THAT(WhyNot(std::string(kSecretBytesMax + 1, 'x'), ""), HasSubstr("to 1024"));
  EXPECT_THAT(WhyNot("", folder.Write("secret", "")), HasSubstr("LINK_SECRET_FILE must hold"));
  EXPECT_THAT(WhyNot("", folder.Write("secret", std::string(kSecretBytesMax + 9, 'x'))), HasSubstr("to 1024"));
  EXPECT_THAT(WhyNot("", folder.Path("nowhere")), HasSubstr("LINK_SECRET_FILE cannot be read"));
  EXPECT_THAT(WhyNot(kGood, folder.Path("nowhere")), HasSubstr("both set"));
}

TEST(SharedSecret, IsComparedAsAWhole) {
  EXPECT_TRUE(SameSecret(kGood, kGood));
  EXPECT_FALSE(SameSecret(kGood, kGood + "x"));
  EXPECT_FALSE(SameSecret(kGood, kGood.substr(1)));
  EXPECT_FALSE(SameSecret(kGood, ""));
}

}  // namespace
}  // namespace presence
