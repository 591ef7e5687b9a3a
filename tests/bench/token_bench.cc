// What a handshake costs in cryptography: verifications per second with cached keys.
#include <benchmark/benchmark.h>

#include <string>

#include "edge/token_verifier.h"
#include "tests/fakes/token_forge.h"

namespace presence::edge {
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

}  // namespace
}  // namespace presence::edge

BENCHMARK_MAIN();
