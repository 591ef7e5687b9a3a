#include "common/log.h"

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/periodic_worker.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

namespace presence::log {
namespace internal {
std::atomic<Level> level{Level::kInfo};
}

namespace {

constexpr Level kLevels[] = {Level::kDebug, Level::kInfo, Level::kWarning, Level::kError};

spdlog::level::level_enum ToSpdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      break;
  }
  return spdlog::level::err;
}

// The level in capital letters: spdlog's own names are lower case, and compiled into its library.
class LevelFlag : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    std::string_view name = LevelName(Level::kError);
    for (const Level level : kLevels) {
      if (ToSpdlog(level) == message.level) name = LevelName(level);
    }
    out.append(name.data(), name.data() + name.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<LevelFlag>(); }
};

std::unique_ptr<spdlog::formatter> LineFormat() {
  auto format = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc, "\n");
  format->add_flag<LevelFlag>('*').set_pattern("%Y-%m-%d %H:%M:%S %* %v");
  return format;
}

// One whole line per call, so that a reader of the pipe never sees half of one for long.
template <typename Mutex>
class LineSink : public spdlog::sinks::base_sink<Mutex> {
 public:
  explicit LineSink(std::function<void(std::string_view)> write)
      : spdlog::sinks::base_sink<Mutex>(LineFormat()), write_(std::move(write)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    this->formatter_->format(message, line);
    if (write_) {
      write_(std::string_view(line.data(), line.size()));
    } else {
      std::fwrite(line.data(), 1, line.size(), stdout);
      std::fflush(stdout);
    }
  }
  void flush_() override {}

 private:
  const std::function<void(std::string_view)> write_;
};

// Guards what is touched at Start, Stop, once a second and by the metrics page: never taken for a line.
std::mutex rare_mutex;

std::vector<LineLimit*>& Limits() {
  static auto* limits = new std::vector<LineLimit*>();  // never destroyed: limits are static, too, and leave late
  return *limits;
}

// What Start makes. Writers find it by a plain atomic pointer and may still be inside when Stop comes, so it is closed and kept,
// not destroyed: a line that races with Stop is lost, no more.
class Output {
 public:
  explicit Output(const Options& options)
      : pool_(std::make_shared<spdlog::details::thread_pool>(std::max<size_t>(options.queue_lines_max, 2), 1)),
        logger_(std::make_shared<spdlog::async_logger>(
            "presence", std::make_shared<LineSink<spdlog::details::null_mutex>>(options.sink), pool_,
            spdlog::async_overflow_policy::overrun_oldest)) {
    logger_->set_level(spdlog::level::debug);  // our own level is asked first
    // A line that cannot be written is lost; saying so on standard error would be one more way to block.
    logger_->set_error_handler([](const std::string&) {});
    reports_ = std::make_unique<spdlog::details::periodic_worker>(
        [this] {
          const std::lock_guard lock(rare_mutex);
          Report();
        },
        std::chrono::seconds(1));
  }

  // The last report, then everything that waits.
  void Close() {
    reports_.reset();
    std::shared_ptr<spdlog::details::thread_pool> closing;
    {
      const std::lock_guard lock(rare_mutex);
      Report();
      closing = std::move(pool_);
    }
    closing.reset();  // joins its thread
  }

  void Write(Level level, std::string_view text) {
    logger_->log(ToSpdlog(level), spdlog::string_view_t(text.data(), text.size()));
  }

  // REQUIRES: rare_mutex.
  uint64_t LinesDropped() {
    if (pool_) lines_dropped_ = pool_->overrun_counter();
    return lines_dropped_;
  }

 private:
  // REQUIRES: rare_mutex.
  void Report() {
    if (const uint64_t dropped = LinesDropped(); dropped > dropped_reported_) {
      Write(Level::kWarning, fmt::format("{} log lines were dropped: more were written than the output takes",
                                         dropped - dropped_reported_));
      dropped_reported_ = dropped;
    }
    for (LineLimit* limit : Limits()) {
      if (const uint64_t suppressed = limit->TakeUnreported(); suppressed > 0) {
        Write(Level::kWarning, fmt::format("{} more log lines about {} were left out", suppressed, limit->name()));
      }
    }
  }

