// One Attach stream as the loop sees it. Two implementations: gRPC's (link_service.cc) and the tests'.
//
// Lifetime: shared by the transport, until it has said its last word, and by the runtime, until it has finished the stream.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "core/hub.h"
#include "core/link_mailbox.h"

namespace presence::core {

class LinkStream : public std::enable_shared_from_this<LinkStream> {
 public:
  // `peer`: where it comes from, for the log.
  LinkStream(LinkId id, std::string peer) : id_(id), peer_(std::move(peer)) {}
  virtual ~LinkStream() = default;
  LinkStream(const LinkStream&) = delete;
  LinkStream& operator=(const LinkStream&) = delete;

  LinkId id() const { return id_; }
  const std::string& peer() const { return peer_; }
  LinkMailbox& mailbox() { return mailbox_; }

  // --- called by the loop thread alone. After Finish only Abort may follow.

  // The bytes of a CoreFrame, copied before it returns. REQUIRES: every earlier write has been reported done in the mailbox.
  virtual void Write(std::string_view frame) = 0;
  // REQUIRES: the mailbox said that reading has paused.
  virtual void ResumeReading() = 0;
  // Ends the stream with this status, after a write that is in flight. Called exactly once for every stream, also for one
  // that its peer has ended.
  virtual void Finish(const absl::Status& why) = 0;
  // Ends it now, whatever is in flight. Any time, any number of times; nothing happens when it has ended.
  virtual void Abort(const absl::Status& why) = 0;

 private:
  const LinkId id_;
  const std::string peer_;
  LinkMailbox mailbox_;
};

}  // namespace presence::core
