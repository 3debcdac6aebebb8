"""The promise: an acknowledged item is on disk and stays owed until the subscriber's <a/> covered it.

At-least-once subscriptions with ack=stream: across disconnects, restarts and SIGKILL, in order, marked, one session at
a time; sequence, epoch and publish-id deduplication.
"""

import signal
import time

import pytest

import pubsub
import raw
from harness import DOMAIN, PUBSUB
from pubsub import create, delivery, is_event, next_event, publish, subscribe

BOB = "bob@" + DOMAIN
AT_LEAST_ONCE = {pubsub.DELIVERY + "mode": "at-least-once"}


@pytest.fixture
def alice(broker, connect):
    client = connect(broker, "alice", "desk")
    create(client, "states", max_items="max")
    return client


def reader(broker, connect, resource="reader", priority=0, jid=BOB, subscribed=True, **options):
    """A session of bob with XEP-0198 and, if asked, a durable subscription."""
    client = connect(broker, "bob", resource)
    client.enable_sm()
    if not subscribed:
        subscribe(client, "states", jid, **{**AT_LEAST_ONCE, **options})
    client.available(priority)
    return client


def read_ids(client, count, timeout=None):
    """Ids of the next `count` items and their <delivery/>; takes the messages out of the inbox in order."""
    found = []
    while len(found) < count:
        message = client.read(timeout)
        if is_event(message):
            found += [(i.get("id"), delivery(message)) for i in message.iter(f"{{{pubsub.EVENT}}}item")]
    return found


def ids(found):
    return [name for name, _ in found]


def numbers(first, last):
    return [str(n) for n in range(first, last)]


def test_delivered_with_sequence_and_epoch(broker, connect, alice):
    client = reader(broker, connect, subscribed=False)
    for n in range(5):
        publish(alice, "states", str(n))
    found = read_ids(client, 5)
    assert ids(found) == numbers(0, 5)
    assert [int(d.get("seq")) for _, d in found] == [1, 2, 3, 4, 5]
    assert len({d.get("epoch") for _, d in found}) == 1
    assert {d.get("attempt") for _, d in found} == {"1"}


def test_events_are_of_type_normal_and_to_the_full_jid(broker, connect, alice):
    client = reader(broker, connect, subscribed=False)
    publish(alice, "states", "i")
    event = next_event(client)
    assert event.get("type", "normal") == "normal" and event.get("to") == client.jid


def test_kept_while_nobody_is_there(broker, connect, alice):
    client = reader(broker, connect, subscribed=False)
    client.send("</stream:stream>")
    client.wait_closed()
    for n in range(50):
        publish(alice, "states", str(n))
    again = reader(broker, connect)
    assert ids(read_ids(again, 50)) == numbers(0, 50)


def test_acknowledged_is_not_repeated(broker, connect, alice):
    client = reader(broker, connect, subscribed=False)
    for n in range(10):
        publish(alice, "states", str(n))
    read_ids(client, 10)
    client.ack()
    client.ping()
    client.send("</stream:stream>")
    client.wait_closed()
    reader(broker, connect).nothing("message")


def test_unacknowledged_is_repeated_in_order_and_marked(broker, connect, alice):
    client = reader(broker, connect, subscribed=False)
    for n in range(10):
        publish(alice, "states", str(n))
    read_ids(client, 4)
    client.ack()
    read_ids(client, 6)
    client.ping()
    client.send("</stream:stream>")
    client.wait_closed()
    found = read_ids(reader(broker, connect), 6)
    assert ids(found) == numbers(4, 10)
    assert all(int(d.get("attempt")) > 1 for _, d in found)
    assert [int(d.get("seq")) for _, d in found] == list(range(5, 11))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_restart_loses_nothing(broker, connect, alice, how):
    client = reader(broker, connect, subscribed=False)
    for n in range(30):
        publish(alice, "states", str(n))
    read_ids(client, 10)
    client.ack()
    client.ping()
    broker.restart(how)
    alice = connect(broker, "alice", "desk")
    publish(alice, "states", "after")
    client = reader(broker, connect)
    found = ids(read_ids(client, 1))
    first = int(found[0])
    assert first <= 10  # a cursor that was not yet on disk repeats, it never skips
    found += ids(read_ids(client, 30 - first))
    assert found == numbers(first, 30) + ["after"]


def test_crash_right_after_the_result(broker, connect, alice):
    """SIGKILL between the publish result and the delivery: delivered after the restart (60)."""
    client = reader(broker, connect, subscribed=False)
    client.drop()
    for n in range(3):
        publish(alice, "states", str(n))
    broker.restart(signal.SIGKILL)
    assert ids(read_ids(reader(broker, connect), 3)) == numbers(0, 3)


