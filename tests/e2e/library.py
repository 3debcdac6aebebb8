"""slixmpp, unmodified, as the third-party client of the tests: how to connect it, and how to wait for what it gets."""

import asyncio
import contextlib
import ssl

import slixmpp

from harness import DOMAIN, USERS

TIMEOUT_S = 20


class Refused(Exception):
    """The server did not let us in; the argument says at which step."""


class Client(slixmpp.ClientXMPP):
    """Messages go to `inbox`; `closed` completes with the connection."""

    def __init__(self, user, password=None, resource="slixmpp", mechanism=None, plugins=()):
        jid = f"{user}@{DOMAIN}/{resource}"
        super().__init__(jid, USERS[user] if password is None else password, sasl_mech=mechanism)
        self["feature_mechanisms"].unencrypted_plain = True
        for name in ("xep_0030", "xep_0199", *plugins):
            self.register_plugin(name)
        self.inbox = asyncio.Queue()
        self.started = self.loop.create_future()
        self.add_event_handler("session_start", lambda _: self._settle(None))
        self.add_event_handler("failed_all_auth", lambda _: self._settle("failed_auth"))
        self.add_event_handler("stream_error", lambda error: self._settle(error["condition"]))
        self.add_event_handler("disconnected", lambda _: self._settle("disconnected"))
        self.add_event_handler("connection_failed", lambda error: self._settle(f"connection_failed: {error}"))
        self.add_event_handler("message", self.inbox.put_nowait)

    def _settle(self, reason):
        if not self.started.done():
            if reason is None:
                self.started.set_result(None)
            else:
                self.started.set_exception(Refused(reason))

    async def next_message(self, timeout=TIMEOUT_S):
        return await asyncio.wait_for(self.inbox.get(), timeout)

    async def close(self):
        self.disconnect(wait=0.5)
        try:
            await asyncio.wait_for(asyncio.shield(self.disconnected), 5)
        except asyncio.TimeoutError:
            self.abort()


async def connect(broker, user, tls="none", presence=True, **how):
    """A started session. `tls`: none (plaintext on loopback), starttls, direct. Certificates are checked."""
    client = Client(user, **how)
    client.ca_certs = broker.certificate
    client.ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    if (how.get("mechanism") or "").endswith("-PLUS"):  # slixmpp binds by tls-unique, which ends with TLS 1.2
        client.ssl_context.maximum_version = ssl.TLSVersion.TLSv1_2
    port = broker.tls_port if tls == "direct" else broker.port
    client.connect(
        ("127.0.0.1", port), use_ssl=tls == "direct", force_starttls=tls == "starttls", disable_starttls=tls == "none"
    )
    try:
        await asyncio.wait_for(asyncio.shield(client.started), TIMEOUT_S)
    except BaseException:
        with contextlib.suppress(AttributeError):  # slixmpp cannot abort a transport that is closed already
            client.abort()
        raise
    if presence:
        client.send_presence()
    return client
