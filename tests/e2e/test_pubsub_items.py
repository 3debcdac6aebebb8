"""XEP-0060 for publishers and readers: publish, overwrite, retract, retrieve; access; every error of 6.5 and 7."""

import pytest

import pubsub
import raw
from harness import DOMAIN, PUBSUB
from pubsub import change, create, item_xml, items, next_event, next_items, publish, publish_xml, retract_xml, subscribe

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk", presence=0)


@pytest.fixture
def bob(broker, connect):
    return connect(broker, "bob", "desk", presence=0)


# --- publish ------------------------------------------------------------------------------------------------------


def test_publish_and_read_back(alice, bob):
    create(alice, "weather", max_items="10")
    assert publish(alice, "weather", "monday", "rain") == "monday"
    assert items(bob, "weather") == [("monday", "rain")]


def test_item_ids_are_made_where_missing(alice):
    create(alice, "weather", max_items="10")
    one, two = publish(alice, "weather", None, "a"), publish(alice, "weather", None, "b")
    assert one and two and one != two
    assert dict(items(alice, "weather")) == {one: "a", two: "b"}


def test_same_id_overwrites_and_notifies(alice, bob):
    create(alice, "weather", max_items="10")
    subscribe(bob, "weather")
    publish(alice, "weather", "now", "rain")
    publish(alice, "weather", "now", "sun")
    assert next_items(bob, 2) == [("now", "rain"), ("now", "sun")]
    assert items(alice, "weather") == [("now", "sun")]


def test_order_is_that_of_publishing(alice):
    create(alice, "weather", max_items="max")
    for n in range(20):
        publish(alice, "weather", f"i{n}", str(n))
    assert [t for _, t in items(alice, "weather")] in (
        [str(n) for n in range(20)],
        [str(n) for n in reversed(range(20))],
    )


def test_max_items_drops_the_oldest(alice):
    create(alice, "weather", max_items="3", persist_items="1")
    for n in range(10):
        publish(alice, "weather", str(n))
    assert sorted(i for i, _ in items(alice, "weather")) == ["7", "8", "9"]


def test_payload_is_kept_as_it_was(alice, bob):
    create(alice, "weather")
    subscribe(bob, "weather")
    payload = (
        "<r xmlns='urn:example:r' a='&quot;&amp;&apos;' xml:lang='fr'>text &lt; &#x1F333; "
        "<o:x xmlns:o='urn:example:other' o:y='1'/>tail<e/></r>"
    )
    alice.ok("set", publish_xml("weather", item_xml("i", payload=payload)), PUBSUB)
    expected = raw.ET.fromstring(payload)

    def same(one, two):
        return (
            (one.tag, one.attrib, one.text or "", one.tail or "") == (two.tag, two.attrib, two.text or "", two.tail or "")
            and len(one) == len(two)
            and all(same(a, b) for a, b in zip(one, two))
        )

    event = next_event(bob)
    assert same(next(event.iter("{urn:example:r}r")), expected)
    answer = alice.ok("get", pubsub.request("<items node='weather'/>"), PUBSUB)
    assert same(next(answer.iter("{urn:example:r}r")), expected)


def test_auto_create_with_publish_options(alice, bob):
    publish(alice, "fresh", "i", "x", {"access_model": "whitelist", "persist_items": "1"})
    assert pubsub.configuration(alice, "fresh")["access_model"] == "whitelist"
    assert bob.refused("get", pubsub.request("<items node='fresh'/>"), PUBSUB)[1] == "not-allowed"


def test_publish_options_are_preconditions(alice):
    create(alice, "weather", access_model="open")
    publish(alice, "weather", "i", "x", {"access_model": "open"})
    answer = alice.refused("set", publish_xml("weather", item_xml("j"), {"access_model": "whitelist"}), PUBSUB)
    assert answer == ("cancel", "conflict", ["precondition-not-met"]) or answer[1:] == (
        "conflict",
        ["precondition-not-met"],
    )
    assert [i for i, _ in items(alice, "weather")] == ["i"]


def test_unknown_publish_options_are_refused(alice):
    create(alice, "weather")
    answer = alice.iq("set", publish_xml("weather", item_xml("i"), {"no_such_field": "1"}), PUBSUB)
    assert answer.get("type") == "error"
    assert items(alice, "weather") == []


