"""The servers that bench/run.py measures: Xylem as it was built here, and others that are installed.

Each runs on loopback with fresh data in a folder of its own, in its package's default configuration but for what throttles
or opens ports to the outside, with accounts u0 .. u1999 and one password. What speaks something else than XMPP is not here:
the load generator has no words for it.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
import harness  # noqa: E402

USERS = 2000
PASSWORD = "secret"
START_S = 120


class Xylem:
    name = "Xylem"
    domain, service = harness.DOMAIN, harness.PUBSUB
    options = ["--at-least-once"]

    @staticmethod
    def missing():
        """What keeps it from being measured; empty: nothing."""
        return "" if os.path.exists(harness.program("xylemd")) else f"{harness.program('xylemd')} is not built"

    def start(self):
        settings = {"shards": os.cpu_count() or 1, "log": {"level": "warning"}, "store": {"map_size": "16gb"}}
        self.broker = harness.Broker(settings, users={}).start()
        accounts = os.path.join(self.broker.folder, "accounts")
        with open(accounts, "w", encoding="utf-8") as file:
            file.writelines(f"u{i}:{PASSWORD}\n" for i in range(USERS))
        done = self.broker.xylem("user", "import", accounts, timeout=START_S)
        if done.returncode != 0:
            sys.exit(f"xylem user import: {done.stderr}")

    def restart(self):
        self.broker.restart(signal.SIGTERM)

    @property
    def port(self):
        return self.broker.port

    @property
    def pid(self):
        return self.broker.process.pid

    def stop(self):
        self.broker.finish()


class Ejabberd:
    """Debian's package in an Erlang machine with the flags of ejabberdctl, Mnesia, plain passwords (the cheapest logins)."""

    name = "ejabberd"
    domain, service = "localhost", "pubsub.localhost"
    options = []

    CONFIGURATION = """
loglevel: warning
hosts: [localhost]
auth_method: [mnesia]
auth_password_format: plain
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, max_stanza_size: 1048576, backlog: 4096, shaper: none,
     access: anybody, starttls_required: false}}
access_rules:
  anybody: {{allow: all}}
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: infinity
modules:
  mod_adhoc: {{}}
  mod_blocking: {{}}
  mod_caps: {{}}
  mod_carboncopy: {{}}
  mod_client_state: {{}}
  mod_disco: {{}}
  mod_last: {{}}
  mod_offline: {{access_max_user_messages: max_user_offline_messages}}
  mod_ping: {{}}
  mod_privacy: {{}}
  mod_private: {{}}
  mod_pubsub: {{access_createnode: anybody, plugins: [flat, pep], ignore_pep_from_offline: true, last_item_cache: false}}
  mod_roster: {{versioning: true}}
  mod_stream_mgmt: {{resend_on_timeout: if_offline}}
  mod_vcard: {{search: false}}
  mod_version: {{}}
"""

    @staticmethod
    def missing():
        for program in ("ejabberdctl", "erl"):
            if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
                return f"{program} is not on PATH"
        return ""

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="xylem-bench-ejabberd-")
        self.port = harness.free_ports(1)[0]
        self._run()

    def _run(self):
        ready, database = os.path.join(self.folder, "ready"), os.path.join(self.folder, "db")
        configuration = os.path.join(self.folder, "ejabberd.yml")
        shutil.rmtree(database, ignore_errors=True)
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(self.CONFIGURATION.format(port=self.port))
        register = (
            f'[ok = ejabberd_auth:try_register(<<"u", (integer_to_binary(I))/binary>>, <<"localhost">>, <<"{PASSWORD}">>)'
            f' || I <- lists:seq(0, {USERS - 1})], file:write_file("{ready}", <<"ready">>).'
        )
        environment = {
            **os.environ,
            "HOME": self.folder,
            "EJABBERD_CONFIG_PATH": configuration,
            "EJABBERD_LOG_PATH": os.path.join(self.folder, "ejabberd.log"),
            "ERL_CRASH_DUMP_BYTES": "0",
            "ERL_MAX_PORTS": "32000",
            "ERL_LIBS": "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu",
        }
        with open(os.path.join(self.folder, "output"), "wb") as output:
            self.process = subprocess.Popen(
                ["erl", "-noinput", "+K", "true", "+P", "250000", "-mnesia", "dir", f'"{database}"', "-s", "ejabberd"]
                + ["-eval", register],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._wait(ready)

    def _wait(self, ready):
        deadline = time.monotonic() + START_S
        while not os.path.exists(ready) or not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as output:
                    sys.exit(f"ejabberd does not start:\n{output.read()}")
            time.sleep(0.2)
        os.unlink(ready)

    def _listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def pid(self):
        return self.process.pid

    def _end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def restart(self):
        self._end()
        self._run()

    def stop(self):
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)
        harness.release_ports(self.port)


SERVERS = [Xylem, Ejabberd]
# Installed or not, these are named in each report, so that nobody takes their absence for a result.
OTHERS = {"nats-server": "NATS", "mosquitto": "MQTT", "rabbitmq-server": "AMQP"}
