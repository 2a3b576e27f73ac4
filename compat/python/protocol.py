"""What a client tells the driver: JSON lines. See compat/README.md."""

import inspect
import json
import os
import select
import sys
import time

NODES = [tuple(node.rsplit(":", 1)) for node in os.environ["ARAKOON_NODES"].split(",")]
NODES = [(host, int(port)) for host, port in NODES]
NAME = os.environ["ARAKOON_NAME"]
MASTER = os.environ["ARAKOON_MASTER"].rsplit(":", 1)
MASTER = (MASTER[0], int(MASTER[1]))
BINARY = bytes(range(256)) * 3 + b"\r\n\x00"
LARGE = os.urandom(8 << 20)


def say(**fields):
    print(json.dumps(fields), flush=True)


def feature(name, run):
    """Reports whether `run` holds; its result, if it is text, is shown."""
    try:
        detail = run()
        say(feature=name, ok=True, detail=detail if isinstance(detail, str) else "")
    except Exception as error:  # whatever a library throws is the result
        say(feature=name, ok=False, detail=f"{type(error).__name__}: {error}"[:300])


async def feature_async(name, run):
    try:
        detail = run()
        detail = await detail if inspect.isawaitable(detail) else detail
        say(feature=name, ok=True, detail=detail if isinstance(detail, str) else "")
    except Exception as error:
        say(feature=name, ok=False, detail=f"{type(error).__name__}: {error}"[:300])


def same(left, right):
    if left != right:
        raise AssertionError(f"{left!r:.80} instead of {right!r:.80}")


class Writes:
    """Appends tokens to one string, each once as far as we know. So afterwards the string says what
    was applied, and what the library applied twice."""

    def __init__(self):
        self.number = 0
        self.acknowledged, self.failed, self.errors = [], [], {}
        self.times = [time.monotonic()]

    def going_on(self):
        return not select.select([sys.stdin], [], [], 0)[0]

    def next(self):
        self.number += 1
        return f"{self.number};"

    def done(self, token):
        self.acknowledged.append(token)
        self.times.append(time.monotonic())
        if len(self.acknowledged) == 50:
            say(event="writing")

    def fail(self, token, error):
        self.failed.append(token)
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1

    def judge(self, text):
        found = {}
        for token in text.split(";")[:-1]:
            found[token + ";"] = found.get(token + ";", 0) + 1
        lost = [token for token in self.acknowledged if token not in found]
        gaps = [later - earlier for earlier, later in zip(self.times, self.times[1:])]
        say(
            failover={
                "acknowledged": len(self.acknowledged),
                "lost": len(lost),
                "failed": len(self.failed),
                "failed_but_applied": sum(token in found for token in self.failed),
                "applied_twice": sum(count - 1 for count in found.values()),
                "gap_ms": round(max(gaps) * 1000),
                "errors": self.errors,
            }
        )


def write_through_a_failover(append, read, key):
    """Writes until the driver says that the master was killed long enough ago."""
    writes = Writes()
    while writes.going_on():
        token = writes.next()
        try:
            append(key, token)
            writes.done(token)
        except Exception as error:
            writes.fail(token, error)
            time.sleep(0.01)
    for attempt in range(100):
        try:
            return writes.judge(read(key).decode())
        except Exception:
            if attempt == 99:
                raise
            time.sleep(0.05)


async def write_through_a_failover_async(append, read, key):
    import asyncio

    writes = Writes()
    while writes.going_on():
        token = writes.next()
        try:
            await append(key, token)
            writes.done(token)
        except Exception as error:
            writes.fail(token, error)
            await asyncio.sleep(0.01)
    for attempt in range(100):
        try:
            return writes.judge((await read(key)).decode())
        except Exception:
            if attempt == 99:
                raise
            await asyncio.sleep(0.05)
