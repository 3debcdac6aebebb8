"""The command line against a running broker: what it prints, what it says when something is wrong, how it exits."""

import json
import os
import signal
import subprocess
import time

import pytest

import harness
import pubsub
import raw
from harness import DOMAIN

BOB = "bob@" + DOMAIN

SUBSCRIBED_S = "4" if "san" in harness.BIN else "1"  # by then a subscriber has logged in and subscribed

COMMANDS = [
    ["pub"], ["sub"], ["node", "create"], ["node", "delete"], ["node", "list"], ["node", "info"], ["node", "config"],
    ["queue", "list"], ["queue", "info"], ["queue", "peek"], ["queue", "purge"], ["queue", "move"], ["queue", "redrive"],
    ["user", "add"], ["user", "import"], ["user", "list"], ["user", "passwd"], ["user", "remove"], ["send"], ["recv"],
    ["ping"], ["admin", "stats"],
]


def ok(run):
    assert run.returncode == 0, run.stderr
    return run.stdout


def refused(run, *parts, status=1):
    assert run.returncode == status, (run.returncode, run.stderr)
    for part in parts:
        assert part in run.stderr, run.stderr


class Sub:
    """`xylem sub` in the background, its lines in a file."""

    def __init__(self, broker, *arguments):
        self.path = os.path.join(broker.folder, f"sub-{time.monotonic_ns()}")
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen([harness.program("xylem"), "sub", *arguments], stdout=out,
                                            stderr=subprocess.DEVNULL, env={**os.environ, "XYLEM_SOCKET": broker.local})

    def lines(self):
        with open(self.path, encoding="utf-8") as file:
            return file.read().splitlines()

    def wait_lines(self, count, timeout=20):
        deadline = time.monotonic() + timeout
        while len(self.lines()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.lines()

    def end(self, timeout=20):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def wait_subscribed(broker, node, seconds=10):
    """Plain subscribers hear only what is published afterwards."""
    time.sleep(0.5)


def test_help_of_every_command(broker):
    everything = ok(broker.xylem("--help"))
    for command in COMMANDS:
        assert "  " + " ".join(command) in everything
        text = ok(broker.xylem(*command, "--help"))
        assert text.startswith("usage: xylem " + " ".join(command))
        assert "--socket" in text
    assert ok(broker.xylem("--version")).startswith("xylem ")


@pytest.mark.parametrize("arguments, says", [
    (["frobnicate"], "frobnicate"),
    (["node"], "usage"),
    (["node", "burn", "x"], "usage"),
    (["pub"], "too few"),
    (["pub", "a", "b", "c"], "too many"),
    (["pub", "a", "--nonsense"], "--nonsense"),
    (["pub", "a", "--durable"], "does not take --durable"),
    (["sub", "a", "--count"], "needs a value"),
    (["sub", "a", "--count", "0"], "--count"),
    (["sub", "a", "--json=yes"], "no value"),
    (["node", "config", "a", "novalue"], "NAME=VALUE"),
    (["ping", "--host", "h"], "--jid"),
    (["user", "list", "--offline"], "--config"),
    (["user", "list", "--config", "x"], "--offline"),
])
def test_wrong_usage_exits_2_and_says_what(make_broker, arguments, says):
    run = make_broker(users={}).xylem(*arguments)
    refused(run, says, status=2)


def test_no_broker_says_where_it_looked(make_broker):
    broker = make_broker()
    refused(broker.xylem("ping"), broker.local, "xylemd")


def test_publish_and_subscribe_text_xml_and_json(broker):
    ok(broker.xylem("node", "create", "weather"))
    plain, objects = Sub(broker, "weather", "--count", "3"), Sub(broker, "weather", "--json", "--count", "3")
    wait_subscribed(broker, "weather")
    ok(broker.xylem("pub", "weather", "-", "--id", "one", stdin="rain & <sun>\n"))
    ok(broker.xylem("pub", "weather", stdin="<a xmlns='urn:x'><b c='d'/></a>"))
    ok(broker.xylem("pub", "weather", "--type", "text/markdown", stdin="<b>bold</b>"))
    assert plain.process.wait(20) == 0 and objects.process.wait(20) == 0
    assert plain.lines() == ["rain & <sun>", "<a xmlns='urn:x'><b c='d'/></a>", "<b>bold</b>"]
    items = [json.loads(line) for line in objects.lines()]
    assert items[0] == {"node": "weather", "id": "one", "type": "text/plain", "data": "rain & <sun>\n"}
    assert items[1]["type"] == "xml" and items[2]["type"] == "text/markdown"


def test_binary_survives(broker, tmp_path):
    file = tmp_path / "data"
    file.write_bytes(bytes(range(256)))
    ok(broker.xylem("node", "create", "bits"))
    sub = Sub(broker, "bits", "--count", "1")
    wait_subscribed(broker, "bits")
    ok(broker.xylem("pub", "bits", str(file), "--type", "application/octet-stream"))
    assert sub.process.wait(20) == 0
    with open(sub.path, "rb") as out:
        assert out.read()[:256] == bytes(range(256))


def test_publishing_creates_subscribing_does_not(broker):
    ok(broker.xylem("pub", "somewhere", stdin="x"))
    ok(broker.xylem("pub", "explicit", "--create", stdin="x"))
    ok(broker.xylem("pub", "explicit", "--create", stdin="y"))
    refused(broker.xylem("sub", "elsewhere", "--timeout", "5"), "item-not-found", "create")


def test_bad_xml_is_refused_before_it_is_sent(broker):
    ok(broker.xylem("node", "create", "n"))
    refused(broker.xylem("pub", "n", "--type", "xml", stdin="<a><b></a>"), "well-formed", status=2)


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_durable_misses_nothing_and_repeats_nothing(broker, kill):
    ok(broker.xylem("node", "create", "log"))
    first = Sub(broker, "log", "--durable=screen", "--json")
    time.sleep(0.5)
    for i in range(3):
        ok(broker.xylem("pub", "log", stdin=str(i)))
    first.wait_lines(3)
    assert first.end() == 0
    for i in range(3, 6):
        ok(broker.xylem("pub", "log", stdin=str(i)))
    broker.restart(kill)
    one = broker.xylem("sub", "log", "--durable=screen", "--json", "--count", "1", "--timeout", "20")
    rest = broker.xylem("sub", "log", "--durable=screen", "--json", "--count", "2", "--timeout", "20")
    items = [json.loads(line) for line in first.lines() + ok(one).splitlines() + ok(rest).splitlines()]
    assert [item["data"] for item in items] == ["0", "1", "2", "3", "4", "5"]
    assert [item["seq"] for item in items] == [1, 2, 3, 4, 5, 6]


def test_subscriber_lives_through_a_crash(broker):
    ok(broker.xylem("node", "create", "log"))
    sub = Sub(broker, "log", "--durable", "--json")
    time.sleep(0.5)
    for i in range(5):
        ok(broker.xylem("pub", "log", stdin=str(i)))
        broker.restart()
    lines = sub.wait_lines(5, timeout=40)
    assert sub.end() == 0
    assert [json.loads(line)["data"] for line in lines] == ["0", "1", "2", "3", "4"]


def test_timeout_and_forget(broker):
    ok(broker.xylem("node", "create", "quiet"))
    run = broker.xylem("sub", "quiet", "--durable=x", "--count", "1", "--timeout", SUBSCRIBED_S)
    assert run.returncode == 3
    assert broker.xylem("sub", "quiet", "--durable=x", "--timeout", SUBSCRIBED_S).returncode == 0
    ok(broker.xylem("sub", "quiet", "--durable=x", "--forget"))
    ok(broker.xylem("pub", "quiet", stdin="nobody keeps this"))
    assert broker.xylem("sub", "quiet", "--durable=x", "--count", "1", "--timeout", SUBSCRIBED_S).returncode == 3
    refused(broker.xylem("sub", "quiet", "--durable=unknown", "--forget"), "not-subscribed")


def test_forgetting_one_of_several(broker):
    for node in ("a", "b"):
        ok(broker.xylem("node", "create", node))
    broker.xylem("sub", "a", "b", "--durable=x", "--timeout", SUBSCRIBED_S)
    ok(broker.xylem("pub", "b", stdin="kept"))
    ok(broker.xylem("sub", "a", "--durable=x", "--forget"))
    assert "depth=1 " in ok(broker.xylem("queue", "info", "b"))
    assert ok(broker.xylem("sub", "b", "--durable=x", "--count", "1", "--timeout", "10")) == "kept\n"


def test_a_name_that_owes_other_nodes_says_so(broker):
    ok(broker.xylem("node", "create", "a"))
    ok(broker.xylem("node", "create", "b"))
    broker.xylem("sub", "a", "--durable=x", "--timeout", SUBSCRIBED_S)
    ok(broker.xylem("pub", "a", stdin="kept"))
    refused(broker.xylem("sub", "b", "--durable=x", "--timeout", "5"), "'a'", "subscribe")
    assert ok(broker.xylem("sub", "a", "--durable=x", "--count", "1", "--timeout", "10")) == "kept\n"


def test_nodes(broker):
    ok(broker.xylem("node", "create", "one", "--set", "pubsub#max_items=7"))
    ok(broker.xylem("node", "create", "two"))
    refused(broker.xylem("node", "create", "one"), "conflict")
    assert set(ok(broker.xylem("node", "list")).split()) >= {"one", "two"}
    config = json.loads(ok(broker.xylem("node", "config", "one", "--json")))
    assert str(config["pubsub#max_items"]) == "7"
    ok(broker.xylem("node", "config", "one", "pubsub#max_items=9", "pubsub#title=A = B"))
    config = json.loads(ok(broker.xylem("node", "config", "one", "--json")))
    assert str(config["pubsub#max_items"]) == "9" and config["pubsub#title"] == "A = B"
    ok(broker.xylem("node", "info", "one"))
    refused(broker.xylem("node", "info", "none"), "item-not-found")
    ok(broker.xylem("node", "delete", "two"))
    assert "two" not in ok(broker.xylem("node", "list")).split()


def test_users(broker, tmp_path):
    jid = "zoe@" + DOMAIN
    ok(broker.xylem("user", "add", jid, "--password-stdin", stdin="first\n"))
    refused(broker.xylem("user", "add", jid, "--password-stdin", stdin="again\n"), "conflict")
    assert jid in ok(broker.xylem("user", "list")).split()
    ok(broker.xylem("user", "passwd", jid, "--password-stdin", stdin="second\n"))
    ok(over_network(broker, jid, "second"))
    refused(over_network(broker, jid, "first"), "password")
    accounts = tmp_path / "accounts"
    accounts.write_text("u1:a:b\nu2:c\n")
    ok(broker.xylem("user", "import", str(accounts)))
    ok(over_network(broker, "u1@" + DOMAIN, "a:b"))
    accounts.write_text("broken\n")
    refused(broker.xylem("user", "import", str(accounts)), ":1:")
    ok(broker.xylem("user", "remove", jid, "u1@" + DOMAIN))
    assert jid not in ok(broker.xylem("user", "list")).split()
    refused(broker.xylem("user", "add", "x@elsewhere.example", "--password-stdin", stdin="p\n"), "domain")


def over_network(broker, jid, password, *options):
    return subprocess.run(
        [harness.program("xylem"), "ping", "--jid", jid, "--host", "127.0.0.1", "--port", str(broker.port),
         *(options or ["--ca", broker.certificate])],
        capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "XYLEM_PASSWORD": password})


