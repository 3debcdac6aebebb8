"""One start-load-stop cycle under valgrind: no leak, no use of what is not there. A little of everything, since it is slow."""

import shutil

import pytest

import harness
import pubsub
import raw
from harness import DOMAIN
from raw import body

BOB = "bob@" + DOMAIN
FOUND = 99
VALGRIND = ["valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible",
            "--errors-for-leak-kinds=definite,indirect,possible", f"--error-exitcode={FOUND}", "--num-callers=30"]


@pytest.mark.skipif("san" in harness.BIN, reason="sanitizers and valgrind exclude each other")
@pytest.mark.skipif(not shutil.which("valgrind"), reason="no valgrind here")
def test_no_leak_after_a_cycle(make_broker, connect, monkeypatch):
    monkeypatch.setattr(harness, "START_TIMEOUT_S", 120)
    monkeypatch.setattr(harness, "STOP_TIMEOUT_S", 120)
    monkeypatch.setattr(raw, "TIMEOUT_S", 60)
    broker = make_broker()
    broker.wrapper = VALGRIND
    broker.start()

    alice = connect(broker, "alice", "desk", presence=0)
    pubsub.create(alice, "states", max_items="10")
    reader = connect(broker, "bob", "reader")
    resumable = reader.enable_sm().get("id")
    pubsub.subscribe(reader, "states", **{pubsub.DELIVERY + "mode": "at-least-once"})
    reader.available()
    for n in range(20):
        pubsub.publish(alice, "states", str(n), "x" * 500)
        alice.message(BOB, str(n))
    assert [name for name, _ in pubsub.next_items(reader, 20)] == [str(n) for n in range(20)]

    # Lost with some acknowledged, resumed over TLS, lost for good: what is left goes to the next session.
    reader.ack(10)
    reader.reset()
    again = connect(broker, direct_tls=True)
    again.open()
    assert raw.local_name(again.scram("bob", algorithm="sha256")) == "success"
    again.open()
    assert raw.local_name(again.resume(resumable, 10)) == "resumed"
    again.read_message()
    again.drop()
    wrong = connect(broker)
    wrong.open()
    assert raw.local_name(wrong.plain("alice", "wrong")) == "failure"
    wrong.send("<message>&nonsense;")
    wrong.wait_closed()
    bob = connect(broker, "bob", "reader", presence=0)
    assert body(bob.read_until(lambda e: body(e) is not None)) is not None

    broker.reload()
    connect(broker, local=True).login_local().ping()
    connect(broker, "carol").message(BOB, "while the broker stops")
    broker.stop()  # fails with the log, which has the report, when valgrind found something
