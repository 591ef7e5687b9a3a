// A broken invariant ends the process, in every build: going on would serve wrong answers.
#pragma once

#include <cstdio>
#include <cstdlib>

// `why` is constant text: what must hold.
#define PRESENCE_CHECK(condition, why)                                                                 \
  do {                                                                                                 \
    if (!(condition)) [[unlikely]] {                                                                   \
      std::fprintf(stderr, "%s:%d: invariant broken: %s (%s)\n", __FILE__, __LINE__, why, #condition); \
      std::abort();                                                                                    \
    }                                                                                                  \
  } while (false)
