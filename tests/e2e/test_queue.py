"""Queue nodes (XEP-0254): one item to one consumer at a time, until it says that it is done."""

import pytest

import pubsub
import raw
from harness import DOMAIN, PUBSUB
from pubsub import configuration, create, fields_of
from queues import (
    QUEUEING,
    consume,
    consume_xml,
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
    client = connect(broker, "alice", "desk")
    create_queue(client)
    return client


def test_an_item_goes_to_one_consumer(broker, connect, alice):
    first, second = worker(broker, connect, "bob"), worker(broker, connect, "carol")
    for name in ("a", "b"):
        put(alice, name)
    got = {take(first)[0], take(second)[0]}
    assert got == {"a", "b"}
    none_comes(first)
    none_comes(second)


def test_events_carry_their_numbers(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "a")
    message = bob.read_until(pubsub.is_event)
    delivery = pubsub.delivery(message)
    assert delivery.get("seq") == "1" and delivery.get("attempt") == "1" and len(delivery.get("epoch")) == 16
    assert message.get("to") == bob.jid and message.get("type", "normal") == "normal"
    assert message.get("id") == delivery.get("subid") + "-1"
    assert message.find(f".//{{{pubsub.EVENT}}}item").get("publisher") == "alice@" + DOMAIN


def test_waits_for_consumers(broker, connect, alice):
    for n in range(30):
        put(alice, str(n))
    bob = worker(broker, connect, requests=30)
    assert take_ids(bob, 30) == [str(n) for n in range(30)]


def test_takes_no_more_than_it_asked_for(broker, connect, alice):
    bob = worker(broker, connect, requests=3)
    for n in range(6):
        put(alice, str(n))
    assert take_ids(bob, 3) == ["0", "1", "2"]
    none_comes(bob)
    done(bob, "1")
    assert take(bob) == ("3", 1)
    done(bob, "0", "2")
    assert take_ids(bob, 2) == ["4", "5"]


def test_what_is_done_is_gone_and_told_to_the_consumer_alone(broker, connect, alice):
    bob, carol = worker(broker, connect, "bob"), worker(broker, connect, "carol")
    put(alice, "a")
    has, other = (bob, carol) if not waits(bob) else (carol, bob)
    assert take(has) == ("a", 1)
    done(has, "a")
    assert next_notice(has) == ("retract", "a")
    assert left(alice) == []
    other.nothing("message")
    assert has.refused("set", retract_xml("a"), PUBSUB) == ("cancel", "item-not-found", [])


def waits(client):
    """Nothing has come to this client."""
    try:
        client.inbox.append(client.read_until(pubsub.is_event, 0.5))
        return False
    except TimeoutError:
        return True


def test_the_drafts_get_is_taken_as_well(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "a")
    take(bob)
    bob.ok("get", unlock_xml("a"), PUBSUB)
    assert take(bob) == ("a", 2)
    bob.ok("get", retract_xml("a"), PUBSUB)
    assert left(alice) == []
    create(alice, "plain")
    pubsub.publish(alice, "plain", "i")
    assert alice.refused("get", retract_xml("i", node="plain"), PUBSUB) == ("modify", "bad-request", [])


def test_unlocked_items_go_to_the_front_marked(broker, connect, alice):
    bob = worker(broker, connect)
    for name in ("a", "b", "c"):
        put(alice, name)
    assert take(bob) == ("a", 1)
    unlock(bob, "a")
    assert next_notice(bob) == ("unlock", "a")
    message = bob.read_until(pubsub.is_event)
    assert pubsub.delivery(message).get("attempt") == "2" and raw.has_delay(message)
    assert message.find(f".//{{{pubsub.EVENT}}}item").get("id") == "a"
    done(bob, "a")
    assert take(bob) == ("b", 1)


def test_unlocking_with_a_delay(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "a")
    put(alice, "b")
    assert take(bob) == ("a", 1)
    unlock(bob, "a", delay=1)
    assert take(bob) == ("b", 1)
    done(bob, "b")
    assert take(bob, 10) == ("a", 2)
    assert bob.refused("set", unlock_xml("a", delay="soon"), PUBSUB)[1] == "bad-request"


def test_errors_of_those_who_do_not_have_it(broker, connect, alice):
    bob = worker(broker, connect, "bob")
    put(alice, "a")
    take(bob)
    carol = worker(broker, connect, "carol")
    for xml in (retract_xml, unlock_xml):
        assert carol.refused("set", xml("a"), PUBSUB) == ("cancel", "conflict", [])
        assert carol.refused("set", xml("none"), PUBSUB) == ("cancel", "item-not-found", [])
        assert carol.refused("set", xml(), PUBSUB)[1] == "bad-request"
        assert carol.refused("set", xml("a", "a"), PUBSUB)[1] in ("bad-request", "conflict")
    for client in (carol, bob):
        client.ok("set", pubsub.request(f"<options node='jobs' jid='{client.jid}'>{paused()}</options>"), PUBSUB)
    for xml in (retract_xml, unlock_xml):
        assert carol.refused("set", xml("a"), PUBSUB) == ("auth", "forbidden", [])
        assert bob.refused("set", xml("a"), PUBSUB) == ("wait", "unexpected-request", [])


def paused():
    return pubsub.form("subscribe_options", {"deliver": "0"})


def test_several_together_or_not_at_all(broker, connect, alice):
    bob = worker(broker, connect, requests=3)
    for name in ("a", "b", "c"):
        put(alice, name)
    take_ids(bob, 3)
    assert bob.refused("set", retract_xml("a", "none"), PUBSUB)[1] == "item-not-found"
    assert left(alice) == ["a", "b", "c"]
    done(bob, "a", "c")
    assert left(alice) == ["b"]


def test_a_publisher_may_take_back_what_nobody_has(broker, connect, alice):
    pubsub.affiliate(alice, "jobs", carol="publisher")
    carol = connect(broker, "carol", "c")
    put(carol, "a")
    put(carol, "b")
    put(alice, "c")
    bob = worker(broker, connect)
    assert take(bob) == ("a", 1)
    done(carol, "b")  # nobody has it
    assert carol.refused("set", retract_xml("c"), PUBSUB)[1] == "forbidden"  # not hers
    done(carol, "a")  # she does not compete for it
    assert next_notice(bob) == ("retract", "a")
    assert take(bob) == ("c", 1)
    done(alice, "c")
    assert left(alice) == []


def test_without_queue_requests_there_is_a_form(broker, connect, alice):
    bob = connect(broker, "bob", "w", presence=0)
    answer = bob.iq("set", pubsub.subscribe_xml("jobs", bob.jid), PUBSUB)
    kind, name, others = raw.condition(answer)
    assert (kind, name) == ("modify", "not-acceptable")
    assert [raw.local_name(o) for o in others] == ["configuration-required"]
    assert "queue_requests" in fields_of(answer)
    assert answer.find(f".//{{{pubsub.NS}}}options").get("jid") == bob.jid
    for bad in ("0", "10001", "many"):
        assert bob.refused("set", consume_xml("jobs", bob.jid, bad, {}), PUBSUB)[1] in ("bad-request", "not-acceptable")
    answer = bob.ok("set", consume_xml("jobs", bob.jid, "5", {}), PUBSUB)
    assert fields_of(answer)["queue_requests"] == "5"
    create(alice, "plain")
    assert bob.refused("set", consume_xml("plain", bob.jid, "5", {}), PUBSUB)[2] == ["invalid-options"]


def test_the_number_of_requests_changes(broker, connect, alice):
    bob = worker(broker, connect, requests=1)
    for n in range(5):
        put(alice, str(n))
    assert take_ids(bob, 1) == ["0"]
    none_comes(bob)
    consume(bob, requests=4)
    assert take_ids(bob, 3) == ["1", "2", "3"]
    none_comes(bob)


def test_a_paused_consumer_gets_nothing(broker, connect, alice):
    bob = worker(broker, connect, requests=2)
    put(alice, "a")
    take(bob)
    bob.ok("set", pubsub.request(f"<options node='jobs' jid='{bob.jid}'>{paused()}</options>"), PUBSUB)
    put(alice, "b")
    none_comes(bob)
    bob.ok("set", pubsub.request(
        f"<options node='jobs' jid='{bob.jid}'>{pubsub.form('subscribe_options', {'deliver': '1'})}</options>"), PUBSUB)
    assert [take(bob), take(bob)] == [("a", 2), ("b", 1)]


def test_browsing_locks_nothing(broker, connect, alice):
    carol = connect(broker, "carol", "c")
    put(alice, "a")
    assert left(carol) == ["a"]
    bob = worker(broker, connect)
    assert take(bob) == ("a", 1)
    assert left(carol) == ["a"]


def test_purging_ends_everything(broker, connect, alice):
    bob = worker(broker, connect)
    for name in ("a", "b"):
        put(alice, name)
    take(bob)
    alice.ok("set", pubsub.owner_request("<purge node='jobs'/>"), PUBSUB)
    assert left(alice) == []
    assert bob.refused("set", retract_xml("a"), PUBSUB)[1] == "item-not-found"
    put(alice, "c")
    assert take(bob) == ("c", 1)


def test_deleting_the_queue_with_items_out(broker, connect, alice):
    bob = worker(broker, connect)
    put(alice, "a")
    take(bob)
    alice.ok("set", pubsub.owner_request("<delete node='jobs'/>"), PUBSUB)
    assert bob.refused("set", retract_xml("a"), PUBSUB)[1] == "item-not-found"
    create_queue(alice)
    put(alice, "a")
    consume(bob)
    assert take(bob) == ("a", 1)


def test_ids_are_not_overwritten(broker, connect, alice):
    put(alice, "a")
    assert alice.refused("set", put_xml("a"), PUBSUB)[1] == "conflict"
    bob = worker(broker, connect)
    take(bob)
    assert alice.refused("set", put_xml("a"), PUBSUB)[1] == "conflict"
    done(bob, "a")
    put(alice, "a")
    assert take(bob) == ("a", 1)


def test_a_full_queue_refuses(broker, connect):
    alice = connect(broker, "alice", "desk")
    create_queue(alice, "short", **{"pubsub#max_items": "2"})
    put(alice, "a", "short")
    put(alice, "b", "short")
    kind, name, others = alice.refused("set", put_xml("c", "short"), PUBSUB)
    assert name == "conflict" and others == ["node-full"]
    assert left(alice, "short") == ["a", "b"]


def test_options_of_a_queue(broker, connect, alice):
    config = configuration(alice, "jobs")
    assert config[pubsub.NODE + "queue"] == "1" and config["max_items"] == "max"
    assert config[pubsub.NODE + "lock_timeout"] == "30"
    for key, value in (
        ("lock_timeout", "0"),
        ("lock_timeout", "604801"),
        ("max_deliver", "0"),
        ("backoff", "1 x"),
        ("priority", "urgent"),
    ):
        assert alice.refused("set", pubsub.configure_xml("jobs", {pubsub.NODE + key: value}), PUBSUB)[1] == "not-acceptable"
    for key, value in (("persist_items", "0"), ("item_expire", "60")):
        assert alice.refused("set", pubsub.configure_xml("jobs", {key: value}), PUBSUB)[1] == "not-acceptable"
    pubsub.configure(alice, "jobs", **{pubsub.NODE + "queue": "0"})  # nothing is in it
    pubsub.configure(alice, "jobs", **{pubsub.NODE + "queue": "1"})
    put(alice, "a")
    assert alice.refused("set", pubsub.configure_xml("jobs", {pubsub.NODE + "queue": "0"}), PUBSUB)[1] == "not-acceptable"


def test_the_service_says_that_it_does_queues(broker, connect):
    alice = connect(broker, "alice", "desk")
    answer = alice.ok("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", PUBSUB)
    assert QUEUEING in [f.get("var") for f in answer.iter("{http://jabber.org/protocol/disco#info}feature")]


def test_unsubscribing_gives_back(broker, connect, alice):
    bob = worker(broker, connect, "bob")
    put(alice, "a")
    take(bob)
    bob.ok("set", pubsub.unsubscribe_xml("jobs", bob.jid), PUBSUB)
    assert bob.refused("set", retract_xml("a"), PUBSUB)[1] == "forbidden"
    carol = worker(broker, connect, "carol")
    assert take(carol) == ("a", 2)


def test_work_is_shared_fairly(broker, connect, alice):
    workers = [worker(broker, connect, "bob", f"w{n}", requests=10) for n in range(3)]
    for n in range(12):
        put(alice, str(n))
    got = [take_ids(w, 4) for w in workers]
    assert sorted(sum(got, []), key=int) == [str(n) for n in range(12)]
    assert all(ids == sorted(ids, key=int) for ids in got)
