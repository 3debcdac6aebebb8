"""What nodes keep and what they refuse, as clients see it: bytes, age, overflow; restarts and SIGKILL in between."""

import json
import signal
import socket
import time

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import DELIVERY, NODE, create, next_items, publish, subscribe

BOB = "bob@" + DOMAIN
GAP_NS = "urn:xylem:delivery:0"
AT_LEAST_ONCE = {DELIVERY + "mode": "at-least-once"}


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


def ids(client, node):
    return [name for name, _ in pubsub.items(client, node)]


def wait_until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def reader(broker, connect, node, **options):
    """A session of bob with XEP-0198 and a durable subscription."""
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    subscribe(client, node, BOB, **AT_LEAST_ONCE, **options)
    client.available(0)
    return client


def refused(client, node, name, text=""):
    return client.refused("set", pubsub.publish_xml(node, pubsub.item_xml(name, text)), PUBSUB)


def test_bytes_and_numbers_together(broker, connect, alice):
    create(alice, "n", max_items="3", **{NODE + "max_bytes": "2000"})
    for name in "abcd":
        publish(alice, "n", name)
    assert ids(alice, "n") == ["b", "c", "d"]
    publish(alice, "n", "e", "x" * 1780)
    assert ids(alice, "n") == ["d", "e"]
    assert refused(alice, "n", "f", "x" * 2000) == ("modify", "not-acceptable", ["payload-too-big"])
    broker.restart(signal.SIGKILL)
    assert ids(connect(broker, "alice", "desk"), "n") == ["d", "e"]


def test_a_node_of_last_values(broker, connect, alice):
    """max_items=max and ids of one's own: the last value per id, nothing else, also after a crash."""
    create(alice, "n", max_items="max")
    for n in range(40):
        publish(alice, "n", f"sensor{n % 4}", str(n))
    expected = [(f"sensor{n % 4}", str(n)) for n in range(36, 40)]
    assert pubsub.items(alice, "n") == expected
    broker.restart(signal.SIGKILL)
    assert pubsub.items(connect(broker, "alice", "desk"), "n") == expected


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_items_expire(broker, connect, alice, how):
    create(alice, "n", item_expire="3")
    publish(alice, "n", "old")
    assert ids(alice, "n") == ["old"]
    wait_until(lambda: ids(alice, "n") == [])
    publish(alice, "n", "new")
    assert ids(alice, "n") == ["new"]
    broker.stop() if how == signal.SIGTERM else broker.kill()
    time.sleep(3.1)
    broker.start()
    assert ids(connect(broker, "alice", "desk"), "n") == []


def test_expired_items_stay_owed(broker, connect, alice):
    create(alice, "n", item_expire="1")
    client = reader(broker, connect, "n")
    client.drop()
    publish(alice, "n", "a")
    publish(alice, "n", "b")
    wait_until(lambda: ids(alice, "n") == [])
    broker.restart(signal.SIGKILL)
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    client.available(0)
    assert [name for name, _ in next_items(client, 2)] == ["a", "b"]


def test_overflow_reject(broker, connect, alice):
    create(alice, "n", max_items="2", **{NODE + "overflow": "reject"})
    publish(alice, "n", "a")
    publish(alice, "n", "b")
    assert refused(alice, "n", "c") == ("cancel", "conflict", ["node-full"])
    publish(alice, "n", "b", "again")
    alice.ok("set", pubsub.retract_xml("n", "a"), PUBSUB)
    publish(alice, "n", "c")
    assert ids(alice, "n") == ["b", "c"]


