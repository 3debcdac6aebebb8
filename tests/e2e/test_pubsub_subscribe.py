"""XEP-0060 for subscribers: subscribe, options, unsubscribe, events, last items; every error of 6.1 to 6.3; slixmpp."""

import asyncio

import library
import pytest
import pubsub
import raw
from harness import DOMAIN, PUBSUB
from pubsub import NS, create, next_event, next_items, publish, subscribe, subscribe_xml, unsubscribe_xml

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk", presence=0)


@pytest.fixture
def bob(broker, connect):
    return connect(broker, "bob", "desk", presence=0)


# --- subscribe and unsubscribe ------------------------------------------------------------------------------------


def test_subscribe(alice, bob):
    create(alice, "weather")
    subscription = subscribe(bob, "weather")
    assert (subscription.get("node"), subscription.get("jid"), subscription.get("subscription")) == (
        "weather",
        BOB,
        "subscribed",
    )
    publish(alice, "weather", "i", "rain")
    event = next_event(bob)
    assert event.get("from") == PUBSUB and event.get("type") == "headline"
    assert [i.get("id") for i in event.iter(f"{{{pubsub.EVENT}}}item")] == ["i"]


def test_subscribing_again_is_no_second_event(alice, bob):
    create(alice, "weather")
    subscribe(bob, "weather")
    subscribe(bob, "weather")
    publish(alice, "weather", "i", "x")
    assert next_items(bob) == [("i", "x")]
    bob.nothing("message")


def test_bare_jid_reaches_every_available_session(alice, bob, broker, connect):
    create(alice, "weather")
    other = connect(broker, "bob", "other", presence=3)
    shy = connect(broker, "bob", "shy", presence=-1)
    silent = connect(broker, "bob", "silent")
    subscribe(bob, "weather")
    publish(alice, "weather", "i", "x")
    assert next_items(bob) == next_items(other) == [("i", "x")]
    shy.nothing("message")
    silent.nothing("message")


def test_full_jid_reaches_that_session_only(alice, bob, broker, connect):
    create(alice, "weather")
    other = connect(broker, "bob", "other", presence=9)
    subscribe(bob, "weather", BOB + "/desk")
    publish(alice, "weather", "i", "x")
    assert next_items(bob) == [("i", "x")]
    other.nothing("message")


def test_full_jid_of_negative_priority(alice, broker, connect):
    create(alice, "weather")
    create(alice, "owed", max_items="max")
    robot = connect(broker, "bob", "robot")
    robot.enable_sm()
    robot.available(-1)
    subscribe(robot, "weather", robot.jid)
    subscribe(robot, "owed", robot.jid, **{pubsub.DELIVERY + "mode": "at-least-once"})
    publish(alice, "weather", "i", "x")
    publish(alice, "owed", "j", "y")
    assert sorted(next_items(robot, 2)) == [("i", "x"), ("j", "y")]
    alice.message(BOB, "for somebody else")
    alice.ping()
    robot.ping()
    robot.nothing("message")


def test_session_that_comes_later_gets_events(alice, bob, broker, connect):
    create(alice, "weather", send_last_published_item="never")
    subscribe(bob, "weather")
    bob.send("</stream:stream>")
    bob.wait_closed()
    publish(alice, "weather", "missed", "x")
    again = connect(broker, "bob", "again", presence=0)
    again.nothing("message")  # at most once: what nobody was there for is gone
    publish(alice, "weather", "seen", "y")
    assert next_items(again) == [("seen", "y")]


def test_publisher_who_subscribed_gets_the_event_too(alice):
    create(alice, "weather")
    subscribe(alice, "weather")
    publish(alice, "weather", "i", "x")
    assert next_items(alice) == [("i", "x")]


def test_unsubscribe(alice, bob):
    create(alice, "weather")
    subid = subscribe(bob, "weather").get("subid")
    bob.ok("set", unsubscribe_xml("weather", BOB, subid), PUBSUB)
    publish(alice, "weather", "i", "x")
    bob.nothing("message")
    assert bob.refused("set", unsubscribe_xml("weather", BOB), PUBSUB) == (
        "cancel",
        "unexpected-request",
        ["not-subscribed"],
    )


def test_order_of_events_is_that_of_publishing(alice, bob):
    create(alice, "weather")
    subscribe(bob, "weather")
    for n in range(100):
        alice.send(f"<iq type='set' id='p{n}' to='{PUBSUB}'>{pubsub.publish_xml('weather', pubsub.item_xml(str(n)))}</iq>")
    assert [i for i, _ in next_items(bob, 100)] == [str(n) for n in range(100)]


def test_many_subscribers_get_the_same(broker, connect, alice):
    create(alice, "weather")
    clients = [connect(broker, user, f"r{n}", presence=0) for user in ("bob", "carol", "dave") for n in range(5)]
    for client in clients:
        subscribe(client, "weather", client.jid)
    for n in range(20):
        publish(alice, "weather", str(n), "x")
    for client in clients:
        assert [i for i, _ in next_items(client, 20)] == [str(n) for n in range(20)]


