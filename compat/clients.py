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

PYTHON = ["redis==8.1.0", "Flask-Caching==2.5.1", "Django==5.2.19", "django-redis==7.0.0"]
NODE = ["ioredis@6.0.0", "redis@6.3.1"]
# Debian's packages with Go's libraries put their sources here.
GO_PATH = Path("/usr/share/gocode")
GO_LIBRARIES = ["gopkg.in/redis.v5", "github.com/gomodule/redigo"]
GO_LIBRARIES += ["github.com/FZambia/sentinel", "github.com/mna/redisc"]
# Where Jedis and what it needs are, for who has them.
JARS = os.environ.get("ARAKOON_JARS", "")


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
    # What stands in its last words when it has crashed by a fault of its own, and which fault.
    crash: tuple = ()
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


def rust():
    command = ["cargo", "build", "--quiet", "--locked", "--target-dir", PLACE / "rust"]
    return built(command, HERE / "rust", {})


def go():
    if not shutil.which("go"):
        return "go is not installed"
    missing = [library for library in GO_LIBRARIES if not (GO_PATH / "src" / library).exists()]
    if missing:
        return f"{', '.join(missing)} not below {GO_PATH}"
    PLACE.mkdir(parents=True, exist_ok=True)
    without_modules = {"GO111MODULE": "off", "GOPATH": str(GO_PATH)}
    return built(["go", "build", "-o", PLACE / "go", "."], HERE / "go", without_modules)


def java():
    if not JARS:
        return "no registry that is asked here has Jedis; ARAKOON_JARS may name a class path with it"
    if not shutil.which("javac"):
        return "javac is not installed"
    (PLACE / "java").mkdir(parents=True, exist_ok=True)
    return built(["javac", "-d", PLACE / "java", "-cp", JARS, HERE / "java" / "JedisClient.java"], HERE, {})


def built(command, directory, environment):
    try:
        subprocess.run(command, cwd=directory, env={**os.environ, **environment}, check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        return f"cannot be built: {error}"
    return None


def redis_tools():
    return None if shutil.which("redis-cli") else "redis-cli is not installed"


def exporter():
    found = shutil.which("prometheus-redis-exporter")
    return redis_tools() if found else "prometheus-redis-exporter is not installed"


def python_client(name, file, mode, **more):
    command = [PLACE / "python" / "bin" / "python", HERE / "python" / file, mode]
    return Client(name, command, python, source=f"python/{file}", **more)


def node_client(name, file, mode, **more):
    command = ["node", PLACE / "node" / file, mode]
    return Client(name, command, node, source=f"node/{file}", **more)


def rust_client(name, client, mode, file, **more):
    command = [PLACE / "rust" / "debug" / "compat", client, mode]
    return Client(name, command, rust, source=f"rust/src/{file}", **more)


def go_client(name, client, mode, file, **more):
    return Client(name, [PLACE / "go", client, mode], go, source=f"go/{file}", **more)


def java_client(name, mode, **more):
    command = ["java", "-cp", f"{PLACE / 'java'}:{JARS}", "JedisClient", mode]
    return Client(name, command, java, source="java/JedisClient.java", **more)


def tool(name, known=None):
    command = [sys.executable, HERE / "tools" / "redis_cli.py", name]
    return Client(name, command, redis_tools, fails_over=False, known=known or {})


def all_clients():
    alone = {"fails_over": False}
    by_hand = {"SentinelClient": "it wants nodes whose ROLE is `sentinel`; it is asked by hand"}
    three_fields = {"cluster mode": "it refuses CLUSTER SLOTS as Redis answers it since 7, with four fields"}
    removes_nothing = (
        "pool.(*StickyConnPool).removeUpstream(",
        "a connection that breaks before it has subscribed there again it removes twice, and crashes",
    )
    return [
        python_client("redis-py, plain", "redis_py.py", "plain", **alone),
        python_client("redis-py, Sentinel", "redis_py.py", "sentinel"),
        python_client("redis-py, cluster", "redis_py.py", "cluster"),
        python_client("redis-py, asyncio with Sentinel", "redis_py.py", "asyncio"),
        python_client("Flask-Caching", "cache_site.py", ""),
        python_client("django-redis", "django_cache.py", ""),
        node_client("ioredis, plain", "ioredis.mjs", "plain", **alone),
        node_client("ioredis, Sentinel", "ioredis.mjs", "sentinel"),
        node_client("ioredis, cluster", "ioredis.mjs", "cluster"),
        node_client("node-redis, plain", "node_redis.mjs", "plain", **alone),
        node_client("node-redis, Sentinel", "node_redis.mjs", "sentinel"),
        node_client("node-redis, cluster", "node_redis.mjs", "cluster"),
        rust_client("redis-rs, plain", "redis", "plain", "redis_sync.rs", **alone),
        rust_client("redis-rs, Sentinel", "redis", "sentinel", "redis_sync.rs", known=by_hand),
        rust_client("redis-rs, cluster", "redis", "cluster", "redis_sync.rs"),
        rust_client("redis-rs with Tokio, plain", "redis-tokio", "plain", "redis_tokio.rs", **alone),
        rust_client("redis-rs with Tokio, Sentinel", "redis-tokio", "sentinel", "redis_tokio.rs"),
        rust_client("redis-rs with Tokio, cluster", "redis-tokio", "cluster", "redis_tokio.rs"),
        rust_client("fred, plain", "fred", "plain", "fred_client.rs", **alone),
        rust_client("fred, Sentinel", "fred", "sentinel", "fred_client.rs"),
        rust_client("fred, cluster", "fred", "cluster", "fred_client.rs"),
        go_client("go-redis 5, plain", "go-redis", "plain", "go_redis.go", **alone),
        go_client("go-redis 5, Sentinel", "go-redis", "sentinel", "go_redis.go", crash=removes_nothing),
        go_client("go-redis 5, cluster", "go-redis", "cluster", "go_redis.go", known=three_fields, **alone),
        go_client("redigo, plain", "redigo", "plain", "redigo.go", **alone),
        go_client("redigo, FZambia/sentinel", "redigo", "sentinel", "redigo.go"),
        go_client("redigo, mna/redisc", "redigo", "cluster", "redigo.go"),
        java_client("Jedis, plain", "plain", **alone),
        java_client("Jedis, Sentinel", "sentinel"),
        java_client("Jedis, cluster", "cluster"),
        tool("redis-cli"),
        tool("redis-benchmark", {"--cluster": "it refuses a cluster with a single master"}),
        tool("scrape"),
        Client("prometheus-redis-exporter", [sys.executable, HERE / "tools" / "exporter.py"], exporter, **alone),
    ]
