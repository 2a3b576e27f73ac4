"""What is measured. Each function returns plain data for `report.py`, `plot.py` and --json."""

import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from cluster import ask
from speed.background import beside_work
from speed.load import VALUE_BYTES, WORKLOADS, ArakoonBench, EtcdLoad, RedisBenchmark, Workload, measure
from speed.processes import resident_bytes, settle
from speed.servers import Arakoon, Etcd, Redis, stop_all

KEYS = 100_000
ETCD_WORKLOADS = [
    Workload("put, 50 clients", "set", 50, target=6),
    Workload("linearizable get, 50 clients", "get", 50, target=10),
]
FOLLOWER_WORKLOADS = [
    Workload("SET, 50 clients", "set", 50),
    Workload("SET, 50 clients, pipeline 16", "set", 50, 16),
]
LARGE_WORKLOADS = [
    Workload("SET, 50 clients", "set", 50),
    Workload("SET, 50 clients, pipeline 16", "set", 50, 16),
    Workload("GET, 50 clients", "get", 50),
    Workload("GET, 50 clients, pipeline 16", "get", 50, 16),
]
# A measurement is repeated when a server that has no load then takes more than this of a core, for
# example to rewrite its file; so many times at most.
IDLE_CPU_MAX, ATTEMPTS_MAX = 0.1, 4
# A follower that is stopped and goes on in turns: a machine that is slow in bursts.
SLOW_STOPPED_S, SLOW_RUNNING_S = 0.3, 0.3


def say(text):
    print(text, file=sys.stderr, flush=True)


class Setting:
    """How everything is measured, and what has to be ended whatever happens."""

    def __init__(self, program, directory, engine, cache, repetitions, seconds, warmup, settle_s,
                 errors_allowed):
        self.program, self.directory = program, Path(directory)
        self.engine, self.cache = engine, cache
        self.repetitions, self.seconds, self.warmup = repetitions, seconds, warmup
        self.settle_s = settle_s
        # In replies: shown, not the end of the run.
        self.errors_allowed = errors_allowed

    def arakoon(self):
        return Arakoon(self.program, self.directory, "500ms", self.engine, self.cache)

    def bench(self, keys=KEYS):
        return ArakoonBench(self.program, self.seconds, self.warmup, keys)


def in_turns(setting, workloads, sides):
    """`sides`: server and load. Repeats all workloads; each in turns on all servers, of which the
    first changes, so that a slow minute of the machine hits all. The others wait, idle."""
    rows = [{"name": it.name, "target": it.target, "aim": it.aim, "beside": it.beside,
             "servers": {server.name: [] for server, _ in sides}} for it in workloads]
    for repetition in range(setting.repetitions):
        for row, workload in zip(rows, workloads):
            for server, load in sides if repetition % 2 == 0 else reversed(sides):
                idle = [other for other, _ in sides if other is not server]
                settle(all_pids(side for side, _ in sides), setting.settle_s)
                for _ in range(ATTEMPTS_MAX if setting.repetitions > 1 else 1):
                    figures = measure(load, server, workload, idle, setting.errors_allowed)
                    if figures["idle_cpu"] <= IDLE_CPU_MAX:
                        break
                    say(f"again: servers without a load took {figures['idle_cpu']:.2f} of a core")
                row["servers"][server.name].append(figures)
                say(f"{repetition + 1}: {workload.name}: {server.name} {figures['per_second']:.0f}/s, "
                    f"p99 {figures['p99_us'] / 1000:.2f} ms, load {figures['load_cpu']:.2f} of a core"
                    + (f", errors {figures['errors']}" if figures["errors"] else ""))
    return rows


def all_pids(servers):
    return [pid for server in servers for pids in server.parts().values() for pid in pids]


def loads_named(text):
    """The loads whose names contain it, and those they are compared with."""
    chosen = [it for it in WORKLOADS if text in it.name]
    return [it for it in WORKLOADS if it in chosen or any(other.beside == it.name for other in chosen)]


def beside_redis(setting, load_name, only=""):
    """All targets against one Redis, or only those of loads with this in their names."""
    directory = setting.directory / "beside-redis"
    directory.mkdir()
    servers = []
    try:
        servers += [Redis(directory / "redis")]
        servers += [setting.arakoon()]
        load = RedisBenchmark(setting.program, setting.seconds, setting.warmup, KEYS) \
            if load_name == RedisBenchmark.name else setting.bench()
        for server in servers:
            load.fill(server.address())
            # The first seconds of a process are not what is compared.
            for workload in (WORKLOADS[0], WORKLOADS[4]) if setting.warmup else ():
                measure(load, server, workload, errors_allowed=setting.errors_allowed)
        rows = in_turns(setting, loads_named(only), [(server, load) for server in servers])
        return {"load": load.name, "redis": servers[0].version(), "rows": rows}
    finally:
        stop_all(servers, directory)


def beside_etcd(setting):
    """Puts and linearizable gets against three nodes of etcd."""
    directory = setting.directory / "beside-etcd"
    directory.mkdir()
    servers = []
    try:
        servers += [Etcd(directory / "etcd")]
        servers += [setting.arakoon()]
        loads = [EtcdLoad(setting.seconds, setting.warmup, KEYS), setting.bench()]
        sides = list(zip(servers, loads))
        for server, load in sides:
            load.fill(server.address())
        rows = in_turns(setting, ETCD_WORKLOADS, sides)
        return {"etcd": servers[0].version(), "rows": rows}
    finally:
        stop_all(servers, directory)


