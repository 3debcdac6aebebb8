"""Limits per account over all its nodes, as clients meet them: what is refused and how, what makes room, restarts, reloads."""

import json
import signal
import threading
import time

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import configure, create, item_xml, owner_request, publish, publish_xml, retract_xml, subscribe_xml, unsubscribe_xml

BOB = "bob@" + DOMAIN
FULL = ("wait", "resource-constraint", [])
TOO_MANY = ("wait", "policy-violation", ["too-many-subscriptions"])
NODES = [f"n{i}" for i in range(8)]  # on all shards


def wait_until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def stat(broker, name):
    return int(json.loads(broker.xylem("admin", "stats", "--json").stdout)[name])


def wait_counted(broker):
    wait_until(lambda: stat(broker, "pubsub_counting") == 0)


def limited(make_broker, **limits):
    broker = make_broker({"limits": limits}).start()
    wait_counted(broker)
    return broker


def reload(broker, **limits):
    broker.config["limits"] = limits
    broker.write_config()
    before = broker.log(100000).count("configuration reloaded")
    broker.reload()
    wait_until(lambda: broker.log(100000).count("configuration reloaded") > before)
    wait_counted(broker)


def refused(client, node, name="more", text=""):
    return client.refused("set", publish_xml(node, item_xml(name, text)), PUBSUB)


def fill(client, items):
    for node in NODES:
        create(client, node, max_items="max")
    for i in range(items):
        publish(client, NODES[i % len(NODES)], f"i{i}", "x")


@pytest.fixture
def broker(make_broker):
    return limited(make_broker, items_per_account=20)


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


def test_a_full_account(broker, connect, alice):
    fill(alice, 20)
    for node in NODES:
        assert refused(alice, node) == FULL
    text = alice.iq("set", publish_xml(NODES[0], item_xml("more", "x")), PUBSUB).find(".//{*}text").text
    assert "over all its nodes" in text and "retract" in text
    publish(alice, NODES[0], "i0", "anew")
    bob = connect(broker, "bob", "desk")
    create(bob, "bobs")
    publish(bob, "bobs", "i", "x")
    assert stat(broker, "publishes_refused_account") == len(NODES) + 1
    assert sum(len(pubsub.items(alice, node)) for node in NODES) == 20


def test_somebody_else_publishes(broker, connect, alice):
    """The account that made the node is charged, whoever publishes."""
    fill(alice, 20)
    configure(alice, NODES[0], publish_model="open")
    bob = connect(broker, "bob", "desk")
    assert refused(bob, NODES[0]) == FULL
    alice.ok("set", retract_xml(NODES[1], "i1"), PUBSUB)
    publish(bob, NODES[0], "bobs", "x")
    assert refused(bob, NODES[0]) == FULL


def test_what_makes_room(broker, alice):
    fill(alice, 20)
    alice.ok("set", retract_xml(NODES[0], "i0"), PUBSUB)
    publish(alice, NODES[5], "a", "x")
    assert refused(alice, NODES[5]) == FULL
    alice.ok("set", owner_request(f"<purge node='{NODES[1]}'/>"), PUBSUB)  # i1, i9, i17
    for name in "bcd":
        publish(alice, NODES[6], name, "x")
    assert refused(alice, NODES[6]) == FULL
    alice.ok("set", owner_request(f"<delete node='{NODES[2]}'/>"), PUBSUB)  # i2, i10, i18
    for name in "efg":
        publish(alice, NODES[7], name, "x")
    assert refused(alice, NODES[7]) == FULL
    configure(alice, NODES[7], max_items="5")  # i7, i15, e, f, g: it is full by itself
    publish(alice, NODES[7], "h", "x")
    assert [name for name, _ in pubsub.items(alice, NODES[7])] == ["i15", "e", "f", "g", "h"]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_over_a_restart(broker, connect, alice, kill):
    fill(alice, 20)
    broker.restart(kill)
    wait_counted(broker)
    alice = connect(broker, "alice", "desk")
    for node in NODES:
        assert refused(alice, node) == FULL
    alice.ok("set", retract_xml(NODES[3], "i3"), PUBSUB)
    publish(alice, NODES[4], "more", "x")
    assert refused(alice, NODES[0]) == FULL


