"""Start, reload, stop, and a disk that fills up: what an operator gets wrong is said in a sentence that names it, with the
right exit status (1 failure, 2 configuration), and whoever is being served meanwhile notices nothing."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness
import pubsub
import raw
from harness import DOMAIN, PUBSUB
from raw import body, condition, local_name

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN
MIB = 1 << 20


def refuses(broker, status, *sentences):
    """The broker ends at once with this status and says exactly these sentences, besides what it logs while starting."""
    code, output = broker.run_to_end()
    said = [line for line in output.splitlines() if line and " info " not in line]
    assert (code, said) == (status, list(sentences))


@pytest.fixture
def running(make_broker, connect):
    """A broker that serves somebody while another one is started beside it."""
    broker = make_broker().start()
    client = connect(broker, "juliet", "balcony", presence=0)
    yield broker
    assert client.ping().get("type") == "result"


# --- the configuration --------------------------------------------------------------------------------------------

MISTAKES = {
    'domain = "example.org': "1: a string is not closed on its line",
    'listen { c2s = [ "127.0.0.1:1"': "2: expected ',' or ']' before the end of the file",
    "\nlisen { }": '2: unknown key "lisen"; the nearest is "listen"',
    "limits { stanza_sise = 1mb }": '1: unknown key "limits.stanza_sise"; the nearest is "limits.stanza_size"',
    "limits = 5": "1: limits: must be an object, as in limits { … }",
    "shards = many": '1: shards = "many": must be a number, from 1 to 64, or auto',
    "shards = 65": '1: shards = "65": must be a number, from 1 to 64, or auto',
    "limits { stanza_size = 9999 }": '1: limits.stanza_size = "9999": must be a size such as 256kb, from 10000 to 16mb',
    'domain = "a.org"\ndomain = "b.org"': "2: domain is set twice, first on line 1",
    'domain = "user@example.org"': '1: domain = "user@example.org": must be a domain such as "example.org"',
    'admins = ["ops"]': '1: admins = "ops": must be an account such as "ops@example.org"',
    'listen { c2s = ["nonsense"] }':
        '1: listen.c2s = "nonsense": must be ADDRESS:PORT, such as "127.0.0.1:5222" or "[::]:5222"',
    'tls { certificate = "x.pem" }': "1: tls.certificate and tls.key are needed together",
    'log { level = "loud" }': '1: log.level = "loud": must be one of error, warning, info, debug',
}


@pytest.mark.parametrize("check_only", [True, False], ids=["check-config", "start"])
@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_mistake_in_the_configuration(tmp_path, text, check_only):
    file = tmp_path / "xylemd.conf"
    file.write_text(text + "\n")
    command = [harness.program("xylemd"), "--config", str(file)] + ["--check-config"] * check_only
    run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (run.returncode, run.stderr) == (2, f"{file}:{MISTAKES[text]}\n")


def test_every_mistake_is_told_at_once(tmp_path):
    file = tmp_path / "xylemd.conf"
    file.write_text("shards = many\nlog { levle = info }\n")
    run = subprocess.run(
        [harness.program("xylemd"), "--config", str(file)], capture_output=True, text=True, timeout=20, check=False
    )
    assert run.returncode == 2
    assert [line.partition(": ")[0] for line in run.stderr.splitlines()] == [f"{file}:1", f"{file}:2"]


# --- what is in use, or cannot be used ----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["c2s", "c2s_tls"])
def test_port_in_use(make_broker, running, which):
    address = f"127.0.0.1:{running.port}"
    second = make_broker({"listen": {which: [address]}})
    refuses(
        second, 1,
        f"xylemd: cannot listen on {address}: Address already in use; another program has that port: stop it, or change"
        " `listen` in the configuration",
    )
    assert not os.path.exists(second.local)


def test_local_socket_in_use(make_broker, running, connect):
    second = make_broker({"listen": {"local": running.local}})
    refuses(second, 1, f"xylemd: cannot listen on {running.local}: Address already in use; another broker listens there")
    connect(running, local=True).login_local()


def test_local_socket_left_by_a_crash_is_replaced(broker, connect):
    broker.kill()
    assert os.path.exists(broker.local)
    broker.start()
    connect(broker, local=True).login_local()


def test_data_directory_in_use(make_broker, running):
    second = make_broker({"data_dir": running.data_dir}, users={})
    refuses(second, 1, f"xylemd: data directory {running.data_dir} is in use by process {running.process.pid}")


@pytest.mark.parametrize(
    "path, why",
    [
        ("/nonexistent/folder/data", "cannot make data directory {}: its parent directory does not exist"),
        ("/dev/null", "cannot use data directory {}: it is not a directory"),
    ],
)
def test_data_directory_that_cannot_be_used(make_broker, path, why):
    refuses(make_broker({"data_dir": path}, users={}), 1, "xylemd: " + why.format(path))


@pytest.mark.parametrize("which", ["certificate", "key"])
def test_certificate_that_is_not_there(make_broker, which):
    broker = make_broker({"tls": {which: "/nonexistent/file.pem"}})
    refuses(broker, 1, "xylemd: cannot open /nonexistent/file.pem: No such file or directory")


@pytest.mark.parametrize("which, what", [("certificate", "certificate"), ("key", "private key")])
def test_certificate_that_is_none(make_broker, tmp_path, which, what):
    file = tmp_path / "file.pem"
    file.write_text("not a certificate\n")
    code, output = make_broker({"tls": {which: str(file)}}).run_to_end()
    assert code == 1 and f"xylemd: {file} holds no {what} in PEM" in output


def test_key_of_another_certificate(make_broker, tmp_path):
    _, key = harness.make_certificate(str(tmp_path))
    broker = make_broker({"tls": {"key": key}})
    code, output = broker.run_to_end()
    assert code == 1 and key in output and broker.certificate in output


def test_self_signed_certificate_is_made_once(make_broker, connect):
    broker = make_broker()
    del broker.config["tls"]
    broker.write_config()
    seen = set()
    for _ in range(2):
        broker.start()
        client = connect(broker, direct_tls=True)
        seen.add(client.socket.getpeercert(binary_form=True))
        broker.stop()
    assert len(seen) == 1
    assert os.stat(os.path.join(broker.data_dir, "tls-key.pem")).st_mode & 0o777 == 0o600


# --- reload -------------------------------------------------------------------------------------------------------


def max_bytes(client):
    """What XEP-0478 announces after the login."""
    client.plain("alice")
    client.open()
    return int(client.features.findtext("{urn:xmpp:stream-limits:0}limits/{urn:xmpp:stream-limits:0}max-bytes"))


def logged(broker, text, timeout=10):
    deadline = time.monotonic() + timeout
    while text not in broker.log(10000):
        assert time.monotonic() < deadline, broker.log()
        time.sleep(0.02)


def test_reload_of_limits(broker, connect):
    """New streams get the new limits; a session that is there goes on with its own."""
    old = connect(broker, "bob", "desk", presence=0)
    broker.config["limits"] = {"stanza_size": 20000}
    broker.write_config()
    broker.reload()
    logged(broker, "configuration reloaded")
    fresh = connect(broker)
    fresh.open()
    assert max_bytes(fresh) == 20000
    fresh.bind("desk")
    fresh.message(BOB, "x" * 20000)
    assert fresh.stream_error()[0] == "policy-violation"
    old.message(BOB, "x" * 100000)
    assert len(body(old.read_message())) == 100000


@pytest.mark.parametrize(
    "text, why",
    [
        ("shards = many", ': shards = "many": must be a number'),
        ('domain = "x', ": a string is not closed on its line"),
        ('tls { certificate = "/nonexistent.pem"; key = "/nonexistent.pem" }', "cannot open /nonexistent.pem"),
    ],
)
def test_broken_configuration_keeps_the_old_one(broker, connect, text, why):
    client = connect(broker, "bob", "desk", presence=0)
    with open(broker.config_file, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    broker.reload()
    logged(broker, "configuration not reloaded, the old one stays")
    logged(broker, why.replace('"', '\\"'))
    assert client.ping().get("type") == "result"
    fresh = connect(broker, direct_tls=True)
    fresh.open()
    assert max_bytes(fresh) == 256 * 1024
    broker.write_config()
    broker.reload()
    logged(broker, "configuration reloaded")


# --- stop ---------------------------------------------------------------------------------------------------------


class Load(threading.Thread):
    """Publishes and sends messages as fast as it may, until it is told that the broker goes."""

    def __init__(self, client):
        super().__init__()
        self.client = client
        self.published = set()  # item ids whose result came
        self.sent = 0  # messages to bob, numbered from 0
        self.h = 0
        self.end = None

    def run(self):
        client, number = self.client, 0
        try:
            while True:
                for _ in range(10):
                    payload = pubsub.publish_xml("states", pubsub.item_xml(f"i{number}", "x" * 200))
                    client.send(f"<iq type='set' id='p{number}' to='{PUBSUB}'>{payload}</iq>")
                    client.message(BOB, f"m{number}")
                    number += 1
                self.sent = number
                while len(self.published) < number - 50:
                    element = client.read()
                    if element.tag == f"{{{raw.SM}}}r":
                        client.ack()
                    self.take(element)
        except (raw.Closed, OSError):
            self.sent = number
        for element in client.wait_closed():
            self.take(element)

    def take(self, element):
        if element.tag == f"{{{raw.CLIENT}}}iq" and element.get("type") == "result":
            self.published.add("i" + element.get("id")[1:])
        elif element.tag == f"{{{raw.SM}}}a":
            self.h = int(element.get("h"))
        elif element.tag == f"{{{raw.STREAMS}}}error":
            self.end = condition(element)[1]


def test_stop_under_load(broker, connect):
    """SIGTERM: exit 0; nothing acknowledged is lost, and sessions that could be resumed are told how far they came."""
    alice = connect(broker, "alice", "desk")
    alice.enable_sm()
    reader = connect(broker, "bob", "reader")
    reader.enable_sm()
    pubsub.create(alice, "states", max_items="max")
    before = 1  # stanzas of alice so far
    load = Load(alice)
    load.start()
    time.sleep(1)
    broker.stop()
    load.join(20)
    reader.wait_closed()
    assert not load.is_alive()
    assert load.end == "system-shutdown"
    assert len(load.published) > 100 and load.h > before
    told = [e for e in reader.inbox if e.tag == f"{{{raw.SM}}}a"]
    assert told and reader.inbox[-1].tag == f"{{{raw.STREAMS}}}error"

    broker.start()
    alice = connect(broker, "alice", "desk")
    kept = set()
    for name in load.published:
        if pubsub.items(alice, "states", [name]):
            kept.add(name)
    assert kept == load.published
    # Of the first h stanzas every second was a message to bob.
    acknowledged = [f"m{n}" for n in range((load.h - before) // 2)]
    bob = connect(broker, "bob", "desk", presence=0)
    found = [body(bob.read_message()) for _ in acknowledged]
    assert found == acknowledged


def test_stop_closes_listeners_first_and_leaves_no_socket(broker, connect):
    connect(broker, "alice", "desk")
    local = broker.local
    broker.stop()
    assert not os.path.exists(local)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", broker.port), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_somebody_does_not_read(broker, connect, number):
    """A peer that never reads must not keep the broker from stopping."""
    deaf = connect(broker, "bob", "deaf", presence=0)
    alice = connect(broker, "alice", "desk")
    for _ in range(100):
        alice.message(BOB, "x" * 50000, kind="headline")
    alice.ping()
    broker.process.send_signal(number)
    assert broker.process.wait(harness.STOP_TIMEOUT_S) == 0
    broker.process = None
    assert deaf.socket.fileno() >= 0


# --- a full disk --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, 192 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=192m", "xylem-test", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(folder, left):
    """Somebody else's file takes all but `left` bytes of the disk."""
    info = os.statvfs(folder)
    ballast = folder / "ballast"
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, info.f_bavail * info.f_frsize - left)
    return ballast


