"""Starts and stops a real broker for the end-to-end tests, and watches how it ends.

Every test gets its own broker on free loopback ports with its own fresh directory. The binaries come from XYLEM_BIN
(default build/debug/bin), the number of shards from XYLEM_TEST_SHARDS (default 1), the library that broker and command line
use for TLS from XYLEM_TEST_TLS (default the build's). A broker that does not exit with 0 on
SIGTERM, or that leaves a sanitizer's report, fails its test; the log is shown when a test fails.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.environ.get("XYLEM_BIN", os.path.join(ROOT, "build", "debug", "bin"))
TLS_LIBRARY = os.environ.get("XYLEM_TEST_TLS")
if TLS_LIBRARY:
    os.environ["XYLEM_TLS_LIBRARY"] = TLS_LIBRARY  # the command line's
SHARDS = int(os.environ.get("XYLEM_TEST_SHARDS", "1"))
DOMAIN = "example.org"
PUBSUB = "pubsub." + DOMAIN

# Accounts every broker of the tests has, and their passwords.
USERS = {name: f"{name} has a secret" for name in ("alice", "bob", "carol", "dave", "romeo", "juliet")}

START_TIMEOUT_S = 60 if "san" in BIN else 20
STOP_TIMEOUT_S = 60 if "san" in BIN else 20
SANITIZER_REPORT = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:")


def program(name):
    return os.path.join(BIN, name)


PORT_LOCKS = {}  # port -> descriptor of its lock file


def lock_port(port):
    """A port is one test's until it is released, also while its broker is down between a kill and the next start."""
    folder = os.path.join(tempfile.gettempdir(), "xylem-test-ports")
    os.makedirs(folder, exist_ok=True)
    lock = os.open(os.path.join(folder, str(port)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    PORT_LOCKS[port] = lock
    return True


def release_ports(*ports):
    for port in ports:
        if port in PORT_LOCKS:
            os.close(PORT_LOCKS.pop(port))


def is_free(port):
    with socket.socket() as s, contextlib.suppress(OSError):
        s.bind(("127.0.0.1", port))
        return True
    return False


def free_ports(count):
    """Free ports that no other test takes, below those that the system gives to outgoing connections of anybody else."""
    found = []
    while len(found) < count:
        port = random.randrange(10000, 32768)
        if port in PORT_LOCKS or not lock_port(port):
            continue
        if is_free(port):
            found.append(port)
        else:
            release_ports(port)
    return found


def make_certificate(folder, names=(DOMAIN,), stem="server"):
    """A self-signed certificate for `names`; returns (certificate file, key file)."""
    certificate, key = os.path.join(folder, stem + ".pem"), os.path.join(folder, stem + ".key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-keyout", key, "-out", certificate, "-subj", "/CN=" + names[0]]
        + ["-addext", "subjectAltName=" + ",".join("DNS:" + n for n in names)],
        check=True,
        capture_output=True,
    )
    return certificate, key


def settings(values, indent=""):
    """Nested dictionaries as a configuration file."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines.append(f'{indent}"{key}" {{\n{settings(value, indent + "    ")}{indent}}}\n')
        elif isinstance(value, (list, tuple)):
            lines.append(f'{indent}"{key}" = [{", ".join(quoted(v) for v in value)}];\n')
        else:
            lines.append(f'{indent}"{key}" = {quoted(value)};\n')
    return "".join(lines)


def quoted(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


@functools.lru_cache(maxsize=None)
def data_with_users():
    """A data directory that holds the usual accounts, made once by a broker of its own: deriving keys takes time."""
    folder = tempfile.mkdtemp(prefix="xylem-e2e-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data_dir = os.path.join(folder, "data")
    broker = Broker({"data_dir": data_dir}, users=USERS)
    try:
        broker.start()
    finally:
        broker.finish()
    return data_dir


def merged(base, more):
    result = dict(base)
    for key, value in more.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


class Broker:
    """One xylemd with its directory. `overrides` are merged into the configuration, nested as in the file."""

    def __init__(self, overrides=None, users=None):
        self.folder = tempfile.mkdtemp(prefix="xylem-e2e-")
        self.port, self.tls_port = free_ports(2)
        self.data_dir = os.path.join(self.folder, "data")
        self.local = os.path.join(self.folder, "control.sock")
        self.config_file = os.path.join(self.folder, "xylemd.conf")
        self.log_file = os.path.join(self.folder, "xylemd.log")
        self.certificate, key = make_certificate(self.folder)
        self.config = merged(
            {
                "domain": DOMAIN,
                "data_dir": self.data_dir,
                "shards": SHARDS,
                "log": {"level": "debug"},
                "tls": {"certificate": self.certificate, "key": key, **({"library": TLS_LIBRARY} if TLS_LIBRARY else {})},
                "listen": {
                    "c2s": [f"127.0.0.1:{self.port}"],
                    "c2s_tls": [f"127.0.0.1:{self.tls_port}"],
                    "local": self.local,
                },
                "auth": {"allow_plaintext": True},
                "admins": ["alice@" + DOMAIN],
                "store": {"map_size": "1gb"},
            },
            overrides or {},
        )
        self.process = None
        self.bin = BIN  # where its programs are
        self.wrapper = []  # what runs the broker: ["valgrind", ...]
        self.write_config()
        self.new_users = dict(USERS if users is None else users)
        if users is None and self.config["data_dir"] == self.data_dir and self.config["domain"] == DOMAIN:
            shutil.copytree(data_with_users(), self.data_dir)
            self.new_users = {}
        elif not os.path.exists(self.data_dir):
            os.mkdir(self.data_dir, 0o700)

    def write_config(self):
        with open(self.config_file, "w", encoding="utf-8") as file:
            file.write(settings(self.config))

    def _add_users(self):
        """The one place that knows how accounts come into a fresh broker: by XEP-0133 over the local socket."""
        import raw

        users, self.new_users = self.new_users, {}
        if not users:
            return
        with raw.Client(self, local=True) as admin:
            admin.login_local()
            for name, password in users.items():
                admin.add_user(name, password)

    def xylem(self, *arguments, stdin="", timeout=60):
        """Runs the command line to its end, with this broker's local socket as its way in."""
        return subprocess.run(
            [os.path.join(self.bin, "xylem"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "XYLEM_SOCKET": self.local},
            check=False,
        )

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self):
        """Returns when the broker said READY=1: from then on its listeners are open and logins work."""
        assert self.process is None
        notify_path = os.path.join(self.folder, "notify")
        if os.path.exists(notify_path):
            os.unlink(notify_path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(self.log_file, "ab") as log:
            notify.bind(notify_path)
            notify.settimeout(0.1)
            self.process = subprocess.Popen(
                [*self.wrapper, os.path.join(self.bin, "xylemd"), "--config", self.config_file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": notify_path},
            )
            self._wait_ready(notify)
        self._add_users()
        return self

    def _wait_ready(self, notify):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in notify.recv(4096):
                    return
            except socket.timeout:
                if self.process.poll() is not None:
                    status, self.process = self.process.returncode, None
                    raise AssertionError(f"xylemd exited with {status} at start:\n{self.log()}") from None
        raise AssertionError(f"xylemd was not ready after {START_TIMEOUT_S} s:\n{self.log()}")

    def run_to_end(self, timeout=20):
        """Starts a broker that is expected to refuse; returns (exit status, its output)."""
        run = subprocess.run(
            [os.path.join(self.bin, "xylemd"), "--config", self.config_file], capture_output=True, text=True, timeout=timeout, check=False
        )
        return run.returncode, run.stdout + run.stderr

    def kill(self):
        """SIGKILL: the crash that nothing can prepare for."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM; the broker must end by itself and with 0."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"xylemd did not stop within {STOP_TIMEOUT_S} s:\n{self.log()}") from None
        assert status == 0, f"xylemd stopped with {status}:\n{self.log()}"

    def restart(self, kill=signal.SIGKILL):
        if kill == signal.SIGKILL:
            self.kill()
        else:
            self.stop()
        return self.start()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def log(self, last=200):
        if not os.path.exists(self.log_file):
            return ""
        with open(self.log_file, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-last:])

    def rss_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def finish(self):
        """The end of a test: stop, look for reports of sanitizers, remove the directory."""
        try:
            self.stop()
            report = SANITIZER_REPORT.search(self.log(100000))
            assert not report, self.log(100000)[report.start() :]
        finally:
            if self.process is not None:
                self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            release_ports(self.port, self.tls_port)
