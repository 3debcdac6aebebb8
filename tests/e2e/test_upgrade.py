"""A data directory of an older format: the broker upgrades it at start, and nothing that was owed is lost.

The directory is tests/data/store/format1, left by a killed broker; its README says what it holds.
"""

import os
import shutil

import pubsub
from harness import ROOT, USERS
from pubsub import is_event

IMAGE = os.path.join(ROOT, "tests", "data", "store", "format1")


def old_broker(make_broker):
    broker = make_broker(users={})
    for name in ("log.mdb", "tables.mdb"):
        shutil.copy(os.path.join(IMAGE, name), broker.data_dir)
    return broker


def read_owed(client):
    """Ids of the items and bodies of the messages that come, seven in all."""
    items, bodies = [], []
    while len(items) + len(bodies) < 7:
        message = client.read_message()
        if is_event(message):
            items += [i.get("id") for i in message.iter(f"{{{pubsub.EVENT}}}item")]
        else:
            bodies += [b.text for b in message.iter("{jabber:client}body")]
    return items, bodies


def test_everything_is_still_there(make_broker, connect):
    broker = old_broker(make_broker).start()
    assert {"alice", "bob"} <= set(USERS)
    bob = connect(broker, "bob", "reader")
    bob.enable_sm()
    bob.available(0)
    assert read_owed(bob) == (["4", "5", "6", "7", "8"], ["first", "second"])


def test_after_a_crash_right_after_the_upgrade(make_broker, connect):
    broker = old_broker(make_broker).start()
    broker.restart()
    bob = connect(broker, "bob", "reader")
    bob.enable_sm()
    bob.available(0)
    assert read_owed(bob) == (["4", "5", "6", "7", "8"], ["first", "second"])
