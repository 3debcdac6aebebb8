"""Hot backup and restore: `xylem admin backup` copies the data of a working broker; a broker that starts on the copy has
what was acknowledged before the copy, begins new epochs, and says so to subscribers."""

import json
import os
import shutil
import subprocess
import threading


import harness
import pubsub
import raw
from harness import DOMAIN
from pubsub import create, delivery, is_event, publish, subscribe

AT_LEAST_ONCE = {pubsub.DELIVERY + "mode": "at-least-once"}


def backup(broker, folder, *options):
    return broker.xylem("admin", "backup", str(folder), *options)


def restored(make_broker, folder):
    """A broker of its own on a copy of the backup."""
    broker = make_broker(users={})
    shutil.rmtree(broker.data_dir)
    shutil.copytree(folder, broker.data_dir)
    return broker.start()


def check(data_dir, broker):
    path = os.path.join(broker.folder, "check.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'data_dir = "{data_dir}"; store {{ map_size = 1gb; }}')
    return subprocess.run(
        [harness.program("xylemd"), "--config", path, "--check-store"], capture_output=True, text=True, check=False
    )


def reader(broker, connect, subscribe_first=False):
    client = connect(broker, "bob", "reader")
    client.enable_sm()
    if subscribe_first:
        subscribe(client, "states", "bob@" + DOMAIN, **AT_LEAST_ONCE)
    client.available(0)
    return client


def read_events(client, count):
    found = []
    while len(found) < count:
        message = client.read_until(is_event)
        found += [(i.get("id"), delivery(message)) for i in message.iter(f"{{{pubsub.EVENT}}}item")]
    return found


def test_restored_broker_goes_on(broker, make_broker, connect):
    alice = connect(broker, "alice", "desk")
    create(alice, "states", max_items="max")
    bob = reader(broker, connect, subscribe_first=True)
    for n in range(5):
        publish(alice, "states", str(n))
    epoch = read_events(bob, 5)[0][1].get("epoch")
    bob.send("</stream:stream>")
    bob.wait_closed()
    alice.message("bob@" + DOMAIN, "kept")
    alice.ping(DOMAIN)
    folder = os.path.join(broker.folder, "copy")
    result = backup(broker, folder)
    assert result.returncode == 0 and result.stdout.startswith(folder + ":"), result.stderr
    assert "restored" in os.listdir(folder) and "secret" in os.listdir(folder)
    publish(alice, "states", "after the copy")
    checked = check(folder, broker)
    assert checked.returncode == 0, checked.stdout

    other = restored(make_broker, folder)
    assert "restored" not in os.listdir(other.data_dir)
    assert "restored from a backup" in other.log()
    bob = reader(other, connect)
    found = read_events(bob, 5)
    assert [name for name, _ in found] == ["0", "1", "2", "3", "4"]
    epochs = {d.get("epoch") for _, d in found}
    assert len(epochs) == 1 and epochs != {epoch}
    assert [d.get("seq") for _, d in found] == ["1", "2", "3", "4", "5"]
    assert raw.body(bob.read_until(raw.body)) == "kept"
    alice = connect(other, "alice", "desk")
    publish(alice, "states", "new")
    assert read_events(bob, 1)[0][1].get("seq") == "6"

    other.restart()  # the new epoch stays
    bob = reader(other, connect)
    assert {d.get("epoch") for _, d in read_events(bob, 6)} == epochs


def test_sessions_of_before_are_gone(broker, make_broker, connect):
    client = connect(broker, "bob", "desk")
    previous = client.enable_sm().get("id")
    folder = os.path.join(broker.folder, "copy")
    assert backup(broker, folder).returncode == 0
    other = restored(make_broker, folder)
    again = connect(other)
    again.open()
    again.plain("bob")
    again.open()
    assert raw.local_name(again.resume(previous, 0)) == "failed"


def test_while_publishers_publish(broker, make_broker, connect):
    """What was acknowledged before the copy began is in it, in order, without a hole, whatever came meanwhile."""
    alice = connect(broker, "alice", "desk")
    create(alice, "states", max_items="max")
    bob = reader(broker, connect, subscribe_first=True)
    bob.drop()
    acknowledged, stop = [0], threading.Event()

    def work():
        n = 0
        while not stop.is_set():
            publish(alice, "states", str(n))
            n += 1
            acknowledged[0] = n

    worker = threading.Thread(target=work)
    worker.start()
    copies = []
    try:
        for n in range(3):
            while acknowledged[0] < 100 * (n + 1):
                stop.wait(0.005)
            folder = os.path.join(broker.folder, f"copy{n}")
            before = acknowledged[0]
            result = backup(broker, folder, "--rate", "100kb" if n == 1 else "0")
            assert result.returncode == 0, result.stderr
            copies.append((folder, before))
    finally:
        stop.set()
        worker.join()
    for folder, before in copies:
        assert check(folder, broker).returncode == 0
        other = restored(make_broker, folder)
        found = read_events(reader(other, connect), before)
        assert [name for name, _ in found] == [str(n) for n in range(before)]
        other.stop()


def test_mistakes_are_explained(broker, connect):
    full = os.path.join(broker.folder, "full")
    os.makedirs(os.path.join(full, "x"))
    for folder, options, why in (
        (full, (), "not an empty directory"),
        (os.path.join(broker.folder, "none", "copy"), (), "No such file or directory"),
        (os.path.join(broker.folder, "copy"), ("--rate", "fast"), "--rate is bytes per second"),
    ):
        result = backup(broker, folder, *options)
        assert result.returncode != 0 and why in result.stderr, result.stderr
    assert backup(broker, os.path.join(broker.folder, "copy")).returncode == 0


def test_a_path_from_where_one_stands(broker):
    result = subprocess.run(
        [harness.program("xylem"), "admin", "backup", "copy"],
        cwd=broker.folder,
        capture_output=True,
        text=True,
        env={**os.environ, "XYLEM_SOCKET": broker.local},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "tables.mdb" in os.listdir(os.path.join(broker.folder, "copy"))


def test_only_administrators(broker, connect):
    bob = connect(broker, "bob", "x")
    payload = (
        "<command xmlns='http://jabber.org/protocol/commands' node='urn:xylem:admin:backup' action='execute'>"
        "<x xmlns='jabber:x:data' type='submit'><field var='{urn:xylem:admin:0}directory'>"
        "<value>/tmp/xylem-no-such-copy</value></field></x></command>"
    )
    assert raw.condition(bob.iq("set", payload, DOMAIN))[1] == "forbidden"
    assert not os.path.exists("/tmp/xylem-no-such-copy")
    alice = connect(broker, "alice", "x")
    relative = payload.replace("/tmp/xylem-no-such-copy", "copy")
    assert raw.condition(alice.iq("set", relative, DOMAIN))[1] == "not-acceptable"
    slow = payload.replace("<x xmlns", "<x  xmlns").replace("/tmp/xylem-no-such-copy", broker.folder + "/c")
    slow = slow.replace("</x>", "<field var='{urn:xylem:admin:0}rate'><value>-1</value></field></x>")
    assert raw.condition(alice.iq("set", slow, DOMAIN))[1] == "bad-request"


def test_stop_ends_a_backup(broker, connect):
    alice = connect(broker, "alice", "desk")
    create(alice, "states", max_items="max")
    for n in range(50):
        publish(alice, "states", str(n), "x" * 1000)
    broker.restart()  # into the tables
    alice = connect(broker, "alice", "desk")
    payload = (
        "<command xmlns='http://jabber.org/protocol/commands' node='urn:xylem:admin:backup' action='execute'>"
        f"<x xmlns='jabber:x:data' type='submit'><field var='{{urn:xylem:admin:0}}directory'>"
        f"<value>{broker.folder}/copy</value></field>"
        "<field var='{urn:xylem:admin:0}rate'><value>1</value></field></x></command>"
    )
    alice.ok("set", payload, DOMAIN)
    status = "<command xmlns='http://jabber.org/protocol/commands' node='urn:xylem:admin:backup-status'/>"
    assert pubsub.fields_of(alice.ok("set", status, DOMAIN))["state"] == "running"
    assert raw.condition(alice.iq("set", payload, DOMAIN))[1] == "not-acceptable"
    broker.stop()
    assert not [name for name in os.listdir(broker.folder) if name.startswith("copy")]


def test_figures(broker):
    assert backup(broker, os.path.join(broker.folder, "copy")).returncode == 0
    stats = json.loads(broker.xylem("admin", "stats", "--json").stdout)
    assert int(stats["store_backups"]) == 1 and int(stats["store_backup_running"]) == 0


