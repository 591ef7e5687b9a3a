#include "common/config.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "common/check.h"
#include "common/config_values.h"
#include "common/log.h"

namespace presence {

using namespace config_values;

namespace {

constexpr size_t kHelpColumns = 100;

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// Breaks `text` at blanks into lines of at most `columns`, the later ones indented.
std::string Wrapped(std::string_view text, size_t columns, size_t indent) {
  std::string out;
  size_t used = 0;
  while (!text.empty()) {
    const size_t blank = std::min(text.find(' '), text.size());
    if (used != 0 && used + 1 + blank > columns) {
      out += "\n" + std::string(indent, ' ');
      used = 0;
    } else if (used != 0) {
      out += ' ';
      ++used;
    }
    out += text.substr(0, blank);
    used += blank;
    text.remove_prefix(std::min(blank + 1, text.size()));
  }
  return out;
}

}  // namespace

ConfigReader::ConfigReader(std::string program, std::string summary, Lookup environment)
    : program_(std::move(program)), summary_(std::move(summary)), environment_(std::move(environment)) {}

std::optional<std::string> ConfigReader::ProcessEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

void ConfigReader::Section(std::string title) {
  sections_.push_back(std::move(title));
}

ConfigReader::Setting& ConfigReader::Add(std::string name, std::string type, std::string default_text,
                                         std::string help) {
  Setting setting;
  setting.flag = LowerCase(name);
  PRESENCE_CHECK(Find(setting.flag) == nullptr, "a setting is declared once");
  setting.name = std::move(name);
  setting.type = std::move(type);
  setting.default_text = std::move(default_text);
  setting.help = std::move(help);
  if (sections_.empty()) sections_.emplace_back("Settings");
  setting.section = sections_.size() - 1;
  setting.show = [](const std::string& text) { return Escaped(text); };
  settings_.push_back(std::move(setting));
  return settings_.back();
}

void ConfigReader::Text(std::string name, std::string* field, std::string help) {
  Add(std::move(name), "text", *field, std::move(help)).take = [field](const std::string& text) {
    *field = text;
    return std::optional<std::string>();
  };
}

void ConfigReader::Secret(std::string name, std::string* field, std::string help) {
  Setting& setting = Add(std::move(name), "secret text", field->empty() ? "" : "[hidden]", std::move(help));
  setting.is_secret = true;
  setting.show = [](const std::string&) { return std::string("[hidden]"); };
  setting.take = [field](const std::string& text) {
    *field = text;
    return std::optional<std::string>();
  };
}

void ConfigReader::Url(std::string name, std::string* field, std::string help) {
  Setting& setting = Add(std::move(name), "URL", WithoutPassword(*field), std::move(help));
  setting.show = [](const std::string& text) { return Escaped(WithoutPassword(text)); };
  setting.take = [field](const std::string& text) -> std::optional<std::string> {
    const size_t scheme = text.find("://");
    const bool is_bare = text.size() > 1 && text.find(':') == text.size() - 1;
    if (!is_bare && (scheme == 0 || scheme == std::string::npos || scheme + 3 == text.size())) {
      return "a URL such as scheme://host:port/path";
    }
    *field = text;
    return std::nullopt;
  };
}

void ConfigReader::List(std::string name, std::vector<std::string>* field, std::string help) {
  Add(std::move(name), "list, comma-separated", Joined(*field, ","), std::move(help)).take =
      [field](const std::string& text) {
        *field = ParseList(text);
        return std::optional<std::string>();
      };
}

void ConfigReader::Bool(std::string name, bool* field, std::string help) {
  Setting& setting = Add(std::move(name), "true or false", *field ? "true" : "false", std::move(help));
  setting.is_switch = true;
  setting.take = [field](const std::string& text) -> std::optional<std::string> {
    const auto value = ParseBool(text);
    if (!value) return "true or false (yes/no, on/off and 1/0 do, too)";
    *field = *value;
    return std::nullopt;
  };
}

void ConfigReader::Port(std::string name, uint16_t* field, std::string help) {
  Integer<uint16_t>(std::move(name), field, 0, 65535, std::move(help));
  settings_.back().type = "port, 0 to 65535 (0: any free one)";
}

void ConfigReader::Listen(std::string name, ListenAddress* field, std::string help) {
  Add(std::move(name), "host:port", field->ToString(), std::move(help)).take =
      [field](const std::string& text) -> std::optional<std::string> {
    auto address = ParseListen(text);
    if (!address) return "host:port, such as 127.0.0.1:8006, [::1]:8006 or :8006 for every interface";
    *field = std::move(*address);
    return std::nullopt;
  };
}

void ConfigReader::ListenOrOff(std::string name, std::optional<ListenAddress>* field, std::string help) {
  Add(std::move(name), "host:port or off", *field ? (*field)->ToString() : "off", std::move(help)).take =
      [field](const std::string& text) -> std::optional<std::string> {
    auto address = ParseListen(text);
    const bool off = LowerCase(text) == "off";
    if (!address && !off) return "off, or host:port, such as 127.0.0.1:9464, [::1]:9464 or :9464";
    *field = std::move(address);
    return std::nullopt;
  };
}

void ConfigReader::AddDuration(std::string name, Duration* field, DurationBounds bounds, Duration unit,
                               std::string_view unit_name, std::string help) {
  const std::string range = FormatDuration(bounds.min, unit) + " to " + FormatDuration(bounds.max, unit);
  const std::string type = std::string(unit_name) + ", " + range;
  const std::string expected = "a number of " + std::string(unit_name) + " from " + range;
  Add(std::move(name), type, FormatDuration(*field, unit), std::move(help)).take =
      [field, bounds, unit, expected](const std::string& text) -> std::optional<std::string> {
    const auto number = ParseNumber<double>(text);
    // Judged as a number first: what does not fit into nanoseconds must not be converted.
    if (!number || !std::isfinite(*number)) return expected;
    const double nanoseconds = *number * static_cast<double>(unit.count());
    if (nanoseconds < static_cast<double>(bounds.min.count()) ||
        nanoseconds > static_cast<double>(bounds.max.count())) {
      return expected;
    }
    *field = std::clamp(Duration(std::llround(nanoseconds)), bounds.min, bounds.max);
    return std::nullopt;
  };
}

void ConfigReader::Seconds(std::string name, Duration* field, DurationBounds bounds, std::string help) {
  AddDuration(std::move(name), field, bounds, std::chrono::seconds(1), "seconds", std::move(help));
}

void ConfigReader::Milliseconds(std::string name, Duration* field, DurationBounds bounds, std::string help) {
  AddDuration(std::move(name), field, bounds, std::chrono::milliseconds(1), "milliseconds", std::move(help));
}

void ConfigReader::Bytes(std::string name, uint64_t* field, ByteBounds bounds, std::string help) {
  const std::string range = FormatBytes(bounds.min) + " to " + FormatBytes(bounds.max);
  Add(std::move(name), "bytes, " + range, FormatBytes(*field), std::move(help)).take =
      [field, bounds, range](const std::string& text) -> std::optional<std::string> {
    const auto bytes = ParseBytes(text);
    if (!bytes || *bytes < bounds.min || *bytes > bounds.max) {
      return "a number of bytes from " + range + ", such as 65536, 64KiB or 1MiB";
    }
    *field = *bytes;
    return std::nullopt;
  };
}

void ConfigReader::AddInteger(std::string name, int64_t current, int64_t min, int64_t max,
                              std::function<void(int64_t)> set, std::string help) {
  const std::string range = std::to_string(min) + " to " + std::to_string(max);
  Add(std::move(name), "number, " + range, std::to_string(current), std::move(help)).take =
      [min, max, range, set = std::move(set)](const std::string& text) -> std::optional<std::string> {
    const auto value = ParseNumber<int64_t>(text);
    if (!value || *value < min || *value > max) return "a whole number from " + range;
    set(*value);
    return std::nullopt;
  };
}

void ConfigReader::AddChoice(std::string name, std::vector<std::string> names, size_t current,
                             std::function<void(size_t)> set, std::string help) {
  PRESENCE_CHECK(!names.empty(), "a choice has something to choose from");
  const std::string all = Joined(names, ", ");
  const std::string default_text = names[current];
  Add(std::move(name), "one of " + all, default_text, std::move(help)).take =
      [names = std::move(names), all, set = std::move(set)](const std::string& text) -> std::optional<std::string> {
    const auto match = std::find_if(names.begin(), names.end(),
                                    [&](const std::string& choice) { return LowerCase(choice) == LowerCase(text); });
    if (match == names.end()) return "one of " + all;
    set(static_cast<size_t>(match - names.begin()));
    return std::nullopt;
  };
}

void ConfigReader::Check(std::function<bool()> holds, std::string message) {
  CheckStatus([holds = std::move(holds), message = std::move(message)] {
    return holds() ? absl::OkStatus() : absl::InvalidArgumentError(message);
  });
}

void ConfigReader::CheckStatus(std::function<absl::Status()> judge) {
  rules_.push_back(std::move(judge));
}

ConfigReader::Setting* ConfigReader::Find(std::string_view flag) {
  const auto found =
      std::find_if(settings_.begin(), settings_.end(), [&](const Setting& setting) { return setting.flag == flag; });
  return found == settings_.end() ? nullptr : &*found;
}

std::string ConfigReader::Closest(std::string_view flag) const {
  std::string closest;
  size_t least = flag.size() / 3 + 2;  // farther away is no typing mistake
  for (const Setting& setting : settings_) {
    const size_t distance = EditDistance(flag, setting.flag);
    if (distance < least) {
      least = distance;
      closest = setting.flag;
    }
  }
  return closest;
}

void ConfigReader::ReadFlags(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      help_wanted_ = true;
      continue;
    }
    if (argument.substr(0, 2) != "--") {
      mistakes_.push_back("unexpected argument \"" + Escaped(RedactToken(argument)) +
                          "\": settings are given as --name=value");
      continue;
    }
    const size_t equals = argument.find('=');
    std::string flag = LowerCase(argument.substr(2, equals == std::string_view::npos ? equals : equals - 2));
    std::replace(flag.begin(), flag.end(), '-', '_');
    Setting* setting = Find(flag);
    if (setting == nullptr) {
      const std::string closest = Closest(flag);
      mistakes_.push_back("unknown flag --" + Escaped(flag) +
                          (closest.empty() ? ": --help lists all" : ": did you mean --" + closest + "?"));
      // What follows is most likely its value, and not worth a second mistake.
      const bool value_follows = equals == std::string_view::npos && i + 1 < argc && argv[i + 1][0] != '-';
      if (value_follows) ++i;
      continue;
    }
    if (equals != std::string_view::npos) {
      setting->given = std::string(argument.substr(equals + 1));
    } else if (setting->is_switch) {
      setting->given = "true";
    } else if (i + 1 < argc && std::string_view(argv[i + 1]).substr(0, 2) != "--") {
      setting->given = argv[++i];
    } else {
      mistakes_.push_back("--" + setting->flag + " has no value: write --" + setting->flag + "=... (" + setting->type +
                          ")");
      continue;
    }
    setting->by_flag = true;
  }
}