def test_over_the_network(broker):
    jid, password = "alice@" + DOMAIN, harness.USERS["alice"]
    ok(over_network(broker, jid, password))
    assert "mechanism=SCRAM-SHA-256-PLUS" in broker.log()  # bound to this TLS connection
    ok(over_network(broker, jid, password, "--insecure"))
    ok(over_network(broker, jid, password, "--no-tls"))
    ok(over_network(broker, jid, password, "--port", str(broker.tls_port), "--direct-tls", "--ca", broker.certificate))
    refused(over_network(broker, jid, password, "--port", str(broker.port)), "trusted", "--ca")
    refused(over_network(broker, jid, password, "--port", str(broker.port), "--direct-tls", "--insecure"), "not TLS")


def test_as_another_account(broker):
    ok(broker.xylem("--as", "bob@" + DOMAIN, "ping"))
    refused(broker.xylem("--as", "nobody@" + DOMAIN, "ping"), "invalid-authzid")


def test_stats(broker):
    assert "connections_accepted" in ok(broker.xylem("admin", "stats"))
    assert json.loads(ok(broker.xylem("admin", "stats", "--json")))["connections_accepted"] >= 1
    refused(broker.xylem("--as", "bob@" + DOMAIN, "admin", "stats"), "forbidden")


def test_a_broken_pipe_acknowledges_nothing_more(broker):
    ok(broker.xylem("node", "create", "pipe"))
    broker.xylem("sub", "pipe", "--durable=p", "--timeout", SUBSCRIBED_S)
    for i in range(20):  # more than a pipe holds, so that most of it cannot be taken
        ok(broker.xylem("pub", "pipe", stdin=f"{i}".ljust(16000, ".")))
    script = f"{harness.program('xylem')} sub pipe --durable=p --timeout 5 | head -n 1"
    head = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=False,
                          env={**os.environ, "XYLEM_SOCKET": broker.local})
    assert head.stdout.rstrip(".\n") == "0"
    rest = [line.rstrip(".") for line in ok(broker.xylem("sub", "pipe", "--durable=p", "--timeout", "3")).split()]
    # What the pipe took counts as printed, whoever reads it; what it did not take stays at the broker.
    assert rest and rest == [str(i) for i in range(20 - len(rest), 20)]


def test_leaves_what_is_for_the_account_alone(broker, connect):
    """Who asks a question takes neither the account's mail nor what is owed to its bare address."""
    alice = connect(broker, "alice", "desk", presence=0)
    pubsub.create(alice, "news", max_items="max")
    pubsub.subscribe(connect(broker, "bob", "desk"), "news", BOB, **{pubsub.DELIVERY + "mode": "at-least-once"})
    pubsub.publish(alice, "news", "i", "rain")
    alice.message(BOB, "for Bob")
    alice.ping()
    assert "news" in ok(broker.xylem("--as", BOB, "node", "list"))
    assert "depth=1" in ok(broker.xylem("--as", BOB, "queue", "info", "news"))
    phone = connect(broker, "bob", "phone")
    phone.enable_sm()
    phone.available(0)
    assert raw.body(phone.read_until(lambda e: raw.body(e) is not None)) == "for Bob"
    event = pubsub.next_event(phone)
    assert pubsub.delivery(event).get("attempt") == "1"
