"""Ad-hoc commands (XEP-0050) of the pubsub service: what owners and administrators do about queues and subscriptions."""

import time

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import create
from queues import consume, create_queue, left, put

COMMANDS = "http://jabber.org/protocol/commands"
DATA = "jabber:x:data"
ITEMS, INFO = "http://jabber.org/protocol/disco#items", "http://jabber.org/protocol/disco#info"
NODES = {"urn:xylem:subscription:info"} | {
    "urn:xylem:queue:" + name for name in ("list", "info", "peek", "move", "redrive", "purge")
}


@pytest.fixture
def bob(broker, connect):
    client = connect(broker, "bob", "desk")
    create_queue(client)
    for name in ("a", "b"):
        put(client, name)
    return client


def command(node, action="", inside="", session=""):
    return (f"<command xmlns='{COMMANDS}' node='{node}'" + (f" action='{action}'" if action else "")
            + (f" sessionid='{session}'" if session else "") + f">{inside}</command>")


def form(kind="submit", **fields):
    inside = "".join(f"<field var='{name}'><value>{value}</value></field>" for name, value in fields.items())
    return f"<x xmlns='{DATA}' type='{kind}'>{inside}</x>"


def run(client, name, **fields):
    """A command to its end: (status, {field: value}, [rows])."""
    answer = client.ok("set", command(name, "complete", form(**fields), "s1"), PUBSUB).find(f"{{{COMMANDS}}}command")
    assert answer.get("node") == name and answer.get("sessionid") == "s1"
    x = answer.find(f"{{{DATA}}}x")
    values, rows = {}, []
    if x is not None:
        assert x.get("type") == "result"
        values = {f.get("var"): f.findtext(f"{{{DATA}}}value") for f in x.findall(f"{{{DATA}}}field")}
        names = [f.get("var") for f in x.findall(f"{{{DATA}}}reported/{{{DATA}}}field")]
        for item in x.findall(f"{{{DATA}}}item"):
            rows.append({f.get("var"): f.findtext(f"{{{DATA}}}value") for f in item})
        assert not rows or set(names) == set(rows[0])
    return answer.get("status"), values, rows


def test_listed_and_described(bob):
    query = bob.ok("get", f"<query xmlns='{ITEMS}' node='{COMMANDS}'/>", PUBSUB)[0]
    assert {item.get("node") for item in query} == NODES
    assert all(item.get("jid") == PUBSUB and item.get("name") for item in query)
    for node in NODES | {COMMANDS}:
        query = bob.ok("get", f"<query xmlns='{INFO}' node='{node}'/>", PUBSUB)[0]
        assert query.find(f"{{{INFO}}}identity").get("category") == "automation"
    features = bob.ok("get", f"<query xmlns='{INFO}'/>", PUBSUB)[0]
    assert COMMANDS in {f.get("var") for f in features.findall(f"{{{INFO}}}feature")}


def test_two_steps(bob):
    answer = bob.ok("set", command("urn:xylem:queue:info", "execute"), PUBSUB)[0]
    assert answer.get("status") == "executing" and len(answer.get("sessionid")) >= 32
    fields = answer.findall(f"{{{DATA}}}x/{{{DATA}}}field")
    assert [f.get("var") for f in fields if f.find(f"{{{DATA}}}required") is not None] == ["node"]
    answer = bob.ok("set", command("urn:xylem:queue:info", "cancel", session="x"), PUBSUB)[0]
    assert answer.get("status") == "canceled"


def test_owner_sees_and_acts(bob, broker, connect):
    status, values, rows = run(bob, "urn:xylem:queue:info", node="jobs")
    assert status == "completed" and values["depth"] == "2" and rows == []
    assert run(bob, "urn:xylem:queue:redrive", node="jobs")[1]["count"] == "0"
    assert run(bob, "urn:xylem:queue:purge", node="jobs")[0] == "completed"
    assert run(bob, "urn:xylem:queue:info", node="jobs")[1]["depth"] == "0"


