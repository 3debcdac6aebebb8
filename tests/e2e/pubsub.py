"""XEP-0060 requests over a raw client: one function per request, answers as plain Python values."""

import socket
from xml.sax.saxutils import quoteattr

import raw
from harness import PUBSUB

NS = "http://jabber.org/protocol/pubsub"
OWNER, EVENT, ERRORS = NS + "#owner", NS + "#event", NS + "#errors"
FORM = "jabber:x:data"
NODE = "{urn:xylem:node:0}"
DELIVERY = "{urn:xylem:delivery:0}"


def form(kind, fields, form_type="submit"):
    """A data form; keys without a namespace get the prefix pubsub#. Lists are several values."""
    text = f"<field var='FORM_TYPE' type='hidden'><value>{NS}#{kind}</value></field>"
    for key, value in fields.items():
        name = key if key.startswith(("{", "pubsub#")) else "pubsub#" + key
        values = value if isinstance(value, (list, tuple)) else [value]
        text += f"<field var={quoteattr(name)}>" + "".join(f"<value>{v}</value>" for v in values) + "</field>"
    return f"<x xmlns='{FORM}' type='{form_type}'>{text}</x>"


def fields_of(element):
    """The fields of the data form in `element`: {name without pubsub#: value, or list of values}."""
    result = {}
    for field in element.iter(f"{{{FORM}}}field"):
        values = [v.text or "" for v in field.findall(f"{{{FORM}}}value")]
        result[field.get("var", "").replace("pubsub#", "")] = values[0] if len(values) == 1 else values
    return result


def request(children):
    return f"<pubsub xmlns='{NS}'>{children}</pubsub>"


def owner_request(children):
    return f"<pubsub xmlns='{OWNER}'>{children}</pubsub>"


def node_attribute(node):
    return "" if node is None else f" node={quoteattr(node)}"


def create_xml(node=None, config=None):
    configure = f"<configure>{form('node_config', config)}</configure>" if config is not None else ""
    return request(f"<create{node_attribute(node)}/>{configure}")


def create(client, node=None, **config):
    """Creates the node and returns its name, also of an instant node."""
    answer = client.ok("set", create_xml(node, config or None), PUBSUB)
    created = answer.find(f".//{{{NS}}}create")
    return created.get("node") if created is not None else node


def publish_xml(node, items, options=None):
    more = f"<publish-options>{form('publish-options', options)}</publish-options>" if options else ""
    return request(f"<publish{node_attribute(node)}>{items}</publish>{more}")


def item_xml(name=None, text="", payload=None):
    attribute = "" if name is None else f" id={quoteattr(name)}"
    payload = payload or f"<entry xmlns='urn:example'>{text}</entry>"
    return f"<item{attribute}>{payload}</item>"


def publish(client, node, name=None, text="", options=None):
    """Publishes <entry>text</entry> and returns the item's id."""
    answer = client.ok("set", publish_xml(node, item_xml(name, text), options), PUBSUB)
    item = answer.find(f".//{{{NS}}}item")
    return item.get("id") if item is not None else name


def subscribe_xml(node, jid, options=None):
    more = f"<options>{form('subscribe_options', options)}</options>" if options else ""
    return request(f"<subscribe{node_attribute(node)} jid={quoteattr(jid)}/>{more}")


def subscribe(client, node, jid=None, **options):
    """Subscribes and returns the <subscription/> element."""
    answer = client.ok("set", subscribe_xml(node, jid or client.jid.partition("/")[0], options), PUBSUB)
    return answer.find(f".//{{{NS}}}subscription")


def unsubscribe_xml(node, jid, subid=None):
    more = f" subid={quoteattr(subid)}" if subid else ""
    return request(f"<unsubscribe{node_attribute(node)} jid={quoteattr(jid)}{more}/>")


def items(client, node, names=(), max_items=None):
    """[(id, text)] as the service returns them."""
    attribute = "" if max_items is None else f" max_items='{max_items}'"
    wanted = "".join(f"<item id={quoteattr(n)}/>" for n in names)
    answer = client.ok("get", request(f"<items{node_attribute(node)}{attribute}>{wanted}</items>"), PUBSUB)
    return [(i.get("id"), i.findtext("{urn:example}entry") or "") for i in answer.iter(f"{{{NS}}}item")]


def retract_xml(node, name, notify=None):
    attribute = "" if notify is None else f" notify='{notify}'"
    item = "" if name is None else f"<item id={quoteattr(name)}/>"
    return request(f"<retract{node_attribute(node)}{attribute}>{item}</retract>")


def configure(client, node, **config):
    return client.ok("set", configure_xml(node, config), PUBSUB)


def configure_xml(node, config):
    return owner_request(f"<configure{node_attribute(node)}>{form('node_config', config)}</configure>")


def configuration(client, node):
    return fields_of(client.ok("get", owner_request(f"<configure{node_attribute(node)}/>"), PUBSUB))


def affiliate(client, node, **affiliations):
    """affiliate(alice, "n", bob="publisher")"""
    return client.ok("set", affiliations_xml(node, affiliations), PUBSUB)


def affiliations_xml(node, affiliations):
    from harness import DOMAIN

    rows = "".join(
        f"<affiliation jid={quoteattr(n if '@' in n else n + '@' + DOMAIN)} affiliation='{a}'/>"
        for n, a in affiliations.items()
    )
    return owner_request(f"<affiliations{node_attribute(node)}>{rows}</affiliations>")


# --- events -------------------------------------------------------------------------------------------------------


def is_event(element):
    return raw.local_name(element) == "message" and element.find(f"{{{EVENT}}}event") is not None


def next_event(client, timeout=None):
    """The next event message."""
    return client.read_until(is_event, timeout)


def no_items(client, seconds=raw.QUIET_S):
    """Asserts that no items come for a while; other messages and events may."""
    try:
        event = client.read_until(lambda e: e.find(f"{{{EVENT}}}event/{{{EVENT}}}items") is not None, seconds)
    except socket.timeout:
        return
    raise AssertionError(f"unexpected {raw.show(event)}")


def next_items(client, count=1, timeout=None):
    """[(id, text)] of the next `count` items that events bring."""
    found = []
    while len(found) < count:
        message = next_event(client, timeout)
        found += [(i.get("id"), i.findtext("{urn:example}entry") or "") for i in message.iter(f"{{{EVENT}}}item")]
    return found


def change(message):
    """What else an event tells: (retract|purge|delete|configuration|subscription, node)."""
    for element in message.find(f"{{{EVENT}}}event"):
        if raw.local_name(element) == "items":
            return ("retract" if element.find(f"{{{EVENT}}}retract") is not None else "items"), element.get("node")
        return raw.local_name(element), element.get("node")
    return None, None


def delivery(message):
    """The <delivery/> of a durable subscription's event."""
    found = [e for e in message.iter() if e.tag == DELIVERY + "delivery"]
    return found[0] if found else None
