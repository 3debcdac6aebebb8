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
DRAIN = "aoffline-drain"  # not a scenario of its own: how aoffline ends
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
    DRAIN: "messages to who is back, drained",
    "rate1000": "1000 publishes/s to 10, volatile",
    "arate1000": "1000 publishes/s to 10, at least once",
    "logins": "logins, strongest SASL",
    "idle": "idle session",
    "tls-fan100": "STARTTLS: fan-out to 100, volatile",
    "tls-pub100": "STARTTLS: publish, persisted, window 100",
    "tls-msg50": "STARTTLS: messages, 50 pairs",
    "tls-logins": "STARTTLS: logins, strongest SASL",
    "tls-idle": "STARTTLS: idle session",
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
    """Rows are scenarios; `figures` are (member of the result, heading). The first one is the chart's. `note`: what has to be
    known to read it."""

    def __init__(self, name, title, scenarios, figures, unit, note=""):
        self.name, self.title, self.scenarios, self.figures, self.unit = name, title, scenarios, figures, unit
        self.note = note


COST = [(CPU, "CPU-s per million"), (RATE, "per second")]
COST_UNIT = "processor seconds per million"
WORK = ["fan1", "fan100", "fan1000", "afan100", "pub1", "pub100", "msg50", "amsg50", "aoffline", DRAIN]
LOGINS_NOTE = (
    "The rate of logins is bound by the generator, which derives a key from each password (PBKDF2) on the cores that it shares with "
    "the server: with 10,000 rounds for accounts of Xylem and 4,096 for those of ejabberd, so these rates do not compare. Processor "
    "time is the server's alone. Xylem stores keys; ejabberd, as configured here, passwords, and derives the key anew at each login. "
    "All of them SCRAM-SHA-256; over STARTTLS a full handshake each."
)
TLS_NOTE = (
    "Certificates on P-256, made for the run; the generator uses OpenSSL with every server and does not judge them. Xylem is built on "
    "mbedTLS, Xylem-OpenSSL is the same built on OpenSSL 3. The version is the newest that both ends have: TLS 1.2 with mbedTLS, 1.3 "
    "with the others."
)
TABLES = [
    Table("work", "Work", WORK, COST, COST_UNIT),
    Table("tls", "Through STARTTLS", ["tls-fan100", "tls-pub100", "tls-msg50"], COST, COST_UNIT, TLS_NOTE),
    Table("logins", "Logins", ["logins", "tls-logins"], COST, COST_UNIT, LOGINS_NOTE),
    Table("sdk", "Through libxylem", ["sdk-fan1", "sdk-fan100", "sdk-afan100", "sdk-pub1", "sdk-pub100"], COST, COST_UNIT),
    Table("delay", "Delay from publisher to subscriber", ["rate1000", "arate1000"],
          [("delivery_p99_us", "p99, us"), ("delivery_p50_us", "p50, us"), (CPU, "CPU-s per million")], "p99, microseconds"),
    Table("memory", "Memory", ["idle", "tls-idle"], [("kib_per_session", "KiB per session")], "KiB per idle session"),
]  # fmt: skip


def drain(result):
    """What followed in a run of aoffline, as a result of its own. What went wrong in it counts once, there."""
    figures = {RATE: result["drained_per_s"], "other_cpu_share": result["other_cpu_share"], **dict.fromkeys(FAULTS, 0)}
    if "drain_server_cpu_s_per_million" in result:
        figures[CPU] = result["drain_server_cpu_s_per_million"]
    return {"server": result["server"], "scenario": DRAIN, **figures}


def medians(results):
    """{(server, scenario): {member: median}}, with the worst of all runs for what went wrong."""
    grouped = {}
    for result in results + [drain(result) for result in results if "drained_per_s" in result]:
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


def row(spec, found, scenario, peers):
    ours = found.get((OURS, scenario), {})
    cells = [MEANING[scenario] + (" *" if ours.get("other_cpu_share", 0) > DISTURBED else "")]
    cells += [number(ours.get(figure)) for figure, _ in spec.figures]
    for peer in peers:
        theirs = found.get((peer, scenario), {})
        for figure, _ in spec.figures:
            cells += [number(theirs.get(figure)), ratio(figure, ours.get(figure), theirs.get(figure))]
    return cells


def table(rows):
    """The first row is the heading."""
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def markdown(spec, found):
    """One table; empty when nothing of it was measured."""
    rows = [s for s in spec.scenarios if any(s == scenario for _, scenario in found)]
    peers = sorted({server for server, scenario in found if scenario in rows} - {OURS})
    heading = [spec.title] + [f"{OURS}, {text}" for _, text in spec.figures]
    for peer in peers:
        heading += [cell for _, text in spec.figures for cell in (f"{peer}, {text}", "ratio")]
    return table([heading] + [row(spec, found, scenario, peers) for scenario in rows]) if rows else ""


def chart(spec, found, folder):
    """One group of bars per scenario, one bar per server; logarithmic, as the figures are powers of ten apart."""
    figure = spec.figures[0][0]
    rows = [s for s in spec.scenarios if any(found.get(key, {}).get(figure) for key in found if key[1] == s)]
    servers = sorted({key[0] for key in found if key[1] in rows}, key=lambda name: (name != OURS, name))
    if not rows:
        return
    values = [found[key][figure] for key in found if key[1] in rows and found[key].get(figure)]
    data = ["scenario " + " ".join(servers)]
    data += [" ".join([s] + [str(found.get((name, s), {}).get(figure, "?")) for name in servers]) for s in rows]
    script = [
        "set terminal svg size 900,380 dynamic font 'sans,13' background 'white'",
        f"set output '{os.path.join(folder, spec.name)}.svg'",
        "$data << END", *data, "END",
        f"set title '{spec.title}: {spec.unit} (less is better)'",
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
    for spec in TABLES:
        chart(spec, found, folder)


def faults(found):
    """Sentences about whatever was lost, came twice, or was changed."""
    return [
        f"{server}, {scenario}: {', '.join(f'{name} {values[name]:.0f}' for name in FAULTS if values[name])}"
        for (server, scenario), values in found.items()
        if any(values[name] for name in FAULTS)
    ]


def verdict(found):
    wrong = faults(found)
    return "Faults: " + "; ".join(wrong) if wrong else "Nothing was lost, came twice or was changed."


def text(about, found, charts_at=None):
    """All tables, each with its chart if `charts_at` says where these are."""
    parts = [about + "\n"]
    for spec in TABLES:
        lines = markdown(spec, found)
        if not lines:
            continue
        parts.append(lines + (f"\n![{spec.title}]({charts_at}/{spec.name}.svg)\n" if charts_at else ""))
        parts += [spec.note + "\n"] if spec.note else []
    return "\n".join([*parts, verdict(found) + "\n"])


def publish(page, body):
    """Puts `body` between the page's two marks."""
    with open(page, encoding="utf-8") as file:
        old = file.read()
    new, count = re.subn(r"(<!-- bench -->\n).*?(<!-- /bench -->)", lambda m: m[1] + body + m[2], old, flags=re.S)
    if count != 1:
        raise SystemExit(f"{page} has no place for the tables: <!-- bench --> and <!-- /bench --> on lines of their own")
    with open(page, "w", encoding="utf-8") as file:
        file.write(new)
