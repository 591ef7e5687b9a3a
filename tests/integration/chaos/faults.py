"""What can happen to a world. Each fault takes its time and leaves the world whole, so that what is seen afterwards can be judged."""

import asyncio
import signal


async def _restart(process, how, pause):
    if how == signal.SIGKILL:
        await process.kill_and_wait(how)
    else:
        process.begin_stop()
        await asyncio.to_thread(process.await_stop)
    await asyncio.sleep(pause)
    process.start()
    await asyncio.to_thread(process.await_ready)


async def _stall(process, seconds):
    process.kill(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        process.kill(signal.SIGCONT)


async def _broken(relays, fault, seconds):
    for relay in relays:
        getattr(relay, fault)()
    try:
        await asyncio.sleep(seconds)
    finally:
        for relay in relays:
            relay.heal()


async def kill_core(world, random):
    await _restart(random.choice(world.cores), signal.SIGKILL, random.uniform(0, 4))


async def stop_core(world, random):
    await _restart(random.choice(world.cores), signal.SIGTERM, random.uniform(0, 2))


async def stall_core(world, random):
    await _stall(random.choice(world.cores), random.uniform(0.5, 8))


async def kill_edge(world, random):
    await _restart(random.choice(world.edges), signal.SIGKILL, random.uniform(0, 2))


async def stall_edge(world, random):
    await _stall(random.choice(world.edges), random.uniform(0.5, 2.5))


async def stall_redis(world, random):
    await _stall(world.redis, random.uniform(0.5, 10))


async def empty_redis(world, random):
    await _restart(world.redis, signal.SIGKILL, random.uniform(0, 3))


async def cut_link(world, random):
    relays = random.choice(world.to_cores)
    await _broken([random.choice(relays)], random.choice(["cut", "swallow"]), random.uniform(0.5, 6))


async def cut_core_from_edges(world, random):
    core = random.randrange(len(world.cores))
    await _broken([relays[core] for relays in world.to_cores], random.choice(["cut", "swallow"]), random.uniform(0.5, 6))


async def cut_core_from_redis(world, random):
    await _broken([random.choice(world.to_redis)], random.choice(["cut", "swallow", "deafen"]), random.uniform(0.5, 12))


async def nothing(world, random):
    await asyncio.sleep(random.uniform(0.5, 2))


ALL = [kill_core, stop_core, stall_core, kill_edge, stall_edge, stall_redis, empty_redis, cut_link, cut_core_from_edges,
       cut_core_from_redis, nothing]
