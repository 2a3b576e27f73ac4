"""redis-py: one connection, cluster, Sentinel, and asyncio with Sentinel."""

import asyncio
import sys
import time
import uuid

import redis
import redis.asyncio
from protocol import BINARY, LARGE, MASTER, NAME, NODES, feature, feature_async, same
from protocol import write_through_a_failover, write_through_a_failover_async
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

MODE = sys.argv[1]
RUN = uuid.uuid4().hex[:8]


def single(**options):
    return redis.Redis(*MASTER, **options)


# snippet: redis-py, Sentinel
def sentinel(**options):
    # Without it a node that is down is asked again for seconds.
    ask_once = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
    finder = Sentinel(NODES, sentinel_kwargs=ask_once)
    retry = Retry(ExponentialBackoff(cap=0.1, base=0.02), 6)
    return finder.master_for(
        NAME, socket_timeout=5, socket_connect_timeout=0.5, retry=retry, **options
    )
# end


# snippet: redis-py, cluster
def cluster(**options):
    nodes = [ClusterNode(host, port) for host, port in NODES]
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.01), 20)
    return RedisCluster(
        startup_nodes=nodes, socket_timeout=5, socket_connect_timeout=0.5, retry=retry, **options
    )
# end


# snippet: redis-py, asyncio with Sentinel
def sentinel_async(**options):
    ask_once = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": AsyncRetry(NoBackoff(), 0)}
    finder = redis.asyncio.Sentinel(NODES, sentinel_kwargs=ask_once)
    retry = AsyncRetry(ExponentialBackoff(cap=0.1, base=0.02), 6)
    return finder.master_for(
        NAME, socket_timeout=5, socket_connect_timeout=0.5, retry=retry, **options
    )
# end


CONNECT = {"plain": single, "sentinel": sentinel, "cluster": cluster}


def basics(client):
    key = f"{{{RUN}}}basics"
    client.set(key, BINARY)
    same(client.get(key), BINARY)
    same(client.get(key + "none"), None)
    same([client.incr(key + "n"), client.incr(key + "n", 5)], [1, 6])
    same(client.mget([key, key + "n", key + "none"]), [BINARY, b"6", None])
    same(client.delete(key, key + "n"), 2)


def large(client):
    key = f"{RUN}large"
    client.set(key, LARGE)
    same(client.get(key), LARGE)
    client.delete(key)


def pipeline(client):
    pipe = client.pipeline(transaction=False)
    for number in range(500):
        pipe.set(f"{{{RUN}}}p{number}", number)
        pipe.get(f"{{{RUN}}}p{number}")
    replies = pipe.execute()
    same(replies[1::2], [str(number).encode() for number in range(500)])


def transaction(client):
    key = f"{{{RUN}}}t"
    client.set(key, 1)
    pipe = client.pipeline(transaction=True)
    pipe.watch(key)
    pipe.multi()
    pipe.set(key, 2)
    pipe.get(key)
    # The cluster's pipeline hands replies through as they are.
    same([str(pipe.execute()[1])], [str(b"2")])
    pipe.watch(key)
    client.set(key, 3)
    pipe.multi()
    pipe.set(key, 4)
    try:
        pipe.execute()
        raise AssertionError("the conflict was not seen")
    except redis.WatchError:
        same(client.get(key), b"3")


def expiry(client):
    key = f"{RUN}e"
    client.set(key, 1, px=300)
    if not 0 < client.pttl(key) <= 300:
        raise AssertionError(client.pttl(key))
    deadline = time.monotonic() + 5
    while client.get(key) is not None:
        if time.monotonic() > deadline:
            raise AssertionError("it does not expire")
        time.sleep(0.02)


def scan(client):
    keys = {f"{{{RUN}}}scan{number}".encode() for number in range(300)}
    client.mset({key: 1 for key in keys})
    found = list(client.scan_iter(match=f"{{{RUN}}}scan*", count=17))
    same((len(found), set(found)), (300, keys))


FEATURES = [("basics", basics), ("8 MiB value", large), ("pipeline", pipeline), ("MULTI and WATCH", transaction)]
FEATURES += [("expiry", expiry), ("scan", scan)]


def run(connect):
    for protocol in (2, 3):
        client = connect(protocol=protocol)
        for name, test in FEATURES:
            feature(f"{name}, RESP{protocol}", lambda: test(client))
    if connect is not single:
        client = connect()
        write_through_a_failover(client.append, client.get, f"{RUN}failover")


async def run_async():
    for protocol in (2, 3):
        client = sentinel_async(protocol=protocol)
        key = f"{RUN}key"

        async def basics():
            await client.set(key, BINARY)
            same(await client.get(key), BINARY)
            same(await client.delete(key), 1)

        async def large():
            await client.set(key, LARGE)
            same(await client.get(key), LARGE)

        async def pipeline():
            pipe = client.pipeline(transaction=False)
            for number in range(100):
                pipe.incr(key + "n")
            replies = await pipe.execute()
            same(replies[-1] - replies[0], 99)

        async def transaction():
            await client.set(key, 1)
            async with client.pipeline(transaction=True) as pipe:
                await pipe.watch(key)
                await client.set(key, 3)
                pipe.multi()
                pipe.set(key, 4)
                try:
                    await pipe.execute()
                    raise AssertionError("the conflict was not seen")
                except redis.WatchError:
                    same(await client.get(key), b"3")

        async def expiry():
            await client.set(key, 1, px=100)
            await asyncio.sleep(0.2)
            same(await client.get(key), None)

        async def scan():
            await client.mset({f"{RUN}as{number}": 1 for number in range(100)})
            found = [it async for it in client.scan_iter(match=f"{RUN}as*", count=7)]
            same((len(found), len(set(found))), (100, 100))

        tests = [basics, large, pipeline, transaction, expiry, scan]
        for (name, _), test in zip(FEATURES, tests):
            await feature_async(f"{name}, RESP{protocol}", test)
    client = sentinel_async()
    await write_through_a_failover_async(client.append, client.get, f"{RUN}failover")


if MODE == "asyncio":
    asyncio.run(run_async())
else:
    run(CONNECT[MODE])
