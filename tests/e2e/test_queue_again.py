"""What comes back to a queue and what must not: lock timeouts, consumers that vanish, crashes, pauses, time to live."""

import signal
import time

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from queues import (
    consume,
    create_queue,
    done,
    left,
    next_notice,
    none_comes,
    put,
    put_xml,
    retract_xml,
    take,
    take_ids,
    unlock,
    unlock_xml,
    worker,
)


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


# --- consumers that go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sm", [False, True])
def test_a_consumer_that_becomes_unavailable_gives_back(broker, connect, alice, sm):
    create_queue(alice)
    bob = worker(broker, connect, "bob", requests=2, sm=sm)
    for name in ("a", "b", "c"):
        put(alice, name)
    take_ids(bob, 2)
    carol = worker(broker, connect, "carol", requests=3)
    assert take(carol) == ("c", 1)
    bob.send("<presence type='unavailable'/>")
    assert [take(carol), take(carol)] == [("a", 2), ("b", 2)]
    assert bob.refused("set", retract_xml("a"), PUBSUB)[1] == "conflict"
    done(carol, "a", "b", "c")
    bob.available(0)  # still a consumer
    put(alice, "d")
    put(alice, "e")
    got = {take(bob)[0], take(carol)[0]}
    assert got == {"d", "e"}


def test_a_cut_socket_gives_back(broker, connect, alice):
    create_queue(alice)
    bob = worker(broker, connect, "bob")
    put(alice, "a")
    take(bob)
    carol = worker(broker, connect, "carol")
    bob.reset()
    assert take(carol) == ("a", 2)


def test_a_session_that_may_be_resumed_keeps_its_lock_until_the_timeout(broker, connect, alice):
    create_queue(alice, lock_timeout="2")
    bob = connect(broker, "bob", "w1")
    enabled = bob.enable_sm()
    bob.available(0)
    consume(bob, requests=2)
    put(alice, "a")
    take(bob)
    carol = worker(broker, connect, "carol")
    bob.reset()
    none_comes(carol)
    assert take(carol, 10) == ("a", 2)
    assert enabled is not None


def test_what_comes_while_a_consumer_is_detached_goes_to_the_others(broker, connect, alice):
    create_queue(alice)
    bob = connect(broker, "bob", "w1")
    bob.enable_sm()
    bob.available(0)
    consume(bob, requests=5)
    bob.reset()
    time.sleep(0.3)
    put(alice, "a")
    carol = worker(broker, connect, "carol", requests=5)
    assert take(carol)[0] == "a"


def test_unsubscribed_when_unavailable(broker, connect, alice):
    create_queue(alice)
    bob = worker(broker, connect, "bob", on_unavailable="unsubscribe")
    put(alice, "a")
    take(bob)
    bob.send("<presence type='unavailable'/>")
    bob.ping(PUBSUB)
    deadline = time.monotonic() + 10
    while subscribers(alice) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert subscribers(alice) == []
    assert left(alice) == ["a"]


def subscribers(client):
    answer = client.ok("get", pubsub.owner_request("<subscriptions node='jobs'/>"), PUBSUB)
    return [s.get("jid") for s in answer.iter(f"{{{pubsub.OWNER}}}subscription")]


def test_a_bare_jid_is_one_session(broker, connect, alice):
    create_queue(alice)
    low = connect(broker, "bob", "low", presence=0)
    high = connect(broker, "bob", "high", presence=5)
    consume(high, requests=2, jid="bob@" + DOMAIN)
    put(alice, "a")
    put(alice, "b")
    assert take_ids(high, 2) == ["a", "b"]
    none_comes(low)
    done(low, "a")  # any session of the account speaks for it
    high.send("<presence type='unavailable'/>")
    assert take(low) == ("b", 2)


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_ends(broker, connect, alice):
    create_queue(alice, lock_timeout="1")
    bob = worker(broker, connect, "bob", requests=1)
    put(alice, "a")
    assert take(bob) == ("a", 1)
    assert next_notice(bob, 10) == ("unlock", "a")
    assert take(bob, 10) == ("a", 2)
    done(bob, "a")
    none_comes(bob, 1.5)
    assert left(alice) == []


