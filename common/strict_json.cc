#include "common/strict_json.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"

namespace presence {
namespace {

// Listens to the parser and stops it at the first offence; builds nothing but the names of the objects that are open.
class StrictListener : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit StrictListener(int depth_max) : depth_max_(static_cast<size_t>(depth_max)) {}

  const char* offence() const { return offence_; }

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool string(string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }

  bool start_object(std::size_t) override { return Open(); }
  bool key(string_t& name) override {
    return names_.back().insert(name).second || Offend("a member name occurs twice");
  }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override {
    if (names_.empty()) return Offend("not a JSON object");
    return Open();
  }
  bool end_array() override { return Close(); }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return Offend("not JSON");
  }

 private:
  bool Offend(const char* what) {
    offence_ = what;
    return false;
  }
  bool Value() { return !names_.empty() || Offend("not a JSON object"); }
  bool Open() {
    if (names_.size() == depth_max_) return Offend("nested too deep");
    names_.emplace_back();
    return true;
  }
  bool Close() {
    names_.pop_back();
    return true;
  }

  const size_t depth_max_;
  std::vector<absl::flat_hash_set<std::string>> names_;  // one per open object or array
  const char* offence_ = "not JSON";
};

}  // namespace

absl::Status CheckJsonObject(std::string_view text, int depth_max) {
  // The parser takes a NUL for the end of its input, so anything could follow one; and it skips a byte order mark.
  if (text.find('\0') != std::string_view::npos || text.substr(0, 3) == "\xEF\xBB\xBF") {
    return absl::InvalidArgumentError("not JSON");
  }
  StrictListener listener(depth_max);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &listener)) {
    return absl::InvalidArgumentError(listener.offence());
  }
  return absl::OkStatus();
}

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, int depth_max) {
  absl::Status checked = CheckJsonObject(text, depth_max);
  if (!checked.ok()) return checked;
  nlohmann::json tree = nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!tree.is_object()) return absl::InvalidArgumentError("not JSON");
  return tree;
}

}  // namespace presence
