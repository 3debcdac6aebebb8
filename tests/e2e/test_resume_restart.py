"""XEP-0198 sessions over a restart of the broker: after SIGTERM and after SIGKILL a client resumes with the old id, sends again
what the h of <resumed/> does not cover, and nothing acknowledged is lost, nothing comes twice unmarked."""

import signal
import time

import pytest

import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import DELIVERY
from raw import SM, body, has_delay, local_name

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN
RESTARTS = pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])


class Session:
    """A client with a session to resume: remembers its stanzas until they are acknowledged, as XEP-0198 wants it."""

    def __init__(self, broker, connect, user, resource, presence=0):
        self.broker, self.connect, self.user = broker, connect, user
        client = connect(broker, user, resource)
        self.enabled = client.enable_sm()
        self.id = self.enabled.get("id")
        self.unacked, self.h = [], 0
        self.adopt(client)
        if presence is not None:
            client.available(presence)

    def adopt(self, client):
        """What it sends from here on is remembered."""
        write = client.send

        def send(data):
            if data.startswith(("<iq", "<message", "<presence")):
                self.unacked.append(data)
            write(data)

        for data in self.unacked:
            write(data)
        client.send = send
        self.client = client

    def message(self, to, text, kind="chat"):
        self.client.message(to, str(text), kind)

    def publish(self, node, name, request):
        payload = pubsub.publish_xml(node, pubsub.item_xml(name))
        self.client.send(f"<iq type='set' id='{request}' to='{PUBSUB}'>{payload}</iq>")

    def told(self, h):
        assert self.h <= h <= self.h + len(self.unacked)
        del self.unacked[: h - self.h]
        self.h = h

    def settle(self):
        """Waits until everything sent is acknowledged."""
        self.told(self.client.request_ack(self.h + len(self.unacked)))

    def authenticate(self):
        client = self.connect(self.broker)
        client.open()
        assert local_name(client.plain(self.user)) == "success"
        client.open()
        client.jid = self.client.jid
        return client

    def resume(self):
        """On a new connection, and sends again what was not handled; returns what the server had handled."""
        client = self.authenticate()
        answer = client.resume(self.id, self.client.received)
        assert answer.tag == f"{{{SM}}}resumed", answer.tag
        assert answer.get("previd") == self.id
        self.told(int(answer.get("h")))
        self.adopt(client)
        return self.h

    def refused(self, client=None):
        client = client or self.authenticate()
        answer = client.resume(self.id, self.client.received)
        assert answer.tag == f"{{{SM}}}failed" and "item-not-found" in [local_name(c) for c in answer]
        return client

    def bodies(self, count):
        """The next messages: (body, marked)."""
        return [(body(m), has_delay(m)) for m in (self.client.read_message() for _ in range(count))]

    def rest(self):
        """Messages that are there now, and no more come."""
        self.client.ping()
        found = [self.client.read() for _ in range(len(self.client.inbox))]
        return [(body(m), has_delay(m)) for m in found if local_name(m) == "message"]


def numbered(first, last):
    return [str(n) for n in range(first, last)]


# --- what the client sent -----------------------------------------------------------------------------------------


@RESTARTS
def test_messages_sent_are_stored_once(broker, connect, how):
    alice, bob = Session(broker, connect, "alice", "desk"), Session(broker, connect, "bob", "desk")
    for n in range(20):
        alice.message(BOB, n)
    alice.settle()
    for n in range(20, 40):
        alice.message(BOB, n)
    seen = [text for text, _ in bob.bodies(20)]  # so some of the others are stored too, acknowledged or not
    broker.restart(how)
    bob.resume()
    alice.resume()
    alice.settle()
    assert alice.unacked == []
    while len(set(seen)) < 40:
        ((text, marked),) = bob.bodies(1)
        assert marked or text not in seen
        seen.append(text)
    assert bob.rest() == []
    if how == signal.SIGTERM:  # after a crash what arrived a moment before comes again, marked
        assert seen == numbered(0, 40)


