"""Consumers of a queue that speak urn:xylem:delivery:0: ack, nack, term and working, in messages and IQs."""

import signal
import time

import pytest

from harness import PUBSUB
from queues import create_queue, left, none_comes, put, say, settle_xml, take, take_delivery, take_ids, until_left, worker


@pytest.fixture
def alice(broker, connect):
    client = connect(broker, "alice", "desk")
    create_queue(client, lock_timeout="2")
    return client


def test_ack_by_number_and_by_id(broker, connect, alice):
    bob = worker(broker, connect, requests=3)
    for name in ("a", "b", "c"):
        put(alice, name)
    _, first = take_delivery(bob)
    take_ids(bob, 2)
    say(bob, settle_xml("ack", of=first), settle_xml("ack", name="c"))
    until_left(alice, ["b"])
    bob.nothing("message")  # nothing is told but the answer to an IQ
    bob.ok("set", settle_xml("ack", name="b"), PUBSUB)
    assert left(alice) == []
    assert bob.refused("set", settle_xml("ack", name="b"), PUBSUB)[1] == "item-not-found"
    assert bob.refused("set", settle_xml("ack", of=first), PUBSUB)[1] == "item-not-found"


def test_ack_of_all_up_to(broker, connect, alice):
    bob, carol = worker(broker, connect, "bob", requests=3), worker(broker, connect, "carol", requests=3)
    deliveries = {}
    for n in range(6):
        put(alice, str(n))
    for client in (bob, carol):
        for _ in range(3):
            name, delivery = take_delivery(client)
            deliveries[name] = (client, delivery)
    of_bob = sorted(name for name, (client, _) in deliveries.items() if client is bob)
    bob.ok("set", settle_xml("ack", of=deliveries[of_bob[1]][1], more=" cumulative='true'"), PUBSUB)
    assert left(alice) == [n for n in "012345" if n not in of_bob[:2]]  # what carol has stays


def test_others_cannot_acknowledge(broker, connect, alice):
    bob = worker(broker, connect, "bob")
    put(alice, "a")
    _, delivery = take_delivery(bob)
    carol = worker(broker, connect, "carol")
    other = worker(broker, connect, "bob", "w2")
    for client in (carol, other, alice):
        assert client.refused("set", settle_xml("ack", of=delivery), PUBSUB)[1] == "item-not-found"
        say(client, settle_xml("ack", name="a"), settle_xml("nack", of=delivery))
        client.ping(PUBSUB)
    assert left(alice) == ["a"]
    bob.ok("set", settle_xml("ack", of=delivery), PUBSUB)


def test_nack_with_and_without_a_delay(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "a")
    put(alice, "b")
    take(bob)
    say(bob, settle_xml("nack", name="a"))
    assert take(bob) == ("a", 2)
    bob.ok("set", settle_xml("nack", name="a", more=" delay='1'"), PUBSUB)
    assert take(bob) == ("b", 1)
    say(bob, settle_xml("ack", name="b"))
    assert take(bob, 10) == ("a", 3)


def test_working_extends_the_lock(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "a")
    take(bob)
    for _ in range(4):
        time.sleep(1)
        say(bob, settle_xml("working", name="a"))
    none_comes(bob, 0.5)
    bob.ok("set", settle_xml("ack", name="a"), PUBSUB)
    assert left(alice) == []


def test_term_parks_where_there_are_no_dead_letters(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "bad")
    put(alice, "good")
    take(bob)
    say(bob, settle_xml("term", name="bad"))
    assert take(bob) == ("good", 1)
    bob.ok("set", settle_xml("ack", name="good"), PUBSUB)
    none_comes(bob, 2.5)
    assert left(alice) == ["bad"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_answered_is_on_disk(broker, connect, how):
    alice = connect(broker, "alice", "desk")
    create_queue(alice, "jobs")
    bob = worker(broker, connect, requests=5)
    for n in range(5):
        put(alice, str(n))
    take_ids(bob, 5)
    bob.ok("set", settle_xml("ack", name="1"), PUBSUB)
    bob.ok("set", settle_xml("nack", name="2", more=" delay='600'"), PUBSUB)
    bob.ok("set", settle_xml("term", name="3"), PUBSUB)
    broker.restart(how)
    bob = connect(broker, "bob", "w1", presence=0)
    assert take_ids(bob, 2) == ["0", "4"]
    none_comes(bob, 0.5)
    alice = connect(broker, "alice", "desk")
    assert left(alice) == ["0", "2", "3", "4"]
