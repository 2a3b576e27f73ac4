"""Which clients there are, how each is installed, and what is known not to work and why.

A client is one file in compat/<language>/ and one line here.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
PLACE = HERE.parent / "target" / "compat"

PYTHON = ["redis==8.1.0", "Flask-Caching==2.5.1"]
NODE = ["ioredis@6.0.0", "redis@6.3.1"]


@dataclass
class Client:
    name: str
    command: list
    # Installs what it needs; answers why it cannot, or None.
    prepare: Callable = lambda: None
    fails_over: bool = True
    environment: dict = field(default_factory=dict)
    directory: Path = HERE
    # Feature, and why it does not work.
    known: dict = field(default_factory=dict)
    # Where its snippet stands; empty: nowhere.
    source: str = ""


def once(mark, wanted, install):
    """Installs unless exactly that was installed before."""
    file = PLACE / f"{mark}.installed"
    if file.exists() and file.read_text() == wanted:
        return None
    PLACE.mkdir(parents=True, exist_ok=True)
    try:
        install()
    except (subprocess.CalledProcessError, OSError) as error:
        return f"cannot be installed: {error}"
    file.write_text(wanted)
    return None


def python():
    place = PLACE / "python"

    def install():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PYTHON]
        subprocess.run(pip, check=True)

    return once("python", " ".join(PYTHON), install)


def node():
    if not shutil.which("npm"):
        return "npm is not installed"
    place = PLACE / "node"

    def install():
        place.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--silent", "--no-save", "--prefix", place, *NODE]
        subprocess.run(npm, check=True)

    reason = once("node", " ".join(NODE), install)
    if not reason:
        # Modules are looked for beside the file that imports them.
        for file in (HERE / "node").glob("*.mjs"):
            shutil.copy(file, place)
    return reason


def redis_tools():
    return None if shutil.which("redis-cli") else "redis-cli is not installed"


def python_client(name, file, mode, **more):
    command = [PLACE / "python" / "bin" / "python", HERE / "python" / file, mode]
    return Client(name, command, python, source=f"python/{file}", **more)


def node_client(name, file, mode, **more):
    command = ["node", PLACE / "node" / file, mode]
    return Client(name, command, node, source=f"node/{file}", **more)


def tool(name, known=None):
    command = [sys.executable, HERE / "tools" / "redis_cli.py", name]
    return Client(name, command, redis_tools, fails_over=False, known=known or {})


def all_clients():
    alone = {"fails_over": False}
    return [
        python_client("redis-py, plain", "redis_py.py", "plain", **alone),
        python_client("redis-py, Sentinel", "redis_py.py", "sentinel"),
        python_client("redis-py, cluster", "redis_py.py", "cluster"),
        python_client("redis-py, asyncio with Sentinel", "redis_py.py", "asyncio"),
        python_client("Flask-Caching", "cache_site.py", ""),
        node_client("ioredis, plain", "ioredis.mjs", "plain", **alone),
        node_client("ioredis, Sentinel", "ioredis.mjs", "sentinel"),
        node_client("ioredis, cluster", "ioredis.mjs", "cluster"),
        node_client("node-redis, plain", "node_redis.mjs", "plain", **alone),
        node_client("node-redis, Sentinel", "node_redis.mjs", "sentinel"),
        node_client("node-redis, cluster", "node_redis.mjs", "cluster"),
        tool("redis-cli"),
        tool("redis-benchmark", {"--cluster": "it refuses a cluster with a single master"}),
        tool("scrape"),
    ]
