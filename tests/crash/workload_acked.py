"""Items acknowledged one by one, out of order: by <ack/> in IQ-sets and messages, and by receipts (XEP-0184); some given up.

What the broker said it has of an acknowledgement, by answering the IQ or by an h that covers the message, must keep the item
from ever coming again; everything else must come again, marked, until it is acknowledged. What was given up must be in the node of the dead letters, once.
"""

import socket
import time

import harness
import pubsub
import queues
import raw
from producer import Producer
from workload import QUIET_S, Actor, Verdict, Workload, ask, wait_for

NODE, DEAD = "crash-acked", "crash-dead"
RECEIPTS = "urn:xmpp:receipts"
RSM = "http://jabber.org/protocol/rsm"
INFLIGHT = 24
HELD = 12  # items that wait at the consumer; it finishes a random one of them when there are more
POLL_S = 0.2
ASK_EVERY = 8  # stanzas
GIVE_BACK, GIVE_UP, DISAPPEAR, BY_MESSAGE = 0.05, 0.05, 0.005, 0.5
OPTION = pubsub.DELIVERY


class Consumer(Actor):
    """`ack`: explicit or receipt."""

    def __init__(self, broker, user, ack, chance):
        super().__init__(broker)
        self.user, self.ack, self.chance = user, ack, chance
        self.seen = set()
        self.done = set()  # the broker has the acknowledgement
        self.tried = set()  # it was sent
        self.highest = -1
        self.repeated = 0
        self.given_back = 0
        self.given_up = set()  # the broker has it that they are
        self.maybe_given_up = set()
        self.wrong = []

    def session(self, client):
        self.sent, self.covers, self.asked, self.held = 0, {}, {}, []  # stanzas and what they said of which number
        client.login(self.user, self.ack)
        client.enable_sm(resume=False)
        self.sent += 1
        options = {OPTION + "mode": "at-least-once", OPTION + "ack": self.ack, OPTION + "max_inflight": INFLIGHT}
        if self.ack == "explicit":
            options[OPTION + "dead_letter"] = DEAD
        answer = ask(client, pubsub.subscribe_xml(NODE, client.jid, options))
        if answer is None:
            return
        self.subid = answer.find(f".//{{{pubsub.NS}}}subscription").get("subid")
        self.sent += 1
        client.available()
        while not self.stopping.is_set():
            try:
                element = client.read(POLL_S)
            except socket.timeout:
                self.finish_all(client)
                continue
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif element.tag == f"{{{raw.SM}}}a":
                self.covered(int(element.get("h")))
            elif raw.local_name(element) == "iq":
                self.answered(element)
            elif pubsub.is_event(element) and element.find(f".//{{{pubsub.EVENT}}}item") is not None:
                if not self.handle(client, element):
                    return

    def handle(self, client, message):
        """False: the consumer disappears."""
        delivery = pubsub.delivery(message)
        number = int(message.find(f".//{{{pubsub.EVENT}}}item").get("id"))
        self.note(number, int(delivery.get("attempt")), raw.has_delay(message))
        self.held.append((number, delivery.get("epoch"), delivery.get("seq"), message.get("id")))
        if self.chance.random() < DISAPPEAR:
            return False
        if len(self.held) > HELD:
            self.finish(client, self.held.pop(self.chance.randrange(len(self.held))))
        return True

    def note(self, number, attempt, delayed):
        if number in self.done:
            self.wrong.append(f"{number} again after it was acknowledged")
        if number in self.seen:
            self.repeated += 1
            if attempt < 2 or not delayed:
                self.wrong.append(f"{number} again and not marked (attempt {attempt})")
        elif number < self.highest:
            self.wrong.append(f"{number} for the first time after {self.highest}")
        self.seen.add(number)
        self.highest = max(self.highest, number)

    def finish_all(self, client):
        while self.held:
            self.finish(client, self.held.pop())
        client.send(f"<r xmlns='{raw.SM}'/>")

    def finish(self, client, item):
        number, epoch, seq, message_id = item
        fate = self.chance.random()
        if self.ack == "receipt":
            self.settle(client, number, f"<received xmlns='{RECEIPTS}' id='{message_id}'/>", asking=False)
            return
        which = f"xmlns='urn:xylem:delivery:0' node='{NODE}' subid='{self.subid}' epoch='{epoch}' seq='{seq}'"
        if fate < GIVE_BACK:
            self.given_back += 1
            self.message(client, f"<nack {which}/>")
        elif fate < GIVE_BACK + GIVE_UP:
            self.maybe_given_up.add(number)
            self.settle(client, number, f"<term {which}/>", self.chance.random() > BY_MESSAGE, gives_up=True)
        else:
            self.settle(client, number, f"<ack {which}/>", self.chance.random() > BY_MESSAGE)

    def settle(self, client, number, payload, asking, gives_up=False):
        self.tried.add(number)
        if asking:
            name = client.new_id()
            self.sent += 1
            self.asked[name] = (number, gives_up)
            client.send(f"<iq type='set' id='{name}' to='{harness.PUBSUB}'>{payload}</iq>")
        else:
            self.message(client, payload)
        self.covers[self.sent] = (number, gives_up)
        if self.sent % ASK_EVERY == 0:
            client.send(f"<r xmlns='{raw.SM}'/>")

    def message(self, client, payload):
        self.sent += 1
        client.send(f"<message to='{harness.PUBSUB}' id='{client.new_id()}'>{payload}</message>")

    def has(self, number, given_up):
        """The broker says that it has what we said of it."""
        self.done.add(number)
        if given_up:
            self.given_up.add(number)

    def covered(self, h):
        for at in [at for at in self.covers if at <= h]:
            self.has(*self.covers.pop(at))

    def answered(self, element):
        asked = self.asked.pop(element.get("id"), None)
        if element.get("type") == "result" and asked is not None:
            self.has(*asked)
        elif element.get("type") == "error" and raw.condition(element)[0] != "wait":
            raise AssertionError(raw.show(element))