@RESTARTS
def test_h_never_goes_back(broker, connect, how):
    """Neither by stanzas that leave nothing on disk."""
    alice = Session(broker, connect, "alice", "desk")
    for n in range(10):
        alice.client.ping()
        alice.message(BOB, n, "headline")
    alice.settle()
    told = alice.h
    broker.restart(how)
    assert alice.resume() == told == 21
    alice.client.ping()


@RESTARTS
def test_requests_are_served_once(broker, connect, how):
    """Each is published once and answered, whether or not request and answer were on their way."""
    alice, bob = Session(broker, connect, "alice", "desk"), Session(broker, connect, "bob", "desk")
    pubsub.create(alice.client, "n")
    pubsub.subscribe(bob.client, "n", bob.client.jid, **{DELIVERY + "mode": "at-least-once"})
    for n in range(60):
        alice.publish("n", f"i{n}", f"q{n}")
    for n in range(4):
        alice.client.read_until(lambda e: e.get("id") == f"q{n}")
    broker.restart(how)
    bob.resume()
    alice.resume()
    for n in range(4, 60):
        answer = alice.client.read_until(lambda e: e.get("id") == f"q{n}")
        assert answer.get("type") == "result"
    seen = {}
    while len(seen) < 60:
        event = bob.client.read_message()
        seq, item = int(pubsub.delivery(event).get("seq")), event.find(f".//{{{pubsub.EVENT}}}item").get("id")
        assert has_delay(event) or seq not in seen
        seen[seq] = item
    assert seen == {n + 1: f"i{n}" for n in range(60)}
    assert bob.rest() == []


@RESTARTS
def test_errors_come_too(broker, connect, how):
    """Also the answer to what changed nothing is not lost."""
    alice = Session(broker, connect, "alice", "desk")
    alice.client.send(f"<iq type='set' id='bad' to='{PUBSUB}'>{pubsub.publish_xml('', pubsub.item_xml('i'))}</iq>")
    alice.settle()
    broker.restart(how)
    alice.resume()
    assert alice.client.read_until(lambda e: e.get("id") == "bad").get("type") == "error"


# --- what the client was sent -------------------------------------------------------------------------------------


@RESTARTS
def test_messages_received_do_not_come_again_unmarked(broker, connect, how):
    bob = Session(broker, connect, "bob", "desk")
    alice = Session(broker, connect, "alice", "desk")
    for n in range(30):
        alice.message(BOB, n)
    alice.settle()
    bob.bodies(10)
    bob.client.ack()
    bob.bodies(10)
    time.sleep(1.2)  # what was sent is recorded
    for n in range(30, 40):
        alice.message(BOB + "/desk", n, "normal")
    alice.settle()
    broker.restart(how)
    bob.resume()
    found = bob.bodies(20)
    assert found == [(n, True) for n in numbered(20, 40)]
    assert bob.rest() == []


@RESTARTS
def test_received_at_the_last_moment(broker, connect, how):
    """After a stop nothing that arrived comes again at all; after a crash it does, marked."""
    bob = Session(broker, connect, "bob", "desk")
    alice = Session(broker, connect, "alice", "desk")
    for n in range(10):
        alice.message(BOB, n)
    alice.settle()
    bob.bodies(10)
    broker.restart(how)
    bob.resume()
    found = bob.rest()
    assert found == [] if how == signal.SIGTERM else all(marked for _, marked in found)


def test_acknowledged_at_the_last_moment(broker, connect):
    """An acknowledgement is on disk after 50 ms at the latest: then what it covers does not come again, whatever h says."""
    bob = Session(broker, connect, "bob", "desk")
    alice = Session(broker, connect, "alice", "desk")
    for n in range(10):
        alice.message(BOB, n)
    alice.settle()
    bob.bodies(10)
    bob.client.ack()
    bob.client.ping()
    time.sleep(0.3)
    broker.restart(signal.SIGKILL)
    bob.client.received = 0  # a client that forgot
    bob.resume()
    assert bob.rest() == []


