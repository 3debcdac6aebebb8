"""SASL EXTERNAL by client certificates (XEP-0178, RFC 6120 13.7.1.4): whom a certificate lets in, and everybody it does
not (hostile input 35). Certificates come from an authority of the test's own, made by the openssl command.
"""

import datetime
import os
import re
import shutil
import ssl
import subprocess
import time

import pytest

import harness
import raw
from harness import DOMAIN, USERS

XMPP_ADDR = "1.3.6.1.5.5.7.8.5"


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def when(seconds):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).strftime("%Y%m%d%H%M%SZ")


def xmpp(*names):
    return [f"otherName:{XMPP_ADDR};UTF8:{name}" for name in names]


def der(tag, body):
    length = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + length + body


def xmpp_der(*names, tag=0x0C):
    """A subjectAltName with any bytes for names, which the openssl command would not write."""
    oid = bytes.fromhex("06082b06010505070805")
    others = b"".join(der(0xA0, oid + der(0xA0, der(tag, name))) for name in names)
    return "DER:" + ":".join(f"{byte:02x}" for byte in der(0x30, others))


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder, name="clients"):
        self.folder, self.count = str(folder), 0
        self.file, self.key = harness.make_certificate(self.folder, (name,), name)
        self.config = os.path.join(self.folder, name + ".cnf")
        database = os.path.join(self.folder, name + ".index")
        with open(database, "w", encoding="ascii"):
            pass
        with open(self.config, "w", encoding="ascii") as file:
            file.write(
                f"[ca]\ndefault_ca = c\n[c]\ndatabase = {database}\nnew_certs_dir = {self.folder}\nrand_serial = yes\n"
                "default_md = sha256\npolicy = p\nunique_subject = no\n[p]\ncommonName = supplied\n"
            )

    def issue(self, san=None, subject="somebody", start=-3600, end=3600, usage="clientAuth", issuer=None):
        """A certificate for `san` (a list for openssl, or text as it stands); returns (file with its chain, key file)."""
        self.count += 1
        stem = os.path.join(self.folder, f"{os.path.basename(self.config)}-{self.count}")
        names = ",".join(san) if isinstance(san, list) else san
        with open(stem + ".ext", "w", encoding="utf-8") as file:
            file.write("basicConstraints = CA:FALSE\n")
            file.write(f"extendedKeyUsage = {usage}\n" if usage else "")
            file.write(f"subjectAltName = {names}\n" if names else "")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", stem + ".key",
                "-out", stem + ".csr", "-subj", "/CN=" + subject)
        certificate, key = issuer or (self.file, self.key)
        openssl("ca", "-batch", "-notext", "-config", self.config, "-cert", certificate, "-keyfile", key, "-in",
                stem + ".csr", "-out", stem + ".pem", "-extfile", stem + ".ext", "-startdate", when(start), "-enddate",
                when(end))
        if issuer:
            with open(stem + ".pem", "a", encoding="ascii") as chain, open(certificate, encoding="ascii") as more:
                chain.write(more.read())
        return stem + ".pem", stem + ".key"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def broker(make_broker, authority):
    return make_broker({"tls": {"client_ca": authority.file}}).start()


def context_of(identity):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity:
        context.load_cert_chain(*identity)
    return context


@pytest.fixture
def secured(broker, connect):
    """A client with a certificate, at the features of its secured stream."""

    def make(identity, context=None, **how):
        client = connect(broker, **how)
        client.open()
        client.starttls(context or context_of(identity))
        return client

    return make


def external(client, authzid=""):
    """"success", or the condition of the failure."""
    answer = client.sasl("EXTERNAL", authzid.encode())
    return "success" if raw.local_name(answer) == "success" else raw.condition(answer)[1]


def bound(client):
    client.open()
    assert client.bind("r").get("type") == "result"
    return client.jid


def not_offered(client):
    """Neither shown nor taken; a password still counts."""
    assert "EXTERNAL" not in client.mechanisms()
    assert external(client) == "invalid-mechanism"
    assert raw.local_name(client.scram("bob")) == "success"
    assert bound(client) == f"bob@{DOMAIN}/r"


