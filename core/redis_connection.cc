#include "core/redis_connection.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include <algorithm>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <charconv>
#include <cstring>
#include <deque>
#include <random>
#include <utility>

#include "common/time.h"

namespace presence::core {
namespace {

constexpr std::chrono::milliseconds kWatchEvery{200};
// A connection that lived shorter than this did not end the trouble: the backoff goes on growing.
constexpr std::chrono::milliseconds kStable{2000};

// Waits for hiredis on its descriptor. Alive as long as a wait of it is.
class DescriptorWatch : public std::enable_shared_from_this<DescriptorWatch> {
 public:
  static void Attach(asio::io_context& io, redisAsyncContext* context) {
    auto watch = std::make_shared<DescriptorWatch>(io, context);
    watch->self_ = watch;
    context->ev.data = watch.get();
    context->ev.addRead = [](void* data) { From(data)->Want(&DescriptorWatch::read_); };
    context->ev.delRead = [](void* data) { From(data)->read_.wanted = false; };
    context->ev.addWrite = [](void* data) { From(data)->Want(&DescriptorWatch::write_); };
    context->ev.delWrite = [](void* data) { From(data)->write_.wanted = false; };
    context->ev.cleanup = [](void* data) { From(data)->CleanUp(); };
  }

  DescriptorWatch(asio::io_context& io, redisAsyncContext* context)
      : context_(context), descriptor_(io, context->c.fd) {}

 private:
  struct Direction {
    asio::posix::stream_descriptor::wait_type type;
    void (*handle)(redisAsyncContext*);
    bool wanted = false, waiting = false;
  };

  static DescriptorWatch* From(void* data) { return static_cast<DescriptorWatch*>(data); }

  void Want(Direction DescriptorWatch::*direction) {
    (this->*direction).wanted = true;
    Wait(direction);
  }

  void Wait(Direction DescriptorWatch::*which) {
    Direction& direction = this->*which;
    if (direction.waiting || !direction.wanted || context_ == nullptr) return;
    direction.waiting = true;
    descriptor_.async_wait(direction.type, [self = shared_from_this(), which](const asio::error_code& error) {
      Direction& ready = (*self).*which;
      ready.waiting = false;
      if (error || self->context_ == nullptr || !ready.wanted) return;
      ready.handle(self->context_);
      self->Wait(which);
    });
  }

  // hiredis closes the descriptor itself, right after this.
  void CleanUp() {
    context_ = nullptr;
    descriptor_.release();
    self_.reset();
  }

  redisAsyncContext* context_;
  asio::posix::stream_descriptor descriptor_;
  Direction read_{asio::posix::stream_descriptor::wait_read, &redisAsyncHandleRead};
  Direction write_{asio::posix::stream_descriptor::wait_write, &redisAsyncHandleWrite};
  std::shared_ptr<DescriptorWatch> self_;  // until the context is gone
};

}  // namespace

// --------------------------------------------------------------------------------------------- replies, commands

bool RedisReply::is_error() const {
  return reply_ != nullptr && reply_->type == REDIS_REPLY_ERROR;
}
bool RedisReply::is_text() const {
  return reply_ != nullptr && (reply_->type == REDIS_REPLY_STRING || reply_->type == REDIS_REPLY_STATUS);
}
bool RedisReply::is_number() const {
  return reply_ != nullptr && reply_->type == REDIS_REPLY_INTEGER;
}
bool RedisReply::is_list() const {
  return reply_ != nullptr && reply_->type == REDIS_REPLY_ARRAY;
}
std::string_view RedisReply::text() const {
  return is_text() || is_error() ? std::string_view(reply_->str, reply_->len) : std::string_view();
}
int64_t RedisReply::number() const {
  return is_number() ? reply_->integer : 0;
}
size_t RedisReply::size() const {
  return is_list() ? reply_->elements : 0;
}
RedisReply RedisReply::operator[](size_t index) const {
  return index < size() ? RedisReply(reply_->element[index]) : RedisReply();
}

void RedisCommand::AppendArgument(std::string_view argument, std::string* out) {
  char head[24] = {'$'};
  char* end = std::to_chars(head + 1, head + sizeof head - 2, argument.size()).ptr;
  *end++ = '\r';
  *end++ = '\n';
  out->append(head, end).append(argument).append("\r\n");
}

RedisCommand& RedisCommand::Start(size_t arguments) {
  text_.assign("*").append(std::to_string(arguments)).append("\r\n");
  return *this;
}

RedisCommand& RedisCommand::Add(std::string_view argument) {
  AppendArgument(argument, &text_);
  return *this;
}

RedisCommand& RedisCommand::Add(int64_t number) {
  char digits[24];
  return Add(std::string_view(digits, std::to_chars(digits, digits + sizeof digits, number).ptr));
}

RedisCommand& RedisCommand::Add(uint64_t number) {
  char digits[24];
  return Add(std::string_view(digits, std::to_chars(digits, digits + sizeof digits, number).ptr));
}

RedisCommand& RedisCommand::AddWritten(std::string_view written) {
  text_.append(written);
  return *this;
}

// ---------------------------------------------------------------------------------------------------- connection

class RedisConnection::State : public std::enable_shared_from_this<State> {
 public:
  State(asio::io_context& io, Options options, Listener& listener, RedisConnection& owner)
      : io_(io),
        options_(std::move(options)),
        listener_(listener),
        owner_(owner),
        redial_(io),
        watch_(io),
        random_(std::random_device{}()) {}

