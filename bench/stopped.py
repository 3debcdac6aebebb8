#!/usr/bin/python3
"""Whether one subscriber that stops reading delays the others: many short rounds without it and with it, in turn.

A round is a burst of publishes, to fill the buffers of whoever does not read, then a thousand publishes a second to ten
subscribers, whose delays are measured; with it, an eleventh subscriber of the same node has read nothing from the beginning. The
program fails if nothing was held back from it. Prints a table, and writes stopped.jsonl (one line per round) and stopped.md into build/bench.
Run by scripts/bench --stopped.
"""

import argparse
import json
import os
import signal
import statistics
import sys

import report
import run
from servers import Xylem

SCENARIOS = ["rate1000", "arate1000"]
FIGURES = [("delivery_p99_us", "p99"), ("delivery_p50_us", "p50")]
BURST = 20000  # events of half a KiB: twice what the outbox and the kernel take
WARMUP_S = 0.5
PAIRS_MIN = 2


def held_back(server):
    """Events that found an outbox full: dropped, or left in the store."""
    figures = json.loads(server.broker.xylem("admin", "stats", "--json").stdout)
    return figures["events_dropped"] + figures["events_stalled"]


def a_round(server, scenario, stopped, options):
    """None: it failed, and said why."""
    server.options = ["--at-least-once", "--warmup", str(WARMUP_S), "--burst", str(BURST), *(["--stopped", "1"] if stopped else [])]
    before = held_back(server)
    result = run.run_once(server, scenario, options.seconds)
    if result is not None and stopped and held_back(server) == before:
        run.log(f"{scenario}: nothing was held back from the reader that stopped")
        return None
    return result and {"stopped": stopped, **result}


def measure(server, scenario, options):
    """Pairs of rounds; which of a pair comes first changes, as the machine may drift."""
    pairs = []
    for i in range(options.pairs):
        order = (0, 1) if i % 2 == 0 else (1, 0)
        rounds = {stopped: a_round(server, scenario, stopped, options) for stopped in order}
        if None in rounds.values():
            return None
        pairs.append((rounds[0], rounds[1]))
        without, with_it = (rounds[stopped]["delivery_p99_us"] for stopped in (0, 1))
        run.log(f"{scenario}, pair {i + 1}: p99 {without} us without, {with_it} us with a stopped reader")
    return pairs


def row(scenario, figure, heading, pairs):
    """The ratio of the medians, and of the pairs' own ratios the middle half."""
    without, with_it = ([pair[i][figure] for pair in pairs] for i in (0, 1))
    low, _, high = statistics.quantiles([b / a for a, b in zip(without, with_it)], n=4, method="inclusive")
    cells = [f"{report.MEANING[scenario]}: {heading}, us"]
    cells += [report.number(statistics.median(values)) for values in (without, with_it)]
    return cells + [f"{statistics.median(with_it) / statistics.median(without):.3f}", f"{low:.3f} to {high:.3f}"]


def text(found, options):
    rows = [["Delay to the others", "without", "with a stopped reader", "ratio of medians", "middle half of the pairs' ratios"]]
    rows += [row(scenario, figure, heading, pairs) for scenario, pairs in found.items() for figure, heading in FIGURES]
    results = [result for pairs in found.values() for pair in pairs for result in pair]
    shares = [result["other_cpu_share"] for result in results]
    return (
        f"{options.pairs} pairs of rounds of {options.seconds:g} s, on {os.cpu_count()} cores; other work took "
        f"{statistics.median(shares):.2f} of a core (median).\n\n{report.table(rows)}\n{report.verdict(report.medians(results))}\n"
    )


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench --stopped", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=25, help="of rounds, for each scenario; default 25: about ten minutes")
    parser.add_argument("--seconds", type=float, default=2, help="of each round")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    if options.pairs < PAIRS_MIN:
        parser.error(f"--pairs: at least {PAIRS_MIN}, to have a spread")
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the broker is stopped
    output = os.path.join(run.ROOT, "build", "bench")
    os.makedirs(output, exist_ok=True)
    server = Xylem()
    server.start()
    try:
        found = {scenario: measure(server, scenario, options) for scenario in SCENARIOS}
    finally:
        server.stop()
    if None in found.values():
        return 1
    results = [result for pairs in found.values() for pair in pairs for result in pair]
    with open(os.path.join(output, "stopped.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    body = text(found, options)
    with open(os.path.join(output, "stopped.md"), "w", encoding="utf-8") as file:
        file.write(body)
    run.log("\n" + body)
    if report.faults(report.medians(results)):
        return 1
    if options.publish:
        report.publish(os.path.join(run.ROOT, "docs", "performance.md"), f"Commit {run.commit()}. {body}", "stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
