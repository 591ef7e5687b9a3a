#!/usr/bin/env python3
"""Faults put into the product on purpose: does the simulator find each of them? (tests/sim/README.md has the table.)

    tests/sim/mutations.py --check                  each replacement still applies to the sources; builds nothing (ctest runs this)
    tests/sim/mutations.py DIRECTORY [NAME...]      copies the sources there, and for each fault builds the simulator and runs it

The second takes a minute or so for each fault. It ends with the table's rows, and with 1 when the simulator missed one.
"""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
SEEDS = "1..2000"
JOBS = "2"


@dataclasses.dataclass
class Mutation:
    name: str
    what: str
    file: str
    old: str  # stands once in the file
    new: str


MUTATIONS = [
    Mutation(
        "resync-dropped", "a shard does not declare its connections to a new core", "edge/shard_link.cc",
        "  for (const uint32_t slot : open_slots_) Declare(now, slot);\n", ""),
    Mutation(
        "requests-not-repeated", "what was asked over a lost link is not asked again", "edge/shard_link.cc",
        "  Repeat(now);\n  AddEvent(now).mutable_resync_done();\n", "  AddEvent(now).mutable_resync_done();\n"),
    Mutation(
        "generation-skipped", "a late command is taken for the new owner of a slot", "edge/shard_link.cc",
        "if (record.phase != Phase::kOpen || record.generation != id.generation) return std::nullopt;",
        "if (record.phase != Phase::kOpen) return std::nullopt;"),
    Mutation(
        "newer-presence-dropped", "of two changes of a user that wait for the pace, the older is told",
        "edge/presence_pacer.cc",
        "    user.text.assign(text);\n    return {Verdict::kCoalesced, user.key};",
        "    return {Verdict::kCoalesced, user.key};"),
    Mutation(
        "exclusions-ignored", "a message goes to those whom it excludes, too", "edge/shard_link.cc",
        "    if (connections_[slot].stamp != stamp) chosen_.push_back(slot);", "    chosen_.push_back(slot);"),
    Mutation(
        "grace-skipped", "an edge whose link is lost is not waited for", "core/hub.cc",
        ">= options_.edge_grace;", ">= options_.edge_grace / 50;"),
    Mutation(
        "silence-not-judged", "a link that was cut without a word is kept", "core/hub.cc",
        "    if (now.steady - link.last_event > options_.link_silence_max) silent.push_back(id);\n", ""),
    Mutation(
        "move-not-heard", "the core that had a shard keeps it when it has gone to another", "core/hub_moves.cc",
        "  if (attached.attach() > shard->attach) return GiveUp(now, *shard);\n", ""),
    Mutation(
        "ghosts-kept", "what a shard does not declare any more stays", "core/hub_links.cc",
        "if (index != kNoConnection && connections_[index].attach != shard.attach) CloseConnection(now, shard, index, 0);",
        "(void)index;"),
    Mutation(
        "orders-not-repeated", "an order is forgotten when its shard loses the link", "core/hub_links.cc",
        "  RepeatOrders(link, index);\n", ""),
    Mutation(
        "watermark-ignored", "after a resync a shard is not told what it has missed", "core/hub_links.cc",
        " link.missed.since = link.watermark;", " link.missed.since = 0;"),
    Mutation(
        "bus-gap-not-healed", "a core that did not hear the bus does not look up what it missed", "core/hub.cc",
        "    missed_.since = Watermark();\n", "    missed_.since = 0;\n"),
    Mutation(
        "duplicates-delivered", "what loops back late is delivered a second time", "core/hub_bus.cc",
        "sequence <= publications_.delivered_through() && !envelope.has_request()", "false"),
    Mutation(
        "nothing-reasserted", "a Redis that has lost its data is not told again who is there", "core/presence_ledger.cc",
        "if (!connection.dirty && (!lost_state || connection.fenced)) continue;", "if (!connection.dirty) continue;"),
    Mutation(
        "unanswered-write-dropped", "a write that Redis did not answer counts as done", "core/presence_ledger.cc",
        "      MarkDirty(index);\n      connection.reassert = true;\n",
        "      connection.confirmed_sequence = connection.sent_sequence;\n"),
    Mutation(
        "fence-ignored", "a write of an earlier attach is let through", "core/memory_sessions.cc",
        "if (entry->second.attach > write.attach || late)", "if (late)"),
    Mutation(
        "away-expires", "entries end although Redis was away, or every core", "core/memory_database.cc",
        "return item.second.deadline_ms <= now.ms && (tombstone || !quiet);",
        "return item.second.deadline_ms <= now.ms;"),
    Mutation(
        "reads-kept", "what was read of a room's log before the bus was lost counts when it stands again", "core/hub_room_log.cc",
        "  reads_.Forget();\n", ""),
    Mutation(
        "rights-not-judged-at-resync", "who is declared in a room stays there without a right", "core/hub_links.cc",
        "  CheckDeclared(now, index, declared.rights());\n", "  SetRights(index, declared.rights());\n"),
    Mutation(
        "revocation-ignored", "whose right is gone stays in the room", "core/hub_rooms.cc",
        "  if (verdict->lost) {\n", "  if (verdict->lost && verdict->user_id.empty()) {\n"),
    Mutation(
        "rights-fail-open", "while nobody can say, everybody is let in", "core/hub_rooms.cc",
        "      ++counters_.joins_unchecked;\n      Refuse(*link, join.sequence, kUnavailable, kNotKnown);\n    }\n  }\n",
        "      AnswerJoin(now, *link, index, verdict->room_id, join.sequence, RoomRight::kWrite);\n    }\n  }\n"),
    Mutation(
        "forgetting-misses-questions", "an answer that was under way when rights were to be forgotten counts", "core/room_access.cc",
        "    forgotten += row.known ? 1 : 0;\n", "    forgotten += row.known ? 1 : 0;\n    if (row.question != 0) continue;\n"),
    Mutation(
        "void-token-let-in", "a core that did not hear of a logout lets the session go on", "core/memory_sessions.cc",
        "  return covers({write.user_id, {}}) || (!write.session_id.empty() && covers({{}, write.session_id}));",
        "  return covers({write.user_id, {}});"),
]


