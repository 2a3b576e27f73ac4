"""The servers that are measured. Each has a name, an address for its load, and processes by part."""

import contextlib
import json
import shutil
import subprocess
import urllib.request

from cluster import Cluster, ask, free_ports
from speed.processes import install, is_open, wait_for

ETCD_NODES = 3


@contextlib.contextmanager
def stopped_if_it_fails(server):
    try:
        yield
    except BaseException:
        server.stop()
        raise


class Redis:
    """One Debian Redis that syncs every write."""

    name = "Redis"

    def __init__(self, directory):
        install("redis-server", "redis-server")
        directory.mkdir()
        [self.port] = free_ports(1)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", "always"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with stopped_if_it_fails(self):
            wait_for("Redis", lambda: ask(self.address(), "PING") == "+PONG", self.process)

    def address(self):
        return f"127.0.0.1:{self.port}"

    def parts(self):
        return {"server": [self.process.pid]}

    def version(self):
        info = ask(self.address(), "INFO", "server") or ""
        return next(line.split(":")[1] for line in info.splitlines() if line.startswith("redis_version"))

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Arakoon(Cluster):
    """Three nodes of ours."""

    name = "Arakoon"

    def address(self):
        return self.nodes[self.master()]

    def parts(self):
        master = self.master()
        others = [process.pid for seat, process in enumerate(self.processes) if process and seat != master]
        return {"master": [self.processes[master].pid], "followers": others}


class Etcd:
    """Three nodes of Debian's etcd."""

    name = "etcd"

    def __init__(self, directory):
        install("etcd", "etcd-server")
        directory.mkdir()
        ports = free_ports(2 * ETCD_NODES)
        self.clients = [f"http://127.0.0.1:{port}" for port in ports[:ETCD_NODES]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[ETCD_NODES:]]
        members = ",".join(f"n{seat}={peer}" for seat, peer in enumerate(peers))
        self.processes = []
        for seat in range(ETCD_NODES):
            command = ["etcd", "--name", f"n{seat}", "--data-dir", str(directory / f"n{seat}")]
            command += ["--listen-client-urls", self.clients[seat]]
            command += ["--advertise-client-urls", self.clients[seat]]
            command += ["--listen-peer-urls", peers[seat], "--initial-advertise-peer-urls", peers[seat]]
            command += ["--initial-cluster", members, "--logger", "zap", "--log-level", "error"]
            self.processes.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        with stopped_if_it_fails(self):
            for port, process in zip(ports, self.processes):
                wait_for("etcd", lambda: is_open(port), process)
            wait_for("etcd", lambda: self.leader() is not None, self.processes[0])

    def status(self, seat):
        request = urllib.request.Request(self.clients[seat] + "/v3/maintenance/status", data=b"{}")
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return json.load(reply)
        except OSError:
            return {}

    def leader(self):
        """Its seat."""
        for seat in range(ETCD_NODES):
            status = self.status(seat)
            if status.get("leader", "0") != "0" and status["leader"] == status["header"]["member_id"]:
                return seat
        return None

    def address(self):
        return self.clients[self.leader()]

    def parts(self):
        leader = self.leader()
        others = [process.pid for seat, process in enumerate(self.processes) if seat != leader]
        return {"leader": [self.processes[leader].pid], "followers": others}

    def version(self):
        return self.status(0)["version"]

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def stop_all(servers, directory):
    for server in servers:
        server.stop()
    shutil.rmtree(directory, ignore_errors=True)