def test_publish_errors(alice, bob):
    create(alice, "weather", publish_model="publishers", max_items="10")
    assert bob.refused("set", publish_xml("weather", item_xml("i")), PUBSUB)[:2] == ("auth", "forbidden")
    for payload in ("<item id='i'/>", "<item id='i'><a xmlns='urn:a'/><b xmlns='urn:b'/></item>"):
        kind, name, more = alice.refused("set", publish_xml("weather", payload), PUBSUB)
        assert (kind, name) == ("modify", "bad-request") and more[0] in ("payload-required", "invalid-payload")
    assert alice.refused("set", publish_xml("weather", ""), PUBSUB) == ("modify", "bad-request", ["item-required"])
    kind, name, more = alice.refused("set", publish_xml(None, item_xml("i")), PUBSUB)
    assert (kind, name) == ("modify", "bad-request") and more in ([], ["nodeid-required"])
    assert items(alice, "weather") == []


def test_payload_too_big(alice):
    create(alice, "weather", max_payload_size="200")
    publish(alice, "weather", "i", "x" * 20)
    assert alice.refused("set", publish_xml("weather", item_xml("j", "x" * 400)), PUBSUB) == (
        "modify",
        "not-acceptable",
        ["payload-too-big"],
    )


def test_batch_with_a_bad_item_stores_nothing(alice, bob):
    create(alice, "weather", max_items="10")
    subscribe(bob, "weather")
    bad = item_xml("a", "1") + "<item id='b'/>"
    assert alice.iq("set", publish_xml("weather", bad), PUBSUB).get("type") == "error"
    assert items(alice, "weather") == []
    bob.nothing("message")


def test_publish_models(alice, bob, broker, connect):
    carol = connect(broker, "carol", "x")
    create(alice, "free", publish_model="open")
    publish(bob, "free", "i", "x")
    create(alice, "club", publish_model="subscribers")
    refused = publish_xml("club", item_xml("i"))
    assert carol.refused("set", refused, PUBSUB)[:2] == ("auth", "forbidden")
    subscribe(bob, "club")
    publish(bob, "club", "i", "x")


def test_node_without_persistence_notifies_only(alice, bob):
    create(alice, "fleeting", persist_items="0")
    subscribe(bob, "fleeting")
    publish(alice, "fleeting", "i", "x")
    assert next_items(bob) == [("i", "x")]
    answer = alice.iq("get", pubsub.request("<items node='fleeting'/>"), PUBSUB)
    if answer.get("type") == "error":
        assert raw.condition(answer)[1] == "feature-not-implemented"
    else:
        assert not list(answer.iter(f"{{{pubsub.NS}}}item"))


def test_items_survive_a_crash(broker, connect, alice):
    create(alice, "weather", max_items="max")
    for n in range(100):
        publish(alice, "weather", str(n), f"text {n}")
    broker.restart()
    again = connect(broker, "alice", "desk")
    assert dict(items(again, "weather")) == {str(n): f"text {n}" for n in range(100)}


# --- retract ------------------------------------------------------------------------------------------------------


def test_retract(alice, bob):
    create(alice, "weather", max_items="10", notify_retract="1")
    publish(alice, "weather", "a", "1")
    publish(alice, "weather", "b", "2")
    subscribe(bob, "weather")
    alice.ok("set", retract_xml("weather", "a", notify="true"), PUBSUB)
    while change(event := next_event(bob)) != ("retract", "weather"):
        pass
    assert [r.get("id") for r in event.iter(f"{{{pubsub.EVENT}}}retract")] == ["a"]
    assert items(alice, "weather") == [("b", "2")]


def test_retract_errors(alice, bob):
    create(alice, "weather", max_items="10")
    create(alice, "fleeting", persist_items="0")
    publish(alice, "weather", "a", "1")
    assert bob.refused("set", retract_xml("weather", "a"), PUBSUB)[:2] == ("auth", "forbidden")
    assert alice.refused("set", retract_xml("weather", "zz"), PUBSUB)[:2] == ("cancel", "item-not-found")
    assert alice.refused("set", retract_xml("nothing", "a"), PUBSUB)[:2] == ("cancel", "item-not-found")
    assert alice.refused("set", retract_xml(None, "a"), PUBSUB) == ("modify", "bad-request", ["nodeid-required"])
    assert alice.refused("set", retract_xml("weather", None), PUBSUB) == ("modify", "bad-request", ["item-required"])
    assert alice.refused("set", pubsub.request("<retract node='weather'><item/></retract>"), PUBSUB) == (
        "modify",
        "bad-request",
        ["item-required"],
    )
    assert alice.refused("set", retract_xml("fleeting", "a"), PUBSUB) == (
        "cancel",
        "feature-not-implemented",
        ["unsupported"],
    )
    assert items(alice, "weather") == [("a", "1")]