def mutated(mutation, top):
    path = top / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.name}: what it replaces stands {text.count(mutation.old)} times in {mutation.file}")
    return path, text, text.replace(mutation.old, mutation.new)


def run(command, top):
    done = subprocess.run(command, cwd=top, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def build(top):
    code, output = run(["cmake", "--build", "build/release", "--target", "presence_sim"], top)
    if code != 0:
        raise SystemExit(f"the build fails:\n{output[-3000:]}")


def judge(top):
    """None: no seed has found it. Else the seed, and what it says."""
    code, output = run(["build/release/bin/presence_sim", f"--seeds={SEEDS}", f"--jobs={JOBS}"], top)
    if code == 0:
        return None
    seed = re.search(r"replay: presence_sim --seed=(\d+)", output)
    why = re.search(r"FAILED[^:]*: (.*)", output) or re.search(r"(.*)\n?replay:", output)
    return (seed.group(1) if seed else "?"), (why.group(1).strip() if why else output.strip()[:200])


def copy_if_different(source, target):
    """With a new time, and none of what is the same: else the build would keep what a fault has been compiled into."""
    if not pathlib.Path(target).exists() or pathlib.Path(source).read_bytes() != pathlib.Path(target).read_bytes():
        shutil.copyfile(source, target)


def prepare(top):
    top.mkdir(parents=True, exist_ok=True)
    for name in ("CMakeLists.txt", "CMakePresets.json", "core", "edge", "common", "proto", "tests", "scripts", "LICENSE"):
        source, target = TOP / name, top / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, copy_function=copy_if_different)
        else:
            copy_if_different(source, target)
    if not (top / "build/release/build.ninja").exists():
        code, output = run(["cmake", "--preset", "release"], top)
        if code != 0:
            raise SystemExit(output[-3000:])


def main(arguments):
    if arguments == ["--check"]:
        for mutation in MUTATIONS:
            mutated(mutation, TOP)
        print(f"{len(MUTATIONS)} faults apply to the sources")
        return 0
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    top, names = pathlib.Path(arguments[0]).resolve(), arguments[1:]
    prepare(top)
    build(top)
    if (found := judge(top)) is not None:
        raise SystemExit(f"without any fault seed {found[0]} fails: {found[1]}")
    missed = 0
    rows = []
    for mutation in MUTATIONS:
        if names and mutation.name not in names:
            continue
        path, before, after = mutated(mutation, top)
        path.write_text(after)
        try:
            build(top)
            found = judge(top)
        finally:
            path.write_text(before)
        missed += found is None
        seed, why = found or ("none", "NOT FOUND")
        rows.append(f"| {mutation.name} | {mutation.what} | `{mutation.file}` | {seed} | {why} |")
        print(rows[-1], flush=True)
    print(f"{len(rows) - missed} of {len(rows)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
