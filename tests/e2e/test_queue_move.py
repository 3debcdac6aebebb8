"""An owner moves items between nodes: dead letters back into their queue, a queue elsewhere."""

import pytest

import pubsub
from harness import PUBSUB
from pubsub import create
from queues import create_queue, left, none_comes, put, take, take_ids, unlock, worker
from test_queue_dead import letters, wait_for_letters
from test_queue_owner import state

DELIVERY = "urn:xylem:delivery:0"


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


def move_xml(node, to, more=""):
    return f"<move xmlns='{DELIVERY}' node='{node}' to='{to}'{more}/>"


def move(client, node, to, more=""):
    answer = client.ok("set", move_xml(node, to, more), PUBSUB)
    return int(answer.find(f"{{{DELIVERY}}}move").get("count"))


def test_dead_letters_go_back(broker, connect, alice):
    create_queue(alice, max_deliver="1", dead_letter="dead")
    bob = worker(broker, connect, requests=3)
    for name in ("a", "b", "c"):
        put(alice, name, Urgency="high")
    unlock(bob, *take_ids(bob, 3))
    wait_for_letters(alice, 3)
    assert move(alice, "dead", "jobs") == 3
    assert letters(alice) == []
    message = [bob.read_until(lambda e: e.find(".//{urn:example}job") is not None) for _ in range(3)]
    assert [m.findtext(".//{urn:example}job") for m in message] == ["a", "b", "c"]
    assert move(alice, "dead", "jobs") == 0


def test_a_queue_moves_but_for_what_is_locked(broker, connect, alice):
    create_queue(alice, max_deliver="1")
    create_queue(alice, "other")
    bob = worker(broker, connect, requests=2)
    for n in range(100):
        put(alice, str(n))
    assert take_ids(bob, 2) == ["0", "1"]
    unlock(bob, "0")  # parked
    assert take(bob) == ("2", 1)
    put(alice, "g1", Group="g")
    put(alice, "g2", Group="g")
    put(alice, "later", Delay=600)
    assert move(alice, "jobs", "other", " max='10'") == 10
    assert move(alice, "jobs", "other") == 91
    assert left(alice) == ["1", "2"]
    assert len(left(alice, "other")) == 101 and state(alice, "other")[0]["blocked"] == "1"
    none_comes(bob)
    put(alice, "more")
    assert bob.iq("set", pubsub.retract_xml("jobs", "1"), PUBSUB).get("type") == "result"
    assert take(bob) == ("more", 1)


def test_what_is_refused_stays(broker, connect, alice):
    create_queue(alice)
    carol = connect(broker, "carol", "c")
    create(carol, "closed")
    for name in ("a", "b"):
        put(alice, name)
    assert alice.refused("set", move_xml("jobs", "closed"), PUBSUB)[1] == "not-allowed"
    assert alice.refused("set", move_xml("jobs", "none"), PUBSUB)[1] == "not-allowed"
    assert alice.refused("set", move_xml("jobs", "jobs"), PUBSUB)[1] == "bad-request"
    assert alice.refused("set", move_xml("jobs", "x", " max='0'"), PUBSUB)[1] == "bad-request"
    assert carol.refused("set", move_xml("jobs", "closed"), PUBSUB)[1] == "forbidden"
    assert left(alice) == ["a", "b"]
    bob = worker(broker, connect, requests=5)
    assert sorted(take_ids(bob, 2)) == ["a", "b"]
