// Checks one request of the API and collects all that is wrong with it, so that the caller hears of everything at once.
//
//   RequestCheck check;
//   check.Id("room_id", request->room_id());
//   const uint32_t limit = check.PageSize(kClusterPages, request->page_size());
//   if (!check.ok()) return call->Refuse(check.status());
//
// Lives within a method, on its thread. What a check returns is to be used only when ok().
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/repeated_field.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/api_pages.h"
#include "core/api_text.h"
#include "core/grpc_status.h"

namespace presence::core {

class RequestCheck {
 public:
  // How many are named: trailers end at 8 KiB, and so many lines of some 120 bytes are 4 KiB in base64. The message says how many more.
  static constexpr size_t kViolationsMax = 24;

  // `what` is OK, or says what is wrong with the field: INVALID_ARGUMENT, or RESOURCE_EXHAUSTED: it is too large.
  void Field(std::string_view field, const absl::Status& what) {
    if (!what.ok()) Add(std::string(field), what);
  }
  // The value, or a default one when it is wrong.
  template <typename T>
  T Field(std::string_view field, absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    Add(std::string(field), value.status());
    return T();
  }
  void Refuse(std::string_view field, std::string_view what);

  void Id(std::string_view field, std::string_view id) { Field(field, CheckId(id)); }
  // At most `count_max`; and at least one, unless none is fine.
  enum class None : bool { kIsFine, kIsWrong };
  void Ids(std::string_view field, const google::protobuf::RepeatedPtrField<std::string>& ids, int count_max,
           None none);
  // 1 to 255 bytes: of a core or an edge.
  void Name(std::string_view field, std::string_view name);

  uint32_t PageSize(PageLimits limits, int32_t page_size) {
    return Field("page_size", ReadPageSize(limits, page_size));
  }
  // A cursor that is an id, or empty.
  std::string IdCursor(PageScope scope, std::string_view token);
  // 0 to `max`, in whole milliseconds.
  std::chrono::milliseconds Window(std::string_view field, const google::protobuf::Duration& window,
                                   std::chrono::milliseconds max);

  bool ok() const { return count_ == 0; }
  // OK; or INVALID_ARGUMENT with google.rpc.BadRequest; or RESOURCE_EXHAUSTED, when nothing is wrong but that something is too large.
  absl::Status status() const;

 private:
  void Add(std::string field, const absl::Status& what);

  std::vector<FieldViolation> violations_;  // the first kViolationsMax
  size_t count_ = 0;
  bool only_too_large_ = true;
};

}  // namespace presence::core
