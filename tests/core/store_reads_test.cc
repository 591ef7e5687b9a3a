// The store contract: reads, the change log, and ids and entries of all kinds.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

// ------------------------------------------------------------------------------------------------ change log

TEST_P(StoreContract, TheChangeLogNamesEachUsersLastChange) {
  BecomeLoud();
  backend_->Advance(seconds(1));
  const std::vector<std::string_view> rooms{"r2", "r1"};
  Write(Device("early", 1));
  backend_->Advance(seconds(1));
  const uint64_t since = NowMicroseconds();
  PresenceWrite write = Device("u1", 2);
  write.room_ids = rooms;
  Write(write);
  Write(Device("u2", 3));
  backend_->Advance(seconds(1));
  const WriteResult offline = Write(Gone("u2", 3));

  const ChangeLog log = Changes(since);
  EXPECT_TRUE(log.complete);
  ASSERT_THAT(log.changes, SizeIs(2));
  EXPECT_EQ(log.changes[0].presence.user_id, "u1");
  EXPECT_EQ(log.changes[0].presence.status, STATUS_ONLINE);
  EXPECT_EQ(log.changes[0].presence.username, "Some Body");
  EXPECT_EQ(log.changes[0].presence.version, since);
  EXPECT_THAT(log.changes[0].room_ids, ElementsAre("r1", "r2"));
  EXPECT_EQ(log.changes[1].presence.user_id, "u2");
  EXPECT_EQ(log.changes[1].presence.status, STATUS_OFFLINE);
  EXPECT_EQ(log.changes[1].presence.version, offline.user_version);
  EXPECT_EQ(log.changes[1].changed_ms, ToUnixMillis(backend_->now()));
}

TEST_P(StoreContract, ALogThatIsTooYoungOrTooShortGivesWhomItNamesAndEverybodyElse) {
  Write(Device("early", 3));
  Write(Gone("early", 3));
  Write(Device("u1", 1));
  backend_->Advance(seconds(1));
  // Nobody has swept yet: what the log held before is unknown.
  const auto users = [&](const ChangeLog& log) {
    EXPECT_FALSE(log.complete);
    std::vector<std::string> lines;
    for (const StoredChange& change : log.changes) {
      lines.push_back(change.presence.user_id + " " + std::string(StatusName(change.presence.status)));
    }
    return lines;
  };
  EXPECT_THAT(users(Changes(NowMicroseconds())), ElementsAre("u1 online"));
  const uint64_t since_u2 = NowMicroseconds();
  Write(Device("u2", 2));
  const uint64_t version = Write(Gone("u2", 2)).user_version;
  EXPECT_THAT(users(Changes(since_u2)), ElementsAre("u2 offline", "u1 online"));
  EXPECT_EQ(Changes(since_u2).changes[0].presence.version, version);
  EXPECT_THAT(users(Changes(0)), ElementsAre("u1 online", "early offline", "u2 offline")) << "each user once";
  PassTime(seconds(30));
  const uint64_t since = NowMicroseconds();
  EXPECT_TRUE(Changes(since).complete);
  EXPECT_FALSE(Changes(since - 31'000'000).complete) << "from before the first sweep";
  backend_->Advance(minutes(10));
  EXPECT_TRUE(Changes(since).complete);
  backend_->Advance(milliseconds(1));
  EXPECT_FALSE(Changes(since).complete);
}

TEST_P(StoreContract, TheSweepTrimsTheLog) {
  Sweep();
  Write(Device("u1", 1));
  backend_->Advance(minutes(10));
  Sweep();
  EXPECT_TRUE(backend_->Dump().contains("presence.changes"));
  backend_->Advance(milliseconds(1));
  Sweep();
  EXPECT_FALSE(backend_->Dump().contains("presence.changes"));
}

// ----------------------------------------------------------------------------------------- reads and odd ids