def test_publisher_retracts_own_items_only(alice, bob):
    create(alice, "weather", max_items="10", publish_model="open")
    publish(alice, "weather", "hers", "1")
    publish(bob, "weather", "his", "2")
    assert bob.refused("set", retract_xml("weather", "hers"), PUBSUB)[:2] == ("auth", "forbidden")
    bob.ok("set", retract_xml("weather", "his"), PUBSUB)
    assert items(alice, "weather") == [("hers", "1")]


# --- retrieve -----------------------------------------------------------------------------------------------------


def test_retrieve_by_id_and_count(alice):
    create(alice, "weather", max_items="max")
    for n in range(10):
        publish(alice, "weather", str(n), f"t{n}")
    assert sorted(items(alice, "weather", ("3", "7"))) == [("3", "t3"), ("7", "t7")]
    assert sorted(items(alice, "weather", max_items=2)) == [("8", "t8"), ("9", "t9")]
    assert items(alice, "weather", ("no-such-item",)) == []


def test_retrieve_errors(alice):
    assert alice.refused("get", pubsub.request("<items node='nothing'/>"), PUBSUB)[:2] == ("cancel", "item-not-found")
    assert alice.refused("get", pubsub.request("<items/>"), PUBSUB)[1] == "bad-request"
    create(alice, "weather")
    for count in ("-1", "x"):
        assert alice.refused("get", pubsub.request(f"<items node='weather' max_items='{count}'/>"), PUBSUB)[1] == (
            "bad-request"
        )


def test_many_items_are_read_to_the_end_or_with_a_sign(alice):
    """More than fits one answer: the service may truncate, and then says so by result set management (6.5.4)."""
    create(alice, "weather", max_items="max")
    for n in range(300):
        alice.send(f"<iq type='set' id='p{n}' to='{PUBSUB}'>{publish_xml('weather', item_xml(str(n), 'x' * 50))}</iq>")
    alice.read_until(lambda e: e.get("id") == "p299")
    answer = alice.ok("get", pubsub.request("<items node='weather'/>"), PUBSUB)
    count = len(list(answer.iter(f"{{{pubsub.NS}}}item")))
    assert count == 300 or answer.find(".//{http://jabber.org/protocol/rsm}set") is not None


# --- access -------------------------------------------------------------------------------------------------------


def test_whitelist(alice, bob):
    create(alice, "weather", access_model="whitelist")
    publish(alice, "weather", "i", "x")
    for kind, payload in (("get", pubsub.request("<items node='weather'/>")), ("set", pubsub.subscribe_xml("weather", BOB))):
        assert bob.refused(kind, payload, PUBSUB) == ("cancel", "not-allowed", ["closed-node"])
    pubsub.affiliate(alice, "weather", bob="member")
    assert items(bob, "weather") == [("i", "x")]
    subscribe(bob, "weather")


def test_outcast_is_refused_everywhere(alice, bob):
    create(alice, "weather")
    publish(alice, "weather", "i", "x")
    pubsub.affiliate(alice, "weather", bob="outcast")
    for kind, payload in (
        ("get", pubsub.request("<items node='weather'/>")),
        ("get", pubsub.request("<items node='weather'><item id='i'/></items>")),
        ("get", pubsub.request("<items node='weather' max_items='1'/>")),
        ("set", pubsub.subscribe_xml("weather", BOB)),
        ("set", publish_xml("weather", item_xml("j"))),
    ):
        assert bob.refused(kind, payload, PUBSUB)[:2] == ("auth", "forbidden")


def test_becoming_outcast_ends_the_subscription(alice, bob):
    create(alice, "weather")
    subscribe(bob, "weather")
    pubsub.affiliate(alice, "weather", bob="outcast")
    publish(alice, "weather", "i", "x")
    pubsub.no_items(bob)  # he is told of his affiliation and of the end of his subscription


def test_closing_a_node_stops_events_to_others(alice, bob):
    create(alice, "weather", access_model="open")
    subscribe(bob, "weather")
    publish(alice, "weather", "i", "x")
    assert next_items(bob) == [("i", "x")]
    pubsub.configure(alice, "weather", access_model="whitelist")
    publish(alice, "weather", "j", "y")
    bob.ping()
    assert not [m for m in bob.inbox if list(m.iter(f"{{{pubsub.EVENT}}}item"))]
    assert bob.refused("get", pubsub.request("<items node='weather'/>"), PUBSUB)[1] == "not-allowed"


@pytest.mark.parametrize(
    "payload",
    [
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'/>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><unknown/></pubsub>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='a'/><subscribe node='a' jid='x'/></pubsub>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'/>",
    ],
)
def test_requests_that_are_none(alice, payload):
    assert alice.refused("set", payload, PUBSUB)[1] in ("bad-request", "feature-not-implemented")
