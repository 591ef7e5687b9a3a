// Messages to rooms and users, and typing: from the API and the shards to the bus, and from the bus to the shards.
#include <algorithm>
#include <charconv>
#include <utility>

#include "core/client_text.h"
#include "core/hub_state.h"

namespace presence::core {
namespace {

constexpr char kOnlyHere[] = "the store did not confirm it: this core's edges have it, others perhaps";
constexpr char kNobodyOrAll[] = "the store did not answer: whether it was sent is not known, repeating it is safe";

// What a repeat of a request_id is answered: "7 0", connections reached and 1 for an incomplete count.
std::string AnswerText(const MessageAnswer& answer) {
  return std::to_string(answer.reached) + (answer.count_incomplete ? " 1" : " 0");
}

// Empty: the first call is still counting.
MessageAnswer ReadAnswer(std::string_view text) {
  MessageAnswer answer;
  answer.repeated = true;
  const char* const end = text.data() + text.size();
  const auto number = std::from_chars(text.data(), end, answer.reached);
  answer.count_incomplete = number.ec != std::errc() || std::string_view(number.ptr, end) != " 0";
  return answer;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------ messages

void Hub::State::OnMessageRequested(Now now, uint64_t request, const MessageRequest& message) {
  const bool to_user = !message.user_id.empty();
  const bool once = !message.request_id.empty();
  link::v1::BusEnvelope envelope;
  const auto fill = [&](uint64_t count_id) {
    if (to_user) {
      link::v1::UserMessage& body = *envelope.mutable_user_message();
      body.set_user_id(message.user_id.data(), message.user_id.size());
      body.set_text(MessageFrame(message.data_json));
      body.set_count_id(count_id);
      return;
    }
    link::v1::RoomMessage& body = *envelope.mutable_message();
    body.set_room_id(message.room_id.data(), message.room_id.size());
    body.set_text(MessageFrame(message.data_json));
    body.set_count_id(count_id);
    body.mutable_excluded_user_ids()->Add(message.excluded_user_ids.begin(), message.excluded_user_ids.end());
  };
  if (!ledger_.store_up()) {
    if (once) {
      // Delivered here alone, a repeat would deliver it twice.
      output_.AnswerMessage(request, absl::UnavailableError("the store is away"), {});
      return;
    }
    // Whatever was published before has been delivered when the store went down, so order holds.
    fill(0);
    ++counters_.delivered_locally;
    DeliverMessage(now, envelope);
    output_.AnswerMessage(request, absl::UnavailableError(kOnlyHere), {});
    return;
  }
  if (publications_.Full() || gathers_.Full()) {
    ++counters_.broadcasts_refused;
    output_.AnswerMessage(request, absl::ResourceExhaustedError("too many messages wait for the store"), {});
    return;
  }
  ++counters_.messages_published;
  Gather gather;
  gather.id = gathers_.NextId();
  gather.request = request;
  gather.deadline = now.steady + options_.gather_max;
  gather.request_id = message.request_id;
  fill(gather.id);
  const uint64_t id = gather.id;
  gathers_.Begin(std::move(gather));
  // Outsiders would show it to those who are excluded; and what is said to one user is not theirs.
  const std::string copy = to_user || !message.excluded_user_ids.empty()
                               ? std::string()
                               : MessageCopy(options_.incarnation, message.room_id, message.data_json);
  if (!to_user && HasLogs()) return Append(message, id, std::move(envelope), copy);
  if (once) {
    envelope.set_core(options_.incarnation);
    publications_.AddOnce(id, envelope);
    store_.PublishOnce(id, message.request_id, message.fingerprint, envelope, copy);
    return;
  }
  const link::v1::BusEnvelope& added = publications_.AddMessage(now.steady, id, std::move(envelope));
  store_.Publish(added.sequence(), added, copy);
}

void Hub::State::OnPublished(Now now, uint64_t id, bool ok) {
  if (id == 0) return;  // the greeting
  const auto gather = publications_.TakeGather(id);
  if (!gather) return;
  if (ok) {
    gathers_.Published(*gather);
  } else {
    DeliverOverdue(now, id);
    gathers_.NotPublished(*gather);
  }
  Settle(now);
}

void Hub::State::OnPublishedOnce(Now now, uint64_t id, const OnceResult& result) {
  using Outcome = OnceResult::Outcome;
  publications_.OnceAnswered(id);
  if (result.outcome == Outcome::kPublished) {
    gathers_.Published(id);
    Settle(now);
    return;
  }
  AnswerUnpublished(now, id, result);
}

void Hub::State::AnswerUnpublished(Now now, uint64_t id, const OnceResult& result) {
  using Outcome = OnceResult::Outcome;
  const std::optional<Gather> gather = gathers_.Take(id);
  if (!gather) return;
  if (gather->request_id.empty()) {
    output_.AnswerMessage(gather->request, absl::UnavailableError(kOnlyHere), {});
    return Settle(now);
  }
  switch (result.outcome) {
    case Outcome::kRepeated:
      ++counters_.requests_repeated;
      return output_.AnswerMessage(gather->request, absl::OkStatus(), ReadAnswer(result.answer));
    case Outcome::kConflict:
      return output_.AnswerMessage(gather->request, absl::AlreadyExistsError("request_id was used for another message"),
                                   {});
    default:
      return output_.AnswerMessage(gather->request, absl::UnavailableError(kNobodyOrAll), {});
  }
}

void Hub::State::AnswerMessage(const Gather& gather) {
  if (gather.end == Gather::End::kUnpublished) {
    output_.AnswerMessage(gather.request, absl::UnavailableError(kOnlyHere), {});
    return;
  }
  MessageAnswer answer;
  answer.reached = gather.reached;
  answer.count_incomplete = gather.end == Gather::End::kTimedOut;
  if (answer.count_incomplete) ++counters_.gathers_incomplete;
  if (!gather.request_id.empty()) store_.SaveAnswer(gather.request_id, AnswerText(answer));
  output_.AnswerMessage(gather.request, absl::OkStatus(), answer);
}

void Hub::State::DeliverOverdue(Now now, uint64_t through) {
  for (const auto* oldest = publications_.Oldest(); oldest != nullptr && oldest->sequence() <= through;
       oldest = publications_.Oldest()) {
    ++counters_.delivered_locally;
    DeliverMessage(now, *oldest);
    publications_.PopOldest();
  }
}

void Hub::State::DeliverMessage(Now now, const link::v1::BusEnvelope& envelope) {
  uint32_t reached = 0;
  uint64_t count_id = 0;
  if (envelope.has_message()) {
    const link::v1::RoomMessage& message = envelope.message();
    reached = fanout_.ToRoom(message.room_id(), message.text(), Fanout::Kind::kMessage, &message.excluded_user_ids());
    count_id = message.count_id();
    if (taps_.any()) Saw(now, link::v1::TAP_KIND_MESSAGE, {}, message.room_id(), message.text());
  } else {
    const link::v1::UserMessage& message = envelope.user_message();
    reached = fanout_.ToUser(message.user_id(), message.text());
    count_id = message.count_id();
    if (taps_.any()) Saw(now, link::v1::TAP_KIND_MESSAGE, message.user_id(), {}, message.text());
  }
  if (count_id != 0 && envelope.core() != 0) ReplyCount(envelope.core(), count_id, reached);
}

// -------------------------------------------------------------------------------------------------------------- typing

absl::Status Hub::State::OnTyping(Now now, Link& link, const link::v1::TypingStarted& typing) {
  if (ConnectionId::Unpack(typing.connection()).shard != link.shard->key.shard) {
    return absl::InvalidArgumentError("a connection of another shard");
  }
  if (!IsValidId(typing.room_id())) return absl::InvalidArgumentError("an id out of bounds");
  if (typing.kind() != link::v1::ROOM_KIND_CHANNEL && typing.kind() != link::v1::ROOM_KIND_DM) {
    return absl::InvalidArgumentError("a room of no kind");
  }
  const ConnectionIndex index = link.shard->Find(typing.connection(), connections_.records());
  if (index == kNoConnection) {
    ++counters_.late_events;
    return absl::OkStatus();
  }
  if (IsHeld(index)) {
    HoldTyping(link, index, typing);
  } else {
    Type(now, link, index, typing.room_id(), typing.kind());
  }
  return absl::OkStatus();
}

void Hub::State::Type(Now now, Link& link, ConnectionIndex index, const std::string& room_id, link::v1::RoomKind kind) {
  if (!MayType(now, link, index, room_id)) return;
  if (ledger_.store_up() && publications_.FullForVolatile()) return;
  const User& user = connections_.user(connections_[index]);
  link::v1::RoomTyping body;
  body.set_room_id(room_id);
  body.set_kind(kind);
  body.set_user_id(user.id);
  body.set_username(user.username);
  SendTyping(now, std::move(body));
}

absl::Status Hub::State::OnTypingRequested(Now now, const link::v1::RoomTyping& typing) {
  if (!ledger_.store_up()) {
    SendTyping(now, typing);
    return absl::UnavailableError(kOnlyHere);
  }
  if (!publications_.FullForVolatile()) SendTyping(now, typing);  // else dropped: it is volatile
  return absl::OkStatus();
}

void Hub::State::SendTyping(Now now, link::v1::RoomTyping typing) {
  if (!ledger_.store_up()) {
    ++counters_.delivered_locally;
    DeliverTyping(now, typing);
    return;
  }
  store_.SetTyping(typing.room_id(), typing.user_id(), typing.username());
  link::v1::BusEnvelope envelope = publications_.NewEnvelope(0);
  *envelope.mutable_typing() = std::move(typing);
  store_.Publish(envelope.sequence(), envelope, {});
}

void Hub::State::DeliverTyping(Now now, const link::v1::RoomTyping& typing) {
  fanout_.ToRoom(typing.room_id(), TypingFrame(typing), Fanout::Kind::kVolatile);
  if (taps_.any()) {
    Saw(now, link::v1::TAP_KIND_TYPING, typing.user_id(), typing.room_id());
  }
}

}  // namespace presence::core
