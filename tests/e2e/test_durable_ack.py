"""Items acknowledged one by one: explicit acknowledgements and receipts, windows, redelivery, dead letters, replay.

What was answered or counted as handled never comes again, over restarts and SIGKILL; what was not, does.
"""

import asyncio
import signal
import threading
import time

import pytest

import library
import pubsub
import raw
from harness import DOMAIN, PUBSUB
from pubsub import DELIVERY, create, delivery, is_event, publish, subscribe

BOB = "bob@" + DOMAIN
NS = DELIVERY.strip("{}")
RECEIPTS = "urn:xmpp:receipts"
ONE_BY_ONE = {DELIVERY + "mode": "at-least-once", DELIVERY + "ack": "explicit"}


@pytest.fixture
def alice(broker, connect):
    client = connect(broker, "alice", "desk")
    create(client, "jobs", max_items="max")
    return client


def worker(broker, connect, resource="worker", sm=False, jid=BOB, **options):
    """A session of bob that holds, or (options) makes, a subscription that is acknowledged one by one."""
    client = connect(broker, "bob", resource)
    if sm:
        client.enable_sm()
    if options is not None:
        subscribe(client, "jobs", jid, **{**ONE_BY_ONE, **{DELIVERY + k: v for k, v in options.items()}})
    client.available()
    return client


def returned(broker, connect, resource="worker", sm=False):
    client = connect(broker, "bob", resource)
    if sm:
        client.enable_sm()
    client.available()
    return client


def take(client, count, timeout=None):
    """[(id, <delivery/>, message)] of the next `count` items."""
    found = []
    while len(found) < count:
        message = client.read(timeout)
        if is_event(message):
            found += [(i.get("id"), delivery(message), message) for i in message.iter(f"{{{pubsub.EVENT}}}item")]
    return found


def ids(found):
    return [name for name, _, _ in found]


def verdict(name, entry, more=""):
    stamp = entry[1]
    return f"<{name} xmlns='{NS}' node='jobs' epoch='{stamp.get('epoch')}' seq='{stamp.get('seq')}' {more}/>"


def say(client, *verdicts):
    client.send(f"<message to='{PUBSUB}'>{''.join(verdicts)}</message>")


def state(client, node="jobs"):
    answer = client.ok("get", f"<subscription-state xmlns='{NS}' node='{node}'/>", PUBSUB)
    return answer.find(f".//{DELIVERY}subscription").attrib


def until(client, figure, value):
    deadline = time.monotonic() + 20
    while state(client)[figure] != value and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state(client)[figure] == value


def until_depth(client, depth):
    """Acknowledgements in messages are answered by nothing: asks until as many items are owed."""
    until(client, "depth", depth)


def until_parked(client, count):
    until(client, "parked", count)


def test_window_and_order(broker, connect, alice):
    bob = worker(broker, connect, max_inflight="2")
    for n in range(5):
        publish(alice, "jobs", str(n))
    first = take(bob, 2)
    assert ids(first) == ["0", "1"] and first[0][1].get("attempt") == "1"
    bob.nothing("message", 0.3)
    say(bob, verdict("ack", first[1]))
    (second,) = take(bob, 1)
    assert second[0] == "2"
    bob.ok("set", verdict("ack", first[0]), PUBSUB)
    (third,) = take(bob, 1)
    assert third[0] == "3"
    bob.ok("set", f"<settle xmlns='{NS}'>{verdict('ack', second)}{verdict('ack', third)}</settle>", PUBSUB)
    (last,) = take(bob, 1)
    assert last[0] == "4"
    assert condition_of(bob, verdict("ack", third)) == "item-not-found"
    say(bob, verdict("ack", third))  # in a message it is nothing
    bob.ok("set", verdict("ack", last), PUBSUB)
    assert state(bob)["depth"] == "0"


def condition_of(client, payload):
    return client.refused("set", payload, PUBSUB)[1]


