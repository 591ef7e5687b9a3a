#include "edge/cli/dev_keys.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/base64url.h"
#include "common/jwt.h"
#include "common/log.h"

namespace presence::edge::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kDevKeysFolder = "build/dev-keys";

// The key's thumbprint (RFC 7638): a name that follows from the key, so that nobody has to keep it beside the file.
absl::StatusOr<std::string> KeyId(const SigningKey& key) {
  const auto jwk = PublicJwk(key);
  if (!jwk.ok()) return jwk.status();
  const json members = json::parse(*jwk, nullptr, false);
  const std::string canonical =
      json{{"e", members.value("e", "")}, {"kty", "RSA"}, {"n", members.value("n", "")}}.dump();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(canonical.data(), canonical.size(), digest, &size, EVP_sha256(), nullptr) != 1) {
    return absl::InternalError("OpenSSL cannot digest the key");
  }
  return Base64UrlEncode(std::string_view(reinterpret_cast<const char*>(digest), size));
}

absl::Status WriteNewFile(const std::string& path, const std::string& text, mode_t mode) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0 && errno == EEXIST) {
    return absl::AlreadyExistsError(path + " is there already: take it away first if you want a new key");
  }
  const bool written = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!written) return absl::UnavailableError("cannot write " + path + ": " + std::strerror(error));
  return absl::OkStatus();
}

absl::StatusOr<SigningKey> ReadKey(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError("cannot read the key " + Escaped(path) + ": " + std::strerror(errno));
  std::stringstream text;
  text << file.rdbuf();
  SigningKey key;
  key.private_pem = text.str();
  auto kid = KeyId(key);
  if (!kid.ok()) {
    return absl::InvalidArgumentError(Escaped(path) +
                                      " holds no RSA private key in PEM: make one with `presence-cli keys`");
  }
  key.kid = *std::move(kid);
  return key;
}

}  // namespace

absl::StatusOr<KeyFiles> CreateKeys(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return absl::UnavailableError("cannot make the folder " + Escaped(directory) + ": " + error.message());
  KeyFiles files{(fs::path(directory) / kPrivateKeyFile).string(), (fs::path(directory) / kJwksFile).string()};

  auto key = GenerateSigningKey(SignatureAlgorithm::kRs256, "");
  if (!key.ok()) return key.status();
  auto kid = KeyId(*key);
  if (!kid.ok()) return kid.status();
  key->kid = *std::move(kid);
  const auto jwks = PublicJwkSet(absl::MakeConstSpan(&*key, 1));
  if (!jwks.ok()) return jwks.status();

  if (const auto written = WriteNewFile(files.private_key, key->private_pem, 0600); !written.ok()) return written;
  fs::remove(files.jwks, error);  // of a private key that is gone
  if (const auto written = WriteNewFile(files.jwks, *jwks + "\n", 0644); !written.ok()) return written;
  return files;
}

absl::StatusOr<std::string> FindKey(const Options& options, const std::string& program_path) {
  if (!options.key_path.empty()) return options.key_path;
  std::error_code error;
  std::vector<fs::path> starts = {fs::current_path(error)};
  if (!program_path.empty()) starts.push_back(fs::path(program_path).parent_path());
  for (fs::path folder : starts) {
    while (true) {
      const fs::path candidate = folder / kDevKeysFolder / kPrivateKeyFile;
      if (fs::exists(candidate, error)) return candidate.string();
      if (folder == folder.parent_path()) break;
      folder = folder.parent_path();
    }
  }
  return absl::NotFoundError(
      "there is no token: give --token, or set PRESENCE_TOKEN, or make a development key with\n"
      "  presence-cli keys --out build/dev-keys\n"
      "and start the edge with --jwks_file=build/dev-keys/jwks.json; then tokens are signed here");
}

absl::StatusOr<std::string> SignDevelopmentToken(const Options& options, const std::string& key_path, WallTime now) {
  const auto key = ReadKey(key_path);
  if (!key.ok()) return key.status();
  const int64_t issued = ToUnixMillis(now) / 1000;
  json claims = {
      {"iss", options.issuer},
      {"sub", options.user},
      {"typ", "Bearer"},
      {"azp", options.client_id},
      {"preferred_username", options.name.empty() ? options.user : options.name},
      {"iat", std::min(issued, issued + options.expires.count())},
      {"exp", issued + options.expires.count()},
  };
  if (!options.audience.empty()) claims["aud"] = options.audience;
  return SignToken(claims, *key);
}

}  // namespace presence::edge::cli
