"""Message carbons (XEP-0280) between real connections, with XEP-0198 sessions that lose theirs, and with slixmpp."""

import asyncio

import pytest

import library
from harness import DOMAIN
from raw import body, local_name, show

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN
CARBONS, FORWARD, CLIENT = "urn:xmpp:carbons:2", "urn:xmpp:forward:0", "jabber:client"


def enable(client):
    answer = client.iq("set", f"<enable xmlns='{CARBONS}'/>")
    assert answer.get("type") == "result", show(answer)


def copy_of(message, direction):
    """The original within a copy."""
    inner = message.find(f"{{{CARBONS}}}{direction}/{{{FORWARD}}}forwarded/{{{CLIENT}}}message")
    assert inner is not None, show(message)
    return inner


def test_both_directions(broker, connect):
    alice = connect(broker, "alice", "desk", presence=0)
    desk = connect(broker, "bob", "desk", presence=5)
    phone = connect(broker, "bob", "phone", presence=0)
    enable(phone)
    alice.message(BOB, "to bob", "chat")
    assert body(desk.read_message()) == "to bob"
    copy = phone.read_message()
    assert copy.get("from") == BOB and copy.get("to") == phone.jid and copy.get("type") == "chat"
    original = copy_of(copy, "received")
    assert body(original) == "to bob" and original.get("from") == alice.jid and original.get("to") == BOB
    desk.message(ALICE, "from bob", "chat")
    assert body(alice.read_message()) == "from bob"
    original = copy_of(phone.read_message(), "sent")
    assert body(original) == "from bob" and original.get("to") == ALICE
    desk.nothing("message")


def test_one_right_after_enabling_is_copied(broker, connect):
    """The answer means that every session of the account knows."""
    alice = connect(broker, "alice", "desk", presence=0)
    others = [connect(broker, "bob", f"other{i}", presence=0) for i in range(4)]
    phone = connect(broker, "bob", "phone", presence=-1)
    enable(phone)
    for i, other in enumerate(others):
        other.message(ALICE, f"from {i}", "chat")
    seen = {body(copy_of(phone.read_message(), "sent")) for _ in others}
    assert seen == {f"from {i}" for i in range(4)}
    assert {body(alice.read_message()) for _ in others} == seen


def test_a_session_without_connection_gets_its_copies_later(broker, connect):
    alice = connect(broker, "alice", "desk", presence=0)
    desk = connect(broker, "bob", "desk", presence=5)
    phone = connect(broker, "bob", "phone")
    enabled = phone.enable_sm()
    phone.available(0)
    enable(phone)
    phone.reset()
    alice.message(BOB, "while away", "chat")
    assert body(desk.read_message()) == "while away"
    again = connect(broker)
    again.open()
    again.plain("bob")
    again.open()
    assert local_name(again.resume(enabled.get("id"), phone.received)) == "resumed"
    assert body(copy_of(again.read_message(), "received")) == "while away"


def test_copies_are_not_deliveries(broker, connect):
    """What only a copy was made of is still in the mailbox."""
    alice = connect(broker, "alice", "desk", presence=0)
    shy = connect(broker, "bob", "shy", presence=-1)
    enable(shy)
    alice.message(BOB, "kept", "chat")
    assert body(copy_of(shy.read_message(), "received")) == "kept"
    desk = connect(broker, "bob", "desk", presence=0)
    assert body(desk.read_message()) == "kept"
    shy.nothing("message")


@pytest.mark.parametrize("hint", [f"<private xmlns='{CARBONS}'/>", "<no-copy xmlns='urn:xmpp:hints'/>"])
def test_private(broker, connect, hint):
    alice = connect(broker, "alice", "desk", presence=0)
    desk = connect(broker, "bob", "desk", presence=5)
    phone = connect(broker, "bob", "phone", presence=0)
    enable(phone)
    alice.send(f"<message to='{BOB}' type='chat'><body>psst</body>{hint}</message>")
    assert body(desk.read_message()) == "psst"
    phone.nothing("message")


def test_feature(broker, connect):
    alice = connect(broker, "alice", "desk", presence=0)
    for to in (DOMAIN, ALICE):
        answer = alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=to)
        assert any(e.get("var") == CARBONS for e in answer.iter() if local_name(e) == "feature"), show(answer)


async def test_slixmpp(broker):
    desk = await library.connect(broker, "bob", resource="desk")
    phone = await library.connect(broker, "bob", resource="phone", plugins=["xep_0280"])
    alice = await library.connect(broker, "alice")
    desk.send_presence(ppriority=5)
    received, sent = asyncio.Queue(), asyncio.Queue()
    phone.add_event_handler("carbon_received", received.put_nowait)
    phone.add_event_handler("carbon_sent", sent.put_nowait)
    await phone["xep_0280"].enable()
    alice.send_message(BOB, "hello")
    copy = await asyncio.wait_for(received.get(), library.TIMEOUT_S)
    assert copy["carbon_received"]["body"] == "hello"
    desk.send_message(ALICE, "hello back")
    copy = await asyncio.wait_for(sent.get(), library.TIMEOUT_S)
    assert copy["carbon_sent"]["body"] == "hello back"
    for client in (desk, phone, alice):
        await client.close()
