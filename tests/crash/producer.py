"""A publisher as a raw client: numbers from 0, and what a crash left unanswered once more under the same publish-id.

So each number is published exactly once, in order, whatever happens in between. Used by the workloads that judge what
becomes of items of other nodes than workload_items.py's.
"""

import time

import harness
import pubsub
import raw
from workload import Actor


class Producer(Actor):
    """`window`: publishes under way; `pause_s`: between answers, so that others get processor time."""

    def __init__(self, broker, user, node, window=16, pause_s=0.005):
        super().__init__(broker)
        self.user, self.node, self.window, self.pause_s = user, node, window, pause_s
        self.next = 0
        self.waiting = {}  # id of the request: number
        self.acknowledged = set()
        self.refused = 0

    def item(self, number):
        """The <publish/> request; a workload may want other items."""
        return pubsub.publish_xml(self.node, pubsub.item_xml(str(number), number))

    def session(self, client):
        client.login(self.user, "producer-" + self.node)
        again, self.waiting = sorted(self.waiting.values()), {}
        for number in again:
            self.put(client, number)
        while self.waiting or not self.stopping.is_set():
            while len(self.waiting) < self.window and not self.stopping.is_set():
                self.next += 1
                self.put(client, self.next - 1)
            self.answered(client.read())
            if not client.inbox:
                time.sleep(self.pause_s)

    def put(self, client, number):
        once = f"<publish xmlns:d='urn:xylem:delivery:0' d:publish-id='crash:{number}' "
        name = client.new_id()
        self.waiting[name] = number
        payload = self.item(number).replace("<publish ", once, 1)
        client.send(f"<iq type='set' id='{name}' to='{harness.PUBSUB}'>{payload}</iq>")

    def answered(self, element):
        number = self.waiting.get(element.get("id"))
        if number is None:
            return
        if element.get("type") == "result":
            self.acknowledged.add(number)
        elif raw.condition(element)[0] == "wait":
            self.refused += 1
        else:
            raise AssertionError(raw.show(element))
        del self.waiting[element.get("id")]
