"""libxylem as others use it: the examples, the agent, what the library exports and what its core may call."""

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
    for name in ("publish", "subscribe"):
        with open(os.path.join(harness.ROOT, "examples", name + ".c"), encoding="utf-8") as file:
            assert len(file.readlines()) < 60


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


def test_only_public_symbols_are_exported():
    library = os.path.join(BUILD, "lib", "libxylem.so")
    lines = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-1].split("@")[0] for line in lines.splitlines()]
    assert "xylem_client_new" in symbols and "xylem_uv_attach" in symbols
    strangers = [s for s in symbols if not s.startswith("xylem_") and s != "XYLEM_0.1"]
    if "san" not in BUILD:
        assert not strangers


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
