"""An XMPP client without manners: sends exactly the bytes a test wants and hands back the elements that come.

For what a library would not send (hostile input), would not show (XEP-0198 counters), or would do by itself. Blocking
sockets with a timeout on everything; elements are xml.etree elements with names in {namespace}local form.
"""

import base64
import collections
import hashlib
import hmac
import itertools
import os
import socket
import ssl
import time
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from harness import DOMAIN, USERS

TIMEOUT_S = 30 if "san" in os.environ.get("XYLEM_BIN", "") else 10
QUIET_S = 0.5  # how long "nothing comes" is watched

CLIENT = "jabber:client"
STREAMS = "http://etherx.jabber.org/streams"
STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
SESSION = "urn:ietf:params:xml:ns:xmpp-session"
SM = "urn:xmpp:sm:3"
DELAY = "urn:xmpp:delay"
ERRORS_NS = (STREAM_ERRORS, STANZA_ERRORS, SASL)


class Closed(Exception):
    """The other side closed the stream or the connection."""


def local_name(element):
    return element.tag.rpartition("}")[2]


def namespace(element):
    return element.tag[1:].partition("}")[0] if element.tag.startswith("{") else ""


def condition(element):
    """(type, condition, application conditions) of a stanza error, or (None, condition, …) of any other error."""
    error = element if local_name(element) in ("error", "failure", "failed") else element.find(f"{{{CLIENT}}}error")
    assert error is not None, f"no error in {show(element)}"
    names = [local_name(c) for c in error if namespace(c) in ERRORS_NS and local_name(c) != "text"]
    others = [c for c in error if namespace(c) not in ERRORS_NS]
    return error.get("type"), names[0] if names else None, others


def show(element):
    return ET.tostring(element, encoding="unicode")