def test_backoff_and_max_deliver(broker, connect, alice):
    create_queue(alice, max_deliver="3", backoff="0 1")
    bob = worker(broker, connect, "bob", requests=2)
    put(alice, "bad")
    assert take(bob) == ("bad", 1)
    unlock(bob, "bad")
    assert take(bob) == ("bad", 2)  # no pause after the first time
    unlock(bob, "bad")
    none_comes(bob, 0.5)
    assert take(bob, 10) == ("bad", 3)
    unlock(bob, "bad")
    none_comes(bob, 1.5)  # parked
    assert left(alice) == ["bad"]
    put(alice, "good")
    assert take(bob) == ("good", 1)


# --- order ------------------------------------------------------------------------------------------------------------


def test_urgent_items_go_first(broker, connect, alice):
    create_queue(alice)
    put(alice, "low", Urgency="low")
    put(alice, "usual")
    put(alice, "medium", Urgency="medium")
    put(alice, "high", Urgency="high")
    bob = worker(broker, connect, requests=10)
    assert take_ids(bob, 4) == ["high", "usual", "medium", "low"]


def test_the_queue_has_a_priority(broker, connect, alice):
    create_queue(alice, priority="low")
    put(alice, "usual")
    put(alice, "medium", Urgency="medium")
    bob = worker(broker, connect, requests=10)
    assert take_ids(bob, 2) == ["medium", "usual"]


def test_groups_go_one_by_one(broker, connect, alice):
    create_queue(alice)
    clients = worker(broker, connect, "bob", requests=5), worker(broker, connect, "carol", requests=5)
    for name, group in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")):
        put(alice, name, Group=group)
    assert {name for name, _, _ in whoever(clients, 2)} == {"a1", "b1"}
    for name in ("a1", "a2", "a3"):
        has = next(c for c in clients if can_unlock(c, name))
        ((again, attempt, has),) = whoever(clients, 1)
        assert (again, attempt) == (name, 2)  # before those behind it
        for client in clients:
            none_comes(client, 0.1)
        done(has, name)
        if name != "a3":
            ((follower, attempt, _),) = whoever(clients, 1)
            assert (follower, attempt) == ("a" + str(int(name[1]) + 1), 1)
    assert left(alice) == ["b1"]


def can_unlock(client, name):
    return client.iq("set", unlock_xml(name), PUBSUB).get("type") == "result"


def whoever(clients, count):
    """[(id, attempt, client)] of the next items, wherever they go."""
    found = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        for client in clients:
            try:
                found.append((*take(client, 0.05), client))
            except TimeoutError:
                continue
    assert len(found) == count
    return found


# --- time -------------------------------------------------------------------------------------------------------------


def test_delayed_items_wait(broker, connect, alice):
    create_queue(alice)
    bob = worker(broker, connect, requests=5)
    put(alice, "later", Delay=1)
    put(alice, "at", Deliver_At=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2)))
    put(alice, "now")
    assert take(bob) == ("now", 1)
    assert {take(bob, 10)[0], take(bob, 10)[0]} == {"later", "at"}


def test_items_expire(broker, connect, alice):
    create_queue(alice)
    put(alice, "short", TTL=1)
    put(alice, "long", TTL=60)
    deadline = time.monotonic() + 10
    while "short" in left(alice) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left(alice) == ["long"]
    bob = worker(broker, connect)
    assert take(bob) == ("long", 1)


