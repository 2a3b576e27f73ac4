"""What the kernel says of processes."""

import os
import socket
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


# Threads of `arakoon serve` that run where nobody else wants to, so that processors stay awake.
KEEPERS = "awake"


def keeper_seconds(pids):
    """Processor time that keepers took, which nobody else wanted."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            try:
                if (thread / "comm").read_text().strip() != KEEPERS:
                    continue
                nanoseconds = (thread / "schedstat").read_text().split()[0]
            except OSError:
                continue
            total += int(nanoseconds) / 1e9
    return total


def cpu_seconds(pids):
    """Processor time of these processes and of their children that ended, such as Redis' rewrite."""
    total = 0
    for pid in pids:
        try:
            # The name, in parentheses, may contain anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(ticks) for ticks in fields[11:15])
    return total / TICKS_PER_SECOND


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"process {pid} has no VmRSS")


def settle(pids, seconds_max):
    """Waits until these processes have done what they put off; at most so long."""
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(0.25)
        if cpu_seconds(pids) - before <= 0.03:
            return


def wait_for(what, probe, process, seconds_max=60):
    deadline = time.monotonic() + seconds_max
    while not probe():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{what} does not start")
        time.sleep(0.1)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def install(program, package):
    """Installs a package of Debian's, unless the program is there."""
    if subprocess.run(["which", program], capture_output=True).returncode == 0:
        return
    if os.geteuid() != 0:
        raise SystemExit(f"{program} is missing; install Debian's package {package}")
    # Debian would start the service, on its usual port.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
