"""What the owner of a queue sees and does: figures, parked items made ready again."""

import json
import time

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import create, owner_request
from queues import consume, create_queue, done, none_comes, put, take, take_ids, unlock, worker

DELIVERY = "urn:xylem:delivery:0"


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


def state(client, node="jobs"):
    """(attributes, [attributes of consumers])"""
    answer = client.ok("get", f"<queue-state xmlns='{DELIVERY}' node='{node}'/>", PUBSUB)
    element = answer.find(f"{{{DELIVERY}}}queue-state")
    return element.attrib, [c.attrib for c in element.findall(f"{{{DELIVERY}}}consumer")]


def redrive(client, node="jobs", more=""):
    answer = client.ok("set", f"<redrive xmlns='{DELIVERY}' node='{node}'{more}/>", PUBSUB)
    return int(answer.find(f"{{{DELIVERY}}}redrive").get("count"))


def test_figures(broker, connect, alice):
    create_queue(alice, max_deliver="2")
    figures, consumers = state(alice)
    assert figures["depth"] == figures["ready"] == figures["bytes"] == "0" and consumers == []
    assert "oldest" not in figures
    bob = worker(broker, connect, requests=2)
    put(alice, "parked")
    for _ in range(2):
        take(bob)
        unlock(bob, "parked")
    put(alice, "done")
    take(bob)
    done(bob, "done")
    for n in range(3):
        put(alice, f"g{n}", Group="g")
    put(alice, "later", Delay=600)
    put(alice, "plain")
    put(alice, "waits")
    take_ids(bob, 2)
    figures, consumers = state(alice)
    counted = {k: figures[k] for k in ("depth", "ready", "in-flight", "delayed", "blocked", "parked", "acknowledged")}
    assert counted == {
        "depth": "7", "ready": "1", "in-flight": "2", "delayed": "1", "blocked": "2", "parked": "1",
        "acknowledged": "1",
    }
    assert figures["redeliveries"] == "1" and int(figures["bytes"]) > 100 and int(figures["oldest-age"]) < 60
    assert figures["oldest"].startswith("20") and figures["consumers"] == "1"
    (consumer,) = consumers
    assert consumer["jid"] == consumer["session"] == bob.jid and len(consumer["subid"]) == 16
    assert (consumer["queue-requests"], consumer["in-flight"], consumer["state"]) == ("2", "2", "full")
    done(bob, "g0")
    bob.send("<presence type='unavailable'/>")
    deadline = time.monotonic() + 10
    while state(alice)[1][0]["state"] != "absent" and time.monotonic() < deadline:
        time.sleep(0.02)
    (consumer,) = state(alice)[1]
    assert consumer["state"] == "absent" and "session" not in consumer and consumer["in-flight"] == "0"


RSM = "http://jabber.org/protocol/rsm"


def page(client, after="", most=""):
    """(JIDs of consumers, what the next page begins after) of `<queue-state/>`; the latter is "" on the last page."""
    rsm = f"<set xmlns='{RSM}'>{f'<max>{most}</max>' if most else ''}{f'<after>{after}</after>' if after else ''}</set>"
    answer = client.ok("get", f"<queue-state xmlns='{DELIVERY}' node='jobs'>{rsm}</queue-state>", PUBSUB)
    element = answer.find(f"{{{DELIVERY}}}queue-state")
    last = element.findtext(f"{{{RSM}}}set/{{{RSM}}}last", "")
    return [c.get("jid") for c in element.findall(f"{{{DELIVERY}}}consumer")], last


def test_consumers_come_in_pages(broker, connect, alice):
    create_queue(alice)
    bob = connect(broker, "bob", "b")
    jids = [f"bob@{DOMAIN}/w{n}" for n in range(230)]
    for jid in jids:
        consume(bob, jid=jid)
    assert state(alice)[0]["consumers"] == "230"
    first, last = page(alice)
    assert (len(first), last != "") == (200, True)
    second, last = page(alice, last)
    assert last == "" and first + second == jids
    pages, last = [], None
    while last != "":
        names, last = page(alice, last, "100")
        pages.append(len(names))
    assert pages == [100, 100, 30]
    refused = f"<queue-state xmlns='{DELIVERY}' node='jobs'><set xmlns='{RSM}'><max>few</max></set></queue-state>"
    assert alice.refused("get", refused, PUBSUB)[1] == "bad-request"
    shown = json.loads(broker.xylem("--as", f"alice@{DOMAIN}", "queue", "info", "jobs", "--json").stdout)
    assert [c["jid"] for c in shown["consumer"]] == jids