ConfigReader::Outcome ConfigReader::Read(int argc, const char* const* argv) {
  ReadFlags(argc, argv);
  if (help_wanted_) return Outcome::kHelp;
  for (Setting& setting : settings_) {
    if (!setting.given) {
      auto value = environment_(setting.name);
      if (value && !value->empty()) setting.given = std::move(value);
    }
    if (!setting.given) continue;
    if (const auto expected = setting.take(*setting.given)) {
      mistakes_.push_back((setting.by_flag ? "--" + setting.flag : setting.name) + "=" + setting.show(*setting.given) +
                          ": expected " + *expected);
    }
  }
  for (const auto& judge : rules_) {
    if (const absl::Status status = judge(); !status.ok()) mistakes_.emplace_back(status.message());
  }
  return mistakes_.empty() ? Outcome::kRun : Outcome::kInvalid;
}

std::string ConfigReader::HelpText() const {
  size_t name_columns = 0;
  for (const Setting& setting : settings_) name_columns = std::max(name_columns, setting.name.size());
  const size_t indent = 2 + name_columns + 2;

  std::string text = program_ + ": " + summary_ + "\n\nUsage: " + program_ + " [--name=value]...\n\n" +
                     Wrapped(
                         "Each setting is an environment variable, and a flag of the same name in lower case. A flag "
                         "beats the environment, and that beats the default.",
                         kHelpColumns, 0) +
                     "\n";
  for (size_t section = 0; section < sections_.size(); ++section) {
    text += "\n" + sections_[section] + "\n";
    for (const Setting& setting : settings_) {
      if (setting.section != section) continue;
      text += "  " + setting.name + std::string(name_columns - setting.name.size() + 2, ' ');
      text += Wrapped(setting.help, kHelpColumns - indent, indent) + "\n" + std::string(indent, ' ');
      text += Wrapped("[" + setting.type +
                          "; default: " + (setting.default_text.empty() ? "none" : Escaped(setting.default_text)) + "]",
                      kHelpColumns - indent, indent);
      text += "\n";
    }
  }
  const std::string example =
      settings_.empty() ? "name=value" : settings_.front().flag + "=" + settings_.front().default_text;
  text += "\nOther\n  --help" + std::string(indent > 8 ? indent - 8 : 2, ' ') + "this text\n\nExample: " + program_ +
          " --" + example + "\n";
  return text;
}

std::string ConfigReader::MistakesText() const {
  std::string text = program_ + " cannot start: " +
                     (mistakes_.size() == 1 ? "one setting is wrong" : std::to_string(mistakes_.size()) + " mistakes") +
                     "\n";
  for (const auto& mistake : mistakes_) text += "  " + mistake + "\n";
  return text + "`" + program_ + " --help` lists every setting with its default.\n";
}

std::vector<std::string> ConfigReader::Changed() const {
  std::vector<std::string> changed;
  for (const Setting& setting : settings_) {
    if (setting.given) changed.push_back(setting.name + "=" + setting.show(*setting.given));
  }
  return changed;
}

int ConfigReader::Explain(Outcome outcome) const {
  if (outcome == Outcome::kHelp) std::fputs(HelpText().c_str(), stdout);
  if (outcome != Outcome::kInvalid) return 0;
  std::fputs(MistakesText().c_str(), stderr);
  return 2;
}

}  // namespace presence