def test_crash_between_delivery_and_acknowledgement(broker, connect, alice):
    """Redelivered with the same id, sequence and epoch, marked as a further attempt or as possibly one (60)."""
    client = reader(broker, connect, subscribed=False)
    publish(alice, "states", "i")
    (name, first), = read_ids(client, 1)
    broker.restart(signal.SIGKILL)
    (again, second), = read_ids(reader(broker, connect), 1)
    assert again == name and (second.get("epoch"), second.get("seq")) == (first.get("epoch"), first.get("seq"))


def test_many_crashes_under_load(broker, connect, alice):
    """Publishing goes on over three crashes; what was acknowledged arrives, in order, without a gap."""
    reader(broker, connect, subscribed=False).drop()
    acknowledged = []
    number = 0
    for _ in range(3):
        for _ in range(40):
            acknowledged.append(publish(alice, "states", str(number)))
            number += 1
        alice.send(f"<iq type='set' id='x' to='{PUBSUB}'>{pubsub.publish_xml('states', pubsub.item_xml(f'maybe{number}'))}</iq>")
        broker.restart(signal.SIGKILL)
        alice = connect(broker, "alice", "desk")
    client = reader(broker, connect)
    seen = []
    while len([s for s in seen if not s.startswith("maybe")]) < len(acknowledged):
        seen += ids(read_ids(client, 1))
    assert [s for s in seen if not s.startswith("maybe")] == acknowledged


def test_resumption_repeats_only_what_was_not_acknowledged(broker, connect, alice):
    client = connect(broker, "bob", "reader")
    name = client.enable_sm().get("id")
    subscribe(client, "states", BOB, **AT_LEAST_ONCE)
    client.available()
    for n in range(6):
        publish(alice, "states", str(n))
    read_ids(client, 6)
    received = client.received - 2
    client.reset()
    publish(alice, "states", "6")
    again = connect(broker)
    again.open()
    again.plain("bob")
    again.open()
    assert again.resume(name, received).tag == f"{{{raw.SM}}}resumed"
    assert ids(read_ids(again, 3)) == ["4", "5", "6"]


# --- who gets it --------------------------------------------------------------------------------------------------


def test_one_session_at_a_time(broker, connect, alice):
    low = reader(broker, connect, "low", 1, subscribed=False)
    high = reader(broker, connect, "high", 5)
    until_held_by(high)
    for n in range(5):
        publish(alice, "states", str(n))
    assert ids(read_ids(high, 5)) == numbers(0, 5)
    low.nothing("message")


def until_held_by(client):
    """The owner of the node has heard that this session is there, and the best."""
    question = "<subscription-state xmlns='urn:xylem:delivery:0' node='states'/>"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = client.ok("get", question, PUBSUB).find(f".//{pubsub.DELIVERY}subscription")
        if found.get("session") == client.jid:
            return
        time.sleep(0.02)
    raise AssertionError(f"held by {found.get('session')}")


def test_what_a_session_leaves_goes_to_the_next(broker, connect, alice):
    low = reader(broker, connect, "low", 1, subscribed=False)
    high = reader(broker, connect, "high", 5)
    until_held_by(high)
    for n in range(5):
        publish(alice, "states", str(n))
    read_ids(high, 2)
    high.ack()
    high.ping()
    high.send("</stream:stream>")
    high.wait_closed()
    found = read_ids(low, 3)
    assert ids(found) == numbers(2, 5)
    assert all(int(d.get("attempt")) > 1 for _, d in found)


def test_session_without_acknowledgements_gets_nothing(broker, connect, alice):
    reader(broker, connect, subscribed=False).drop()
    plain = connect(broker, "bob", "plain", presence=9)
    publish(alice, "states", "i")
    plain.nothing("message")


def test_full_jid_waits_for_that_resource(broker, connect, alice):
    mine = reader(broker, connect, "mine", jid=BOB + "/mine", subscribed=False)
    mine.send("</stream:stream>")
    mine.wait_closed()
    other = reader(broker, connect, "other", 9)
    publish(alice, "states", "i")
    other.nothing("message")
    assert ids(read_ids(reader(broker, connect, "mine"), 1)) == ["i"]


def test_rebooted_agent_gets_what_its_ghost_had(broker, connect, alice):
    ghost = reader(broker, connect, "agent", jid=BOB + "/agent", subscribed=False)
    publish(alice, "states", "0")
    read_ids(ghost, 1)
    fresh = reader(broker, connect, "agent")
    assert ids(read_ids(fresh, 1)) == ["0"]
    publish(alice, "states", "1")
    assert ids(read_ids(fresh, 1)) == ["1"]