def test_nack_comes_again_before_what_is_new(broker, connect, alice):
    bob = worker(broker, connect, max_inflight="1")
    for n in range(3):
        publish(alice, "jobs", str(n))
    (first,) = take(bob, 1)
    say(bob, verdict("nack", first))
    (again,) = take(bob, 1)
    assert again[0] == "0" and again[1].get("attempt") == "2" and raw.has_delay(again[2])
    assert again[2].get("id") == first[2].get("id")
    say(bob, verdict("nack", again, "delay='1'"))
    (second,) = take(bob, 1)
    assert second[0] == "1"
    begun = time.monotonic()
    bob.ok("set", verdict("ack", second), PUBSUB)
    (third,) = take(bob, 1)
    assert third[0] in ("0", "2") and time.monotonic() - begun < 20
    say(bob, verdict("ack", third))
    (last,) = take(bob, 1)
    assert {third[0], last[0]} == {"0", "2"}


def test_comes_again_when_the_time_is_over(broker, connect, alice):
    bob = worker(broker, connect, ack_wait="1")
    publish(alice, "jobs", "slow")
    (first,) = take(bob, 1)
    (again,) = take(bob, 1)
    assert (again[0], again[1].get("seq")) == ("slow", first[1].get("seq"))
    assert int(again[1].get("attempt")) >= 2
    bob.ok("set", verdict("ack", again), PUBSUB)
    assert state(bob)["depth"] == "0"


def test_a_gap_comes_again(broker, connect, alice):
    bob = worker(broker, connect, ack_wait="1", max_inflight="1", max_backlog_bytes="2000")
    for n in range(10):
        publish(alice, "jobs", str(n), "x" * 400)
    gaps = []
    while len(gaps) < 3:
        message = bob.read_until(lambda e: e.find(f"{DELIVERY}gap") is not None)
        gaps.append((message.get("id"), dict(message.find(f"{DELIVERY}gap").attrib)))
        assert delivery(message).get("attempt") == str(len(gaps))
        if len(gaps) == 2:  # given back once, forgotten once
            say(bob, verdict("nack", (None, delivery(message)), "delay='0'"))
    assert gaps[0] == gaps[1] == gaps[2] and gaps[0][1]["reason"] == "max_backlog_bytes"
    bob.ok("set", verdict("ack", (None, delivery(message))), PUBSUB)
    assert "gap-first" not in state(bob) or int(state(bob)["gap-first"]) > int(gaps[0][1]["last"])


def test_only_the_account_acknowledges(broker, connect, alice):
    bob = worker(broker, connect)
    publish(alice, "jobs", "i")
    (item,) = take(bob, 1)
    assert condition_of(alice, verdict("ack", item)) == "item-not-found"
    elsewhere = connect(broker, "bob", "phone")
    elsewhere.ok("set", verdict("ack", item), PUBSUB)
    assert state(bob)["depth"] == "0"


@pytest.mark.parametrize(
    "payload",
    [
        "node='jobs'",
        "seq='1' epoch='0123456789abcdef'",
        "node='jobs' seq='1'",
        "node='jobs' seq='x' epoch='0123456789abcdef'",
        "node='jobs' id='i' cumulative='1'",
    ],
)
def test_malformed(broker, connect, alice, payload):
    bob = worker(broker, connect)
    assert condition_of(bob, f"<ack xmlns='{NS}' {payload}/>") == "bad-request"
    bob.send(f"<message to='{PUBSUB}' id='m'><ack xmlns='{NS}' {payload}/></message>")
    error = bob.read_message()
    assert error.get("type") == "error" and raw.condition(error)[1] == "bad-request"
    bob.ping()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("sm", [False, True])
