// What a handshake, or a call of the API, costs in cryptography: verifications per second of each algorithm, where their time goes,
// and what the memory of verified tokens saves.
#include <benchmark/benchmark.h>

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base64url.h"
#include "common/jws.h"
#include "common/jwt.h"
#include "common/strict_json.h"
#include "common/token_cache.h"
#include "common/token_verifier.h"
#include "core/access.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

constexpr size_t kStormTokens = 10'000;

VerifierOptions Options() {
  return {.issuers = {"http://keycloak:8080/realms/colink"}, .client_ids = {"colink-api"}};
}

// As Keycloak 26 writes them: with what a realm grants everybody, some 1,500 bytes as a token.
nlohmann::json ClaimsOf(size_t number) {
  nlohmann::json claims = GoodClaims();
  claims["jti"] = "onrtro:8a0b2d5c-7a8e-4c1e-9f7e-" + std::to_string(100'000'000'000 + number);
  claims["sub"] = "f3c1a2b4-5d6e-4f70-8192-" + std::to_string(100'000'000'000 + number);
  claims["sid"] = "0b1c2d3e-4f50-4617-8293-" + std::to_string(100'000'000'000 + number);
  claims["acr"] = "1";
  claims["allowed-origins"] = {"http://localhost:3000", "http://localhost:5173"};
  claims["realm_access"] = {{"roles", {"default-roles-colink", "offline_access", "uma_authorization"}}};
  claims["resource_access"] = {{"account", {{"roles", {"manage-account", "manage-account-links", "view-profile"}}}}};
  claims["scope"] = "profile email";
  claims["email_verified"] = true;
  claims["name"] = "Alice Example";
  claims["given_name"] = "Alice";
  claims["family_name"] = "Example";
  claims["email"] = "alice@example.com";
  return claims;
}

const SigningKey& KeyOf(SignatureAlgorithm algorithm) {
  return KeysOfAllAlgorithmsForTests()[static_cast<size_t>(algorithm)];
}

const JwkSet& AllKeys() {
  static const JwkSet set = KeysOf(KeysOfAllAlgorithmsForTests());
  return set;
}

const std::string& TypicalToken() {
  static const std::string token = TokenOf(ClaimsOf(0), KeyOf(SignatureAlgorithm::kRs256));
  return token;
}

struct Parts {
  std::string_view header, payload, signature, signed_part;
};

Parts PartsOf(std::string_view token) {
  const size_t first = token.find('.'), second = token.rfind('.');
  return {token.substr(0, first), token.substr(first + 1, second - first - 1), token.substr(second + 1),
          token.substr(0, second)};
}

// As the edge's gate does it.
TokenVerdict VerifyRemembering(const TokenVerifier& verifier, TokenCache<Identity>& good, std::string_view token) {
  const TokenDigest digest = DigestOf(token);
  if (auto known = good.Find(digest, AllKeys().id(), ForgedNow())) return *std::move(known);
  TokenVerdict verdict = verifier.Verify(token, AllKeys(), ForgedNow());
  if (const auto* identity = std::get_if<Identity>(&verdict)) {
    good.Keep(digest, AllKeys().id(), *identity, verifier.ValidityOf(*identity));
  }
  return verdict;
}

// ---- Whole verifications

void BM_Verify(benchmark::State& state) {
  const auto algorithm = static_cast<SignatureAlgorithm>(state.range(0));
  const TokenVerifier verifier(Options());
  const std::string token = TokenOf(ClaimsOf(0), KeyOf(algorithm));
  for (auto _ : state) {
    const TokenVerdict verdict = verifier.Verify(token, AllKeys(), ForgedNow());
    if (!std::holds_alternative<Identity>(verdict)) state.SkipWithError("refused");
  }
  state.SetItemsProcessed(state.iterations());
  state.SetLabel(std::string(AlgorithmName(algorithm)) + ", " + std::to_string(token.size()) + " bytes");
}
BENCHMARK(BM_Verify)->DenseRange(0, static_cast<int>(kSignatureAlgorithms.size()) - 1);

void BM_VerifyOnThreads(benchmark::State& state) {
  const TokenVerifier verifier(Options());
  for (auto _ : state) benchmark::DoNotOptimize(verifier.Verify(TypicalToken(), AllKeys(), ForgedNow()));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_VerifyOnThreads)->ThreadRange(1, 2)->UseRealTime();

void BM_VerifyRemembered(benchmark::State& state) {
  const TokenVerifier verifier(Options());
  TokenCache<Identity> good(64);
  for (auto _ : state) {
    if (!std::holds_alternative<Identity>(VerifyRemembering(verifier, good, TypicalToken()))) {
      state.SkipWithError("refused");
    }
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_VerifyRemembered);

// Everybody comes back with the token of before: all are shown once, and then all again.
void BM_ReconnectStorm(benchmark::State& state) {
  const TokenVerifier verifier(Options());
  static const std::vector<std::string> tokens = [] {
    std::vector<std::string> made;
    for (size_t i = 0; i < kStormTokens; ++i) made.push_back(TokenOf(ClaimsOf(i), KeyOf(SignatureAlgorithm::kRs256)));
    return made;
  }();
  double first = 0, second = 0;
  for (auto _ : state) {
    TokenCache<Identity> good(2 * kStormTokens);
    for (auto* round : {&first, &second}) {
      const std::clock_t started = std::clock();  // CPU: what else runs does not count
      for (const std::string& token : tokens) {
        if (!std::holds_alternative<Identity>(VerifyRemembering(verifier, good, token))) state.SkipWithError("refused");
      }
      *round += static_cast<double>(std::clock() - started) / CLOCKS_PER_SEC;
    }
    if (good.size() != tokens.size()) state.SkipWithError("one was forgotten");
  }
  const double shown = static_cast<double>(state.iterations()) * static_cast<double>(kStormTokens);
  state.counters["first_us"] = first / shown * 1e6;
  state.counters["again_us"] = second / shown * 1e6;
  state.counters["ratio"] = first / second;
}
BENCHMARK(BM_ReconnectStorm)->Unit(benchmark::kMillisecond);

// ---- Where the time goes: an RS256 token of Keycloak's size

void BM_PartBase64(benchmark::State& state) {
  const Parts parts = PartsOf(TypicalToken());
  for (auto _ : state) {
    for (const std::string_view part : {parts.header, parts.payload, parts.signature}) {
      benchmark::DoNotOptimize(Base64UrlDecode(part));
    }
  }
}
BENCHMARK(BM_PartBase64);

void BM_PartHeaderJson(benchmark::State& state) {
  const std::string header = Base64UrlDecode(PartsOf(TypicalToken()).header).value();
  for (auto _ : state) benchmark::DoNotOptimize(ParseJsonObject(header, 8));
}
BENCHMARK(BM_PartHeaderJson);

// With their base64, checked and then read.
void BM_PartClaimsJson(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(DecodeClaims(PartsOf(TypicalToken()).payload));
}
BENCHMARK(BM_PartClaimsJson);

void BM_PartSignature(benchmark::State& state) {
  const auto algorithm = static_cast<SignatureAlgorithm>(state.range(0));
  const std::string token = TokenOf(ClaimsOf(0), KeyOf(algorithm));
  const Parts parts = PartsOf(token);
  const std::string signature = Base64UrlDecode(parts.signature).value();
  const VerificationKey& key = AllKeys().Find(AlgorithmName(algorithm))[0];
  for (auto _ : state) {
    if (!SignatureGood(key, parts.signed_part, signature)) state.SkipWithError("wrong");
  }
  state.SetLabel(std::string(AlgorithmName(algorithm)));
}
BENCHMARK(BM_PartSignature)->DenseRange(0, static_cast<int>(kSignatureAlgorithms.size()) - 1);

void BM_PartDigestOfToken(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(DigestOf(TypicalToken()));
}
BENCHMARK(BM_PartDigestOfToken);

// ---- What an attacker makes us spend: refused before and after the signature check

void BM_RefuseGarbage(benchmark::State& state) {
  const TokenVerifier verifier{VerifierOptions{}};
  const std::string token(TokenVerifier::kTokenBytesMax, 'a');
  for (auto _ : state) benchmark::DoNotOptimize(verifier.Verify(token, AllKeys(), ForgedNow()));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_RefuseGarbage);

void BM_RefuseWrongSignature(benchmark::State& state) {
  const TokenVerifier verifier{VerifierOptions{}};
  std::string token = TypicalToken();
  token[token.size() - 10] = token[token.size() - 10] == 'A' ? 'B' : 'A';
  for (auto _ : state) benchmark::DoNotOptimize(verifier.Verify(token, AllKeys(), ForgedNow()));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_RefuseWrongSignature);

// ---- A call of the API, with a token that was seen before; threads share one memory

void BM_AccessOfAKnownToken(benchmark::State& state) {
  static const auto keys = std::make_shared<const JwkSet>(KeysOf({RsaKeyForTests()}));
  static const auto access = core::Access::ByToken(
      {}, {.keys = [] { return keys; }, .refresh_keys = [](std::string_view) { return false; }, .now = ForgedNow});
  nlohmann::json claims = ClaimsOf(static_cast<size_t>(state.thread_index()));
  claims["realm_access"] = {{"roles", {"presence-read"}}};
  const std::string authorization = "Bearer " + TokenOf(claims, RsaKeyForTests());
  for (auto _ : state) {
    if (!access->CheckToken(authorization, core::Role::kRead).ok()) state.SkipWithError("refused");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_AccessOfAKnownToken)->ThreadRange(1, 2)->UseRealTime();

}  // namespace
}  // namespace presence

BENCHMARK_MAIN();
