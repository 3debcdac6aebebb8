"""Queue nodes (XEP-0254) over raw clients: making one, consuming, and what consumers say about items."""

import socket
import time
from xml.sax.saxutils import escape, quoteattr

import pubsub
import raw
from harness import PUBSUB
from pubsub import create, delivery, is_event, request

QUEUEING = "urn:xmpp:pubsub:queueing:0"
SHIM = "http://jabber.org/protocol/shim"
JOB = "urn:example"


def create_queue(client, node="jobs", **options):
    """Options without a namespace are those of our own."""
    config = {pubsub.NODE + k if not k.startswith("pubsub#") else k: v for k, v in options.items()}
    return create(client, node, **{pubsub.NODE + "queue": "1", **config})


def put(client, name, node="jobs", **headers):
    """Publishes an item with headers: Group="a", Deliver_At="…"."""
    client.ok("set", put_xml(name, node, **headers), PUBSUB)
    return name


def put_xml(name, node="jobs", **headers):
    shim = "".join(
        f"<header name={quoteattr(k.replace('_', '-'))}>{escape(str(v))}</header>" for k, v in headers.items()
    )
    shim = f"<headers xmlns='{SHIM}'>{shim}</headers>" if headers else ""
    item = f"<item id={quoteattr(name)}><job xmlns='{JOB}'>{escape(name)}</job>{shim}</item>"
    return request(f"<publish node={quoteattr(node)}>{item}</publish>")


def consume_xml(node, jid, requests, options):
    return pubsub.subscribe_xml(node, jid, {"queue_requests": requests, **options})


def consume(client, node="jobs", requests=1, jid=None, **options):
    """Makes the client's full JID (or `jid`) a consumer and returns its subid."""
    options = {pubsub.DELIVERY + k if "#" not in k else k: v for k, v in options.items()}
    answer = client.ok("set", consume_xml(node, jid or client.jid, requests, options), PUBSUB)
    return answer.find(f".//{{{pubsub.NS}}}subscription").get("subid")


def worker(broker, connect, user="bob", resource="w1", requests=1, node="jobs", sm=False, **options):
    client = connect(broker, user, resource)
    if sm:
        client.enable_sm()
    client.available(0)
    consume(client, node, requests, **options)
    return client


def is_item(message):
    return is_event(message) and message.find(f".//{{{pubsub.EVENT}}}item") is not None


def take(client, timeout=None):
    """(id, attempt) of the next item."""
    message = client.read_until(is_item, timeout)
    found = message.findall(f".//{{{pubsub.EVENT}}}item")
    assert len(found) == 1
    return found[0].get("id"), int(delivery(message).get("attempt"))


def take_ids(client, count, timeout=None):
    return [take(client, timeout)[0] for _ in range(count)]


def none_comes(client, seconds=0.3):
    """Asserts that no item comes for a while; notices may."""
    try:
        message = client.read_until(is_item, seconds)
    except socket.timeout:
        return
    raise AssertionError(f"unexpected {raw.show(message)}")


def names_xml(names):
    return "".join(f"<item id={quoteattr(n)}/>" for n in names)


def retract_xml(*names, node="jobs"):
    return request(f"<retract node={quoteattr(node)}>{names_xml(names)}</retract>")


def unlock_xml(*names, node="jobs", delay=None):
    more = f" delay='{delay}'" if delay is not None else ""
    return request(f"<unlock xmlns='{QUEUEING}' node={quoteattr(node)}{more}>{names_xml(names)}</unlock>")


def done(client, *names, node="jobs"):
    client.ok("set", retract_xml(*names, node=node), PUBSUB)


def unlock(client, *names, node="jobs", delay=None):
    client.ok("set", unlock_xml(*names, node=node, delay=delay), PUBSUB)


def next_notice(client, timeout=None):
    """("retract" or "unlock", id) of the next event that is not an item."""
    message = client.read_until(lambda e: is_event(e) and not is_item(e), timeout)
    for element in message.find(f".//{{{pubsub.EVENT}}}items"):
        return element.tag.partition("}")[2], element.get("id")
    return None


def left(client, node="jobs"):
    """Ids of what is in the queue."""
    return [name for name, _ in pubsub.items(client, node)]


def until_left(client, expected, node="jobs"):
    """What is given up, settled or moved leaves with a commit that nobody is told of."""
    deadline = time.monotonic() + 10
    while left(client, node) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left(client, node) == expected


# --- urn:xylem:delivery:0 ---------------------------------------------------------------------------------------------


def take_delivery(client, timeout=None):
    """(id, <delivery/>) of the next item."""
    message = client.read_until(is_item, timeout)
    return message.find(f".//{{{pubsub.EVENT}}}item").get("id"), delivery(message)


def settle_xml(what, node="jobs", name=None, of=None, more=""):
    """<ack/>, <nack/>, <term/> or <working/> of an item: by its id, or `of` its <delivery/>."""
    which = f" id={quoteattr(name)}" if name else f" epoch='{of.get('epoch')}' seq='{of.get('seq')}'"
    return f"<{what} xmlns='urn:xylem:delivery:0' node={quoteattr(node)}{which}{more}/>"


def say(client, *elements):
    """In a message: nobody answers."""
    client.send(f"<message to='{PUBSUB}'>{''.join(elements)}</message>")