def test_subscription_survives_a_crash(broker, connect, alice, bob):
    create(alice, "weather")
    subscribe(bob, "weather")
    broker.restart()
    alice, bob = connect(broker, "alice", "desk"), connect(broker, "bob", "desk", presence=0)
    publish(alice, "weather", "i", "x")
    assert ("i", "x") in next_items(bob)


def test_subscribe_errors(alice, bob):
    create(alice, "weather")
    assert bob.refused("set", subscribe_xml("nothing", BOB), PUBSUB)[:2] == ("cancel", "item-not-found")
    assert bob.refused("set", subscribe_xml("weather", ALICE), PUBSUB) == ("modify", "bad-request", ["invalid-jid"])
    for jid in ("@", "a b@x"):
        assert bob.refused("set", subscribe_xml("weather", jid), PUBSUB)[1] in ("bad-request", "jid-malformed")
    assert bob.refused("set", pubsub.request("<subscribe node='weather'/>"), PUBSUB)[:2] == ("modify", "bad-request")
    assert bob.refused("set", subscribe_xml(None, BOB), PUBSUB)[1] in ("bad-request", "feature-not-implemented")


def test_unsubscribe_errors(alice, bob):
    create(alice, "weather")
    subscribe(alice, "weather")
    assert bob.refused("set", unsubscribe_xml("nothing", BOB), PUBSUB)[:2] == ("cancel", "item-not-found")
    assert bob.refused("set", unsubscribe_xml("weather", BOB), PUBSUB)[1:] == ("unexpected-request", ["not-subscribed"])
    assert bob.refused("set", unsubscribe_xml("weather", ALICE), PUBSUB)[:2] == ("auth", "forbidden")


def test_wrong_subid(alice, bob):
    create(alice, "weather")
    if subscribe(bob, "weather").get("subid") is None:
        pytest.skip("the service gives no subid to a plain subscription")
    assert bob.refused("set", unsubscribe_xml("weather", BOB, "wrong"), PUBSUB) == (
        "modify",
        "not-acceptable",
        ["invalid-subid"],
    )


def test_subscriptions_per_node(make_broker, connect):
    broker = make_broker({"limits": {"subscriptions_per_node": 2}}).start()
    alice = connect(broker, "alice", "x")
    create(alice, "weather")
    for user in ("bob", "carol"):
        subscribe(connect(broker, user, "x"), "weather")
    dave = connect(broker, "dave", "x")
    kind, name, more = dave.refused("set", subscribe_xml("weather", "dave@" + DOMAIN), PUBSUB)
    assert name in ("policy-violation", "resource-constraint", "not-allowed")
    assert kind == "wait" or more


# --- options ------------------------------------------------------------------------------------------------------


def options_xml(node, jid, subid=None, fields=None):
    more = f" subid='{subid}'" if subid else ""
    body = pubsub.form("subscribe_options", fields) if fields is not None else ""
    return pubsub.request(f"<options node='{node}' jid='{jid}'{more}>{body}</options>")


def test_options_form(alice, bob):
    create(alice, "weather")
    subid = subscribe(bob, "weather").get("subid")
    fields = pubsub.fields_of(bob.ok("get", options_xml("weather", BOB, subid), PUBSUB))
    assert fields["FORM_TYPE"] == NS + "#subscribe_options"
    assert fields[pubsub.DELIVERY + "mode"] == "at-most-once"


def test_subscribe_with_options(alice, bob):
    create(alice, "weather")
    subscription = subscribe(bob, "weather", **{pubsub.DELIVERY + "mode": "at-least-once"})
    assert subscription.get("subscription") == "subscribed"
    fields = pubsub.fields_of(bob.ok("get", options_xml("weather", BOB, subscription.get("subid")), PUBSUB))
    assert fields[pubsub.DELIVERY + "mode"] == "at-least-once"


@pytest.mark.parametrize(
    "options", [{pubsub.DELIVERY + "mode": "exactly-never"}, {pubsub.DELIVERY + "start": "yesterday"}]
)
def test_bad_options_subscribe_nothing(alice, bob, options):
    create(alice, "weather")
    kind, name, more = bob.refused("set", subscribe_xml("weather", BOB, options), PUBSUB)
    assert (kind, name, more) == ("modify", "bad-request", ["invalid-options"])
    mine = bob.ok("get", pubsub.request("<subscriptions/>"), PUBSUB)
    assert not list(mine.iter(f"{{{NS}}}subscription"))


