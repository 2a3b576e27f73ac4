"""prometheus-redis-exporter, as Debian has it: what it makes of the master and of a replica."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "python"))
from protocol import MASTER, NODES, feature, same
from redis_cli import run

REPLICA = next(node for node in NODES if node != MASTER)
# Everything that asks the node for more than it does by default; the last two need the master.
MORE = ["-include-system-metrics", "-include-config-metrics", "-export-client-list", "-ping-on-connect"]
KEYS = ["-check-keys", "db0=exporter:*", "-count-keys", "db0=exporter:*"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def scrape(node, options):
    """The exporter's page of that node: the values by their names with labels. It logged no error."""
    port = free_port()
    command = ["prometheus-redis-exporter", "-redis.addr", f"redis://{node[0]}:{node[1]}", *options]
    process = subprocess.Popen(
        [*command, "-web.listen-address", f"127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True
    )
    try:
        page = read(f"http://127.0.0.1:{port}/metrics")
    finally:
        process.kill()
        log = process.communicate()[1]
    bad = [line for line in log.splitlines() if re.search(r"level=(warning|error|fatal)", line)]
    same(bad, [])
    lines = [line for line in page.splitlines() if line.startswith("redis_")]
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    same((values["redis_up"], values['redis_exporter_last_scrape_error{err=""}']), (1, 0))
    return values


def read(url):
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def label(values, metric, wanted):
    """The value of the metric that has all these labels."""
    for name, value in values.items():
        if name.startswith(metric + "{") and all(f'{key}="{text}"' in name for key, text in wanted.items()):
            return value
    raise AssertionError(f"no {metric} with {wanted}")


PRESENT = """uptime_in_seconds connected_clients blocked_clients config_maxclients memory_used_bytes
memory_used_rss_bytes memory_max_bytes commands_processed_total connections_received_total
rejected_connections_total net_input_bytes_total net_output_bytes_total expired_keys_total
evicted_keys_total keyspace_hits_total keyspace_misses_total cpu_sys_seconds_total
cpu_user_seconds_total master_repl_offset aof_last_write_status cluster_enabled slowlog_length
start_time_seconds total_system_memory_bytes""".split()


def of_both(values):
    missing = [name for name in PRESENT if f"redis_{name}" not in values]
    same(missing, [])
    same((values["redis_cluster_state"], values["redis_cluster_known_nodes"]), (1, 3))
    same(values["redis_cluster_slots_ok"], 16384)
    same(values["redis_memory_used_bytes"] > 1 << 20, True)
    same(label(values, "redis_db_keys", {"db": "db0"}) >= 100, True)
    same(label(values, "redis_db_keys_expiring", {"db": "db0"}) >= 1, True)
    same(label(values, "redis_config_key_value", {"key": "maxmemory-policy", "value": "noeviction"}), 1)
    same(label(values, "redis_connected_clients_details", {"name": "redis_exporter"}) > 0, True)


def of_master():
    run("set", "exporter:gone", "1", "ex", "1000")
    for number in range(100):
        run("set", f"exporter:{number}", "x" * number)
    values = scrape(MASTER, [*MORE, *KEYS])
    of_both(values)
    same(label(values, "redis_instance_info", {"role": "master", "redis_mode": "standalone"}), 1)
    same(values["redis_connected_slaves"], 2)
    for host, port in NODES:
        if (host, port) != MASTER:
            place = {"slave_ip": host, "slave_port": str(port), "slave_state": "online"}
            same(label(values, "redis_connected_slave_lag_seconds", place) < 2, True)
    same(label(values, "redis_commands_total", {"cmd": "set"}) >= 100, True)
    same(label(values, "redis_key_size", {"key": "exporter:99"}), 99)
    same(label(values, "redis_keys_count", {"key": "exporter:*"}), 101)
    return f"{len(values)} values"


def of_replica():
    values = scrape(REPLICA, MORE)
    of_both(values)
    same(label(values, "redis_instance_info", {"role": "slave"}), 1)
    place = {"master_host": MASTER[0], "master_port": str(MASTER[1])}
    same(label(values, "redis_master_link_up", place), 1)
    same(label(values, "redis_master_last_io_seconds_ago", place) <= 2, True)
    same(label(values, "redis_slave_repl_offset", place) >= 101, True)
    return f"{len(values)} values"


feature("scrape of the master", of_master)
feature("scrape of a replica", of_replica)
