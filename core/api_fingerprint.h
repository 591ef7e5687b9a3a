// What two calls with one request_id are compared by. Pure functions; any thread.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string>
#include <string_view>
#include <vector>

namespace presence::core {

struct FingerprintParts {
  std::string_view method;
  std::string_view addressee;  // room or user
  std::string_view payload_field;
  std::string_view payload;                      // of a Struct: CanonicalBytes
  std::vector<std::string> excluded_user_ids{};  // in any order, with repetitions: a set
};

// SHA-256 over all parts, each behind its length: 32 bytes.
std::string Fingerprint(FingerprintParts parts);

// Equal for equal structures, unlike their JSON text, whose members come in any order.
std::string CanonicalBytes(const google::protobuf::Struct& data);

}  // namespace presence::core
