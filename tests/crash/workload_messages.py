"""Plain XMPP messages with XEP-0198 on both sides: what the broker's h covered reaches the recipient; repetitions are marked.

The sender numbers its messages and sends one again only where XEP-0198 says so, after a resumption. So a number that comes
twice is the broker's doing and must carry a <delay/>; within one session of the recipient numbers only grow, but for what
is repeated when it is resumed after a crash, and a number seen for the first time is above all before. Used without
resumption, and with it over a wire that is cut.
"""

import collections
import re
import socket
import threading
import time

import harness
import raw
from wire import CUTS, Wire
from workload import QUIET_S, Actor, Verdict, Workload, wait_for

WINDOW = 64
ACK_EVERY = 7
POLL_S = 0.2
SILENCE_S = 0.4  # a client that hears nothing for so long, and gets no answer either, takes its connection for dead
CUT_S = (0.2, 1.2)  # time between two cuts of a wire
PAUSE_S = 0.01  # between windows: this workload leaves processor time to the others
NUMBER = re.compile(r"\A\d+\Z")


class Resumer(Actor):
    """An Actor whose session goes on over the next connection where the broker lets it."""

    def __init__(self, broker, user, resource, resume=False):
        super().__init__(broker)
        self.user, self.resource, self.wants_resume = user, resource, resume
        self.previous = None  # id of the session that could be resumed
        self.received = 0
        self.resumed = 0
        self.refused_resumes = 0

    def session(self, client):
        client.open()
        assert raw.local_name(client.plain(self.user)) == "success"
        client.open()
        if not self.resume(client):
            self.begin(client)
        try:
            self.work(client)
        finally:
            self.received = client.received

    def resume(self, client):
        if self.previous is None:
            return False
        answer = client.resume(self.previous, self.received)
        h = answer.get("h")
        if raw.local_name(answer) == "resumed":
            self.resumed += 1
            self.on_resumed(client, int(h))
            return True
        self.previous = None
        self.refused_resumes += 1
        self.on_ended(None if h is None else int(h))
        return False

    def begin(self, client):
        assert client.bind(self.resource).get("type") == "result"
        self.previous = client.enable_sm(resume=self.wants_resume).get("id")
        self.received = 0
        self.on_begun(client)

    def work(self, client):
        raise NotImplementedError

    def on_begun(self, client):
        raise NotImplementedError

    def on_resumed(self, client, h):
        raise NotImplementedError

    def on_ended(self, h):
        """The session is gone; h, if told, is what the broker had handled of it."""
        raise NotImplementedError


class Sender(Resumer):
    """Sends up to WINDOW messages ahead of what the broker's h covers."""

    def __init__(self, broker, user, to, resume=False):
        super().__init__(broker, user, "sender", resume)
        self.to = to
        self.next = 0
        self.covered = 0  # h of this session
        self.unknown = collections.deque()  # sent and not covered
        self.acknowledged = set()
        self.refused = set()

    def on_begun(self, client):
        self.covered = 0
        self.unknown.clear()

    def on_resumed(self, client, h):
        self.cover(h)
        client.send("".join(self.message(number) for number in self.unknown))

    def on_ended(self, h):
        if h is not None:
            self.cover(h)

    def work(self, client):
        while True:
            room = 0 if self.stopping.is_set() else WINDOW - len(self.unknown)
            numbers = range(self.next, self.next + room)
            self.next += room
            self.unknown.extend(numbers)
            client.send("".join(self.message(number) for number in numbers) + f"<r xmlns='{raw.SM}'/>")
            self.wait_covered(client)
            if self.stopping.is_set() and not self.unknown:
                return
            time.sleep(PAUSE_S)

    def message(self, number):
        return f"<message to='{self.to}' type='chat' id='{number}'><body>{number}</body></message>"

    def cover(self, h):
        if not 0 <= h - self.covered <= len(self.unknown):
            raise AssertionError(f"h is {h} after {self.covered}, {len(self.unknown)} not covered")
        self.acknowledged.update(self.unknown.popleft() for _ in range(h - self.covered))
        self.covered = h

    def wait_covered(self, client):
        """Reads up to the next <a/>."""
        while True:
            element = client.read(SILENCE_S if self.wants_resume else None)
            if element.tag == f"{{{raw.SM}}}a":
                self.cover(int(element.get("h")))
                return
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif raw.local_name(element) == "message" and element.get("type") == "error":
                self.refused.add(int(element.get("id")))