  std::shared_ptr<spdlog::details::thread_pool> pool_;  // the logger's reference is weak
  std::shared_ptr<spdlog::async_logger> logger_;
  uint64_t lines_dropped_ = 0;
  uint64_t dropped_reported_ = 0;
  std::unique_ptr<spdlog::details::periodic_worker> reports_;
};

std::vector<std::unique_ptr<Output>>& Outputs() {
  static auto* outputs = new std::vector<std::unique_ptr<Output>>();
  return *outputs;
}
std::atomic<Output*> running{nullptr};

void WriteNow(Level level, std::string_view text) {
  static auto* sink = new LineSink<std::mutex>(nullptr);  // outlives every static object that may still log
  sink->log(spdlog::details::log_msg("presence", ToSpdlog(level), spdlog::string_view_t(text.data(), text.size())));
}

}  // namespace

std::string_view LevelName(Level level) {
  switch (level) {
    case Level::kDebug:
      return "DEBUG";
    case Level::kInfo:
      return "INFO";
    case Level::kWarning:
      return "WARNING";
    case Level::kError:
      break;
  }
  return "ERROR";
}

std::optional<Level> ParseLevel(std::string_view text) {
  const auto matches = [&](std::string_view name) {
    return std::equal(text.begin(), text.end(), name.begin(), name.end(),
                      [](char a, char b) { return (a >= 'a' && a <= 'z' ? a - 'a' + 'A' : a) == b; });
  };
  for (const Level level : kLevels) {
    if (matches(LevelName(level))) return level;
  }
  return matches("WARN") ? std::optional(Level::kWarning) : std::nullopt;
}

void Start(const Options& options) {
  SetLevel(options.level);
  auto output = std::make_unique<Output>(options);
  running.store(output.get(), std::memory_order_release);
  const std::lock_guard lock(rare_mutex);
  Outputs().push_back(std::move(output));
}

void Stop() {
  if (Output* stopped = running.exchange(nullptr, std::memory_order_acq_rel)) stopped->Close();
}

Level SetLevel(Level level) {
  return internal::level.exchange(level, std::memory_order_relaxed);
}

void Write(Level level, std::string_view text) {
  if (!Enabled(level)) return;
  std::string joined;
  if (text.find_first_of("\r\n") != std::string_view::npos) [[unlikely]] {
    for (const char c : text) {
      if (c == '\n' || c == '\r') {
        joined += c == '\n' ? "\\n" : "\\r";
      } else {
        joined += c;
      }
    }
    text = joined;
  }
  if (Output* output = running.load(std::memory_order_acquire)) {
    output->Write(level, text);
  } else {
    WriteNow(level, text);
  }
}

LineLimit::LineLimit(const char* name, uint32_t lines_per_second, uint32_t burst_lines)
    : name_(name),
      line_ns_(1'000'000'000 / std::max<int64_t>(lines_per_second, 1)),
      burst_ns_(line_ns_ * std::max<int64_t>(burst_lines, 1)) {
  const std::lock_guard lock(rare_mutex);
  Limits().push_back(this);
}

LineLimit::~LineLimit() {
  const std::lock_guard lock(rare_mutex);
  std::erase(Limits(), this);
}

bool LineLimit::AdmitAt(SteadyTime now) {
  const int64_t now_ns = Duration(now.time_since_epoch()).count();
  int64_t paid_until = paid_until_ns_.load(std::memory_order_relaxed);
  while (true) {
    const int64_t next = std::max(paid_until, now_ns) + line_ns_;
    if (next - now_ns > burst_ns_) {
      suppressed_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    if (paid_until_ns_.compare_exchange_weak(paid_until, next, std::memory_order_relaxed)) return true;
  }
}

uint64_t LineLimit::TakeUnreported() {
  const uint64_t suppressed = Suppressed();
  return suppressed - std::exchange(reported_, suppressed);
}

uint64_t LinesDropped() {
  const std::lock_guard lock(rare_mutex);
  uint64_t sum = 0;
  for (const auto& output : Outputs()) sum += output->LinesDropped();
  return sum;
}

uint64_t LinesSuppressed() {
  const std::lock_guard lock(rare_mutex);
  uint64_t sum = 0;
  for (const LineLimit* limit : Limits()) sum += limit->Suppressed();
  return sum;
}

}  // namespace presence::log