def publish_until(client, wanted, timeout=10):
    """Publishes until an answer has the type wanted; returns the names that were accepted and the last answer."""
    deadline, accepted = time.monotonic() + timeout, []
    while time.monotonic() < deadline:
        name = client.new_id()
        answer = client.iq("set", pubsub.publish_xml("states", pubsub.item_xml(name, "x" * 1000)), PUBSUB)
        if answer.get("type") == "result":
            accepted.append(name)
        if answer.get("type") == wanted:
            return accepted, answer
        time.sleep(0.01)
    raise AssertionError(f"no {wanted} within {timeout} s")


@pytest.mark.parametrize("left", [32 * MIB, 0], ids=["reserve", "nothing"])
def test_full_disk(make_broker, connect, small_disk, left):
    broker = make_broker({"data_dir": str(small_disk / "data")}).start()
    alice = connect(broker, "alice", "desk", presence=0)
    reader = connect(broker, "bob", "reader")
    reader.enable_sm()
    pubsub.create(alice, "states", max_items="max")
    pubsub.subscribe(reader, "states", **{pubsub.DELIVERY + "mode": "at-least-once"})
    reader.available()
    accepted, _ = publish_until(alice, "result")

    ballast = fill(small_disk, left)
    more, refusal = publish_until(alice, "error")
    accepted += more
    assert condition(refusal)[:2] == ("wait", "resource-constraint")
    assert raw.condition(alice.iq("set", pubsub.create_xml("another"), PUBSUB))[:2] == ("wait", "resource-constraint")
    alice.message("carol@" + DOMAIN, "for later")
    assert condition(alice.read_message())[:2] == ("wait", "resource-constraint")

    # Everything else goes on: logins, messages to who is there, reading, acknowledgements.
    juliet = connect(broker, "juliet", "balcony", presence=0)
    juliet.message(ALICE, "hello")
    assert body(alice.read_message()) == "hello"
    assert [name for name, _ in pubsub.items(alice, "states")] == accepted
    assert [name for name, _ in pubsub.next_items(reader, len(accepted))] == accepted
    reader.ack()
    assert reader.ping().get("type") == "result"
    logged(broker, "the store is full")
    time.sleep(0.3)  # cursor moves are written within 50 ms; there is no room for surprises
    assert broker.process.poll() is None

    ballast.unlink()
    more, _ = publish_until(alice, "result", timeout=5)
    accepted += more
    assert [name for name, _ in pubsub.next_items(reader, len(more))] == more
    logged(broker, "the store has room again")
    reader.ack()
    assert reader.ping().get("type") == "result"
    broker.restart(signal.SIGTERM)
    alice = connect(broker, "alice", "desk")
    assert [name for name, _ in pubsub.items(alice, "states")] == accepted
    broker.stop()


