"""What a session takes that only sits there: parser and buffers go back to the system, also when all were awake at once."""

import time

import pytest

import harness
import raw

SESSIONS = 600
KIB_PER_SESSION_MAX = 8  # measured: 5.2 at most; with parsers from malloc 14.6
SETTLE_S = 30  # they fall asleep after one second

pytestmark = pytest.mark.skipif("san" in harness.BIN, reason="a sanitizer's allocator keeps what is freed")


def kib_per_session(broker, before):
    return (broker.rss_kb() - before) / SESSIONS


def settled(broker, before):
    """The growth once it is below the bound, or what it is in the end."""
    deadline = time.monotonic() + SETTLE_S
    while kib_per_session(broker, before) > KIB_PER_SESSION_MAX and time.monotonic() < deadline:
        time.sleep(0.2)
    return kib_per_session(broker, before)


def log_in(broker, sessions):
    names = list(harness.USERS)
    for number in range(SESSIONS):
        sessions.append(raw.Client(broker).login(names[number % len(names)], f"r{number}"))


def wake_together(sessions):
    for client in sessions:
        client.send(f"<iq type='get' id='wake' to='{harness.DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>")
    for client in sessions:
        client.read_until(lambda e: e.get("id") == "wake")


def test_sleeping_sessions_are_small(broker):
    for name in harness.USERS:
        raw.Client(broker).login(name).drop()  # what accounts take is not the sessions'
    before = broker.rss_kb()
    sessions = []
    try:
        log_in(broker, sessions)
        assert settled(broker, before) < KIB_PER_SESSION_MAX
        for _ in range(3):
            wake_together(sessions)
            assert settled(broker, before) < KIB_PER_SESSION_MAX
    finally:
        for client in sessions:
            client.drop()