def test_overflow_reject_while_a_subscriber_lags(broker, connect, alice):
    """Nothing is lost: what was accepted arrives, what was refused is accepted once the subscriber has caught up."""
    create(alice, "n", max_items="max", **{NODE + "overflow": "reject"})
    client = reader(broker, connect, "n", **{DELIVERY + "max_backlog_bytes": "5000"})
    client.drop()
    accepted = []
    for n in range(100):
        answer = alice.iq("set", pubsub.publish_xml("n", pubsub.item_xml(str(n), "x" * 500)), PUBSUB)
        if answer.get("type") == "error":
            break
        accepted.append(str(n))
    assert 5 <= len(accepted) < 10
    assert refused(alice, "n", "no", "x" * 500) == ("wait", "resource-constraint", [])
    broker.restart(signal.SIGKILL)
    alice = connect(broker, "alice", "desk")
    assert refused(alice, "n", "no", "x" * 500) == ("wait", "resource-constraint", [])
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    client.available(0)
    assert [name for name, _ in next_items(client, len(accepted))] == accepted
    client.ack()
    client.ping()
    wait_until(
        lambda: alice.iq("set", pubsub.publish_xml("n", pubsub.item_xml("yes")), PUBSUB).get("type") == "result"
    )
    assert [name for name, _ in next_items(client, 1)] == ["yes"]


def test_limits_of_the_service(make_broker, connect):
    """A node without bounds of its own has those of the service; larger ones are refused."""
    broker = make_broker({"limits": {"items_per_node": 5, "bytes_per_node": "10kb"}}).start()
    alice = connect(broker, "alice", "desk")
    create(alice, "n", max_items="max")
    for n in range(8):
        publish(alice, "n", str(n))
    assert ids(alice, "n") == ["3", "4", "5", "6", "7"]
    publish(alice, "n", "large", "x" * 10100)
    assert ids(alice, "n") == ["large"]
    for option, value in (("max_items", "6"), (NODE + "max_bytes", "10241")):
        assert alice.refused("set", pubsub.configure_xml("n", {option: value}), PUBSUB)[:2] == (
            "modify",
            "not-acceptable",
        )


# --- durability -------------------------------------------------------------------------------------------------------


def test_async_is_flushed_soon(broker, connect, alice):
    create(alice, "n", max_items="max", **{NODE + "durability": "async"})
    client = reader(broker, connect, "n")
    names = [publish(alice, "n", str(n)) for n in range(50)]
    assert [name for name, _ in next_items(client, 50)] == names  # events mean that it is on disk
    broker.restart(signal.SIGKILL)
    assert ids(connect(broker, "alice", "desk"), "n") == names


