"""Workers of a queue over the SDK, with the example: every job is done, whoever fails or dies in between."""

import json
import os
import signal
import stat
import subprocess
import time

import pytest

import harness

JOB = """#!/bin/bash
# fails once at "shaky", always at "broken", is slow at "slow"; writes down what was finished
case "$1" in
    shaky*) [ -e "seen.$1" ] || { touch "seen.$1"; exit 75; } ;;
    broken*) exit 1 ;;
    slow*) echo "$1" >> begun; sleep 2 ;;
esac
echo "$1" >> finished
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job"
    path.write_text(JOB)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def worker(broker, job):
    processes = []

    def start():
        process = subprocess.Popen([harness.program("example-worker"), "-", "-", "jobs", str(job)], cwd=job.parent,
                                   env={**os.environ, "XYLEM_SOCKET": broker.local})
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def ok(run):
    assert run.returncode == 0, run.stderr
    return run.stdout


def make_queue(broker, *more):
    ok(broker.xylem("node", "create", "jobs", "--set", "{urn:xylem:node:0}queue=true",
                    "--set", "{urn:xylem:node:0}dead_letter=jobs.dead", *more))


def put(broker, *names):
    for name in names:
        ok(broker.xylem("pub", "jobs", "--id", name, stdin=name))


def lines(job, name):
    path = job.parent / name
    return path.read_text().split() if path.exists() else []


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def depth(broker):
    return json.loads(ok(broker.xylem("queue", "info", "jobs", "--json")))["depth"]


def test_two_workers_share_and_failures_are_sorted_out(broker, job, worker):
    make_queue(broker)
    put(broker, *[f"job{n}" for n in range(10)], "shaky", "broken")
    first, second = worker(), worker()
    wait_for(lambda: depth(broker) == 0)
    assert sorted(lines(job, "finished")) == sorted([f"job{n}" for n in range(10)] + ["shaky"])
    dead = json.loads(ok(broker.xylem("queue", "peek", "jobs.dead", "--json")))
    assert dead["data"] == "broken" and dead["headers"]["Xylem-Dead-Reason"] == "term"
    for process in (first, second):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_what_a_killed_worker_had_is_done_by_the_next(broker, job, worker):
    """Its session could be resumed, so the item is its own until its time is up."""
    make_queue(broker, "--set", "{urn:xylem:node:0}lock_timeout=4")
    put(broker, "slow1", "slow2")
    first = worker()
    wait_for(lambda: lines(job, "begun") == ["slow1"])
    first.kill()
    first.wait()
    second = worker()
    wait_for(lambda: depth(broker) == 0)
    assert lines(job, "begun").count("slow1") == 2 and lines(job, "begun").count("slow2") == 1
    second.send_signal(signal.SIGINT)
    assert second.wait(20) == 0


def test_the_broker_is_killed_while_they_work(broker, job, worker):
    make_queue(broker)
    put(broker, *[f"job{n}" for n in range(20)])
    worker()
    wait_for(lambda: len(lines(job, "finished")) >= 3)
    broker.restart(signal.SIGKILL)
    put(broker, "last")
    wait_for(lambda: depth(broker) == 0)
    finished = lines(job, "finished")
    assert set(finished) == {f"job{n}" for n in range(20)} | {"last"}
    assert len(finished) <= 23  # those in hand at the crash may be done once more


def test_verdicts_by_hand_on_a_queue(broker):
    make_queue(broker)
    put(broker, "a", "b", "c")
    process = subprocess.Popen([harness.program("xylem"), "sub", "jobs", "--queue", "3", "--ack", "manual", "--count", "3"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                               env={**os.environ, "XYLEM_SOCKET": broker.local})
    try:
        items = {item["data"]: item for item in (json.loads(process.stdout.readline()) for _ in range(3))}
        process.stdin.write(f"ack {items['a']['ref']}\nterm {items['b']['ref']}\nnack {items['c']['ref']}\n")
        process.stdin.flush()
        again = json.loads(process.stdout.readline())
        assert again["data"] == "c" and again["attempt"] == 2
        process.stdin.write(f"ack {again['ref']}\n")
        process.stdin.close()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert depth(broker) == 0
    assert json.loads(ok(broker.xylem("queue", "peek", "jobs.dead", "--json")))["data"] == "b"
    state = json.loads(ok(broker.xylem("queue", "info", "jobs", "--json")))
    assert state["consumer"] == []  # it was there for the command only
