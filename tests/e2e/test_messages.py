"""Where messages and IQ go: RFC 6121 section 8, case by case, between users of one broker."""

import pytest

import raw
from harness import DOMAIN
from raw import body, condition, local_name

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk", presence=0)


# --- to the bare JID ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chat", "normal"])
def test_bare_goes_to_the_highest_priority(broker, connect, alice, kind):
    low = connect(broker, "bob", "low", presence=1)
    high = connect(broker, "bob", "high", presence=5)
    alice.message(BOB, "hello", kind)
    message = high.read_message()
    assert body(message) == "hello" and message.get("to") == BOB and message.get("from") == alice.jid
    low.nothing("message")


def test_bare_follows_a_change_of_priority(broker, connect, alice):
    one = connect(broker, "bob", "one", presence=1)
    two = connect(broker, "bob", "two", presence=2)
    alice.message(BOB, "first")
    assert body(two.read_message()) == "first"
    one.available(3)
    alice.message(BOB, "second")
    assert body(one.read_message()) == "second"
    one.send("<presence type='unavailable'/>")
    one.ping()
    alice.message(BOB, "third")
    assert body(two.read_message()) == "third"
    one.nothing("message")


def test_negative_priority_gets_nothing_for_the_bare_jid(broker, connect, alice):
    shy = connect(broker, "bob", "shy", presence=-1)
    alice.message(BOB, "for later")
    shy.nothing("message")
    bold = connect(broker, "bob", "bold", presence=0)
    assert body(bold.read_message()) == "for later"


def test_session_without_presence_gets_nothing_for_the_bare_jid(broker, connect, alice):
    silent = connect(broker, "bob", "silent")
    alice.message(BOB, "for later")
    silent.nothing("message")


def test_headline_goes_to_all_and_is_never_stored(broker, connect, alice):
    alice.message(BOB, "too early", "headline")
    alice.ping()
    one = connect(broker, "bob", "one", presence=1)
    two = connect(broker, "bob", "two", presence=9)
    shy = connect(broker, "bob", "shy", presence=-1)
    alice.message(BOB, "now", "headline")
    assert body(one.read_message()) == "now"
    assert body(two.read_message()) == "now"
    shy.nothing("message")


def test_groupchat_to_an_account_is_an_error(broker, connect, alice):
    bob = connect(broker, "bob", "x", presence=0)
    name = alice.message(BOB, "all together", "groupchat")
    error = alice.read_message()
    assert error.get("type") == "error" and error.get("id") == name
    assert condition(error)[:2] == ("cancel", "service-unavailable")
    bob.nothing("message")


def test_error_to_the_bare_jid_is_ignored(broker, connect, alice):
    bob = connect(broker, "bob", "x", presence=0)
    alice.send(
        f"<message to='{BOB}' type='error' id='e'><body>x</body><error type='cancel'>"
        f"<gone xmlns='{raw.STANZA_ERRORS}'/></error></message>"
    )
    bob.nothing("message")
    alice.nothing("message")


# --- to a full JID ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chat", "normal", "headline", "groupchat", "error"])
def test_full_goes_to_that_resource(broker, connect, alice, kind):
    shy = connect(broker, "bob", "shy", presence=-5)
    other = connect(broker, "bob", "other", presence=5)
    alice.message(BOB + "/shy", "you", kind)
    message = shy.read_message()
    assert body(message) == "you" and message.get("type", "normal") == kind and message.get("to") == BOB + "/shy"
    other.nothing("message")


def test_full_reaches_a_resource_without_presence(broker, connect, alice):
    silent = connect(broker, "bob", "silent")
    alice.message(BOB + "/silent", "you")
    assert body(silent.read_message()) == "you"


def test_chat_to_a_resource_that_is_gone_goes_to_another(broker, connect, alice):
    bob = connect(broker, "bob", "here", presence=0)
    alice.message(BOB + "/gone", "anybody?")
    assert body(bob.read_message()) == "anybody?"


def test_normal_to_a_resource_that_is_gone_is_not_lost_silently(broker, connect, alice):
    bob = connect(broker, "bob", "here", presence=0)
    name = alice.message(BOB + "/gone", "anybody?", "normal")
    refused = alice.read_message()
    assert refused.get("id") == name and condition(refused)[1] == "service-unavailable"
    bob.nothing("message")


@pytest.mark.parametrize("kind", ["headline", "error"])
def test_headline_and_error_to_a_resource_that_is_gone(broker, connect, alice, kind):
    bob = connect(broker, "bob", "here", presence=0)
    alice.message(BOB + "/gone", "x", kind)
    bob.nothing("message")


# --- nobody there -------------------------------------------------------------------------------------------------


def test_no_such_account(broker, connect, alice):
    name = alice.message("nobody@" + DOMAIN, "hello?")
    error = alice.read_message()
    assert error.get("type") == "error" and error.get("id") == name and error.get("from") == "nobody@" + DOMAIN
    assert condition(error)[:2] == ("cancel", "service-unavailable")
    assert alice.refused("get", "<ping xmlns='urn:xmpp:ping'/>", "nobody@" + DOMAIN)[1] == "service-unavailable"


def test_message_to_the_server_itself(broker, connect, alice):
    """RFC 6121 leaves it open; it must not come back as delivered, nor stop the session."""
    alice.message(DOMAIN, "hello, server")
    assert alice.ping(DOMAIN).get("type") == "result"