TEST_P(StoreContract, PagesCoverEverybodyOnceInByteOrder) {
  std::vector<std::string> expected;
  for (uint64_t i = 0; i < 150; ++i) {
    const std::string user = (i % 3 == 0 ? "Z" : "a") + std::to_string(i * 7919 % 1000);
    expected.push_back(user);
    PresenceWrite write = Device(user, i, i % 2 == 0 ? STATUS_ONLINE : STATUS_AWAY);
    write.id = i;
    backend_->store().Write(write);
  }
  Write(Device("gone", 900));
  Write(Gone("gone", 900));
  std::sort(expected.begin(), expected.end());
  for (const uint32_t limit : {1u, 7u, 75u, 149u, 150u, 10'000u}) {
    std::vector<std::string> seen;
    for (bool more = true; more;) {
      const PresencePage page = List(seen.empty() ? "" : seen.back(), limit);
      ASSERT_LE(page.users.size(), limit);
      ASSERT_FALSE(page.users.empty());
      for (const StoredPresence& user : page.users) seen.push_back(user.user_id);
      more = page.more;
    }
    EXPECT_EQ(seen, expected) << "limit " << limit;
  }
}

TEST_P(StoreContract, ACorruptEntryReadsAsOffline) {
  for (uint64_t i = 0; i < 9; ++i) Write(Device("u" + std::to_string(i), i));
  backend_->SetPresenceText("u1", "not JSON");
  backend_->SetPresenceText("u2", "[1,2");
  backend_->SetPresenceText("u3", "{\"status\":17}");
  backend_->SetPresenceText("u4", "{\"status\":\"dancing\"}");
  backend_->SetPresenceText("u5", "\xff\xfe{\"status\":\"online\"}");
  backend_->SetPresenceText("u6", "");
  for (const char* user : {"u1", "u2", "u3", "u4", "u5", "u6", "nobody"}) {
    EXPECT_EQ(Get(user).status, STATUS_OFFLINE) << user;
    EXPECT_EQ(Get(user).user_id, user);
  }
  const PresencePage page = List("", 2);
  ASSERT_THAT(page.users, SizeIs(2));
  EXPECT_EQ(page.users[0].user_id, "u0");
  EXPECT_EQ(page.users[1].user_id, "u7");
  EXPECT_TRUE(page.more);
}

TEST_P(StoreContract, ManyUsersAreReadInTheirOrderTheUnknownAndTheCorruptAsOffline) {
  std::vector<std::string> users, expected;
  for (uint64_t i = 0; i < 500; ++i) {
    users.push_back("u" + std::to_string(i * 7919 % 500));
    expected.push_back(users.back());
    switch (i % 4) {
      case 0:
        backend_->store().Write(Device(users.back(), i));
        expected.back() += " online";
        break;
      case 1:
        backend_->store().Write(Device(users.back(), i, STATUS_AWAY));
        expected.back() += " away";
        break;
      case 2:
        backend_->SetPresenceText(users.back(), i % 8 == 2 ? "not JSON" : R"({"status":"dancing"})");
        [[fallthrough]];
      default:
        expected.back() += " offline";
    }
  }
  users.push_back(users[0]);  // nobody says that each is asked for once
  expected.push_back(expected[0]);
  backend_->Settle();
  std::vector<std::string> read;
  for (const StoredPresence& presence : GetMany(users)) {
    read.push_back(presence.user_id + " " + std::string(StatusName(presence.status)));
  }
  EXPECT_EQ(read, expected);
  const StoredPresence one = GetMany({"nobody", users[0]}).at(1);
  EXPECT_EQ(one.username, "Some Body");
  EXPECT_EQ(one.version, NowMicroseconds());
  EXPECT_EQ(one.last_seen_ms, ToUnixMillis(backend_->now()));
}

TEST_P(StoreContract, NobodyAndTheMostUsersAreReadAlike) {
  EXPECT_THAT(GetMany({}), IsEmpty());
  Write(Device("u1", 1));
  std::vector<std::string> users(Store::kPresencesMax, "nobody");
  users.back() = "u1";
  EXPECT_EQ(GetMany(users).back().status, STATUS_ONLINE);
  users.push_back("one too many");
  EXPECT_DEATH(backend_->store().GetPresences(users, [](const auto&) {}), "1,000");
}

TEST_P(StoreContract, AnotherServicesEntryIsRead) {
  backend_->SetPresenceText(
      "u1", R"({"extra":[1],"status":"away","username":"Bob","last_seen":"2025-01-14T12:00:00.250000"})");
  const StoredPresence presence = Get("u1");
  EXPECT_EQ(presence.status, STATUS_AWAY);
  EXPECT_EQ(presence.username, "Bob");
  EXPECT_EQ(presence.last_seen_ms, 1'736'856'000'250);
  EXPECT_EQ(presence.version, 0u);
}

TEST_P(StoreContract, IdsAreBytes) {
  BecomeLoud();
  const std::vector<std::string> ids{"with space",           "a:b:c",    "*",    "[a-z]?", "line\nbreak",
                                     "quote\"back\\slash",   "\x01\x1f", "%s%d", "ünï",    "{}",
                                     std::string(2048, 'x'), "-",        "(",    "+",      "conn-1"};
  for (size_t i = 0; i < ids.size(); ++i) {
    PresenceWrite write = Device(ids[i], i);
    write.username = ids[i];
    const std::vector<std::string_view> rooms{ids[i]};
    write.room_ids = rooms;
    EXPECT_EQ(Write(write).user_status, STATUS_ONLINE);
    HeardChanges();
    EXPECT_EQ(last_heard_.user_id(), ids[i]);
    EXPECT_EQ(last_heard_.username(), ids[i]);
    EXPECT_THAT(last_heard_.room_ids(), ElementsAre(ids[i]));
    EXPECT_EQ(Get(ids[i]).status, STATUS_ONLINE);
    EXPECT_EQ(Get(ids[i]).username, ids[i]);
  }
  EXPECT_THAT(List("", 100).users, SizeIs(ids.size()));
  PassTime(seconds(63));
  for (const std::string& id : ids) EXPECT_EQ(Get(id).status, STATUS_OFFLINE) << id;
  EXPECT_EQ(backend_->heard(1).updates.size(), 2 * ids.size());
}

TEST_P(StoreContract, NoCompanionKeyLooksLikeAPresenceEntry) {
  Write(Device("u1", 1));
  Sweep();
  std::vector<std::string> keys;
  for (const auto& [key, value] : backend_->Dump()) {
    if (key.starts_with("presence:")) keys.push_back(key);
  }
  EXPECT_THAT(keys, ElementsAre("presence:u1"));
}

}  // namespace
}  // namespace presence::core