class Recipient(Resumer):
    """Acknowledges in steps, so that a crash finds some of what it got unacknowledged."""

    def __init__(self, broker, user, resume=False):
        super().__init__(broker, user, "recipient", resume)
        self.seen = set()
        self.before = -1  # number that the next one of this session must exceed
        self.life = 0  # of the broker, in which the session was last begun or resumed
        self.highest = -1
        self.repeated = 0
        self.unmarked = []
        self.disorder = []

    def on_begun(self, client):
        self.before, self.life = -1, self.broker.lives
        client.available()

    def on_resumed(self, client, h):
        if h == 0:  # what the broker did not handle is sent again, and that is the presence
            client.send("<presence/>")
        if self.life != self.broker.lives:
            self.before, self.life = -1, self.broker.lives

    def on_ended(self, h):
        pass

    def work(self, client):
        since, heard = 0, time.monotonic()
        while not (self.stopping.is_set() or self.offline.is_set()):
            try:
                element = client.read(POLL_S)
            except socket.timeout:
                if self.wants_resume and time.monotonic() - heard > SILENCE_S:
                    client.request_ack(timeout=SILENCE_S)
                    heard = time.monotonic()
                continue
            heard = time.monotonic()
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif raw.local_name(element) == "message":
                self.note(element)
                since += 1
            if since >= ACK_EVERY:
                client.ack()
                since = 0
        self.leave(client)

    def leave(self, client):
        client.ack()
        self.previous = None
        client.send("</stream:stream>")
        client.wait_closed()

    def note(self, message):
        text = raw.body(message) or ""
        assert NUMBER.match(text), raw.show(message)
        number = int(text)
        if number <= self.before or (number not in self.seen and number < self.highest):
            self.disorder.append((self.before, number))
        if number in self.seen:
            self.repeated += 1
            if not raw.has_delay(message):
                self.unmarked.append(number)
        self.seen.add(number)
        self.before = number
        self.highest = max(self.highest, number)


class Messages(Workload):
    """One sender, one recipient who is away now and then, so that its mail waits in the store."""

    name = "messages"
    users = ("romeo", "juliet")
    resume = False
    sender = recipient = None

    def reach(self):
        return self.broker

    def start(self):
        self.sender = Sender(self.reach(), self.users[0], f"{self.users[1]}@{harness.DOMAIN}", self.resume)
        self.recipient = Recipient(self.reach(), self.users[1], self.resume)
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
            refused=len(self.sender.refused),
            duplicates=0 if self.repeats or not self.resume else self.recipient.repeated,
            lost=sorted(owed - self.recipient.seen),
            unmarked=len(self.recipient.unmarked),
            disorder=len(self.recipient.disorder),
            wrong=self.sender.failures + self.recipient.failures + self.recipient.disorder[:5] + self.recipient.unmarked[:5],
            notes=self.notes(),
        )

    def notes(self):
        sender, recipient = self.sender, self.recipient
        return (
            f"sent {sender.next}, seen {len(recipient.seen)}, repeated and marked "
            f"{recipient.repeated - len(recipient.unmarked)}, connections {sender.connections} and {recipient.connections}"
        )

    def close(self):
        for actor in (self.sender, self.recipient):
            if actor:
                actor.offline.clear()
                actor.stopping.set()


class Cutter(threading.Thread):
    """Cuts one wire or the other now and then, whatever the broker is doing."""

    def __init__(self, wires, chance):
        super().__init__(daemon=True)
        self.wires, self.chance = wires, chance
        self.stopping = threading.Event()
        self.cuts = collections.Counter()

    def run(self):
        while not self.stopping.wait(self.chance.uniform(*CUT_S)):
            how = self.chance.choice(CUTS)
            self.cuts[how] += self.chance.choice(self.wires).cut(how)

    def stop(self):
        self.stopping.set()
        if self.ident is not None:
            self.join()


class Links(Messages):
    """The same with resumption, over wires that are also cut while the broker lives."""

    name = "links"
    users = ("carol", "dave")
    resume = True

    def __init__(self, broker, chance):
        super().__init__(broker, chance)
        self.wires = []
        self.cutter = Cutter(self.wires, chance)

    def reach(self):
        self.wires.append(Wire(self.broker))
        return self.wires[-1]

    def start(self):
        super().start()
        self.cutter.start()

    def finish(self):
        self.cutter.stop()
        return super().finish()

    def notes(self):
        cut = ", ".join(f"{how} {count}" for how, count in sorted(self.cutter.cuts.items()))
        return (
            f"{super().notes()}, cut {cut}, resumed {self.sender.resumed} and {self.recipient.resumed}, "
            f"resumption refused {self.sender.refused_resumes} and {self.recipient.refused_resumes}"
        )

    def close(self):
        super().close()
        self.cutter.stop()
        for wire in self.wires:
            wire.close()