# --- let in --------------------------------------------------------------------------------------------------------


def test_one_name(authority, secured):
    client = secured(authority.issue(xmpp("alice@" + DOMAIN)))
    assert client.mechanisms()[0] == "EXTERNAL"
    assert "SCRAM-SHA-256" in client.mechanisms()
    assert external(client) == "success"
    assert bound(client) == f"alice@{DOMAIN}/r"
    assert client.ping().get("type") == "result"


def test_direct_tls(authority, broker, connect):
    client = connect(broker, direct_tls=True, context=context_of(authority.issue(xmpp("alice@" + DOMAIN))))
    client.open()
    assert external(client) == "success"
    assert bound(client) == f"alice@{DOMAIN}/r"


def test_no_initial_response(authority, secured):
    client = secured(authority.issue(xmpp("alice@" + DOMAIN)))
    assert raw.local_name(client.sasl("EXTERNAL")) == "challenge"
    assert raw.local_name(client.respond(b"")) == "success"
    assert bound(client) == f"alice@{DOMAIN}/r"


def test_names_are_prepared_before_they_are_compared(authority, secured):
    client = secured(authority.issue(xmpp("Alice@Example.ORG", "ALICE@" + DOMAIN)))
    assert external(client, "aLiCe@" + DOMAIN.upper()) == "success"
    assert bound(client) == f"alice@{DOMAIN}/r"


def test_no_usage_means_every_usage(authority, secured):
    assert external(secured(authority.issue(xmpp("alice@" + DOMAIN), usage=None))) == "success"


def test_authzid_of_the_only_name(authority, secured):
    identity = authority.issue(xmpp("alice@" + DOMAIN))
    assert external(secured(identity), "alice@" + DOMAIN) == "success"
    client = secured(identity)
    for wrong in ("bob@" + DOMAIN, f"alice@{DOMAIN}/r", "alice@example.com", DOMAIN, "@"):
        assert external(client, wrong) == "invalid-authzid", wrong


def test_several_names(authority, secured):
    client = secured(authority.issue(xmpp("alice@" + DOMAIN, "carol@" + DOMAIN)))
    assert external(client) == "invalid-authzid"
    assert external(client, "dave@" + DOMAIN) == "invalid-authzid"
    assert external(client, "carol@" + DOMAIN) == "success"
    assert bound(client) == f"carol@{DOMAIN}/r"


def test_names_of_other_domains_do_not_count(authority, secured):
    client = secured(authority.issue(xmpp("alice@example.com", "carol@" + DOMAIN)))
    assert external(client, "alice@example.com") == "invalid-authzid"
    assert external(client) == "success"
    assert bound(client) == f"carol@{DOMAIN}/r"


def test_a_name_of_another_domain_served_here(make_broker, authority, connect):
    broker = make_broker({"domain": [DOMAIN, "example.net"], "tls": {"client_ca": authority.file}}).start()
    identity = authority.issue(xmpp("alice@example.net", "alice@" + DOMAIN))
    client = connect(broker, direct_tls=True, context=context_of(identity))
    client.open()
    assert external(client) == "invalid-authzid"  # which one?
    assert external(client, "alice@example.net") == "not-authorized"  # not on a stream to example.org
    assert external(client, "alice@" + DOMAIN) == "success"
    client = connect(broker, direct_tls=True, context=context_of(authority.issue(xmpp("alice@" + DOMAIN))))
    client.open(to="example.net")
    assert "EXTERNAL" not in client.mechanisms()


# --- refused -------------------------------------------------------------------------------------------------------


def test_without_a_certificate(secured):
    not_offered(secured(None))


def test_without_client_ca_nobody_is_asked(make_broker, authority, connect):
    broker = make_broker().start()
    client = connect(broker, direct_tls=True, context=context_of(authority.issue(xmpp("alice@" + DOMAIN))))
    client.open()
    not_offered(client)


