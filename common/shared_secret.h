// A secret that both ends of a gRPC connection know: where it is set, how it travels, how it is compared.
//
// Pure functions but for reading the file; thread-safe. Nothing here logs or repeats a secret.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace presence {

// Call metadata. "-bin": gRPC encodes it, so a secret may have any bytes.
inline constexpr char kSecretMetadataKey[] = "presence-secret-bin";

inline constexpr size_t kSecretBytesMin = 16;    // 128 bits, if they are random: out of reach of guessing
inline constexpr size_t kSecretBytesMax = 1024;  // far below the 8 KiB of metadata that gRPC accepts

// The secret of `value` or of the file `path`, without the line end that editors leave there; empty when neither is
// given. INVALID_ARGUMENT, naming the setting (`name`, or `name`_FILE): both are given, the file cannot be read, or
// the secret is too short or too long.
absl::StatusOr<std::string> LoadSecret(std::string_view name, const std::string& value, const std::string& path);

// In a time that depends on neither's contents.
bool SameSecret(std::string_view a, std::string_view b);

}  // namespace presence