def test_options_errors(alice, bob):
    create(alice, "weather")
    subscribe(alice, "weather")
    assert bob.refused("get", options_xml("nothing", BOB), PUBSUB)[:2] == ("cancel", "item-not-found")
    assert bob.refused("get", options_xml("weather", BOB), PUBSUB)[1:] == ("unexpected-request", ["not-subscribed"])
    assert bob.refused("get", options_xml("weather", ALICE), PUBSUB)[:2] == ("auth", "forbidden")
    assert bob.refused("get", pubsub.request("<options node='weather'/>"), PUBSUB) == (
        "modify",
        "bad-request",
        ["jid-required"],
    )


# --- what events carry --------------------------------------------------------------------------------------------


def test_without_payloads(alice, bob):
    create(alice, "weather", deliver_payloads="0")
    subscribe(bob, "weather")
    publish(alice, "weather", "i", "secret")
    event = next_event(bob)
    item = next(event.iter(f"{{{pubsub.EVENT}}}item"))
    assert item.get("id") == "i" and len(item) == 0


def test_without_notifications(alice, bob):
    create(alice, "weather", deliver_notifications="0")
    subscribe(bob, "weather")
    publish(alice, "weather", "i", "x")
    bob.nothing("message")


@pytest.mark.parametrize("kind", ["normal", "headline"])
def test_type_of_notifications(alice, bob, kind):
    create(alice, "weather", notification_type=kind)
    subscribe(bob, "weather")
    publish(alice, "weather", "i", "x")
    assert next_event(bob).get("type", "normal") == kind


# --- the last item ------------------------------------------------------------------------------------------------


def test_last_item_on_subscribing(alice, bob):
    create(alice, "weather", send_last_published_item="on_sub")
    publish(alice, "weather", "i", "x")
    publish(alice, "weather", "j", "y")
    subscribe(bob, "weather")
    assert next_items(bob) == [("j", "y")]
    bob.nothing("message")


def test_last_item_on_presence(alice, bob, broker, connect):
    create(alice, "weather", send_last_published_item="on_sub_and_presence")
    publish(alice, "weather", "i", "x")
    subscribe(bob, "weather")
    assert next_items(bob) == [("i", "x")]
    bob.send("</stream:stream>")
    bob.wait_closed()
    again = connect(broker, "bob", "again", presence=0)
    message = next_event(again)
    assert raw.has_delay(message)


def test_no_last_item(alice, bob):
    create(alice, "weather", send_last_published_item="never")
    publish(alice, "weather", "i", "x")
    subscribe(bob, "weather")
    bob.nothing("message")


# --- an unmodified client -----------------------------------------------------------------------------------------


async def test_slixmpp_does_all_of_it(broker):
    plugins = ("xep_0004", "xep_0059", "xep_0060")
    publisher = await library.connect(broker, "alice", tls="starttls", mechanism="SCRAM-SHA-256-PLUS", plugins=plugins)
    reader = await library.connect(broker, "bob", tls="starttls", plugins=plugins)
    events = asyncio.Queue()
    for name in ("publish", "retract", "purge", "delete"):
        reader.add_event_handler(f"pubsub_{name}", lambda message, name=name: events.put_nowait((name, message)))

    async def event(name):
        kind, message = await asyncio.wait_for(events.get(), library.TIMEOUT_S)
        assert kind == name
        return message

    service, client = publisher["xep_0060"], reader["xep_0060"]
    form = publisher["xep_0004"].make_form(ftype="submit")
    form.add_field(var="FORM_TYPE", ftype="hidden", value=NS + "#node_config")
    form.add_field(var="pubsub#max_items", value="10")
    form.add_field(var="pubsub#notify_retract", value="1")
    form.add_field(var="pubsub#notify_delete", value="1")
    form.add_field(var="pubsub#send_last_published_item", value="never")
    await service.create_node(PUBSUB, "weather", config=form, timeout=10)
    await client.subscribe(PUBSUB, "weather", timeout=10)
    assert [n["node"] for n in (await client.get_subscriptions(PUBSUB, timeout=10))["pubsub"]["subscriptions"]] == ["weather"]

    payload = raw.ET.fromstring("<entry xmlns='urn:example'>rain</entry>")
    await service.publish(PUBSUB, "weather", id="i", payload=payload, timeout=10)
    message = await event("publish")
    item = message["pubsub_event"]["items"]["item"]
    assert item["id"] == "i" and item["payload"].text == "rain"

    items = await client.get_items(PUBSUB, "weather", timeout=10)
    assert [i["id"] for i in items["pubsub"]["items"]] == ["i"]
    await service.retract(PUBSUB, "weather", "i", notify=True, timeout=10)
    await event("retract")
    await service.publish(PUBSUB, "weather", id="j", payload=payload, timeout=10)
    await event("publish")
    await service.purge(PUBSUB, "weather", timeout=10)
    await event("purge")
    await client.unsubscribe(PUBSUB, "weather", timeout=10)
    await client.subscribe(PUBSUB, "weather", timeout=10)
    await service.delete_node(PUBSUB, "weather", timeout=10)
    await event("delete")
    await publisher.close()
    await reader.close()
