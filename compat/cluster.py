"""A cluster of three real nodes on ports that the system picks."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CLUSTER_ID = "compat"


def build():
    """The program under test: ARAKOON_PROGRAM, or a release build."""
    if "ARAKOON_PROGRAM" in os.environ:
        return Path(os.environ["ARAKOON_PROGRAM"])
    subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "arakoon"], cwd=PROJECT, check=True)
    return target_directory() / "release" / "arakoon"


def target_directory():
    """Where Cargo builds."""
    return PROJECT / os.environ.get("CARGO_TARGET_DIR", "target")


def free_ports(count):
    """Picked by the system, all at once so that none comes twice."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def ask(address, *words, timeout=2.0):
    """One command; the reply's first line, or all of a bulk string. None: no answer."""
    host, port = address.rsplit(":", 1)
    request = b"*%d\r\n" % len(words)
    for word in words:
        word = word.encode()
        request += b"$%d\r\n%s\r\n" % (len(word), word)
    try:
        with socket.create_connection((host, int(port)), timeout=timeout) as connection:
            connection.sendall(request)
            stream = connection.makefile("rb")
            line = stream.readline().rstrip(b"\r\n")
            if line.startswith(b"$") and line != b"$-1":
                return stream.read(int(line[1:])).decode()
            return line.decode()
    except OSError:
        return None


class Cluster:
    def __init__(self, program, parent=None, lease="1s", engine="sled", cache="64MiB"):
        """`parent`: where its directory is made. A lease of a second is longer than the default:
        machines that run this build and test at once."""
        self.program = program
        self.directory = tempfile.TemporaryDirectory(prefix="arakoon-compat-", dir=parent)
        root = Path(self.directory.name)
        ports = free_ports(6)
        self.nodes = [f"127.0.0.1:{port}" for port in ports[:3]]
        text = f'[cluster]\nid = "{CLUSTER_ID}"\nlease = "{lease}"\n'
        for seat in range(3):
            text += (
                f'[[node]]\nname = "n{seat + 1}"\nclient = "{self.nodes[seat]}"\n'
                f'peer = "127.0.0.1:{ports[3 + seat]}"\ndir = "n{seat + 1}"\n'
                f'engine = "{engine}"\ncache = "{cache}"\n'
            )
        self.file = root / "cluster.toml"
        self.file.write_text(text)
        self.processes = [None] * 3
        for seat in range(3):
            self.start(seat)
        self.wait_until_whole()

    def start(self, seat):
        log = open(Path(self.directory.name) / f"n{seat + 1}.log", "ab")
        command = [self.program, "serve", "--config", self.file, "--node", f"n{seat + 1}"]
        command += ["--exit-with-parent", str(os.getpid())]
        self.processes[seat] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def data(self, seat):
        """Where a node keeps everything."""
        return Path(self.directory.name) / f"n{seat + 1}"

    def kill(self, seat):
        """kill -9 of exactly that process."""
        process, self.processes[seat] = self.processes[seat], None
        process.send_signal(signal.SIGKILL)
        process.wait()

    def master(self, seconds_max=30):
        """Its seat, once there is one with a quorum."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            for seat, address in enumerate(self.nodes):
                if self.processes[seat] and ask(address, "AK.PROGRESS") == ":1":
                    return seat
            time.sleep(0.01)
        raise SystemExit(f"no master within {seconds_max} s")

    def wait_until_whole(self, seconds_max=60):
        """All nodes run and vote, and the master reaches them."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            info = ask(self.nodes[self.master(seconds_max)], "INFO", "arakoon") or ""
            followers = [line for line in info.splitlines() if line.startswith("follower_")]
            if len(followers) == 2 and all("votes=1" in it and "behind=0" in it for it in followers):
                return
            time.sleep(0.02)
        raise SystemExit(f"the cluster is not whole within {seconds_max} s")

    def logs(self):
        for seat in range(3):
            path = Path(self.directory.name) / f"n{seat + 1}.log"
            yield f"n{seat + 1}", path.read_text(errors="replace").splitlines()[-20:]

    def stop(self):
        for seat, process in enumerate(self.processes):
            if process:
                self.kill(seat)
        self.directory.cleanup()