def test_restart(broker, connect, alice, how, sm):
    """What was acknowledged, in whatever order, does not come again; the rest does, marked."""
    bob = worker(broker, connect, sm=sm)
    for n in range(20):
        publish(alice, "jobs", str(n))
    found = take(bob, 20)
    for n in (3, 7, 0, 19, 11):
        bob.ok("set", verdict("ack", found[n]), PUBSUB)
    bob.ok("set", verdict("nack", found[5], "delay='1'"), PUBSUB)
    bob.ok("set", verdict("term", found[6]), PUBSUB)
    broker.restart(how)
    bob = returned(broker, connect, sm=sm)
    again = take(bob, 14)
    wanted = [str(n) for n in range(20) if n not in (3, 7, 0, 19, 11, 6)]
    assert sorted(ids(again), key=int) == wanted
    assert all(int(d.get("attempt")) >= 2 for _, d, _ in again)
    assert state(bob)["parked"] == "1"
    bob.ok("set", verdict("ack", again[-1], "cumulative='true'"), PUBSUB)


def test_messages_count_when_they_are_on_disk(broker, connect, alice):
    """The h of XEP-0198 covers a message with acknowledgements once they are on disk."""
    bob = worker(broker, connect, sm=True)
    for n in range(10):
        publish(alice, "jobs", str(n))
    found = take(bob, 10)
    before = bob.request_ack()
    say(bob, *[verdict("ack", f) for f in found[:6]])
    bob.request_ack(before + 1)
    broker.restart(signal.SIGKILL)
    assert ids(take(returned(broker, connect), 4)) == ["6", "7", "8", "9"]


def test_many_crashes_under_load(broker, connect, alice):
    """Workers acknowledge out of order while the broker is killed: each item is acknowledged, none comes after that."""
    worker(broker, connect, max_inflight="16").drop()
    done, published = set(), []
    for round_ in range(4):
        for n in range(25):
            published.append(publish(alice, "jobs", f"{round_}-{n}"))
        bob = returned(broker, connect)
        for step in range(12):
            (entry,) = take(bob, 1)
            assert entry[0] not in done
            if step % 3:
                bob.ok("set", verdict("ack", entry), PUBSUB)
                done.add(entry[0])
        broker.restart(signal.SIGKILL)
        alice = connect(broker, "alice", "desk")
    bob = returned(broker, connect)
    while len(done) < len(published):
        (entry,) = take(bob, 1)
        assert entry[0] not in done
        bob.ok("set", verdict("ack", entry), PUBSUB)
        done.add(entry[0])
    assert done == set(published)
    assert state(bob)["depth"] == "0"


def test_next_session_takes_over(broker, connect, alice):
    first = worker(broker, connect, "first")
    publish(alice, "jobs", "i")
    (item,) = take(first, 1)
    first.drop()
    (again,) = take(returned(broker, connect, "second"), 1)
    assert again[0] == "i" and again[1].get("seq") == item[1].get("seq") and int(again[1].get("attempt")) >= 2


def test_full_jid_is_for_its_resource(broker, connect, alice):
    mine = worker(broker, connect, "mine", jid=BOB + "/mine")
    other = connect(broker, "bob", "other")
    other.available(5)
    publish(alice, "jobs", "i")
    (item,) = take(mine, 1)
    other.nothing("message", 0.3)
    other.ok("set", verdict("ack", item), PUBSUB)


def test_dead_letters(broker, connect, alice):
    bob = worker(broker, connect, max_deliver="2", dead_letter="jobs.dead")
    publish(alice, "jobs", "poison", "bad")
    publish(alice, "jobs", "good")
    for _ in range(2):
        (entry,) = take(bob, 1)
        while entry[0] != "poison":
            bob.ok("set", verdict("ack", entry), PUBSUB)
            (entry,) = take(bob, 1)
        bob.ok("set", verdict("nack", entry), PUBSUB)
    deadline = time.monotonic() + 20
    while "jobs.dead" not in nodes(bob) and time.monotonic() < deadline:
        time.sleep(0.05)
    while not pubsub.items(bob, "jobs.dead") and time.monotonic() < deadline:
        time.sleep(0.05)
    ((name, text),) = pubsub.items(bob, "jobs.dead")
    assert text == "bad" and name.startswith("dead-")
    answer = bob.ok("get", pubsub.request("<items node='jobs.dead'/>"), PUBSUB)
    headers = {h.get("name"): h.text for h in answer.iter("{http://jabber.org/protocol/shim}header")}
    assert headers["Xylem-Dead-Reason"] == "max-deliver" and headers["Xylem-Dead-Node"] == "jobs"
    assert headers["Xylem-Dead-Attempts"] == "2" and headers["Xylem-Dead-Id"] == "poison"
    broker.restart(signal.SIGKILL)
    bob = returned(broker, connect)
    assert len(pubsub.items(bob, "jobs.dead")) == 1
    until_parked(bob, "0")  # the crash may have come between burying it and ending it: then that is made up for
    assert len(pubsub.items(bob, "jobs.dead")) == 1