class Client:
    """One connection. Methods that wait raise Closed when the server ends the stream, socket.timeout when it is late."""

    ids = itertools.count(1)

    def __init__(self, broker, direct_tls=False, local=False, context=None):
        if local:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT_S)
            self.socket.connect(broker.local)
        else:
            port = broker.tls_port if direct_tls else broker.port
            self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox = collections.deque()  # elements read but not yet asked for
        self.jid = None
        self.features = None
        self.stream_id = None
        self.received = 0  # stanzas, for XEP-0198
        self.ended = False
        if direct_tls:
            self.start_tls(context)
        self._new_parser()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop()

    # --- bytes --------------------------------------------------------------------------------------------------

    def _new_parser(self):
        self.parser = ET.XMLPullParser(("start", "end"))
        self.depth = 0
        self.header = None

    def start_tls(self, context=None):
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname=DOMAIN)

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def drop(self):
        """Closes the socket without a word, as a crashed client does."""
        self.socket.close()

    def reset(self):
        """Drops the connection so that the server sees a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _read(self, deadline):
        """One read into the parser; complete top-level elements go to the inbox."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout()
        if self.ended:
            raise Closed()
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            data = b""
        if not data:
            self.ended = True
            raise Closed()
        self.parser.feed(data)
        for event, element in self.parser.read_events():
            self.depth += 1 if event == "start" else -1
            if event == "start" and self.depth == 1:
                self.header = element
                self.stream_id = element.get("id")
            elif event == "end" and self.depth == 1:
                self.inbox.append(element)
            elif event == "end" and self.depth == 0:
                self.ended = True

    def read(self, timeout=None):
        """The next top-level element."""
        deadline = time.monotonic() + (timeout or TIMEOUT_S)
        while not self.inbox:
            self._read(deadline)
        element = self.inbox.popleft()
        if namespace(element) == CLIENT:
            self.received += 1
        return element

    def read_until(self, wanted, timeout=None):
        """The first element for which wanted(element) holds; those before it stay in the inbox, in order."""
        deadline = time.monotonic() + (timeout or TIMEOUT_S)
        passed = []
        try:
            while True:
                element = self.read(max(0.001, deadline - time.monotonic()))
                if wanted(element):
                    return element
                passed.append(element)
        finally:
            self.inbox.extendleft(reversed(passed))
            self.received -= sum(namespace(e) == CLIENT for e in passed)

    def read_name(self, name, timeout=None):
        return self.read_until(lambda e: local_name(e) == name, timeout)

    def read_message(self, timeout=None):
        return self.read_name("message", timeout)

    def nothing(self, name=None, seconds=QUIET_S):
        """Asserts that no element (or none called `name`) comes for a while."""
        try:
            element = self.read_until(lambda e: name is None or local_name(e) == name, seconds)
        except socket.timeout:
            return
        raise AssertionError(f"unexpected {show(element)}")

    def wait_closed(self, timeout=None):
        """Reads to the end of the connection; returns what came before."""
        deadline = time.monotonic() + (timeout or TIMEOUT_S)
        try:
            while True:
                if self.ended:
                    self.socket.settimeout(max(0.001, deadline - time.monotonic()))
                    if not self.socket.recv(65536):
                        raise Closed()
                else:
                    self._read(deadline)
        except (Closed, ConnectionResetError, ssl.SSLError):
            return list(self.inbox)

    def stream_error(self, timeout=None):
        """The condition of the stream error that must come, with the connection closed after it."""
        element = self.read_until(lambda e: e.tag == f"{{{STREAMS}}}error", timeout)
        _, name, others = condition(element)
        self.wait_closed(timeout)
        return name, [local_name(o) for o in others]

    # --- stream and login ---------------------------------------------------------------------------------------

    def open(self, to=DOMAIN, extra="", declaration="<?xml version='1.0'?>"):
        """Sends a stream header and returns the features."""
        self._new_parser()
        attribute = f" to={quoteattr(to)}" if to is not None else ""
        self.send(
            f"{declaration}<stream:stream{attribute} version='1.0' xmlns='{CLIENT}' xmlns:stream='{STREAMS}'{extra}>"
        )
        self.features = self.read_until(lambda e: e.tag == f"{{{STREAMS}}}features")
        return self.features

    def starttls(self, context=None):
        self.send(f"<starttls xmlns='{TLS}'/>")
        assert self.read().tag == f"{{{TLS}}}proceed"
        self.start_tls(context)
        return self.open()

    def mechanisms(self):
        return [m.text for m in self.features.iter(f"{{{SASL}}}mechanism")]

    def sasl(self, mechanism, initial=None):
        """Sends <auth/> and returns the answer. `initial` is bytes, or None for no initial response."""
        text = "" if initial is None else base64.b64encode(initial).decode() or "="
        self.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{text}</auth>")
        return self.read()

    def respond(self, data):
        self.send(f"<response xmlns='{SASL}'>{base64.b64encode(data).decode()}</response>")
        return self.read()

    def plain(self, user, password=None, authzid=""):
        password = USERS.get(user, "") if password is None else password
        return self.sasl("PLAIN", f"{authzid}\0{user}\0{password}".encode())

    def scram(self, user, password=None, algorithm="sha1"):
        """SCRAM without channel binding; checks the server's signature and returns the last element."""
        password = USERS.get(user, "") if password is None else password
        name = {"sha1": "SCRAM-SHA-1", "sha256": "SCRAM-SHA-256"}[algorithm]
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        challenge = self.sasl(name, ("n,," + bare).encode())
        if challenge.tag != f"{{{SASL}}}challenge":
            return challenge
        first = base64.b64decode(challenge.text).decode()
        fields = dict(f.split("=", 1) for f in first.split(","))
        assert fields["r"].startswith(nonce) and len(fields["r"]) > len(nonce)
        salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))

        def mac(key, text):
            return hmac.digest(key, text if isinstance(text, bytes) else text.encode(), algorithm)

        without_proof = f"c=biws,r={fields['r']}"
        message = f"{bare},{first},{without_proof}"
        client_key = mac(salted, "Client Key")
        signature = mac(hashlib.new(algorithm, client_key).digest(), message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        answer = self.respond(f"{without_proof},p={base64.b64encode(proof).decode()}".encode())
        if answer.tag == f"{{{SASL}}}success":
            expected = b"v=" + base64.b64encode(mac(mac(salted, "Server Key"), message))
            assert base64.b64decode(answer.text) == expected, "the server's signature is wrong"
        return answer

    def bind(self, resource=None):
        wanted = f"<resource>{escape(resource)}</resource>" if resource is not None else ""
        result = self.iq("set", f"<bind xmlns='{BIND}'>{wanted}</bind>")
        if result.get("type") == "result":
            self.jid = result.find(f".//{{{BIND}}}jid").text
            self.received = 0
        return result

    def login(self, user, resource=None, presence=None):
        """To a bound session over plaintext loopback; `presence`: None sends none, a number is the priority."""
        self.open()
        assert self.plain(user).tag == f"{{{SASL}}}success"
        self.open()
        result = self.bind(resource)
        assert result.get("type") == "result", show(result)
        if presence is not None:
            self.available(presence)
        return self

    def available(self, priority=0):
        """Presence; returns when the server has processed it, for it sends it to the sender too (RFC 6121 4.2.2)."""
        self.send(f"<presence><priority>{priority}</priority></presence>")
        return self.read_until(lambda e: local_name(e) == "presence" and e.get("from") == self.jid)

    def login_local(self, resource=None):
        """Over the local socket, as whom the kernel says we are."""
        self.open()
        assert local_name(self.sasl("EXTERNAL", b"")) == "success"
        self.open()
        self.bind(resource)
        return self

    def add_user(self, name, password):
        """XEP-0133 4.1, in one step."""
        fields = {
            "FORM_TYPE": "http://jabber.org/protocol/admin",
            "accountjid": f"{name}@{DOMAIN}",
            "password": password,
            "password-verify": password,
        }
        values = "".join(f"<field var='{k}'><value>{escape(v)}</value></field>" for k, v in fields.items())
        command = (
            "<command xmlns='http://jabber.org/protocol/commands' action='complete' "
            "node='http://jabber.org/protocol/admin#add-user'>"
            f"<x xmlns='jabber:x:data' type='submit'>{values}</x></command>"
        )
        return self.ok("set", command, DOMAIN)

    # --- stanzas ------------------------------------------------------------------------------------------------

    def new_id(self):
        return f"t{next(self.ids)}"

    def iq(self, kind, payload, to=None, timeout=None):
        """Sends an IQ and returns its answer; what comes in between stays in the inbox."""
        name = self.new_id()
        address = f" to={quoteattr(to)}" if to else ""
        self.send(f"<iq type='{kind}' id='{name}'{address}>{payload}</iq>")
        return self.read_until(lambda e: local_name(e) == "iq" and e.get("id") == name, timeout)

    def ok(self, kind, payload, to=None):
        """An IQ that must succeed."""
        answer = self.iq(kind, payload, to)
        assert answer.get("type") == "result", show(answer)
        return answer

    def refused(self, kind, payload, to=None):
        """An IQ that must fail; returns (type, condition, [application conditions])."""
        answer = self.iq(kind, payload, to)
        assert answer.get("type") == "error", show(answer)
        kind, name, others = condition(answer)
        return kind, name, [local_name(o) for o in others]

    def ping(self, to=None):
        """A round trip: when it returns, the server has processed what was sent before."""
        return self.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to)

    def message(self, to, body, kind="chat", extra="", name=None):
        name = name or self.new_id()
        body = f"<body>{escape(body)}</body>" if body is not None else ""
        self.send(f"<message to={quoteattr(to)} type='{kind}' id='{name}'>{body}{extra}</message>")
        return name

    # --- XEP-0198 -----------------------------------------------------------------------------------------------

    def enable_sm(self, resume=True):
        self.send(f"<enable xmlns='{SM}'" + (" resume='true'/>" if resume else "/>"))
        enabled = self.read_until(lambda e: namespace(e) == SM)
        assert enabled.tag == f"{{{SM}}}enabled", show(enabled)
        self.received = 0
        return enabled

    def ack(self, h=None):
        """Acknowledges everything read() has handed out."""
        self.send(f"<a xmlns='{SM}' h='{self.received if h is None else h}'/>")

    def request_ack(self, at_least=None, timeout=None):
        """The server's h; with `at_least` waits until it has grown to that."""
        self.send(f"<r xmlns='{SM}'/>")
        h = int(self.read_until(lambda e: e.tag == f"{{{SM}}}a", timeout).get("h"))
        while at_least is not None and h < at_least:
            h = int(self.read_until(lambda e: e.tag == f"{{{SM}}}a", timeout).get("h"))
        return h

    def resume(self, previous, h):
        """On an authenticated stream; returns <resumed/> or <failed/>. Counting goes on from `h`."""
        self.send(f"<resume xmlns='{SM}' previd='{previous}' h='{h}'/>")
        answer = self.read_until(lambda e: namespace(e) == SM)
        self.received = h
        return answer


def body(message):
    return message.findtext(f"{{{CLIENT}}}body")


def has_delay(message):
    return message.find(f"{{{DELAY}}}delay") is not None
