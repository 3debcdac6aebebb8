"""`xylem sub --ack`: a program says what became of each item, or the command acknowledges one by one; what is not handled
comes again, what is given up goes to the dead letters, and what was acknowledged never comes again."""

import json
import os
import re
import select
import signal
import stat
import subprocess
import time

import harness


def ok(run):
    assert run.returncode == 0, run.stderr
    return run.stdout


class Manual:
    """`xylem sub --ack manual` as a program sees it."""

    def __init__(self, broker, *arguments):
        self.process = subprocess.Popen(
            [harness.program("xylem"), "sub", *arguments, "--ack", "manual"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "XYLEM_SOCKET": broker.local})

    def take(self, count=1, timeout=20):
        """The next items, one JSON line each."""
        deadline, items = time.monotonic() + timeout, []
        while len(items) < count:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{len(items)} of {count} came"
            items.append(json.loads(self._line()))
        return items

    def _line(self):
        """One line, byte by byte: what is behind it stays where select sees it."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self.process.stdout.fileno(), 1)
            assert byte, "the command ended"
            line += byte
        return line

    def say(self, *lines):
        for line in lines:
            self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def finish(self, timeout=20):
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()], err


def publish(broker, node, *texts):
    for text in texts:
        ok(broker.xylem("pub", node, stdin=text))


def prepare(broker, node="n", *options):
    """A durable subscription "me" that is there before anything is published."""
    ok(broker.xylem("node", "create", node))
    ok(broker.xylem("sub", node, "--durable=me", "--ack", "explicit", *options, "--timeout", "1"))


def again(broker, node="n", *options):
    """What still comes to "me" within two seconds, acknowledged."""
    run = broker.xylem("sub", node, "--durable=me", "--ack", "explicit", *options, "--json", "--timeout", "2")
    return [json.loads(line) for line in ok(run).splitlines()]


def test_each_item_has_its_verdict(broker):
    prepare(broker)
    publish(broker, "n", "a", "b", "c", "d")
    program = Manual(broker, "n", "--durable=me")
    items = program.take(4)
    assert [item["data"] for item in items] == ["a", "b", "c", "d"]
    assert len({item["ref"] for item in items}) == 4 and items[0]["attempt"] == 1
    refs = {item["data"]: item["ref"] for item in items}
    program.say(f"ack {refs['c']}", f"nack {refs['b']}", f"ack {refs['a']}")
    item, = program.take()
    assert item["data"] == "b" and item["attempt"] == 2 and item["ref"] not in refs.values()
    program.say(f"ack {item['ref']}")
    program.process.stdin.close()
    program.process.wait(20)
    assert [item["data"] for item in again(broker)] == ["d"]
    assert again(broker) == []


def test_wrong_lines_are_said_and_skipped(broker):
    prepare(broker)
    publish(broker, "n", "a")
    program = Manual(broker, "n", "--durable=me", "--count", "1")
    ref = program.take()[0]["ref"]
    program.say("frobnicate 1", f"ack {ref + 1}", "ack", f"ack {ref} 3", f"nack {ref} soon", "", f"  ack   {ref}  ")
    _, errors = program.finish()
    assert len(errors.splitlines()) == 5
    assert "nack REF [SECONDS]" in errors and f"no item has the ref {ref + 1}" in errors
    assert again(broker) == []


def test_nack_waits_as_long_as_it_says(broker):
    prepare(broker)
    publish(broker, "n", "a")
    program = Manual(broker, "n", "--durable=me", "--count", "1")
    ref = program.take()[0]["ref"]
    before = time.monotonic()
    program.say(f"nack {ref} 2")
    ref = program.take()[0]["ref"]
    assert time.monotonic() - before >= 1.9
    program.say(f"ack {ref}")
    program.finish()


def test_silence_brings_it_again_and_working_does_not(broker):
    options = ["--ack-wait", "2"]
    prepare(broker, "n", *options)
    publish(broker, "n", "silent", "busy")
    program = Manual(broker, "n", "--durable=me", *options)
    silent, busy = program.take(2)
    for _ in range(5):
        time.sleep(0.7)
        program.say(f"working {busy['ref']}")
    program.say(f"ack {busy['ref']}", f"ack {silent['ref']}")
    rest, _ = program.finish()
    assert rest == []  # it came again, and was recognised: the program still had it
    assert again(broker, "n", *options) == []


def test_killed_program_gets_the_rest_again_marked(broker):
    prepare(broker)
    publish(broker, "n", *[str(n) for n in range(6)])
    program = Manual(broker, "n", "--durable=me")
    items = program.take(6)
    program.say(f"ack {items[1]['ref']}", f"ack {items[4]['ref']}")
    time.sleep(0.5)
    program.kill()
    rest = again(broker)
    assert [item["data"] for item in rest] == ["0", "2", "3", "5"]
    assert all(item["attempt"] > 1 and "delay_us" in item for item in rest)


def test_broker_killed_what_was_acknowledged_does_not_come_again(broker):
    prepare(broker)
    publish(broker, "n", *[str(n) for n in range(10)])
    program = Manual(broker, "n", "--durable=me")
    items = program.take(10)
    program.say(*[f"ack {items[n]['ref']}" for n in (0, 2, 4, 9)])
    time.sleep(1)
    broker.restart(signal.SIGKILL)
    # Nobody hears of what comes again while the program has it; the rest is acknowledged in the new session.
    program.say(*[f"ack {items[n]['ref']}" for n in (1, 3)])
    time.sleep(2)
    program.kill()
    assert [item["data"] for item in again(broker)] == ["5", "6", "7", "8"]


def test_given_up_goes_to_the_dead_letters(broker):
    options = ["--max-deliver", "2", "--dead-letter", "dead"]
    prepare(broker, "n", *options)
    publish(broker, "n", "poison", "hopeless", "fine")
    program = Manual(broker, "n", "--durable=me", *options)
    for item in program.take(3):
        program.say(f"ack {item['ref']}" if item["data"] == "fine" else
                    f"term {item['ref']}" if item["data"] == "hopeless" else f"nack {item['ref']}")
    item, = program.take()
    assert item["data"] == "poison" and item["attempt"] == 2
    program.say(f"nack {item['ref']}")
    time.sleep(0.5)
    program.process.stdin.close()
    program.process.wait(20)
    assert again(broker, "n", *options) == []
    rows = [json.loads(line) for line in ok(broker.xylem("queue", "peek", "dead", "--json")).splitlines()]
    dead = {row["data"]: row["headers"] for row in rows}
    assert dead["poison"]["Xylem-Dead-Reason"] == "max-deliver" and dead["poison"]["Xylem-Dead-Attempts"] == "2"
    assert dead["hopeless"]["Xylem-Dead-Reason"] == "term" and dead["hopeless"]["Xylem-Dead-Node"] == "n"
    assert len(dead) == 2


def test_receipts(broker):
    ok(broker.xylem("node", "create", "n"))
    ok(broker.xylem("sub", "n", "--durable=me", "--ack", "receipt", "--timeout", "1"))
    publish(broker, "n", "a", "b", "c")
    run = broker.xylem("sub", "n", "--durable=me", "--ack", "receipt", "--count", "2", "--timeout", "20")
    assert ok(run).splitlines() == ["a", "b"]
    run = broker.xylem("sub", "n", "--durable=me", "--ack", "receipt", "--timeout", "2")
    assert ok(run).splitlines() == ["c"]


def test_bounded_in_flight(broker):
    prepare(broker, "n", "--max-inflight", "2")
    publish(broker, "n", *"abcd")
    program = Manual(broker, "n", "--durable=me", "--max-inflight", "2")
    first, second = program.take(2)
    time.sleep(0.5)
    program.say(f"ack {second['ref']}")
    third, = program.take()
    assert third["data"] == "c"
    program.say(f"ack {third['ref']}", f"ack {first['ref']}")
    program.say(f"ack {program.take()[0]['ref']}")
    program.finish()
    assert again(broker, "n", "--max-inflight", "2") == []


def test_options_that_need_another_ack(broker):
    ok(broker.xylem("node", "create", "n"))
    run = broker.xylem("sub", "n", "--durable=me", "--ack-wait", "3")
    assert run.returncode == 2 and "explicit" in run.stderr
    run = broker.xylem("sub", "n", "--durable=me", "--ack", "explicit", "--backoff", "soon", "--timeout", "5")
    assert run.returncode == 1 and "backoff" in run.stderr


def manual_script(tmp_path):
    """The script of xylem(1), as it stands there, beside a ./work that fails once at each item."""
    with open(os.path.join(harness.ROOT, "docs", "man", "xylem.1"), encoding="utf-8") as file:
        script = re.search(r"\.Bd -literal[^\n]*\n(#!/bin/bash\n.*?)\.Ed", file.read(), re.S).group(1)
    script = script.replace("\\en", "\\n").replace("10\n", "1\n")
    assert "nack $ref 1\"" in script.replace("\n", "") or "nack $ref 1" in script
    path, work = tmp_path / "handle", tmp_path / "work"
    path.write_text(script)
    work.write_text("#!/bin/bash\nread -r item\nname=$(sed 's/.*\"data\":\"\\([a-z]*\\).*/\\1/' <<<\"$item\")\n"
                    "[ -e seen.$name ] && { echo $name >> done; exit 0; }\ntouch seen.$name\nexit 1\n")
    for file in (path, work):
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_script_of_the_manual(broker, tmp_path):
    script = manual_script(tmp_path)
    prepare(broker)
    publish(broker, "n", "one", "two", "three")
    run = subprocess.Popen([str(script), "n", "--durable=me"], cwd=tmp_path, start_new_session=True,
                           env={**os.environ, "XYLEM_SOCKET": broker.local,
                                "PATH": harness.BIN + os.pathsep + os.environ["PATH"]})
    done = tmp_path / "done"
    try:
        deadline = time.monotonic() + 30
        while (not done.exists() or len(done.read_text().split()) < 3) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert sorted(done.read_text().split()) == ["one", "three", "two"]
        time.sleep(0.5)
    finally:
        os.killpg(run.pid, signal.SIGTERM)
        run.wait(20)
    assert again(broker) == []


def test_who_gives_up_gives_back_at_once(broker):
    """A session whose connection just breaks keeps its items until it can no longer be resumed; one that ends on an error
    of its own does not."""
    ok(broker.xylem("node", "create", "news"))
    ok(broker.xylem("node", "create", "jobs", "--set", "{urn:xylem:node:0}queue=true"))
    ok(broker.xylem("sub", "news", "--durable=w", "--timeout", "1"))
    publish(broker, "jobs", "a", "b", "c")
    worker = Manual(broker, "jobs", "--queue", "3", "--durable=w")
    worker.take(3)
    publish(broker, "news", "for nobody here")
    worker.process.wait(timeout=20)  # its input stays open: the end of that is an end of its own
    err = worker.process.communicate()[1]
    assert worker.process.returncode == 1 and "the broker keeps items of node 'news'" in err
    deadline = time.monotonic() + 10  # the owner of the node hears a little later that a session ended
    while True:
        state = json.loads(ok(broker.xylem("queue", "info", "jobs", "--json")))
        if state["ready"] == 3 or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert (state["ready"], state["in-flight"], state["consumer"][0]["state"]) == (3, 0, "absent")
    assert json.loads(ok(broker.xylem("admin", "stats", "--json")))["sessions_detached"] == 0
