#include "edge/http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "common/percent.h"

namespace presence::edge {
namespace {

using namespace std::string_literals;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Optional;
using ::testing::Pair;

HttpRequest MustParse(std::string_view input) {
  absl::StatusOr<std::optional<HttpParsed>> parsed = ParseHttpRequest(input);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  if (!parsed.ok() || !parsed->has_value()) {
    ADD_FAILURE() << "not a whole request";
    return {};
  }
  EXPECT_EQ((*parsed)->bytes, input.size());
  return (*parsed)->request;
}

// What the parser says to `input`: 0 for "more is needed", 200 for a request, else the status of the error.
int Verdict(std::string_view input) {
  absl::StatusOr<std::optional<HttpParsed>> parsed = ParseHttpRequest(input);
  if (!parsed.ok()) return HttpStatusOf(parsed.status());
  return parsed->has_value() ? 200 : 0;
}

std::string WithHeaders(const std::string& headers) {
  return "GET / HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n";
}

TEST(HttpRequestTest, AGetIsTakenApart) {
  const HttpRequest request = MustParse(
      "GET /presence/user%2D1?limit=10&cursor=a%20b HTTP/1.1\r\n"
      "Host: localhost:8006\r\n"
      "Accept:  text/html , application/json\t\r\n"
      "X-Empty:\r\n"
      "accept: */*\r\n"
      "\r\n");
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.target, "/presence/user%2D1?limit=10&cursor=a%20b");
  EXPECT_EQ(request.path, "/presence/user%2D1");
  EXPECT_EQ(request.query, "limit=10&cursor=a%20b");
  EXPECT_THAT(request.headers,
              ElementsAre(Pair("Host", "localhost:8006"), Pair("Accept", "text/html , application/json"),
                          Pair("X-Empty", ""), Pair("accept", "*/*")));
  EXPECT_THAT(request.Header("HOST"), Optional("localhost:8006"s));
  EXPECT_EQ(request.Header("Absent"), std::nullopt);
  EXPECT_THAT(request.HeaderList("accept"), ElementsAre("text/html", "application/json", "*/*"));
  EXPECT_THAT(request.HeaderList("x-empty"), IsEmpty());
  EXPECT_TRUE(request.keep_alive);
  EXPECT_FALSE(request.upgrade);
  EXPECT_EQ(request.head, "");
}

TEST(HttpRequestTest, EveryPrefixNeedsMoreAndWhatFollowsIsLeft) {
  const std::string request = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
  for (size_t size = 0; size < request.size(); ++size) EXPECT_EQ(Verdict(request.substr(0, size)), 0) << size;
  const std::string pipelined = request + "GET / HTTP/1.1\r\n";
  absl::StatusOr<std::optional<HttpParsed>> parsed = ParseHttpRequest(pipelined);
  ASSERT_TRUE(parsed.ok() && parsed->has_value());
  EXPECT_EQ((*parsed)->bytes, request.size());
  EXPECT_EQ((*parsed)->request.body, "hello");
}

TEST(HttpRequestTest, EmptyLinesBeforeARequestAreSkippedWithinTheLimitOfTheHead) {
  EXPECT_EQ(MustParse("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").path, "/");
  std::string lines;
  while (lines.size() <= kHttpHeadBytesMax + 2) lines += "\r\n";
  EXPECT_NE(Verdict(lines + "GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
}

TEST(HttpRequestTest, TargetsInTheFormsOfTheRfc) {
  EXPECT_EQ(MustParse("GET http://example.org/a?b HTTP/1.1\r\nHost: h\r\n\r\n").path, "/a");
  EXPECT_EQ(MustParse("GET http://example.org/a?b HTTP/1.1\r\nHost: h\r\n\r\n").query, "b");
  EXPECT_EQ(MustParse("GET http://example.org HTTP/1.1\r\nHost: h\r\n\r\n").path, "/");
  EXPECT_EQ(MustParse("GET http://example.org?q HTTP/1.1\r\nHost: h\r\n\r\n").query, "q");
  EXPECT_EQ(MustParse("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").path, "*");
  EXPECT_EQ(Verdict("GET relative HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("GET  HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
}

TEST(HttpRequestTest, KeepAliveFollowsVersionAndConnection) {
  EXPECT_TRUE(MustParse(WithHeaders("")).keep_alive);
  EXPECT_FALSE(MustParse(WithHeaders("Connection: foo, Close\r\n")).keep_alive);
  EXPECT_FALSE(MustParse("GET / HTTP/1.0\r\n\r\n").keep_alive);
  EXPECT_TRUE(MustParse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
}

TEST(HttpRequestTest, AnUpgradeIsAGetThatAsksForAWebSocketAndKeepsItsHead) {
  const std::string headers = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
  const HttpRequest request = MustParse(WithHeaders(headers));
  EXPECT_TRUE(request.upgrade);
  EXPECT_EQ(request.head, WithHeaders(headers));

  EXPECT_FALSE(MustParse(WithHeaders("Upgrade: websocket\r\n")).upgrade);
  EXPECT_FALSE(MustParse(WithHeaders("Connection: upgrade\r\nUpgrade: h2c\r\n")).upgrade);
  EXPECT_FALSE(MustParse(WithHeaders(headers + "Content-Length: 1\r\n") + "x").upgrade);
  EXPECT_FALSE(MustParse("POST / HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n").upgrade);
  EXPECT_FALSE(MustParse("GET / HTTP/1.0\r\nHost: h\r\n" + headers + "\r\n").upgrade);
}

TEST(HttpRequestTest, ErrorsCarryTheStatusToAnswer) {
  EXPECT_EQ(Verdict("GET /\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("G(T / HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("GET / HTTX/1.1\r\nHost: h\r\n\r\n"), 400);
  EXPECT_EQ(Verdict("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
  EXPECT_EQ(Verdict("PRI * HTTP/2.0\r\n\r\n"), 505);
  EXPECT_EQ(Verdict("GET / HTTP/1.1\r\n\r\n"), 400) << "no Host";
  EXPECT_EQ(Verdict(WithHeaders("Host: second\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Name : space before the colon\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders(" continuation\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("no colon\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("X: bell\a\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("X: bare\nY: line feed\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("X: bare\rcarriage return\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("X: \0\r\n"s)), 400);
}

TEST(HttpRequestTest, BodiesThatTwoReadersCouldUnderstandDifferentlyAreRefused) {
  EXPECT_EQ(Verdict(WithHeaders("Transfer-Encoding: chunked\r\n")), 501);
  EXPECT_EQ(Verdict(WithHeaders("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: 5\r\nContent-Length: 6\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: 5, 5\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: +5\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: -5\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: 0x5\r\n")), 400);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length:\r\n")), 400);
}

TEST(HttpRequestTest, LimitsAreExact) {
  const auto head_of = [](size_t size) {
    const std::string frame = WithHeaders("X: \r\n");
    return WithHeaders("X: " + std::string(size - frame.size(), 'x') + "\r\n");
  };
  EXPECT_EQ(Verdict(head_of(kHttpHeadBytesMax)), 200);
  EXPECT_EQ(Verdict(head_of(kHttpHeadBytesMax + 1)), 431);
  EXPECT_EQ(Verdict(head_of(kHttpHeadBytesMax + 1).substr(0, kHttpHeadBytesMax)), 0);
  EXPECT_EQ(Verdict("GET /" + std::string(kHttpHeadBytesMax, 'x')), 431);

  std::string many;
  for (int i = 0; i < 99; ++i) many += "a:\r\n";
  EXPECT_EQ(Verdict(WithHeaders(many)), 200);
  EXPECT_EQ(Verdict(WithHeaders(many + "a:\r\n")), 431);

  const std::string length = std::to_string(kHttpBodyBytesMax);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: " + length + "\r\n") + std::string(kHttpBodyBytesMax, 'b')), 200);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: " + std::to_string(kHttpBodyBytesMax + 1) + "\r\n")), 413);
  EXPECT_EQ(Verdict(WithHeaders("Content-Length: 99999999999999999999999999\r\n")), 413);
}

TEST(HttpRequestTest, WhatCannotBecomeARequestIsRefusedBeforeItsEnd) {
  EXPECT_EQ(Verdict("\x16\x03\x01\x02\x00\x01\x00"s), 400) << "a TLS hello on the plain port";
  EXPECT_EQ(Verdict("GET / HTTP/1.1\n"), 400);
  EXPECT_EQ(Verdict("\nGET"), 400);
}

TEST(HttpRequestTest, RandomInputNeverMakesARequestLongerThanItself) {
  const std::string valid =
      "POST /ws?token=x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: "
      "3\r\n\r\nabc";
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::string input = valid;
    for (uint32_t i = 0, changes = 1 + random() % 4; i < changes; ++i) {
      input[random() % input.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) input.resize(random() % input.size());
    absl::StatusOr<std::optional<HttpParsed>> parsed = ParseHttpRequest(input);
    if (!parsed.ok()) {
      EXPECT_NE(HttpStatusOf(parsed.status()), 500);
    } else if (parsed->has_value()) {
      EXPECT_GT((*parsed)->bytes, 0u);
      EXPECT_LE((*parsed)->bytes, input.size());
    }
  }
}

TEST(HttpRequestTest, QueryParametersAreDecoded) {
  HttpRequest request;
  request.query = "token=a%2Fb+c&&empty&limit=1&limit=2&bad=%4&na%6De=x&=y";
  EXPECT_THAT(request.QueryParameter("token"), Optional("a/b+c"s));
  EXPECT_THAT(request.QueryParameter("empty"), Optional(""s));
  EXPECT_THAT(request.QueryParameter("limit"), Optional("1"s));
  EXPECT_THAT(request.QueryParameter("name"), Optional("x"s));
  EXPECT_EQ(request.QueryParameter("bad"), std::nullopt);
  EXPECT_EQ(request.QueryParameter("absent"), std::nullopt);
}

const std::string kSecurityHeaders =
    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n";

TEST(HttpResponseTest, TheHeadSaysWhatFollows) {
  HttpResponse response;
  response.status = 401;
  response.body = "{}";
  response.headers = {{"WWW-Authenticate", "Bearer"}};
  EXPECT_EQ(SerializeHttpResponse(response, true, false),
            "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            "Connection: keep-alive\r\nWWW-Authenticate: Bearer\r\n" +
                kSecurityHeaders + "\r\n{}");
  const std::string head = SerializeHttpResponse(response, false, true);
  EXPECT_THAT(head, HasSubstr("Content-Length: 2\r\nConnection: close\r\n"));
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
}

TEST(HttpResponseTest, NoContentHasNeitherBodyNorLength) {
  HttpResponse response;
  response.status = 204;
  response.body = "ignored";
  EXPECT_EQ(SerializeHttpResponse(response, true, false),
            "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n" + kSecurityHeaders + "\r\n");
}

TEST(HttpResponseTest, AnAnswerMaySayOtherwiseAndHttpsIsDemandedWhereItIsSpoken) {
  HttpResponse response;
  response.headers = {{"content-security-policy", "default-src 'self'"}, {"Cache-Control", "max-age=60"}};
  const std::string text = SerializeHttpResponse(response, true, false, "max-age=300");
  EXPECT_THAT(text, HasSubstr("default-src 'self'"));
  EXPECT_THAT(text, HasSubstr("Cache-Control: max-age=60\r\n"));
  EXPECT_THAT(text, HasSubstr("X-Content-Type-Options: nosniff\r\n"));
  EXPECT_THAT(text, HasSubstr("Strict-Transport-Security: max-age=300\r\n"));
  EXPECT_THAT(text, Not(AnyOf(HasSubstr("'none'"), HasSubstr("no-store"), HasSubstr("Server:"))));
}

TEST(HttpResponseTest, AHeaderValueCannotBeginALine) {
  HttpResponse response;
  response.headers = {{"Location", "/a\r\nSet-Cookie: x=1"}};
  EXPECT_THAT(SerializeHttpResponse(response, true, false), Not(HasSubstr("\r\nSet-Cookie")));
}

TEST(HttpResponseTest, AJsonErrorEscapesItsText) {
  const HttpResponse response = JsonError(404, "no \"user\"");
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(response.content_type, "application/json");
  EXPECT_EQ(response.body, R"({"error":"no \"user\"","code":404})");
}

TEST(PercentTest, DecodesAndEncodes) {
  EXPECT_EQ(*PercentDecode("a%2Fb%c3%A4+%00"), "a/b\xc3\xa4+\0"s);
  EXPECT_EQ(*PercentDecode(""), "");
  for (const char* broken : {"%", "%4", "%zz", "abc%", "%2g"}) EXPECT_FALSE(PercentDecode(broken).ok()) << broken;
  EXPECT_EQ(PercentEncode("a b/\xc3\xa4~-._"), "a%20b%2F%C3%A4~-._");
  std::string all;
  for (int c = 0; c < 256; ++c) all.push_back(static_cast<char>(c));
  EXPECT_EQ(*PercentDecode(PercentEncode(all)), all);
}

TEST(HttpResponseTest, WhoOffersAnUpgradeNamesItInConnection) {
  HttpResponse response;
  response.status = 426;
  response.headers.emplace_back("Upgrade", "websocket");
  EXPECT_THAT(SerializeHttpResponse(response, true, false), HasSubstr("\r\nConnection: keep-alive, upgrade\r\n"));
  EXPECT_THAT(SerializeHttpResponse(response, false, false), HasSubstr("\r\nConnection: close, upgrade\r\n"));
}

}  // namespace
}  // namespace presence::edge
