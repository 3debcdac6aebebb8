"""What the server answers by itself: ping, disco, version, last activity, time; by hand and by slixmpp."""

import re

import library
import pytest
import raw
from harness import DOMAIN, PUBSUB

INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"
ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN


@pytest.fixture
def alice(broker, connect):
    return connect(broker, "alice", "desk")


@pytest.mark.parametrize("to", [None, DOMAIN, ALICE])
def test_ping(alice, to):
    answer = alice.ping(to)
    assert answer.get("type") == "result" and len(answer) == 0
    assert answer.get("from", ALICE) == (to or ALICE)


async def test_slixmpp_ping_and_disco(broker):
    client = await library.connect(broker, "alice", plugins=("xep_0092", "xep_0202", "xep_0012"))
    await client["xep_0199"].ping(DOMAIN, timeout=10)
    info = await client["xep_0030"].get_info(DOMAIN, timeout=10)
    assert ("server", "im") in [(i[0], i[1]) for i in info["disco_info"]["identities"]]
    assert "urn:xmpp:ping" in info["disco_info"]["features"]
    version = await client["xep_0092"].get_version(DOMAIN, timeout=10)
    assert version["software_version"]["name"] == "Xylem"
    time = await client["xep_0202"].get_entity_time(DOMAIN, timeout=10)
    assert time["entity_time"].xml.findtext("{urn:xmpp:time}utc")
    uptime = await client["xep_0012"].get_last_activity(DOMAIN, timeout=10)
    assert 0 <= uptime["last_activity"]["seconds"] < 60
    await client.close()


def test_server_info(alice):
    answer = alice.ok("get", f"<query xmlns='{INFO}'/>", DOMAIN)
    features = [f.get("var") for f in answer.iter(f"{{{INFO}}}feature")]
    for feature in (INFO, ITEMS, "urn:xmpp:ping", "jabber:iq:version", "jabber:iq:last", "urn:xmpp:time", "msgoffline"):
        assert feature in features, feature
    assert len(features) == len(set(features))


def test_server_items_name_the_pubsub_service(alice):
    answer = alice.ok("get", f"<query xmlns='{ITEMS}'/>", DOMAIN)
    assert PUBSUB in [i.get("jid") for i in answer.iter(f"{{{ITEMS}}}item")]


def test_pubsub_info(alice):
    answer = alice.ok("get", f"<query xmlns='{INFO}'/>", PUBSUB)
    identities = [(i.get("category"), i.get("type")) for i in answer.iter(f"{{{INFO}}}identity")]
    assert ("pubsub", "service") in identities


def test_account_info(alice):
    answer = alice.ok("get", f"<query xmlns='{INFO}'/>", ALICE)
    identities = [(i.get("category"), i.get("type")) for i in answer.iter(f"{{{INFO}}}identity")]
    assert ("account", "admin") in identities  # alice is one; others are "registered"


def test_account_info_of_a_stranger_tells_nothing(alice):
    """XEP-0030 section 8: an account and none look alike to those who may not see its presence."""
    for to in (BOB, "nobody@" + DOMAIN):
        assert alice.refused("get", f"<query xmlns='{INFO}'/>", to)[1] == "service-unavailable"


@pytest.mark.parametrize("namespace", [INFO, ITEMS])
def test_unknown_disco_node(alice, namespace):
    assert alice.refused("get", f"<query xmlns='{namespace}' node='no-such-node'/>", DOMAIN)[1] == "item-not-found"


def test_disco_cannot_be_set(alice):
    assert alice.refused("set", f"<query xmlns='{INFO}'/>", DOMAIN)[1] in (
        "service-unavailable",
        "bad-request",
        "feature-not-implemented",
        "not-allowed",
    )


def test_version(alice):
    answer = alice.ok("get", "<query xmlns='jabber:iq:version'/>", DOMAIN)
    assert answer.findtext(".//{jabber:iq:version}name") == "Xylem"
    assert answer.findtext(".//{jabber:iq:version}version")


def test_time(alice):
    answer = alice.ok("get", "<time xmlns='urn:xmpp:time'/>", DOMAIN)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", answer.findtext(".//{urn:xmpp:time}utc"))
    assert re.fullmatch(r"Z|[+-]\d\d:\d\d", answer.findtext(".//{urn:xmpp:time}tzo"))


def last(client, to):
    return client.ok("get", "<query xmlns='jabber:iq:last'/>", to).find("{jabber:iq:last}query")


def test_last_activity(broker, connect, alice):
    assert 0 <= int(last(alice, DOMAIN).get("seconds")) < 60
    alice.available()
    assert last(alice, ALICE).get("seconds") == "0"
    # of a stranger: forbidden, whether there or not (XEP-0012 section 4)
    for to in (BOB, "nobody@" + DOMAIN):
        assert alice.refused("get", "<query xmlns='jabber:iq:last'/>", to)[1] in ("forbidden", "service-unavailable")


@pytest.mark.parametrize(
    "stanza",
    [
        "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='fetch' id='b'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq id='b'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='b'/>",
        "<iq type='set' id='b'/>",
        "<iq type='get' id='b'><ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/></iq>",
    ],
)
def test_malformed_iq(alice, stanza):
    alice.send(stanza)
    answer = alice.read_name("iq")
    assert answer.get("type") == "error" and raw.condition(answer)[:2] == ("modify", "bad-request")
    assert alice.ping().get("type") == "result"
