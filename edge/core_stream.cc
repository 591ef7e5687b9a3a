#include "edge/core_stream.h"

#include <utility>

#include "common/shared_secret.h"
#include "common/tls_credentials.h"

namespace presence::edge {
namespace {

using link::v1::CoreFrame;

constexpr size_t kFramesWaitingMax = 8;
// The core refuses 4 MiB messages by gRPC's default; what may come is one Deliver of 1 MiB and its frame.
constexpr int kReceiveBytesMax = 4 * 1024 * 1024;

std::shared_ptr<grpc::Channel> Dial(const std::string& address, const LinkCredentials& credentials) {
  grpc::ChannelArguments arguments;
  // Otherwise all shards of a process would share one connection, and so one core thread's attention.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kReceiveBytesMax);
  if (!credentials.server_name.empty()) arguments.SetSslTargetNameOverride(credentials.server_name);
  return grpc::CreateCustomChannel(
      address,
      credentials.tls == nullptr ? grpc::InsecureChannelCredentials() : MakeTlsChannelCredentials(*credentials.tls),
      arguments);
}

}  // namespace

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// Not as gRPC's call credentials: those refuse to go without TLS.
void ShowSecret(const LinkCredentials& credentials, grpc::ClientContext& context) {
  if (!credentials.secret.empty()) context.AddMetadata(kSecretMetadataKey, credentials.secret);
}

CoreStream::CoreStream(uint64_t number, const std::string& address, const LinkCredentials& credentials, Notices notices)
    : number_(number),
      notices_(std::move(notices)),
      channel_(Dial(address, credentials)),
      stub_(link::v1::Link::NewStub(channel_)) {
  ShowSecret(credentials, context_);
}

void CoreStream::Start() {
  self_ = shared_from_this();
  stub_->async()->Attach(&context_, this);
  AddHold();  // the loop starts writes and reads from outside the reactions
  StartRead(&reading_);
  StartCall();
}

void CoreStream::Write() {
  write_in_flight_ = true;
  StartWrite(writing_.get());
}

std::unique_ptr<CoreFrame> CoreStream::Take() {
  bool resume = false;
  std::unique_ptr<CoreFrame> frame;
  {
    std::lock_guard lock(mutex_);
    if (inbox_.empty()) return nullptr;
    frame = std::move(inbox_.front());
    inbox_.pop_front();
    resume = std::exchange(paused_, false);
  }
  if (resume && !let_go_) StartRead(&reading_);
  return frame;
}

void CoreStream::Recycle(std::unique_ptr<CoreFrame> frame) {
  frame->Clear();
  std::lock_guard lock(mutex_);
  if (spare_.size() < kFramesWaitingMax) spare_.push_back(std::move(frame));
}

bool CoreStream::HasFrame() {
  std::lock_guard lock(mutex_);
  return !inbox_.empty();
}

bool CoreStream::Ended() {
  std::lock_guard lock(mutex_);
  return ended_ && inbox_.empty();
}

void CoreStream::LetGo() {
  if (std::exchange(let_go_, true)) return;
  context_.TryCancel();
  RemoveHold();
}

void CoreStream::OnReadDone(bool ok) {
  if (!ok) {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    notices_.readable();  // the loop empties the inbox, sees the end and lets go
    return;
  }
  bool wake = false;
  bool pause = false;
  {
    std::lock_guard lock(mutex_);
    auto frame = spare_.empty() ? std::make_unique<CoreFrame>() : std::move(spare_.back());
    if (!spare_.empty()) spare_.pop_back();
    frame->Swap(&reading_);
    inbox_.push_back(std::move(frame));
    wake = inbox_.size() == 1;
    pause = inbox_.size() >= kFramesWaitingMax;
    paused_ = pause;
  }
  if (wake) notices_.readable();
  if (!pause) StartRead(&reading_);
}

void CoreStream::OnDone(const grpc::Status& status) {
  const auto done = std::move(notices_.done);  // this object may be gone before the call returns
  done(ToAbsl(status), std::move(self_));
}

}  // namespace presence::edge
