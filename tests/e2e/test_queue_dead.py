"""Items of a queue that are given up: they go to the node for dead letters, once, and come back from there."""

import signal
import time

import pytest

import pubsub
from harness import PUBSUB
from pubsub import create
from queues import SHIM, create_queue, left, none_comes, put, say, settle_xml, take, take_ids, unlock, until_left, worker
from test_queue_owner import state


def letters(client, node="dead"):
    """[(text of the payload, {header: value})] of a node."""
    answer = client.ok("get", pubsub.request(f"<items node='{node}'/>"), PUBSUB)
    found = []
    for item in answer.iter(f"{{{pubsub.NS}}}item"):
        headers = {h.get("name"): h.text for h in item.iter(f"{{{SHIM}}}header")}
        found.append((item.findtext("{urn:example}job"), headers))
    return found


def wait_for_letters(client, count, node="dead"):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            found = letters(client, node)
        except AssertionError:  # there is no such node yet
            found = []
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{count} letters, but {letters(client, node)}")


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


def test_sent_too_often(broker, connect, alice):
    create_queue(alice, max_deliver="2", dead_letter="dead")
    bob = worker(broker, connect)
    put(alice, "bad", Kind="special", Urgency="high")
    for n in (1, 2):
        assert take(bob) == ("bad", n)
        unlock(bob, "bad")
    ((text, headers),) = wait_for_letters(alice, 1)
    assert text == "bad" and headers["Kind"] == "special"
    assert headers["Xylem-Dead-Reason"] == "max-deliver" and headers["Xylem-Dead-Node"] == "jobs"
    assert (headers["Xylem-Dead-Seq"], headers["Xylem-Dead-Attempts"]) == ("1", "2")
    assert len(headers["Xylem-Dead-Epoch"]) == 16 and headers["Xylem-Dead-Time"].startswith("20")
    until_left(alice, [])
    assert state(alice)[0]["dead-lettered"] == "1"
    put(alice, "good")
    assert take(bob) == ("good", 1)


def test_given_up_by_a_consumer_and_expired(broker, connect, alice):
    create_queue(alice, dead_letter="dead")
    bob = worker(broker, connect)
    put(alice, "never")
    take(bob)
    say(bob, settle_xml("term", name="never"))
    wait_for_letters(alice, 1)  # what bob says to the service and what he says of himself may overtake each other
    bob.send("<presence type='unavailable'/>")
    put(alice, "late", TTL=1)
    found = wait_for_letters(alice, 2)
    reasons = {text: headers["Xylem-Dead-Reason"] for text, headers in found}
    assert reasons == {"never": "term", "late": "expired"}
    until_left(alice, [])


def test_a_consumer_that_crashes_on_an_item(broker, connect, alice):
    create_queue(alice, dead_letter="dead", max_deliver="2")
    put(alice, "poison")
    for _ in range(2):
        bob = worker(broker, connect)
        take(bob)
        bob.reset()
    wait_for_letters(alice, 1)
    until_left(alice, [])


def test_refused_letters_stay_parked_and_are_tried_again(broker, connect, alice):
    carol = connect(broker, "carol", "c")
    create(carol, "dead")  # not alice's: she may not publish there
    create_queue(alice, dead_letter="dead", max_deliver="1")
    bob = worker(broker, connect)
    put(alice, "a")
    take(bob)
    unlock(bob, "a")
    time.sleep(0.5)
    assert left(alice) == ["a"] and state(alice)[0]["parked"] == "1"
    none_comes(bob)
    pubsub.affiliate(carol, "dead", alice="publisher")
    wait_for_letters(carol, 1)
    until_left(alice, [])


def test_to_another_queue(broker, connect, alice):
    create_queue(alice, "dead")
    create_queue(alice, dead_letter="dead", max_deliver="1")
    bob = worker(broker, connect)
    undertaker = worker(broker, connect, "carol", node="dead", requests=5)
    for name in ("a", "b"):
        put(alice, name)
        take(bob)
        unlock(bob, name)
    assert len(take_ids(undertaker, 2)) == 2
    until_left(alice, [])


def test_a_queue_is_not_its_own_grave(broker, connect, alice):
    create_queue(alice)
    config = {pubsub.NODE + "dead_letter": "jobs"}
    assert alice.refused("set", pubsub.configure_xml("jobs", config), PUBSUB)[1] == "not-acceptable"


def test_a_node_for_letters_that_comes_later(broker, connect, alice):
    create_queue(alice, max_deliver="1")
    bob = worker(broker, connect, requests=5)
    for n in range(5):
        put(alice, str(n))
    unlock(bob, *take_ids(bob, 5))
    assert state(alice)[0]["parked"] == "5"
    pubsub.configure(alice, "jobs", **{pubsub.NODE + "dead_letter": "dead"})
    assert [text for text, _ in wait_for_letters(alice, 5)] == [str(n) for n in range(5)]


def test_each_letter_once_over_crashes(broker, connect):
    alice = connect(broker, "alice", "desk")
    create_queue(alice, max_deliver="1", dead_letter="dead")
    for n in range(40):
        put(alice, str(n))
    bob = worker(broker, connect, requests=10)
    for n in range(3):
        ids = take_ids(bob, 10)
        bob.send("".join(f"<message to='{PUBSUB}'>{settle_xml('term', name=i)}</message>" for i in ids))
        wait_for_letters(alice, 8 * n + 1)  # some of them are there, others on their way
        broker.restart(signal.SIGKILL)
        bob = connect(broker, "bob", "w1", presence=0)
        alice = connect(broker, "alice", "desk")
    alice = connect(broker, "alice", "desk")
    deadline = time.monotonic() + 20
    while state(alice)[0]["parked"] != "0" and time.monotonic() < deadline:
        time.sleep(0.1)
    found = [text for text, _ in wait_for_letters(alice, 3)]
    assert len(found) == len(set(found))
    there = set(left(alice)) | set(found)
    assert there == {str(n) for n in range(40)}
    assert not set(left(alice)) & set(found)
