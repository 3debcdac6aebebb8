"""Tables (Markdown) and charts (SVG by gnuplot, one per table) of what bench/run.py measured.

A result is what the load generator printed, with the server's name; several of one server and scenario count by their
median. Processor time comes first: it says the same on a busy machine, rates do not.
"""

import json
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
    "afan1000": "fan-out to 1000, at least once",
    "efan100": "fan-out to 100, acknowledged one by one",
    "pub1": "publish, persisted, window 1",
    "pub100": "publish, persisted, window 100",
    "pub100x10": "publish, persisted, ten publishers",
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
    "commits": "commits of LMDB alone",
    "handshakes": "TLS handshakes of one core",
    "start": "start with a million items",
}
CPU = "server_cpu_s_per_million"
RATE = "operations_per_s"
DISTURBED = 0.2  # of a core, taken by other processes
FAULTS = ("lost", "repeated", "corrupt")
SERVERS = ["Xylem-segments", "Xylem-OpenSSL", "nats", "mosquitto", "rabbitmq", "rabbitmq-quorum", "ejabberd"]  # beside ours


class Table:
    """Rows are scenarios; `figures` are (member of the result, heading), a table each. The first one is the chart's, and `unit`
    says what is on its axis; None: there is no chart, and one scenario whose figures are the rows. `note`: what has to be known
    to read it."""

    def __init__(self, name, title, scenarios, figures, unit, note=""):
        self.name, self.title, self.scenarios, self.figures, self.unit = name, title, scenarios, figures, unit
        self.note = note