def test_before_tls(broker, connect):
    client = connect(broker)
    client.open()
    assert "EXTERNAL" not in client.mechanisms()
    assert external(client, "alice@" + DOMAIN) == "invalid-mechanism"


def test_no_such_account(authority, secured):
    for name in ("nobody", "*"):
        client = secured(authority.issue(xmpp(f"{name}@{DOMAIN}")))
        assert external(client) == "not-authorized"


def test_the_reserved_administrator(authority, secured):
    assert external(secured(authority.issue(xmpp("admin@" + DOMAIN)))) == "not-authorized"


@pytest.mark.parametrize(
    "san",
    [
        None,
        ["DNS:alice." + DOMAIN],
        ["DNS:" + DOMAIN],
        ["email:alice@" + DOMAIN],
        ["URI:xmpp:alice@" + DOMAIN],
        ["otherName:1.3.6.1.5.5.7.8.7;UTF8:alice@" + DOMAIN],  # id-on-dnsSRV
        ["otherName:" + XMPP_ADDR + ";IA5:alice@" + DOMAIN],
        xmpp(DOMAIN),
        xmpp("alice@*.org"),
        xmpp("alice@*"),
        xmpp(f"alice@{DOMAIN}/r"),
        xmpp("al ice@" + DOMAIN),
        xmpp_der(b"alice@example.org\0.example.com"),
        xmpp_der(b"alice\0@example.org"),
        xmpp_der(b"alice@example.org", b"bob@example.org\0"),
        xmpp_der(b"alice@example.org\xff"),
        xmpp_der(b""),
        xmpp_der(*[b"u%d@example.org" % i for i in range(32)], b"alice@example.org"),
    ],
)
def test_certificates_without_a_name_that_counts(authority, secured, san):
    not_offered(secured(authority.issue(san, subject="alice@" + DOMAIN)))


def test_as_many_names_as_are_looked_at(authority, secured):
    names = [b"u%d@example.org" % i for i in range(31)]
    client = secured(authority.issue(xmpp_der(*names, b"alice@example.org")))
    assert external(client, "alice@" + DOMAIN) == "success"


@pytest.mark.parametrize(
    "how, why",
    [
        ({"start": -7200, "end": -3600}, "has expired"),
        ({"start": 3600, "end": 7200}, "is not valid yet"),
        ({"usage": "serverAuth"}, "is not meant for this use"),
    ],
)
def test_certificates_that_are_not_valid(authority, broker, secured, how, why):
    not_offered(secured(authority.issue(xmpp("alice@" + DOMAIN), **how)))
    assert re.search(f"certificate of a client not trusted.*{why}", broker.log())


def test_another_authority(authority, broker, secured):
    other = Authority(authority.folder, "strangers")
    not_offered(secured(other.issue(xmpp("alice@" + DOMAIN))))
    same_name = os.path.join(authority.folder, "imposter")
    os.mkdir(same_name)
    not_offered(secured(Authority(same_name).issue(xmpp("alice@" + DOMAIN))))
    assert re.search("certificate of a client not trusted.*not signed by a trusted authority", broker.log())


def test_a_client_is_no_authority(authority, secured):
    bob = authority.issue(xmpp("bob@" + DOMAIN))
    not_offered(secured(authority.issue(xmpp("alice@" + DOMAIN), issuer=bob)))


# --- later ---------------------------------------------------------------------------------------------------------


class Resuming:
    """A context that brings the ticket of a connection before."""

    def __init__(self, context, client):
        self.context, self.session = context, client.socket.session

    def wrap_socket(self, socket, **how):
        return self.context.wrap_socket(socket, session=self.session, **how)


def test_a_ticket_does_not_outlive_the_certificate(authority, secured):
    life_s = 6 if "san" not in harness.BIN else 15
    made = time.monotonic()
    context = context_of(authority.issue(xmpp("alice@" + DOMAIN), end=life_s))
    first = secured(None, context)
    assert external(first) == "success"
    second = secured(None, Resuming(context, first))
    assert second.socket.session_reused
    assert external(second) == "success"
    time.sleep(max(0, made + life_s + 2 - time.monotonic()))
    not_offered(secured(None, Resuming(context, first)))