def test_two_subscribers_have_their_own_cursor(broker, connect, alice):
    bob = reader(broker, connect, subscribed=False)
    carol = connect(broker, "carol", "x")
    carol.enable_sm()
    subscribe(carol, "states", None, **AT_LEAST_ONCE)
    carol.available()
    for n in range(3):
        publish(alice, "states", str(n))
    assert ids(read_ids(bob, 3)) == ids(read_ids(carol, 3)) == numbers(0, 3)
    bob.ack()
    bob.ping()
    for client in (bob, carol):
        client.send("</stream:stream>")
        client.wait_closed()
    again = connect(broker, "carol", "y")
    again.enable_sm()
    again.available()
    assert ids(read_ids(again, 3)) == numbers(0, 3)
    reader(broker, connect, "again").nothing("message")


# --- retention is another thing -----------------------------------------------------------------------------------


def test_owed_items_outlive_max_items(broker, connect, alice):
    create(alice, "few", max_items="2")
    client = connect(broker, "bob", "x")
    client.enable_sm()
    subscribe(client, "few", BOB, **AT_LEAST_ONCE)
    client.drop()
    for n in range(20):
        publish(alice, "few", str(n))
    assert len(pubsub.items(alice, "few")) == 2
    again = reader(broker, connect)
    assert ids(read_ids(again, 20)) == numbers(0, 20)


def test_retracted_items_are_no_longer_owed(broker, connect, alice):
    reader(broker, connect, subscribed=False).drop()
    for n in range(3):
        publish(alice, "states", str(n))
    alice.ok("set", pubsub.retract_xml("states", "1"), PUBSUB)
    client = reader(broker, connect)
    assert ids(read_ids(client, 2)) == ["0", "2"]


def test_deleted_node_owes_nothing(broker, connect, alice):
    reader(broker, connect, subscribed=False).drop()
    publish(alice, "states", "0")
    alice.ok("set", pubsub.owner_request("<delete node='states'/>"), PUBSUB)
    client = reader(broker, connect)
    client.ping()
    assert not [m for m in client.inbox if list(m.iter(f"{{{pubsub.EVENT}}}item"))]


def test_new_node_of_the_same_name_has_another_epoch(broker, connect, alice):
    epochs = []
    for _ in range(2):
        client = reader(broker, connect, subscribed=False)
        publish(alice, "states", "i")
        while True:
            message = next_event(client)
            if delivery(message) is not None and list(message.iter(f"{{{pubsub.EVENT}}}item")):
                break
        epochs.append(delivery(message).get("epoch"))
        assert delivery(message).get("seq") == "1"
        alice.ok("set", pubsub.owner_request("<delete node='states'/>"), PUBSUB)
        create(alice, "states", max_items="max")
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("start, expected", [("new", ["9"]), ("all", ["0", "1", "2", "9"]), ("last", ["2", "9"]), ("seq:2", ["1", "2", "9"]), ("seq:99", ["9"]), ("time:2099-01-01T00:00:00Z", ["9"])])
def test_where_a_subscription_starts(broker, connect, alice, start, expected):
    for n in range(3):
        publish(alice, "states", str(n))
    client = reader(broker, connect, subscribed=False, **{pubsub.DELIVERY + "start": start})
    publish(alice, "states", "9")
    assert ids(read_ids(client, len(expected))) == expected


# --- publisher's side ---------------------------------------------------------------------------------------------


def publish_with_id(client, publish_id, name, text="x"):
    items = pubsub.item_xml(name, text)
    payload = pubsub.request(
        f"<publish node='states' xmlns:d='urn:xylem:delivery:0' d:publish-id='{publish_id}'>{items}</publish>"
    )
    return client.ok("set", payload, PUBSUB)


def test_publish_id_seen_again_is_one_publication(broker, connect, alice):
    client = reader(broker, connect, subscribed=False)
    for _ in range(3):
        answer = publish_with_id(alice, "p1", "a")
        item = answer.find(f".//{{{pubsub.NS}}}item")
        assert item is None or item.get("id") == "a"
    publish_with_id(alice, "p2", "b")
    found = read_ids(client, 2)
    assert ids(found) == ["a", "b"] and [d.get("seq") for _, d in found] == ["1", "2"]


def test_publish_id_is_remembered_over_a_crash(broker, connect, alice):
    publish_with_id(alice, "p1", "a")
    broker.restart(signal.SIGKILL)
    alice = connect(broker, "alice", "desk")
    client = reader(broker, connect, subscribed=False, **{pubsub.DELIVERY + "start": "all"})
    publish_with_id(alice, "p1", "a")
    publish_with_id(alice, "p2", "b")
    assert ids(read_ids(client, 2)) == ["a", "b"]


def test_publish_ids_belong_to_their_publisher(broker, connect, alice):
    pubsub.configure(alice, "states", publish_model="open")
    carol = connect(broker, "carol", "x")
    publish_with_id(alice, "p1", "a")
    publish_with_id(carol, "p1", "c")
    assert sorted(i for i, _ in pubsub.items(alice, "states")) == ["a", "c"]
