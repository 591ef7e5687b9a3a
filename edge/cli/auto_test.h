// `presence-cli auto`: the specification's automated test, its seven steps against a running service.
#pragma once

#include <functional>
#include <string>

#include "edge/cli/options.h"

namespace presence::edge::cli {

// Prints a line for each step ("ok 1/7 connect: ...", or "FAILED ..." with an explanation) and a summary. True: all are good. What
// other clients cause meanwhile is passed over. `print` takes whole lines without line break.
bool RunAutoTest(const Options& options, const std::string& token,
                 const std::function<void(const std::string&)>& print);

}  // namespace presence::edge::cli
