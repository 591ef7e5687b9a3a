// The socket loop with TLS: what its clients get.
#include "tests/edge/socket_tls_fixture.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(SocketTlsTest, BothVersionsAnswerOneRequestAfterTheOther) {
  options_.strict_transport_age = 3600s;
  ListenTls();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    SSL_CTX_set_max_proto_version(client_tls_->context(), version);
    const auto client = Connect();
    ASSERT_TRUE(Answers(*client, Get("/one"), "/one"));
    EXPECT_TRUE(Answers(*client, Get("/two"), "/two"));
    EXPECT_EQ(SSL_version(client->ssl()), version);
    EXPECT_THAT(client->received(), HasSubstr("Strict-Transport-Security: max-age=3600\r\n"));
    EXPECT_EQ(SSL_SESSION_has_ticket(SSL_get_session(client->ssl())), 0);
  }
  EXPECT_EQ(loop_->counters().tls_handshakes.Value(), 2u);
  EXPECT_EQ(loop_->counters().tls_failures.Value(), 0u);
}

TEST_F(SocketTlsTest, WithoutTheSettingNothingIsSaidAboutHttps) {
  ListenTls();
  const auto client = Connect();
  ASSERT_TRUE(Answers(*client, Get("/one"), "/one"));
  EXPECT_THAT(client->received(), Not(HasSubstr("Strict-Transport-Security")));
}

