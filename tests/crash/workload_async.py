"""A node of durability async: a crash may take the newest of what was acknowledged, and nothing else.

Of each connection of the publisher what is missing must be the end: no hole. What a subscriber has seen must not be lost, nor
its number be given to another item. After an orderly stop nothing is missing.
"""

import collections
import socket
import time

import pubsub
import raw
from producer import Producer
from workload import QUIET_S, Actor, Verdict, Workload, wait_for

NODE = "crash-async"
USER, RESOURCE = "alice", "async"  # an account that is sent no messages
POLL_S = 0.2


class Timed(Producer):
    """Remembers which connection was told of which number: each belongs to one life of the broker."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.by_connection = collections.defaultdict(list)

    def answered(self, element):
        number = self.waiting.get(element.get("id"))
        super().answered(element)
        if number in self.acknowledged:
            self.by_connection[self.connections].append(number)


class Reader(Actor):
    def __init__(self, broker):
        super().__init__(broker)
        self.places = {}  # (epoch, seq): number
        self.seen = {}  # number: (epoch, seq)
        self.wrong = []

    def session(self, client):
        client.login(USER, RESOURCE)
        client.enable_sm(resume=False)
        client.available()
        while not self.stopping.is_set():
            try:
                element = client.read(POLL_S)
            except socket.timeout:
                client.ack()
                continue
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif pubsub.is_event(element) and element.find(f".//{{{pubsub.EVENT}}}item") is not None:
                self.note(element)

    def note(self, message):
        delivery = pubsub.delivery(message)
        place = delivery.get("epoch"), int(delivery.get("seq"))
        number = int(message.find(f".//{{{pubsub.EVENT}}}item").get("id"))
        if self.places.setdefault(place, number) != number:
            self.wrong.append(f"seq {place[1]} was {self.places[place]} and is {number}")
        if self.seen.setdefault(number, place) != place:
            self.wrong.append(f"{number} was seq {self.seen[number][1]} and is {place[1]}")

    def gaps(self):
        """Numbers of items are counted without gaps, whatever was lost."""
        seqs = sorted(seq for _, seq in self.places)
        return [f"nothing between seq {a} and {b}" for a, b in zip(seqs, seqs[1:]) if b != a + 1]


class Async(Workload):
    name = "async"
    producer = reader = None
    before = 0  # what was acknowledged when the broker was last started

    def prepare(self):
        with raw.Client(self.broker) as client:
            client.login("romeo", "maker")
            pubsub.create(client, NODE, access_model="open", **{pubsub.NODE + "durability": "async"})
        with raw.Client(self.broker) as client:
            client.login(USER, RESOURCE)
            pubsub.subscribe(client, NODE, client.jid, **{pubsub.DELIVERY + "mode": "at-least-once"})

    def start(self):
        self.producer = Timed(self.broker, "romeo", NODE)
        self.reader = Reader(self.broker)
        self.reader.start()
        self.producer.start()

    def after_start(self, number):
        self.before = len(self.producer.acknowledged)

    def finish(self):
        wait_for(lambda: len(self.producer.acknowledged) > self.before)  # something comes after the last crash, too
        self.producer.stop()
        last = max(self.producer.acknowledged, default=0)
        wait_for(lambda: last in self.reader.seen)
        time.sleep(QUIET_S)
        self.reader.stop()
        seen = self.reader.seen
        missing = sorted(self.producer.acknowledged - set(seen))
        return Verdict(
            acknowledged=len(self.producer.acknowledged),
            refused=self.producer.refused,
            lost=missing if not self.repeats else self.holes(seen),
            wrong=self.producer.failures + self.reader.failures + self.reader.wrong + self.reader.gaps(),
            notes=f"missing, as is allowed after a crash, {len(missing)}, connections {self.producer.connections}",
        )

    def holes(self, seen):
        """Numbers that are missing although a later one of the same connection is there."""
        found = []
        for numbers in self.producer.by_connection.values():
            there = [number for number in numbers if number in seen]
            found += [number for number in numbers if there and number not in seen and number < max(there)]
        return found

    def close(self):
        for actor in (self.producer, self.reader):
            if actor:
                actor.stopping.set()
