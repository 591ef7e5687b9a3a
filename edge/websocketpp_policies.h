// What websocketpp lets its users choose, chosen for many idle connections: a transport that is fed by hand, messages
// from a pool of the thread, HTTP objects that can be let go after the handshake, no time-outs, locks, logs or
// extensions.
//
// Included by websocket_engine.cc alone. Everything here is used by one thread at a time; the pool belongs to a thread,
// so an engine may move between threads while none of its calls is running. The names in lower case are websocketpp's.
//
// Lifetime: a connection is a member of its engine. The pointers by which websocketpp keeps it alive own nothing; they
// are dropped with the connection at the latest.
#pragma once

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edge/websocket_engine.h"
#include "websocketpp/concurrency/none.hpp"
#include "websocketpp/connection_base.hpp"
#include "websocketpp/error.hpp"
#include "websocketpp/extensions/permessage_deflate/disabled.hpp"
#include "websocketpp/frame.hpp"
#include "websocketpp/http/request.hpp"
#include "websocketpp/http/response.hpp"
#include "websocketpp/logger/stub.hpp"
#include "websocketpp/processors/hybi00.hpp"
#include "websocketpp/processors/hybi13.hpp"
#include "websocketpp/transport/base/connection.hpp"

namespace presence::edge::websocketpp_policies {

// What the call into an engine that is running on this thread allows. Calls nest: a handler of one engine may feed
// another.
struct CallRules {
  // Of a message that arrives.
  size_t payload_bytes_max = std::numeric_limits<size_t>::max();
  const void* reader = nullptr;     // the engine that they are for
  bool await_close_answer = false;  // websocketpp would end at once after sending 1002, 1007, 1008, 1009 or 1011
};
inline thread_local CallRules call_rules;

class ScopedCallRules {
 public:
  explicit ScopedCallRules(CallRules rules) : outer_(std::exchange(call_rules, rules)) {}
  ~ScopedCallRules() { call_rules = outer_; }
  ScopedCallRules(const ScopedCallRules&) = delete;
  ScopedCallRules& operator=(const ScopedCallRules&) = delete;

 private:
  const CallRules outer_;
};

class Message;

// Counts references without atomics: a message never leaves the call, or the connection, that it was made for.
class MessagePtr {
 public:
  MessagePtr() = default;
  explicit MessagePtr(Message* message);
  MessagePtr(const MessagePtr& other);
  MessagePtr(MessagePtr&& other) noexcept : message_(std::exchange(other.message_, nullptr)) {}
  MessagePtr& operator=(MessagePtr other) noexcept {
    std::swap(message_, other.message_);
    return *this;
  }
  ~MessagePtr() { reset(); }

  void reset();
  Message* operator->() const { return message_; }
  explicit operator bool() const { return message_ != nullptr; }

 private:
  Message* message_ = nullptr;
};

// Where the connection of any engine on this thread gets its messages. websocketpp makes one per connection and holds
// on to it; `ptr` drops that one and goes to the pool of the thread instead.
class MessageSource {
 public:
  class ptr {
   public:
    explicit ptr(MessageSource* made) { delete made; }
    const MessageSource* operator->() const { return &shared_; }

   private:
    static const MessageSource shared_;
  };

  MessagePtr get_message() const;
  MessagePtr get_message(websocketpp::frame::opcode::value opcode, size_t size) const;
};
inline const MessageSource MessageSource::ptr::shared_;

class Message {
 public:
  using ptr = MessagePtr;
  using Opcode = websocketpp::frame::opcode::value;

  bool get_prepared() const { return prepared_; }
  void set_prepared(bool prepared) { prepared_ = prepared; }
  bool get_compressed() const { return false; }
  void set_compressed(bool) {}
  bool get_fin() const { return true; }
  bool get_terminal() const { return terminal_; }
  void set_terminal(bool terminal) { terminal_ = terminal && !call_rules.await_close_answer; }
  Opcode get_opcode() const { return opcode_; }
  void set_opcode(Opcode opcode) { opcode_ = opcode; }
  const std::string& get_header() const { return header_; }
  void set_header(const std::string& header) { header_ = header; }
  const std::string& get_payload() const { return payload_; }
  void append_payload(const void* bytes, size_t size) { payload_.append(static_cast<const char*>(bytes), size); }
  // websocketpp appends what it reads to this string, at most one read buffer at a time, and has checked the length in
  // the header before; this is for what it may have overlooked.
  std::string& get_raw_payload() {
    if (payload_.size() > payload_bytes_max_) {
      throw websocketpp::exception(
          websocketpp::processor::error::make_error_code(websocketpp::processor::error::message_too_big));
    }
    return payload_;
  }

