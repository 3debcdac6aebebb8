"""An owner moves items between nodes: dead letters back into their queue, a queue elsewhere."""

import pytest

import pubsub
from harness import PUBSUB
from pubsub import create
from queues import create_queue, left, none_comes, put, put_xml, take, take_ids, unlock, worker
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


def test_what_is_refused_stays(broker, connect):
    bob, carol = connect(broker, "bob", "desk"), connect(broker, "carol", "c")
    create_queue(bob)
    create(carol, "closed")
    for name in ("a", "b"):
        put(bob, name)
    assert bob.refused("set", move_xml("jobs", "closed"), PUBSUB)[1] == "not-allowed"
    assert bob.refused("set", move_xml("jobs", "none"), PUBSUB)[1] == "not-allowed"
    assert bob.refused("set", move_xml("jobs", "jobs"), PUBSUB)[1] == "bad-request"
    assert bob.refused("set", move_xml("jobs", "x", " max='0'"), PUBSUB)[1] == "bad-request"
    assert carol.refused("set", move_xml("jobs", "closed"), PUBSUB)[1] == "forbidden"
    assert left(bob) == ["a", "b"]
    takes = worker(broker, connect, user="carol", requests=5)
    assert sorted(take_ids(takes, 2)) == ["a", "b"]


def test_administrators_rescue_what_is_not_theirs(broker, connect, alice):
    """Neither the queue nor the node of its dead letters is theirs, and both are closed to others."""
    bob, carol = connect(broker, "bob", "desk"), connect(broker, "carol", "c")
    closed = {"pubsub#access_model": "whitelist"}
    create_queue(bob, max_deliver="1", dead_letter="dead", **closed)
    w = worker(broker, connect, requests=2)
    for name in ("a", "b"):
        put(bob, name)
    unlock(w, *take_ids(w, 2))
    wait_for_letters(bob, 2)
    assert len(left(alice, "dead")) == 2 and left(alice) == []
    assert carol.refused("set", move_xml("dead", "jobs"), PUBSUB)[1] == "forbidden"
    assert move(alice, "dead", "jobs", " max='1'") == 1
    assert take(w)[0].startswith("dead-")
    # The command line of the machine is an administrator.
    run = broker.xylem("queue", "peek", "dead", "--json")
    assert run.returncode == 0 and "dead-" in run.stdout
    assert broker.xylem("queue", "move", "dead", "jobs").stdout == "1\n"
    assert left(alice, "dead") == [] and len(left(alice)) == 2
    # What they publish without moving is a publish like any other.
    assert alice.refused("set", put_xml("c"), PUBSUB)[1] == "forbidden"
