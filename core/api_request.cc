#include "core/api_request.h"

#include <google/protobuf/util/time_util.h>

#include "absl/strings/str_cat.h"

namespace presence::core {
namespace {

absl::string_view Absl(std::string_view text) {
  return {text.data(), text.size()};
}

constexpr size_t kNameBytesMax = 255;

}  // namespace

void RequestCheck::Refuse(std::string_view field, std::string_view what) {
  Add(std::string(field), absl::InvalidArgumentError(Absl(what)));
}

void RequestCheck::Add(std::string field, const absl::Status& what) {
  ++count_;
  if (!absl::IsResourceExhausted(what)) only_too_large_ = false;
  if (violations_.size() == kViolationsMax) return;
  violations_.push_back({std::move(field), std::string(what.message().data(), what.message().size())});
}

void RequestCheck::Ids(std::string_view field, const google::protobuf::RepeatedPtrField<std::string>& ids,
                       int count_max, None none) {
  if (ids.size() > count_max || (ids.empty() && none == None::kIsWrong)) {
    // Whoever sends too many need not hear about each.
    return Refuse(field, none == None::kIsWrong ? absl::StrCat("must name 1 to ", count_max, " users")
                                                : absl::StrCat("must name at most ", count_max, " users"));
  }
  for (int i = 0; i < ids.size(); ++i) {
    const absl::Status what = CheckId(ids[i]);
    if (!what.ok()) Add(absl::StrCat(Absl(field), "[", i, "]"), what);
  }
}

void RequestCheck::Name(std::string_view field, std::string_view name) {
  if (name.empty()) return Refuse(field, "must not be empty");
  Field(field, CheckText(name, kNameBytesMax));
}

std::string RequestCheck::IdCursor(PageScope scope, std::string_view token) {
  std::string cursor = Field("page_token", ReadPageToken(scope, token));
  if (!cursor.empty()) Field("page_token", CheckId(cursor));
  return cursor;
}

std::chrono::milliseconds RequestCheck::Window(std::string_view field, const google::protobuf::Duration& window,
                                               std::chrono::milliseconds max) {
  using google::protobuf::util::TimeUtil;
  // Seconds first: the whole would overflow for some.
  const int64_t seconds_max = std::chrono::duration_cast<std::chrono::seconds>(max).count();
  if (window.seconds() >= 0 && window.seconds() <= seconds_max && window.nanos() >= 0 &&
      window.nanos() < 1'000'000'000) {
    const std::chrono::milliseconds milliseconds(TimeUtil::DurationToMilliseconds(window));
    if (milliseconds <= max) return milliseconds;
  }
  Refuse(field, absl::StrCat("must be 0 to ", seconds_max, " s"));
  return std::chrono::milliseconds(0);
}

absl::Status RequestCheck::status() const {
  if (ok()) return absl::OkStatus();
  std::string text = absl::StrCat(violations_.front().field, ": ", violations_.front().description);
  if (count_ == 2) absl::StrAppend(&text, "; one more field is wrong");
  if (count_ > 2) absl::StrAppend(&text, "; ", count_ - 1, " more fields are wrong");
  const auto code = only_too_large_ ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInvalidArgument;
  absl::Status status = WithViolations(absl::Status(code, text), violations_);
  if (!only_too_large_) return status;
  return WithReason(std::move(status), reason::kPayloadTooLarge, {{"bytes_max", absl::StrCat(kPayloadBytesMax)}});
}

}  // namespace presence::core
