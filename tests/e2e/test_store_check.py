"""`xylemd --check-store`: says whether the data of a stopped broker are sound, and what is wrong if not."""

import json
import os
import random
import subprocess

import pytest

import harness
import pubsub
from harness import DOMAIN, PUBSUB
from pubsub import create, publish, subscribe

PAGE = 4096


def check(broker):
    """(exit status, lines printed)"""
    run = subprocess.run(
        [harness.program("xylemd"), "--config", broker.config_file, "--check-store"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout.splitlines()


def work(broker, connect, items=30):
    alice = connect(broker, "alice", "desk")
    create(alice, "states", max_items="5")
    bob = connect(broker, "bob", "reader")
    subscribe(bob, "states", "bob@" + DOMAIN, **{pubsub.DELIVERY + "mode": "at-least-once"})
    bob.drop()
    for n in range(items):
        publish(alice, "states", str(n), f"the state number {n}")
    alice.send(f"<message to='bob@{DOMAIN}' type='chat'><body>kept</body></message>")
    alice.ok("get", "<ping xmlns='urn:xmpp:ping'/>", DOMAIN)
    alice.drop()


def test_sound_after_stop_and_after_kill(broker, connect):
    work(broker, connect)
    broker.kill()
    status, lines = check(broker)
    assert status == 0 and lines[-1].endswith("sound"), lines
    assert not lines[-1].startswith("0 entries")
    broker.start()
    broker.stop()
    status, lines = check(broker)
    assert status == 0 and len(lines) == 1, lines


def test_in_use(broker):
    status, lines = check(broker)
    assert status == 1 and "is in use by process" in lines[0]


def test_no_store(make_broker):
    broker = make_broker(users={})
    status, lines = check(broker)
    assert status == 1 and lines[0].startswith("there is no store in")
    assert os.listdir(broker.data_dir) == []


def test_damaged_log(broker, connect):
    work(broker, connect)
    broker.kill()
    path = os.path.join(broker.data_dir, "log.mdb")
    with open(path, "r+b") as file:
        data = file.read()
        assert b"the state number 29" in data
        file.seek(0)
        file.write(data.replace(b"the state number 29", b"the state number 92"))
    status, lines = check(broker)
    assert status == 1
    assert any(line.startswith("log: entry") and "checksum" in line for line in lines), lines
    assert lines[-1].endswith("damaged")


@pytest.mark.parametrize("name", ["tables.mdb", "log.mdb"])
def test_pages_of_garbage(broker, connect, name):
    """LMDB trusts its pages, so reading them may end the check: it must still end, soon, and say so."""
    work(broker, connect)
    broker.stop()
    path = os.path.join(broker.data_dir, name)
    with open(path, "rb") as file:
        whole = file.read()
    chance, damaged = random.Random(name), 0
    for _ in range(12):
        page = chance.randrange(2, len(whole) // PAGE)
        with open(path, "wb") as file:
            file.write(whole[: page * PAGE] + chance.randbytes(PAGE) + whole[(page + 1) * PAGE :])
        status, lines = check(broker)
        assert status in (0, 1) and lines
        damaged += status
    assert damaged > 0 or name == "log.mdb"
    with open(path, "wb") as file:
        file.write(whole)
    assert check(broker)[0] == 0


def replace_in_tables(broker, old, new):
    path = os.path.join(broker.data_dir, "tables.mdb")
    with open(path, "r+b") as file:
        data = file.read()
        assert old in data and len(old) == len(new)
        file.seek(0)
        file.write(data.replace(old, new))


def test_damaged_item_is_quarantined(broker, connect):
    """One flipped text in the tables: that item is not delivered, all others are, and the broker says so."""
    work(broker, connect)
    broker.stop()
    replace_in_tables(broker, b"the state number 27", b"the state number 72")
    status, lines = check(broker)
    assert status == 1 and any(line.startswith("items: row") and "checksum" in line for line in lines), lines
    broker.start()
    bob = connect(broker, "bob", "reader")
    bob.enable_sm()
    bob.available(0)
    found = []
    while len(found) < 29:
        found += [i.get("id") for i in bob.read_until(pubsub.is_event).iter(f"{{{pubsub.EVENT}}}item")]
    assert found == [str(n) for n in range(30) if n != 27]
    assert "does not match its checksum" in broker.log() and "table=items" in broker.log()
    stats = json.loads(broker.xylem("admin", "stats", "--json").stdout)
    assert int(stats["store_damaged"]) > 0
    broker.stop()
    assert check(broker)[0] == 1  # it is still there, and still damaged


def test_damaged_node_is_refused(broker, connect):
    """What others depend on: the broker stops rather than take the node for one that does not exist."""
    work(broker, connect)
    broker.stop()
    replace_in_tables(broker, b"pubsub#max_items", b"pubsub#max_itemz")
    assert check(broker)[0] == 1
    broker.start()
    alice = connect(broker, "alice", "desk")
    alice.send(f"<iq type='get' id='x' to='{PUBSUB}'>" + pubsub.request("<items node='states'/>") + "</iq>")
    alice.wait_closed()
    assert broker.process.wait(10) == 1
    broker.process = None
    assert "damaged" in broker.log()
