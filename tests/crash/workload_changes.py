"""Everything that is set up rather than sent: nodes, their options, affiliations, subscriptions, retained items, accounts.

One client makes random changes, one at a time, and knows after each answer how things stand. After every crash it asks for
everything and compares: what was answered must be so, and the one change that was under way is there wholly or not at all.
"""

from xml.sax.saxutils import escape

import harness
import pubsub
import raw
from workload import Actor, Verdict, Workload

NODES = [f"changes-{n}" for n in range(6)]
OTHERS = ("erin", "frank", "grace")  # who get affiliations; nobody logs in as them, notices go nowhere
RESOURCES = ("r0", "r1", "r2")
ITEMS = ("a", "b", "c", "d")
ACCOUNTS = [f"account{n}" for n in range(4)]
ADMIN = "http://jabber.org/protocol/admin"
AGE = pubsub.DELIVERY + "max_backlog_age"
AT_LEAST_ONCE = {pubsub.DELIVERY + "mode": "at-least-once"}


def address(name):
    return f"{name}@{harness.DOMAIN}"


class Changer(Actor):
    """`state` maps (kind, …) to a value; `pending` holds what the request under way would change."""

    def __init__(self, broker, chance):
        super().__init__(broker)
        self.chance = chance
        self.state = {}
        self.pending = {}
        self.answered = 0
        self.refused = 0
        self.compared = 0
        self.wrong = []
        self.counter = 0

    # --- life ---------------------------------------------------------------------------------------------------

    def session(self, client):
        client.login("alice", "changer")
        self.compare(client)
        while not self.stopping.is_set():
            self.change(client)
        self.compare(client)
        for name in ACCOUNTS:
            self.check_password(name)

    def change(self, client):
        kind = self.chance.choice((self.change_node, self.change_in_node, self.change_in_node, self.change_in_node, self.change_account))
        payload, to, changes = kind()
        self.pending = changes
        answer = client.iq("set", payload, to)
        if answer.get("type") == "result":
            self.apply(changes)
            self.answered += 1
        elif raw.condition(answer)[0] == "wait":
            self.refused += 1
        else:
            raise AssertionError(f"{payload}: {raw.show(answer)}")
        self.pending = {}

    def apply(self, changes):
        for key, value in changes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value

    def new_value(self):
        self.counter += 1
        return str(self.counter)

    # --- changes: (payload, to, {key: new value or None}) -----------------------------------------------------------

    def change_node(self):
        node = self.chance.choice(NODES)
        if ("title", node) not in self.state:
            title = self.new_value()
            config = {"title": title, "max_items": "max", "access_model": "open"}
            return pubsub.create_xml(node, config), harness.PUBSUB, {("title", node): title}
        if self.chance.random() < 0.3:
            gone = {key: None for key in self.state if key[0] != "password" and key[1] == node}
            return pubsub.owner_request(f"<delete node='{node}'/>"), harness.PUBSUB, gone
        title = self.new_value()
        return pubsub.configure_xml(node, {"title": title}), harness.PUBSUB, {("title", node): title}

    def change_in_node(self):
        there = [node for node in NODES if ("title", node) in self.state]
        if not there:
            return self.change_node()
        node = self.chance.choice(there)
        kind = self.chance.choice((self.affiliation, self.subscription, self.item, self.item))
        payload, changes = kind(node)
        return payload, harness.PUBSUB, changes

    def affiliation(self, node):
        name = self.chance.choice(OTHERS)
        value = self.chance.choice(("publisher", "member", "publish-only", "none"))
        changes = {("affiliation", node, address(name)): None if value == "none" else value}
        return pubsub.affiliations_xml(node, {name: value}), changes

    def subscription(self, node):
        jid = address("alice") + "/" + self.chance.choice(RESOURCES)
        key = ("subscription", node, jid)
        if key in self.state and self.chance.random() < 0.5:
            return pubsub.unsubscribe_xml(node, jid), {key: None}
        age = self.new_value()
        return pubsub.subscribe_xml(node, jid, {**AT_LEAST_ONCE, AGE: age}), {key: age}

    def item(self, node):
        """Published anew, over an older one, retracted, or all purged."""
        held = [key[2] for key in self.state if key[0] == "item" and key[1] == node]
        how = self.chance.random()
        if held and how < 0.1:
            return pubsub.owner_request(f"<purge node='{node}'/>"), {("item", node, name): None for name in held}
        if held and how < 0.3:
            name = self.chance.choice(held)
            return pubsub.retract_xml(node, name), {("item", node, name): None}
        name, text = self.chance.choice(ITEMS), self.new_value()
        return pubsub.publish_xml(node, pubsub.item_xml(name, text)), {("item", node, name): text}

    def change_account(self):
        name = self.chance.choice(ACCOUNTS)
        key, password = ("password", name), "password " + self.new_value()
        fields = {"accountjid": address(name), "password": password, "password-verify": password}
        if key not in self.state:
            return command("add-user", fields), harness.DOMAIN, {key: password}
        if self.chance.random() < 0.5:
            return command("delete-user", {"accountjids": address(name)}), harness.DOMAIN, {key: None}
        del fields["password-verify"]
        return command("change-user-password", fields), harness.DOMAIN, {key: password}

    # --- comparing ----------------------------------------------------------------------------------------------

    def compare(self, client):
        """What was answered against what is there; what was under way may be either, but wholly."""
        observed = self.observe(client)
        pending, before = self.pending, dict(self.state)
        self.apply(pending)
        after, self.state = self.state, before
        for key in [k for k in observed if k[0] == "password"]:
            observed[key] = before.get(key) or after.get(key) or "of unknown origin"
        if any(key[0] == "password" for key in pending):
            self.settle_password(pending, observed)
        elif observed == after:
            self.state = after
        self.pending = {}
        if observed != self.state:
            keys = sorted(k for k in observed.keys() | self.state.keys() if observed.get(k) != self.state.get(k))
            self.wrong += [f"{k}: is {observed.get(k)}, answered {self.state.get(k)}, under way {pending.get(k)}" for k in keys]
            self.state = observed
        self.compared += 1
        if self.state and self.chance.random() < 0.5:
            self.check_password(self.chance.choice(ACCOUNTS))

    def settle_password(self, pending, observed):
        """A password cannot be looked at, only tried."""
        (key, new), = pending.items()
        old = self.state.get(key)
        if key not in observed:
            if new is None:
                self.state.pop(key, None)
        elif new is not None and (old is None or self.can_log_in(key[1], new)):
            self.state[key] = observed[key] = new
        elif old is not None:
            observed[key] = old

    def observe(self, client):
        found = {("password", name): "" for name in accounts(client) if name in ACCOUNTS}
        for node in NODES:
            answer = client.iq("get", pubsub.owner_request(f"<configure node='{node}'/>"), harness.PUBSUB)
            if answer.get("type") == "error":
                assert raw.condition(answer)[1] == "item-not-found", raw.show(answer)
                continue
            found["title", node] = pubsub.fields_of(answer)["title"]
            answer = client.ok("get", pubsub.owner_request(f"<affiliations node='{node}'/>"), harness.PUBSUB)
            for row in answer.iter(f"{{{pubsub.OWNER}}}affiliation"):
                if row.get("affiliation") != "owner":
                    found["affiliation", node, row.get("jid")] = row.get("affiliation")
            found.update({("item", node, name): text for name, text in pubsub.items(client, node)})
            answer = client.ok("get", pubsub.owner_request(f"<subscriptions node='{node}'/>"), harness.PUBSUB)
            for row in answer.iter(f"{{{pubsub.OWNER}}}subscription"):
                options = pubsub.request(f"<options node='{node}' jid='{row.get('jid')}'/>")
                fields = pubsub.fields_of(client.ok("get", options, harness.PUBSUB))
                found["subscription", node, row.get("jid")] = fields[AGE]
        return found

    def can_log_in(self, name, password):
        with raw.Client(self.broker) as client:
            client.open()
            answer = client.plain(name, password)
            if raw.local_name(answer) == "success":
                return True
            if "not-authorized" not in {raw.local_name(child) for child in answer}:
                raise raw.Closed("the broker stops: it says nothing about the password")
            return False

    def check_password(self, name):
        password = self.state.get(("password", name))
        if password is not None and not self.can_log_in(name, password):
            self.wrong.append(f"{name} cannot log in with the password that was answered")


def command(name, fields):
    fields = {"FORM_TYPE": ADMIN, **fields}
    values = "".join(f"<field var='{key}'><value>{escape(value)}</value></field>" for key, value in fields.items())
    form = f"<x xmlns='jabber:x:data' type='submit'>{values}</x>" if len(fields) > 1 else ""
    return f"<command xmlns='http://jabber.org/protocol/commands' action='complete' node='{ADMIN}#{name}'>{form}</command>"


def accounts(client):
    answer = client.ok("set", command("get-registered-users-list", {}), harness.DOMAIN)
    found = pubsub.fields_of(answer)["registereduserjids"]
    return [jid.partition("@")[0] for jid in (found if isinstance(found, list) else [found])]


class Changes(Workload):
    """The one client; how it judges is above."""

    name = "changes"
    changer = None

    def start(self):
        self.changer = Changer(self.broker, self.chance)
        self.changer.start()

    def finish(self):
        self.changer.stop()
        return Verdict(
            acknowledged=self.changer.answered,
            refused=self.changer.refused,
            wrong=self.changer.failures + self.changer.wrong,
            notes=f"compared {self.changer.compared} times, {len(self.changer.state)} things there at the end",
        )

    def close(self):
        if self.changer:
            self.changer.stopping.set()
