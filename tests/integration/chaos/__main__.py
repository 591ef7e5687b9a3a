"""scripts/chaos: what happens when a part dies, on real processes.

  scripts/chaos rows [--runs 5] [--heartbeat 2] [--only WORD,...]   how long until the last watcher knows; a table
  scripts/chaos storm [--seconds 180] [--seed N] [--users 60]        faults at random under load, then a checker
  scripts/chaos soak [--seconds 3600] [--visitors 40]                nothing fails, and nothing grows

The programs are those of build/release (PRESENCE_BIN names others). The exit code tells whether all was as promised.
"""

import argparse
import asyncio
import concurrent.futures
import gc
import pathlib
import random
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1])]

import rows
import soak
import storm


def run(coroutine):
    """With threads enough for all that blocks: a world that waits for one would measure the others' waiting."""
    async def with_threads():
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(200))
        return await coroutine
    return asyncio.run(with_threads())


def main():
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("rows", help="how long until the last watcher knows")
    table.add_argument("--runs", type=int, default=5)
    table.add_argument("--heartbeat", type=float, default=2.0)
    table.add_argument("--only", default="", help="words, comma-separated: the rows in whose name one of them stands")
    table.add_argument("--seed", type=int, default=1)
    table.add_argument("--at-once", type=int, default=1, help="runs beside each other, each in a world of its own")
    wild = commands.add_parser("storm", help="faults at random under load")
    wild.add_argument("--seconds", type=float, default=180)
    wild.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    wild.add_argument("--users", type=int, default=60)
    wild.add_argument("--only", default="", help="faults by name, comma-separated; the default is all of them")
    long = commands.add_parser("soak", help="memory, descriptors and leaks under churn", description=soak.__doc__,
                               formatter_class=argparse.RawDescriptionHelpFormatter)
    long.add_argument("--seconds", type=float, default=3600)
    long.add_argument("--seed", type=int, default=1)
    long.add_argument("--visitors", type=int, default=40)
    arguments = parser.parse_args()
    chosen = [word for word in getattr(arguments, "only", "").split(",") if word]

    gc.disable()  # an hour keeps millions of tuples: to look through them again and again stops the clients for seconds

    def say(line):
        print(line, flush=True)
    if arguments.command == "rows":
        offences = run(rows.run_rows(arguments.runs, arguments.heartbeat, arguments.seed, chosen, arguments.at_once, say))
    elif arguments.command == "soak":
        offences, figures = run(soak.run_soak(arguments.seed, arguments.seconds, arguments.visitors, say))
        for name, figure in figures.items():
            say(f"{name}: {figure}")
    else:
        known = {fault.__name__: fault for fault in storm.faults.ALL}
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"unknown faults {', '.join(unknown)}; there are {', '.join(known)}")
        say(f"scripts/chaos storm --seconds {arguments.seconds:g} --seed {arguments.seed} --users {arguments.users}")
        offences, figures, _ = run(storm.run_storm(
            arguments.seed, arguments.seconds, arguments.users, [known[name] for name in chosen] or None, say))
        for name, figure in figures.items():
            say(f"{name}: {figure}")
    for offence in offences[:20]:
        say(f"NOT AS PROMISED: {offence}")
    say("1 passed, 0 failed" if not offences else f"{len(offences)} offences")
    sys.exit(1 if offences else 0)


main()