@pytest.mark.parametrize("to", ["someone@elsewhere.invalid", "elsewhere.invalid"])
def test_other_domains_are_not_reachable(broker, connect, alice, to):
    alice.message(to, "x")
    assert condition(alice.read_message())[1] in ("remote-server-not-found", "item-not-found", "service-unavailable")
    assert alice.refused("get", "<ping xmlns='urn:xmpp:ping'/>", to)[1] in (
        "remote-server-not-found",
        "item-not-found",
        "service-unavailable",
    )


# --- the stanza itself --------------------------------------------------------------------------------------------


def test_sender_is_stamped_and_the_rest_is_kept(broker, connect, alice):
    bob = connect(broker, "bob", "x", presence=0)
    alice.send(
        f"<message to='{BOB}' id='i-1' type='chat' xml:lang='de'><subject>S &amp; s</subject><body>B&lt;</body>"
        "<thread parent='p'>t</thread><x xmlns='urn:example:x' a='1'><y:z xmlns:y='urn:example:y' y:b='2'/></x></message>"
    )
    message = bob.read_message()
    assert (message.get("from"), message.get("id")) == (alice.jid, "i-1")
    assert message.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
    assert message.findtext(f"{{{raw.CLIENT}}}subject") == "S & s" and body(message) == "B<"
    extension = message.find("{urn:example:x}x")
    assert extension.get("a") == "1"
    assert extension.find("{urn:example:y}z").get("{urn:example:y}b") == "2"


def test_own_full_address_as_sender_is_accepted(broker, connect, alice):
    bob = connect(broker, "bob", "x", presence=0)
    alice.send(f"<message to='{BOB}' from='{alice.jid}' type='chat'><body>one</body></message>")
    alice.send(f"<message to='{BOB}' from='{ALICE}' type='chat'><body>two</body></message>")
    assert [bob.read_message().get("from") for _ in range(2)] == [alice.jid, alice.jid]


def test_without_address_it_is_for_oneself(broker, connect, alice):
    alice.send("<message type='chat'><body>note to self</body></message>")
    assert body(alice.read_message()) == "note to self"


def test_address_is_prepared(broker, connect, alice):
    bob = connect(broker, "bob", "X", presence=0)
    alice.message(f"BOB@{DOMAIN.upper()}", "any case")
    assert body(bob.read_message()) == "any case"
    alice.message(f"BOB@{DOMAIN}/X", "case matters in resources")
    assert body(bob.read_message()) == "case matters in resources"


@pytest.mark.parametrize("to", ["@" + DOMAIN, "bob@", "bob@/x", "a b@" + DOMAIN, "x" * 1024 + "@" + DOMAIN])
def test_malformed_addresses(broker, connect, alice, to):
    alice.message(to, "x")
    assert condition(alice.read_message())[:2] == ("modify", "jid-malformed")


def test_order_between_two_sessions(broker, connect, alice):
    bob = connect(broker, "bob", "x", presence=0)
    for number in range(200):
        alice.message(BOB if number % 2 else BOB + "/x", str(number))
    assert [body(bob.read_message()) for _ in range(200)] == [str(n) for n in range(200)]


def test_order_across_kinds(broker, connect, alice):
    """Messages and IQ to one account, bare and full, leave in the order they came (RFC 6120 10.1)."""
    bob = connect(broker, "bob", "x", presence=0)
    for number in range(60):
        alice.message(BOB, f"m{number}")
        alice.send(f"<iq type='get' id='q{number}' to='{BOB}/x'><q xmlns='urn:example'/></iq>")
    seen = []
    while len(seen) < 120:
        element = bob.read()
        if local_name(element) in ("message", "iq"):
            seen.append(body(element) or element.get("id"))
    assert seen == [text for n in range(60) for text in (f"m{n}", f"q{n}")]


# --- IQ -----------------------------------------------------------------------------------------------------------


def test_iq_to_a_full_jid_and_back(broker, connect, alice):
    bob = connect(broker, "bob", "x")
    alice.send(f"<iq type='get' id='q1' to='{BOB}/x'><q xmlns='urn:example'/></iq>")
    request = bob.read_name("iq")
    assert request.get("from") == alice.jid and request.find("{urn:example}q") is not None
    bob.send(f"<iq type='result' id='q1' to='{alice.jid}'><a xmlns='urn:example'/></iq>")
    answer = alice.read_name("iq")
    assert (answer.get("type"), answer.get("id"), answer.get("from")) == ("result", "q1", bob.jid)
    assert answer.find("{urn:example}a") is not None


def test_iq_to_a_resource_that_is_gone(broker, connect, alice):
    connect(broker, "bob", "here", presence=0)
    assert alice.refused("get", "<q xmlns='urn:example'/>", BOB + "/gone")[:2] == ("cancel", "service-unavailable")


@pytest.mark.parametrize("to", [BOB, ALICE, DOMAIN, None])
def test_iq_nobody_understands(broker, connect, alice, to):
    """The server answers for the account; the user's sessions never see it."""
    bob = connect(broker, "bob", "x", presence=0)
    assert alice.refused("get", "<q xmlns='urn:example'/>", to)[:2] == ("cancel", "service-unavailable")
    bob.nothing("iq")


def test_iq_answer_to_a_session_that_left_is_dropped(broker, connect, alice):
    alice.send(f"<iq type='result' id='x' to='{BOB}/gone'/>")
    alice.send(f"<iq type='error' id='x' to='{BOB}/gone'><error type='cancel'/></iq>")
    alice.nothing()