def test_disk_that_fills_up_within_a_moment(make_broker, connect, small_disk):
    """What is under way when the last byte goes finds its place in the space that the log keeps ahead."""
    broker = make_broker({"data_dir": str(small_disk / "data")}).start()
    alice = connect(broker, "alice", "desk", presence=0)
    pubsub.create(alice, "states", max_items="max")
    ballast = fill(small_disk, 0)
    for n in range(8):  # more than the log has pages to use again
        payload = pubsub.publish_xml("states", pubsub.item_xml(f"i{n}", "x" * 100000))
        alice.send(f"<iq type='set' id='p{n}' to='{PUBSUB}'>{payload}</iq>")
    answers = {e.get("id"): e for e in (alice.read_name("iq") for _ in range(8))}
    accepted = [f"i{n}" for n in range(8) if answers[f"p{n}"].get("type") == "result"]
    for answer in answers.values():
        assert answer.get("type") == "result" or condition(answer)[:2] == ("wait", "resource-constraint")
    accepted += publish_until(alice, "error")[0]
    ballast.unlink()
    broker.restart()
    alice = connect(broker, "alice", "desk")
    found = [name for name in accepted if pubsub.items(alice, "states", [name])]
    assert found == accepted
    broker.stop()


def test_start_on_a_full_disk(make_broker, small_disk):
    broker = make_broker({"data_dir": str(small_disk / "data")}, users={})
    ballast = fill(small_disk, 0)
    code, output = broker.run_to_end()
    assert code == 1 and str(small_disk / "data") in output and "full" in output.lower()
    ballast.unlink()
    broker.start().stop()
