#!/usr/bin/python3
"""Kills the broker with SIGKILL at random moments while items are published, and counts what became of them.

One publisher and one durable subscriber, both over the SDK, live through all rounds; the subscriber is also restarted now
and then and goes on from its position file. Every round lets them work for a random time, kills, restarts. At the end
every item that the broker acknowledged to the publisher must have been shown to the subscriber, once.

usage: crash.py [--rounds N] [--seed N]      (XYLEM_BIN: the programs; XYLEM_TEST_SHARDS: as in the end-to-end tests)
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402

NODE = "crash"
SETTLE_S = 60


class Client:
    """A program with its output in a file, so that nothing waits on a pipe."""

    def __init__(self, broker, name, *arguments):
        self.out = os.path.join(broker.folder, name + ".out")
        self.err = os.path.join(broker.folder, name + ".err")
        self.command = [harness.program("crash-" + name), str(broker.port), *arguments]
        self.process = None

    def start(self):
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def stop(self, timeout=40):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        if status != 0:
            raise SystemExit(f"crash: {self.command[0]} ended with {status}:\n{self.errors()}")

    def lines(self):
        with open(self.out, encoding="ascii") as file:
            return [line.split() for line in file.read().splitlines()]

    def errors(self):
        with open(self.err, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-20:])


def run(rounds, seed):
    chance = random.Random(seed)
    broker = harness.Broker({"log": {"level": "warning"}})
    publisher = subscriber = None
    try:
        broker.start()
        made = broker.xylem("--as", "alice@" + harness.DOMAIN, "node", "create", NODE, "--set", "pubsub#access_model=open")
        assert made.returncode == 0, made.stderr
        subscriber = Client(broker, "subscriber", "bob@" + harness.DOMAIN + "/crash", harness.USERS["bob"], NODE,
                            os.path.join(broker.folder, "state"))
        subscriber.start()
        while "subscribed: yes" not in subscriber.errors():
            assert subscriber.process.poll() is None, subscriber.errors()
            time.sleep(0.05)
        publisher = Client(broker, "publisher", "alice@" + harness.DOMAIN + "/crash", harness.USERS["alice"], NODE, "1")
        publisher.start()
        for number in range(rounds):
            time.sleep(chance.uniform(0.02, 0.4))
            if number % 10 == 9:
                subscriber.stop()
            broker.kill()
            time.sleep(chance.uniform(0.0, 0.1))
            broker.start()
            if number % 10 == 9:
                subscriber.start()
        time.sleep(0.5)
        publisher.stop()
        return settle(broker, publisher, subscriber, rounds, seed)
    finally:
        for client in (publisher, subscriber):
            if client and client.process.poll() is None:
                client.process.kill()
                client.process.wait()
        broker.finish()


def settle(broker, publisher, subscriber, rounds, seed):
    acknowledged = {int(line[0]) for line in publisher.lines()}
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        shown = [int(line[1]) for line in subscriber.lines()]
        if acknowledged <= set(shown):
            break
        time.sleep(0.2)
    time.sleep(0.5)  # what should not come has time to come
    subscriber.stop()
    shown = [int(line[1]) for line in subscriber.lines()]
    seqs = [int(line[0]) for line in subscriber.lines()]
    lost = acknowledged - set(shown)
    doubles = len(shown) - len(set(shown))
    disorder = sum(1 for a, b in zip(seqs, seqs[1:]) if b <= a)
    print(subscriber.errors().splitlines()[-1])
    print(f"seed {seed}: rounds {rounds}, acknowledged {len(acknowledged)}, lost {len(lost)}, "
          f"duplicates seen by the application {doubles}, out of order {disorder}")
    if lost:
        print("lost:", sorted(lost)[:20], broker.log(20))
    return 0 if acknowledged and not lost and not doubles and not disorder else 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("XYLEM_CRASH_SEED", "1")))
    arguments = parser.parse_args()
    sys.exit(run(arguments.rounds, arguments.seed))


if __name__ == "__main__":
    main()
