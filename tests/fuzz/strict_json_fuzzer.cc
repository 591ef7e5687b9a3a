// The strict reader of JSON: it takes nothing that another reader refuses, and what it takes means the same after being written.
#include <nlohmann/json.hpp>
#include <string>

#include "common/json.h"
#include "common/strict_json.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using presence::CheckJsonObject;
  constexpr int kDepthMax = 16;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const bool good = CheckJsonObject(text, kDepthMax).ok();
  const auto tree = presence::ParseJsonObject(text, kDepthMax);
  PRESENCE_CHECK(tree.ok() == good, "checking and parsing agree");
  if (good) {
    PRESENCE_CHECK(nlohmann::json::accept(text) && tree->is_object(), "what is good is a JSON object");
    const std::string written = tree->dump();
    const auto again = presence::ParseJsonObject(written, kDepthMax);
    PRESENCE_CHECK(again.ok() && *again == *tree, "what is written reads the same");
  }
  // Any bytes become a JSON string.
  const nlohmann::json string = nlohmann::json::parse(presence::JsonString(text), nullptr, false);
  PRESENCE_CHECK(string.is_string(), "what is written as a string is one");
  return 0;
}
