#include "edge/websocket_engine.h"

#include <exception>

#include "edge/websocketpp_policies.h"
#include "websocketpp/connection.hpp"

namespace presence::edge {
namespace websocketpp_policies {

using Connection = websocketpp::connection<Config>;
namespace status_code = websocketpp::http::status_code;

void Transport::Feed(std::string_view bytes) {
  while (!bytes.empty() && !shut_down_) {
    const ReadHandler* const steady = std::exchange(steady_handler_, nullptr);
    const std::unique_ptr<ReadHandler> opening = std::move(opening_handler_);
    const ReadHandler* const handler = steady != nullptr ? steady : opening.get();
    if (handler == nullptr) return;  // a client that was not started
    const size_t size = std::min(bytes.size(), kReadBufferBytes);
    std::memcpy(buffer_, bytes.data(), size);
    bytes.remove_prefix(size);
    (*handler)(websocketpp::lib::error_code(), size);
  }
}

void Transport::async_write(const char*, size_t, const WriteHandler& handler) {
  const auto& connection = *static_cast<Connection*>(this);
  output_->OnOutput(is_server_ ? connection.get_response().Serialize() : connection.get_request().Serialize());
  handler(websocketpp::lib::error_code());
}

void Transport::async_write(const std::vector<websocketpp::transport::buffer>& buffers, const WriteHandler& handler) {
  // A control frame, or a small message, goes out in one piece: its header is a buffer of its own.
  std::array<char, 1024> joined;
  size_t joined_bytes = 0;
  for (const websocketpp::transport::buffer& buffer : buffers) {
    if (joined_bytes + buffer.len > joined.size()) {
      if (joined_bytes > 0) output_->OnOutput({joined.data(), joined_bytes});
      joined_bytes = 0;
      if (buffer.len > joined.size()) {
        output_->OnOutput({buffer.buf, buffer.len});
        continue;
      }
    }
    std::memcpy(joined.data() + joined_bytes, buffer.buf, buffer.len);
    joined_bytes += buffer.len;
  }
  if (joined_bytes > 0) output_->OnOutput({joined.data(), joined_bytes});
  handler(websocketpp::lib::error_code());
}

namespace {

// Sixteen bytes in base64 (RFC 6455, section 4.2.1). websocketpp takes any text.
bool IsHandshakeKey(std::string_view key) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return key.size() == 24 && key.substr(22) == "==" &&
         key.substr(0, 22).find_first_not_of(kAlphabet) == std::string_view::npos;
}

}  // namespace

// websocketpp's parser is asked once, with the whole head: fed in small pieces it counts bytes twice and searches a
// long line again and again. What an exception says from here becomes the response.
size_t Request::consume(const char* bytes, size_t size) {
  constexpr std::string_view kEnd = "\r\n\r\n";
  std::string& head = open_->head;
  const size_t before = head.size();
  const size_t search_from = before < kEnd.size() ? 0 : before - (kEnd.size() - 1);
  head.append(bytes, size);
  const size_t end = head.find(kEnd, search_from);
  if (end == std::string::npos) {
    if (head.size() > websocketpp::http::max_header_size) {
      throw websocketpp::http::exception("head too long", status_code::request_header_fields_too_large);
    }
    return size;
  }
  head.resize(end + kEnd.size());
  open_->parsed.consume(head.data(), head.size());
  // websocketpp also speaks two drafts that frame differently, and takes an upgrade without a version for one of them.
  if (!websocketpp::processor::is_websocket_handshake(open_->parsed) || get_header("Sec-WebSocket-Version") != "13") {
    throw websocketpp::http::exception("not version 13", status_code::upgrade_required);
  }
  if (!IsHandshakeKey(get_header("Sec-WebSocket-Key"))) {
    throw websocketpp::http::exception("bad key", status_code::bad_request);
  }
  return head.size() - before;
}

void Response::set_status(status_code::value code, const std::string& reason) {
  parsed_->set_status(code, reason.empty() ? status_code::get_string(code) : reason);
  if (code == status_code::switching_protocols) return;
  parsed_->replace_header("Content-Length", "0");
  parsed_->replace_header("Connection", "close");
  if (code == status_code::upgrade_required) {  // RFC 9110, section 15.5.22, and RFC 6455, section 4.4
    parsed_->replace_header("Connection", "Upgrade, close");
    parsed_->replace_header("Upgrade", "websocket");
    parsed_->replace_header("Sec-WebSocket-Version", "13");
  }
}

}  // namespace websocketpp_policies

