"""What every workload of the crash tests is: something that uses the broker through crashes and can judge it afterwards.

crash.py drives them: prepare() once, start(), then before_crash()/after_start() around each crash, finish() at the end with
a Verdict, close() in any case. A workload that is a raw client runs as an Actor: a thread that connects again and again.
"""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
import raw  # noqa: E402

SETTLE_S = 90
QUIET_S = 0.5  # what should not come has that long to come


def ask(client, payload):
    """A request to the service; None if there is no room for it now: the session may try again later."""
    answer = client.iq("set", payload, harness.PUBSUB)
    if answer.get("type") == "result":
        return answer
    assert raw.condition(answer)[0] == "wait", raw.show(answer)
    time.sleep(0.2)
    return None


@dataclasses.dataclass
class Verdict:
    acknowledged: int = 0
    refused: int = 0  # for want of room, which is no loss
    lost: list = dataclasses.field(default_factory=list)
    duplicates: int = 0  # shown to an application that sees everything once
    unmarked: int = 0  # repetitions to plain clients that do not say so
    disorder: int = 0
    wrong: list = dataclasses.field(default_factory=list)  # anything else that must not be
    notes: str = ""

    def good(self):
        return self.acknowledged > 0 and not (self.lost or self.duplicates or self.unmarked or self.disorder or self.wrong)

    def __str__(self):
        text = (
            f"acknowledged {self.acknowledged}, refused {self.refused}, lost {len(self.lost)}, duplicates seen by the application "
            f"{self.duplicates}, unmarked duplicates {self.unmarked}, out of order {self.disorder}"
        )
        for title, values in (("wrong", self.wrong), ("lost", self.lost)):
            text += f"\n    {title}: {values[:20]}" if values else ""
        return text + (f" ({self.notes})" if self.notes else "")


class Workload:
    """The hooks; `chance` is a seeded generator of this workload's own."""

    name = ""
    repeats = True  # whether crashes may make the broker send again what a resumed session has

    def __init__(self, broker, chance):
        self.broker = broker
        self.chance = chance

    def prepare(self):
        pass

    def start(self):
        pass

    def leave_owed(self):
        """From here on nobody takes what is acknowledged, so that it is still owed when the crash comes."""

    def before_crash(self, number):
        pass

    def after_start(self, number):
        pass

    def finish(self):
        raise NotImplementedError

    def close(self):
        pass


def wait_for(condition):
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Program:
    """A program with its output in a file, so that nothing waits on a pipe."""

    def __init__(self, broker, program, name, *arguments):
        self.out = os.path.join(broker.folder, name + ".out")
        self.err = os.path.join(broker.folder, name + ".err")
        self.command = [harness.program(program), str(broker.port), *arguments]
        self.process = None

    def start(self):
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def stop(self, timeout=40):
        self.process.terminate()
        status = self.process.wait(timeout)
        if status not in (0, -signal.SIGTERM):  # the latter: told to stop before it had begun
            raise AssertionError(f"{self.command[0]} ended with {status}:\n{self.errors()}")

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def lines(self):
        with open(self.out, encoding="ascii") as file:
            return [line.split() for line in file.read().splitlines()]

    def errors(self):
        with open(self.err, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-20:])


class Actor(threading.Thread):
    """A raw client that lives through crashes. session(client) is called with each new connection until it returns after
    stop(), or ends by losing the connection; whatever else it raises is a failure of the test."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker = broker
        self.stopping = threading.Event()
        self.offline = threading.Event()  # set: do not connect for now
        self.failures = []
        self.connections = 0

    def session(self, client):
        raise NotImplementedError

    def connect(self):
        return raw.Client(self.broker)

    def run(self):
        while not self.stopping.is_set():
            if self.offline.is_set():
                time.sleep(0.01)
                continue
            try:
                with self.connect() as client:
                    self.connections += 1
                    self.session(client)
            except (raw.Closed, OSError, socket.timeout):
                time.sleep(0.01)
            except (AssertionError, ET.ParseError) as error:
                # A broker that stops says so, at any point of a login: it refuses, or ends a stream before it began.
                if not self.broker.orderly:
                    self.failures.append(repr(error))
                    return
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(repr(error))
                return

    def stop(self):
        self.stopping.set()
        if self.ident is not None:
            self.join(SETTLE_S)
            if self.is_alive():
                self.failures.append("does not end")
