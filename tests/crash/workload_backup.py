"""Hot backups while everything else goes on: each that was reported as made survives the crash, is sound, and a broker that
starts on it has what was acknowledged before the command was given, without a hole.

One client publishes numbers to a node whose only subscriber never comes: on a restored copy that subscriber does, and is
owed all of them.
"""

import os
import shutil
import socket
import subprocess
import threading
import time

import harness
import pubsub
import raw
from producer import Producer
from workload import QUIET_S, Verdict, Workload

NODE = "crash-backup"
RESOURCE = "never"
PAUSE_BETWEEN_S = (0.05, 0.6)
KEPT = 3
BACKUP_S = 60
MODE = {pubsub.DELIVERY + "mode": "at-least-once"}


class Copier(threading.Thread):
    """Makes one backup after the other; `made` are those that the command reported."""

    def __init__(self, broker, publisher, chance):
        super().__init__(daemon=True)
        self.broker, self.publisher, self.chance = broker, publisher, chance
        self.stopping = threading.Event()
        self.made = []  # (folder, what was acknowledged when it began)
        self.begun = 0

    def run(self):
        while not self.stopping.wait(self.chance.uniform(*PAUSE_BETWEEN_S)):
            self.copy()

    def copy(self):
        folder = os.path.join(os.path.dirname(self.broker.data_dir), f"backup-{self.begun}")
        self.begun += 1
        owed = set(self.publisher.acknowledged)
        try:
            result = self.broker.xylem("admin", "backup", folder, timeout=BACKUP_S)
        except subprocess.TimeoutExpired:
            return
        if result.returncode == 0:
            self.made.append((folder, owed))
            for old, _ in self.made[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)

    def stop(self):
        self.stopping.set()
        if self.ident is not None:
            self.join()


class Backup(Workload):
    name = "backup"
    publisher = copier = None

    def prepare(self):
        with raw.Client(self.broker) as client:
            client.login("romeo", "maker")
            pubsub.create(client, NODE, max_items=1, access_model="open")
        with raw.Client(self.broker) as client:
            client.login("bob", RESOURCE)
            pubsub.subscribe(client, NODE, client.jid, **MODE)

    def start(self):
        self.publisher = Producer(self.broker, "romeo", NODE, window=4, pause_s=0.01)
        self.copier = Copier(self.broker, self.publisher, self.chance)
        self.publisher.start()
        self.copier.start()

    def finish(self):
        self.copier.stop()
        if not self.copier.made:
            self.copier.copy()  # every one met a crash; this one does not
        self.publisher.stop()
        verdict = Verdict(acknowledged=len(self.publisher.acknowledged), refused=self.publisher.refused, wrong=list(self.publisher.failures))
        sizes = []
        for folder, owed in self.copier.made[-KEPT:]:
            sizes.append(len(owed))
            try:
                self.judge(folder, owed, verdict)
            except (AssertionError, OSError, raw.Closed, socket.timeout) as error:
                verdict.wrong.append(f"{folder}: {error!r}")
        if not self.copier.made:
            verdict.wrong.append("no backup was ever finished")
        verdict.notes = f"backups begun {self.copier.begun}, made {len(self.copier.made)}, restored {len(sizes)} with {sizes} items"
        return verdict

    def judge(self, folder, owed, verdict):
        broker = harness.Broker({"log": {"level": "warning"}}, users={})
        try:
            shutil.rmtree(broker.data_dir)
            shutil.copytree(folder, broker.data_dir)
            checked = subprocess.run(
                [harness.program("xylemd"), "--config", broker.config_file, "--check-store"],
                capture_output=True, text=True, check=False,
            )
            if checked.returncode != 0:
                verdict.wrong.append(f"{folder}: {checked.stdout[:500]}")
            broker.start()
            seqs, numbers = everything_owed(broker, owed)
            verdict.lost += sorted(owed - set(numbers))
            verdict.disorder += numbers != sorted(numbers)
            verdict.wrong += [f"{folder}: a hole before {b}" for a, b in zip(seqs, seqs[1:]) if b != a + 1]
            verdict.unmarked += len(numbers) - len(set(numbers))
        finally:
            broker.finish()

    def close(self):
        for each in (self.publisher, self.copier):
            if each:
                each.stopping.set()


def everything_owed(broker, owed):
    """What the subscriber gets who never came before: ([seq], [number])."""
    seqs, numbers = [], []
    with raw.Client(broker) as client:
        client.login("bob", RESOURCE)
        client.enable_sm(resume=False)
        client.available()
        while True:
            try:
                element = client.read(QUIET_S if len(numbers) >= len(owed) else None)
            except socket.timeout:
                return seqs, numbers
            if element.tag == f"{{{raw.SM}}}r":
                client.ack()
            elif pubsub.is_event(element):
                (item,) = element.iter(f"{{{pubsub.EVENT}}}item")
                numbers.append(int(item.get("id")))
                seqs.append(int(pubsub.delivery(element).get("seq")))
