"""Plain XMPP messages with XEP-0198 on both sides: what the broker's h covered reaches the recipient; repetitions are marked.

The sender numbers its messages and never sends one again, so a number that comes twice is the broker's doing and must carry
a <delay/>. Within one session of the recipient numbers only grow, and a number seen for the first time is above all before.
"""

import re
import socket
import time

import harness
import raw
from workload import QUIET_S, Actor, Verdict, Workload, wait_for

WINDOW = 64
ACK_EVERY = 7
POLL_S = 0.2
PAUSE_S = 0.01  # between windows: this workload leaves processor time to the others
NUMBER = re.compile(r"\A\d+\Z")


class Sender(Actor):
    """Sends up to WINDOW messages ahead of what the broker's h covers."""

    def __init__(self, broker, user, to):
        super().__init__(broker)
        self.user, self.to = user, to
        self.next = 0
        self.acknowledged = set()
        self.refused = set()

    def session(self, client):
        client.login(self.user, "sender")
        client.enable_sm(resume=False)
        first, covered = self.next, 0
        while True:
            room = 0 if self.stopping.is_set() else WINDOW - (self.next - first - covered)
            client.send("".join(self.message(self.next + n) for n in range(room)) + f"<r xmlns='{raw.SM}'/>")
            self.next += room
            covered = self.wait_covered(client, first, covered)
            if self.stopping.is_set() and covered == self.next - first:
                return
            time.sleep(PAUSE_S)

    def message(self, number):
        return f"<message to='{self.to}' type='chat' id='{number}'><body>{number}</body></message>"

    def wait_covered(self, client, first, covered):
        """Reads up to the next <a/>; returns its h."""
        while True:
            element = client.read()
            if element.tag == f"{{{raw.SM}}}a":
                h = int(element.get("h"))
                if h < covered or h > self.next - first:
                    raise AssertionError(f"h is {h} after {covered} of {self.next - first}")
                self.acknowledged.update(range(first + covered, first + h))
                return h
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif raw.local_name(element) == "message" and element.get("type") == "error":
                self.refused.add(int(element.get("id")))


class Recipient(Actor):
    """Acknowledges in steps, so that a crash finds some of what it got unacknowledged."""

    def __init__(self, broker, user, resource="recipient"):
        super().__init__(broker)
        self.user, self.resource = user, resource
        self.seen = set()
        self.highest = -1
        self.repeated = 0
        self.unmarked = []
        self.disorder = []

    def session(self, client):
        client.login(self.user, self.resource)
        client.enable_sm(resume=False)
        client.available()
        before, since = -1, 0
        while not (self.stopping.is_set() or self.offline.is_set()):
            try:
                element = client.read(POLL_S)
            except socket.timeout:
                continue
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif raw.local_name(element) == "message":
                before = self.note(element, before)
                since += 1
            if since >= ACK_EVERY:
                client.ack()
                since = 0
        client.ack()
        client.send("</stream:stream>")
        client.wait_closed()

    def note(self, message, before):
        """Returns the number, which the next one of this session must exceed."""
        text = raw.body(message) or ""
        assert NUMBER.match(text), raw.show(message)
        number = int(text)
        if number <= before or (number not in self.seen and number < self.highest):
            self.disorder.append((before, number))
        if number in self.seen:
            self.repeated += 1
            if not raw.has_delay(message):
                self.unmarked.append(number)
        self.seen.add(number)
        self.highest = max(self.highest, number)
        return number


class Messages(Workload):
    """One sender, one recipient who is away now and then, so that its mail waits in the store."""

    name = "messages"
    sender = recipient = None

    def start(self):
        self.sender = Sender(self.broker, "romeo", "juliet@" + harness.DOMAIN)
        self.recipient = Recipient(self.broker, "juliet")
        self.recipient.start()
        self.sender.start()

    def leave_owed(self):
        self.recipient.offline.set()

    def after_start(self, number):
        if self.chance.random() < 0.25:
            self.recipient.offline.set()
        else:
            self.recipient.offline.clear()

    def finish(self):
        self.recipient.offline.clear()
        self.sender.stop()
        owed = self.sender.acknowledged - self.sender.refused
        wait_for(lambda: owed <= self.recipient.seen)
        time.sleep(QUIET_S)
        self.recipient.stop()
        return Verdict(
            acknowledged=len(owed),
            lost=sorted(owed - self.recipient.seen),
            unmarked=len(self.recipient.unmarked),
            disorder=len(self.recipient.disorder),
            wrong=self.sender.failures + self.recipient.failures + self.recipient.disorder[:5] + self.recipient.unmarked[:5],
            notes=f"sent {self.sender.next}, refused {len(self.sender.refused)}, seen {len(self.recipient.seen)}, "
            f"repeated and marked {self.recipient.repeated - len(self.recipient.unmarked)}, "
            f"sessions {self.sender.connections} and {self.recipient.connections}",
        )

    def close(self):
        for actor in (self.sender, self.recipient):
            if actor:
                actor.offline.clear()
                actor.stopping.set()
