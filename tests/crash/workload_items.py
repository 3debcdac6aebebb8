"""Items published and received over the SDK: every item acknowledged to the publisher is shown to the durable subscriber, once."""

import os
import time

import harness
from workload import Program, QUIET_S, Verdict, Workload, wait_for

NODE = "crash"


class Items(Workload):
    """One publisher as fast as the broker takes it, one subscriber that is also restarted and goes on from its position."""

    name = "items"
    publisher = subscriber = None
    item_bytes = 1

    def prepare(self):
        made = self.broker.xylem("--as", "alice@" + harness.DOMAIN, "node", "create", NODE, "--set", "pubsub#access_model=open")
        assert made.returncode == 0, made.stderr

    def start(self):
        state = os.path.join(self.broker.folder, "state")
        bob, alice = "bob@" + harness.DOMAIN + "/crash", "alice@" + harness.DOMAIN + "/crash"
        self.subscriber = Program(self.broker, "crash-subscriber", "subscriber", bob, harness.USERS["bob"], NODE, state)
        self.subscriber.start()
        subscribed = wait_for(lambda: "subscribed: yes" in self.subscriber.errors())
        assert subscribed, self.subscriber.errors()
        password, size = harness.USERS["alice"], str(self.item_bytes)
        self.publisher = Program(self.broker, "crash-publisher", "publisher", alice, password, NODE, "1", size)
        self.publisher.start()

    def leave_owed(self):
        self.subscriber.stop()

    def before_crash(self, number):
        if number % 10 == 9 and self.subscriber.process.poll() is None:
            self.subscriber.stop()

    def after_start(self, number):
        if self.subscriber.process.poll() is not None:
            self.subscriber.start()

    def finish(self):
        self.publisher.stop()
        acknowledged = {int(line[0]) for line in self.publisher.lines()}
        wait_for(lambda: acknowledged <= {int(line[1]) for line in self.subscriber.lines()})
        time.sleep(QUIET_S)
        self.subscriber.stop()
        shown = [int(line[1]) for line in self.subscriber.lines()]
        seqs = [int(line[0]) for line in self.subscriber.lines()]
        return Verdict(
            acknowledged=len(acknowledged),
            lost=sorted(acknowledged - set(shown)),
            duplicates=len(shown) - len(set(shown)),
            disorder=sum(1 for a, b in zip(seqs, seqs[1:]) if b <= a),
            refused=int(self.publisher.errors().split()[-1]),
            notes=self.subscriber.errors().splitlines()[-1],
        )

    def close(self):
        for program in (self.publisher, self.subscriber):
            if program:
                program.close()
