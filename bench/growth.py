#!/usr/bin/python3
"""What an operation costs Xylem while sessions, nodes or subscriptions beside it grow tenfold and tenfold, and on two shards.

Every point is a fresh broker with so many of them made beforehand, then a load that has nothing to do with them. Prints
tables, and writes growth.jsonl (one line per run), growth.md and two charts into build/bench. Run by scripts/bench --growth.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys

import report
import run
from report import CPU, DISTURBED, FAULTS, number, table
from servers import Xylem

SIZES = [10, 100, 1000, 10000, 100000]
SPARE_FILES = 500  # descriptors of a process that are not sessions beside
ROUNDS = 3  # of the comparison of shards: on one and on two in turn
CORES = ["fan100", "pub100", "msg50"]
UNBOUNDED = {"limits": {"nodes_per_account": "unlimited"}}


class Curve:
    """`beside` is what grows, an option of the load generator; `scenario` is the load."""

    def __init__(self, name, beside, scenario, title):
        self.name, self.beside, self.scenario, self.title = name, beside, scenario, title


CURVES = [
    Curve("sessions", "sessions", "msg50", "idle sessions; messages of 50 pairs"),
    Curve("nodes", "nodes", "pub100", "nodes; persisted publishes to another one"),
    Curve("turn", "nodes", "turn100", "nodes; persisted publishes to each in turn"),
    Curve("subscriptions", "subscriptions", "fan10", "subscriptions at other nodes; fan-out to 10"),
]


@contextlib.contextmanager
def all_accounts():
    """A data directory with them; deriving their keys takes longer than any run."""
    server = Xylem()
    server.start()
    try:
        server.broker.stop()
        yield server.broker.data_dir
    finally:
        server.stop()


def measured(options, scenario, settings, beside=()):
    """One run on a broker of its own; None: it failed, and said why."""
    server = Xylem(settings, options.accounts)
    server.options = ["--at-least-once", "--warmup", "0.5", *beside]
    server.start()
    try:
        result = run.run_once(server, scenario, options.seconds)
        options.failed += result is None
        return result
    finally:
        server.stop()


def files_max():
    """What broker and generator raise their limits to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def fits(curve, size):
    return curve.beside != "sessions" or size + SPARE_FILES <= files_max()


def grow(curve, options, results):
    for size in options.sizes:
        if not fits(curve, size):
            run.log(f"{curve.name} {size}: left out, `ulimit -Hn` allows {files_max()} files")
            continue
        result = measured(options, curve.scenario, UNBOUNDED, [f"--beside-{curve.beside}", str(size)])
        if result is not None:
            results.append({"curve": curve.name, "size": size, **result})
            run.log(f"{curve.name} {size}: {result[CPU]:.3g} CPU-s per million, {result['beside_kib']:.0f} KiB more")


def compare_shards(options, results):
    for scenario in CORES:
        for _ in range(ROUNDS):
            for shards in (1, 2):
                result = measured(options, scenario, {"shards": shards})
                if result is not None:
                    results.append({"shards": shards, **result})
                    run.log(f"{scenario}, shards {shards}: {result[CPU]:.3g} CPU-s per million")


# --- tables and charts ------------------------------------------------------------------------------------------------


def points(results, curve):
    return {result["size"]: result for result in results if result.get("curve") == curve.name}


def kib_each(size, result):
    """The broker's own ups and downs hide what less than a thousand take."""
    return result["beside_kib"] / size if size >= 1000 else None


def growth_row(curve, found, sizes):
    """The last column: what the most cost against what the fewest cost; 1 is flat."""
    cells = [curve.title] + [number(found[size][CPU]) if size in found else "" for size in sizes]
    most, fewest = max(found), min(found)
    kib = kib_each(most, found[most])
    return cells + [f"{found[most][CPU] / found[fewest][CPU]:.2f}", "" if kib is None else f"{kib:.2f}"]


def growth_table(results, sizes):
    rows = [["CPU-s per million, beside so many"] + [f"{size:,}" for size in sizes] + ["last / first", "KiB each"]]
    curves = [growth_row(c, points(results, c), sizes) for c in CURVES if points(results, c)]
    return table(rows + curves) if curves else ""


def shards_table(results):
    rows = [["CPU-s per million", "1 shard", "2 shards", "ratio"]]
    for scenario in CORES:
        costs = [
            [result[CPU] for result in results if result.get("shards") == shards and result["scenario"] == scenario]
            for shards in (1, 2)
        ]
        if all(costs):
            one, two = (statistics.median(cost) for cost in costs)
            rows.append([scenario, number(one), number(two), f"{two / one:.2f}"])
    return table(rows) if len(rows) > 1 else ""


