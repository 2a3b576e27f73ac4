"""What clients wait for while a node does what it put off: segments, heads, draining, expiry."""

import socket
import threading
import time

from cluster import ask
from speed.load import ArakoonBench, Workload, measure
from speed.processes import settle

# Long enough, with 50 clients, for heads and for a drain.
SECONDS = 120
LOADS = [
    Workload("SET, 50 clients", "set", 50),
    Workload("GET, 50 clients", "get", 50),
    Workload("SET, 1 client", "set", 1),
]
EXPIRING_KEYS = 1_000_000
# For setting them, and so that the load runs when their time comes.
EXPIRE_AFTER_S = 40
# Their times are spread over so many ms: one after the other, not all at once.
EXPIRY_MS = 20_000
EXPIRY_SECONDS = 30
PIPELINE = 1000


def beside_work(setting, all_pids, say):
    cluster = setting.arakoon()
    rows = []
    try:
        setting.bench().fill(cluster.address())
        for load in LOADS:
            settle(all_pids([cluster]), setting.settle_s)
            # Reads have background work only if somebody writes.
            writer = Writer(cluster.address()) if load.command == "get" else None
            figures = measure(bench(setting, SECONDS), cluster, load)
            if writer:
                writer.stop()
            rows.append({"name": load.name, "work": "segments, heads, draining", "figures": figures})
            say(f"{load.name}: p99.9 {figures['p999_us'] / 1000:.1f} ms beside segments, heads, draining")
        for load in LOADS:
            settle(all_pids([cluster]), setting.settle_s)
            expire_at = time.time() + EXPIRE_AFTER_S
            set_expiring(cluster.address(), int(expire_at * 1000))
            if time.time() > expire_at:
                raise SystemExit(f"{EXPIRING_KEYS} keys took longer than {EXPIRE_AFTER_S} s")
            time.sleep(max(0, expire_at - 2 - time.time()))
            before = expired(cluster.address())
            figures = measure(bench(setting, EXPIRY_SECONDS), cluster, load)
            figures["expired"] = expired(cluster.address()) - before
            rows.append({"name": load.name, "work": "expiry of a million keys", "figures": figures})
            say(f"{load.name}: p99.9 {figures['p999_us'] / 1000:.1f} ms, {figures['expired']} keys expired")
            wait_for_expiry(cluster.address(), before)
        return {"rows": rows}
    finally:
        cluster.stop()


def bench(setting, seconds):
    return ArakoonBench(setting.program, seconds, 0, setting.bench().keys)


class Writer:
    """One connection that sets keys in small pipelines as fast as it is answered."""

    def __init__(self, address):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(address,))
        self.thread.start()

    def run(self, address):
        number = 0
        with connect(address) as connection:
            while not self.ended.is_set():
                number += 1
                keys = [b"key:%012d" % ((number * 20 + it) * 7919 % 100_000) for it in range(20)]
                exchange(connection, [command(b"SET", key, b"x" * 100) for key in keys])

    def stop(self):
        self.ended.set()
        self.thread.join()


def set_expiring(address, at_ms):
    with connect(address) as connection:
        for first in range(0, EXPIRING_KEYS, PIPELINE):
            exchange(connection, [
                command(b"SET", b"expiring:%d" % number, b"x" * 100, b"PXAT",
                        b"%d" % (at_ms + number * EXPIRY_MS // EXPIRING_KEYS))
                for number in range(first, first + PIPELINE)
            ])


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def exchange(connection, commands):
    """Sends commands that are answered with OK."""
    connection.sendall(b"".join(commands))
    expected = b"+OK\r\n" * len(commands)
    got = b""
    while len(got) < len(expected):
        more = connection.recv(1 << 16)
        if not more:
            raise SystemExit("the master closed a connection")
        got += more
    if got != expected:
        raise SystemExit(f"not only OK: {got[:200]!r}")


def expired(address):
    lines = (ask(address, "INFO", "stats") or "").splitlines()
    return int(next(line.split(":")[1] for line in lines if line.startswith("expired_keys:")))


def wait_for_expiry(address, before):
    deadline = time.monotonic() + 300
    while expired(address) < before + EXPIRING_KEYS:
        if time.monotonic() > deadline:
            raise SystemExit("a million keys do not expire within five minutes")
        time.sleep(0.2)
