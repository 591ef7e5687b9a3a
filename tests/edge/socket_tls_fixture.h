// A socket loop that speaks TLS, with certificates made for the test, and clients that speak it, too; all in the test's
// thread.
#pragma once

#include <fcntl.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/tls_files.h"
#include "edge/tls_client.h"
#include "tests/edge/socket_loop_fixture.h"
#include "tests/fakes/certificates.h"

namespace presence::edge {

// Moves when it is told to.
class TlsTestClient {
 public:
  TlsTestClient(uint16_t port, TlsClient& tls, const std::string& host = "localhost", int receive_buffer_bytes = 0) {
    descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer_bytes > 0) {
      setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    fcntl(descriptor_, F_SETFL, O_NONBLOCK);
    ssl_ = SSL_new(tls.context());
    SSL_set_connect_state(ssl_);
    SSL_set1_host(ssl_, host.c_str());
    SSL_set_tlsext_host_name(ssl_, host.c_str());
    stream_ = std::make_unique<TlsStream>(ssl_, descriptor_);
  }
  ~TlsTestClient() { Close(); }
  TlsTestClient(const TlsTestClient&) = delete;
  TlsTestClient& operator=(const TlsTestClient&) = delete;

  void Write(std::string_view bytes) { output_.append(bytes); }
  // Shakes hands, writes, reads, as far as it goes without waiting.
  void Move() {
    if (descriptor_ < 0 || ended_ || failed_) return;
    if (!stream_->established()) {
      const TlsStream::Outcome outcome = stream_->Handshake();
      if (outcome == TlsStream::Outcome::kError || outcome == TlsStream::Outcome::kEnd) failed_ = true;
      if (outcome != TlsStream::Outcome::kDone) return;
    }
    WriteOut();
    if (reads_) ReadIn();
  }
  void StopReading() { reads_ = false; }
  void GoOnReading() { reads_ = true; }
  void EndWriting() { stream_->EndWriting(); }
  void Close() {
    stream_.reset();
    if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
  }

  SSL* ssl() { return ssl_; }
  int descriptor() const { return descriptor_; }
  std::string& received() { return received_; }
  bool established() const { return stream_->established(); }
  bool ended() const { return ended_; }    // by close_notify
  bool failed() const { return failed_; }  // in any other way
  const std::string& reason() const { return stream_->reason(); }
  bool all_written() const { return output_.empty(); }

 private:
  void WriteOut() {
    while (!output_.empty()) {
      const iovec all{output_.data(), output_.size()};
      const TlsStream::Result result = stream_->Write({&all, 1}, record_);
      output_.erase(0, result.bytes);
      if (result.outcome == TlsStream::Outcome::kError) output_.clear();
      if (result.outcome != TlsStream::Outcome::kDone) return;
    }
  }
  void ReadIn() {
    while (true) {
      char buffer[64 * 1024];
      const TlsStream::Result result = stream_->Read(buffer, sizeof(buffer));
      received_.append(buffer, result.bytes);
      ended_ = result.outcome == TlsStream::Outcome::kEnd;
      failed_ = result.outcome == TlsStream::Outcome::kError;
      if (!stream_->more()) return;
    }
  }

  int descriptor_;
  SSL* ssl_;  // the stream's
  std::unique_ptr<TlsStream> stream_;
  char record_[TlsStream::kRecordBytesMax];
  std::string output_, received_;
  bool reads_ = true, ended_ = false, failed_ = false;
};

class TlsWebsocketTestClient final : public WebsocketEngineHandler {
 public:
  TlsWebsocketTestClient(uint16_t port, TlsClient& tls, int receive_buffer_bytes = 0)
      : tls_(port, tls, "localhost", receive_buffer_bytes) {
    WebsocketClientOptions options;
    options.uri = "wss://localhost:" + std::to_string(port) + "/ws";
    engine_ = WebsocketEngine::Client(options, *this);
    engine_->Start();
  }

