"""Resource binding (RFC 6120 section 7): chosen, generated, taken over, limited; and the legacy session."""

import pytest

import raw
from harness import DOMAIN

ALICE = "alice@" + DOMAIN


def authenticated(broker, connect, user="alice"):
    client = connect(broker)
    client.open()
    assert raw.local_name(client.plain(user)) == "success"
    client.open()
    return client


def test_resource_of_the_client(broker, connect):
    assert connect(broker, "alice", "desk").jid == ALICE + "/desk"


def test_generated_resources_differ(broker, connect):
    one, two = connect(broker, "alice"), connect(broker, "alice")
    assert one.jid != two.jid
    assert all(c.jid.startswith(ALICE + "/") and len(c.jid) > len(ALICE) + 1 for c in (one, two))


def test_resource_in_use_replaces_the_old_session(broker, connect):
    old = connect(broker, "alice", "desk")
    new = connect(broker, "alice", "desk")
    assert new.jid == ALICE + "/desk"
    assert old.stream_error()[0] == "conflict"
    assert new.ping().get("type") == "result"


def test_half_open_session_is_replaced_at_once(broker, connect):
    """An agent that rebooted must not wait for its own ghost."""
    ghost = connect(broker, "alice", "desk")
    ghost.enable_sm()
    ghost.available()
    new = connect(broker, "alice", "desk", presence=0)
    bob = connect(broker, "bob", "x")
    bob.message(ALICE + "/desk", "for the new one")
    assert raw.body(new.read_message()) == "for the new one"


def test_detached_session_is_replaced_and_its_messages_move(broker, connect):
    ghost = connect(broker, "alice", "desk")
    ghost.enable_sm()
    ghost.available()
    bob = connect(broker, "bob", "x")
    bob.enable_sm()
    ghost.reset()
    bob.message(ALICE, "kept")
    assert bob.request_ack(1) == 1
    new = connect(broker, "alice", "desk", presence=0)
    assert raw.body(new.read_message()) == "kept"


def test_binding_twice_is_refused(broker, connect):
    client = connect(broker, "alice", "desk")
    assert client.refused("set", f"<bind xmlns='{raw.BIND}'/>")[1] in (
        "not-allowed",
        "bad-request",
        "unexpected-request",
        "service-unavailable",
    )


def test_no_stanza_before_binding(broker, connect):
    client = authenticated(broker, connect)
    client.send(f"<message to='bob@{DOMAIN}'><body>early</body></message>")
    assert client.stream_error()[0] == "not-authorized"


@pytest.mark.parametrize("resource", ["", "\u200b" * 2 + "\u0000x", "r" * 1024])
def test_bad_resources(broker, connect, resource):
    client = authenticated(broker, connect)
    answer = client.iq("set", f"<bind xmlns='{raw.BIND}'><resource>{resource}</resource></bind>".replace("\0", "\u2028"))
    if resource == "":  # the same as none
        assert answer.get("type") == "result"
    else:
        assert raw.condition(answer)[1] in ("bad-request", "jid-malformed")


@pytest.mark.parametrize("resource", ["a/b", "r" * 1023, "Desk", "with space"])
def test_odd_but_good_resources(broker, connect, resource):
    assert connect(broker, "alice", resource).jid == ALICE + "/" + resource


def test_emoji_resource_is_bound_as_it_is_or_refused(broker, connect):
    """Stringprep ends at Unicode 3.2, PRECIS does not: both are right, changing it would not be."""
    client = authenticated(broker, connect)
    answer = client.bind("\U0001F333")
    if answer.get("type") == "error":
        assert raw.condition(answer)[1] in ("bad-request", "jid-malformed")
    else:
        assert client.jid == ALICE + "/\U0001F333"


def test_sessions_per_account(make_broker, connect):
    broker = make_broker({"limits": {"sessions_per_account": 2}}).start()
    connect(broker, "alice", "one")
    connect(broker, "alice", "two")
    third = authenticated(broker, connect)
    assert raw.condition(third.bind("three"))[:2] == ("wait", "resource-constraint")
    connect(broker, "alice", "two")  # replacing is not one more
    connect(broker, "bob", "one")


def test_legacy_session(broker, connect):
    """RFC 3921 session establishment: offered as optional, and harmless."""
    client = authenticated(broker, connect)
    session = client.features.find(f"{{{raw.SESSION}}}session")
    assert session is None or session.find(f"{{{raw.SESSION}}}optional") is not None
    client.bind("desk")
    client.ok("set", f"<session xmlns='{raw.SESSION}'/>")
    assert client.ping().get("type") == "result"


def test_closing_the_stream_is_answered(broker, connect):
    client = connect(broker, "alice", "desk")
    client.send("</stream:stream>")
    client.wait_closed()
    assert client.depth == 0  # the server closed its stream as well


def test_graceful_stop_says_so(broker, connect):
    client = connect(broker, "alice", "desk")
    broker.stop()
    assert client.stream_error()[0] == "system-shutdown"
