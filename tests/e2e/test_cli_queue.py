"""`xylem queue`: what it shows of queues, and what an owner can do with it."""

import json
import time

import harness
import raw
from harness import DOMAIN

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN
QUEUE = "{urn:xylem:node:0}queue=true"


def ok(run):
    assert run.returncode == 0, run.stderr
    return run.stdout


def refused(run, *parts):
    assert run.returncode == 1, (run.returncode, run.stdout, run.stderr)
    for part in parts:
        assert part in run.stderr, run.stderr


def make_queue(broker, node="jobs", *more):
    ok(broker.xylem("--as", ALICE, "node", "create", node, "--set", QUEUE, *more))


def put(broker, node, *texts, headers=()):
    for text in texts:
        ok(broker.xylem("--as", ALICE, "pub", node, *[part for h in headers for part in ("--header", h)], stdin=text))


def info(broker, node="jobs", who=ALICE):
    return json.loads(ok(broker.xylem("--as", who, "queue", "info", node, "--json")))


def test_info_and_list(broker):
    make_queue(broker)
    make_queue(broker, "other", "--set", "{urn:xylem:node:0}lock_timeout=5")
    ok(broker.xylem("--as", ALICE, "node", "create", "no-queue"))
    put(broker, "jobs", "a", "b", "c", headers=["Group=g"])
    state = info(broker)
    assert (state["node"], state["depth"], state["ready"], state["blocked"]) == ("jobs", 3, 1, 2)
    assert state["bytes"] > 0 and state["consumer"] == []
    text = ok(broker.xylem("--as", ALICE, "queue", "info", "jobs")).splitlines()
    assert [line.split()[0] for line in text[:3]] == ["node", "depth", "bytes"]
    assert ["depth", "3"] in [line.split() for line in text]
    lines = ok(broker.xylem("--as", ALICE, "queue", "list")).splitlines()
    assert sorted(line.split()[0] for line in lines) == ["jobs", "other"]
    assert "depth=3" in next(line for line in lines if line.startswith("jobs "))
    rows = [json.loads(line) for line in ok(broker.xylem("--as", ALICE, "queue", "list", "--json")).splitlines()]
    assert {row["node"]: row["depth"] for row in rows} == {"jobs": 3, "other": 0}
    assert ok(broker.xylem("--as", BOB, "queue", "list")) == ""


