"""XEP-0198 by hand: what h counts, acknowledgements in both directions, resumption, and every way it can go wrong."""

import signal
import socket
import time

import pytest

import raw
from harness import DOMAIN
from raw import SM, body, condition, has_delay, local_name, namespace

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


def authenticated(broker, connect, user="alice"):
    client = connect(broker)
    client.open()
    assert local_name(client.plain(user)) == "success"
    client.open()
    return client


def failed(client, name):
    element = client.read_until(lambda e: e.tag == f"{{{SM}}}failed")
    assert name in [local_name(c) for c in element]
    return element


# --- enabling -----------------------------------------------------------------------------------------------------


def test_offered_after_login(broker, connect):
    client = connect(broker)
    client.open()
    assert client.features.find(f"{{{SM}}}sm") is None
    client.plain("alice")
    client.open()
    assert client.features.find(f"{{{SM}}}sm") is not None


def test_enable(alice):
    enabled = alice.enable_sm(resume=False)
    assert enabled.get("resume") in (None, "false", "0") and enabled.get("id") is None


def test_enable_with_resumption(alice):
    enabled = alice.enable_sm()
    assert enabled.get("resume") in ("true", "1") and len(enabled.get("id")) >= 22
    assert int(enabled.get("max")) == 300


@pytest.mark.parametrize("asked, granted", [(10, 10), (100000, 300)])
def test_time_of_resumption_is_bounded(alice, asked, granted):
    alice.send(f"<enable xmlns='{SM}' resume='true' max='{asked}'/>")
    assert int(alice.read().get("max")) == granted


def test_enable_before_binding_is_refused(broker, connect):
    client = authenticated(broker, connect)
    client.send(f"<enable xmlns='{SM}'/>")
    client.read_until(lambda e: e.tag == f"{{{SM}}}failed")
    assert client.bind("desk").get("type") == "result"


def test_enable_before_login_is_refused(broker, connect):
    client = connect(broker)
    client.open()
    client.send(f"<enable xmlns='{SM}'/>")
    element = client.read()
    assert element.tag == f"{{{SM}}}failed" or condition(element)[1] == "not-authorized"


def test_enable_after_stanzas_is_refused(alice):
    """Their count would be anybody's guess (53)."""
    alice.send("<presence/>")
    alice.send(f"<enable xmlns='{SM}'/>")
    failed(alice, "unexpected-request")


def test_enable_twice_is_refused(alice):
    alice.enable_sm()
    alice.send(f"<enable xmlns='{SM}' resume='true'/>")
    failed(alice, "unexpected-request")
    assert alice.ping().get("type") == "result"


# --- counting -----------------------------------------------------------------------------------------------------


def test_h_counts_stanzas_of_the_client(alice):
    alice.enable_sm()
    assert alice.request_ack() == 0
    alice.ping()
    alice.message(ALICE, "x")
    alice.send("<presence/>")
    assert alice.request_ack(3) == 3
    alice.send(f"  \n  <a xmlns='{SM}' h='0'/>")  # neither whitespace nor XEP-0198 elements count
    assert alice.request_ack() == 3


def test_refused_stanzas_count_too(alice):
    alice.enable_sm()
    alice.message("nobody@" + DOMAIN, "x")
    alice.refused("get", "<q xmlns='urn:example'/>", DOMAIN)
    assert alice.request_ack(2) == 2


def test_server_asks_for_acknowledgement(broker, connect, alice):
    alice.enable_sm()
    alice.available()
    connect(broker, "bob", "x").message(ALICE, "x")
    alice.read_message()
    alice.read_until(lambda e: e.tag == f"{{{SM}}}r", 5)
    alice.ack()
    assert alice.ping().get("type") == "result"


def test_h_comes_unasked_after_a_commit(alice):
    """An <r/> is answered within a second; progress after that is told without being asked."""
    alice.enable_sm()
    for _ in range(100):
        alice.message(BOB, "x" * 1000)
    assert alice.request_ack(100, timeout=10) == 100


def test_h_higher_than_sent(alice):
    alice.enable_sm()
    alice.send(f"<a xmlns='{SM}' h='1000'/>")
    error = alice.read_until(lambda e: e.tag == f"{{{raw.STREAMS}}}error")
    assert condition(error)[1] == "undefined-condition"
    detail = error.find(f"{{{SM}}}handled-count-too-high")
    assert detail is not None and detail.get("h") == "1000" and detail.get("send-count") is not None
    alice.wait_closed()


@pytest.mark.parametrize("h", ["-1", "4294967296", "x", "", "1e3"])
def test_h_that_is_no_counter(alice, h):
    alice.enable_sm()
    alice.send(f"<a xmlns='{SM}' h='{h}'/>")
    alice.wait_closed()
    assert [e for e in alice.inbox if e.tag == f"{{{raw.STREAMS}}}error"]


