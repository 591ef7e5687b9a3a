"""Reads what every device saw and holds it against what was done. Each rule says one sentence per offence; `report` adds up the rest."""

import bisect
import collections


def open_spans(world, user):
    """When the user had an open socket, as the user saw it: (from, until) in order; until is None for now."""
    return sorted(((session[0], session[1]) for device in world.devices if device.user == user for session in device.sessions))


def absent_between(spans, start, end):
    """Was there a moment in [start, end] without any open span?"""
    reached = start
    for begin, until in spans:
        if begin > reached:
            return True
        reached = max(reached, until if until is not None else end)
        if reached >= end:
            return False
    return True


def unasked_closes(world, kills):
    """A socket closes only when its edge was killed, or its user left; or, with 1008, when the user was silent because this program stood still."""
    def silent(closed):
        return any(began < closed < ended + 2 * world.heartbeat + 2 for began, ended in world.stalls)
    offences = []
    for device in world.devices:
        for opened, closed, code, edge in device.sessions:
            if closed is None or device.leaving or (code == 1008 and silent(closed)):
                continue
            if not any(process is edge and opened <= at <= closed + 0.5 for at, process in kills):
                offences.append(f"{device.user} was closed with {code} by {edge.name}, which nobody had killed, {closed - world.began:.1f} s from the start")
    return offences


def false_absences(world, bound):
    """Nobody who is there is shown offline. `bound`: how long after an absence the news of it may still come."""
    offences = []
    spans = {user: open_spans(world, user) for user in world.user_names}
    for device in world.devices:
        for seen in device.seen:
            if seen.kind != "presence" or seen.key[1] != "offline" or seen.key[0] not in spans:
                continue
            if not absent_between(spans[seen.key[0]], seen.at - bound, seen.at):
                offences.append(f"{device.user} was told at {seen.at:.2f} that {seen.key[0]} is offline, who was there all the time")
    return offences


def wrong_views(world, truth):
    """What every open device last heard of everybody, where it heard anything."""
    return [f"{device.user} believes {user} is {status}, and {truth[user]} is so"
            for device in world.devices if device.open() for user, status in device.view.items()
            if user in truth and status != truth[user]]


def disorder(world):
    """Of one publisher, a room's messages come in one order."""
    offences = []
    for device in world.devices:
        last, opened = {}, [session[0] for session in device.sessions]
        for seen in device.seen:
            if seen.kind != "message":
                continue
            room, publisher, number = seen.key
            session = bisect.bisect_right(opened, seen.at)
            before = last.get((room, publisher, session), 0)
            if number < before and not any(other.key == seen.key and other.at < seen.at for other in device.seen):
                offences.append(f"{device.user} got {seen.key} behind number {before}")
            last[(room, publisher, session)] = max(before, number)
    return offences


Delivery = collections.namedtuple("Delivery", "expected missing doubled")


def deliveries(world, acknowledged, settle):
    """Of what Broadcast acknowledged, for the subscribers who stayed: how much was expected, and what was missing or came twice."""
    by_room = collections.defaultdict(list)  # by when the call began: an hour has a hundred thousand
    for key, (begun, done) in acknowledged.items():
        by_room[key[0]].append((begun, done, key))
    for calls in by_room.values():
        calls.sort()
    expected, missing, doubled = 0, [], []
    for device in world.devices:
        times = collections.Counter(seen.key for seen in device.seen if seen.kind == "message")
        kept = device.history + [(room, since, float("inf")) for room, since in device.subscribed.items()]
        for room, since, until in kept:
            calls = by_room[room]
            for begun, done, key in calls[bisect.bisect_right(calls, since, key=lambda call: call[0]):]:
                if begun >= until:
                    break
                if done + settle >= until:
                    continue
                expected += 1
                if times[key] == 0:
                    missing.append((device.user, key))
                elif times[key] > 1:
                    doubled.append((device.user, key))
    return Delivery(expected, missing, doubled)


# What a shard could have had to fetch from a room's log when Redis lost it: an outage of that length comes before, at most.
FETCHED_WITHIN = 30


def broken_promises(delivered, acknowledged, emptied):
    """Acknowledged and lost, or doubled: but for what Redis may have forgotten, messages or that it has them, when it was emptied."""
    def forgotten(key):
        begun, done = acknowledged[key]
        return any(done > began - FETCHED_WITHIN and begun < ended for began, ended in emptied)
    return [f"{user} {what} {key}, which was acknowledged" for what, which in (("missed", delivered.missing), ("got twice", delivered.doubled))
            for user, key in which if not forgotten(key)]
