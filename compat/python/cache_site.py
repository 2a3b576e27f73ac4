"""Flask-Caching over Sentinel: what a web site uses redis-py for."""

import time

from flask import Flask
from flask_caching import Cache
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from protocol import BINARY, LARGE, NAME, NODES, feature, same, write_through_a_failover


# snippet: Flask-Caching
def make_cache(app):
    # Not RedisSentinelCache: that one reads from replicas, which answer MOVED.
    ask_once = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
    finder = Sentinel(NODES, sentinel_kwargs=ask_once)
    retry = Retry(ExponentialBackoff(cap=0.1, base=0.02), 6)
    client = finder.master_for(NAME, socket_timeout=5, socket_connect_timeout=0.5, retry=retry)
    return Cache(app, config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_HOST": client})
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


def binary():
    value = {"bytes": BINARY, "numbers": [1, 2.5, None]}
    cache.set("flask:b", value)
    same((cache.get("flask:b"), cache.get("flask:none"), cache.has("flask:b")), (value, None, True))
    same((cache.add("flask:b", 1), cache.add("flask:new", 1)), (False, True))
    same(cache.delete_many("flask:b", "flask:new"), ["flask:b", "flask:new"])


def basics():
    memoize()
    binary()


def large():
    cache.set("flask:large", LARGE)
    same(cache.get("flask:large"), LARGE)


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
    feature("basics", basics)
    feature("8 MiB value", large)
    feature("pipeline", many)
    feature("expiry", expiry)
    client = cache.cache._write_client
    write_through_a_failover(client.append, client.get, "failover")
