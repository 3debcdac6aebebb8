"""XEP-0060 for owners: create, configure, delete, purge, affiliations, subscriptions; with every error of section 8."""

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import NS, OWNER, change, create, create_xml, next_event, owner_request, publish, subscribe

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN
INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk", presence=0)


@pytest.fixture
def bob(broker, connect):
    return connect(broker, "bob", "desk", presence=0)


def missing_node(client, kind, payload):
    assert client.refused(kind, payload, PUBSUB)[:2] == ("cancel", "item-not-found")


def forbidden(client, kind, payload):
    assert client.refused(kind, payload, PUBSUB)[:2] == ("auth", "forbidden")


# --- create -------------------------------------------------------------------------------------------------------


def test_create(alice):
    assert create(alice, "weather") == "weather"
    items = alice.ok("get", f"<query xmlns='{ITEMS}'/>", PUBSUB)
    assert "weather" in [i.get("node") for i in items.iter(f"{{{ITEMS}}}item")]
    info = alice.ok("get", f"<query xmlns='{INFO}' node='weather'/>", PUBSUB)
    identities = [(i.get("category"), i.get("type")) for i in info.iter(f"{{{INFO}}}identity")]
    assert ("pubsub", "leaf") in identities


def test_create_twice_is_a_conflict(alice, bob):
    create(alice, "weather")
    assert alice.refused("set", create_xml("weather"), PUBSUB)[:2] == ("cancel", "conflict")
    assert bob.refused("set", create_xml("weather"), PUBSUB)[:2] == ("cancel", "conflict")


def test_instant_nodes(alice):
    one, two = create(alice), create(alice)
    assert one and two and one != two
    publish(alice, one, "i", "x")


def test_create_with_configuration(alice):
    create(alice, "weather", title="Rain", access_model="whitelist", max_items="7", persist_items="1")
    config = pubsub.configuration(alice, "weather")
    assert (config["title"], config["access_model"], config["max_items"]) == ("Rain", "whitelist", "7")


@pytest.mark.parametrize(
    "config",
    [
        {"access_model": "no-such-model"},
        {"persist_items": "maybe"},
        {"max_items": "-1"},
        {"max_items": "many"},
        {"publish_model": "nobody"},
        {"send_last_published_item": "sometimes"},
        {"max_payload_size": "999999999999"},
        {"notification_type": "loud"},
    ],
)
def test_create_with_bad_configuration_creates_nothing(alice, config):
    answer = alice.iq("set", create_xml("weather", config), PUBSUB)
    assert answer.get("type") == "error"
    missing_node(alice, "get", owner_request("<configure node='weather'/>"))


@pytest.mark.parametrize("name", ["a/b/c", "urn:x:y", "host='x'", "\U0001F333", "%00%", "n" * 1000, "x y", "Weather"])
def test_names_of_all_kinds(alice, name):
    create(alice, name.replace("'", "_"))
    name = name.replace("'", "_")
    publish(alice, name, "i", "x")
    assert pubsub.items(alice, name) == [("i", "x")]


def test_names_differ_by_case(alice):
    create(alice, "a")
    create(alice, "A")
    publish(alice, "a", "i", "x")
    assert pubsub.items(alice, "A") == []


def test_name_too_long(alice):
    answer = alice.iq("set", create_xml("n" * 5000), PUBSUB)
    assert answer.get("type") == "error"
    assert alice.ping().get("type") == "result"


def test_nodes_per_account(make_broker, connect):
    broker = make_broker({"limits": {"nodes_per_account": 2}}).start()
    alice = connect(broker, "alice", "desk")
    create(alice, "one")
    create(alice, "two")
    kind, name, _ = alice.refused("set", create_xml("three"), PUBSUB)
    assert name in ("resource-constraint", "policy-violation", "not-allowed")
    alice.ok("set", owner_request("<delete node='one'/>"), PUBSUB)
    create(alice, "three")


# --- configure ----------------------------------------------------------------------------------------------------


def test_default_configuration(alice):
    defaults = pubsub.fields_of(alice.ok("get", owner_request("<default/>"), PUBSUB))
    assert defaults["access_model"] == "open"
    assert defaults["FORM_TYPE"] == NS + "#node_config"


def test_configuration_form_is_complete(alice):
    create(alice, "weather")
    config = pubsub.configuration(alice, "weather")
    for field in ("access_model", "publish_model", "persist_items", "max_items", "send_last_published_item",
                  "deliver_payloads", "deliver_notifications", "notify_retract", "notify_delete", "max_payload_size",
                  "notification_type", "title", pubsub.NODE + "durability"):
        assert field in config, field


def test_configure(alice):
    create(alice, "weather")
    pubsub.configure(alice, "weather", title="Sun", max_items="3")
    assert pubsub.configuration(alice, "weather")["title"] == "Sun"
    pubsub.configure(alice, "weather", title="Wind")  # what a form leaves out stays
    config = pubsub.configuration(alice, "weather")
    assert (config["title"], config["max_items"]) == ("Wind", "3")