def test_headers_that_make_no_sense_are_refused(broker, connect, alice):
    create_queue(alice)
    for headers in ({"Delay": "soon"}, {"TTL": "0"}, {"Urgency": "extreme"}, {"Group": "g" * 256}, {"Deliver_At": "x"}):
        assert alice.refused("set", put_xml("a", **headers), PUBSUB)[1] == "bad-request", headers
    assert left(alice) == []
    pubsub.create(alice, "plain")
    put(alice, "a", "plain", Delay="soon")  # no queue: only passed on
    message = pubsub.items(alice, "plain")
    assert [name for name, _ in message] == ["a"]


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_lost_and_nothing_done_comes_again(broker, connect, how):
    alice = connect(broker, "alice", "desk")
    create_queue(alice)
    bob = worker(broker, connect, "bob", requests=4)
    for n in range(10):
        put(alice, str(n))
    take_ids(bob, 4)
    done(bob, "0", "2")
    take_ids(bob, 2)
    broker.restart(how)
    bob = connect(broker, "bob", "w1", presence=0)  # still subscribed
    got = [take(bob) for _ in range(4)]
    assert [name for name, _ in got] == ["1", "3", "4", "5"]
    assert {attempt for _, attempt in got} == {2}
    done(bob, "1", "3", "4", "5")
    assert take_ids(bob, 4) == ["6", "7", "8", "9"]
    alice = connect(broker, "alice", "desk")
    assert left(alice) == ["6", "7", "8", "9"]


def test_attempts_delays_and_parked_items_survive(broker, connect):
    alice = connect(broker, "alice", "desk")
    create_queue(alice, max_deliver="3")
    bob = worker(broker, connect, "bob", requests=3)
    for name in ("parked", "again", "waits"):
        put(alice, name)
    take_ids(bob, 3)
    for n in range(3):
        unlock(bob, "parked")
        if n < 2:
            assert take(bob)[0] == "parked"
    unlock(bob, "again")
    assert take(bob) == ("again", 2)
    unlock(bob, "again", delay=0)
    assert take(bob) == ("again", 3)
    unlock(bob, "waits", delay=600)
    time.sleep(1.3)  # states are on disk within a second
    broker.restart(signal.SIGKILL)
    bob = connect(broker, "bob", "w1", presence=0)
    none_comes(bob, 0.5)
    alice = connect(broker, "alice", "desk")
    assert left(alice) == ["parked", "again", "waits"]  # `again` was sent three times: parked as well


def test_scheduled_and_grouped_items_survive(broker, connect):
    alice = connect(broker, "alice", "desk")
    create_queue(alice)
    put(alice, "later", Delay=600)
    put(alice, "g1", Group="g")
    put(alice, "g2", Group="g")
    put(alice, "high", Urgency="high")
    put(alice, "short", TTL=1)
    broker.restart(signal.SIGKILL)
    time.sleep(1)
    bob = worker(broker, connect, "bob", requests=10)
    assert take_ids(bob, 2) == ["high", "g1"]
    none_comes(bob)
    done(bob, "g1")
    assert take_ids(bob, 1) == ["g2"]
    alice = connect(broker, "alice", "desk")
    assert left(alice) == ["later", "g2", "high"]


def test_publish_id_makes_putting_safe(broker, connect, alice):
    create_queue(alice)
    xml = put_xml("a").replace("<publish ", "<publish xmlns:d='urn:xylem:delivery:0' d:publish-id='p:1' ")
    for _ in range(2):
        alice.ok("set", xml, PUBSUB)
    assert left(alice) == ["a"]


def test_a_stalled_consumer_stops_nobody(broker, connect, alice):
    create_queue(alice)
    bob = worker(broker, connect, "bob", requests=1000)
    text = "x" * 60000
    for n in range(150):  # about 9 MB: more than an outbox
        alice.ok("set", pubsub.publish_xml("jobs", pubsub.item_xml(str(n), text)), PUBSUB)
    carol = worker(broker, connect, "carol", requests=1000)
    got = []
    try:
        while True:
            got.append(take(carol, 2)[0])
    except TimeoutError:
        pass
    assert got  # what had no room in bob's outbox
    done(carol, *got)
    rest = []
    while len(rest) + len(got) < 150:
        rest.append(take(bob, 10)[0])
    assert sorted(got + rest, key=int) == [str(n) for n in range(150)]
