"""Login: every mechanism, with and without TLS, by an unmodified slixmpp and by hand; and every way to be refused."""

import ssl

import pytest

import library
import raw
from harness import DOMAIN, USERS


# --- slixmpp -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_plaintext_on_loopback(broker, mechanism):
    client = await library.connect(broker, "alice", mechanism=mechanism)
    assert client.boundjid.bare == "alice@" + DOMAIN
    await client["xep_0199"].ping(DOMAIN, timeout=10)
    await client.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"])
async def test_starttls(broker, mechanism):
    client = await library.connect(broker, "alice", tls="starttls", mechanism=mechanism)
    assert client.transport.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    await client["xep_0199"].ping(DOMAIN, timeout=10)
    await client.close()


async def test_direct_tls(broker):
    client = await library.connect(broker, "alice", tls="direct")
    await client["xep_0199"].ping(DOMAIN, timeout=10)
    await client.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_wrong_password(broker, mechanism):
    with pytest.raises(library.Refused, match="failed_auth"):
        await library.connect(broker, "alice", password="not the secret", mechanism=mechanism)


async def test_unknown_user(broker):
    with pytest.raises(library.Refused, match="failed_auth"):
        await library.connect(broker, "nobody", password="x")


# --- by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_scram_signature_of_the_server_is_right(broker, connect, algorithm):
    client = connect(broker)
    client.open()
    assert raw.local_name(client.scram("alice", algorithm=algorithm)) == "success"
    client.open()
    assert client.features.find(f"{{{raw.BIND}}}bind") is not None


def test_a_plain_login_right_after_another(broker, connect):
    """The second one may be served from what the first one proved; it must still be checked."""
    for password, answer in ((None, "success"), (None, "success"), ("wrong", "failure"), (None, "success")):
        client = connect(broker)
        client.open()
        assert raw.local_name(client.plain("alice", password)) == answer


def test_mechanisms_are_offered_strongest_first(broker, connect):
    client = connect(broker)
    client.open()
    offered = client.mechanisms()
    assert offered.index("SCRAM-SHA-256") < offered.index("SCRAM-SHA-1") < offered.index("PLAIN")
    assert "EXTERNAL" not in offered


def test_starttls_is_required_where_plaintext_is_not_allowed(make_broker, connect):
    broker = make_broker({"auth": {"allow_plaintext": False}}).start()
    client = connect(broker)
    client.open()
    assert client.features.find(f"{{{raw.TLS}}}starttls/{{{raw.TLS}}}required") is not None
    assert client.mechanisms() == []
    client.starttls()
    assert client.features.find(f"{{{raw.TLS}}}starttls") is None
    assert "SCRAM-SHA-256" in client.mechanisms() and "PLAIN" in client.mechanisms()
    assert raw.local_name(client.scram("alice", algorithm="sha256")) == "success"


def test_starttls_is_offered_where_plaintext_is_allowed(broker, connect):
    client = connect(broker)
    client.open()
    starttls = client.features.find(f"{{{raw.TLS}}}starttls")
    assert starttls is not None and starttls.find(f"{{{raw.TLS}}}required") is None


def test_channel_binding_mechanisms_only_under_tls(broker, connect):
    plain, secured = connect(broker), connect(broker, direct_tls=True)
    plain.open()
    secured.open()
    assert not [m for m in plain.mechanisms() if m.endswith("-PLUS")]
    assert [m for m in secured.mechanisms() if m.endswith("-PLUS")]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED])
