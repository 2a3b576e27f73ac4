"""Flask-Caching over Sentinel: what a web site uses redis-py for."""

import time

from flask import Flask
from flask_caching import Cache
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from protocol import NAME, NODES, feature, same, say, write_through_a_failover


# snippet: Flask-Caching
def make_cache(app):
    return Cache(
        app,
        config={
            "CACHE_TYPE": "RedisSentinelCache",
            "CACHE_REDIS_SENTINELS": NODES,
            "CACHE_REDIS_SENTINEL_MASTER": NAME,
            "CACHE_OPTIONS": {
                "socket_timeout": 5,
                "socket_connect_timeout": 0.5,
                "retry": Retry(ExponentialBackoff(cap=0.1, base=0.01), 20),
            },
        },
    )
# end


app = Flask("compat")
cache = make_cache(app)
calls = []


@cache.memoize(timeout=60)
def slow(number):
    calls.append(number)
    return {"number": number, "bytes": b"\x00\xff"}


def memoize():
    first = [slow(1), slow(1), slow(2)]
    same(first, [{"number": n, "bytes": b"\x00\xff"} for n in (1, 1, 2)])
    same(calls, [1, 2])
    cache.delete_memoized(slow, 1)
    slow(1)
    same(calls, [1, 2, 1])


def many():
    cache.set_many({f"many{number}": number for number in range(50)})
    same(cache.get_many(*[f"many{number}" for number in range(50)]), list(range(50)))
    same(cache.delete_many("many0", "many1"), ["many0", "many1"])


def expiry():
    cache.set("short", 1, timeout=1)
    same(cache.get("short"), 1)
    deadline = time.monotonic() + 5
    while cache.get("short") is not None:
        if time.monotonic() > deadline:
            raise AssertionError("it does not expire")
        time.sleep(0.05)


with app.app_context():
    feature("basics", memoize)
    feature("pipeline", many)
    feature("expiry", expiry)
