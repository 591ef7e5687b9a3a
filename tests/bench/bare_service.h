// The baseline: a gRPC server with the messages, the listener and the channel arguments of the core's API, and nothing behind
// them. Whatever the core costs more is the core's own.
//
//   GetPresence, Broadcast   answered at once, on gRPC's thread, with an answer as large as the core's;
//   WatchPresence            tells resume_version rows, in responses of at most 500, as its snapshot, and then changes;
//   SetStatus                tells every stream a change of that user.
//
// Does not do: anything else.
#pragma once

namespace presence::bench {

// Listens on a free port of 127.0.0.1, says so on stdout ("listening on ..."), and never returns.
[[noreturn]] void RunBareServer();

}  // namespace presence::bench
