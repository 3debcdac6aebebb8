"""Work items through a queue node (XEP-0254): each is handed out until somebody is answered that it is done, and never after.

One producer numbers items and repeats, under the same publish-id, what a crash left unanswered. Two consumers compete: they
finish most items, give some back, and now and then just disappear. Items of a group come one after the other, in order.
"""

import socket
import threading
import time

import harness
import pubsub
import queues
import raw
from producer import Producer
from workload import QUIET_S, Actor, Verdict, Workload, ask, wait_for

NODE = "crash-jobs"
REQUESTS = 8  # items a consumer has at a time
GROUPS = 3
POLL_S = 0.2
GIVE_BACK, DISAPPEAR = 0.05, 0.01  # of the items


def group_of(number):
    """A quarter of the items belongs to a group."""
    return f"g{number // 4 % GROUPS}" if number % 4 == 0 else None


class Jobs(Producer):
    def item(self, number):
        group = group_of(number)
        return queues.put_xml(str(number), self.node, **({"Group": group} if group else {}))


class Ledger:
    """What all consumers together saw and finished."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = set()
        self.done = set()  # it was answered
        self.tried = set()  # it was asked for, and the connection ended before the answer
        self.repeated = 0
        self.unmarked = []
        self.disorder = []
        self.again = []  # handed out after it was answered that it is done
        self.highest = {}  # of each group

    def took(self, number, attempt):
        with self.lock:
            if number in self.done:
                self.again.append(number)
            if number in self.seen:
                self.repeated += 1
                if attempt < 2:
                    self.unmarked.append(number)
            elif group_of(number) is not None:
                if number < self.highest.get(group_of(number), -1):
                    self.disorder.append(number)
                self.highest[group_of(number)] = number
            self.seen.add(number)

    def finished(self, number):
        with self.lock:
            self.done.add(number)

    def in_doubt(self, numbers):
        with self.lock:
            self.tried.update(numbers)


class Consumer(Actor):
    def __init__(self, broker, user, ledger, chance, sm):
        super().__init__(broker)
        self.user, self.ledger, self.chance, self.sm = user, ledger, chance, sm
        self.given_back = 0
        self.lock_lost = 0

    def session(self, client):
        client.login(self.user, "worker")
        if self.sm:
            client.enable_sm(resume=False)
        client.available()
        if ask(client, queues.consume_xml(NODE, client.jid, REQUESTS, {})) is None:
            return
        finishing = {}  # id of the request: number
        try:
            self.work(client, finishing)
        finally:
            self.ledger.in_doubt(finishing.values())

    def work(self, client, finishing):
        while not self.stopping.is_set():
            try:
                element = client.read(POLL_S)
            except socket.timeout:
                continue
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif raw.local_name(element) == "iq":
                self.answered(element, finishing)
            elif queues.is_item(element) and not self.handle(client, element, finishing):
                return

    def handle(self, client, message, finishing):
        """False: the consumer disappears with what it has."""
        (item,) = message.findall(f".//{{{pubsub.EVENT}}}item")
        number = int(item.get("id"))
        self.ledger.took(number, int(pubsub.delivery(message).get("attempt")))
        fate = self.chance.random()
        if fate < DISAPPEAR:
            return False
        name = client.new_id()
        if fate < DISAPPEAR + GIVE_BACK:
            self.given_back += 1
            payload = queues.unlock_xml(str(number), node=NODE)
        else:
            finishing[name] = number
            payload = queues.retract_xml(str(number), node=NODE)
        client.send(f"<iq type='set' id='{name}' to='{harness.PUBSUB}'>{payload}</iq>")
        return True

    def answered(self, element, finishing):
        number = finishing.pop(element.get("id"), None)
        if element.get("type") == "result":
            if number is not None:
                self.ledger.finished(number)
        elif raw.condition(element)[1] in ("conflict", "unexpected-request"):
            self.lock_lost += 1  # it was slow, and somebody else has the item
        elif raw.condition(element)[0] != "wait":
            raise AssertionError(raw.show(element))


class Queue(Workload):
    name = "queue"
    producer = None
    consumers = ()

    def prepare(self):
        with raw.Client(self.broker) as client:
            client.login("alice", "maker")
            queues.create_queue(client, NODE, **{"pubsub#access_model": "open"})

    def start(self):
        self.ledger = Ledger()
        self.producer = Jobs(self.broker, "alice", NODE)
        self.consumers = [Consumer(self.broker, user, self.ledger, self.chance, sm) for user, sm in (("bob", True), ("carol", False))]
        for actor in (self.producer, *self.consumers):
            actor.start()

    def leave_owed(self):
        for consumer in self.consumers:
            consumer.offline.set()

    def after_start(self, number):
        for consumer in self.consumers:
            consumer.offline.clear()

    def finish(self):
        self.producer.stop()
        owed = self.producer.acknowledged
        wait_for(lambda: owed <= self.ledger.done | self.ledger.tried)
        time.sleep(QUIET_S)
        for consumer in self.consumers:
            consumer.stop()
        ledger = self.ledger
        failures = [failure for actor in (self.producer, *self.consumers) for failure in actor.failures]
        return Verdict(
            acknowledged=len(owed),
            refused=self.producer.refused,
            lost=sorted(owed - ledger.done - ledger.tried),
            unmarked=len(ledger.unmarked),
            disorder=len(ledger.disorder),
            wrong=failures + [f"{number} again" for number in ledger.again] + ledger.unmarked[:5] + ledger.disorder[:5] + self.left(),
            notes=f"done {len(ledger.done)}, in doubt {len(ledger.tried - ledger.done)}, repeated and marked {ledger.repeated - len(ledger.unmarked)}, given back "
            f"{sum(c.given_back for c in self.consumers)}, connections {[a.connections for a in (self.producer, *self.consumers)]}",
        )

    def left(self):
        """Nothing may stay behind in the queue."""
        with raw.Client(self.broker) as client:
            client.login("alice", "maker")
            return [f"{name} is left in the queue" for name in queues.left(client, NODE)]

    def close(self):
        for actor in (self.producer, *self.consumers):
            if actor:
                actor.offline.clear()
                actor.stopping.set()