def test_channel_bindings_fit_the_version(broker, connect, newest):
    context = ssl.create_default_context(cafile=broker.certificate)
    context.check_hostname = False
    context.maximum_version = newest
    client = connect(broker, direct_tls=True, context=context)
    client.open()
    offered = [e.get("type") for e in client.features.iter() if raw.local_name(e) == "channel-binding"]
    of_version = {
        "TLSv1.2": ["tls-server-end-point", "tls-unique"],
        "TLSv1.3": ["tls-exporter", "tls-server-end-point"],
    }
    assert offered == of_version[client.socket.version()]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(broker, connect, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(broker, direct_tls=True, context=context)


def test_only_forward_secret_ciphers(broker, connect):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("kRSA")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(broker, direct_tls=True, context=context)


def test_failures_are_named(broker, connect):
    client = connect(broker)
    client.open()
    assert raw.condition(client.plain("alice", "wrong"))[1] == "not-authorized"
    assert raw.condition(client.plain("nobody", "wrong"))[1] == "not-authorized"
    assert raw.condition(client.sasl("NO-SUCH-MECHANISM", b"x"))[1] == "invalid-mechanism"
    assert raw.local_name(client.plain("alice")) == "success"  # failures do not spoil the stream


def test_too_many_failures_close_the_stream(make_broker, connect):
    broker = make_broker({"limits": {"auth_failures": 2}}).start()
    client = connect(broker)
    client.open()
    assert raw.condition(client.plain("alice", "wrong"))[1] == "not-authorized"
    assert raw.condition(client.plain("alice", "wrong"))[1] == "not-authorized"
    client.wait_closed()


def test_failures_of_others_do_not_lock_an_account(broker, connect):
    for _ in range(4):
        stranger = connect(broker)
        stranger.open()
        stranger.plain("alice", "wrong")
    connect(broker, "alice")


def test_authzid_must_be_oneself(broker, connect):
    client = connect(broker)
    client.open()
    assert raw.condition(client.plain("alice", authzid="bob@" + DOMAIN))[1] == "invalid-authzid"
    assert raw.local_name(client.plain("alice", authzid="alice@" + DOMAIN)) == "success"


def test_abort(broker, connect):
    client = connect(broker)
    client.open()
    assert raw.local_name(client.sasl("SCRAM-SHA-1", b"n,,n=alice,r=abcdefgh")) == "challenge"
    client.send(f"<abort xmlns='{raw.SASL}'/>")
    assert raw.condition(client.read())[1] == "aborted"
    assert raw.local_name(client.plain("alice")) == "success"


def test_without_initial_response(broker, connect):
    """RFC 4422: a client-first mechanism without initial response gets an empty challenge."""
    client = connect(broker)
    client.open()
    challenge = client.sasl("PLAIN")
    assert raw.local_name(challenge) == "challenge" and not challenge.text
    assert raw.local_name(client.respond(f"\0alice\0{USERS['alice']}".encode())) == "success"


def test_session_survives_the_login_deadline(make_broker, connect):
    """unauthenticated_timeout ends with the login."""
    broker = make_broker({"limits": {"unauthenticated_timeout": "1s"}}).start()
    client = connect(broker, "alice")
    client.nothing(seconds=1.5)
    assert client.ping().get("type") == "result"


def test_local_socket_makes_the_broker_s_own_user_admin(broker, connect):
    client = connect(broker, local=True)
    client.open()
    assert "EXTERNAL" in client.mechanisms()
    assert raw.local_name(client.sasl("EXTERNAL", b"")) == "success"
    client.open()
    client.bind("console")
    assert client.jid == f"admin@{DOMAIN}/console"


def test_local_socket_as_somebody_else(broker, connect):
    client = connect(broker, local=True)
    client.open()
    assert raw.local_name(client.sasl("EXTERNAL", ("bob@" + DOMAIN).encode())) == "success"
    client.open()
    client.bind("console")
    assert client.jid == f"bob@{DOMAIN}/console"
    stranger = connect(broker, local=True)
    stranger.open()
    assert raw.local_name(stranger.sasl("EXTERNAL", ("nobody@" + DOMAIN).encode())) == "failure"


def test_admin_cannot_log_in_elsewhere(broker, connect):
    client = connect(broker)
    client.open()
    assert raw.condition(client.plain("admin", ""))[1] in ("not-authorized", "malformed-request")


def test_stream_header_of_the_server(broker, connect):
    client = connect(broker)
    client.open()
    assert client.header.get("from") == DOMAIN
    assert client.header.get("version") == "1.0"
    assert len(client.stream_id) >= 16
    other = connect(broker)
    other.open()
    assert other.stream_id != client.stream_id


def test_limits_are_advertised(broker, connect):
    """XEP-0478: what is announced before and after the login."""
    client = connect(broker)
    client.open()
    limits = client.features.find("{urn:xmpp:stream-limits:0}limits")
    assert limits is not None
    before = int(limits.findtext("{urn:xmpp:stream-limits:0}max-bytes"))
    client.plain("alice")
    client.open()
    after = int(client.features.findtext("{urn:xmpp:stream-limits:0}limits/{urn:xmpp:stream-limits:0}max-bytes"))
    assert before <= after == 256 * 1024


def test_certificate_reload(broker, connect):
    """SIGHUP: new connections see the new certificate, old ones go on."""
    import harness

    old = connect(broker, direct_tls=True)
    old.open()
    before = old.socket.getpeercert(binary_form=True)
    harness.make_certificate(broker.folder)
    broker.reload()
    for _ in range(50):
        fresh = connect(broker, direct_tls=True)
        if fresh.socket.getpeercert(binary_form=True) != before:
            break
        fresh.nothing(seconds=0.1)
    assert fresh.socket.getpeercert(binary_form=True) != before
    assert raw.local_name(old.plain("alice")) == "success"