@RESTARTS
def test_events_go_on(broker, connect, how):
    """An at-least-once subscription: what the client has does not come again, the rest comes in order, marked."""
    alice = connect(broker, "alice", "desk")
    pubsub.create(alice, "n")
    bob = Session(broker, connect, "bob", "reader")
    pubsub.subscribe(bob.client, "n", bob.client.jid, **{DELIVERY + "mode": "at-least-once"})
    for n in range(30):
        pubsub.publish(alice, "n", str(n))
    for _ in range(20):
        bob.client.read_message()
    time.sleep(1.2)
    broker.restart(how)
    bob.resume()
    events = [bob.client.read_message() for _ in range(10)]
    delivery = [pubsub.delivery(e) for e in events]
    assert [int(d.get("seq")) for d in delivery] == list(range(21, 31))
    assert all(int(d.get("attempt")) > 1 for d in delivery) and all(has_delay(e) for e in events)
    alice = connect(broker, "alice", "desk")
    pubsub.publish(alice, "n", "after")
    fresh = pubsub.delivery(bob.client.read_message())
    assert (fresh.get("seq"), fresh.get("attempt")) == ("31", "1")


def test_a_replay_is_not_cut_short(broker, connect):
    """What the client had received before it asked for all of it again does not count, even where only that is on disk."""
    alice = connect(broker, "alice", "desk")
    pubsub.create(alice, "n")
    bob = Session(broker, connect, "bob", "reader")
    pubsub.subscribe(bob.client, "n", bob.client.jid, **{DELIVERY + "mode": "at-least-once"})
    for n in range(10):
        pubsub.publish(alice, "n", str(n))
    for _ in range(10):
        bob.client.read_message()
    time.sleep(1.2)  # what it was sent is recorded
    phone = connect(broker, "bob", "phone")
    phone.ok("set", f"<replay xmlns='{DELIVERY.strip('{}')}' node='n' start='all'/>", PUBSUB)
    broker.restart(signal.SIGKILL)
    bob.resume()
    events = [bob.client.read_message() for _ in range(10)]
    assert [int(pubsub.delivery(e).get("seq")) for e in events] == list(range(1, 11))
    assert all(has_delay(e) for e in events)


def test_messages_of_a_dormant_session_wait(broker, connect):
    bob = Session(broker, connect, "bob", "desk")
    broker.restart()
    alice = connect(broker, "alice", "desk")
    alice.message(bob.client.jid, "to the resource", "normal")
    alice.message(BOB, "to the account")
    alice.ping(BOB)  # on the same way as the messages, so behind them
    bob.resume()
    assert bob.bodies(2) == [("to the resource", True), ("to the account", True)]


# --- what it is ---------------------------------------------------------------------------------------------------


@RESTARTS
def test_presence_is_restored(broker, connect, how):
    bob, other = Session(broker, connect, "bob", "desk", 7), Session(broker, connect, "bob", "phone", 3)
    bob.client.send(f"<presence to='{ALICE}'/>")
    bob.settle()
    other.settle()
    time.sleep(0.3)  # whom presence was sent is recorded soon, not at once
    broker.restart(how)
    bob.resume()
    other.resume()
    alice = connect(broker, "alice", "desk", presence=0)
    alice.message(BOB, "for the best")
    assert body(bob.client.read_message()) == "for the best"
    other.client.nothing("message")
    bob.client.send("</stream:stream>")
    bob.client.wait_closed()
    gone = other.client.read_until(lambda e: local_name(e) == "presence" and e.get("type") == "unavailable")
    assert gone.get("from") == bob.client.jid
    gone = alice.read_until(lambda e: local_name(e) == "presence" and e.get("type") == "unavailable")
    assert gone.get("from") == bob.client.jid


