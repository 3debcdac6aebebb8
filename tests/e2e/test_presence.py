"""Presence among one's own resources (RFC 6121 section 4); rosters and contacts are not part of it."""

import raw
from harness import DOMAIN
from raw import local_name

ALICE = "alice@" + DOMAIN
SHOW, PRIORITY = f"{{{raw.CLIENT}}}show", f"{{{raw.CLIENT}}}priority"


def presence_of(client, jid, kind=None):
    return client.read_until(
        lambda e: local_name(e) == "presence" and e.get("from") == jid and e.get("type") == kind
    )


def test_own_resources_see_each_other(broker, connect):
    one = connect(broker, "alice", "one", presence=1)
    two = connect(broker, "alice", "two")
    two.send("<presence><show>away</show><status>lunch</status><priority>2</priority></presence>")
    seen = presence_of(one, two.jid)
    assert seen.findtext(SHOW) == "away" and seen.findtext(PRIORITY) == "2" and seen.get("to") in (ALICE, one.jid)
    assert presence_of(two, one.jid).findtext(PRIORITY) == "1"


def test_update_and_unavailable(broker, connect):
    one = connect(broker, "alice", "one", presence=0)
    two = connect(broker, "alice", "two", presence=0)
    presence_of(one, two.jid)
    two.send("<presence><show>dnd</show></presence>")
    assert presence_of(one, two.jid).findtext(SHOW) == "dnd"
    two.send("<presence type='unavailable'><status>bye</status></presence>")
    assert presence_of(one, two.jid, "unavailable").findtext(f"{{{raw.CLIENT}}}status") == "bye"


def test_closing_the_stream_is_unavailable(broker, connect):
    one = connect(broker, "alice", "one", presence=0)
    two = connect(broker, "alice", "two", presence=0)
    two.send("</stream:stream>")
    presence_of(one, two.jid, "unavailable")


def test_a_lost_connection_is_unavailable(broker, connect):
    one = connect(broker, "alice", "one", presence=0)
    two = connect(broker, "alice", "two", presence=0)
    two.reset()
    presence_of(one, two.jid, "unavailable")


def test_session_without_presence_sees_and_shows_nothing(broker, connect):
    one = connect(broker, "alice", "one", presence=0)
    two = connect(broker, "alice", "two")
    one.send("<presence><show>away</show></presence>")
    two.nothing("presence")
    two.send("</stream:stream>")
    two.wait_closed()
    one.ping()
    assert not [e for e in one.inbox if local_name(e) == "presence" and e.get("from") == two.jid]


def test_strangers_see_nothing(broker, connect):
    bob = connect(broker, "bob", "x", presence=0)
    connect(broker, "alice", "one", presence=0)
    bob.nothing("presence")


def test_directed_presence(broker, connect):
    bob = connect(broker, "bob", "x", presence=0)
    alice = connect(broker, "alice", "one", presence=0)
    alice.send(f"<presence to='{bob.jid}'><status>just you</status></presence>")
    assert presence_of(bob, alice.jid).findtext(f"{{{raw.CLIENT}}}status") == "just you"


def test_bad_priorities(broker, connect):
    alice = connect(broker, "alice", "one", presence=0)
    for priority in ("128", "-129", "high"):
        alice.send(f"<presence id='p'><priority>{priority}</priority></presence>")
        answer = alice.read_until(lambda e: local_name(e) == "presence" and e.get("type") == "error")
        assert raw.condition(answer)[:2] == ("modify", "bad-request")
    for priority in (-128, 127):
        alice.available(priority)