def test_bytes(make_broker, connect):
    broker = limited(make_broker, bytes_per_account="20kb")
    alice = connect(broker, "alice", "desk")
    for node in NODES:
        create(alice, node, max_items="max")
    for node in NODES[:4]:
        publish(alice, node, "i", "x" * 4900)
    assert refused(alice, NODES[7], text="x" * 1000) == FULL
    publish(alice, NODES[0], "i", "x" * 100)
    publish(alice, NODES[7], "i", "x" * 1000)
    assert refused(alice, NODES[6], text="x" * 4900) == FULL
    broker.restart(signal.SIGKILL)
    wait_counted(broker)
    alice = connect(broker, "alice", "desk")
    assert refused(alice, NODES[6], text="x" * 4900) == FULL
    publish(alice, NODES[6], "i", "x" * 2000)


def test_many_publish_at_once(broker, connect, alice):
    """Nodes on all shards, up to the last place: never one more."""
    fill(alice, 0)
    for node in NODES:
        configure(alice, node, publish_model="open")
    clients = [connect(broker, name, f"r{i}") for i, name in enumerate(["alice", "bob", "carol", "alice"])]
    taken = []

    def run(client, nodes):
        for i in range(10):
            for node in nodes:
                answer = client.iq("set", publish_xml(node, item_xml(f"{node}-{i}", "x")), PUBSUB)
                taken.append(answer.get("type") == "result")

    threads = [threading.Thread(target=run, args=(client, NODES[i * 2 : i * 2 + 2])) for i, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 80 and sum(taken) == 20
    assert sum(len(pubsub.items(alice, node)) for node in NODES) == 20


def test_subscriptions(make_broker, connect):
    broker = limited(make_broker, subscriptions_per_account=5)
    alice, bob = connect(broker, "alice", "desk"), connect(broker, "bob", "desk")
    fill(alice, 0)
    for node in NODES[:5]:
        pubsub.subscribe(bob, node, BOB)
    for node in NODES[5:]:
        assert bob.refused("set", subscribe_xml(node, BOB), PUBSUB) == TOO_MANY
        assert bob.refused("set", subscribe_xml(node, BOB + "/desk"), PUBSUB) == TOO_MANY
    pubsub.subscribe(bob, NODES[0], BOB)  # it is there
    pubsub.subscribe(alice, NODES[5], "alice@" + DOMAIN)
    bob.ok("set", unsubscribe_xml(NODES[0], BOB), PUBSUB)
    pubsub.subscribe(bob, NODES[7], BOB)
    broker.restart(signal.SIGKILL)
    wait_counted(broker)
    alice, bob = connect(broker, "alice", "desk"), connect(broker, "bob", "desk")
    assert bob.refused("set", subscribe_xml(NODES[6], BOB), PUBSUB) == TOO_MANY
    alice.ok("set", owner_request(f"<delete node='{NODES[1]}'/>"), PUBSUB)
    pubsub.subscribe(bob, NODES[6], BOB)
    assert stat(broker, "subscriptions_refused") == 1


def test_reload(make_broker, connect):
    broker = limited(make_broker)
    alice, bob = connect(broker, "alice", "desk"), connect(broker, "bob", "desk")
    fill(alice, 20)
    for node in NODES:
        pubsub.subscribe(bob, node, BOB)
    reload(broker, items_per_account=10, subscriptions_per_account=7)  # there is more: it stays, and no more comes
    assert sum(len(pubsub.items(alice, node)) for node in NODES) == 20
    assert refused(alice, NODES[0]) == FULL
    bob.ok("set", unsubscribe_xml(NODES[0], BOB), PUBSUB)
    assert bob.refused("set", subscribe_xml(NODES[0], BOB), PUBSUB) == TOO_MANY
    reload(broker, items_per_account=21, subscriptions_per_account=8)
    publish(alice, NODES[0], "more", "x")
    assert refused(alice, NODES[1]) == FULL
    pubsub.subscribe(bob, NODES[0], BOB)
    reload(broker)
    publish(alice, NODES[1], "more", "x")


def test_nodes_over_a_restart(make_broker, connect):
    broker = limited(make_broker, nodes_per_account=len(NODES))
    alice = connect(broker, "alice", "desk")
    fill(alice, 0)
    for kill in (signal.SIGKILL, signal.SIGTERM):
        assert alice.refused("set", pubsub.create_xml("more"), PUBSUB) == FULL
        assert refused(alice, "by-publishing") == FULL
        broker.restart(kill)
        alice = connect(broker, "alice", "desk")
    alice.ok("set", owner_request(f"<delete node='{NODES[0]}'/>"), PUBSUB)
    create(alice, "more")
    assert alice.refused("set", pubsub.create_xml("again"), PUBSUB) == FULL