namespace {

using websocketpp::lib::error_code;
using websocketpp_policies::CallRules;
using websocketpp_policies::Connection;
using websocketpp_policies::MessagePtr;
using websocketpp_policies::ScopedCallRules;
namespace close_status = websocketpp::close::status;
namespace opcode = websocketpp::frame::opcode;

// Whether the last character lacks bytes, in text that is valid so far. websocketpp forgets to look at the end of a
// message in several fragments.
bool EndsInsideCharacter(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return false;
    if (byte >= 0xC0) return back < (byte >= 0xF0 ? 4u : byte >= 0xE0 ? 3u : 2u);
  }
  return false;
}

// At most 123 bytes, whole characters: with the code, what fits into a control frame (RFC 6455, section 5.5).
std::string_view CutReason(std::string_view reason) {
  if (reason.size() <= websocketpp::frame::limits::close_reason_size) return reason;
  size_t size = websocketpp::frame::limits::close_reason_size;
  while (size > 0 && (static_cast<unsigned char>(reason[size]) & 0xC0) == 0x80) --size;
  return reason.substr(0, size);
}

bool MaySend(uint16_t code) {
  return !close_status::invalid(code) && !close_status::reserved(code);
}

class Engine final : public WebsocketEngine {
 public:
  Engine(const WebsocketServerOptions& options, WebsocketEngineHandler& handler) : Engine(true, handler) {
    connection_.set_max_message_size(options.message_bytes_max);
    if (!options.subprotocol.empty()) subprotocol_ = std::make_unique<std::string>(options.subprotocol);
    connection_.set_validate_handler([this](const websocketpp::connection_hdl&) { return SelectSubprotocol(); });
    Guarded([this] { connection_.start(); });
  }

  Engine(const WebsocketClientOptions& options, WebsocketEngineHandler& handler) : Engine(false, handler) {
    connection_.set_max_message_size(options.message_bytes_max);
    try {
      const auto uri = std::make_shared<websocketpp::uri>(options.uri);
      if (!uri->get_valid()) return;
      connection_.set_uri(uri);
      for (const auto& [name, value] : options.headers) connection_.append_header(name, value);
      for (const std::string& offered : options.subprotocols) connection_.add_subprotocol(offered);
      startable_ = true;
    } catch (const std::exception&) {
      // Not startable: a header or subprotocol that may not be sent.
    }
  }

  void Start() override {
    if (is_server()) return;
    Guarded([this] {
      if (startable_) {
        connection_.start();
      } else {
        connection_.terminate(websocketpp::error::make_error_code(websocketpp::error::invalid_uri));
      }
    });
  }

  void Feed(std::string_view bytes) override {
    if (ended_) return;
    Guarded([this, bytes] {
      connection_.Feed(bytes);
      if (!is_server() && !ended_) EndClientAfterCloseFrames();
    });
  }

  void Eof() override {
    Guarded([this] {
      connection_.terminate(websocketpp::transport::error::make_error_code(websocketpp::transport::error::eof));
    });
  }

  void Close(uint16_t code, std::string_view reason) override {
    if (connection_.get_state() != websocketpp::session::state::open) return;
    close_code_ = MaySend(code) ? code : close_status::internal_endpoint_error;
    CallRules wait_for_answer;
    wait_for_answer.await_close_answer = true;
    const ScopedCallRules rules(wait_for_answer);
    GuardedUnderRules([&] {
      error_code ec;
      connection_.close(close_code_, std::string(CutReason(reason)), ec);
    });
  }

  void SendText(std::string_view text) override {
    const ScopedCallRules rules(CallRules{});
    GuardedUnderRules([&] { connection_.send(text.data(), text.size(), opcode::text); });
  }

  void LimitMessages(size_t bytes_max) override {
    connection_.set_max_message_size(bytes_max);
    // Called from inside Feed it is for the frames behind the one that is reported, too.
    if (websocketpp_policies::call_rules.reader == this) websocketpp_policies::call_rules.payload_bytes_max = bytes_max;
  }

  void SendPing(std::string_view payload) override {
    Guarded([&] {
      error_code ec;
      connection_.ping(std::string(payload), ec);
    });
  }

 private:
  Engine(bool is_server, WebsocketEngineHandler& handler)
      : handler_(handler), connection_(is_server, std::string(), no_log_, no_log_, random_) {
    connection_.set_output(&handler);
    using Handle = websocketpp::connection_hdl;
    connection_.set_open_handler([this](const Handle&) { OnOpen(); });
    connection_.set_message_handler([this](const Handle&, const MessagePtr& m) { OnMessage(m); });
    connection_.set_ping_handler([this](const Handle&, const std::string& payload) {
      error_code ec;
      connection_.pong(payload, ec);  // now, not after the handler: it may close
      handler_.OnControlFrame();
      return false;
    });
    connection_.set_pong_handler([this](const Handle&, const std::string&) { handler_.OnControlFrame(); });
    connection_.set_close_handler([this](const Handle&) { OnEnded(); });
    connection_.set_fail_handler([this](const Handle&) { OnEnded(); });
  }

