// Certificates on disk: only sets that hold together are handed out.
#include "common/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/fakes/certificates.h"

namespace presence {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const TlsNames kNames{"X_CERT", "X_KEY", "X_CA"};

class TlsFilesTest : public testing::Test {
 protected:
  TlsPaths WriteAll(const CertificateForTests& own) const {
    return {folder_.Write("cert.pem", own.pem), folder_.Write("key.pem", own.key_pem),
            folder_.Write("ca.pem", authority_.pem)};
  }
  static std::string WhyNot(const TlsPaths& paths) {
    const auto files = TlsFiles::Open(paths, kNames);
    EXPECT_EQ(files.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(files.status().message());
  }

  const FolderForTests folder_;
  const CertificateForTests authority_ = MakeCertificate("authority");
  const CertificateForTests first_ = MakeCertificate("first", &authority_);
  const CertificateForTests second_ = MakeCertificate("second", &authority_);
};

TEST_F(TlsFilesTest, HandsOutWhatTheFilesHold) {
  const auto files = TlsFiles::Open(WriteAll(first_), kNames);
  ASSERT_TRUE(files.ok()) << files.status();
  const auto material = (*files)->Current();
  EXPECT_EQ(material->certificate_chain, first_.pem);
  EXPECT_EQ(material->private_key, first_.key_pem);
  EXPECT_EQ(material->peer_ca, authority_.pem);
  EXPECT_EQ((*files)->Current(), material) << "nothing has changed";
}

TEST_F(TlsFilesTest, WhatIsNotGivenIsEmpty) {
  const auto files =
      TlsFiles::Open({.certificate = {}, .key = {}, .peer_ca = folder_.Write("ca.pem", authority_.pem)}, kNames);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)->Current()->certificate_chain, "");
  EXPECT_EQ((*files)->Current()->peer_ca, authority_.pem);
}

TEST_F(TlsFilesTest, CheckSaysWhatOpenWouldButForWhatTheSettingsSayThemselves) {
  const TlsPaths good = WriteAll(first_);
  EXPECT_TRUE(TlsFiles::Check(good, kNames).ok());
  EXPECT_TRUE(TlsFiles::Check({}, kNames).ok());
  TlsPaths paths = good;
  paths.key = folder_.Path("nowhere.pem");
  EXPECT_EQ(TlsFiles::Check(paths, kNames).message(), WhyNot(paths));
  paths.key.clear();
  EXPECT_TRUE(TlsFiles::Check(paths, kNames).ok()) << "certificate and key belong together: said once";
}

TEST_F(TlsFilesTest, MistakesNameTheSetting) {
  const TlsPaths good = WriteAll(first_);
  TlsPaths paths = good;
  paths.certificate = folder_.Path("nowhere.pem");
  EXPECT_THAT(WhyNot(paths), AllOf(HasSubstr("X_CERT"), HasSubstr("nowhere.pem"), HasSubstr("is not a file")));
  paths = good;
  paths.key.clear();
  EXPECT_THAT(WhyNot(paths), AllOf(HasSubstr("X_CERT"), HasSubstr("X_KEY"), HasSubstr("belong together")));
  paths = good;
  paths.key = folder_.Write("other.pem", second_.key_pem);
  EXPECT_THAT(WhyNot(paths), AllOf(HasSubstr("X_KEY"), HasSubstr("is not the key of X_CERT")));
  paths.key = folder_.Write("other.pem", "no PEM");
  EXPECT_THAT(WhyNot(paths), HasSubstr("holds no private key"));
  paths = good;
  paths.certificate = folder_.Write("other.pem", first_.key_pem);
  EXPECT_THAT(WhyNot(paths), HasSubstr("holds no certificate"));
  paths = good;
  paths.peer_ca = folder_.Write("other.pem", "");
  EXPECT_THAT(WhyNot(paths), AllOf(HasSubstr("X_CA"), HasSubstr("holds no certificate")));
  paths.peer_ca = folder_.Write("other.pem", std::string(TlsFiles::kFileBytesMax + 1, 'x'));
  EXPECT_THAT(WhyNot(paths), HasSubstr("longer than"));
}

TEST_F(TlsFilesTest, FilesMayBeReplacedOneAfterTheOtherInAnyOrder) {
  const auto files = TlsFiles::Open(WriteAll(first_), kNames);
  ASSERT_TRUE(files.ok()) << files.status();
  folder_.Write("key.pem", second_.key_pem);
  EXPECT_EQ((*files)->Current()->private_key, first_.key_pem) << "the new key has no certificate yet";
  folder_.Write("cert.pem", second_.pem);
  EXPECT_EQ((*files)->Current()->private_key, second_.key_pem);
  EXPECT_EQ((*files)->Current()->certificate_chain, second_.pem);

  folder_.Write("cert.pem", first_.pem);
  EXPECT_EQ((*files)->Current()->certificate_chain, second_.pem);
  folder_.Write("key.pem", first_.key_pem);
  EXPECT_EQ((*files)->Current()->certificate_chain, first_.pem);
}

TEST_F(TlsFilesTest, ALostOrBrokenFileChangesNothing) {
  const auto files = TlsFiles::Open(WriteAll(first_), kNames);
  ASSERT_TRUE(files.ok()) << files.status();
  const auto before = (*files)->Current();
  std::filesystem::remove(folder_.Path("cert.pem"));
  EXPECT_EQ((*files)->Current(), before);
  folder_.Write("cert.pem", first_.pem.substr(0, 100));
  EXPECT_EQ((*files)->Current(), before);
  folder_.Write("cert.pem", first_.pem);
  EXPECT_EQ((*files)->Current()->certificate_chain, first_.pem);
}

// Kubernetes mounts a secret as links into a folder that is itself a link, and moves that one.
TEST_F(TlsFilesTest, FollowsALinkThatIsMoved) {
  namespace fs = std::filesystem;
  for (const auto* set : {&first_, &second_}) {
    const std::string name = set == &first_ ? "1" : "2";
    fs::create_directory(folder_.Path(name));
    folder_.Write(name + "/cert.pem", set->pem);
    folder_.Write(name + "/key.pem", set->key_pem);
  }
  fs::create_directory_symlink("1", folder_.Path("data"));
  const auto files = TlsFiles::Open({folder_.Path("data/cert.pem"), folder_.Path("data/key.pem"), ""}, kNames);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)->Current()->certificate_chain, first_.pem);
  fs::create_directory_symlink("2", folder_.Path("data.new"));
  fs::rename(folder_.Path("data.new"), folder_.Path("data"));
  EXPECT_EQ((*files)->Current()->certificate_chain, second_.pem);
}

}  // namespace
}  // namespace presence
