"""What Xylem should be able to do, and whether it does: floors and goals beside the figures of report.medians.

A goal that compares names the other server; both were measured by one generator on one machine. `less`: less is better.
"""

import report
from report import CPU, DRAIN, OURS, RATE

NATS, MOSQUITTO, RABBITMQ, QUORUM, SEGMENTS, OPENSSL = "nats", "mosquitto", "rabbitmq", "rabbitmq-quorum", "Xylem-segments", "Xylem-OpenSSL"


NOT_MEASURED = "not measured"


class Goal:
    """`of`: divided by the same figure of that server. None as floor or goal: none was set."""

    def __init__(self, title, scenario, figure, floor, goal, less=False, of=None, server=OURS, per=1.0):
        self.title, self.scenario, self.figure, self.floor, self.goal = title, scenario, figure, floor, goal
        self.less, self.of, self.server, self.per = less, of, server, per

    def measured(self, found):
        value = found.get((self.server, self.scenario), {}).get(self.figure)
        if value is None or self.of is None:
            return None if value is None else value / self.per
        other = found.get(self.of if isinstance(self.of, tuple) else (self.of, self.scenario), {}).get(self.figure)
        return value / other if other else None

    def bounds(self, found):
        """Floor and goal; a goal may depend on what something else takes."""
        return [bound(found) if callable(bound) else bound for bound in (self.floor, self.goal)]


def library_and(kib, server):
    """What the TLS library keeps of a connection that idles, and so much more."""

    def bound(found):
        own = found.get((server, "handshakes"), {}).get("library_kib")
        return None if own is None else own + kib

    return bound


def cost(title, scenario, floor, goal):
    return Goal(f"{title}: CPU-s per million", scenario, CPU, floor, goal, less=True)


GOALS = [
    Goal("fan-out to 100: rate, of NATS'", "fan100", RATE, 0.6, 1, of=NATS),
    cost("fan-out to 100", "fan100", 2.5, 1.2),
    Goal("fan-out to 1000: rate, of NATS'", "fan1000", RATE, 0.6, 1, of=NATS),
    cost("fan-out to 1000", "fan1000", 2.5, 1.2),
    Goal("fan-out to 1: rate, of NATS'", "fan1", RATE, 0.5, 0.7, of=NATS),
    cost("fan-out to 1", "fan1", None, 5),
    Goal("fan-out to 100, at least once: deliveries/s", "afan100", RATE, 150000, 300000),
    cost("fan-out to 100, at least once", "afan100", None, 3),
    Goal("fan-out to 1000, at least once: deliveries/s", "afan1000", RATE, 150000, 300000),
    cost("fan-out to 1000, at least once", "afan1000", None, 3),
    Goal("publish, window 1: rate, of RabbitMQ's", "pub1", RATE, 1.3, 1.5, of=RABBITMQ),
    Goal("publish, window 1: time, of a commit of LMDB alone", "pub1", "time_s", None, 1.2, less=True, of=(OURS, "commits")),
    Goal("publish, window 100: rate, of RabbitMQ's quorum queues", "pub100", RATE, 2, None, of=QUORUM),
    Goal("publish, window 100: rate, of NATS'", "pub100", RATE, None, 0.6, of=NATS),
    cost("publish, window 100", "pub100", 12, 8),
    Goal("ten publishers, window 100: rate, of NATS'", "pub100x10", RATE, None, 1, of=NATS),
    Goal("1000 publishes/s, at least once: p50, ms", "arate1000", "delivery_p50_us", 1.2, 0.75, less=True, per=1e3),
    Goal("1000 publishes/s, at least once: p99, ms", "arate1000", "delivery_p99_us", 5, 2.5, less=True, per=1e3),
    Goal("1000 publishes/s, volatile: p50, of Mosquitto's", "rate1000", "delivery_p50_us", 2, 1.3, less=True, of=MOSQUITTO),
    Goal("1000 publishes/s, volatile: p99, of Mosquitto's", "rate1000", "delivery_p99_us", 2, 1.5, less=True, of=MOSQUITTO),
    Goal("messages, 50 pairs: messages/s", "msg50", RATE, 120000, 300000),
    cost("messages, 50 pairs", "msg50", None, 5),
    Goal("messages, XEP-0198: messages/s", "amsg50", RATE, 60000, 120000),
    Goal("messages to who is away: stored/s", "aoffline", RATE, 40000, 100000),
    cost("messages to who is away, stored", "aoffline", 12, None),
    Goal("messages to who is back: drained/s", DRAIN, RATE, 80000, 200000),
    cost("logins", "logins", 1000, 250),
    Goal("TLS handshakes/s of one core: full", "handshakes", "full_per_s", 300, 400),
    Goal("TLS handshakes/s of one core: resumed", "handshakes", "resumed_per_s", 2000, 4000),
    Goal("idle session: KiB", "idle", "kib_per_session", 8, 3, less=True),
    Goal("idle session, STARTTLS, mbedTLS: KiB", "tls-idle", "kib_per_session", library_and(8, OURS), library_and(3, OURS), less=True),
    Goal("idle session, STARTTLS, OpenSSL: KiB", "tls-idle", "kib_per_session", library_and(8, OPENSSL), 12, less=True, server=OPENSSL),
    Goal("start with a million items: s", "start", "start_s", 2, 0.5, less=True),
]


def met(goal, value, bound):
    return bound is None or (value <= bound if goal.less else value >= bound)


def verdict(goal, value, floor, aim):
    if value is None:
        return NOT_MEASURED
    if met(goal, value, aim) and met(goal, value, floor):
        return "goal" if aim is not None else "floor"
    if not met(goal, value, floor):
        return "**neither**"
    return "floor" if floor is not None else "**no**"


def bound_text(goal, bound):
    return "" if bound is None else ("≤ " if goal.less else "≥ ") + report.number(bound)


def row(goal, found):
    value = goal.measured(found)
    floor, aim = goal.bounds(found)
    if callable(goal.floor) and floor is None:
        value = None
    cells = [goal.title, report.number(value), bound_text(goal, floor), bound_text(goal, aim)]
    return [*cells, verdict(goal, value, floor, aim)]


def table(found, missing=False):
    """Empty when nothing of it was measured; `missing`: what was not is named."""
    found = {key: with_time(values) for key, values in found.items()}
    rows = [row(goal, found) for goal in GOALS]
    measured = [cells for cells in rows if cells[-1] != NOT_MEASURED]
    if not measured:
        return ""
    return report.table([["Floors and goals", "measured", "floor", "goal", "met"], *(rows if missing else measured)])


def with_time(values):
    """Of one operation after the other."""
    return {**values, "time_s": 1 / values[RATE]} if values.get(RATE) else values
