"""A full disk: everything that would have to be stored is refused and may be tried again, everything that frees space or
needs none goes on, and with room again all of it works without a restart."""

import signal
import time

import pubsub
import raw
from harness import DOMAIN, PUBSUB
from pubsub import DELIVERY, NODE
from test_start import fill, small_disk  # noqa: F401  (a fixture)

WAIT = ("wait", "resource-constraint")
QUEUEING = "urn:xmpp:pubsub:queueing:0"


def refusals(client):
    """Each thing that needs the disk, and the answer it gets. Names are new each time: what was still taken before the
    broker knew that the disk is full must not be in the way of what is asked then."""
    new = client.new_id()
    requests = {
        "publish": pubsub.publish_xml("plain", pubsub.item_xml("new " + new)),
        "publish async": pubsub.publish_xml("async", pubsub.item_xml("new " + new)),
        "publish dedup": pubsub.publish_xml("dedup", pubsub.item_xml("new " + new)),
        "publish queue": pubsub.publish_xml("queue", pubsub.item_xml("new " + new)),
        "publish creates": pubsub.publish_xml("published " + new, pubsub.item_xml("new")),
        "create": pubsub.create_xml("created " + new),
        "configure": pubsub.configure_xml("plain", {"title": "T"}),
        "subscribe": pubsub.subscribe_xml("plain", "alice@" + DOMAIN, {DELIVERY + "mode": "at-least-once"}),
        "affiliate": pubsub.affiliations_xml("plain", {"carol": "publisher"}),
    }
    answers = {}
    for name, request in requests.items():
        answer = client.iq("set", request, PUBSUB)
        answers[name] = raw.condition(answer)[:2] if answer.get("type") == "error" else "done"
    return answers


def wait_until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def test_nothing_that_must_be_stored_is_taken(make_broker, connect, small_disk):  # noqa: F811
    broker = make_broker({"data_dir": str(small_disk / "data")}).start()
    alice = connect(broker, "alice", "desk", presence=0)
    pubsub.create(alice, "plain", max_items="max")
    pubsub.create(alice, "async", **{NODE + "durability": "async"})
    pubsub.create(alice, "dedup", **{NODE + "dedup_window": "600"})
    pubsub.create(alice, "queue", **{NODE + "queue": "1"})
    pubsub.create(alice, "memory", **{NODE + "durability": "memory"})
    for n in range(3):
        pubsub.publish(alice, "plain", f"p{n}")
        pubsub.publish(alice, "queue", f"q{n}")
    worker = connect(broker, "bob", "worker")
    worker.enable_sm()
    pubsub.subscribe(worker, "queue", **{"queue_requests": "1"})
    worker.available(0)
    assert [name for name, _ in pubsub.next_items(worker, 1)] == ["q0"]

    ballast = fill(small_disk, 0)
    wait_until(lambda: set(refusals(alice).values()) == {WAIT})
    alice.message("carol@" + DOMAIN, "for later")
    assert raw.condition(alice.read_message())[:2] == WAIT

    # What is in memory only, what frees space, and acknowledgements.
    pubsub.publish(alice, "memory", "m")
    assert [name for name, _ in pubsub.items(alice, "memory")] == ["m"]
    alice.ok("set", pubsub.retract_xml("plain", "p0"), PUBSUB)
    worker.ok("set", f"<pubsub xmlns='{pubsub.NS}'><retract node='queue'><item id='q0'/></retract></pubsub>", PUBSUB)
    assert [name for name, _ in pubsub.next_items(worker, 1)] == ["q1"]
    alice.ok("set", pubsub.owner_request("<delete node='dedup'/>"), PUBSUB)

    ballast.unlink()
    wait_until(lambda: refusals(alice)["publish"] == "done")
    assert {name: answer for name, answer in refusals(alice).items() if answer != "done"} == {}
    broker.restart(signal.SIGKILL)
    alice = connect(broker, "alice", "desk")
    names = [name for name, _ in pubsub.items(alice, "plain")]
    assert names[:2] == ["p1", "p2"] and len(names) > 2 and all(name.startswith("new ") for name in names[2:])
    broker.stop()
