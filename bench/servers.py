"""The servers that bench/run.py measures: Xylem as it was built here, and others that are installed.

Each runs on loopback with fresh data in a folder of its own, in its package's default configuration but for what throttles
or opens ports to the outside. Those that speak XMPP have accounts u0 .. u1999 and one password; of the others only what they
have in common with it is measured: publishing, fan-out, delay and idle connections.
"""

import getpass
import glob
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
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"  # where Debian puts servers


# What every broker does, whatever it speaks, and what of it has to do with storing.
COMMON = ["fan1", "fan100", "fan1000", "afan100", "afan1000", "pub1", "pub100", "pub100x10", "rate1000", "arate1000", "idle"]
PERSISTED = ["afan100", "pub1", "pub100", "arate1000"]
OURS_ALONE = ["efan100", "commits", "handshakes", "start"]


class Xylem:
    name = "Xylem"
    bin = harness.BIN
    library = None  # for TLS: the build's first, mbedTLS
    protocol, domain, service = "xmpp", harness.DOMAIN, harness.PUBSUB
    options = ["--at-least-once"]

    def __init__(self, settings=None, accounts=None):
        """`accounts`: a data directory to begin with a copy of; without it they are made, a key derived for each."""
        self.settings, self.accounts = settings or {}, accounts

    @staticmethod
    def does(scenario):
        """Whether that is measured of it."""
        del scenario
        return True

    @classmethod
    def missing(cls):
        """What keeps it from being measured; empty: nothing."""
        program = os.path.join(cls.bin, "xylemd")
        if not os.path.exists(program):
            return f"{program} is not built"
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        return "" if cls.library is None or f"\n{cls.library}: " in version else f"{program} is built without {cls.library}"

    def start(self):
        settings = {"shards": "auto", "log": {"level": "warning"}, "store": {"map_size": "16gb"}}
        if self.library:
            settings["tls"] = {"library": self.library}
        self.broker = harness.Broker(harness.merged(settings, self.settings), users={})
        self.broker.bin = self.bin
        if self.accounts:
            shutil.copytree(self.accounts, self.broker.data_dir, dirs_exist_ok=True)
        self.broker.start()
        if not self.accounts:
            self._import()

    def _import(self):
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


class XylemOpenSSL(Xylem):
    """The same with the other TLS library: only what goes through TLS differs."""

    name, library = "Xylem-OpenSSL", "openssl"

    @staticmethod
    def does(scenario):
        return scenario.startswith("tls-") or scenario == "handshakes"


class XylemSegments(Xylem):
    """The same with its log in segment files: only what is stored differs."""

    name = "Xylem-segments"

    def __init__(self):
        super().__init__({"store": {"log": "segments"}})

    @staticmethod
    def does(scenario):
        return scenario in [*PERSISTED, "pub100x10", "amsg50", "aoffline"]


