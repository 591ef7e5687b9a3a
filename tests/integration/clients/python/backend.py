#!/usr/bin/env python3
"""A small backend: posts a message into a room, then watches who comes and who goes.

Where the core is comes from the environment: PRESENCE_API, and if it asks for them PRESENCE_TOKEN and PRESENCE_CA (a PEM file).
"""

import argparse
import json
import os
import random
import sys
import time

import grpc

from presence.v1 import presence_pb2 as presence
from presence.v1 import presence_pb2_grpc


def connect():
    address = os.environ.get("PRESENCE_API", "127.0.0.1:50051")
    ca = os.environ.get("PRESENCE_CA")
    if not ca:
        return grpc.insecure_channel(address)
    with open(ca, "rb") as file:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))


# How a stream may end that is then taken up again: the core is stopping, or Redis is away; too many watch, or this one read too slowly, and if
# it still does, some seconds later, the stream is cut off: nobody here has cancelled it.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)


def watch(service, metadata, changes, deadline):
    """Prints who is online, then each change, until there were enough of them or the deadline has passed."""
    request = presence.WatchPresenceRequest(everyone={})
    failures = 0
    while True:
        call = service.WatchPresence(request, metadata=metadata, timeout=deadline - time.monotonic())
        try:
            for response in call:
                for user in response.presences:
                    status = presence.Status.Name(user.status).removeprefix("STATUS_").lower()
                    print(f"{user.username or user.user_id} is {status}", flush=True)
                failures = 0
                request.resume_version = response.resume_version  # where to go on when the stream ends
                if response.snapshot_done:
                    print("watching", flush=True)
                if not response.snapshot:
                    changes -= len(response.presences)
                if changes <= 0:
                    call.cancel()
                    return
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            if error.code() not in PASSING:
                raise
            # Nothing is lost. Not all at once: others were sent away, too.
            pause = random.uniform(0.5, 1) * min(2 ** failures, 30)
            time.sleep(max(0, min(pause, deadline - time.monotonic())))
            failures += 1


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--room", default="channel_general")
    options.add_argument("--text", default="Hello from Python")
    options.add_argument("--changes", type=int, default=2, help="exit after so many")
    options.add_argument("--seconds", type=int, default=60, help="or after this time")
    options = options.parse_args()

    token = os.environ.get("PRESENCE_TOKEN")
    metadata = [("authorization", f"Bearer {token}")] if token else []
    deadline = time.monotonic() + options.seconds
    with connect() as channel:
        service = presence_pb2_grpc.PresenceServiceStub(channel)
        message = presence.BroadcastRequest(room_id=options.room, data_json=json.dumps({"content": options.text}))
        posted = service.Broadcast(message, metadata=metadata, timeout=options.seconds)
        print(f"posted to {posted.reached_connections} connections", flush=True)
        watch(service, metadata, options.changes, deadline)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
