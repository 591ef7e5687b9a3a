// The settings of a program: declared once with type, bounds and help, then read from flags, environment and
// defaults.
//
// A setting REDIS_URL is the environment variable REDIS_URL and the flag --redis_url (`--redis_url=X` and
// `--redis_url X`; dashes do for underscores). Flag beats environment beats default; the default is what the
// field holds when it is declared. A variable that is set but empty counts as unset. Of a flag that is given
// twice, the last one counts.
//
//   Config c;
//   ConfigReader reader("presence-core", "Rooms, presence and the public API.");
//   reader.Section("Redis");
//   reader.Url("REDIS_URL", &c.redis_url, "where the state lives");
//   reader.Seconds("WS_PRESENCE_TTL", &c.presence_ttl, {1s, 24h}, "how long an entry outlives its last
//   heartbeat"); reader.Check([&] { return c.presence_ttl >= 3 * c.heartbeat; }, "WS_PRESENCE_TTL is below 3
//   x ...: raise it"); if (const auto outcome = reader.Read(argc, argv); outcome !=
//   ConfigReader::Outcome::kRun) return reader.Explain(outcome);
//
// Every mistake is found before anything starts, and all are reported together. For one thread, at start.
// Fields must outlive Read. Names are declared once each (checked). It prints nothing by itself but in
// Explain, and no secret ever.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/time.h"

namespace presence {

// Where to listen: "127.0.0.1:50051", "[::1]:50051", ":50051" (every interface). Port 0: any free one.
struct ListenAddress {
  std::string host;
  uint16_t port = 0;

  std::string ToString() const;
  friend bool operator==(const ListenAddress&, const ListenAddress&) = default;
};

class ConfigReader {
 public:
  enum class Outcome { kRun, kHelp, kInvalid };
  // The value of an environment variable; nothing: unset.
  using Lookup = std::function<std::optional<std::string>(const std::string& name)>;

  // Inclusive.
  struct DurationBounds {
    Duration min = Duration::zero();
    Duration max = std::chrono::hours(24 * 365);
  };
  struct ByteBounds {
    uint64_t min = 0;
    uint64_t max = uint64_t{1} << 40;
  };

  ConfigReader(std::string program, std::string summary, Lookup environment = ProcessEnvironment);

  // Groups what follows in the help.
  void Section(std::string title);

  void Text(std::string name, std::string* field, std::string help);
  // Never printed: neither value nor default, in help, mistakes or Changed().
  void Secret(std::string name, std::string* field, std::string help);
  // Text of the form scheme://..., or a bare "scheme:"; a password in it is not printed.
  void Url(std::string name, std::string* field, std::string help);
  // Comma-separated; spaces around an item and empty items are dropped. "" cannot be said by an environment
  // variable, but by
  // `--name=`: the empty list.
  void List(std::string name, std::vector<std::string>* field, std::string help);
  // true/false, yes/no, on/off, 1/0. A bare `--name` means true.
  void Bool(std::string name, bool* field, std::string help);
  // Port 0 means any free one.
  void Port(std::string name, uint16_t* field, std::string help);
  void Listen(std::string name, ListenAddress* field, std::string help);
  // The same, or "off": nothing listens.
  void ListenOrOff(std::string name, std::optional<ListenAddress>* field, std::string help);
  // A decimal number of seconds, fractions allowed ("0.5").
  void Seconds(std::string name, Duration* field, DurationBounds bounds, std::string help);
  // The same in milliseconds.
  void Milliseconds(std::string name, Duration* field, DurationBounds bounds, std::string help);
  // A number of bytes, or with a unit: 64KiB, 1MiB, 2GiB (K, M, G, KB, MB, GB mean the same powers of 1,024).
  void Bytes(std::string name, uint64_t* field, ByteBounds bounds, std::string help);

  // The bounds are inclusive.
  template <typename Int>
  void Integer(std::string name, Int* field, std::type_identity_t<Int> min, std::type_identity_t<Int> max,
               std::string help) {
    static_assert(std::is_integral_v<Int> && !std::is_same_v<Int, bool>);
    static_assert(sizeof(Int) < 8 || std::is_signed_v<Int>, "values up to 2^63 - 1: declare the field int64_t");
    AddInteger(
        std::move(name), *field, min, max, [field](int64_t value) { *field = static_cast<Int>(value); },
        std::move(help));
  }

  // One of several names, compared without regard to case.
  template <typename Enum>
  void Choice(std::string name, Enum* field,
              std::initializer_list<std::pair<std::string_view, std::type_identity_t<Enum>>> choices,
              std::string help) {
    std::vector<std::string> names;
    std::vector<Enum> values;
    size_t current = 0;
    for (const auto& [choice, value] : choices) {
      if (value == *field && (values.empty() || values[current] != *field)) current = names.size();
      names.emplace_back(choice);
      values.push_back(value);
    }
    AddChoice(
        std::move(name), std::move(names), current, [field, values](size_t index) { *field = values[index]; },
        std::move(help));
  }

  // A rule over several settings, judged by Read after all are read (a field with a mistake has its default
  // then). `message`: what is wrong and what to do.
  void Check(std::function<bool()> holds, std::string message);
  // The same for what explains itself, such as a file that a setting names: the status' message names the setting.
  void CheckStatus(std::function<absl::Status()> judge);

  // Fills the fields. kHelp: --help or -h was given, mistakes are not looked at; otherwise kInvalid: there
  // are mistakes, each of them in Mistakes(), and no field with a mistake was changed.
  Outcome Read(int argc, const char* const* argv);

  const std::vector<std::string>& Mistakes() const { return mistakes_; }
  std::string HelpText() const;
  // All mistakes, one a line, for a person who wants to start the program.
  std::string MistakesText() const;
  // "NAME=value" of each setting that was given, for the first lines of the log.
  std::vector<std::string> Changed() const;
  // Prints help (stdout) or mistakes (stderr); returns the exit code: 0 for kRun and kHelp, 2 for kInvalid.
  int Explain(Outcome outcome) const;

  static std::optional<std::string> ProcessEnvironment(const std::string& name);

 private:
  struct Setting {
    std::string name;
    std::string flag;  // lower case
    std::string type;  // as the help shows it: "seconds, 1 to 3600"
    std::string default_text;
    std::string help;
    size_t section = 0;
    bool is_switch = false;  // a bare flag is enough
    bool is_secret = false;
    // Takes the text into the field; returns what is expected when it cannot ("a number from 1 to 10").
    std::function<std::optional<std::string>(const std::string& text)> take;
    std::function<std::string(const std::string& text)> show;  // how a value may be printed
    std::optional<std::string> given;                          // by flag or environment
    bool by_flag = false;
  };

  Setting& Add(std::string name, std::string type, std::string default_text, std::string help);
  void AddInteger(std::string name, int64_t current, int64_t min, int64_t max, std::function<void(int64_t)> set,
                  std::string help);
  void AddChoice(std::string name, std::vector<std::string> names, size_t current, std::function<void(size_t)> set,
                 std::string help);
  void AddDuration(std::string name, Duration* field, DurationBounds bounds, Duration unit, std::string_view unit_name,
                   std::string help);
  Setting* Find(std::string_view flag);
  std::string Closest(std::string_view flag) const;  // "" when nothing is near
  void ReadFlags(int argc, const char* const* argv);

  std::string program_;
  std::string summary_;
  Lookup environment_;
  std::vector<std::string> sections_;
  std::vector<Setting> settings_;
  std::vector<std::function<absl::Status()>> rules_;
  std::vector<std::string> mistakes_;
  bool help_wanted_ = false;
};

}  // namespace presence