def test_h_that_goes_back_does_no_harm(broker, connect, alice):
    alice.enable_sm()
    alice.available()
    bob = connect(broker, "bob", "x")
    bob.message(ALICE, "1")
    alice.read_message()
    alice.ack()
    alice.ack(0)
    bob.message(ALICE, "2")
    try:
        assert body(alice.read_message()) == "2"  # ignored; ending the stream would be right as well
        alice.nothing("message")
    except raw.Closed:
        pass


def test_elements_of_stream_management_without_enabling(alice):
    """Answered with an error, or ignored; never with a count."""
    alice.send(f"<r xmlns='{SM}'/><a xmlns='{SM}' h='5'/>")
    try:
        assert alice.ping().get("type") == "result"
    except raw.Closed:
        pass
    assert not [e for e in alice.inbox if e.tag == f"{{{SM}}}a"]


# --- resumption ---------------------------------------------------------------------------------------------------


def test_resume_brings_what_was_not_acknowledged(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.available()
    bob = connect(broker, "bob", "x")
    for number in range(5):
        bob.message(ALICE, str(number))
    assert [body(alice.read_message()) for _ in range(5)] == list("01234")
    alice.reset()
    bob.message(ALICE, "5")
    bob.ping()
    again = authenticated(broker, connect)
    resumed = again.resume(name, alice.received - 2)
    assert resumed.tag == f"{{{SM}}}resumed" and resumed.get("previd") == name and resumed.get("h") == "1"
    assert [body(again.read_message()) for _ in range(3)] == ["3", "4", "5"]
    again.message(BOB, "still me")
    bob.available()
    assert bob.read_message().get("from") == ALICE + "/desk"


def test_resume_says_what_of_ours_arrived(broker, connect, alice):
    name = alice.enable_sm().get("id")
    for number in range(7):
        alice.message(BOB, str(number))
    alice.request_ack(7)
    alice.reset()
    assert authenticated(broker, connect).resume(name, 0).get("h") == "7"


def test_resumed_session_can_be_resumed_again(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.available()
    bob = connect(broker, "bob", "x")
    for round_ in range(3):
        alice.reset()
        bob.message(ALICE, str(round_))
        bob.ping()
        received, alice = alice.received, authenticated(broker, connect)
        assert alice.resume(name, received).tag == f"{{{SM}}}resumed"
        assert body(alice.read_message()) == str(round_)


def test_takeover_while_the_old_connection_is_half_open(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.available()
    bob = connect(broker, "bob", "x")
    bob.message(ALICE, "seen?")
    alice.read_message()
    again = authenticated(broker, connect)
    assert again.resume(name, alice.received - 1).tag == f"{{{SM}}}resumed"
    assert body(again.read_message()) == "seen?"
    alice.wait_closed()
    again.nothing("message")


def test_detached_session_is_still_available_to_others(broker, connect, alice):
    """A message to a detached session waits for it, and nobody is told that it left."""
    name = alice.enable_sm().get("id")
    alice.available(5)
    other = connect(broker, "alice", "other", presence=1)
    alice.reset()
    bob = connect(broker, "bob", "x")
    time.sleep(0.3)
    bob.message(ALICE + "/desk", "to the detached one")
    bob.ping()
    assert not [e for e in other.inbox if e.get("type") == "unavailable"]
    again = authenticated(broker, connect)
    assert again.resume(name, alice.received).tag == f"{{{SM}}}resumed"
    assert body(again.read_message()) == "to the detached one"


def test_resumption_expires_and_what_was_pending_goes_elsewhere(broker, connect, alice):
    alice.send(f"<enable xmlns='{SM}' resume='true' max='1'/>")
    name = alice.read().get("id")
    alice.available()
    bob = connect(broker, "bob", "x")
    alice.reset()
    time.sleep(0.2)
    bob.message(ALICE, "pending")
    bob.ping()
    time.sleep(2)
    late = authenticated(broker, connect)
    element = late.resume(name, alice.received)
    assert element.tag == f"{{{SM}}}failed" and "item-not-found" in [local_name(c) for c in element]
    assert late.bind("desk").get("type") == "result"  # a failed resumption leaves the stream usable
    late.available()
    message = late.read_message()
    assert body(message) == "pending" and has_delay(message)


def test_an_expired_session_is_told_how_far_it_got(broker, connect, alice):
    """And what was refused is not covered for a client that does not have the refusal."""
    alice.send(f"<enable xmlns='{SM}' resume='true' max='1'/>")
    name = alice.read().get("id")
    alice.message(BOB, "kept")
    alice.message(f"nobody@{DOMAIN}", "refused")
    alice.message(BOB, "kept too")
    assert alice.read_until(lambda e: e.get("type") == "error") is not None
    alice.request_ack(3)  # a reset takes away what was not read yet
    alice.reset()
    time.sleep(2)
    assert authenticated(broker, connect).resume(name, 0).get("h") == "1"
    assert authenticated(broker, connect).resume(name, alice.received).get("h") == "3"
    broker.restart(signal.SIGKILL)
    late = authenticated(broker, connect)
    element = late.resume(name, alice.received)
    assert element.tag == f"{{{SM}}}failed" and element.get("h") == "3"
    assert late.bind("desk").get("type") == "result"


def test_unacknowledged_messages_of_a_closed_stream_are_kept(broker, connect, alice):
    alice.enable_sm()
    alice.available()
    connect(broker, "bob", "x").message(ALICE, "unseen")
    alice.read_message()
    alice.send("</stream:stream>")
    alice.wait_closed()
    message = connect(broker, "alice", "next", presence=0).read_message()
    assert body(message) == "unseen" and has_delay(message)


def test_acknowledged_messages_of_a_closed_stream_are_gone(broker, connect, alice):
    alice.enable_sm()
    alice.available()
    connect(broker, "bob", "x").message(ALICE, "seen")
    alice.read_message()
    alice.ack()
    alice.send("</stream:stream>")
    alice.wait_closed()
    connect(broker, "alice", "next", presence=0).nothing("message")


def test_resume_of_a_closed_stream_is_refused(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.send("</stream:stream>")
    alice.wait_closed()
    element = authenticated(broker, connect).resume(name, 0)
    assert "item-not-found" in [local_name(c) for c in element]


@pytest.mark.parametrize("name", ["", "no-such-id", "x" * 1000])
def test_resume_with_a_guess(broker, connect, name):
    client = authenticated(broker, connect)
    element = client.resume(name, 0)
    assert element.tag == f"{{{SM}}}failed"
    assert client.bind("desk").get("type") == "result"


def test_resume_of_somebody_else_is_refused(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.available()
    alice.reset()
    thief = authenticated(broker, connect, "bob")
    assert "item-not-found" in [local_name(c) for c in thief.resume(name, 0)]
    assert authenticated(broker, connect).resume(name, alice.received).tag == f"{{{SM}}}resumed"  # and it is still there


def test_resume_after_binding_is_refused(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.reset()
    other = connect(broker, "alice", "other")
    assert "unexpected-request" in [local_name(c) for c in other.resume(name, 0)]


def test_resume_with_h_too_high(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.reset()
    client = authenticated(broker, connect)
    client.send(f"<resume xmlns='{SM}' previd='{name}' h='1000'/>")
    client.wait_closed()
    assert [e for e in client.inbox if local_name(e) == "error" and e.find(f"{{{SM}}}handled-count-too-high") is not None]


def test_resume_twice_at_once(broker, connect, alice):
    name = alice.enable_sm().get("id")
    alice.reset()
    one, two = authenticated(broker, connect), authenticated(broker, connect)
    for client in (one, two):
        client.send(f"<resume xmlns='{SM}' previd='{name}' h='0'/>")
    alive = []
    for client in (one, two):
        try:
            element = client.read_until(lambda e: namespace(e) == SM, 5)
            assert element.tag in (f"{{{SM}}}resumed", f"{{{SM}}}failed")
            if element.tag == f"{{{SM}}}resumed":
                alive.append(client)
        except (raw.Closed, socket.timeout):
            pass
    usable = 0
    for client in alive:
        try:
            usable += client.ping().get("type") == "result"
        except raw.Closed:
            pass
    assert usable == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_what_was_pending_is_redelivered(broker, connect, alice, how):
    """Resumed where the server kept the session, else offered again; never lost."""
    name = alice.enable_sm().get("id")
    alice.available()
    bob = connect(broker, "bob", "x")
    bob.enable_sm()
    for number in range(5):
        bob.message(ALICE, str(number))
    assert bob.request_ack(5) == 5
    assert [body(alice.read_message()) for _ in range(5)] == list("01234")
    broker.restart(how)
    client = authenticated(broker, connect)
    if client.resume(name, alice.received - 5).tag != f"{{{SM}}}resumed":
        client.bind("desk")
        client.available()
    assert [body(client.read_message()) for _ in range(5)] == list("01234")


def test_graceful_stop_acknowledges_first(broker, connect, alice):
    """The last <a/> before <system-shutdown/> covers everything the broker took."""
    alice.enable_sm()
    for number in range(20):
        alice.message(BOB, str(number))
    alice.ping()
    broker.stop()
    alice.wait_closed()
    elements = list(alice.inbox)
    acks = [int(e.get("h")) for e in elements if e.tag == f"{{{SM}}}a"]
    assert acks and acks[-1] == 21
    assert condition(elements[-1])[1] == "system-shutdown"


def test_client_that_never_acknowledges_does_not_stop_others(broker, connect, alice):
    alice.enable_sm()
    alice.available()
    deaf = connect(broker, "carol", "x")
    deaf.enable_sm()
    deaf.available()
    bob = connect(broker, "bob", "x")
    for number in range(2000):
        bob.message(f"carol@{DOMAIN}/x", "x" * 500)
    bob.message(ALICE, "through")
    assert body(alice.read_message(20)) == "through"


def test_flood_of_requests_is_answered_at_a_bounded_rate(alice):
    alice.enable_sm()
    alice.send(f"<r xmlns='{SM}'/>" * 5000)
    assert alice.ping().get("type") == "result"
    answers = sum(e.tag == f"{{{SM}}}a" for e in alice.inbox)
    assert 1 <= answers <= 5000
