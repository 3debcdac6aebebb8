"""Publishes that survive their program: `xylem pub --spool` and the example, with the broker away, killed, or frozen."""

import os
import signal
import subprocess
import time

import harness

LINES = [f"line {n}" for n in range(40)]


def ok(run):
    assert run.returncode == 0, run.stderr
    return run.stdout


def wait_for(what, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Spooler:
    """The example: one item per line of standard input."""

    def __init__(self, broker, node, folder):
        self.process = subprocess.Popen(
            [harness.program("example-spool"), "-", "-", node, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, bufsize=1, env={**os.environ, "XYLEM_SOCKET": broker.local})

    def take(self, lines):
        """Returns when each line is on disk."""
        for line in lines:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == f"taken: {line}\n"

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def finish(self):
        self.process.communicate(timeout=40)
        assert self.process.returncode == 0


def received(broker, node, count):
    """What a subscriber that is there from the beginning gets, and nothing beyond."""
    run = broker.xylem("sub", node, "--durable=reader", "--count", str(count), "--timeout", "30", timeout=60)
    assert run.returncode == 0, (run.stdout, run.stderr)
    rest = broker.xylem("sub", node, "--durable=reader", "--timeout", "1")
    return run.stdout.splitlines() + rest.stdout.splitlines()


def prepare(broker, node):
    ok(broker.xylem("node", "create", node))
    ok(broker.xylem("sub", node, "--durable=reader", "--timeout", "1"))


def test_no_broker_is_no_failure(make_broker, tmp_path):
    broker = make_broker()
    spool = str(tmp_path / "spool")
    for line in LINES[:3]:
        run = broker.xylem("pub", "n", "--spool", spool, stdin=line)
        assert run.returncode == 0
        assert f"kept in {spool}" in run.stderr and "could not" not in run.stdout
    assert broker.xylem("pub", "--spool", spool).returncode == 1
    broker.start()
    prepare(broker, "n")
    ok(broker.xylem("pub", "--spool", spool))
    ok(broker.xylem("pub", "n", "--spool", spool, stdin=LINES[3]))
    ok(broker.xylem("pub", "--spool", spool))
    assert received(broker, "n", 4) == LINES[:4]


def test_usage_and_folders(make_broker, tmp_path):
    broker = make_broker(users={})
    run = broker.xylem("pub")
    assert run.returncode == 2 and "too few" in run.stderr
    run = broker.xylem("pub", "n", "--spool", "/nonexistent/folder", stdin="x")
    assert run.returncode == 1 and "/nonexistent/folder" in run.stderr
    run = broker.xylem("pub", "n", "--spool", str(tmp_path / "s"), "--header", "nonsense", stdin="x")
    assert run.returncode == 2 and "NAME=VALUE" in run.stderr
    assert broker.xylem("pub", "n", "--spool", str(tmp_path / "s"), stdin="x").returncode == 0
    run = broker.xylem("--as", "alice@" + harness.DOMAIN, "pub", "n", "--spool", str(tmp_path / "s"), stdin="x")
    assert run.returncode == 1 and "another account" in run.stderr


def test_refused_for_good_is_said_and_leaves_the_spool(broker, tmp_path):
    spool = str(tmp_path / "spool")
    ok(broker.xylem("--as", "alice@" + harness.DOMAIN, "node", "create", "hers"))
    run = broker.xylem("--as", "bob@" + harness.DOMAIN, "pub", "hers", "--spool", spool, stdin="x")
    assert run.returncode == 1 and "forbidden" in run.stderr
    run = broker.xylem("--as", "bob@" + harness.DOMAIN, "pub", "--spool", spool)
    assert run.returncode == 0 and run.stderr == ""


def test_killed_between_the_spool_and_the_answer(broker, tmp_path):
    """The broker has the items, or has them in its socket, when their publisher dies: they are sent again, and stored once."""
    prepare(broker, "n")
    spool = str(tmp_path / "spool")
    for round_number in range(4):
        spooler = Spooler(broker, "n", spool)
        spooler.take(LINES[10 * round_number:10 * round_number + 2])
        time.sleep(0.5)  # online
        broker.process.send_signal(signal.SIGSTOP)
        spooler.take(LINES[10 * round_number + 2:10 * round_number + 10])
        time.sleep(0.2)
        spooler.kill()
        broker.process.send_signal(signal.SIGCONT)
    Spooler(broker, "n", spool).finish()
    assert received(broker, "n", 40) == LINES


def test_broker_killed_in_between(broker, tmp_path):
    prepare(broker, "n")
    spooler = Spooler(broker, "n", str(tmp_path / "spool"))
    for at in range(0, 40, 8):
        spooler.take(LINES[at:at + 8])
        broker.restart()
    spooler.finish()
    assert received(broker, "n", 40) == LINES


def test_publisher_and_broker_killed(broker, tmp_path):
    prepare(broker, "n")
    spool = str(tmp_path / "spool")
    for at in range(0, 40, 10):
        spooler = Spooler(broker, "n", spool)
        spooler.take(LINES[at:at + 10])
        if at % 20:
            spooler.kill()
            broker.restart()
        else:
            broker.kill()
            spooler.kill()
            broker.start()
    Spooler(broker, "n", spool).finish()
    assert received(broker, "n", 40) == LINES
