"""libxylem as others use it: the examples, the agent, what the library exports and what its core may call."""

import asyncio
import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import harness
from harness import DOMAIN

BUILD = os.path.dirname(harness.BIN)
HERE = os.path.dirname(os.path.abspath(__file__))


def environment(broker):
    return {**os.environ, "XYLEM_SOCKET": broker.local}


def test_examples(broker):
    assert broker.xylem("node", "create", "weather").returncode == 0
    subscriber = subprocess.Popen([harness.program("example-subscribe"), "-", "-", "weather", "screen"],
                                  stdout=subprocess.PIPE, text=True, env=environment(broker))
    try:
        time.sleep(0.5)
        run = subprocess.run([harness.program("example-publish"), "-", "-", "weather", "rain"], text=True,
                             capture_output=True, timeout=20, env=environment(broker), check=False)
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith("on disk, as item ")
        assert subscriber.stdout.readline() == "#1: rain\n"
        run = subprocess.run([harness.program("example-publish"), "-", "-", "", "rain"], text=True,
                             capture_output=True, timeout=20, env=environment(broker), check=False)
        assert run.returncode == 1 and "node" in run.stderr
        subscriber.send_signal(signal.SIGINT)
        assert subscriber.wait(10) == 0
    finally:
        subscriber.kill()
        subscriber.stdout.close()


def test_examples_are_short():
    for name in ("publish", "subscribe", "spool", "worker"):
        with open(os.path.join(harness.ROOT, "examples", name + ".c"), encoding="utf-8") as file:
            assert len(file.readlines()) < 80


def test_host_agent(broker):
    agent = subprocess.Popen([harness.program("xylem-host"), "--node", "hosts/me", "--interval", "100ms"],
                             stderr=subprocess.PIPE, text=True, env=environment(broker))
    try:
        time.sleep(1)
        broker.restart()
        run = broker.xylem("sub", "hosts/me", "--json", "--count", "3", "--timeout", "20")
        assert run.returncode == 0, run.stderr
        states = [json.loads(line) for line in run.stdout.splitlines()]
        assert all(state["type"] == "xylem.v1.HostState" for state in states)
        assert all(state["data"]["memory"]["total_bytes"] > 0 for state in states)
        text = broker.xylem("sub", "hosts/me", "--count", "1", "--timeout", "20").stdout
        assert "hostname=" in text and "cpu={" in text
        agent.send_signal(signal.SIGTERM)
        _, errors = agent.communicate(timeout=20)
        assert agent.returncode == 0, errors
        published, acknowledged = map(int, re.search(r"published (\d+), acknowledged (\d+)", errors).groups())
        assert published == acknowledged > 10
    finally:
        agent.kill()


def test_host_agent_refused(broker):
    assert broker.xylem("--as", "alice@" + DOMAIN, "node", "create", "mine").returncode == 0
    run = subprocess.run([harness.program("xylem-host"), "--as", "bob@" + DOMAIN, "--node", "mine"], text=True,
                         capture_output=True, timeout=30, env=environment(broker), check=False)
    assert run.returncode == 1 and "forbidden" in run.stderr
    for wrong in (["--interval", "soon"], ["--port", "0"], ["stray"], ["--nonsense"]):
        run = subprocess.run([harness.program("xylem-host"), *wrong], capture_output=True, timeout=30, check=False)
        assert run.returncode == 2