def after_kill(setting, times):
    """The longest time without an acknowledged write when the master is killed with -9, one client."""
    cluster = setting.arakoon()
    writer = Workload("SET, 1 client", "set", 1)
    gaps = []
    try:
        for number in range(times):
            # Long enough that a kill two seconds in is followed by a new master.
            load = ArakoonBench(setting.program, 6, 0, KEYS)
            command = load.command(cluster.address(), writer)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            time.sleep(2 + random.random())
            seat = cluster.master()
            cluster.kill(seat)
            output, _ = process.communicate()
            gap_ms = load.figures(output)["gap_ms"]
            gaps.append(gap_ms)
            say(f"{number + 1}: kill -9 of the master: {gap_ms:.0f} ms without an acknowledged write")
            cluster.start(seat)
            cluster.wait_until_whole()
        return {"gaps_ms": gaps, "median_ms": statistics.median(gaps), "longest_ms": max(gaps)}
    finally:
        cluster.stop()


def with_follower(setting, how):
    """Throughput with all three nodes beside that with one follower in trouble, in turns."""
    cluster = setting.arakoon()
    # To catch up with few keys takes no time.
    load = setting.bench(10 * KEYS if how == "catching-up" else KEYS)
    rows = [{"name": it.name, "whole": [], "troubled": []} for it in FOLLOWER_WORKLOADS]
    try:
        load.fill(cluster.address())
        for repetition in range(setting.repetitions):
            for row, workload in zip(rows, FOLLOWER_WORKLOADS):
                settle(all_pids([cluster]), setting.settle_s)
                row["whole"].append(measure(load, cluster, workload))
                settle(all_pids([cluster]), setting.settle_s)
                row["troubled"].append(TROUBLES[how](cluster, load, workload))
                cluster.wait_until_whole()
                say(f"{repetition + 1}: {workload.name}, {how}: " + " and ".join(
                    f"{row[part][-1]['per_second']:.0f}/s" for part in ("whole", "troubled")))
        return {"how": how, "rows": rows}
    finally:
        cluster.stop()


def a_follower(cluster):
    master = cluster.master()
    return next(seat for seat in range(3) if seat != master)


def down(cluster, load, workload):
    seat = a_follower(cluster)
    cluster.kill(seat)
    figures = measure(load, cluster, workload)
    cluster.start(seat)
    return figures


def slow(cluster, load, workload):
    process = cluster.processes[a_follower(cluster)]
    ended = threading.Event()

    def stop_and_go():
        while not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait(SLOW_STOPPED_S)
            process.send_signal(signal.SIGCONT)
            ended.wait(SLOW_RUNNING_S)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        return measure(load, cluster, workload)
    finally:
        ended.set()
        thread.join()


def catching_up(cluster, load, workload):
    """It starts empty as the load begins, and is sent the state and what happens meanwhile."""
    seat = a_follower(cluster)
    cluster.kill(seat)
    shutil.rmtree(cluster.data(seat))
    cluster.start(seat)
    return measure(load, cluster, workload)


TROUBLES = {"down": down, "slow": slow, "catching-up": catching_up}


def beside_background(setting):
    return beside_work(setting, all_pids, say)


def many_keys(setting, keys):
    """Many keys beside 100,000: throughput, memory, and how long a start takes."""
    clusters = []
    try:
        clusters = [setting.arakoon(), setting.arakoon()]
        counts = [KEYS, keys]
        # Sides of one comparison need names of their own.
        for cluster, count in zip(clusters, counts):
            cluster.name = f"{count} keys"
        sides = [(cluster, setting.bench(count)) for cluster, count in zip(clusters, counts)]
        empty_bytes = resident(clusters[1])
        for cluster, load in sides:
            began = time.monotonic()
            load.fill(cluster.address())
            say(f"{cluster.name} filled in {time.monotonic() - began:.0f} s")
        settle(all_pids(clusters), 120)
        filled_bytes = resident(clusters[1])
        rows = in_turns(setting, LARGE_WORKLOADS, sides)
        loaded_bytes = resident(clusters[1])
        clusters.pop(0).stop()
        [cluster] = clusters
        starts = [start_after_kill(cluster, keys) for _ in range(3)]
        # As after a power cut: what the engine has is not believed, and made anew.
        rebuild = start_after_kill(cluster, keys, without_store=True)
        per_million = [(filled - empty) * 1e6 / keys for filled, empty in zip(filled_bytes, empty_bytes)]
        return {
            "keys": [KEYS, keys], "rows": rows, "starts": starts, "rebuild": rebuild,
            "resident_bytes": {"empty": empty_bytes, "filled": filled_bytes, "after_load": loaded_bytes,
                               "per_million_keys": per_million},
        }
    finally:
        for cluster in clusters:
            cluster.stop()


def resident(cluster):
    return [resident_bytes(process.pid) for process in cluster.processes]


def start_after_kill(cluster, keys, without_store=False):
    """Seconds until a get is answered after kill -9 of all nodes, and until all are up to date."""
    for seat in range(3):
        cluster.kill(seat)
    for seat in range(3) if without_store else ():
        shutil.rmtree(cluster.data(seat) / "store")
    began = time.monotonic()
    for seat in range(3):
        cluster.start(seat)
    key = f"key:{keys // 2:012}"

    def answers(node):
        reply = ask(node, "GET", key) or ""
        return len(reply) == VALUE_BYTES and not reply.startswith("-")

    while not any(answers(node) for node in cluster.nodes):
        if time.monotonic() - began > 1800:
            raise SystemExit("no answer within 30 minutes after kill -9 of all nodes")
        time.sleep(0.02)
    answering_s = time.monotonic() - began
    cluster.wait_until_whole(1800)
    whole_s = time.monotonic() - began
    say(f"after kill -9 of all{' and without stores' if without_store else ''}: "
        f"answers after {answering_s:.1f} s, whole after {whole_s:.1f} s")
    return {"answering_s": answering_s, "whole_s": whole_s}