  void Start() {
    asio::post(io_, [self = shared_from_this()] { self->Dial(); });
    Watch();
  }

  void Close() {
    closed_ = true;
    redial_.cancel();
    watch_.cancel();
    pending_.clear();
    FreeContext();
  }

  bool ready() const { return phase_ == Phase::kReady; }

  bool Send(const RedisCommand& command, Done done) {
    return phase_ == Phase::kReady && pending_.size() < kCommandsMax && SendNow(command, std::move(done));
  }

  void Drop(std::string_view why) {
    if (closed_ || phase_ == Phase::kWaiting) return;
    FreeContext();
    Lost(why);
  }

  void MoveTo(RedisAddress address) {
    if (closed_ || options_.address == address) return;
    if (phase_ != Phase::kWaiting) {
      FreeContext();
      Lost("the primary is another one now");
    }
    options_.address = std::move(address);
    backoff_ = kBackoffMin;
    Redial(std::chrono::milliseconds(0));
  }

 private:
  enum class Phase : uint8_t { kWaiting, kConnecting, kGreeting, kReady };

  struct Pending {
    SteadyTime sent;
    Done done;
  };

  static State* From(const redisAsyncContext* context) { return static_cast<State*>(context->data); }

  void Dial() {
    if (closed_ || phase_ != Phase::kWaiting || !options_.address.known()) return;
    const RedisAddress& address = options_.address;
    Enter(Phase::kConnecting);
    redisAsyncContext* context = address.unix_path.empty() ? redisAsyncConnect(address.host.c_str(), address.port)
                                                           : redisAsyncConnectUnix(address.unix_path.c_str());
    if (context == nullptr) return Lost("out of memory");
    if (context->err != 0) {
      const std::string why = context->errstr;
      redisAsyncFree(context);
      return Lost(why);
    }
    context_ = context;
    context->data = this;
    DescriptorWatch::Attach(io_, context);
    redisAsyncSetDisconnectCallback(context, [](const redisAsyncContext* c, int) {
      if (State* self = From(c); self != nullptr) self->OnGone(c, "Redis closed the connection");
    });
    redisAsyncSetConnectCallback(context, [](const redisAsyncContext* c, int status) {
      State* self = From(c);
      if (self == nullptr) return;
      if (status == REDIS_OK) return self->Greet();
      self->OnGone(c, "not connected");
    });
  }

  // hiredis is about to free the context by itself.
  void OnGone(const redisAsyncContext* context, std::string_view otherwise) {
    const std::string why = context->c.err != 0 ? context->c.errstr : "";
    context_->data = nullptr;
    context_ = nullptr;
    Lost(why.empty() ? otherwise : std::string_view(why));
  }

  void Greet() {
    Enter(Phase::kGreeting);
    const RedisAddress& address = options_.address;
    if (!address.password.empty()) {
      command_.Start(address.user.empty() ? 2 : 3).Add("AUTH");
      if (!address.user.empty()) command_.Add(address.user);
      command_.Add(address.password);
      SendNow(command_, [this](RedisReply reply) { DropIfError(reply, "AUTH, check user and password in REDIS_URL"); });
    }
    if (address.database != 0) {
      command_.Start(2).Add("SELECT").Add(uint64_t{address.database});
      SendNow(command_, [this](RedisReply reply) { DropIfError(reply, "SELECT, check the database in REDIS_URL"); });
    }
    command_.Start(3).Add("CLIENT").Add("SETNAME").Add(options_.name);
    SendNow(command_, [this](RedisReply reply) {
      if (reply.lost()) return;
      // A name is a convenience that an ACL may refuse; a missing password is not.
      if (reply.is_error() && reply.text().starts_with("NOAUTH")) {
        DropIfError(reply, "a client without a password, set one in REDIS_URL");
        return;
      }
      options_.channels.empty() ? BecomeReady() : Subscribe();
    });
  }

  void DropIfError(RedisReply reply, std::string_view what) {
    if (!reply.is_error()) return;
    const std::string why = "Redis refused " + std::string(what) + " (" + std::string(reply.text()) + ")";
    Drop(why);
  }

  void Subscribe() {
    subscribed_ = 0;
    command_.Start(1 + options_.channels.size()).Add("SUBSCRIBE");
    for (const std::string& channel : options_.channels) command_.Add(channel);
    const auto heard = [](redisAsyncContext* c, void* reply, void*) {
      State* self = From(c);
      if (self != nullptr && reply != nullptr) self->OnPushed(RedisReply(static_cast<const redisReply*>(reply)));
    };
    redisAsyncFormattedCommand(context_, heard, nullptr, command_.text().data(), command_.text().size());
  }

