"""The load generator tells the truth: what a proxy on the way loses, repeats or changes is counted, no more and no less."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness  # noqa: E402
import servers  # noqa: E402

USERS = {f"u{i}": "secret" for i in (*range(12), *range(1000, 1003))}
EVENT = re.compile(rb"<message .*?</message>", re.S)


@pytest.fixture(scope="module")
def broker():
    started = harness.Broker({"log": {"level": "warning"}}, users=USERS).start()
    yield started
    started.finish()


class Proxy:
    """Between generator and broker. Every hundredth message to a client goes through `meddle`, which counts; `on_first` is
    called before the first connection goes on."""

    def __init__(self, port, meddle, on_first=lambda: None):
        self.port_behind, self.meddle, self.on_first = port, meddle, on_first
        self.seen = self.meddled = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.on_first()
            self.on_first = lambda: None
            server = socket.create_connection(("127.0.0.1", self.port_behind))
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client, server):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _down(self, server, client):
        """A message that is not all there waits for its rest."""
        kept = b""
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                data = EVENT.sub(self._message, kept + data)
                begun = data.rfind(b"<message ")
                cut = begun if begun > data.rfind(b"</message>") else len(data)
                client.sendall(data[:cut])
                kept = data[cut:]
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _message(self, match):
        self.seen += 1
        if self.seen % 100 != 50:
            return match[0]
        self.meddled += 1
        return self.meddle(match[0])


def load(port, scenario, *options):
    command = [harness.program("load"), "--port", str(port), "--domain", harness.DOMAIN, "--seconds", "0.5"]
    done = subprocess.run([*command, "--warmup", "0.1", *options, scenario], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "meddle, member",
    [
        (lambda message: b"", "lost"),
        (lambda message: message * 2, "repeated"),
        (lambda message: message.replace(b"....", b"..,.", 1), "corrupt"),
    ],
)
def test_what_goes_wrong_is_counted(broker, meddle, member):
    proxy = Proxy(broker.port, meddle)
    result = load(proxy.port, "fan1")
    proxy.listener.close()
    assert proxy.meddled > 0
    assert result[member] == proxy.meddled
    # What was changed is not what was sent: it counts as lost, too.
    assert result["lost"] == (0 if member == "repeated" else proxy.meddled)


@pytest.mark.parametrize("scenario", ["fan1", "pub1", "pub100x10", "rate1000", "arate1000", "tls-pub100", "sdk-fan1", "sdk-pub100"])
def test_a_scenario_runs_without_a_fault(broker, scenario):
    result = load(broker.port, scenario, "--pid", str(broker.process.pid), "--at-least-once")
    assert result["operations"] > 0
    assert result["server_cpu_s_per_million"] > 0
    assert (result["lost"], result["repeated"], result["corrupt"]) == (0, 0, 0)


def broker_figures(broker):
    figures = json.loads(broker.xylem("admin", "stats", "--json").stdout)
    return {name: figures[name] for name in ("logins", "pubsub_nodes", "pubsub_subscriptions")}


@pytest.mark.parametrize("beside, scenario", [("sessions", "fan1"), ("nodes", "turn100"), ("subscriptions", "fan10")])
def test_what_is_there_beside_takes_memory_and_no_part(broker, beside, scenario):
    count = 3 if beside == "sessions" else 1100
    before = broker_figures(broker)
    result = load(broker.port, scenario, "--pid", str(broker.process.pid), f"--beside-{beside}", str(count))
    made = {name: value - before[name] for name, value in broker_figures(broker).items()}
    # Publisher, subscribers, who makes what is there beside, and who looks at the figures.
    assert made["logins"] == {"sessions": 2 + 3 + 1, "nodes": 1 + 1 + 1, "subscriptions": 11 + 11 + 1}[beside]
    assert made["pubsub_nodes"] == {"sessions": 0, "nodes": 1100, "subscriptions": 110}[beside]
    assert made["pubsub_subscriptions"] == {"sessions": 0, "nodes": 0, "subscriptions": 1100}[beside]
    assert result["operations"] > 0
    assert beside == "sessions" or result["beside_kib"] > 0
    assert (result["lost"], result["repeated"], result["corrupt"]) == (0, 0, 0)


@pytest.mark.parametrize("kind", [kind for kind in servers.SERVERS if issubclass(kind, servers.Installed)])
def test_other_servers(kind):
    if kind.missing():
        pytest.skip(kind.missing())
    server = kind()
    server.start()
    try:
        for scenario in filter(server.does, ("fan1", "pub100", "rate1000", "arate1000", "tls-pub100")):
            result = load(server.port, scenario, "--protocol", server.protocol, "--domain", server.domain, *server.options)
            assert result["operations"] > 0
            assert (result["lost"], result["repeated"], result["corrupt"]) == (0, 0, 0)
    finally:
        server.stop()


def test_what_is_acknowledged_by_name_is_not_owed(broker):
    """More than max_inflight: without acknowledgements they would not all come."""
    result = load(broker.port, "efan100", "--sinks", "2", "--burst", "2500")
    assert result["operations"] > 0
    assert (result["lost"], result["repeated"], result["corrupt"]) == (0, 0, 0)


# A process to be measured instead of a broker: told to, it touches memory of its own and what it has mapped from a file.
MEMORY = """
import mmap, sys, tempfile
file = tempfile.TemporaryFile()
file.truncate(8 << 20)
mapped, own = mmap.mmap(file.fileno(), 8 << 20), mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(flush=True)
sys.stdin.readline()
for page in range(0, 8 << 20, 4096):
    mapped[page]
for page in range(0, 4 << 20, 4096):
    own[page] = 1
print(flush=True)
sys.stdin.readline()
"""


def test_pages_of_files_are_not_memory_of_sessions(broker):
    with subprocess.Popen([sys.executable, "-c", MEMORY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as memory:
        memory.stdout.readline()

        def touch():
            memory.stdin.write("\n")
            memory.stdin.flush()
            memory.stdout.readline()

        proxy = Proxy(broker.port, lambda message: message, on_first=touch)
        result = load(proxy.port, "idle", "--pid", str(memory.pid), "--sinks", "8")
        memory.stdin.close()
    assert 4096 / 8 <= result["kib_per_session"] < 4096 / 8 + 50


BURNER = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_processor_time_of_others_is_theirs_also_when_they_have_ended(broker):
    ended = []

    def burn():
        while not ended:
            subprocess.run([sys.executable, "-c", BURNER], check=True)

    burning = threading.Thread(target=burn)
    burning.start()
    try:
        result = load(broker.port, "rate1000", "--pid", str(broker.process.pid), "--seconds", "2")
    finally:
        ended.append(True)
        burning.join()
    assert result["other_cpu_share"] > 0.3  # the one that goes on while the run ends has taken 0.1 at most


def test_a_refusal_is_told(broker):
    command = [harness.program("load"), "--port", str(broker.port), "--domain", harness.DOMAIN, "--password", "wrong"]
    done = subprocess.run([*command, "fan1"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "login of u0" in done.stderr
