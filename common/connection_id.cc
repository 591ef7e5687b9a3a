#include "common/connection_id.h"

#include <cstdio>

namespace presence {

std::string ConnectionName(uint64_t incarnation, uint64_t packed_connection) {
  char text[48];
  const int size =
      std::snprintf(text, sizeof text, "conn-%016llx-%016llx", static_cast<unsigned long long>(incarnation),
                    static_cast<unsigned long long>(packed_connection));
  return std::string(text, static_cast<size_t>(size));
}

}  // namespace presence
