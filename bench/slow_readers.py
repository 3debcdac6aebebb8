#!/usr/bin/python3
"""What sessions that stop reading cost the broker, and everybody else.

A thousand sessions subscribe to a node and then read nothing more while items are published to it. Printed: by how much
the broker's memory grew, and how long messages and items of another node took from sender to recipient before, while, and
after the outboxes filled. Three kinds of sessions: without XEP-0198, with it, and with it and at-least-once subscriptions.

usage: slow_readers.py [--readers N] [--items N] [--bytes N]      (XYLEM_BIN: the programs; XYLEM_TEST_SHARDS: shards)
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
import harness  # noqa: E402
import raw  # noqa: E402

NS = "http://jabber.org/protocol/pubsub"
PROBES = 400
OPTIONS = (
    "<options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>"
    f"<value>{NS}#subscribe_options</value></field>"
    "<field var='{urn:xylem:delivery:0}mode'><value>at-least-once</value></field></x></options>"
)


def pubsub(client, payload, owner=False):
    return client.ok("set", f"<pubsub xmlns='{NS}{'#owner' if owner else ''}'>{payload}</pubsub>", harness.PUBSUB)


def publish(client, node, body, count=1):
    """Publishes without waiting for each answer; returns when the last one came."""
    for i in range(count):
        name = client.new_id()
        client.send(
            f"<iq type='set' id='{name}' to='{harness.PUBSUB}'><pubsub xmlns='{NS}'><publish node='{node}'><item>"
            f"<x xmlns='urn:example'>{body}</x></item></publish></pubsub></iq>"
        )
        if i % 100 == 99 or i == count - 1:
            client.read_until(lambda e: e.get("id") == name, 120)
            client.inbox.clear()


def latencies(sender, recipient):
    """Milliseconds, sorted: assured messages and items of a node that nobody else looks at, in turn."""
    taken = []
    for i in range(PROBES):
        begun = time.perf_counter()
        if i % 2:
            sender.message(recipient.jid, f"probe {i}")
        else:
            publish(sender, "probe", f"probe {i}")
        recipient.read_message(30)
        taken.append((time.perf_counter() - begun) * 1000)
        sender.inbox.clear()
    return sorted(taken)


def quantiles(taken):
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100]


def reader(broker, number, kind):
    client = raw.Client(broker).login("carol", f"r{number}")
    if kind != "plain":
        client.enable_sm()
    client.available(0)
    if kind == "durable":
        pubsub(client, f"<subscribe node='busy' jid='{client.jid}'/>{OPTIONS}")
    return client


def run(kind, readers, items, size):
    limits = {"sessions_per_account": readers + 10, "subscriptions_per_subscriber": readers + 10, "stalled_timeout": "600s"}
    broker = harness.Broker({"log": {"level": "warning"}, "limits": limits, "store": {"map_size": "8gb"}}).start()
    clients = []
    try:
        sender = raw.Client(broker).login("alice", "sender", 0)
        recipient = raw.Client(broker).login("bob", "recipient", 0)
        clients += [sender, recipient]
        for node in ("busy", "probe"):
            pubsub(sender, f"<create node='{node}'/>")
        pubsub(recipient, f"<subscribe node='probe' jid='bob@{harness.DOMAIN}'/>")
        clients += [reader(broker, i, kind) for i in range(readers)]
        if kind != "durable":
            pubsub(clients[2], f"<subscribe node='busy' jid='carol@{harness.DOMAIN}'/>")
        before = quantiles(latencies(sender, recipient))
        memory_kb = broker.rss_kb()
        publish(sender, "busy", "x" * size, items)
        grown_mb = (broker.rss_kb() - memory_kb) / 1024
        after = quantiles(latencies(sender, recipient))
        print(
            f"{kind:8} {readers} sessions stopped, {items} items of {size} bytes: memory grew {grown_mb:.1f} MB; "
            f"others p50 {before[0]:.2f} -> {after[0]:.2f} ms, p99 {before[1]:.2f} -> {after[1]:.2f} ms "
            f"(ratio {after[1] / before[1]:.2f})",
            flush=True,
        )
    finally:
        for client in clients:
            client.drop()
        broker.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--bytes", type=int, default=256)
    options = parser.parse_args()
    for kind in ("plain", "sm", "durable"):
        run(kind, options.readers, options.items, options.bytes)


if __name__ == "__main__":
    main()
