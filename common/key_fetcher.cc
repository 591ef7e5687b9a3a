#include "common/key_fetcher.h"

#include <curl/curl.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/check.h"

namespace presence {
namespace {

constexpr int kPollMillis = 1000;  // Interrupt wakes the poll; this is for nothing but safety

struct Answer {
  std::string body;
  size_t body_bytes_max = 0;
  bool too_long = false;
};

// libcurl's write callback: anything but `count` ends the transfer.
size_t TakeBody(char* data, size_t, size_t count, void* user) {
  auto* answer = static_cast<Answer*>(user);
  if (count > answer->body_bytes_max - answer->body.size()) {
    answer->too_long = true;
    return 0;
  }
  answer->body.append(data, count);
  return count;
}

// RFC 9111, section 5.1: how long the answer lay in a cache on its way; nonsense counts as fresh.
std::chrono::seconds AgeOf(CURL* easy) {
  curl_header* header = nullptr;
  if (curl_easy_header(easy, "Age", 0, CURLH_HEADER, -1, &header) != CURLHE_OK) return std::chrono::seconds(0);
  const std::string_view text = header->value;
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 0) seconds = 0;
  return std::chrono::seconds(std::min<int64_t>(seconds, 365 * 24 * 3600));
}

// RFC 9111, section 5.2.2: the smallest max-age of the directives, less the time that has passed of it already; 0 when the
// answer is not to be stored.
std::optional<std::chrono::seconds> MaxAge(CURL* easy) {
  std::optional<std::chrono::seconds> result;
  curl_header* header = nullptr;
  for (size_t line = 0; curl_easy_header(easy, "Cache-Control", line, CURLH_HEADER, -1, &header) == CURLHE_OK; ++line) {
    for (absl::string_view directive : absl::StrSplit(header->value, ',')) {
      directive = absl::StripAsciiWhitespace(directive);
      int64_t seconds = 0;
      constexpr absl::string_view kName = "max-age=";
      if (absl::StartsWithIgnoreCase(directive, kName)) {
        directive.remove_prefix(kName.size());
        const char* end = directive.data() + directive.size();
        // Nonsense counts as stale, and so does what does not fit.
        if (std::from_chars(directive.data(), end, seconds).ptr != end || seconds < 0) seconds = 0;
      } else if (!absl::EqualsIgnoreCase(directive, "no-store") && !absl::EqualsIgnoreCase(directive, "no-cache")) {
        continue;
      }
      const std::chrono::seconds age(std::min<int64_t>(seconds, 365 * 24 * 3600));
      result = result ? std::min(*result, age) : age;
    }
  }
  if (result) result = std::max(std::chrono::seconds(0), *result - AgeOf(easy));
  return result;
}

}  // namespace

struct KeyFetcher::Handles {
  CURL* easy = nullptr;
  CURLM* multi = nullptr;  // in place of curl_easy_perform, because its poll can be woken
  curl_slist* request_headers = nullptr;
  std::atomic<bool> interrupted{false};

  ~Handles() {
    curl_easy_cleanup(easy);
    curl_multi_cleanup(multi);
    curl_slist_free_all(request_headers);
  }
};

KeyFetcher::KeyFetcher(KeyFetcherOptions options)
    : options_(std::move(options)), handles_(std::make_unique<Handles>()) {
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  handles_->easy = curl_easy_init();
  handles_->multi = curl_multi_init();
  handles_->request_headers = curl_slist_append(nullptr, "Accept: application/json");
  PRESENCE_CHECK(global == CURLE_OK && handles_->easy != nullptr && handles_->multi != nullptr,
                 "libcurl can be initialised");

  CURL* easy = handles_->easy;
  const auto timeout_ms = static_cast<long>(options_.timeout.count());
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);  // a name server that hangs does not hold up the destructor
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!options_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "presence-edge");
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, handles_->request_headers);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &TakeBody);
}

KeyFetcher::~KeyFetcher() = default;

void KeyFetcher::Interrupt() {
  handles_->interrupted = true;
  curl_multi_wakeup(handles_->multi);
}

absl::StatusOr<FetchedKeys> KeyFetcher::Fetch(const std::string& url) {
  Answer answer{{}, options_.body_bytes_max, false};
  CURL* easy = handles_->easy;
  CURLM* multi = handles_->multi;
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);

  if (curl_multi_add_handle(multi, easy) != CURLM_OK) return absl::UnavailableError("libcurl takes no transfer");
  CURLMcode multi_result = CURLM_OK;
  int running = 1;
  while (!handles_->interrupted) {
    multi_result = curl_multi_perform(multi, &running);
    if (multi_result != CURLM_OK || running == 0) break;
    curl_multi_poll(multi, nullptr, 0, kPollMillis, nullptr);
  }
  CURLcode result = CURLE_FAILED_INIT;
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) result = message->data.result;
  }
  curl_multi_remove_handle(multi, easy);

  if (handles_->interrupted) return absl::CancelledError("interrupted");
  if (answer.too_long) return absl::ResourceExhaustedError("the answer is too long");
  // The kind of failure alone: libcurl's longer texts hold milliseconds, and would make each failure look new.
  if (result != CURLE_OK) return absl::UnavailableError(curl_easy_strerror(result));
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) return absl::UnavailableError(absl::StrCat("answered with status ", status));
  return FetchedKeys{std::move(answer.body), MaxAge(easy)};
}

}  // namespace presence