def test_configure_cancel_changes_nothing(alice):
    create(alice, "weather", title="Sun")
    alice.ok("set", owner_request(f"<configure node='weather'><x xmlns='{pubsub.FORM}' type='cancel'/></configure>"), PUBSUB)
    assert pubsub.configuration(alice, "weather")["title"] == "Sun"


def test_configure_errors(alice, bob):
    create(alice, "weather")
    for kind, payload in (("get", "<configure node='weather'/>"),):
        forbidden(bob, kind, owner_request(payload))
    forbidden(bob, "set", pubsub.configure_xml("weather", {"title": "mine"}))
    missing_node(alice, "get", owner_request("<configure node='nothing'/>"))
    missing_node(alice, "set", pubsub.configure_xml("nothing", {"title": "x"}))
    assert alice.refused("get", owner_request("<configure/>"), PUBSUB)[:2] == ("modify", "bad-request")
    assert alice.refused("get", owner_request("<configure/>"), PUBSUB)[2] == ["nodeid-required"]


def test_bad_configuration_changes_nothing(alice):
    create(alice, "weather", title="Sun")
    kind, name, _ = alice.refused("set", pubsub.configure_xml("weather", {"title": "x", "access_model": "?"}), PUBSUB)
    assert (kind, name) == ("modify", "not-acceptable") or name == "bad-request"
    assert pubsub.configuration(alice, "weather")["title"] == "Sun"


def test_configuration_survives_a_crash(broker, connect, alice):
    create(alice, "weather", title="Sun", access_model="whitelist")
    broker.restart()
    again = connect(broker, "alice", "desk")
    config = pubsub.configuration(again, "weather")
    assert (config["title"], config["access_model"]) == ("Sun", "whitelist")


def test_fewer_max_items_drop_the_oldest(alice):
    create(alice, "weather", max_items="10", persist_items="1")
    for n in range(5):
        publish(alice, "weather", str(n))
    pubsub.configure(alice, "weather", max_items="2")
    assert sorted(i for i, _ in pubsub.items(alice, "weather")) == ["3", "4"]


# --- delete and purge ---------------------------------------------------------------------------------------------


def test_delete(alice, bob):
    create(alice, "weather", notify_delete="1")
    subscribe(bob, "weather")
    alice.ok("set", owner_request("<delete node='weather'/>"), PUBSUB)
    assert change(next_event(bob)) == ("delete", "weather")
    missing_node(alice, "set", owner_request("<delete node='weather'/>"))
    create(bob, "weather")  # the name is free, and nothing of the old node is left
    assert pubsub.items(bob, "weather") == []
    answer = bob.ok("get", owner_request("<subscriptions node='weather'/>"), PUBSUB)
    assert not list(answer.iter(f"{{{OWNER}}}subscription"))


def test_delete_errors(alice, bob):
    create(alice, "weather")
    forbidden(bob, "set", owner_request("<delete node='weather'/>"))
    missing_node(bob, "set", owner_request("<delete node='nothing'/>"))
    assert alice.refused("set", owner_request("<delete/>"), PUBSUB)[:2] == ("modify", "bad-request")


def test_delete_survives_a_crash(broker, connect, alice):
    create(alice, "weather")
    publish(alice, "weather", "i", "x")
    alice.ok("set", owner_request("<delete node='weather'/>"), PUBSUB)
    broker.restart()
    missing_node(connect(broker, "alice", "desk"), "get", owner_request("<configure node='weather'/>"))


def test_purge(alice, bob):
    create(alice, "weather", persist_items="1", max_items="10", notify_retract="1")
    for n in range(3):
        publish(alice, "weather", str(n))
    subscribe(bob, "weather")
    alice.ok("set", owner_request("<purge node='weather'/>"), PUBSUB)
    while change(next_event(bob)) != ("purge", "weather"):
        pass  # a last published item may come first
    assert pubsub.items(alice, "weather") == []


def test_purge_errors(alice, bob):
    create(alice, "weather")
    create(alice, "fleeting", persist_items="0")
    forbidden(bob, "set", owner_request("<purge node='weather'/>"))
    missing_node(alice, "set", owner_request("<purge node='nothing'/>"))
    assert alice.refused("set", owner_request("<purge node='fleeting'/>"), PUBSUB) == (
        "cancel",
        "feature-not-implemented",
        ["unsupported"],
    )


# --- affiliations and subscriptions of a node ---------------------------------------------------------------------


def node_affiliations(client, node):
    answer = client.ok("get", owner_request(f"<affiliations node='{node}'/>"), PUBSUB)
    return {a.get("jid"): a.get("affiliation") for a in answer.iter(f"{{{OWNER}}}affiliation")}