def test_the_list_is_of_those_one_looks_after(bob, broker, connect):
    alice, carol = connect(broker, "alice", "desk"), connect(broker, "carol", "desk")
    create(bob, "no-queue")
    create_queue(carol, "hers")
    for n in range(5):
        create_queue(bob, f"q{n}")
    his = {"jobs", "q0", "q1", "q2", "q3", "q4"}
    status, values, rows = run(bob, "urn:xylem:queue:list")
    assert status == "completed" and {row["node"] for row in rows} == his
    assert {row["node"] for row in run(carol, "urn:xylem:queue:list")[2]} == {"hers"}
    assert {row["node"] for row in run(alice, "urn:xylem:queue:list")[2]} == his | {"hers"}  # an administrator
    seen, after = [], {}
    while True:
        _, values, rows = run(bob, "urn:xylem:queue:list", max=2, **after)
        assert len(rows) <= 2
        seen += [row["node"] for row in rows]
        if "last" not in values:
            break
        after = {"after": values["last"]}
    assert sorted(seen) == sorted(his)
    listed = broker.xylem("--as", "bob@" + DOMAIN, "queue", "list")
    assert {line.split()[0] for line in listed.stdout.splitlines()} == his
    assert bob.refused("set", command("urn:xylem:queue:list", "complete", form(max="x")), PUBSUB)[1] == "bad-request"
    broker.restart()  # what is listed need not be in memory
    bob = connect(broker, "bob", "desk")
    assert {row["node"] for row in run(bob, "urn:xylem:queue:list")[2]} == his
    pubsub.configure(bob, "q0", **{pubsub.NODE + "queue": "0"})
    assert {row["node"] for row in run(bob, "urn:xylem:queue:list")[2]} == his - {"q0"}


def test_items_are_looked_at_by_pages(bob, broker, connect):
    put(bob, "c", Group="g")
    _, values, rows = run(bob, "urn:xylem:queue:peek", node="jobs", max=2)
    del values["FORM_TYPE"]
    assert values == {"node": "jobs", "last": "b", "count": "3"}
    assert [(row["id"], row["publisher"]) for row in rows] == [("a", "bob@" + DOMAIN), ("b", "bob@" + DOMAIN)]
    assert rows[0]["content"] == "<job xmlns='urn:example'>a</job>"
    _, values, rows = run(bob, "urn:xylem:queue:peek", node="jobs", max=2, after="b")
    assert [row["id"] for row in rows] == ["c"] and ">g</header>" in rows[0]["content"]
    for n in range(30):
        put(bob, str(n))
    assert len(run(bob, "urn:xylem:queue:peek", node="jobs")[2]) == 20
    assert run(bob, "urn:xylem:queue:info", node="jobs")[1]["ready"] == "33"
    kind, condition, _ = bob.refused("set", command("urn:xylem:queue:peek", "complete", form(node="jobs", after="x")), PUBSUB)
    assert condition == "item-not-found"


def test_items_are_moved(bob, broker, connect):
    create_queue(bob, "other")
    assert run(bob, "urn:xylem:queue:move", node="jobs", to="other", max=1)[1]["count"] == "1"
    assert left(bob) == ["b"] and left(bob, "other") == ["a"]
    alice = connect(broker, "alice", "desk")
    assert run(alice, "urn:xylem:queue:move", node="jobs", to="other")[1]["count"] == "1"
    assert bob.refused("set", command("urn:xylem:queue:move", "complete", form(node="jobs")), PUBSUB)[2] == ["bad-payload"]


def test_subscriptions_are_rows(bob, broker):
    assert broker.xylem("--as", "bob@" + DOMAIN, "node", "create", "events").returncode == 0
    for name in ("one", "two"):
        run_ = broker.xylem("--as", "carol@" + DOMAIN, "sub", "events", "--durable=" + name, "--timeout", "1")
        assert run_.returncode == 0
    deadline = time.monotonic() + 10
    while True:  # the owner of the node hears a little later that a session ended
        status, values, rows = run(bob, "urn:xylem:subscription:info", node="events")
        if all(row["state"] == "absent" for row in rows) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert status == "completed" and values["newest"] == "0"
    assert {row["jid"] for row in rows} == {f"carol@{DOMAIN}/one", f"carol@{DOMAIN}/two"}
    assert all(row["state"] == "absent" and row["depth"] == "0" for row in rows)
    _, values, first = run(bob, "urn:xylem:subscription:info", node="events", max=1)
    _, ended, second = run(bob, "urn:xylem:subscription:info", node="events", max=1, after=values["last"])
    assert first + second == rows and "last" not in ended


