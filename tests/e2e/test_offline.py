"""Messages to somebody who is not there: kept, in order, marked, delivered once, over restarts and crashes (XEP-0160)."""

import itertools
import json
import signal
import time

import pytest

import harness
import pubsub
import raw
from harness import DOMAIN, PUBSUB
from raw import body, has_delay

BOB = "bob@" + DOMAIN


def test_kept_in_order_and_marked(broker, connect):
    alice = connect(broker, "alice", "desk")
    for number in range(50):
        alice.message(BOB, str(number))
    alice.ping()
    bob = connect(broker, "bob", "x", presence=0)
    messages = [bob.read_message() for _ in range(50)]
    assert [body(m) for m in messages] == [str(n) for n in range(50)]
    for message in messages:
        delay = message.find(f"{{{raw.DELAY}}}delay")
        assert delay is not None and delay.get("stamp").endswith("Z")
        assert message.get("from") == alice.jid and message.get("to") == BOB


def test_delivered_once(broker, connect):
    alice = connect(broker, "alice", "desk")
    alice.message(BOB, "once")
    alice.ping()
    bob = connect(broker, "bob", "x", presence=0)
    assert body(bob.read_message()) == "once"
    bob.ping()
    bob.send("</stream:stream>")
    bob.wait_closed()
    connect(broker, "bob", "y", presence=0).nothing("message")


def test_with_acknowledgements_delivered_until_acknowledged(broker, connect):
    alice = connect(broker, "alice", "desk")
    alice.message(BOB, "one")
    alice.message(BOB, "two")
    alice.ping()
    bob = connect(broker, "bob", "x")
    bob.enable_sm(resume=False)
    bob.available()
    assert body(bob.read_message()) == "one"
    bob.ack()
    assert body(bob.read_message()) == "two"
    bob.ping()
    bob.reset()
    again = connect(broker, "bob", "y", presence=0)
    message = again.read_message()
    assert body(message) == "two" and has_delay(message)
    again.nothing("message")


def test_only_for_priority_zero_and_above(broker, connect):
    alice = connect(broker, "alice", "desk")
    alice.message(BOB, "hello")
    alice.ping()
    bob = connect(broker, "bob", "x", presence=-1)
    bob.nothing("message")
    bob.available(0)
    assert body(bob.read_message()) == "hello"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_survives_a_restart(broker, connect, how):
    alice = connect(broker, "alice", "desk")
    alice.enable_sm()
    for number in range(20):
        alice.message(BOB, str(number))
    assert alice.request_ack(20) == 20  # acknowledged: it is on disk
    broker.restart(how)
    bob = connect(broker, "bob", "x", presence=0)
    assert [body(bob.read_message()) for _ in range(20)] == [str(n) for n in range(20)]


def test_what_is_not_stored(broker, connect):
    alice = connect(broker, "alice", "desk")
    alice.message(BOB, "headline", "headline")
    alice.message(BOB, "no store", extra="<no-store xmlns='urn:xmpp:hints'/>")
    alice.message(BOB, None, extra="<composing xmlns='http://jabber.org/protocol/chatstates'/>")
    alice.message(BOB, "stored")
    alice.ping()
    bob = connect(broker, "bob", "x", presence=0)
    assert body(bob.read_message()) == "stored"
    bob.nothing("message")


def test_what_is_stored_without_a_body(broker, connect):
    alice = connect(broker, "alice", "desk")
    alice.message(BOB, None, extra="<payload xmlns='urn:example:unknown'/>")
    alice.message(BOB, None, extra="<active xmlns='http://jabber.org/protocol/chatstates'/><store xmlns='urn:xmpp:hints'/>")
    alice.ping()
    bob = connect(broker, "bob", "x", presence=0)
    assert bob.read_message().find("{urn:example:unknown}payload") is not None
    assert bob.read_message().find("{urn:xmpp:hints}store") is not None


def test_full_mailbox_refuses_before_acknowledging(make_broker, connect):
    broker = make_broker({"limits": {"offline_messages": 3}}).start()
    alice = connect(broker, "alice", "desk")
    names = [alice.message(BOB, str(n)) for n in range(5)]
    refused = [alice.read_message() for _ in range(2)]
    assert [r.get("id") for r in refused] == names[3:]
    assert all(raw.condition(r)[:2] == ("wait", "resource-constraint") for r in refused)
    bob = connect(broker, "bob", "x", presence=0)
    assert [body(bob.read_message()) for _ in range(3)] == ["0", "1", "2"]
    bob.ping()
    bob.send("</stream:stream>")
    bob.wait_closed()
    alice.message(BOB, "room again")
    alice.ping()
    assert body(connect(broker, "bob", "x", presence=0).read_message()) == "room again"


def wait_until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"


@pytest.mark.skipif("san" in harness.BIN, reason="a sanitizer's allocator does not say how much is taken")
def test_memory_is_short(make_broker, connect):
    """limits.memory: messages that would have to be stored are refused for now, like publishes; nothing stored is lost."""
    broker = make_broker({"limits": {"memory": "16mb"}}).start()
    alice, bob = connect(broker, "alice", "desk"), connect(broker, "bob", "x")
    alice.enable_sm()
    alice.message(BOB, "stored")
    pubsub.create(alice, "big", max_items="max", **{pubsub.NODE + "durability": "memory"})

    def refused(answer):
        return raw.condition(answer)[:2] == ("wait", "resource-constraint")

    def publish(number):
        text = pubsub.publish_xml("big", f"<item id='i{number}'><x xmlns='u'>{'x' * 50000}</x></item>")
        return alice.iq("set", text, PUBSUB)

    numbers = itertools.count()
    wait_until(lambda: publish(next(numbers)).get("type") == "error")
    alice.message(BOB, "refused")
    assert refused(alice.read_message())
    bob.available(0)
    assert body(bob.read_message()) == "stored"
    alice.message(BOB, "passing", "headline")
    assert body(bob.read_message()) == "passing"
    alice.message(BOB, "refused too")
    assert refused(alice.read_message())
    assert int(json.loads(broker.xylem("admin", "stats", "--json").stdout)["messages_refused_memory"]) == 2
    alice.ok("set", pubsub.owner_request("<purge node='big'/>"), PUBSUB)
    wait_until(lambda: publish(next(numbers)).get("type") == "result")
    alice.message(BOB, "taken")
    assert body(bob.read_message()) == "taken"


def test_disco_says_so(broker, connect):
    alice = connect(broker, "alice", "desk")
    features = alice.ok("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", DOMAIN)
    assert "msgoffline" in [f.get("var") for f in features.iter("{http://jabber.org/protocol/disco#info}feature")]