TEST_F(SocketTlsTest, OldVersionsAndCiphersWithoutForwardSecrecyAreRefused) {
  ListenTls();
  SSL_CTX* const context = client_tls_->context();
  SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
  SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
  SSL_CTX_set_security_level(context, 0);
  ASSERT_EQ(SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0"), 1);
  EXPECT_FALSE(Completes(*Connect()));

  SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
  for (const char* ciphers : {"ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256",
                              "AES128-GCM-SHA256:AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256"}) {
    ASSERT_EQ(SSL_CTX_set_cipher_list(context, ciphers), 1) << ciphers;
    EXPECT_FALSE(Completes(*Connect())) << ciphers;
  }
  ASSERT_EQ(SSL_CTX_set_cipher_list(context, "ALL"), 1);
  EXPECT_TRUE(Completes(*Connect()));
  EXPECT_EQ(loop_->counters().tls_failures.Value(), 5u);
}

TEST_F(SocketTlsTest, TheServersOrderOfCiphersCountsUnlessAClientLikesChaCha20Best) {
  ListenTls();
  SSL_CTX* const context = client_tls_->context();
  SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
  const auto cipher = [&](const char* offered) {
    EXPECT_EQ(SSL_CTX_set_cipher_list(context, offered), 1);
    const auto client = Connect();
    EXPECT_TRUE(Completes(*client));
    return std::string(SSL_get_cipher_name(client->ssl()));
  };
  EXPECT_EQ(cipher("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"), "ECDHE-ECDSA-AES128-GCM-SHA256");
  EXPECT_EQ(cipher("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"), "ECDHE-ECDSA-CHACHA20-POLY1305");
}

TEST_F(SocketTlsTest, OfProtocolsOnlyHttp1IsSpoken) {
  ListenTls();
  const auto selected = [&](std::string_view offered) -> std::string {
    const auto client = Connect();
    SSL_set_alpn_protos(client->ssl(), reinterpret_cast<const unsigned char*>(offered.data()),
                        static_cast<unsigned>(offered.size()));
    if (!Completes(*client)) return "refused";
    const unsigned char* name = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(client->ssl(), &name, &size);
    return std::string(reinterpret_cast<const char*>(name), size);
  };
  EXPECT_EQ(selected("\x02h2\x08http/1.1"), "http/1.1");
  EXPECT_EQ(selected("\x02h2"), "refused");
  EXPECT_EQ(selected(""), "");
}

TEST_F(SocketTlsTest, MessagesOfAllSizesGoBothWays) {
  options_.message_bytes_max = 1024 * 1024;
  ListenTls();
  handler_.on_text = [this](SocketId socket, std::string_view text) { Send({socket}, text); };
  const auto client = OpenTlsWebsocket();
  std::vector<std::string> sent;
  for (const size_t size : {1u, 125u, 16'370u, 16'384u, 16'385u, 65'536u, 300'000u}) {
    sent.emplace_back(size, static_cast<char>('a' + sent.size()));
    client->SendText(sent.back());
  }
  EXPECT_TRUE(RunUntil([&] { return client->texts().size() == sent.size(); }, [&] { client->Move(); }));
  EXPECT_EQ(client->texts(), sent);
}

// All of it is in the shard's hands before the loop looks at the socket once: no further event will come.
TEST_F(SocketTlsTest, WhatTlsHoldsBackIsReadWithoutAFurtherEvent) {
  ListenTls();
  const auto client = OpenTlsWebsocket();
  constexpr size_t kTexts = 300;
  for (size_t i = 0; i < kTexts; ++i) client->SendText(std::string(1000, 'x'));
  client->tls().Move();  // 19 records of 16 KB, more than one reading takes
  ASSERT_TRUE(client->tls().all_written());
  EXPECT_TRUE(RunUntil([&] { return handler_.texts.size() == kTexts; }));
}

TEST_F(SocketTlsTest, AClientThatReadsLateGetsEverythingInOrder) {
  options_.send_buffer_bytes_max = 64 * 1024 * 1024;
  ListenTls();
  const auto client = OpenTlsWebsocket(/*receive_buffer_bytes=*/4096);
  client->tls().StopReading();
  std::vector<std::string> sent;
  for (int i = 0; i < 3000; ++i) {
    sent.push_back(std::to_string(i) + std::string(4000, 'x'));
    Send({handler_.opened[0]}, sent.back());
    if (i % 100 == 0) {
      TurnAWhile();
    }
  }
  client->tls().GoOnReading();
  EXPECT_TRUE(RunUntil([&] { return client->texts().size() == sent.size(); }, [&] { client->Move(); }));
  EXPECT_EQ(client->texts(), sent);
}

// A record that is encrypted but not out must go first, whatever becomes of the rest.
TEST_F(SocketTlsTest, ASlowClientIsClosedWith1013BehindWhatIsOnItsWay) {
  options_.send_buffer_bytes_max = 64 * 1024;
  options_.close_timeout = 20s;
  ListenTls();
  const auto client = OpenTlsWebsocket(/*receive_buffer_bytes=*/4096);
  client->tls().StopReading();
  size_t sent = 0;
  for (; loop_->counters().slow_closes.Value() == 0 && sent < 100'000; ++sent) {
    Send({handler_.opened[0]}, std::to_string(sent) + std::string(1000, 'x'));
  }
  client->tls().GoOnReading();
  EXPECT_TRUE(RunUntil([&] { return client->closed().has_value(); }, [&] { client->Move(); }));
  EXPECT_EQ(client->closed(), 1013);
  ASSERT_LT(client->texts().size(), sent);
  for (size_t i = 0; i < client->texts().size(); ++i) {
    EXPECT_EQ(client->texts()[i], std::to_string(i) + std::string(1000, 'x'));
  }
  EXPECT_TRUE(RunUntil([&] { return client->tls().ended(); }, [&] { client->Move(); })) << client->tls().reason();
}

TEST_F(SocketTlsTest, PresenceOfABlockedClientIsReplacedAndNothingEncryptedIsTouched) {
  ListenTls();
  const auto client = OpenTlsWebsocket(/*receive_buffer_bytes=*/4096);
  client->tls().StopReading();
  const SocketId socket = handler_.opened[0];
  const SendPolicy presence{SendClass::kLatest, 7};
  int last = 0;
  for (int i = 0; loop_->counters().latest_replaced.Value() < 100 && i < 100'000; ++i) {
    Send({socket}, std::to_string(last = i) + std::string(1000, 'x'), presence);
    if (i % 16 == 0) {
      TurnAWhile();
    }
  }
  client->tls().GoOnReading();
  const std::string newest = std::to_string(last) + std::string(1000, 'x');
  EXPECT_TRUE(
      RunUntil([&] { return !client->texts().empty() && client->texts().back() == newest; }, [&] { client->Move(); }));
  EXPECT_EQ(loop_->counters().latest_replaced.Value(), 100u);
  EXPECT_EQ(client->texts().size(), static_cast<size_t>(last) + 1 - 100);
  int before = -1;
  for (const std::string& text : client->texts()) EXPECT_LT(std::exchange(before, std::stoi(text)), std::stoi(text));
}

TEST_F(SocketTlsTest, AClientThatAsksForShortRecordsGetsThem) {
  ListenTls();
  SSL_CTX_set_tlsext_max_fragment_length(client_tls_->context(), TLSEXT_max_fragment_length_512);
  const auto client = OpenTlsWebsocket(/*receive_buffer_bytes=*/4096);
  client->tls().StopReading();
  std::vector<std::string> sent;
  for (int i = 0; i < 300; ++i) {
    sent.push_back(std::to_string(i) + std::string(3000, 'x'));
    Send({handler_.opened[0]}, sent.back());
  }
  TurnAWhile();
  client->tls().GoOnReading();
  EXPECT_TRUE(RunUntil([&] { return client->texts().size() == sent.size(); }, [&] { client->Move(); }));
  EXPECT_EQ(client->texts(), sent);
}

TEST_F(SocketTlsTest, BothSidesMayEndInOrder) {
  ListenTls();
  const auto closed_by_us = OpenTlsWebsocket();
  const auto closed_by_client = OpenTlsWebsocket();
  Close(handler_.opened[0], 1012, "restart");
  closed_by_client->Close(1000);
  const auto move = [&] {
    closed_by_us->Move();
    closed_by_client->Move();
  };
  EXPECT_TRUE(RunUntil([&] { return closed_by_us->tls().ended() && closed_by_client->tls().ended(); }, move));
  EXPECT_EQ(closed_by_us->closed(), 1012);
  EXPECT_EQ(closed_by_client->closed(), 1000);
  closed_by_us->tls().Close();
  closed_by_client->tls().Close();
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  ASSERT_EQ(handler_.closed.size(), 2u);
}

TEST_F(SocketTlsTest, AHalfClosedClientStillGetsItsAnswer) {
  ListenTls();
  SocketId asked{};
  handler_.on_request = [&](SocketId socket, const HttpRequest&) { asked = socket; };
  const auto client = Connect();
  client->Write(Get("/late"));
  ASSERT_TRUE(RunUntil([&] { return handler_.requests.size() == 1; }, [&] { client->Move(); }));
  client->EndWriting();
  TurnAWhile();
  HttpResponse response;
  response.body = "late";
  loop_->Respond(asked, response);
  EXPECT_TRUE(RunUntil([&] { return client->ended(); }, [&] { client->Move(); }));
  EXPECT_TRUE(client->received().ends_with("\r\n\r\nlate"));
}

TEST_F(SocketTlsTest, AClientThatHangsUpWithoutAWordIsNoticed) {
  ListenTls();
  const auto client = OpenTlsWebsocket();
  client->tls().Close();
  EXPECT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }));
  EXPECT_EQ(handler_.closed[0].code, 1006);
}