 private:
  friend class MessagePtr;
  friend class MessageSource;
  friend class MessagePool;

  uint32_t references_ = 0;
  Opcode opcode_ = websocketpp::frame::opcode::continuation;
  bool prepared_ = false;
  bool terminal_ = false;
  size_t payload_bytes_max_ = 0;
  std::string header_;  // at most 14 bytes, inside the string itself
  std::string payload_;
  Message* next_free_ = nullptr;
};

// Keeps a few spare messages per thread, so that reading one in the steady state allocates nothing.
class MessagePool {
 public:
  static MessagePtr Take() {
    Message* message = spare_.first;
    if (message == nullptr) return MessagePtr(new Message);
    spare_.first = message->next_free_;
    --spare_.count;
    message->prepared_ = false;
    message->terminal_ = false;
    message->header_.clear();
    message->payload_.clear();
    return MessagePtr(message);
  }

  static void Return(Message* message) {
    thread_local Cleaner cleaner;
    if (spare_.count >= kSpareMax || message->payload_.capacity() > kPayloadKeptBytesMax) {
      delete message;
      return;
    }
    message->next_free_ = std::exchange(spare_.first, message);
    ++spare_.count;
  }

 private:
  // Inbound, its answer, a fragmented message around them; twice that for engines that feed each other.
  static constexpr uint32_t kSpareMax = 8;
  static constexpr size_t kPayloadKeptBytesMax = 16 * 1024;

  struct Spare {
    Message* first;
    uint32_t count;
  };
  struct Cleaner {
    // At the end of the thread. An engine that outlives it finds a full pool, and frees.
    ~Cleaner() {
      while (Message* message = spare_.first) {
        spare_.first = message->next_free_;
        delete message;
      }
      spare_.count = kSpareMax;
    }
  };
  static inline thread_local Spare spare_ = {nullptr, 0};
};

inline MessagePtr::MessagePtr(Message* message) : message_(message) {
  ++message_->references_;
}
inline MessagePtr::MessagePtr(const MessagePtr& other) : message_(other.message_) {
  if (message_ != nullptr) ++message_->references_;
}
inline void MessagePtr::reset() {
  Message* message = std::exchange(message_, nullptr);
  if (message != nullptr && --message->references_ == 0) MessagePool::Return(message);
}

inline MessagePtr MessageSource::get_message() const {
  MessagePtr message = MessagePool::Take();
  message->payload_bytes_max_ = std::numeric_limits<size_t>::max();
  return message;
}

inline MessagePtr MessageSource::get_message(websocketpp::frame::opcode::value opcode, size_t size) const {
  // `size` is what a frame's header says; a peer gets that much memory only by sending that much.
  constexpr size_t kReservedBytesMax = 4096;
  MessagePtr message = MessagePool::Take();
  message->opcode_ = opcode;
  message->payload_bytes_max_ = websocketpp::frame::opcode::is_control(opcode)
                                    ? websocketpp::frame::limits::payload_size_basic
                                    : call_rules.payload_bytes_max;
  message->payload_.reserve(std::min(size, kReservedBytesMax));
  return message;
}

// The opening handshake's HTTP objects: websocketpp's own, behind a pointer, because a connection needs them for one
// millisecond of its hours. After Release nothing may be asked of them. raw() is empty, since websocketpp would keep
// the result as long as the connection lives; the transport sends Serialize() instead.
class Request {
 public:
  size_t consume(const char* bytes, size_t size);
  bool ready() const { return open_->parsed.ready(); }
  const std::string& get_header(const std::string& name) const { return open_->parsed.get_header(name); }
  bool get_header_as_plist(const std::string& name, websocketpp::http::parameter_list& out) const {
    return open_->parsed.get_header_as_plist(name, out);
  }
  const std::string& get_method() const { return open_->parsed.get_method(); }
  const std::string& get_uri() const { return open_->parsed.get_uri(); }
  const std::string& get_version() const { return open_->parsed.get_version(); }
  const std::string& get_body() const { return open_->parsed.get_body(); }
  void append_header(const std::string& name, const std::string& value) { open_->parsed.append_header(name, value); }
  void replace_header(const std::string& name, const std::string& value) { open_->parsed.replace_header(name, value); }
  void remove_header(const std::string& name) { open_->parsed.remove_header(name); }
  void set_method(const std::string& method) { open_->parsed.set_method(method); }
  void set_uri(const std::string& uri) { open_->parsed.set_uri(uri); }
  void set_version(const std::string& version) { open_->parsed.set_version(version); }
  std::string raw() const { return {}; }

