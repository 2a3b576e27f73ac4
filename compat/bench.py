#!/usr/bin/env python3
"""Compares three replicated Arakoon nodes with one Debian Redis that syncs every write.

Both servers run on this machine at the same time and are measured in turns with the same load
generator (`arakoon bench`), so that a slow minute of the machine hits both. Prints medians and
their ratio as a Markdown table.

    compat/bench.py [--repetitions 5] [--seconds 5]

Needs Rust and Python 3; installs redis-server through apt-get when it is missing (as root).
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PROGRAM = PROJECT / "target" / "release" / "arakoon"
PEER_PORT_OFFSET = 500
NODES = 3

WORKLOADS = [
    ("SET", "set=100", 1),
    ("SET", "set=100", 16),
    ("GET", "get=100", 1),
    ("GET", "get=100", 16),
]


def install_redis():
    if shutil.which("redis-server"):
        return
    if os.geteuid() != 0:
        sys.exit("redis-server is missing; install Debian's package redis-server")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "redis-server"]
    subprocess.run(install, check=True, env=environment)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports():
    """The first port of a cluster, and one for Redis."""
    for first in range(14000, 30000, 10):
        ports = [first + n for n in range(NODES + 1)]
        if all(is_free(port) and is_free(port + PEER_PORT_OFFSET) for port in ports):
            return first, first + NODES
    sys.exit("no free ports")


def wait_for(what, probe, process):
    deadline = time.monotonic() + 60
    while not probe():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{what} does not start")
        time.sleep(0.1)


def succeeds(*command):
    return subprocess.run(command, capture_output=True).returncode == 0


def start_redis(port, directory, processes):
    directory.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    processes.append(process)
    wait_for("Redis", lambda: not is_free(port), process)


def start_arakoon(port, directory, processes):
    command = [str(PROGRAM), "dev", "--nodes", str(NODES), "--port", str(port), "--dir", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    processes.append(process)
    address = f"127.0.0.1:{port}"
    wait_for("Arakoon", lambda: succeeds(str(PROGRAM), "status", "--connect", address), process)


def measure(port, mix, pipeline, seconds):
    command = [str(PROGRAM), "bench", "--connect", f"127.0.0.1:{port}", "--json", "--mix", mix]
    command += ["--pipeline", str(pipeline), "--seconds", str(seconds)]
    command += ["--clients", "50", "--value-size", "100", "--keys", "100000"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(output)
    if result["errors"]:
        sys.exit(f"errors on port {port}: {result['errors']}")
    return result["all"]


def main():
    parser = argparse.ArgumentParser(description="Compares three Arakoon nodes with one Redis.")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()

    install_redis()
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=PROJECT, check=True)
    arakoon_port, redis_port = free_ports()
    # Not under /tmp, which may be in memory: there a sync would cost nothing.
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=PROJECT / "target"))
    processes = []
    try:
        start_redis(redis_port, directory / "redis", processes)
        start_arakoon(arakoon_port, directory / "arakoon", processes)
        results = {}
        for repetition in range(arguments.repetitions):
            for name, mix, pipeline in WORKLOADS:
                for server, port in [("redis", redis_port), ("arakoon", arakoon_port)]:
                    figures = measure(port, mix, pipeline, arguments.seconds)
                    results.setdefault((name, pipeline, server), []).append(figures)
                    rate = figures["per_second"]
                    print(f"{repetition + 1}: {server} {name} pipeline {pipeline}: {rate:.0f}/s",
                          file=sys.stderr)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)

    def median(key, figure):
        return statistics.median(figures[figure] for figures in results[key])

    print("| Command | Pipeline | Redis /s | Arakoon /s | Ratio | Redis p99 ms | Arakoon p99 ms |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, _, pipeline in WORKLOADS:
        redis, arakoon = (name, pipeline, "redis"), (name, pipeline, "arakoon")
        redis_rate, arakoon_rate = median(redis, "per_second"), median(arakoon, "per_second")
        print(f"| {name} | {pipeline} | {redis_rate:.0f} | {arakoon_rate:.0f} "
              f"| {arakoon_rate / redis_rate:.2f} | {median(redis, 'p99_us') / 1000:.2f} "
              f"| {median(arakoon, 'p99_us') / 1000:.2f} |")


if __name__ == "__main__":
    main()
