// MemoryDatabase::Dump: the keys and values that the scripts would leave in Redis.
#include "common/json.h"
#include "core/core_text.h"
#include "core/memory_database.h"

namespace presence::core {
namespace {

void AppendField(std::string_view field, std::string_view value, std::string* out) {
  out->append("\n").append(field).append("=").append(value);
}

}  // namespace

std::map<std::string, std::string> MemoryDatabase::Dump() {
  DropLapsed();
  std::map<std::string, std::string> keys;
  const auto begin = [&](const std::string& key, std::string_view type) -> std::string& {
    return keys[key] = std::string(type).append(expiries_.contains(key) ? " mortal" : " immortal");
  };
  for (const auto& [key, text] : texts_) AppendField("", text, &begin(key, "string"));

  for (const auto& [user_id, user] : users_) {
    std::map<std::string, std::string> fields;
    for (const auto& [name, entry] : user.entries) {
      std::string& value = fields[name];
      value =
          std::to_string(entry.attach) + " " + std::to_string(entry.deadline_ms) + " " + std::to_string(entry.status);
      if (entry.lingers) value.append(1, '-');
      for (const std::string& room : entry.room_ids) value.append(1, '\0').append(room);
    }
    fields["state"] = std::to_string(user.status) + " " + std::to_string(user.version) + " " +
                      std::to_string(user.last_seen_ms) + " " + std::to_string(user.changed_ms) + " " +
                      user.connection_name;
    if (!user.username.empty()) fields["username"] = user.username;
    if (user.held != link::v1::STATUS_UNSPECIFIED) {
      fields["held"] = std::to_string(user.held) + " " + std::to_string(user.held_until_ms);
    }
    // Escaped texts are kept only where escaping changes something.
    if (std::string text = JsonString(user_id); text.size() != user_id.size() + 2) fields["user_json"] = text;
    if (std::string text = JsonString(user.username); text.size() != user.username.size() + 2) {
      fields["username_json"] = text;
    }
    std::string& out = begin("presence.user:" + user_id, "hash");
    for (const auto& [field, value] : fields) AppendField(field, value, &out);
  }

  if (!deadlines_.empty()) {
    std::string& out = begin("presence.deadlines", "zset");
    for (const auto& [user_id, deadline_ms] : deadlines_) AppendField(user_id, std::to_string(deadline_ms), &out);
  }
  if (!online_.empty()) {
    std::string& out = begin("presence.online", "zset");
    for (const std::string& user_id : online_) AppendField(user_id, "0", &out);
  }
  if (!changes_.empty()) {
    std::string& out = begin("presence.changes", "zset");
    for (const auto& [user_id, version] : changes_) AppendField(user_id, std::to_string(version), &out);
  }
  if (!cores_.empty()) {
    std::string& out = begin("presence.cores", "zset");
    for (const auto& [core, announced_ms] : cores_) AppendField(FormatCore(core), std::to_string(announced_ms), &out);
  }
  if (!logouts_.empty()) {
    std::string& out = begin("presence.logouts", "zset");
    for (const auto& [name, kept_us] : logouts_) AppendField(name, std::to_string(kept_us), &out);
  }
  for (const auto& [room_id, room] : rooms_) {
    std::string numbers;
    for (const uint64_t number :
         {room.position.epoch, room.position.sequence, room.bytes, room.gone, static_cast<uint64_t>(room.marked_ms),
          room.mark.epoch, room.mark.sequence, room.mark_bytes, room.previous.epoch, room.previous.sequence}) {
      numbers.append(std::to_string(number)).append(" ");
    }
    AppendField("", numbers, &begin("presence.room:" + room_id, "string"));
  }
  for (const auto& [room_id, log] : logs_) {
    std::map<std::string, std::string> entries;
    for (const LogEntry& entry : log) {
      std::string id = std::to_string(entry.envelope.room_epoch());
      id.append("-").append(std::to_string(entry.envelope.room_sequence()));
      entries[id] = "e " + entry.envelope.SerializeAsString() + " b " + std::to_string(entry.upto);
    }
    std::string& out = begin("presence.log:" + room_id, "stream");
    for (const auto& [id, value] : entries) AppendField(id, value, &out);
  }
  if (data_since_us_ != 0) AppendField("", std::to_string(data_since_us_), &begin("presence.rooms", "string"));
  if (sweep_) {
    std::string& out = begin("presence.sweep", "hash");
    AppendField("at", std::to_string(sweep_->at_ms), &out);
    AppendField("began", std::to_string(sweep_->began_us), &out);
    AppendField("quiet_until", std::to_string(sweep_->quiet_until_ms), &out);
  }
  return keys;
}

}  // namespace presence::core