TEST_F(SocketTlsTest, NewFilesCountForNewConnectionsAndBadOnesForNobody) {
  ListenTls();
  const auto before = OpenTlsWebsocket();
  const CertificateForTests other = MakeCertificate("other authority");
  const auto trusts_other = Trusting(other);
  EXPECT_FALSE(Completes(*std::make_unique<TlsTestClient>(loop_->port(), *trusts_other)));

  Certify(other);
  EXPECT_TRUE(Completes(*std::make_unique<TlsTestClient>(loop_->port(), *trusts_other)));
  const auto old_friend = Connect();
  EXPECT_FALSE(Completes(*old_friend));
  EXPECT_THAT(old_friend->reason(), HasSubstr("certificate verify failed"));

  folder_.Write("edge.pem", "no certificate");
  EXPECT_TRUE(Completes(*std::make_unique<TlsTestClient>(loop_->port(), *trusts_other)));

  Send({handler_.opened[0]}, "still here");
  EXPECT_TRUE(RunUntil([&] { return !before->texts().empty(); }, [&] { before->Move(); }));
  EXPECT_THAT(before->texts(), ElementsAre("still here"));
}

TEST_F(SocketTlsTest, TheNameInTheCertificateCounts) {
  ListenTls();
  TlsTestClient client(loop_->port(), *client_tls_, "elsewhere.example");
  EXPECT_FALSE(Completes(client));
  EXPECT_THAT(client.reason(), HasSubstr("hostname mismatch"));
}

TEST_F(SocketTlsTest, ACertificateThatOpensslRefusesIsSaidAtStart) {
  // P-256 with SHA-256 cannot be refused; a chain that is cut off can.
  const CertificateForTests server = MakeCertificate("edge", &authority_);
  folder_.Write("edge.key", server.key_pem);
  folder_.Write("edge.pem", server.pem + authority_.pem.substr(0, authority_.pem.size() / 2) + "\n");
  auto files = TlsFiles::Open({folder_.Path("edge.pem"), folder_.Path("edge.key"), ""}, {"CERT", "KEY", "CA"});
  ASSERT_TRUE(files.ok()) << files.status();
  options_.tls = *files;
  const auto loop = SocketLoop::Listen(io_, options_, handler_);
  EXPECT_EQ(loop.status().code(), absl::StatusCode::kInvalidArgument) << loop.status();
}

}  // namespace
}  // namespace presence::edge
