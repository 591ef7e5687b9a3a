// The socket loop with TLS, and peers that do not do what they should.
#include "tests/edge/socket_tls_fixture.h"

namespace presence::edge {
namespace {

using ::testing::HasSubstr;

TEST_F(SocketTlsTest, PlainHttpIsToldSo) {
  ListenTls();
  TcpClient client(loop_->port());
  client.Write(Get("/health"));
  const std::string answer = ReadToEnd(client);
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << answer;
  EXPECT_THAT(answer, HasSubstr("This port speaks TLS"));
  EXPECT_TRUE(handler_.requests.empty());
  EXPECT_EQ(loop_->counters().tls_failures.Value(), 1u);
}

TEST_F(SocketTlsTest, OtherBytesAreHungUpOn) {
  ListenTls();
  for (const std::string& bytes : {std::string("SSH-2.0-x\r\n"), std::string(100'000, '\x16'), std::string(50, '\0')}) {
    TcpClient client(loop_->port());
    client.Write(bytes);
    EXPECT_TRUE(RunUntil([&] { return client.ended(); }, [&] { client.Read(); }));
  }
  EXPECT_EQ(loop_->counters().tls_failures.Value(), 3u);
  EXPECT_TRUE(Completes(*Connect()));
}

TEST_F(SocketTlsTest, AHandshakeHasTheTimeOfARequest) {
  options_.request_timeout = 100ms;
  ListenTls();
  TcpClient silent(loop_->port());
  TcpClient half(loop_->port());
  half.Write(std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));  // the head of a hello
  const auto bystander = OpenTlsWebsocket();
  EXPECT_TRUE(RunUntil([&] { return silent.ended() && half.ended(); },
                       [&] {
                         silent.Read();
                         half.Read();
                       }));
  EXPECT_EQ(silent.received() + half.received(), "");
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 2u);
  EXPECT_TRUE(handler_.closed.empty());
}

TEST_F(SocketTlsTest, AHandshakeMayComeByteByByte) {
  ListenTls();
  // What the client says is caught in a pair of sockets, and passed on in pieces.
  TcpClient wire(loop_->port());
  SSL* const ssl = SSL_new(client_tls_->context());
  SSL_set_connect_state(ssl);
  BIO* const in = BIO_new(BIO_s_mem());
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, in, out);
  int done = 0;
  EXPECT_TRUE(RunUntil([&] { return done == 1; },
                       [&] {
                         done = SSL_do_handshake(ssl);
                         char byte;
                         while (BIO_read(out, &byte, 1) == 1) {
                           wire.Write({&byte, 1});
                           io_.restart();
                           io_.run_one_for(1ms);
                         }
                         wire.Read();
                         const std::string answer = std::exchange(wire.received(), {});
                         if (!answer.empty()) BIO_write(in, answer.data(), static_cast<int>(answer.size()));
                       }));
  EXPECT_TRUE(RunUntil([&] { return loop_->counters().tls_handshakes.Value() == 1; }));
  SSL_free(ssl);
}

// What is judged is how many of them the loop takes on before it looks at everything else again.
TEST_F(SocketTlsTest, ACrowdThatShakesHandsDelaysNobodyByMoreThanAFewHandshakes) {
  ListenTls();
  std::vector<std::unique_ptr<TlsTestClient>> crowd;
  for (int i = 0; i < 60; ++i) {
    crowd.push_back(Connect());
    crowd.back()->Move();
  }
  const auto answered = [&] {
    return std::count_if(crowd.begin(), crowd.end(), [](const auto& client) {
      char byte;
      return recv(client->descriptor(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
    });
  };
  int before = 0;
  int turns = handler_.turns;
  EXPECT_TRUE(RunUntil([&] {
    const auto now = static_cast<int>(answered());
    const int turns_now = handler_.turns;
    EXPECT_LE(now - before, 8 * (turns_now - turns));
    before = now;
    turns = turns_now;
    return now == 60;
  }));
  EXPECT_GE(handler_.turns, 60 / 8);
  EXPECT_TRUE(RunUntil([&] { return loop_->counters().tls_handshakes.Value() == 60; },
                       [&] {
                         for (const auto& client : crowd) client->Move();
                       }));
}

std::string Record(std::string_view content) {
  return std::string("\x16\x03\x01", 3) + static_cast<char>(content.size() >> 8) + static_cast<char>(content.size()) +
         std::string(content);
}

// OpenSSL would take 130,000 bytes, and make room for them at once.
TEST_F(SocketTlsTest, AHelloThatPromisesTooMuchIsRefusedAtItsHead) {
  ListenTls();
  const std::string head("\x01\x01\xfb\xd0", 4);
  std::string in_pieces;
  for (const char byte : head) in_pieces += Record({&byte, 1});
  for (const std::string& bytes : {Record(head), in_pieces}) {
    TcpClient client(loop_->port());
    client.Write(bytes);
    EXPECT_TRUE(RunUntil([&] { return client.ended(); }, [&] { client.Read(); }));
  }
  EXPECT_EQ(loop_->counters().tls_failures.Value(), 2u);
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 0u);
}

TEST(TlsHelloGuardTest, TwoHellosAreLookedAtAndNothingElse) {
  const auto message = [](char type, size_t size) {
    return std::string{type, static_cast<char>(size >> 16), static_cast<char>(size >> 8), static_cast<char>(size)};
  };
  const std::string hello = message(1, 600) + std::string(600, 'x');
  const std::string change = std::string("\x14\x03\x03\x00\x01\x01", 6);
  EXPECT_TRUE(TlsHelloGuard().Admits(Record(message(1, TlsHelloGuard::kHelloBytesMax))));
  EXPECT_FALSE(TlsHelloGuard().Admits(Record(message(1, TlsHelloGuard::kHelloBytesMax + 1))));
  EXPECT_TRUE(TlsHelloGuard().Admits(Record(message(16, 100'000)))) << "OpenSSL has bounds for the others";
  EXPECT_TRUE(TlsHelloGuard().Admits(Record(hello) + change + Record(hello)));
  EXPECT_FALSE(TlsHelloGuard().Admits(Record(hello) + change + Record(message(1, 100'000))));
  EXPECT_FALSE(TlsHelloGuard().Admits(Record(hello + message(1, 100'000)))) << "in one record";
  const std::string finished = Record(message(16, 2) + "xx") + change + Record(message(1, 100'000));
  EXPECT_TRUE(TlsHelloGuard().Admits(Record(hello) + finished)) << "encrypted, and only looks like one";
  TlsHelloGuard bytewise;
  for (const char byte : Record(hello) + change + Record(hello)) EXPECT_TRUE(bytewise.Admits({&byte, 1}));
}

// Sends one by itself.
bool UpdateKey(TlsWebsocketTestClient& client) {
  return SSL_key_update(client.tls().ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1 &&
         SSL_do_handshake(client.tls().ssl()) == 1;
}

TEST_F(SocketTlsTest, KeysMayBeRenewedAndEachMegabyteEarnsOneMore) {
  ListenTls();
  handler_.on_text = [this](SocketId socket, std::string_view) { Send({socket}, "got it"); };
  const auto client = OpenTlsWebsocket();
  const auto answered = [&](size_t texts) {
    return RunUntil([&] { return client->texts().size() == texts || client->tls().failed(); },
                    [&] { client->Move(); }) &&
           !client->tls().failed();
  };
  for (size_t i = 0; i < 16; ++i) {
    ASSERT_EQ(SSL_key_update(client->tls().ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    client->SendText("x");
    ASSERT_TRUE(answered(i + 1));
  }
  for (size_t i = 0; i < 40; ++i) client->SendText(std::string(64'000, 'x'));  // 2.4 MiB
  ASSERT_TRUE(answered(16 + 40));
  ASSERT_TRUE(UpdateKey(*client) && UpdateKey(*client));
  client->SendText("x");
  EXPECT_TRUE(answered(16 + 41));
  UpdateKey(*client);
  EXPECT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }, [&] { client->Move(); }));
}

TEST_F(SocketTlsTest, AByteOfDataBetweenThemExcusesNoKeyUpdates) {
  ListenTls();
  const auto client = OpenTlsWebsocket();
  for (int i = 0; i < 17; ++i) {
    client->SendText("x");
    client->Move();
    UpdateKey(*client);
  }
  ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }));
  EXPECT_EQ(handler_.closed[0].code, 1006);
}

TEST_F(SocketTlsTest, WhatTlsTakesForItselfIsChargedToo) {
  ListenTls();
  const auto client = OpenTlsWebsocket();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(UpdateKey(*client));
  // A header of 5 bytes, the message of 5, its type of 1 and a tag of 16.
  EXPECT_TRUE(RunUntil([&] { return handler_.bytes >= 10 * 27; }));
  EXPECT_EQ(handler_.bytes, 10u * 27);
  // An empty text: 6 bytes of a frame.
  client->SendText("");
  EXPECT_TRUE(RunUntil([&] { return handler_.texts.size() == 1; }, [&] { client->Move(); }));
  EXPECT_EQ(handler_.bytes, 10u * 27 + 22 + 6);
}

// The end comes in one event with the bytes.
TEST_F(SocketTlsTest, AnEndBehindHalfAHelloOrRecordIsNoticed) {
  options_.request_timeout = 10 * kPatience;
  ListenTls();
  TcpClient half(loop_->port());
  half.Write(std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));
  half.EndWriting();
  EXPECT_TRUE(RunUntil([&] { return half.ended(); }, [&] { half.Read(); }));
  EXPECT_EQ(loop_->counters().tls_failures.Value(), 1u);
  const auto client = OpenTlsWebsocket();
  ASSERT_EQ(send(client->tls().descriptor(), "\x17\x03\x03\x00\x20", 5, MSG_NOSIGNAL), 5);
  shutdown(client->tls().descriptor(), SHUT_WR);
  EXPECT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }));
}

TEST_F(SocketTlsTest, RenegotiationIsNotToBeHad) {
  ListenTls();
  SSL_CTX_set_max_proto_version(client_tls_->context(), TLS1_2_VERSION);
  const auto client = OpenTlsWebsocket();
  const auto bystander = OpenTlsWebsocket();
  ASSERT_EQ(SSL_renegotiate(client->tls().ssl()), 1);
  // The client asks; the server says no, which this client takes for the end.
  EXPECT_TRUE(RunUntil([&] { return client->tls().failed(); },
                       [&] {
                         SSL_do_handshake(client->tls().ssl());
                         client->Move();
                       }));
  EXPECT_EQ(loop_->counters().tls_handshakes.Value(), 2u);
  Send({handler_.opened[1]}, "unmoved");
  EXPECT_TRUE(RunUntil([&] { return bystander->texts().size() == 1; }, [&] { bystander->Move(); }));
}

// OpenSSL would make room for the whole hello, and for ever.
TEST_F(SocketTlsTest, TheBeginningOfARenegotiationIsTheEnd) {
  ListenTls();
  SSL_CTX_set_max_proto_version(client_tls_->context(), TLS1_2_VERSION);
  SSL_CTX_set_max_send_fragment(client_tls_->context(), 512);
  // Makes the hello longer than one record.
  static bool lengthen = false;
  lengthen = false;
  const auto add = [](SSL*, unsigned, unsigned, const unsigned char** out, size_t* size, X509*, size_t, int*, void*) {
    static const unsigned char extension[2000] = {};
    *out = extension;
    *size = sizeof(extension);
    return lengthen ? 1 : 0;
  };
  ASSERT_EQ(SSL_CTX_add_custom_ext(client_tls_->context(), 65000, SSL_EXT_CLIENT_HELLO, add, nullptr, nullptr, nullptr,
                                   nullptr),
            1);
  const auto client = OpenTlsWebsocket();
  // What it says now is caught, and its first record is sent.
  SSL* const ssl = client->tls().ssl();
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set0_wbio(ssl, out);
  lengthen = true;
  ASSERT_EQ(SSL_renegotiate(ssl), 1);
  SSL_do_handshake(ssl);
  std::string hello(4096, '\0');
  const int size = BIO_read(out, hello.data(), static_cast<int>(hello.size()));
  ASSERT_GT(size, 600) << "more than one record";
  const size_t record = 5 + (static_cast<size_t>(static_cast<uint8_t>(hello[3])) << 8) + static_cast<uint8_t>(hello[4]);
  ASSERT_LT(record, static_cast<size_t>(size));
  ASSERT_EQ(send(client->tls().descriptor(), hello.data(), record, MSG_NOSIGNAL), static_cast<ssize_t>(record));
  EXPECT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }));
}

TEST_F(SocketTlsTest, BrokenRecordsEndTheConnectionTheyAreOnAndNoOther) {
  ListenTls();
  const auto bystander = OpenTlsWebsocket();
  for (int i = 0; i < 20; ++i) {
    const auto client = OpenTlsWebsocket();
    const std::string record = std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, static_cast<char>(i));
    ASSERT_EQ(send(client->tls().descriptor(), record.data(), record.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(record.size()));
    ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == static_cast<size_t>(i) + 1; }));
    EXPECT_EQ(handler_.closed.back().code, 1006);
  }
  Send({handler_.opened[0]}, "unmoved");
  EXPECT_TRUE(RunUntil([&] { return bystander->texts().size() == 1; }, [&] { bystander->Move(); }));
}

}  // namespace
}  // namespace presence::edge