  bool is_server() const { return connection_.is_server(); }

  bool SelectSubprotocol() {
    if (subprotocol_ == nullptr) return true;
    error_code ec;
    connection_.select_subprotocol(*subprotocol_, ec);
    return !ec;
  }

  void OnOpen() {
    ReleaseHandshake();
    handler_.OnOpen();
  }

  // Some 1.5 KB that a connection would keep for its whole life. websocketpp hands out constant references only, to
  // members that are not constant, and looks at none of them any more.
  void ReleaseHandshake() {
    const_cast<websocketpp_policies::Request&>(connection_.get_request()).Release();
    const_cast<websocketpp_policies::Response&>(connection_.get_response()).Release();
    std::vector<std::string>().swap(const_cast<std::vector<std::string>&>(connection_.get_requested_subprotocols()));
    connection_.set_uri(nullptr);
    subprotocol_.reset();
  }

  void OnMessage(const MessagePtr& message) {
    const std::string& payload = message->get_payload();
    if (message->get_opcode() == opcode::binary) {
      handler_.OnMessage(MessageKind::kBinary, payload);
    } else if (EndsInsideCharacter(payload)) {
      FailOpen(close_status::invalid_payload, "Invalid UTF8 encoding");
    } else {
      handler_.OnMessage(MessageKind::kText, payload);
    }
  }

  void FailOpen(close_status::value code, const std::string& reason) {
    error_code ec;
    connection_.close(code, reason, ec);
  }

  // websocketpp leaves a client open until the server ends the stream; here the close frames are the end.
  void EndClientAfterCloseFrames() {
    const bool answered = connection_.get_remote_close_code() != close_status::abnormal_close;
    if (connection_.get_state() == websocketpp::session::state::closing &&
        (answered || close_code_ == close_status::abnormal_close)) {
      connection_.terminate(error_code());
    }
  }

  void OnEnded() {
    if (ended_) return;
    ended_ = true;
    if (close_code_ == close_status::abnormal_close) {
      // A close without a code is answered with 1000, an invalid one with 1002, any other with its own code.
      const bool without_code = connection_.get_remote_close_code() == close_status::no_status &&
                                connection_.get_local_close_code() == close_status::normal;
      close_code_ = without_code ? close_status::no_status : connection_.get_local_close_code();
    }
    handler_.OnEnded(close_code_);
  }

  template <typename Call>
  void Guarded(Call&& call) {
    CallRules reading;
    reading.payload_bytes_max = connection_.get_max_message_size();
    reading.reader = this;
    const ScopedCallRules rules(reading);
    GuardedUnderRules(call);
  }

  // No exception leaves the engine. What throws in the middle leaves websocketpp without a read handler: say so to the
  // peer if that is possible, and end.
  template <typename Call>
  void GuardedUnderRules(Call&& call) {
    close_status::value code = close_status::internal_endpoint_error;
    try {
      call();
      return;
    } catch (const websocketpp::exception& e) {
      if (e.code().category() == websocketpp::processor::error::get_processor_category()) {
        code = websocketpp::processor::error::to_ws(e.code());
      }
    } catch (const std::exception&) {
      // The code above says enough.
    }
    try {
      FailOpen(code, std::string());
      if (!ended_) connection_.terminate(websocketpp::error::make_error_code(websocketpp::error::general));
    } catch (const std::exception&) {
      OnEnded();
    }
  }

  static inline const std::shared_ptr<websocketpp::log::stub> no_log_ = std::make_shared<websocketpp::log::stub>();
  static inline websocketpp_policies::RandomNumbers random_;

  WebsocketEngineHandler& handler_;
  std::unique_ptr<std::string> subprotocol_;  // until the handshake is over
  uint16_t close_code_ = close_status::abnormal_close;
  bool startable_ = false;
  bool ended_ = false;
  Connection connection_;
};

}  // namespace

std::unique_ptr<WebsocketEngine> WebsocketEngine::Server(const WebsocketServerOptions& options,
                                                         WebsocketEngineHandler& handler) {
  return std::make_unique<Engine>(options, handler);
}

std::unique_ptr<WebsocketEngine> WebsocketEngine::Client(const WebsocketClientOptions& options,
                                                         WebsocketEngineHandler& handler) {
  return std::make_unique<Engine>(options, handler);
}

}  // namespace presence::edge