class Installed:
    """A server that is found on PATH; what differs is in the classes below."""

    programs = []
    options = []
    domain, service = "localhost", "pubsub.localhost"

    @staticmethod
    def does(scenario):
        return scenario in COMMON

    @classmethod
    def missing(cls):
        absent = [program for program in cls.programs if shutil.which(program, path=PATH) is None]
        return f"{absent[0]} is not on PATH" if absent else ""

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="xylem-bench-")
        self.port = harness.free_ports(1)[0]
        self._run()

    def _run(self):
        data = os.path.join(self.folder, "data")
        shutil.rmtree(data, ignore_errors=True)
        os.mkdir(data)
        configuration = os.path.join(self.folder, "configuration.yml")  # ejabberd goes by the ending
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(self.configuration(data))
        with open(os.path.join(self.folder, "output"), "wb") as output:
            self.process = subprocess.Popen(
                self.command(configuration, data),
                env={**os.environ, "PATH": PATH, **self.environment(configuration)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self.ready(data):
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as output:
                    sys.exit(f"{self.name} does not start:\n{output.read()}")
            time.sleep(0.2)

    def environment(self, configuration):
        del configuration
        return {}

    def ready(self, data):
        del data
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


class Ejabberd(Installed):
    """Debian's package in an Erlang machine with the flags of ejabberdctl, Mnesia, plain passwords (the cheapest logins)."""

    name, protocol, programs = "ejabberd", "xmpp", ["ejabberdctl", "erl"]

    @staticmethod
    def does(scenario):
        return not scenario.startswith("sdk-") and scenario not in [*OURS_ALONE, "afan1000"]  # libxylem is for Xylem

    CONFIGURATION = """
loglevel: warning
hosts: [localhost]
certfiles: ["{certificate}"]
auth_method: [mnesia]
auth_password_format: plain
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, max_stanza_size: 1048576, backlog: 4096, shaper: none,
     access: anybody, starttls: true, starttls_required: false}}
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

    def configuration(self, data):
        both = os.path.join(data, "certificate-and-key.pem")
        with open(both, "w", encoding="ascii") as file:
            for path in harness.make_certificate(data, ("localhost",)):
                with open(path, encoding="ascii") as part:
                    file.write(part.read())
        return self.CONFIGURATION.format(port=self.port, certificate=both)

    def command(self, configuration, data):
        del configuration
        register = (
            f'[ok = ejabberd_auth:try_register(<<"u", (integer_to_binary(I))/binary>>, <<"localhost">>, <<"{PASSWORD}">>)'
            f' || I <- lists:seq(0, {USERS - 1})], file:write_file("{data}/registered", <<"all">>).'
        )
        flags = ["-noinput", "+K", "true", "+P", "250000", "-mnesia", "dir", f'"{data}/db"', "-s", "ejabberd"]
        return ["erl", *flags, "-eval", register]

    def environment(self, configuration):
        return {
            "HOME": self.folder,
            "EJABBERD_CONFIG_PATH": configuration,
            "EJABBERD_LOG_PATH": os.path.join(self.folder, "ejabberd.log"),
            "ERL_CRASH_DUMP_BYTES": "0",
            "ERL_MAX_PORTS": "32000",
            "ERL_LIBS": "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu",
        }

    def ready(self, data):
        return os.path.exists(os.path.join(data, "registered")) and super().ready(data)


class Nats(Installed):
    """JetStream with file storage for what is persisted; it does not sync before it acknowledges."""

    name, protocol, programs = "nats", "nats", ["nats-server"]

    def configuration(self, data):
        return f'listen: "127.0.0.1:{self.port}"\nmax_connections: 20000\njetstream {{ store_dir: "{data}" }}\n'

    def command(self, configuration, data):
        del data
        return ["nats-server", "-c", configuration]


class Mosquitto(Installed):
    """Persistence on, which for this server is memory, written out every half hour."""

    name, protocol, programs = "mosquitto", "mqtt", ["mosquitto"]

    def configuration(self, data):
        return (
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\npersistence true\n"
            f"persistence_location {data}/\nmax_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\n"
        )

    def command(self, configuration, data):
        del data
        return ["mosquitto", "-c", configuration]


class RabbitMQ(Installed):
    """Debian's package without plugins; classic durable queues, synced before publishes are confirmed."""

    name, protocol, programs = "rabbitmq", "amqp", ["rabbitmq-server", "erl"]

    def start(self):
        self.epmd_port, self.distribution_port = harness.free_ports(2)
        super().start()

    def configuration(self, data):
        del data
        return (
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users.guest = true\nlog.file.level = warning\n"
            "tcp_listen_options.nodelay = true\ntcp_listen_options.backlog = 4096\nheartbeat = 0\n"
        )

    def command(self, configuration, data):
        del configuration, data
        return [max(glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))]

    def environment(self, configuration):
        plugins = os.path.join(self.folder, "plugins")
        with open(plugins, "w", encoding="utf-8") as file:
            file.write("[].")
        return {
            "HOME": self.folder,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_NODENAME": "xylem-bench@localhost",
            "RABBITMQ_CONFIG_FILE": configuration,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": plugins,
            "RABBITMQ_MNESIA_BASE": os.path.join(self.folder, "data"),
            "RABBITMQ_LOG_BASE": self.folder,
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    @property
    def pid(self):
        """The Erlang machine; above it is the script that starts it."""
        found = self.process.pid
        while children := children_of(found):
            with open(f"/proc/{found}/comm", encoding="utf-8") as file:
                if file.read().strip() == "beam.smp":
                    break
            found = children[0]
        return found

    def _end(self):
        os.kill(self.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        # It leaves the daemon that knows the names of Erlang machines, this one on a port of its own.
        epmd = {**os.environ, "ERL_EPMD_PORT": str(self.epmd_port)}
        subprocess.run(["epmd", "-kill"], env=epmd, capture_output=True, check=False)

    def stop(self):
        super().stop()
        harness.release_ports(self.epmd_port, self.distribution_port)


class RabbitMQQuorum(RabbitMQ):
    """The same with quorum queues: one member each, which writes its log and syncs it before publishes are confirmed."""

    name, options = "rabbitmq-quorum", ["--quorum"]

    @staticmethod
    def does(scenario):
        return scenario in [*PERSISTED, "pub100x10"]


PACKAGES = ["nats-server", "mosquitto", "rabbitmq-server", "ejabberd", "liblmdb0", "libexpat1", "libuv1", "libmbedtls14", "libssl3"]


def versions():
    """What is installed of the servers, and of what Xylem stands on, as Debian's packages call it; empty on other systems."""
    if shutil.which("dpkg-query") is None:
        return ""
    ask = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\\n", *PACKAGES]
    lines = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.splitlines()
    return ", ".join(line.removeprefix("installed ") for line in lines if line.startswith("installed "))


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(child) for child in file.read().split()]


SERVERS = [Xylem, XylemSegments, XylemOpenSSL, Ejabberd, Nats, Mosquitto, RabbitMQ, RabbitMQQuorum]