def test_peek_leaves_everything(broker):
    make_queue(broker)
    put(broker, "jobs", "first", headers=["Urgency=low", "Kind=a=b"])
    put(broker, "jobs", *[f"job {n}" for n in range(30)])
    rows = [json.loads(line) for line in ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs", "--json")).splitlines()]
    assert len(rows) == 20 and rows[0]["data"] == "first"
    assert rows[0]["headers"] == {"Urgency": "low", "Kind": "a=b"} and "headers" not in rows[1]
    assert len(ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs", "--count", "100")).splitlines()) == 31
    assert ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs", "--count", "1")) == "first\n"
    assert info(broker)["depth"] == 31


def test_purge(broker):
    make_queue(broker)
    put(broker, "jobs", "a", "b")
    refused(broker.xylem("--as", BOB, "queue", "purge", "jobs"), "forbidden")
    ok(broker.xylem("--as", ALICE, "queue", "purge", "jobs"))
    assert info(broker)["depth"] == 0


def test_a_full_queue_refuses_or_drops(broker):
    make_queue(broker, "jobs", "--set", "pubsub#max_items=2")
    put(broker, "jobs", "a", "b")
    refused(broker.xylem("--as", ALICE, "pub", "jobs", stdin="c"), "as many items as it may")
    ok(broker.xylem("--as", ALICE, "node", "config", "jobs", "{urn:xylem:node:0}overflow=drop-oldest"))
    put(broker, "jobs", "c")
    assert ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs")).split() == ["b", "c"]
    assert info(broker)["dropped"] == 1
    ok(broker.xylem("--as", ALICE, "node", "config", "jobs", "{urn:xylem:node:0}dead_letter=jobs.dead"))
    put(broker, "jobs", "d")
    assert ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs")).split() == ["c", "d"]
    rows = [json.loads(r) for r in ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs.dead", "--json")).splitlines()]
    assert [(r["data"], r["headers"]["Xylem-Dead-Reason"]) for r in rows] == [("b", "overflow")]


def test_refusals_say_what_to_do(broker):
    make_queue(broker)
    run = broker.xylem("--as", BOB, "queue", "info", "jobs")
    refused(run, "forbidden")
    assert "no node" not in run.stderr  # there is one
    refused(broker.xylem("--as", ALICE, "queue", "move", "jobs", "jobs"), "name another one")
    refused(broker.xylem("--as", ALICE, "queue", "info", "nowhere"), "no node 'nowhere'")
    refused(broker.xylem("--as", ALICE, "sub", "jobs", "--timeout", "5"), "it is a queue", "--queue N")
    refused(broker.xylem("--as", BOB, "queue", "redrive", "jobs"), "forbidden")
    run = broker.xylem("--as", ALICE, "sub", "jobs", "--queue", "1", "--start", "all")
    assert run.returncode == 2 and "a queue itself" in run.stderr
    run = broker.xylem("--as", ALICE, "sub", "jobs", "--ack", "manual")
    assert run.returncode == 2 and "--durable" in run.stderr
    run = broker.xylem("--as", ALICE, "sub", "jobs", "--durable", "--ack", "sometimes")
    assert run.returncode == 2 and "manual" in run.stderr


def test_redrive_of_nothing(broker):
    make_queue(broker)
    assert ok(broker.xylem("--as", ALICE, "queue", "redrive", "jobs")) == "0\n"


def test_info_of_subscriptions(broker):
    ok(broker.xylem("--as", ALICE, "node", "create", "events"))
    ok(broker.xylem("--as", BOB, "sub", "events", "--durable=one", "--timeout", "1"))
    ok(broker.xylem("--as", ALICE, "sub", "events", "--durable=two", "--ack", "explicit", "--timeout", "1"))
    put(broker, "events", *"abc")
    ok(broker.xylem("--as", BOB, "sub", "events", "--durable=one", "--count", "2", "--timeout", "20"))
    deadline = time.monotonic() + 10
    while True:  # the owner of the node hears a little later that a session ended
        state = info(broker, "events")
        rows = {row["jid"]: row for row in state["subscription"]}
        if rows[BOB + "/one"]["state"] == "absent" or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert state["newest"] == 3 and set(rows) == {BOB + "/one", ALICE + "/two"}
    assert rows[ALICE + "/two"]["depth"] == 3 and rows[ALICE + "/two"]["ack"] == "explicit"
    assert rows[BOB + "/one"]["depth"] == 1 and rows[BOB + "/one"]["acknowledged"] == 2
    assert rows[BOB + "/one"]["state"] == "absent"
    own = info(broker, "events", BOB)["subscription"]
    assert [row["jid"] for row in own] == [BOB + "/one"]
    text = ok(broker.xylem("--as", ALICE, "queue", "info", "events"))
    assert "subscription jid=" + BOB + "/one" in text and "depth=1" in text


def test_names_of_digits_are_strings(broker):
    for node in ("0042", "42"):
        ok(broker.xylem("--as", ALICE, "node", "create", node))
        ok(broker.xylem("--as", BOB, "sub", node, "--durable=1", "--timeout", "1"))
        state = info(broker, node)
        assert state["node"] == node and state["newest"] == 0
        assert all(isinstance(state["subscription"][0][name], str) for name in ("jid", "subid"))


def test_info_pages_through_many_subscriptions(broker):
    ok(broker.xylem("--as", ALICE, "node", "create", "events"))
    with raw.Client(broker) as client:
        client.login("carol", resource="x")
        for n in range(230):
            answer = client.iq("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe "
                               f"node='events' jid='carol@{DOMAIN}/{n}'/><options><x xmlns='jabber:x:data' type='submit'>"
                               "<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub"
                               "#subscribe_options</value></field><field var='{urn:xylem:delivery:0}mode'><value>"
                               "at-least-once</value></field></x></options></pubsub>", to=harness.PUBSUB)
            assert answer.get("type") == "result"
    rows = info(broker, "events")["subscription"]
    assert {row["jid"] for row in rows} == {f"carol@{DOMAIN}/{n}" for n in range(230)}


def test_replay(broker):
    ok(broker.xylem("--as", ALICE, "node", "create", "events", "--set", "pubsub#max_items=max"))
    ok(broker.xylem("--as", ALICE, "sub", "events", "--durable=me", "--timeout", "1"))
    put(broker, "events", *"abcd")
    assert ok(broker.xylem("--as", ALICE, "sub", "events", "--durable=me", "--count", "4")).split() == list("abcd")
    state = broker.xylem("--as", ALICE, "sub", "events", "--durable=me", "--replay", "seq:3", "--json", "--count", "2",
                         "--timeout", "20")
    rows = [json.loads(line) for line in ok(state).splitlines()]
    assert [(row["data"], row["seq"]) for row in rows] == [("c", 3), ("d", 4)] and all(row["attempt"] > 1 for row in rows)
    run = broker.xylem("--as", ALICE, "sub", "events", "--durable=me", "--replay", "yesterday", "--timeout", "20")
    refused(run, "start")
    run = broker.xylem("--as", ALICE, "sub", "events", "--replay", "all")
    assert run.returncode == 2 and "--durable" in run.stderr


def test_move(broker):
    make_queue(broker)
    ok(broker.xylem("--as", ALICE, "node", "create", "dead", "--set", "pubsub#max_items=max"))
    put(broker, "dead", *[f"job {n}" for n in range(120)], headers=["Group=g", "Xylem-Dead-Reason=term"])
    assert ok(broker.xylem("--as", ALICE, "queue", "move", "dead", "jobs", "--count", "3")) == "3\n"
    assert info(broker)["depth"] == 3
    assert ok(broker.xylem("--as", ALICE, "queue", "move", "dead", "jobs")) == "117\n"
    rows = ok(broker.xylem("--as", ALICE, "queue", "peek", "jobs", "--json", "--count", "1000")).splitlines()
    assert [json.loads(row)["data"] for row in rows] == [f"job {n}" for n in range(120)]
    assert json.loads(rows[0])["headers"] == {"Group": "g", "Xylem-Dead-Reason": "term"}
    assert ok(broker.xylem("--as", ALICE, "queue", "peek", "dead")) == ""
    assert ok(broker.xylem("--as", ALICE, "queue", "move", "dead", "jobs")) == "0\n"


def test_move_refused_loses_nothing(broker):
    make_queue(broker)
    make_queue(broker, "other")
    for node in ("jobs", "other"):
        ok(broker.xylem("--as", ALICE, "pub", node, "--id", "same", stdin=node))
    run = broker.xylem("--as", ALICE, "queue", "move", "jobs", "other")
    refused(run, "refuses", "0 items were moved before")
    assert info(broker)["depth"] == 1 and info(broker, "other")["depth"] == 1
    refused(broker.xylem("--as", BOB, "queue", "move", "jobs", "bobs"), "forbidden")
    assert info(broker)["depth"] == 1
    refused(broker.xylem("--as", ALICE, "queue", "move", "jobs", "jobs"), "bad-request")
    refused(broker.xylem("--as", ALICE, "queue", "move", "nowhere", "jobs"), "item-not-found")
