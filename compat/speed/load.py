"""Load generators, and one measurement with one of them."""

import csv
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cluster import PROJECT, target_directory
from speed.processes import cpu_seconds, keeper_seconds

VALUE_BYTES = 100


@dataclass(frozen=True)
class Workload:
    """What is measured, and what the ratio to Redis has to be."""

    name: str
    command: str
    clients: int
    pipeline: int = 1
    target: float | None = None
    aim: float | None = None
    # Instead of Redis, another workload of ours is what this one is compared with.
    beside: str | None = None


FIFTY = "SET, 50 clients"
WORKLOADS = [
    Workload(FIFTY, "set", 50, target=0.8, aim=1.0),
    Workload("SET, 50 clients, pipeline 16", "set", 50, 16, target=0.6, aim=1.0),
    Workload("SET, 1 client", "set", 1, target=0.55, aim=0.65),
    Workload("MSET of 10, 50 clients", "mset10", 50, target=0.8, aim=0.95),
    Workload("GET, 50 clients", "get", 50, target=0.75, aim=0.9),
    Workload("GET, 50 clients, pipeline 16", "get", 50, 16, target=0.9, aim=1.5),
    Workload("SET, 400 clients", "set", 400, target=0.9),
    Workload("SET, 1000 clients", "set", 1000, target=0.8, beside=FIFTY),
]


class ArakoonBench:
    """`arakoon bench`, one thread."""

    name = "arakoon bench"

    def __init__(self, program, seconds, warmup, keys):
        self.program, self.seconds, self.warmup, self.keys = program, seconds, warmup, keys

    def command(self, address, workload):
        return [
            str(self.program), "bench", "--connect", address, "--json", "--no-fill",
            "--mix", workload.command, "--clients", str(workload.clients),
            "--pipeline", str(workload.pipeline), "--value-size", str(VALUE_BYTES),
            "--keys", str(self.keys), "--seconds", str(self.seconds), "--warmup", str(self.warmup),
        ]

    def run(self, server, workload):
        """Figures, and how many commands there were in all, warm-up included."""
        figures = self.figures(execute(self.command(server.address(), workload)))
        return figures, figures["per_second"] * (self.seconds + self.warmup)

    @staticmethod
    def figures(output):
        result = json.loads(output)
        return {**result["all"], "errors": result["errors"], "gap_ms": result["write_gap_max_ms"]}

    def fill(self, address):
        command = [str(self.program), "bench", "--connect", address, "--json", "--mix", "get"]
        command += ["--keys", str(self.keys), "--value-size", str(VALUE_BYTES)]
        command += ["--seconds", "1", "--warmup", "0"]
        result = json.loads(execute(command))
        if result["errors"]:
            raise SystemExit(f"errors while {address} was filled: {result['errors']}")


class RedisBenchmark:
    """redis-benchmark, one thread. It wants a number of requests, so it is asked how fast it goes first."""

    name = "redis-benchmark"
    tests = {"set": "set", "get": "get", "mset10": "mset"}

    def __init__(self, program, seconds, warmup, keys):
        self.seconds, self.keys = seconds, keys
        self.rates = {}
        self.fill = ArakoonBench(program, seconds, warmup, keys).fill

    def once(self, address, workload, requests):
        host, port = address.rsplit(":", 1)
        command = ["redis-benchmark", "-h", host, "-p", port, "--csv", "-t", self.tests[workload.command]]
        command += ["-c", str(workload.clients), "-P", str(workload.pipeline), "-d", str(VALUE_BYTES)]
        command += ["-r", str(self.keys), "-n", str(requests)]
        rows = list(csv.DictReader(execute(command).splitlines()))
        return {name: float(value) for name, value in rows[-1].items() if name != "test"}

    def run(self, server, workload):
        address, place = server.address(), (server.name, workload.name)
        if place not in self.rates:
            few = max(2000, 200 * workload.clients * workload.pipeline)
            self.rates[place] = self.once(address, workload, few)["rps"]
        requests = max(1000, int(self.rates[place] * self.seconds))
        figures = self.once(address, workload, requests)
        self.rates[place] = figures["rps"]
        return {
            "per_second": figures["rps"],
            "p50_us": figures["p50_latency_ms"] * 1000,
            "p99_us": figures["p99_latency_ms"] * 1000,
            "max_us": figures["max_latency_ms"] * 1000,
            "errors": {},
        }, requests


class EtcdLoad:
    """compat/etcd-load, one thread."""

    name = "etcd-load"
    words = {"set": "put", "get": "get"}

    def __init__(self, seconds, warmup, keys):
        self.seconds, self.warmup, self.keys = seconds, warmup, keys
        project = PROJECT / "compat" / "etcd-load"
        target = target_directory() / "etcd-load"
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        build = ["cargo", "build", "--release", "--locked", "--quiet"]
        subprocess.run(build, cwd=project, env=environment, check=True)
        self.program = target / "release" / "etcd-load"

    def command(self, address, word, clients):
        numbers = [clients, self.keys, VALUE_BYTES, self.seconds, self.warmup]
        return [str(self.program), address, word, *map(str, numbers)]

    def run(self, server, workload):
        command = self.command(server.address(), self.words[workload.command], workload.clients)
        figures = {**json.loads(execute(command)), "errors": {}}
        return figures, figures["per_second"] * (self.seconds + self.warmup)

    def fill(self, address):
        execute(self.command(address, "fill", 200))


def execute(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


def measure(load, server, workload, idle=(), errors_allowed=False):
    """One measurement of one server: the load's figures, and who used how much of the processors.

    `idle` are servers that run beside it without a load.
    """
    parts = server.parts()
    others = [pid for other in idle for pids in other.parts().values() for pid in pids]
    before = {part: worked_seconds(pids) for part, pids in parts.items()}
    kept_before = sum(map(keeper_seconds, parts.values()))
    others_before, ours_before = cpu_seconds(others), children_seconds()
    began = time.monotonic()
    figures, commands = load.run(server, workload)
    elapsed = time.monotonic() - began
    if figures["errors"] and not errors_allowed:
        raise SystemExit(f"{server.name}, {workload.name}: errors {figures['errors']}")
    if commands == 0:
        raise SystemExit(f"{server.name}, {workload.name}: nothing was answered")
    # Of one processor.
    figures["load_cpu"] = (children_seconds() - ours_before) / elapsed
    figures["idle_cpu"] = (cpu_seconds(others) - others_before) / elapsed
    figures["cpu_s_per_million"] = {
        part: (worked_seconds(pids) - before[part]) * 1e6 / commands for part, pids in parts.items()
    }
    figures["keeper_cpu"] = (sum(map(keeper_seconds, parts.values())) - kept_before) / elapsed
    return figures


def worked_seconds(pids):
    """Processor time of these processes, without what keepers took."""
    return cpu_seconds(pids) - keeper_seconds(pids)


def children_seconds():
    """Processor time of this process' children that ended: the load, while no server is stopped."""
    times = os.times()
    return times.children_user + times.children_system


def syncs_per_second(directory, seconds=1.0):
    """How often this disk makes 4 KiB durable that are appended to a file."""
    path = Path(directory) / "probe"
    block, count = b"x" * 4096, 0
    with open(path, "wb", buffering=0) as file:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            file.write(block)
            os.fdatasync(file.fileno())
            count += 1
    path.unlink()
    return count / seconds
