// The links that are up, and what is under way on each.
//
// Lives on the hub's thread. Walks in the order of link ids, so that what the hub says has one order. A link belongs to at most one
// shard, and a shard to at most one link; the pointers between them are kept by whoever changes them (Hub::State).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "common/time.h"
#include "core/connection_table.h"
#include "core/hub.h"
#include "core/missed_changes.h"
#include "core/presence_ledger.h"

namespace presence::core {

struct Link {
  enum class Phase : uint8_t { kNew, kResync, kLive };  // before Hello; before ResyncDone; after it

  LinkId id;
  Phase phase = Phase::kNew;
  // Of a shard that only looked, and was welcomed: it comes with the event behind that, and was told of no presence until then.
  std::unique_ptr<link::v1::Hello> offered;
  Shard* shard = nullptr;       // since Hello, or since the event behind an offer
  SteadyTime last_event;        // by arrival
  SteadyTime last_command;      // seen at ticks
  bool spoken = false;          // since the last tick
  uint64_t last_sequence = 0;   // of the shard's events; applied, but for those in `awaiting`
  uint64_t first_sequence = 0;  // the first of them on this link
  uint64_t acknowledged = 0;
  std::set<uint64_t> joins_waiting;            // sequences of joins that wait for a right: not acknowledged
  std::deque<PresenceLedger::Await> awaiting;  // by sequence; bounded by HubOptions::awaiting_max
  std::vector<ConnectionTable::Ref>
      missing;              // entries that the store does not have; re-asserted when the link proves alive
  uint64_t watermark = 0;   // of presence, as the shard said in Hello, or was told in Welcome
  uint64_t heard_from = 0;  // of presence, when the shard came: what is newer and delivered went to this link, too
  MissedChanges missed;
  uint64_t passed_on = 0;  // the watermark that the shard knows of
  SteadyTime passed_on_at;
  SteadyTime seek_again_at;  // not before this is the shard told to look for another core
};

class LinkTable {
 public:
  explicit LinkTable(HubOutput& output, HubCounters& counters) : output_(output), counters_(counters) {}

  Link& Add(Now now, LinkId id) {
    Link& link = links_[id];
    link.id = id;
    link.last_event = link.last_command = now.steady;
    return link;
  }
  Link* Find(LinkId id) {
    const auto found = links_.find(id);
    return found == links_.end() ? nullptr : &found->second;
  }
  void Erase(LinkId id) { links_.erase(id); }

  // A command to be filled in before the next call.
  link::v1::CoreCommand& Command(Link& link) {
    link.spoken = true;
    ++counters_.commands;
    return output_.AddCommand(link.id);
  }

  std::map<LinkId, Link>::iterator begin() { return links_.begin(); }
  std::map<LinkId, Link>::iterator end() { return links_.end(); }
  size_t size() const { return links_.size(); }

 private:
  HubOutput& output_;
  HubCounters& counters_;
  std::map<LinkId, Link> links_;
};

}  // namespace presence::core