def test_affiliations(alice):
    create(alice, "weather")
    assert node_affiliations(alice, "weather") == {ALICE: "owner"}
    pubsub.affiliate(alice, "weather", bob="publisher", carol="outcast")
    assert node_affiliations(alice, "weather") == {
        ALICE: "owner",
        BOB: "publisher",
        "carol@" + DOMAIN: "outcast",
    }
    pubsub.affiliate(alice, "weather", bob="none")
    assert BOB not in node_affiliations(alice, "weather")


def test_affiliation_makes_a_publisher(alice, bob):
    create(alice, "weather", publish_model="publishers")
    forbidden(bob, "set", pubsub.publish_xml("weather", pubsub.item_xml("i")))
    pubsub.affiliate(alice, "weather", bob="publisher")
    publish(bob, "weather", "i", "x")
    pubsub.affiliate(alice, "weather", bob="none")
    forbidden(bob, "set", pubsub.publish_xml("weather", pubsub.item_xml("i")))


def test_second_owner(alice, bob):
    create(alice, "weather")
    pubsub.affiliate(alice, "weather", bob="owner")
    pubsub.configure(bob, "weather", title="ours")
    pubsub.affiliate(bob, "weather", alice="none")
    forbidden(alice, "get", owner_request("<configure node='weather'/>"))


def test_last_owner_stays(alice):
    create(alice, "weather")
    answer = alice.iq("set", pubsub.affiliations_xml("weather", {"alice": "none", "bob": "publisher"}), PUBSUB)
    assert answer.get("type") == "error"
    assert pubsub.raw.condition(answer)[1] in ("not-acceptable", "not-allowed", "conflict")
    assert node_affiliations(alice, "weather")[ALICE] == "owner"


def test_affiliation_errors(alice, bob):
    create(alice, "weather")
    forbidden(bob, "get", owner_request("<affiliations node='weather'/>"))
    forbidden(bob, "set", pubsub.affiliations_xml("weather", {"bob": "owner"}))
    missing_node(alice, "get", owner_request("<affiliations node='nothing'/>"))
    missing_node(alice, "set", pubsub.affiliations_xml("nothing", {"bob": "owner"}))
    assert alice.refused("set", pubsub.affiliations_xml("weather", {"bob": "king"}), PUBSUB)[1] in (
        "bad-request",
        "not-acceptable",
        "feature-not-implemented",
    )


def test_affiliations_survive_a_crash(broker, connect, alice):
    create(alice, "weather")
    pubsub.affiliate(alice, "weather", bob="publisher")
    broker.restart()
    assert node_affiliations(connect(broker, "alice", "desk"), "weather")[BOB] == "publisher"


def node_subscriptions(client, node):
    answer = client.ok("get", owner_request(f"<subscriptions node='{node}'/>"), PUBSUB)
    return {s.get("jid"): s.get("subscription") for s in answer.iter(f"{{{OWNER}}}subscription")}


def test_subscriptions_for_the_owner(alice, bob):
    create(alice, "weather")
    subscribe(bob, "weather")
    assert node_subscriptions(alice, "weather") == {BOB: "subscribed"}
    payload = owner_request(
        f"<subscriptions node='weather'><subscription jid='{BOB}' subscription='none'/></subscriptions>"
    )
    alice.ok("set", payload, PUBSUB)
    assert node_subscriptions(alice, "weather") == {}
    message = next_event(bob)
    assert change(message) == ("subscription", "weather")
    publish(alice, "weather", "i", "x")
    bob.nothing("message")


def test_owner_subscribes_somebody(alice, bob):
    create(alice, "weather")
    alice.ok(
        "set",
        owner_request(
            f"<subscriptions node='weather'><subscription jid='{BOB}' subscription='subscribed'/></subscriptions>"
        ),
        PUBSUB,
    )
    publish(alice, "weather", "i", "x")
    assert pubsub.next_items(bob) == [("i", "x")]


def test_subscription_list_errors(alice, bob):
    create(alice, "weather")
    forbidden(bob, "get", owner_request("<subscriptions node='weather'/>"))
    forbidden(
        bob,
        "set",
        owner_request(f"<subscriptions node='weather'><subscription jid='{BOB}' subscription='subscribed'/></subscriptions>"),
    )
    missing_node(alice, "get", owner_request("<subscriptions node='nothing'/>"))


def test_own_affiliations_and_subscriptions(alice, bob):
    create(alice, "weather")
    create(bob, "tides")
    subscribe(alice, "tides")
    mine = alice.ok("get", pubsub.request("<affiliations/>"), PUBSUB)
    assert {a.get("node"): a.get("affiliation") for a in mine.iter(f"{{{NS}}}affiliation")} == {"weather": "owner"}
    mine = alice.ok("get", pubsub.request("<subscriptions/>"), PUBSUB)
    assert [s.get("node") for s in mine.iter(f"{{{NS}}}subscription")] == ["tides"]
    none = alice.ok("get", pubsub.request("<subscriptions node='weather'/>"), PUBSUB)
    assert not list(none.iter(f"{{{NS}}}subscription"))
