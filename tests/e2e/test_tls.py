"""The library behind TLS is chosen in the configuration, of those that the build has: `xylemd --version` lists them."""

import json
import os
import socket
import ssl
import subprocess
import time

import pytest

import harness
from harness import DOMAIN

VERSION = subprocess.run([harness.program("xylemd"), "--version"], capture_output=True, text=True, check=True).stdout
NEWEST = {"mbedtls": "TLSv1.2", "openssl": "TLSv1.3"}
PRESENT = [line.partition(":")[0] for line in VERSION.splitlines()[1:]]


def using(make_broker, library):
    return make_broker({"tls": {"library": library}}).start()


def logged(broker, text, timeout=10):
    deadline = time.monotonic() + timeout
    while text not in broker.log(10000):
        assert time.monotonic() < deadline, broker.log()
        time.sleep(0.02)


def ping(broker, *options, **environment):
    """`xylem ping` through TLS; the status with which it ended, and what it complained of."""
    run = subprocess.run(
        [harness.program("xylem"), "ping", "--jid", "alice@" + DOMAIN, "--host", "127.0.0.1", "--port", str(broker.port),
         "--ca", broker.certificate, *options],
        capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "XYLEM_PASSWORD": harness.USERS["alice"], **environment})  # fmt: skip
    return run.returncode, run.stderr


def test_the_version_says_which_there_are():
    assert VERSION.startswith("xylemd ") and PRESENT and set(PRESENT) <= set(NEWEST)
    assert [line.rpartition(" ")[2] for line in VERSION.splitlines()[1:]] == [NEWEST[name] for name in PRESENT]


@pytest.mark.parametrize("library", PRESENT)
def test_the_configuration_chooses(make_broker, connect, library):
    broker = using(make_broker, library)
    assert connect(broker, direct_tls=True).socket.version() == NEWEST[library]
    assert f"library={library}" in broker.log()
    assert json.loads(broker.xylem("admin", "stats", "--json").stdout)["tls_library"] == library


def test_the_default_is_the_first(make_broker, connect):
    broker = make_broker()
    broker.config["tls"].pop("library", None)
    broker.write_config()
    broker.start()
    assert connect(broker, direct_tls=True).socket.version() == NEWEST[PRESENT[0]]


@pytest.mark.parametrize("name", ["gnutls", *(set(NEWEST) - set(PRESENT))])
def test_one_that_is_not_there(make_broker, name):
    broker = make_broker({"tls": {"library": name}})
    status, output = broker.run_to_end()
    assert status == 2
    assert f'tls.library = "{name}": must be one of those that this build has: {", ".join(PRESENT)}\n' in output


@pytest.mark.skipif(len(PRESENT) < 2, reason="this build has one library")
@pytest.mark.parametrize("before, after", [("mbedtls", "openssl"), ("openssl", "mbedtls")])
def test_a_reload_changes_it(make_broker, connect, before, after):
    """Connections that are there keep theirs; a client that comes back with an old ticket is served."""
    broker = using(make_broker, before)
    old = connect(broker, direct_tls=True)
    old.open()
    old.plain("alice")
    old.open()
    old.bind("desk")
    context = ssl.create_default_context(cafile=broker.certificate)
    context.check_hostname = False
    first = connect(broker, direct_tls=True, context=context)
    first.open()  # a ticket of TLS 1.3 comes with the first bytes
    broker.config["tls"]["library"] = after
    broker.write_config()
    broker.reload()
    logged(broker, "configuration reloaded")
    assert f"library={after}" in broker.log()
    plain = socket.create_connection(("127.0.0.1", broker.tls_port), 10)
    with context.wrap_socket(plain, server_hostname=DOMAIN, session=first.socket.session) as again:
        assert (again.version(), again.session_reused) == (NEWEST[after], False)
    assert old.socket.version() == NEWEST[before]
    assert old.ping().get("type") == "result"
    fresh = connect(broker, direct_tls=True)
    fresh.open()
    fresh.plain("bob")
    fresh.open()
    fresh.bind("desk")
    assert fresh.ping().get("type") == "result"


@pytest.mark.parametrize("server", PRESENT)
@pytest.mark.parametrize("client", PRESENT)
def test_the_command_line_chooses_too(make_broker, client, server):
    broker = using(make_broker, server)
    assert ping(broker, "--tls-library", client) == (0, "")
    assert ping(broker, XYLEM_TLS_LIBRARY=client) == (0, "")
    assert "mechanism=SCRAM-SHA-256-PLUS" in broker.log()  # both mean the same binding


def test_the_command_line_names_those_that_are_there(broker):
    status, said = ping(broker, "--tls-library", "gnutls")
    assert status == 2
    assert said == f'xylem: there is no TLS library "gnutls" in this libxylem: take one of {", ".join(PRESENT)}\n'
