"""django-redis, the cache backend that Django's sites use redis-py with."""

import time

import django
from django.conf import settings
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import WatchError
from redis.retry import Retry
from protocol import BINARY, LARGE, NAME, NODES, feature, same, write_through_a_failover

# snippet: django-redis
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        # With is_master=0 it would read from replicas, which answer MOVED.
        "LOCATION": f"redis://{NAME}/0?is_master=1",
        "OPTIONS": {
            "CLIENT_CLASS": "django_redis.client.DefaultClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": NODES,
            # Without it a node that is down is asked again for seconds.
            "SENTINEL_KWARGS": {
                "socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0),
            },
            "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
            "CONNECTION_POOL_KWARGS": {"retry": Retry(ExponentialBackoff(cap=0.1, base=0.02), 6)},
            "SOCKET_CONNECT_TIMEOUT": 0.5,
            "SOCKET_TIMEOUT": 5,
        },
    }
}
# end

settings.configure(CACHES=CACHES)
django.setup()
from django.core.cache import cache  # only once the settings are there
from django_redis import get_redis_connection


def basics():
    value = {"bytes": BINARY, "numbers": [1, 2.5, None]}
    cache.set("django:b", value, 60)
    same(cache.get("django:b"), value)
    same(cache.get("django:none", "default"), "default")
    same((cache.add("django:b", 1), cache.add("django:new", 1)), (False, True))
    cache.set("django:n", 1)
    same((cache.incr("django:n"), cache.incr("django:n", 5), cache.decr("django:n")), (2, 7, 6))
    same(cache.get_or_set("django:made", lambda: "made", 60), "made")
    same((cache.touch("django:b", 30), 0 < cache.ttl("django:b") <= 30), (True, True))
    same((cache.delete("django:b"), cache.delete_many(["django:new", "django:n", "django:made"])), (1, 3))


def large():
    cache.set("django:large", LARGE, 60)
    same(cache.get("django:large"), LARGE)


def pipeline():
    values = {f"django:p{number}": number for number in range(500)}
    cache.set_many(values, 60)
    same(cache.get_many(values), values)


def transaction():
    client = get_redis_connection("default", write=True)
    with client.pipeline(transaction=True) as pipe:
        pipe.watch("django:t")
        client.set("django:t", 1)
        pipe.multi()
        pipe.set("django:t", 2)
        try:
            pipe.execute()
            raise AssertionError("the conflict was not seen")
        except WatchError:
            same(client.get("django:t"), b"1")


def expiry():
    cache.set("django:e", 1, timeout=1)
    same(cache.get("django:e"), 1)
    deadline = time.monotonic() + 5
    while cache.get("django:e") is not None:
        if time.monotonic() > deadline:
            raise AssertionError("it does not expire")
        time.sleep(0.05)


def scan():
    cache.set_many({f"django:scan{number}": 1 for number in range(300)}, 60)
    same(len(set(cache.iter_keys("django:scan*", itersize=17))), 300)
    same(cache.delete_pattern("django:scan*"), 300)


feature("basics", basics)
feature("8 MiB value", large)
feature("pipeline", pipeline)
feature("MULTI and WATCH", transaction)
feature("expiry", expiry)
feature("scan", scan)
client = get_redis_connection("default", write=True)
write_through_a_failover(client.append, client.get, "django:failover")