def test_a_reload_changes_the_authority(authority, broker, secured):
    context = context_of(authority.issue(xmpp("alice@" + DOMAIN)))
    first = secured(None, context)
    assert external(first) == "success"
    other = Authority(authority.folder, "strangers")
    shutil.copy(other.file, authority.file)
    broker.reload()
    deadline = time.monotonic() + 10
    while "EXTERNAL" in secured(None, context).mechanisms():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    not_offered(secured(None, Resuming(context, first)))
    assert external(secured(other.issue(xmpp("alice@" + DOMAIN)))) == "success"


def test_a_removed_account(authority, broker, secured):
    identity = authority.issue(xmpp("dave@" + DOMAIN))
    assert external(secured(identity)) == "success"
    run = broker.xylem("user", "remove", "dave@" + DOMAIN)
    assert run.returncode == 0, run.stderr
    assert external(secured(identity)) == "not-authorized"


def test_an_authority_that_cannot_be_read(make_broker, tmp_path):
    broker = make_broker({"tls": {"client_ca": str(tmp_path / "none.pem")}})
    status, output = broker.run_to_end()
    assert status == 1 and "none.pem" in output


# --- the library ---------------------------------------------------------------------------------------------------

PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include <xylem/xylem.h>

static void on_published(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    *(enum xylem_status *)ctx = result->status;
    xylem_client_stop(client, 1000);
}

int main(int argc, char **argv)
{
    char error[300];
    struct xylem_client *client;
    struct xylem_options options = XYLEM_OPTIONS;
    options.host = "127.0.0.1";
    sscanf(argv[1], "%hu", &options.port);
    options.jid = argv[2];
    options.ca_file = argv[3];
    options.certificate_file = argv[4];
    options.key_file = argv[5];
    options.as = argc > 6 ? argv[6] : NULL;
    options.retry = XYLEM_RETRY_NEVER;
    enum xylem_status status = XYLEM_UNREACHABLE;
    if (xylem_client_new(&client, &options, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    struct xylem_item item = { .node = "weather", .data = "rain", .len = 4 };
    if (xylem_publish(client, &item, on_published, &status) == XYLEM_OK)
        xylem_client_start(client);
    while (xylem_client_run(client, -1) == XYLEM_OK)
        continue;
    fprintf(stderr, "%s\n", xylem_client_error(client));
    xylem_client_free(client);
    return status == XYLEM_OK ? 0 : 1;
}
"""


def test_libxylem(authority, broker, tmp_path):
    if "san" in harness.BIN:
        return  # the program would need the sanitizer's runtime
    libraries = os.path.join(os.path.dirname(harness.BIN), "lib")
    program = str(tmp_path / "program")
    subprocess.run(["cc", "-x", "c", "-", "-o", program, "-I", os.path.join(harness.ROOT, "sdk", "include"),
                    "-L", libraries, "-lxylem", "-Wl,-rpath," + libraries], input=PROGRAM, text=True, check=True)
    assert broker.xylem("node", "create", "weather", "--set", "pubsub#publish_model=open").returncode == 0

    def run(identity, jid, *more):
        return subprocess.run([program, str(broker.port), jid, broker.certificate, *identity, *more],
                              capture_output=True, text=True, timeout=30, check=False)

    alice = "alice@" + DOMAIN
    one, both = authority.issue(xmpp(alice)), authority.issue(xmpp(alice, "carol@" + DOMAIN))
    for arguments in ((one, alice), (one, DOMAIN), (one, alice, alice), (both, alice, alice)):
        result = run(*arguments)
        assert result.returncode == 0, result.stderr + broker.log()
    for identity, why in ((both, "invalid-authzid"), (authority.issue(xmpp("alice@example.com")), "none of the ways")):
        result = run(identity, alice)
        assert result.returncode == 1 and why in result.stderr, result.stderr