def about(results):
    shares = [result["other_cpu_share"] for result in results]
    busy = sum(share > DISTURBED for share in shares)
    return (
        f"{os.cpu_count()} cores, the broker and the generator on the same; while {busy} of {len(shares)} runs went on, other work "
        f"took more than a fifth of a core (median {statistics.median(shares):.2f} of a core).\n"
    )


def faults(results):
    """Sentences about whatever was lost, came twice, or was changed."""
    return [
        f"{result['scenario']} beside {result.get('size', 0)}: "
        + ", ".join(f"{name} {result[name]}" for name in FAULTS if result[name])
        for result in results
        if any(result[name] for name in FAULTS)
    ]


def text(results, sizes):
    wrong = faults(results)
    parts = [about(results), growth_table(results, sizes), shards_table(results)]
    parts.append(("Faults: " + "; ".join(wrong) if wrong else "Nothing was lost, came twice or was changed.") + "\n")
    return "\n".join(part for part in parts if part)


def chart(name, title, lines, folder):
    """`lines`: title -> [(size, value)]."""
    lines = {key: values for key, values in lines.items() if values}
    if not lines:
        return
    figures = [value for values in lines.values() for _, value in values]
    script = [
        "set terminal svg size 900,380 dynamic font 'sans,13' background 'white'",
        f"set output '{os.path.join(folder, name)}.svg'",
        f"set title '{title}'; set logscale xy; set format x '%.0f'; set grid; set key outside below",
        f"set yrange [{min(figures) / 3}:{max(figures) * 3}]",
    ]
    for i, values in enumerate(lines.values()):
        script += [f"$data{i} << END", *(f"{size} {value}" for size, value in values), "END"]
    plots = [f"$data{i} using 1:2 with linespoints lw 2 title '{key}'" for i, key in enumerate(lines)]
    subprocess.run(["gnuplot"], input="\n".join([*script, "plot " + ", ".join(plots)]), text=True, check=True)


def charts(results, folder):
    if shutil.which("gnuplot") is None:
        run.log("no charts: gnuplot is not on PATH")
        return
    cost, memory = {}, {}
    for curve in CURVES:
        found = sorted(points(results, curve).items())
        cost[curve.title] = [(size, result[CPU]) for size, result in found]
        memory[curve.title] = [(size, kib_each(size, result)) for size, result in found if kib_each(size, result) is not None]
    chart("growth", "Processor seconds per million operations, beside so many (flat is good)", cost, folder)
    chart("growth-memory", "KiB each, beside so many (flat is good)", memory, folder)


CHARTS = "\n![What an operation costs](charts/growth.svg)\n\n![Memory](charts/growth-memory.svg)\n"


def publish(results, sizes):
    """What was measured takes the place of what is there: the curves with their charts, the comparison of shards."""
    page = os.path.join(run.ROOT, "docs", "performance.md")
    of_shards = [result for result in results if "shards" in result]
    of_curves = [result for result in results if "curve" in result]
    if of_shards:
        report.publish(page, f"Commit {run.commit()}. {about(of_shards)}\n{shards_table(of_shards)}", "shards")
    if of_curves:
        charts(of_curves, os.path.join(run.ROOT, "docs", "charts"))
        report.publish(page, f"Commit {run.commit()}. {about(of_curves)}\n{growth_table(of_curves, sizes)}{CHARTS}", "growth")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench --growth", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--curves", type=lambda t: t.split(","), help="which, separated by commas; default all, and shards")
    parser.add_argument("--sizes", type=lambda t: sorted(map(int, t.split(","))), default=SIZES, help="of the curves")
    parser.add_argument("--publish", action="store_true", help="put what was measured into docs/, table and charts")
    parser.add_argument("--seconds", type=float, default=2, help="of each run")
    options = parser.parse_args()
    options.failed = 0  # runs
    names = [curve.name for curve in CURVES] + ["shards"]
    options.curves = options.curves or names
    for name in options.curves:
        if name not in names:
            parser.error(f"no curve {name}; there are {', '.join(names)}")
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that brokers are stopped
    output = os.path.join(run.ROOT, "build", "bench")
    os.makedirs(output, exist_ok=True)
    results = []
    with all_accounts() as options.accounts:
        for curve in CURVES:
            if curve.name in options.curves:
                grow(curve, options, results)
        if "shards" in options.curves:
            compare_shards(options, results)
    if not results:
        return 1
    with open(os.path.join(output, "growth.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    body = text(results, options.sizes)
    with open(os.path.join(output, "growth.md"), "w", encoding="utf-8") as file:
        file.write(body)
    charts(results, output)
    run.log("\n" + body)
    if options.publish and not faults(results):
        publish(results, options.sizes)
    return 1 if faults(results) or options.failed else 0


if __name__ == "__main__":
    sys.exit(main())