class Acked(Workload):
    name = "acked"
    producer = None
    consumers = ()

    def prepare(self):
        with raw.Client(self.broker) as client:
            client.login("alice", "maker")
            pubsub.create(client, NODE, access_model="open")

    def start(self):
        self.producer = Producer(self.broker, "alice", NODE)
        self.consumers = [Consumer(self.broker, user, ack, self.chance) for user, ack in (("bob", "explicit"), ("romeo", "receipt"))]
        for consumer in self.consumers:
            consumer.start()
        assert wait_for(lambda: all(self.subscribed(consumer) for consumer in self.consumers))
        self.producer.start()

    def subscribed(self, consumer):
        return getattr(consumer, "subid", None) is not None or consumer.failures

    def leave_owed(self):
        for consumer in self.consumers:
            consumer.offline.set()

    def after_start(self, number):
        for consumer in self.consumers:
            consumer.offline.clear()

    def finish(self):
        self.producer.stop()
        owed = self.producer.acknowledged
        wait_for(lambda: all(owed <= consumer.done | consumer.tried for consumer in self.consumers))
        time.sleep(QUIET_S)
        for consumer in self.consumers:
            consumer.stop()
        dead = self.dead_letters()
        explicit = self.consumers[0]
        return Verdict(
            acknowledged=len(owed),
            refused=self.producer.refused,
            lost=[(c.ack, number) for c in self.consumers for number in sorted(owed - c.done - c.tried)],
            wrong=[f"{n} was given up and is not in the dead letters" for n in sorted(explicit.given_up - set(dead))]
            + [f"{n} is in the dead letters, and nobody gave it up" for n in sorted(set(dead) - explicit.maybe_given_up)]
            + [f"{len(dead) - len(set(dead))} dead letters are there twice"] * (len(dead) != len(set(dead)))
            + [w for actor in (self.producer, *self.consumers) for w in actor.failures] + [w for c in self.consumers for w in c.wrong],
            notes=f"dead letters {len(dead)}; "
            + "; ".join(
                f"{c.ack}: done {len(c.done)}, repeated and marked {c.repeated}, given back {c.given_back}, connections {c.connections}"
                for c in self.consumers
            ),
        )

    def dead_letters(self):
        """Numbers, all that there are, from the headers that say what they were."""
        numbers = []
        with raw.Client(self.broker) as client:
            client.login("bob", "reader")
            after = ""
            while True:
                page = f"<set xmlns='{RSM}'><max>100</max>{after}</set>"
                payload = pubsub.request(f"<items node='{DEAD}'/>{page}")
                answer = client.iq("get", payload, harness.PUBSUB)
                if answer.get("type") == "error" and raw.condition(answer)[1] == "item-not-found":
                    return numbers
                found = [h.text for h in answer.iter(f"{{{queues.SHIM}}}header") if h.get("name") == "Xylem-Dead-Id"]
                if not found:
                    return numbers
                numbers += [int(text) for text in found]
                after = "<after>" + answer.find(f".//{{{RSM}}}last").text + "</after>"

    def close(self):
        for actor in (self.producer, *self.consumers):
            if actor:
                actor.offline.clear()
                actor.stopping.set()