  void Move() {
    tls_.Move();
    const std::string bytes = std::exchange(tls_.received(), {});
    if (!bytes.empty()) engine_->Feed(bytes);
    if (!tls_.all_written()) tls_.Move();
  }
  void SendText(std::string_view text) { engine_->SendText(text); }
  void Close(uint16_t code) { engine_->Close(code, "bye"); }
  TlsTestClient& tls() { return tls_; }

  bool open() const { return open_; }
  const std::vector<std::string>& texts() const { return texts_; }
  std::optional<uint16_t> closed() const { return closed_; }

 private:
  void OnOutput(std::string_view bytes) override { tls_.Write(bytes); }
  void OnOpen() override { open_ = true; }
  void OnMessage(MessageKind, std::string_view payload) override { texts_.emplace_back(payload); }
  void OnControlFrame() override {}
  void OnEnded(uint16_t code) override { closed_ = code; }

  TlsTestClient tls_;
  std::unique_ptr<WebsocketEngine> engine_;
  bool open_ = false;
  std::vector<std::string> texts_;
  std::optional<uint16_t> closed_;
};

class SocketTlsTest : public SocketLoopTest {
 protected:
  SocketTlsTest() : authority_(MakeCertificate("authority")) {
    Certify(authority_);
    client_tls_ = Trusting(authority_);
  }

  // New files for the server.
  void Certify(const CertificateForTests& authority) {
    const CertificateForTests server = MakeCertificate("edge", &authority);
    folder_.Write("edge.key", server.key_pem);
    folder_.Write("edge.pem", server.pem);
  }
  std::unique_ptr<TlsClient> Trusting(const CertificateForTests& authority) {
    auto client = TlsClient::Create(folder_.Write("trusted.pem", authority.pem));
    EXPECT_TRUE(client.ok()) << client.status();
    // An end without close_notify is a fault to these clients.
    SSL_CTX_clear_options((*client)->context(), SSL_OP_IGNORE_UNEXPECTED_EOF);
    return *std::move(client);
  }
  void ListenTls() {
    auto files = TlsFiles::Open({folder_.Path("edge.pem"), folder_.Path("edge.key"), ""}, {"CERT", "KEY", "CA"});
    ASSERT_TRUE(files.ok()) << files.status();
    options_.tls = *files;
    Listen();
  }

  std::unique_ptr<TlsTestClient> Connect() { return std::make_unique<TlsTestClient>(loop_->port(), *client_tls_); }
  // Whether the handshake is completed, not refused.
  bool Completes(TlsTestClient& client) {
    EXPECT_TRUE(RunUntil([&] { return client.established() || client.failed(); }, [&] { client.Move(); }));
    return client.established();
  }
  // A blocked socket gives the loop nothing to do.
  void TurnAWhile() {
    io_.restart();
    io_.poll();
  }
  // The answer to `request`, as a whole, with this body.
  bool Answers(TlsTestClient& client, std::string_view request, const std::string& body) {
    client.Write(request);
    const bool answered =
        RunUntil([&] { return client.received().ends_with("\r\n\r\n" + body) || client.failed() || client.ended(); },
                 [&] { client.Move(); });
    return answered && !client.failed() && !client.ended();
  }
  std::unique_ptr<TlsWebsocketTestClient> OpenTlsWebsocket(int receive_buffer_bytes = 0) {
    auto client = std::make_unique<TlsWebsocketTestClient>(loop_->port(), *client_tls_, receive_buffer_bytes);
    const size_t opened = handler_.opened.size();
    EXPECT_TRUE(RunUntil([&] { return client->open() && handler_.opened.size() > opened; }, [&] { client->Move(); }));
    return client;
  }

  FolderForTests folder_;
  const CertificateForTests authority_;
  std::unique_ptr<TlsClient> client_tls_;
};

}  // namespace presence::edge