def test_a_few_crashes():
    run = subprocess.run([sys.executable, "-B", os.path.join(HERE, "..", "crash", "crash.py"), "--rounds", "3"],
                         capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "lost 0, duplicates seen by the application 0" in run.stdout


class Proxy:
    """Passes bytes to the broker, and can cut every connection at once: a network that fails, not a broker."""

    def __init__(self, port):
        self.target = port
        self.server = None
        self.writers = []

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self.writers += [writer, far_writer]
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        writer.close()

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers = []


async def test_a_bad_network_is_survived_by_resumption(broker):
    assert broker.xylem("node", "create", "crash", "--set", "pubsub#publish_model=open").returncode == 0
    proxy = Proxy(broker.port)
    port = str(await proxy.start())
    files = [os.path.join(broker.folder, name) for name in ("sub.out", "sub.err", "pub.out", "pub.err")]
    handles = [open(name, "wb") for name in files]
    subscriber = subprocess.Popen(
        [harness.program("crash-subscriber"), port, f"bob@{DOMAIN}/n", harness.USERS["bob"], "crash", broker.folder + "/st"],
        stdout=handles[0], stderr=handles[1])
    await asyncio.sleep(0.7)
    publisher = subprocess.Popen(
        [harness.program("crash-publisher"), port, f"alice@{DOMAIN}/n", harness.USERS["alice"], "crash", "1", "20"],
        stdout=handles[2], stderr=handles[3])
    for _ in range(12):
        await asyncio.sleep(0.25)
        proxy.cut()
    await asyncio.sleep(1)
    for process in (publisher, subscriber):
        process.send_signal(signal.SIGTERM)
        for _ in range(300):
            if process.poll() is not None:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(2 if process is publisher else 0)
    for handle in handles:
        handle.close()
    out = [open(name, encoding="utf-8").read() for name in files]
    assert publisher.returncode == 0 and subscriber.returncode == 0, out[1] + out[3]
    acknowledged = [int(line) for line in out[2].split()]
    shown = [int(line.split()[1]) for line in out[0].splitlines()]
    assert len(acknowledged) > 20
    assert shown == sorted(set(shown)) and set(acknowledged) <= set(shown)
    assert int(re.search(r"resumed (\d+)", out[1]).group(1)) >= 3, out[1]


def test_only_public_symbols_are_exported():
    library = os.path.join(BUILD, "lib", "libxylem.so")
    lines = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-1].split("@")[0] for line in lines.splitlines()]
    assert "xylem_client_new" in symbols and "xylem_uv_attach" in symbols
    strangers = [s for s in symbols if not s.startswith("xylem_") and s != "XYLEM_0.1"]
    if "san" not in BUILD:
        assert not strangers


def test_an_installed_library_builds_programs(tmp_path):
    root, example = tmp_path / "root", os.path.join(harness.ROOT, "examples", "publish.c")
    subprocess.run(["cmake", "--install", BUILD, "--prefix", str(root)], check=True, capture_output=True)
    environ = {**os.environ, "PKG_CONFIG_PATH": ":".join(glob.glob(f"{root}/lib/**/pkgconfig", recursive=True))}
    if "san" in BUILD:
        return  # the library needs the sanitizer's runtime, which pkg-config does not know
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "xylem"], capture_output=True, text=True, check=True,
                           env=environ).stdout.split()
    subprocess.run(["cc", example, *flags, "-o", str(tmp_path / "publish")], check=True)
    library = os.path.dirname(glob.glob(f"{root}/lib/**/libxylem.so", recursive=True)[0])
    run = subprocess.run([str(tmp_path / "publish")], capture_output=True, text=True, check=False,
                         env={**os.environ, "LD_LIBRARY_PATH": library})
    assert run.returncode == 2 and run.stderr.startswith("usage: publish")


# What could make the caller wait, start a thread, or open a connection behind its back.
BLOCKING = {
    "connect", "accept", "poll", "ppoll", "select", "pselect", "epoll_wait", "recv", "recvfrom", "recvmsg", "send", "sendto",
    "sendmsg", "getaddrinfo", "gethostbyname", "sleep", "usleep", "nanosleep", "clock_nanosleep", "pthread_create",
    "pthread_cond_wait", "system", "popen", "fork", "wait", "waitpid", "read", "write", "fopen", "open",
}


@pytest.mark.parametrize("folder", ["sdk/CMakeFiles/xylem_static.dir/src", "core/CMakeFiles/xylem_core.dir/stream",
                                    "core/CMakeFiles/xylem_core.dir/xml", "core/CMakeFiles/xylem_core.dir/sm"])
def test_the_core_calls_nothing_that_waits(folder):
    objects = glob.glob(os.path.join(BUILD, folder, "*.o"))
    assert objects
    undefined = subprocess.run(["nm", "-u", *objects], capture_output=True, text=True, check=True).stdout.split()
    assert not BLOCKING & set(undefined)