def nodes(client):
    answer = client.ok("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", PUBSUB)
    return {i.get("node") for i in answer.iter("{http://jabber.org/protocol/disco#items}item")}


def test_pause_and_replay(broker, connect, alice):
    bob = worker(broker, connect)
    for n in range(4):
        publish(alice, "jobs", str(n))
    for entry in take(bob, 4):
        bob.ok("set", verdict("ack", entry), PUBSUB)
    options = pubsub.form("subscribe_options", {"deliver": "0"})
    bob.ok("set", pubsub.request(f"<options node='jobs' jid='{BOB}'>{options}</options>"), PUBSUB)
    bob.ok("set", f"<replay xmlns='{NS}' node='jobs' start='seq:3'/>", PUBSUB)
    broker.restart(signal.SIGKILL)
    bob = returned(broker, connect)
    bob.nothing("message", 0.3)
    assert state(bob)["state"] == "paused" and state(bob)["depth"] == "2"
    options = pubsub.form("subscribe_options", {"deliver": "1"})
    bob.ok("set", pubsub.request(f"<options node='jobs' jid='{BOB}'>{options}</options>"), PUBSUB)
    again = take(bob, 2)
    assert ids(again) == ["2", "3"] and all(int(e[1].get("attempt")) >= 2 for e in again)


# --- receipts -------------------------------------------------------------------------------------------------------


def test_receipt_of_a_raw_client(broker, connect, alice):
    bob = connect(broker, "bob", "worker")
    subscribe(bob, "jobs", BOB, **{**ONE_BY_ONE, DELIVERY + "ack": "receipt"})
    bob.available()
    for n in range(3):
        publish(alice, "jobs", str(n))
    found = take(bob, 3)
    assert all(e[2].find(f"{{{RECEIPTS}}}request") is not None for e in found)
    say(alice, f"<received xmlns='{RECEIPTS}' id='{found[0][2].get('id')}'/>")  # not hers
    say(bob, f"<received xmlns='{RECEIPTS}' id='{found[1][2].get('id')}'/>")
    say(bob, f"<received xmlns='{RECEIPTS}' id='no-such-thing'/>")
    until_depth(bob, "2")
    bob.ok("set", verdict("ack", found[2]), PUBSUB)
    broker.restart(signal.SIGKILL)
    assert ids(take(returned(broker, connect), 1)) == ["0"]


def test_receipt_of_slixmpp(broker, connect, alice):
    """A third-party client that knows XEP-0184 and nothing of ours acknowledges by itself."""

    async def run():
        client = await library.connect(broker, "bob", resource="lib", plugins=("xep_0184", "xep_0060"))
        client.add_event_handler("pubsub_publish", client.inbox.put_nowait)
        connected.set()
        names = []
        while len(names) < 5:
            message = await client.next_message()
            names += [i.get("id") for i in message.xml.iter(f"{{{pubsub.EVENT}}}item")]
        await client.close()
        return names

    bob = connect(broker, "bob", "setup")
    subscribe(bob, "jobs", BOB, **{**ONE_BY_ONE, DELIVERY + "ack": "receipt"})
    result, connected = [], threading.Event()
    thread = threading.Thread(target=lambda: result.append(asyncio.run(run())))
    thread.start()
    assert connected.wait(30)
    for n in range(5):
        publish(alice, "jobs", str(n))
    thread.join(60)
    assert result == [["0", "1", "2", "3", "4"]]
    until_depth(bob, "0")
