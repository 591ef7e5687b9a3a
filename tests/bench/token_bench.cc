// What a handshake, or a call of the API, costs in cryptography: verifications per second with cached keys.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>

#include "common/token_verifier.h"
#include "core/access.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

void VerifyGoodToken(benchmark::State& state, const SigningKey& key) {
  const JwkSet keys = KeysOf({RsaKeyForTests(), EcKeyForTests()});
  const TokenVerifier verifier({.issuers = {"http://keycloak:8080/realms/colink"}, .client_ids = {"colink-api"}});
  const std::string token = GoodToken(key);
  for (auto _ : state) {
    const TokenVerdict verdict = verifier.Verify(token, keys, ForgedNow());
    if (!std::holds_alternative<Identity>(verdict)) state.SkipWithError("refused");
  }
  state.SetItemsProcessed(state.iterations());
}

void BM_VerifyRs256(benchmark::State& state) {
  VerifyGoodToken(state, RsaKeyForTests());
}
BENCHMARK(BM_VerifyRs256)->ThreadRange(1, 2)->UseRealTime();

void BM_VerifyEs256(benchmark::State& state) {
  VerifyGoodToken(state, EcKeyForTests());
}
BENCHMARK(BM_VerifyEs256);

// What an attacker makes us spend: refused before and after the signature check.
void BM_RefuseGarbage(benchmark::State& state) {
  const JwkSet keys = KeysOf({RsaKeyForTests()});
  const TokenVerifier verifier{VerifierOptions{}};
  const std::string token(TokenVerifier::kTokenBytesMax, 'a');
  for (auto _ : state) benchmark::DoNotOptimize(verifier.Verify(token, keys, ForgedNow()));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_RefuseGarbage);

void BM_RefuseWrongSignature(benchmark::State& state) {
  const JwkSet keys = KeysOf({RsaKeyForTests()});
  const TokenVerifier verifier{VerifierOptions{}};
  std::string token = GoodToken(RsaKeyForTests());
  token[token.size() - 10] = token[token.size() - 10] == 'A' ? 'B' : 'A';
  for (auto _ : state) benchmark::DoNotOptimize(verifier.Verify(token, keys, ForgedNow()));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_RefuseWrongSignature);

// A call of the API: a token of a typical size (1.9 KB) that was seen before; threads share one cache.
void BM_AccessOfAKnownToken(benchmark::State& state) {
  static const auto keys = std::make_shared<const JwkSet>(KeysOf({RsaKeyForTests()}));
  static const auto access =
      core::Access::ByToken({}, {.keys = [] { return keys; }, .refresh_keys = [] { return false; }, .now = ForgedNow});
  nlohmann::json claims = GoodClaims();
  claims["realm_access"] = {{"roles", {"presence-read"}}};
  claims["sid"] = std::to_string(state.thread_index());
  claims["padding"] = std::string(1000, 'x');
  const std::string authorization = "Bearer " + *SignToken(claims, RsaKeyForTests());
  for (auto _ : state) {
    if (!access->CheckToken(authorization, core::Role::kRead).ok()) state.SkipWithError("refused");
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_AccessOfAKnownToken)->ThreadRange(1, 2)->UseRealTime();

}  // namespace
}  // namespace presence

BENCHMARK_MAIN();