  std::string Serialize() const { return open_->parsed.raw(); }
  void Release() { open_.reset(); }

 private:
  struct Open {
    Open() { parsed.set_max_body_size(0); }  // an upgrade has no body
    std::string head;
    websocketpp::http::parser::request parsed;
  };
  std::unique_ptr<Open> open_ = std::make_unique<Open>();
};

class Response {
 public:
  size_t consume(const char* bytes, size_t size) { return parsed_->consume(bytes, size); }
  bool headers_ready() const { return parsed_->headers_ready(); }
  const std::string& get_header(const std::string& name) const { return parsed_->get_header(name); }
  bool get_header_as_plist(const std::string& name, websocketpp::http::parameter_list& out) const {
    return parsed_->get_header_as_plist(name, out);
  }
  const std::string& get_body() const { return parsed_->get_body(); }
  websocketpp::http::status_code::value get_status_code() const { return parsed_->get_status_code(); }
  void append_header(const std::string& name, const std::string& value) { parsed_->append_header(name, value); }
  void replace_header(const std::string& name, const std::string& value) { parsed_->replace_header(name, value); }
  void remove_header(const std::string& name) { parsed_->remove_header(name); }
  void set_version(const std::string& version) { parsed_->set_version(version); }
  void set_status(websocketpp::http::status_code::value code) { set_status(code, {}); }
  void set_status(websocketpp::http::status_code::value code, const std::string& reason);
  std::string raw() const { return {}; }

  std::string Serialize() const { return parsed_->raw(); }
  void Release() { parsed_.reset(); }

 private:
  std::unique_ptr<websocketpp::http::parser::response> parsed_ =
      std::make_unique<websocketpp::http::parser::response>();
};

// Keys for masks and handshakes: a peer's scripts must not foresee them (RFC 6455, section 10.3).
struct RandomNumbers {
  uint32_t operator()() const {
    thread_local std::array<uint32_t, 64> numbers;
    thread_local size_t used = numbers.size();
    if (used == numbers.size()) {
      if (RAND_bytes(reinterpret_cast<unsigned char*>(numbers.data()), sizeof(numbers)) != 1) {
        throw websocketpp::exception("no random numbers");
      }
      used = 0;
    }
    return numbers[used++];
  }
};

// websocketpp's place for a timer, of which there is none.
struct NoTimer {
  explicit operator bool() const { return false; }
  NoTimer* operator->() { return this; }
  void reset() {}
  void cancel() {}
};

constexpr size_t kReadBufferBytes = 128;

class Transport {
 public:
  using type = Transport;
  using ptr = std::shared_ptr<Transport>;
  using timer_ptr = NoTimer;
  using LogPtr = std::shared_ptr<websocketpp::log::stub>;

  Transport(bool is_server, const LogPtr&, const LogPtr&) : is_server_(is_server) {}

  void set_output(WebsocketEngineHandler* output) { output_ = output; }

  // Hands over what was read, one read buffer after the other. Stops at the end of the connection.
  void Feed(std::string_view bytes);

  // The rest is called by websocketpp. Everything completes at once.
  ptr get_shared() { return ptr(ptr(), this); }
  bool is_secure() const { return false; }
  void set_handle(const websocketpp::connection_hdl&) {}
  std::string get_remote_endpoint() const { return {}; }

  template <typename Handler>
  NoTimer set_timer(long, Handler&&) {  // NOLINT(google-runtime-int): websocketpp's interface
    return {};
  }

 protected:
  using ReadHandler = websocketpp::transport::read_handler;
  using WriteHandler = websocketpp::transport::write_handler;

  template <typename Handler>
  void init(Handler&& handler) {
    handler(websocketpp::lib::error_code());
  }
  template <typename Handler>
  websocketpp::lib::error_code dispatch(Handler&& handler) {
    handler();
    return {};
  }
  template <typename Handler>
  void async_shutdown(Handler&& handler) {
    shut_down_ = true;
    handler(websocketpp::lib::error_code());
  }