def test_only_owners_see_it(broker, connect, alice):
    create_queue(alice)
    bob = connect(broker, "bob", "b")
    ask = f"<queue-state xmlns='{DELIVERY}' node='jobs'/>"
    assert bob.refused("get", ask, PUBSUB)[1] == "forbidden"
    assert bob.refused("set", f"<redrive xmlns='{DELIVERY}' node='jobs'/>", PUBSUB)[1] == "forbidden"
    assert bob.refused("get", ask.replace("jobs", "none"), PUBSUB)[1] == "item-not-found"
    assert alice.refused("set", ask, PUBSUB)[1] == "bad-request"
    create(alice, "plain")
    assert alice.refused("get", ask.replace("jobs", "plain"), PUBSUB)[1] == "bad-request"


def test_parked_items_are_made_ready(broker, connect, alice):
    create_queue(alice, max_deliver="1")
    bob = worker(broker, connect, requests=10)
    names = [str(n) for n in range(5)]
    for name in names:
        put(alice, name)
    take_ids(bob, 5)
    unlock(bob, *names)
    none_comes(bob)
    assert state(alice)[0]["parked"] == "5"
    assert alice.refused("set", f"<redrive xmlns='{DELIVERY}' node='jobs' max='x'/>", PUBSUB)[1] == "bad-request"
    assert redrive(alice, more=" max='2'") == 2
    assert [take(bob), take(bob)] == [("0", 1), ("1", 1)]
    assert redrive(alice) == 3
    assert take_ids(bob, 3) == ["2", "3", "4"]
    assert redrive(alice) == 0


def test_redriven_items_stay_so(broker, connect):
    alice = connect(broker, "alice", "desk")
    create_queue(alice, max_deliver="1")
    bob = worker(broker, connect)
    put(alice, "a")
    take(bob)
    unlock(bob, "a")
    bob.send("</stream:stream>")
    assert redrive(alice) == 1
    broker.restart()
    bob = connect(broker, "bob", "w1", presence=0)
    assert take(bob)[0] == "a"


def test_more_than_a_page(broker, connect, alice):
    create_queue(alice, max_deliver="1")
    bob = worker(broker, connect, requests=1000)
    for n in range(0, 600, 100):
        items = "".join(pubsub.item_xml(str(n + i), "x") for i in range(100))
        alice.ok("set", pubsub.publish_xml("jobs", items), PUBSUB)
    ids = take_ids(bob, 600)
    for n in range(0, 600, 200):
        unlock(bob, *ids[n : n + 200])
    assert state(alice)[0]["parked"] == "600"
    assert redrive(alice) == 600
    assert take_ids(bob, 600) == ids


def test_totals_of_all_queues(broker, connect, alice):
    """What monitoring needs without asking every node."""
    create_queue(alice)
    create_queue(alice, "other")
    bob = worker(broker, connect, requests=2)
    for name in ("a", "b", "c"):
        put(alice, name)
    put(alice, "later", "other", Delay=600)
    for n in range(2):
        put(alice, f"g{n}", "other", Group="g")
    take_ids(bob, 2)
    figures = json.loads(broker.xylem("admin", "stats", "--json").stdout)
    totals = {k.removeprefix("pubsub_queue_"): v for k, v in figures.items() if k.startswith("pubsub_queue_")}
    assert totals.pop("oldest_age") < 60 and figures["pubsub_queues"] == 2
    assert totals == {"depth": 6, "in_flight": 2, "delayed": 1, "blocked": 1, "parked": 0}
    alice.ok("set", owner_request("<delete node='other'/>"), PUBSUB)
    figures = json.loads(broker.xylem("admin", "stats", "--json").stdout)
    assert (figures["pubsub_queues"], figures["pubsub_queue_depth"]) == (1, 3)
