// Real handshakes over loopback, with gRPC on both sides.
#include "common/tls_credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "common/check.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/fakes/certificates.h"

namespace presence {
namespace {

const TlsNames kNames{"X_CERT", "X_KEY", "X_CA"};

std::shared_ptr<TlsFiles> Files(const TlsPaths& paths) {
  auto files = TlsFiles::Open(paths, kNames);
  PRESENCE_CHECK(files.ok(), "the files are good");
  return *std::move(files);
}

// Answers, so that a call shows that there is a connection.
class AnsweringService final : public grpc::health::v1::Health::CallbackService {
 public:
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::health::v1::HealthCheckRequest*,
                                  grpc::health::v1::HealthCheckResponse*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

class TlsCredentialsTest : public testing::Test {
 protected:
  // A server with a certificate of `authority_`; with `client_ca` it asks for one of its own clients' authority.
  void Listen(bool client_ca) {
    grpc::EnableDefaultHealthCheckService(false);
    const TlsPaths paths{folder_.Write("cert.pem", server_.pem), folder_.Write("key.pem", server_.key_pem),
                         client_ca ? folder_.Write("clients.pem", clients_.pem) : ""};
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", MakeTlsServerCredentials(Files(paths)), &port_);
    builder.RegisterService(&service_);
    listener_ = builder.BuildAndStart();
    ASSERT_NE(listener_, nullptr);
  }

  // A client that trusts `authority` and shows `own`, if there is one.
  std::shared_ptr<grpc::Channel> Dial(const CertificateForTests& authority, const CertificateForTests* own = nullptr,
                                      const std::string& server_name = "") const {
    TlsPaths paths{.certificate = {}, .key = {}, .peer_ca = folder_.Write("trusted.pem", authority.pem)};
    if (own != nullptr) {
      paths.certificate = folder_.Write("own.pem", own->pem);
      paths.key = folder_.Write("own-key.pem", own->key_pem);
    }
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    if (!server_name.empty()) arguments.SetSslTargetNameOverride(server_name);
    const auto files = Files(paths);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port_), MakeTlsChannelCredentials(*files),
                                     arguments);
  }

  static grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::health::v1::HealthCheckResponse response;
    return grpc::health::v1::Health::NewStub(channel)->Check(&context, {}, &response);
  }

  const FolderForTests folder_;
  const CertificateForTests authority_ = MakeCertificate("authority"), other_ = MakeCertificate("other authority"),
                            clients_ = MakeCertificate("authority of clients");
  const CertificateForTests server_ = MakeCertificate("server", &authority_),
                            client_ = MakeCertificate("client", &clients_),
                            stranger_ = MakeCertificate("stranger", &other_);
  AnsweringService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> listener_;
};

TEST_F(TlsCredentialsTest, AServerIsBelievedByItsAuthorityAlone) {
  Listen(/*client_ca=*/false);
  EXPECT_TRUE(Call(Dial(authority_)).ok());
  EXPECT_EQ(Call(Dial(other_)).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsCredentialsTest, AServerIsBelievedByItsNameAlone) {
  Listen(/*client_ca=*/false);
  EXPECT_TRUE(Call(Dial(authority_, nullptr, "localhost")).ok());
  EXPECT_EQ(Call(Dial(authority_, nullptr, "elsewhere.test")).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsCredentialsTest, MutualTlsWantsACertificateOfTheAuthority) {
  Listen(/*client_ca=*/true);
  EXPECT_TRUE(Call(Dial(authority_, &client_)).ok());
  EXPECT_EQ(Call(Dial(authority_)).error_code(), grpc::StatusCode::UNAVAILABLE) << "none shown";
  EXPECT_EQ(Call(Dial(authority_, &stranger_)).error_code(), grpc::StatusCode::UNAVAILABLE) << "of another authority";
}

TEST_F(TlsCredentialsTest, NewFilesAreForNewConnectionsAndOldOnesGoOn) {
  Listen(/*client_ca=*/false);
  const auto old_connection = Dial(authority_);
  ASSERT_TRUE(Call(old_connection).ok());

  const CertificateForTests next = MakeCertificate("server", &other_);
  folder_.Write("key.pem", next.key_pem);
  EXPECT_TRUE(Call(Dial(authority_)).ok()) << "half replaced: the old pair goes on";
  folder_.Write("cert.pem", next.pem);
  EXPECT_TRUE(Call(Dial(other_)).ok());
  EXPECT_FALSE(Call(Dial(authority_)).ok()) << "the old certificate is not shown any more";
  EXPECT_TRUE(Call(old_connection).ok());
}

TEST_F(TlsCredentialsTest, ANewAuthorityOfClientsCountsAtOnce) {
  Listen(/*client_ca=*/true);
  EXPECT_FALSE(Call(Dial(authority_, &stranger_)).ok());
  folder_.Write("clients.pem", other_.pem);
  EXPECT_TRUE(Call(Dial(authority_, &stranger_)).ok());
  EXPECT_FALSE(Call(Dial(authority_, &client_)).ok());
}

}  // namespace
}  // namespace presence