@RESTARTS
def test_unavailable_stays_unavailable(broker, connect, how):
    bob = Session(broker, connect, "bob", "desk")
    bob.client.send("<presence type='unavailable'/>")
    bob.settle()
    broker.restart(how)
    bob.resume()
    alice = connect(broker, "alice", "desk")
    alice.message(BOB, "kept")
    alice.ping()
    bob.client.nothing("message")
    bob.client.send("<presence/>")
    assert bob.bodies(1) == [("kept", True)]


@RESTARTS
def test_carbons_are_restored(broker, connect, how):
    desk, phone = Session(broker, connect, "bob", "desk", 5), Session(broker, connect, "bob", "phone", 0)
    phone.client.ok("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    phone.settle()
    broker.restart(how)
    desk.resume()
    phone.resume()
    alice = connect(broker, "alice", "desk")
    phone.client.ping()
    alice.message(BOB, "copied")
    assert body(desk.client.read_message()) == "copied"
    copy = phone.client.read_message()
    assert copy.find("{urn:xmpp:carbons:2}received") is not None


# --- who gets it --------------------------------------------------------------------------------------------------


@RESTARTS
def test_resumed_again_and_again(broker, connect, how):
    bob = Session(broker, connect, "bob", "desk")
    alice = Session(broker, connect, "alice", "desk")
    for life in range(3):
        alice.message(BOB, life)
        alice.settle()
        assert bob.bodies(1)[0][0] == str(life)
        broker.restart(how)
        bob.resume()
        alice.resume()
        assert all(marked for _, marked in bob.rest())
    bob.client.reset()
    bob.resume()  # and without a restart
    alice.message(BOB, "last")
    assert bob.bodies(1) == [("last", False)]


def test_a_second_resume_takes_over(broker, connect):
    """As without a restart: it proves to be the same client, whose first connection may be dead."""
    bob = Session(broker, connect, "bob", "desk")
    broker.restart()
    first = bob.client
    bob.resume()
    second = bob.client
    bob.resume()
    assert bob.client is not second is not first
    assert second.stream_error() == ("conflict", [])
    assert bob.client.ping().get("type") == "result"


def test_other_account(broker, connect):
    bob = Session(broker, connect, "bob", "desk")
    broker.restart()
    thief = connect(broker)
    thief.open()
    thief.plain("alice")
    thief.open()
    bob.refused(thief)
    assert thief.bind("desk").get("type") == "result"
    bob.resume()


def test_expired(make_broker, connect):
    broker = make_broker({"sm": {"max": "2s"}}).start()
    bob = Session(broker, connect, "bob", "desk")
    late = Session(broker, connect, "alice", "desk")
    late.client.reset()
    time.sleep(1)
    broker.restart()
    time.sleep(1.2)
    late.refused()  # it had lost its connection before the crash
    bob.resume()
    broker.restart()
    time.sleep(2.2)
    client = bob.refused()
    assert client.bind("desk").get("type") == "result"
    client.available()
    connect(broker, "alice", "x").message(BOB, "still here")
    assert body(client.read_message()) == "still here"


@RESTARTS
def test_expired_meanwhile(make_broker, connect, how):
    """A client that comes too late does not send again what was handled."""
    broker = make_broker({"sm": {"max": "2s"}}).start()
    alice = Session(broker, connect, "alice", "desk")
    for n in range(10):
        alice.message(BOB, n)
    alice.settle()
    alice.message(BOB, 10)
    alice.client.ping(BOB)
    broker.restart(how)
    time.sleep(2.2)
    client = alice.authenticate()
    answer = client.resume(alice.id, alice.client.received)
    assert answer.tag == f"{{{SM}}}failed"
    h = answer.get("h")
    assert h == "13" if how == signal.SIGTERM else h in (None, "12", "13")
    if h is not None:
        alice.told(int(h))
    assert client.bind("desk").get("type") == "result"
    alice.adopt(client)
    client.available()
    client.ping(BOB)
    bob = connect(broker, "bob", "desk", presence=0)
    texts = [body(bob.read_message()) for _ in range(11)]
    assert texts == numbered(0, 11)
    if h is not None:
        bob.nothing("message")


def test_its_end_is_told(make_broker, connect):
    """Others of the account, and those it sent directed presence, hear when its time is over."""
    broker = make_broker({"sm": {"max": "2s"}}).start()
    bob, other = Session(broker, connect, "bob", "desk"), Session(broker, connect, "bob", "phone")
    bob.client.send(f"<presence to='{ALICE}'/>")
    bob.settle()
    other.settle()
    time.sleep(0.3)  # whom presence was sent is recorded soon, not at once
    broker.restart()
    other.resume()
    alice = connect(broker, "alice", "desk", presence=0)
    for client in (other.client, alice):
        gone = client.read_until(
            lambda e: local_name(e) == "presence"
            and e.get("type") == "unavailable"
            and e.get("from") == bob.client.jid
        )
        assert gone is not None


def test_binding_the_resource_ends_it(broker, connect):
    bob = Session(broker, connect, "bob", "desk")
    broker.restart()
    client = connect(broker, "bob", "desk", presence=0)
    bob.refused()
    assert client.ping().get("type") == "result"
    broker.restart()
    bob.refused()


def test_a_closed_session_is_over(broker, connect):
    bob = Session(broker, connect, "bob", "desk")
    bob.client.send("</stream:stream>")
    bob.client.wait_closed()
    time.sleep(0.3)
    broker.restart()
    bob.refused()


@RESTARTS
@pytest.mark.parametrize("shards", [1, 3, 5])
def test_other_number_of_shards(make_broker, connect, how, shards):
    broker = make_broker().start()
    bob, alice = Session(broker, connect, "bob", "desk"), Session(broker, connect, "alice", "desk")
    pubsub.create(alice.client, "n")
    pubsub.subscribe(bob.client, "n", bob.client.jid, **{DELIVERY + "mode": "at-least-once"})
    for n in range(5):
        alice.publish("n", str(n), f"q{n}")
        alice.message(BOB, n)
    alice.settle()
    for _ in range(10):
        bob.client.read_message()
    time.sleep(1.2)
    broker.config["shards"] = shards
    broker.write_config()
    broker.restart(how)
    bob.resume()
    alice.resume()
    assert bob.rest() == []
    alice.message(BOB, "after")
    assert bob.bodies(1) == [("after", False)]


# --- the rest -----------------------------------------------------------------------------------------------------


def test_location(make_broker, connect):
    broker = make_broker({"sm": {"location": "[::1]:5222"}}).start()
    assert Session(broker, connect, "bob", "desk").enabled.get("location") == "[::1]:5222"


def test_figures(broker, connect):
    bob = Session(broker, connect, "bob", "desk")
    broker.restart()
    bob.resume()
    out = broker.xylem("admin", "stats").stdout
    figures = dict(line.split() for line in out.splitlines() if len(line.split()) == 2)
    assert figures["sessions_restored"] == "1" and figures["sessions"] >= "1"


@RESTARTS
def test_a_stopped_reader(make_broker, connect, how):
    """Far more than an outbox holds: it waits on the disk, the stream is not closed for it, and a restart changes nothing."""
    broker = make_broker({"limits": {"outbox": "64kb"}}).start()
    bob, alice = Session(broker, connect, "bob", "desk"), Session(broker, connect, "alice", "desk")
    for n in range(400):
        alice.message(BOB, f"{n} " + "x" * 2000)
    alice.settle()  # nobody has read any of it
    seen = [text.split()[0] for text, _ in bob.bodies(5)]
    bob.client.ack()
    broker.restart(how)
    bob.resume()
    alice.resume()
    while len(set(seen)) < 400:
        ((text, marked),) = bob.bodies(1)
        number = text.split()[0]
        assert marked or number not in seen
        seen.append(number)
        if len(seen) % 20 == 0:
            bob.client.ack()
    assert sorted(set(seen), key=int) == numbered(0, 400)
    assert bob.client.ping().get("type") == "result"