def test_pages_and_bounds(bob):
    for n in range(3):
        consume(bob, jid=f"{bob.jid}{n}")
    _, values, rows = run(bob, "urn:xylem:queue:info", node="jobs", max="2")
    assert [row["jid"] for row in rows] == [f"{bob.jid}0", f"{bob.jid}1"] and values["consumers"] == "3"
    _, values, rows = run(bob, "urn:xylem:queue:info", node="jobs", max="2", after=values["last"])
    assert [row["jid"] for row in rows] == [f"{bob.jid}2"] and "last" not in values
    create(bob, "other")
    moved = run(bob, "urn:xylem:queue:move", node="jobs", to="other", max="1")[1]
    assert (moved["to"], moved["count"]) == ("other", "1")
    assert run(bob, "urn:xylem:queue:redrive", node="jobs", max="1")[1]["count"] == "0"
    assert run(bob, "urn:xylem:queue:info", node="jobs")[1]["depth"] == "1"


def test_administrators_too_and_nobody_else(bob, broker, connect):
    alice, carol = connect(broker, "alice", "desk"), connect(broker, "carol", "desk")
    assert run(alice, "urn:xylem:queue:info", node="jobs")[1]["depth"] == "2"
    for name in ("info", "move", "redrive", "purge"):
        fields = form(node="jobs", to="other")
        kind, condition, _ = carol.refused("set", command("urn:xylem:queue:" + name, "complete", fields), PUBSUB)
        assert (kind, condition) == ("auth", "forbidden")
    kind, condition, _ = carol.refused("set", command("urn:xylem:subscription:info", "complete", form(node="jobs")), PUBSUB)
    assert condition == "item-not-found"
    run(alice, "urn:xylem:queue:purge", node="jobs")
    assert run(bob, "urn:xylem:queue:info", node="jobs")[1]["depth"] == "0"
    # What is asked without a command follows the same rule, and the command line of the machine is an administrator.
    assert broker.xylem("queue", "info", "jobs").returncode == 0


@pytest.mark.parametrize("payload, condition, app", [
    (command("urn:xylem:queue:burn"), "item-not-found", []),
    (command("urn:xylem:queue:info", "complete"), "bad-request", ["bad-payload"]),
    (command("urn:xylem:queue:info", "complete", form()), "bad-request", ["bad-payload"]),
    (command("urn:xylem:queue:info", "complete", form("form", node="jobs")), "bad-request", ["bad-payload"]),
    (command("urn:xylem:queue:info", "complete", form(FORM_TYPE="urn:other", node="jobs")), "bad-request", ["bad-payload"]),
    (command("urn:xylem:queue:info", "next", form(node="jobs")), "bad-request", ["bad-action"]),
    (command("urn:xylem:queue:info", "jump", form(node="jobs")), "bad-request", ["malformed-action"]),
    (command("urn:xylem:queue:info", "complete", form(node="nowhere")), "item-not-found", []),
])
def test_refusals(bob, payload, condition, app):
    _, got, apps = bob.refused("set", payload, PUBSUB)
    assert got == condition and apps == app


def test_type_get_is_refused(bob):
    assert bob.refused("get", command("urn:xylem:queue:info"), PUBSUB)[1] == "bad-request"


def test_as_a_foreign_client_does(broker, connect):
    """A queue of another account, through the form of a client that shows whatever fields it gets."""
    alice = connect(broker, "alice", "desk")
    create_queue(alice)
    answer = alice.ok("set", command("urn:xylem:queue:info"), PUBSUB)[0]
    var = answer.find(f"{{{DATA}}}x/{{{DATA}}}field[@type='text-single']").get("var")
    session = answer.get("sessionid")
    filled = form(FORM_TYPE="urn:xylem:queue:0", **{var: "jobs"})
    answer = alice.ok("set", command("urn:xylem:queue:info", "execute", filled, session), PUBSUB)[0]
    assert answer.get("status") == "completed" and answer.get("sessionid") == session
