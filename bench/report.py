"""Tables (Markdown) and charts (SVG by gnuplot, one per table) of what bench/run.py measured.

A result is what the load generator printed, with the server's name; several of one server and scenario count by their
median. Processor time comes first: it says the same on a busy machine, rates do not.
"""

import math
import os
import re
import shutil
import statistics
import subprocess

OURS = "Xylem"
MEANING = {
    "fan1": "fan-out to 1, volatile",
    "fan100": "fan-out to 100, volatile",
    "fan1000": "fan-out to 1000, volatile",
    "afan100": "fan-out to 100, at least once",
    "pub1": "publish, persisted, window 1",
    "pub100": "publish, persisted, window 100",
    "msg50": "messages, 50 pairs",
    "amsg50": "messages, 50 pairs, XEP-0198",
    "aoffline": "messages to who is away, stored",
    "rate1000": "1000 publishes/s to 10, volatile",
    "arate1000": "1000 publishes/s to 10, at least once",
    "logins": "logins, strongest SASL",
    "idle": "idle session",
    "sdk-fan1": "libxylem: fan-out to 1, volatile",
    "sdk-fan100": "libxylem: fan-out to 100, volatile",
    "sdk-afan100": "libxylem: fan-out to 100, at least once",
    "sdk-pub1": "libxylem: publish, persisted, window 1",
    "sdk-pub100": "libxylem: publish, persisted, window 100",
}
CPU = "server_cpu_s_per_million"
RATE = "operations_per_s"
DISTURBED = 0.2  # of a core, taken by other processes
FAULTS = ("lost", "repeated", "corrupt")


class Table:
    """Rows are scenarios; `figures` are (member of the result, heading). The first one is the chart's."""

    def __init__(self, name, title, scenarios, figures, unit):
        self.name, self.title, self.scenarios, self.figures, self.unit = name, title, scenarios, figures, unit


WORK = ["fan1", "fan100", "fan1000", "afan100", "pub1", "pub100", "msg50", "amsg50", "aoffline", "logins"]
TABLES = [
    Table("work", "Work", WORK, [(CPU, "CPU-s per million"), (RATE, "per second")], "processor seconds per million"),
    Table("sdk", "Through libxylem", ["sdk-fan1", "sdk-fan100", "sdk-afan100", "sdk-pub1", "sdk-pub100"],
          [(CPU, "CPU-s per million"), (RATE, "per second")], "processor seconds per million"),
    Table("delay", "Delay from publisher to subscriber", ["rate1000", "arate1000"],
          [("delivery_p99_us", "p99, us"), ("delivery_p50_us", "p50, us"), (CPU, "CPU-s per million")], "p99, microseconds"),
    Table("memory", "Memory", ["idle"], [("kib_per_session", "KiB per session")], "KiB per idle session"),
]  # fmt: skip


def medians(results):
    """{(server, scenario): {member: median}}, with the worst of all runs for what went wrong."""
    grouped = {}
    for result in results:
        grouped.setdefault((result["server"], result["scenario"]), []).append(result)
    found = {}
    for key, runs in grouped.items():
        members = {name for run in runs for name, value in run.items() if isinstance(value, (int, float))}
        found[key] = {name: statistics.median(run[name] for run in runs if name in run) for name in members}
        found[key].update({name: max(run[name] for run in runs) for name in FAULTS})
    return found


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(figure, ours, other):
    """How many times better ours is: rates are better high, all else low."""
    if not ours or not other:
        return ""
    return "x" + number(ours / other if figure == RATE else other / ours)


def row(table, found, scenario, peers):
    ours = found.get((OURS, scenario), {})
    cells = [MEANING[scenario] + (" *" if ours.get("other_cpu_share", 0) > DISTURBED else "")]
    cells += [number(ours.get(figure)) for figure, _ in table.figures]
    for peer in peers:
        theirs = found.get((peer, scenario), {})
        for figure, _ in table.figures:
            cells += [number(theirs.get(figure)), ratio(figure, ours.get(figure), theirs.get(figure))]
    return cells


def markdown(table, found):
    """One table; empty when nothing of it was measured."""
    rows = [s for s in table.scenarios if any(s == scenario for _, scenario in found)]
    peers = sorted({server for server, scenario in found if scenario in rows} - {OURS})
    heading = [table.title] + [f"{OURS}, {text}" for _, text in table.figures]
    for peer in peers:
        heading += [cell for _, text in table.figures for cell in (f"{peer}, {text}", "ratio")]
    lines = [heading, ["---"] * len(heading)] + [row(table, found, scenario, peers) for scenario in rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines) if rows else ""


def chart(table, found, folder):
    """One group of bars per scenario, one bar per server; logarithmic, as the figures are powers of ten apart."""
    figure = table.figures[0][0]
    rows = [s for s in table.scenarios if any(found.get(key, {}).get(figure) for key in found if key[1] == s)]
    servers = sorted({key[0] for key in found if key[1] in rows}, key=lambda name: (name != OURS, name))
    if not rows:
        return
    values = [found[key][figure] for key in found if key[1] in rows and found[key].get(figure)]
    data = ["scenario " + " ".join(servers)]
    data += [" ".join([s] + [str(found.get((name, s), {}).get(figure, "?")) for name in servers]) for s in rows]
    script = [
        "set terminal svg size 900,380 dynamic font 'sans,13' background 'white'",
        f"set output '{os.path.join(folder, table.name)}.svg'",
        "$data << END", *data, "END",
        f"set title '{table.title}: {table.unit} (less is better)'",
        "set style data histogram; set style histogram clustered gap 1; set style fill solid 0.8 noborder",
        "set logscale y; set grid ytics; set key top left; set datafile missing '?'; set xtics rotate by -20",
        f"set boxwidth 0.9; set yrange [{10 ** math.floor(math.log10(min(values) / 1.2))}:{3 * max(values)}]",
        f"plot for [i=2:{len(servers) + 1}] $data using i:xtic(1) title columnheader(i)",
    ]  # fmt: skip
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)


def charts(found, folder):
    if shutil.which("gnuplot") is None:
        print("no charts: gnuplot is not on PATH")
        return
    os.makedirs(folder, exist_ok=True)
    for table in TABLES:
        chart(table, found, folder)


def faults(found):
    """Sentences about whatever was lost, came twice, or was changed."""
    return [
        f"{server}, {scenario}: {', '.join(f'{name} {values[name]:.0f}' for name in FAULTS if values[name])}"
        for (server, scenario), values in found.items()
        if any(values[name] for name in FAULTS)
    ]


def text(about, found, charts_at=None):
    """All tables, each with its chart if `charts_at` says where these are."""
    parts = [about + "\n"]
    for table in TABLES:
        lines = markdown(table, found)
        if lines:
            parts.append(lines + (f"\n![{table.title}]({charts_at}/{table.name}.svg)\n" if charts_at else ""))
    wrong = faults(found)
    parts.append(("Faults: " + "; ".join(wrong) if wrong else "Nothing was lost, came twice or was changed.") + "\n")
    return "\n".join(parts)


def publish(page, body):
    """Puts `body` between the page's two marks."""
    with open(page, encoding="utf-8") as file:
        old = file.read()
    new, count = re.subn(r"(<!-- bench -->\n).*?(<!-- /bench -->)", lambda m: m[1] + body + m[2], old, flags=re.S)
    if count != 1:
        raise SystemExit(f"{page} has no place for the tables: <!-- bench --> and <!-- /bench --> on lines of their own")
    with open(page, "w", encoding="utf-8") as file:
        file.write(new)
