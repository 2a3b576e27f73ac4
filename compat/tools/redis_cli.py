"""redis-cli and redis-benchmark, as Debian has them: every mode that works with strings."""

import subprocess
import sys
import os
import json
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "python"))
from protocol import MASTER, NODES, feature, same, say

HOST, PORT = MASTER
REPLICA = next(node for node in NODES if node != MASTER)


def run(*words, place=MASTER, input=None, timeout=30, cli="redis-cli"):
    command = [cli, "-h", place[0], "-p", str(place[1]), *words]
    done = subprocess.run(command, input=input, capture_output=True, timeout=timeout)
    if done.returncode != 0:
        raise AssertionError(f"{words}: exit {done.returncode}: {done.stdout[-200:]} {done.stderr[-200:]}")
    return done.stdout.decode(errors="replace").strip()


def basics():
    same(run("set", "cli:a", "1"), "OK")
    same(run("get", "cli:a", place=REPLICA)[:6], "MOVED ")
    same(run("-x", "set", "cli:b", input=bytes(range(256))), "OK")
    same(run("strlen", "cli:b"), "256")
    same(run("-n", "3", "set", "cli:a", "3"), "OK")


def follows():
    same(run("-c", "set", "cli:a", "2", place=REPLICA), "OK")
    same(run("-c", "get", "cli:a", place=REPLICA), "2")


def resp3():
    same(run("-3", "get", "cli:a"), "2")
    if "proto" not in run("-3", "hello", "3"):
        raise AssertionError("HELLO 3 does not describe the node")


def pipe():
    lines = b"".join(b"SET cli:pipe:%d %d\r\n" % (n, n) for n in range(20_000))
    said = run("--pipe", input=lines)
    if "errors: 0, replies: 20000" not in said:
        raise AssertionError(said)


def scan():
    same(len(set(run("--scan", "--pattern", "cli:pipe:*").split())), 20_000)


def big_keys():
    said = run("--bigkeys")
    if "Biggest string found" not in said:
        raise AssertionError(said[-300:])


def mem_keys():
    said = run("--memkeys")
    if "Biggest string found" not in said or " strings with " not in said:
        raise AssertionError(said[-300:])


def stat():
    command = ["redis-cli", "-h", HOST, "-p", str(PORT), "--stat", "-i", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        lines = [process.stdout.readline().decode() for _ in range(4)]
    finally:
        process.kill()
        process.wait()
    if not any("clients" in line for line in lines):
        raise AssertionError(lines)


def check():
    for place in NODES:
        said = run("--cluster", "check", f"{place[0]}:{place[1]}")
        if "[OK] All 16384 slots covered." not in said or "[ERR]" in said:
            raise AssertionError(said[-400:])


def latency():
    run("--latency", "-i", "1", "--raw", timeout=10)


def benchmark():
    said = run("-t", "ping,set,get,incr,mset", "-n", "2000", "-q", "--csv", cli="redis-benchmark", timeout=60)
    same(said.count("\n") >= 5, True)


def benchmark_cluster():
    said = run("--cluster", "-t", "set,get", "-n", "2000", "-q", cli="redis-benchmark", timeout=60)
    if "requests per second" not in said:
        raise AssertionError(said[-300:])


def scrape():
    """What exporters read: fields of INFO under the names and in the forms that Redis documents."""
    for place in NODES:
        fields = dict(line.split(":", 1) for line in run("info", place=place).splitlines() if ":" in line)
        fields = {name: value.strip() for name, value in fields.items()}
        numbers = ["uptime_in_seconds", "connected_clients", "used_memory", "total_commands_processed"]
        numbers += ["total_connections_received", "used_cpu_sys", "used_cpu_user", "master_repl_offset"]
        numbers += ["connected_slaves", "cluster_enabled"]
        for name in numbers:
            float(fields[name])
        same(len(fields["master_replid"]), 40)
        if fields["role"] == "master":
            replicas = [value for name, value in fields.items() if name.startswith("slave") and name[5:].isdigit()]
            same(len(replicas), 2)
            for replica in replicas:
                parts = dict(part.split("=", 1) for part in replica.split(","))
                same(sorted(parts), ["ip", "lag", "offset", "port", "state"])
            keys = dict(part.split("=", 1) for part in fields["db0"].split(","))
            same(int(keys["keys"]) >= 20_000, True)
        else:
            same((fields["role"], fields["master_link_status"]), ("slave", "up"))
            same((fields["master_host"], int(fields["master_port"])), MASTER)


TESTS = {
    "redis-cli": [
        ("basics, RESP2", basics),
        ("-c follows MOVED", follows),
        ("-3", resp3),
        ("--pipe", pipe),
        ("--scan", scan),
        ("--bigkeys", big_keys),
        ("--memkeys", mem_keys),
        ("--stat", stat),
        ("--latency", latency),
        ("--cluster check", check),
    ],
    "redis-benchmark": [("basics, RESP2", benchmark), ("--cluster", benchmark_cluster)],
    "scrape": [("INFO's fields", scrape)],
}
if __name__ == "__main__":
    if sys.argv[1] == "scrape":
        run("--pipe", input=b"".join(b"SET cli:scrape:%d %d\r\n" % (n, n) for n in range(20_000)))
    for name, test in TESTS[sys.argv[1]]:
        feature(name, test)