  // The handler of an open connection is a member of it, and passed as such: no copy of it is made.
  void async_read_at_least(size_t, char* buffer, size_t, const ReadHandler& handler) {
    buffer_ = buffer;
    steady_handler_ = &handler;
  }
  // Those of the handshake are temporaries.
  void async_read_at_least(size_t, char* buffer, size_t, ReadHandler&& handler) {
    buffer_ = buffer;
    opening_handler_ = std::make_unique<ReadHandler>(std::move(handler));
  }
  // The handshake, whose bytes are here without being in the arguments (see Request).
  void async_write(const char*, size_t, const WriteHandler& handler);
  void async_write(const std::vector<websocketpp::transport::buffer>& buffers, const WriteHandler& handler);

 private:
  WebsocketEngineHandler* output_ = nullptr;
  char* buffer_ = nullptr;  // of kReadBufferBytes
  const ReadHandler* steady_handler_ = nullptr;
  std::unique_ptr<ReadHandler> opening_handler_;
  const bool is_server_;
  bool shut_down_ = false;
};

struct Config {
  using type = Config;
  using concurrency_type = websocketpp::concurrency::none;
  using request_type = Request;
  using response_type = Response;
  using message_type = Message;
  using con_msg_manager_type = MessageSource;
  using elog_type = websocketpp::log::stub;
  using alog_type = websocketpp::log::stub;
  using rng_type = RandomNumbers;
  using connection_base = websocketpp::connection_base;
  struct transport_type {
    using transport_con_type = Transport;
  };
  struct permessage_deflate_config {};
  using permessage_deflate_type = websocketpp::extensions::permessage_deflate::disabled<permessage_deflate_config>;

  static constexpr bool enable_multithreading = false;
  static constexpr long timeout_open_handshake = 0;   // NOLINT(google-runtime-int)
  static constexpr long timeout_close_handshake = 0;  // NOLINT(google-runtime-int)
  static constexpr long timeout_pong = 0;             // NOLINT(google-runtime-int)
  static constexpr int client_version = 13;
  static constexpr size_t connection_read_buffer_size = kReadBufferBytes;
  static constexpr bool drop_on_protocol_error = false;
  static constexpr bool silent_close = false;
  static constexpr size_t max_message_size = 64 * 1024;  // each engine sets its own
  // None is implemented here; "false" would make a client refuse every server.
  static constexpr bool enable_extensions = true;
};

}  // namespace presence::edge::websocketpp_policies

// websocketpp answers a length that is not written in the fewest bytes with 1011, as if it were our fault, and adds the length of a further
// fragment without looking for overflow: near 2^64 it would wait for that much instead of refusing it. This knows the bound.
template <>
inline websocketpp::lib::error_code
websocketpp::processor::hybi13<presence::edge::websocketpp_policies::Config>::validate_incoming_extended_header(
    frame::basic_header basic, frame::extended_header extended) const {
  const uint8_t code = frame::get_basic_size(basic);
  if (code != frame::payload_size_code_16bit && code != frame::payload_size_code_64bit) return {};
  const uint64_t length = frame::get_payload_size(basic, extended);
  const uint64_t shorter_max =
      code == frame::payload_size_code_16bit ? frame::limits::payload_size_basic : frame::limits::payload_size_extended;
  if (length <= shorter_max) return error::make_error_code(error::protocol_violation);
  if (length > presence::edge::websocketpp_policies::call_rules.payload_bytes_max) {
    return error::make_error_code(error::message_too_big);
  }
  return {};
}

// The oldest draft's processor is never made, since Request refuses that version; as it is written it would need HTTP
// objects that can be copied.
template <>
class websocketpp::processor::hybi00<presence::edge::websocketpp_policies::Config>
    : public hybi13<presence::edge::websocketpp_policies::Config> {
 public:
  hybi00(bool secure, bool is_server, msg_manager_ptr messages) : hybi13(secure, is_server, messages, random_) {}

 private:
  static inline presence::edge::websocketpp_policies::RandomNumbers random_;
};

// The queue of frames to be written. It holds one for a moment, because writes complete at once; libstdc++'s, on a
// deque, allocates 576 bytes for being empty.
template <>
class std::queue<presence::edge::websocketpp_policies::MessagePtr> {
 public:
  using value_type = presence::edge::websocketpp_policies::MessagePtr;
  bool empty() const { return messages_.empty(); }
  size_t size() const { return messages_.size(); }
  value_type& front() { return messages_.front(); }
  void push(const value_type& message) { messages_.push_back(message); }
  void pop() { messages_.erase(messages_.begin()); }

 private:
  std::vector<value_type> messages_;
};