  void OnPushed(RedisReply reply) {
    heard_at_ = std::chrono::steady_clock::now();
    const std::string_view kind = reply[0].text();
    if (kind == "message") return listener_.OnMessage(reply[1].text(), reply[2].text());
    if (kind == "subscribe" && ++subscribed_ == options_.channels.size()) BecomeReady();
  }

  void BecomeReady() {
    Enter(Phase::kReady);
    heard_at_ = entered_at_;
    listener_.OnConnectionReady(owner_);
  }

  bool SendNow(const RedisCommand& command, Done done) {
    const auto answered = [](redisAsyncContext* c, void* reply, void*) {
      State* self = From(c);
      // A null reply announces the end of the connection; Lost answers those.
      if (self != nullptr && reply != nullptr) self->OnReply(RedisReply(static_cast<const redisReply*>(reply)));
    };
    if (redisAsyncFormattedCommand(context_, answered, nullptr, command.text().data(), command.text().size()) !=
        REDIS_OK) {
      return false;
    }
    pending_.push_back({std::chrono::steady_clock::now(), std::move(done)});
    return true;
  }

  void OnReply(RedisReply reply) {
    if (pending_.empty()) return;
    const Done done = std::move(pending_.front().done);
    pending_.pop_front();
    answered_at_ = std::chrono::steady_clock::now();
    if (done) done(reply);
  }

  void Enter(Phase phase) {
    phase_ = phase;
    entered_at_ = std::chrono::steady_clock::now();
  }

  void FreeContext() {
    if (context_ == nullptr) return;
    context_->data = nullptr;
    redisAsyncFree(std::exchange(context_, nullptr));
  }

  void Lost(std::string_view why) {
    const auto alive = shared_from_this();
    const SteadyTime now = std::chrono::steady_clock::now();
    if (phase_ == Phase::kReady && now - entered_at_ >= kStable) backoff_ = kBackoffMin;
    const auto wait = std::chrono::milliseconds(
        std::uniform_int_distribution<int64_t>(backoff_.count() / 2, backoff_.count())(random_));
    backoff_ = std::min(backoff_ * 2, kBackoffMax);
    Enter(Phase::kWaiting);
    Redial(wait);

    const std::deque<Pending> lost = std::exchange(pending_, {});
    listener_.OnConnectionLost(owner_, options_.address.ToString() + ": " + std::string(why));
    for (const Pending& pending : lost) {
      if (closed_) return;
      if (pending.done) pending.done(RedisReply());
    }
  }

  // Takes the place of a dial that waits.
  void Redial(std::chrono::milliseconds wait) {
    redial_.expires_after(wait);
    redial_.async_wait([self = shared_from_this()](const asio::error_code& error) {
      if (!error) self->Dial();
    });
  }

  void Watch() {
    watch_due_ = std::chrono::steady_clock::now() + kWatchEvery;
    watch_.expires_at(watch_due_);
    watch_.async_wait([self = shared_from_this()](const asio::error_code& error) {
      if (error || self->closed_) return;
      // After a stall of our own the answers may be here, unread: judge at the next look.
      const SteadyTime now = std::chrono::steady_clock::now();
      if (now - self->watch_due_ < kWatchEvery) self->Judge(now);
      if (!self->closed_) self->Watch();
    });
  }

  void Judge(SteadyTime now) {
    switch (phase_) {
      case Phase::kWaiting:
        return;
      case Phase::kConnecting:
        if (now - entered_at_ > kConnectMax) Drop("no connection within 2 s");
        return;
      case Phase::kGreeting:
        if (now - entered_at_ > kAnswerMax) Drop("connected, but no answer within 2 s");
        return;
      case Phase::kReady:
        if (!pending_.empty() && now - std::max(pending_.front().sent, answered_at_) > kAnswerMax) {
          return Drop("no answer within 2 s");
        }
        if (!options_.channels.empty() && now - heard_at_ > kSilenceMax) Drop("the subscription was silent for 3 s");
        return;
    }
  }

  asio::io_context& io_;
  Options options_;
  Listener& listener_;
  RedisConnection& owner_;
  asio::steady_timer redial_, watch_;
  std::minstd_rand random_;
  redisAsyncContext* context_ = nullptr;
  Phase phase_ = Phase::kWaiting;
  SteadyTime entered_at_, heard_at_, answered_at_, watch_due_;
  std::deque<Pending> pending_;
  size_t subscribed_ = 0;
  std::chrono::milliseconds backoff_ = kBackoffMin;
  RedisCommand command_;
  bool closed_ = false;
};

RedisConnection::RedisConnection(asio::io_context& io, Options options, Listener& listener)
    : state_(std::make_shared<State>(io, std::move(options), listener, *this)) {
  state_->Start();
}

RedisConnection::~RedisConnection() {
  state_->Close();
}
bool RedisConnection::ready() const {
  return state_->ready();
}
bool RedisConnection::Send(const RedisCommand& command, Done done) {
  return state_->Send(command, std::move(done));
}
void RedisConnection::Drop(std::string_view why) {
  state_->Drop(why);
}
void RedisConnection::MoveTo(RedisAddress address) {
  state_->MoveTo(std::move(address));
}

}  // namespace presence::core