def test_async_loses_only_the_newest(broker, connect, alice):
    """Whatever the crash takes, what is left is a beginning of what was published, in order."""
    create(alice, "n", max_items="max", **{NODE + "durability": "async"})
    for n in range(300):
        publish(alice, "n", str(n))
    broker.restart(signal.SIGKILL)
    alice = connect(broker, "alice", "desk")
    left = ids(alice, "n")
    assert left == [str(n) for n in range(len(left))]
    publish(alice, "n", "after")
    assert ids(alice, "n") == left + ["after"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_memory(broker, connect, alice, how):
    create(alice, "n", **{NODE + "durability": "memory"})
    client = connect(broker, "bob", "reader", presence=0)
    subscribe(client, "n", BOB)
    publish(alice, "n", "a", "text")
    assert next_items(client, 1) == [("a", "text")]
    assert pubsub.items(alice, "n") == [("a", "text")]
    assert client.refused("set", pubsub.subscribe_xml("n", client.jid, AT_LEAST_ONCE), PUBSUB) == (
        "modify",
        "bad-request",
        ["invalid-options"],
    )
    broker.restart(how)
    alice = connect(broker, "alice", "desk")
    assert pubsub.items(alice, "n") == []
    client = connect(broker, "bob", "reader", presence=0)
    assert until_received(alice, client, "n", "b") == ("b", "text")


def until_received(publisher, client, node, name):
    """Publishes until the item comes: a node hears of a session a moment after the session heard that it is available,
    and what is delivered at most once does not wait for that."""
    for _ in range(20):
        publish(publisher, node, name, "text")
        try:
            return next_items(client, 1, timeout=1)[0]
        except socket.timeout:
            continue
    raise AssertionError(f"{name} never came")


def test_dedup_window(broker, connect, alice):
    create(alice, "n", max_items="max", **{NODE + "dedup_window": "3600"})
    client = reader(broker, connect, "n")
    publish(alice, "n", "a", "first")
    publish(alice, "n", "a", "second")
    publish(alice, "n", "b")
    assert [name for name, _ in next_items(client, 2)] == ["a", "b"]
    broker.restart(signal.SIGKILL)
    alice = connect(broker, "alice", "desk")
    bob = connect(broker, "bob", "desk")
    pubsub.affiliate(alice, "n", bob="publisher")
    assert publish(bob, "n", "a", "third") == "a"
    assert pubsub.items(alice, "n")[0] == ("a", "first")
    assert ids(alice, "n") == ["a", "b"]


# --- gaps ---------------------------------------------------------------------------------------------------------------


def next_gap(client):
    message = client.read_until(lambda e: e.find(f"{{{GAP_NS}}}gap") is not None)
    gap = message.find(f"{{{GAP_NS}}}gap")
    assert gap.get("node") == "n" and message.find(f"{{{GAP_NS}}}delivery").get("seq") == gap.get("last")
    return int(gap.get("first")), int(gap.get("last")), gap.get("reason")


@pytest.mark.parametrize("option, reason", [("bytes", "max_backlog_bytes"), ("age", "max_backlog_age")])
def test_a_skip_is_told(broker, connect, alice, option, reason):
    """In front of what is still owed, again until acknowledged, also after a crash, and never again afterwards."""
    create(alice, "n")
    bounds = {DELIVERY + "max_backlog_bytes": "2000"} if option == "bytes" else {DELIVERY + "max_backlog_age": "1"}
    client = reader(broker, connect, "n", **bounds)
    client.drop()
    for n in range(10):
        publish(alice, "n", str(n), "x" * 400)
    if option == "age":
        time.sleep(2.1)
        publish(alice, "n", "10")
    wait_until(lambda: "backlog exceeded" in broker.log())
    time.sleep(0.3)  # within which it is on disk
    broker.restart(signal.SIGKILL)
    for _ in range(2):
        client = connect(broker, "bob", "reader")
        client.enable_sm()
        client.available(0)
        first, last, why = next_gap(client)
        assert (first, why) == (1, reason) and last >= 6
        client.drop()
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    client.available(0)
    again = next_gap(client)[1]
    assert again == last or (option == "age" and again > last)  # more has grown too old meanwhile
    last = again
    client.ack()
    client.ping()
    time.sleep(0.3)
    broker.restart(signal.SIGKILL)
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    client.available(0)
    alice = connect(broker, "alice", "desk")
    publish(alice, "n", "after")
    message = client.read_until(lambda e: e.find(f"{{{GAP_NS}}}delivery") is not None)
    gap = message.find(f"{{{GAP_NS}}}gap")
    assert gap is None or int(gap.get("first")) > last  # of what was still owed, if all this took a second


# --- nodes in memory ------------------------------------------------------------------------------------------------------


def figures(broker):
    run = broker.xylem("admin", "stats", "--json")
    assert run.returncode == 0, run.stderr
    return {name: value for name, value in json.loads(run.stdout).items() if name != "version"}


def test_nodes_need_memory_only_while_they_are_used(make_broker, connect):
    """Many nodes in little memory: all of them keep what they have, and what is owed; a restart loads none of them."""
    broker = make_broker({"limits": {"node_memory": "1mb"}}).start()
    alice = connect(broker, "alice", "desk", presence=0)
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    publish(alice, "n0", "first")
    subscribe(client, "n0", BOB, **AT_LEAST_ONCE)
    client.drop()
    publish(alice, "n0", "owed")
    for n in range(1, 2000):
        publish(alice, f"n{n}", "first")
    time.sleep(10)  # what was used so lately may stay


    def few_are_left():
        for n in range(1, 40):  # each shard looks when one of its own is used
            publish(alice, f"n{n}", "second")
        seen = figures(broker)
        return seen["pubsub_nodes"] < 1500 and seen["pubsub_node_bytes"] < 2 << 20 and seen["nodes_unloaded"] > 500

    wait_until(few_are_left)
    for n in range(0, 2000, 97):
        assert ids(alice, f"n{n}")[0] == "first"
    broker.restart(signal.SIGKILL)
    assert figures(broker)["nodes_loaded"] == 0
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    client.available(0)
    assert [name for name, _ in next_items(client, 1)] == ["owed"]
    assert figures(broker)["nodes_loaded"] == 1