COST = [(CPU, "CPU-s per million"), (RATE, "per second")]
COST_UNIT = "processor seconds per million"
WORK = ["fan1", "fan100", "fan1000", "afan100", "afan1000", "efan100", "pub1", "pub100", "pub100x10", "commits", "msg50", "amsg50", "aoffline", DRAIN]
LOGINS_NOTE = (
    "The rate of logins is bound by the generator, which derives a key from each password (PBKDF2) on the cores that it shares with "
    "the server: with 10,000 rounds for accounts of Xylem and 4,096 for those of ejabberd, so these rates do not compare. Processor "
    "time is the server's alone. Xylem stores keys; ejabberd, as configured here, passwords, and derives the key anew at each login. "
    "All of them SCRAM-SHA-256; over STARTTLS a full handshake each."
)
TLS_NOTE = (
    "Certificates on P-256, made for the run; the generator uses OpenSSL with every server and does not judge them. Xylem uses "
    "mbedTLS, Xylem-OpenSSL is the same with OpenSSL 3. The version is the newest that both ends have: TLS 1.2 with mbedTLS, 1.3 "
    "with the others."
)
MEMORY_NOTE = (
    "What the server's memory grows by, without pages that are mapped from files: those are the system's cache of what is stored, and "
    "go when something else needs them."
)
TABLES = [
    Table("work", "Work", WORK, COST, COST_UNIT),
    Table("tls", "Through STARTTLS", ["tls-fan100", "tls-pub100", "tls-msg50"], COST, COST_UNIT, TLS_NOTE),
    Table("logins", "Logins", ["logins", "tls-logins"], COST, COST_UNIT, LOGINS_NOTE),
    Table("sdk", "Through libxylem", ["sdk-fan1", "sdk-fan100", "sdk-afan100", "sdk-pub1", "sdk-pub100"], COST, COST_UNIT),
    Table("delay", "Delay from publisher to subscriber", ["rate1000", "arate1000"],
          [("delivery_p99_us", "p99, us"), ("delivery_p50_us", "p50, us"), (CPU, "CPU-s per million")], "p99, microseconds"),
    Table("memory", "Memory", ["idle", "tls-idle"], [("kib_per_session", "KiB per session")], "KiB per idle session", MEMORY_NOTE),
    Table("handshakes", "TLS", ["handshakes"], [("full_per_s", "full handshakes/s of one core"),
          ("resumed_per_s", "resumed ones"), ("library_kib", "KiB of an idle connection, the library's alone")], None),
    Table("start", "Start with a million items", ["start"], [("start_s", "seconds until READY=1"), ("cpu_s", "CPU-s of it"),
          ("killed_start_s", "after SIGKILL while publishing: seconds"), ("killed_cpu_s", "CPU-s of it")], None),
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
    return f" (x{number(ours / other if figure.endswith('per_s') else other / ours)})"


def row(figure, found, scenario, peers):
    """A figure of others is followed by how many times better ours is."""
    ours = found.get((OURS, scenario), {})
    cells = [MEANING[scenario], number(ours.get(figure)) + mark(ours)]
    for peer in peers:
        theirs = found.get((peer, scenario), {})
        cells.append(number(theirs.get(figure)) + mark(theirs) + ratio(figure, ours.get(figure), theirs.get(figure)))
    return cells


def mark(values):
    return " *" if values.get("other_cpu_share", 0) > DISTURBED else ""


def table(rows):
    """The first row is the heading."""
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def markdown(spec, found):
    """A table for each figure, or one of all; empty when nothing of it was measured."""
    if spec.unit is None:
        return one_scenario(spec, found)
    return "\n".join(filter(None, (one_figure(spec, figure, text, found) for figure, text in spec.figures)))


def one_figure(spec, figure, text, found):
    rows = [s for s in spec.scenarios if any(values.get(figure) for (_, scenario), values in found.items() if scenario == s)]
    if not rows:
        return ""
    peers = [peer for peer in SERVERS if any(found.get((peer, scenario), {}).get(figure) for scenario in rows)]
    heading = [f"{spec.title}: {text}", OURS, *peers]
    return table([heading] + [row(figure, found, scenario, peers) for scenario in rows])


def one_scenario(spec, found):
    """Rows are figures."""
    (scenario,) = spec.scenarios
    peers = [peer for peer in SERVERS if (peer, scenario) in found]
    rows = [
        [text, number(found.get((OURS, scenario), {}).get(figure))] + [number(found[peer, scenario].get(figure)) for peer in peers]
        for figure, text in spec.figures
    ]
    known = any(server == OURS or server in peers for server, measured in found if measured == scenario)
    return table([[spec.title, OURS, *peers], *rows]) if known else ""


def chart(spec, found, folder):
    """One group of bars per scenario, one bar per server; logarithmic, as the figures are powers of ten apart."""
    figure = spec.figures[0][0]
    rows = [s for s in spec.scenarios if any(found.get(key, {}).get(figure) for key in found if key[1] == s)]
    servers = [name for name in [OURS, *SERVERS] if any((name, scenario) in found for scenario in rows)]
    if not rows or spec.unit is None:
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
        has_chart = charts_at and spec.unit is not None
        parts.append(lines + (f"\n![{spec.title}]({charts_at}/{spec.name}.svg)\n" if has_chart else ""))
        parts += [spec.note + "\n"] if spec.note else []
    return "\n".join([*parts, verdict(found) + "\n"])


# --- what is published ----------------------------------------------------------------------------------------------


def remember(path, found, of):
    """Puts what was measured now into the file of what is published, and returns all of it. `of`: commit, date and the like,
    kept with each. One line per server and scenario, so that some of it can be measured anew."""
    known = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            known = {(line["server"], line["scenario"]): line for line in map(json.loads, file)}
    for (server, scenario), values in found.items():
        known[server, scenario] = {"server": server, "scenario": scenario, **of, **values}
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(known[key]) + "\n" for key in sorted(known))
    return known


def publish(page, body, name="bench"):
    """Puts `body` between the page's two marks of that name."""
    with open(page, encoding="utf-8") as file:
        old = file.read()
    new, count = re.subn(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: m[1] + body + m[2], old, flags=re.S)
    if count != 1:
        raise SystemExit(f"{page} has no place for the tables: <!-- {name} --> and <!-- /{name} --> on lines of their own")
    with open(page, "w", encoding="utf-8") as file:
        file.write(new)
