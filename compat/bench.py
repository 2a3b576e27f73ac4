#!/usr/bin/env python3
"""Measures three replicated nodes on this machine beside one Redis that syncs every write.

    compat/bench                            all loads beside Redis
    compat/bench --load redis-benchmark     the same with another load generator
    compat/bench --etcd                     puts and linearizable gets beside three nodes of etcd
    compat/bench --gap                      kill -9 of the master, 20 times
    compat/bench --follower all             with one follower down, slow, catching up
    compat/bench --keys 10000000            throughput, memory and start with many keys
    compat/bench --background               p99.9 beside heads, draining, and expiry
    compat/bench --all                      all of these
    compat/bench --short                    a quick look, never a verdict

Prints medians, ratios and whether the targets are met. Servers that are compared run at the same
time and are measured in turns, so that a slow minute of the machine hits both. Needs Rust and
Python 3; installs Debian's redis-server, and etcd-server if it is asked for (as root).
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cluster import build, target_directory
from speed import experiments, plot, report
from speed.load import WORKLOADS, ArakoonBench, RedisBenchmark, syncs_per_second

MANY_KEYS = 10_000_000
KILLS = 20


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Without any of the first six: --redis.")
    add = parser.add_argument
    add("--redis", action="store_true", help="all loads beside Redis")
    add("--etcd", action="store_true", help="beside three nodes of etcd")
    add("--gap", type=int, nargs="?", const=KILLS, metavar="TIMES", help=f"kill -9 of the master [{KILLS}]")
    add("--follower", choices=[*experiments.TROUBLES, "all"], help="one follower in trouble")
    add("--keys", type=int, nargs="?", const=MANY_KEYS, help=f"many keys [{MANY_KEYS}]")
    add("--background", action="store_true", help="p99.9 beside heads, draining, and expiry")
    add("--all", action="store_true", help="all of these")
    add("--load", choices=[ArakoonBench.name, RedisBenchmark.name], default=ArakoonBench.name,
        help="load generator beside Redis")
    add("--only", default="", metavar="TEXT",
        help='beside Redis, only loads with this in their names, such as "400 clients"')
    add("--engine", choices=["sled", "fjall"], default="sled")
    add("--cache", default="64MiB", help="each node's cache [64MiB]")
    add("--repetitions", type=int, default=5)
    add("--seconds", type=int, default=5, help="of each measurement [5]")
    add("--short", action="store_true", help="one repetition of 2 s each")
    add("--program", type=Path, help="instead of a release build of this tree")
    add("--directory", type=Path, help="for data, on a real disk [Cargo's target directory]")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--results", type=Path, metavar="FILE", help="measure nothing, show such a file")
    add("--page", action="store_true", help="print Markdown")
    add("--plot", type=Path, metavar="FILE.svg", help="draw the ratios")
    arguments = parser.parse_args()
    if arguments.all:
        arguments.redis = arguments.etcd = arguments.background = True
        arguments.gap = arguments.gap or KILLS
        arguments.follower = "all"
        arguments.keys = arguments.keys or MANY_KEYS
    others = arguments.gap or arguments.follower or arguments.keys or arguments.background
    if not (arguments.etcd or others):
        arguments.redis = True
    if not experiments.loads_named(arguments.only):
        names = ", ".join(f'"{it.name}"' for it in WORKLOADS)
        parser.error(f'no load has "{arguments.only}" in its name; there are {names}')
    if arguments.short:
        arguments.repetitions, arguments.seconds = 1, 2
    return arguments


def describe_machine(program, directory):
    processor = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cores": os.cpu_count(), "processor": processor, "kernel": platform.release(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "syncs_per_second": syncs_per_second(directory), "program": version.strip(),
    }


def file_system(directory):
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure(arguments):
    program = (arguments.program or build()).resolve()
    parent = arguments.directory or target_directory()
    parent.mkdir(parents=True, exist_ok=True)
    if file_system(parent) == "tmpfs":
        warning = f"{parent} is in memory, where a sync costs nothing; name a --directory on a disk"
        if not arguments.short:
            sys.exit(warning)
        print(warning, file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory:
        warmup, settle_s = (0, 0.5) if arguments.short else (1, 10)
        setting = experiments.Setting(program, directory, arguments.engine, arguments.cache,
                                      arguments.repetitions, arguments.seconds, warmup, settle_s,
                                      arguments.short)
        results = {
            "machine": describe_machine(program, directory),
            "setting": {"repetitions": arguments.repetitions, "seconds": arguments.seconds,
                        "engine": arguments.engine, "cache": arguments.cache, "keys": experiments.KEYS},
        }
        if arguments.redis:
            results["redis"] = experiments.beside_redis(setting, arguments.load, arguments.only)
        if arguments.etcd:
            results["etcd"] = experiments.beside_etcd(setting)
        if arguments.gap:
            results["gap"] = experiments.after_kill(setting, arguments.gap)
        if arguments.follower:
            how = [*experiments.TROUBLES] if arguments.follower == "all" else [arguments.follower]
            results["follower"] = [experiments.with_follower(setting, it) for it in how]
        if arguments.keys:
            results["many_keys"] = experiments.many_keys(setting, arguments.keys)
        if arguments.background:
            results["background"] = experiments.beside_background(setting)
    return results


def main():
    arguments = parse()
    # So that servers are stopped and data is removed then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    results = json.loads(arguments.results.read_text()) if arguments.results else measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.text(results, arguments.page))
    if arguments.plot:
        arguments.plot.write_text(plot.svg(results))


if __name__ == "__main__":
    main()
