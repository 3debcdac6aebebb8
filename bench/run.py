#!/usr/bin/python3
"""Measures Xylem, and what is installed of others, with the same load generator on the same cores, one after the other.

Prints tables, and writes results.jsonl (one line per run), tables and charts into build/bench. Run by scripts/bench.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
os.environ.setdefault("XYLEM_BIN", os.path.join(ROOT, "build", "release", "bin"))
import direct  # noqa: E402
import goals  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402

QUICK = ["fan1", "fan100", "fan1000", "afan100", "afan1000", "pub1", "pub100", "pub100x10", "commits", "msg50", "amsg50"]
QUICK += ["aoffline", "rate1000", "arate1000", "logins", "idle"]
REST = ["efan100", "tls-fan100", "tls-pub100", "tls-msg50", "tls-logins", "tls-idle", "sdk-fan100", "sdk-afan100", "sdk-pub100"]
REST += ["handshakes", "start"]
SCENARIOS = [scenario for scenario in report.MEANING if scenario != report.DRAIN]
FRESH = ("idle", "tls-idle", "aoffline")  # a server that has done nothing else yet
AGAIN = 2  # times that a disturbed run is repeated at most; with --quick not at all
RUN_S = 300


def log(text):
    print(text, flush=True)


def one_run(server, scenario, options):
    if scenario in direct.DIRECTLY:
        return direct.DIRECTLY[scenario](server, options)
    return run_once(server, scenario, options.seconds)


def run_once(server, scenario, seconds):
    command = [servers.harness.program("load"), "--port", str(server.port), "--domain", server.domain]
    command += ["--service", server.service, "--password", servers.PASSWORD, "--pid", str(server.pid)]
    command += ["--protocol", server.protocol]
    command += ["--seconds", str(seconds), *server.options, scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    if done.returncode != 0:
        log(f"{server.name} {scenario}: {done.stderr.strip()}")
        return None
    return {"server": server.name, **json.loads(done.stdout)}


def undisturbed(server, scenario, options):
    """A run during which other processes kept quiet, or the quietest of some."""
    best = None
    for _ in range(1 if options.quick or options.rest else 1 + AGAIN):
        if scenario in FRESH:
            server.restart()
        result = one_run(server, scenario, options)
        if result is None:
            return best
        if best is None or result["other_cpu_share"] < best["other_cpu_share"]:
            best = result
        if best["other_cpu_share"] <= report.DISTURBED:
            break
    return best


FIGURES = [report.CPU, report.RATE, "kib_per_session", "full_per_s", "resumed_per_s", "start_s"]


def told(result):
    """What a run is about, in short."""
    return [f"{result[figure]:,.4g} {figure}" for figure in FIGURES if result.get(figure)]


def measure(server, options, results):
    if not any(map(server.does, options.scenarios)):
        return
    log(f"{server.name}: starts")
    server.start()
    try:
        for scenario in options.scenarios:
            if not server.does(scenario):
                continue
            for _ in range(options.runs):
                result = undisturbed(server, scenario, options)
                if result is not None:
                    results.append(result)
                    log(f"{server.name} {scenario}: {', '.join(told(result))}")
    finally:
        server.stop()


def what_was_left_out(chosen):
    left = [f"{s.name}: {s.missing()}" for s in servers.SERVERS if s.missing()]
    left += [f"{s.name}: not asked for" for s in servers.SERVERS if not s.missing() and s not in chosen]
    return "Not measured: " + "; ".join(left) + "." if left else ""


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False).stdout.strip()


def commit(folder=None):
    """Of the tree that the folder is in, ours without one. That figures were put into its pages does not make it another one."""
    folder = folder or ROOT
    changed = git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs")
    return git(folder, "describe", "--always") + ("-dirty" if changed else "")


def about(options, when, left_out=""):
    """What has to be known to read the figures. `when`: what was measured at which commit."""
    versions = servers.versions()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return (
        f"{when}; generator and server on the same {os.cpu_count()} cores ({models[0] if models else os.uname().machine}), TCP "
        f"on loopback, 256-byte payloads, runs of {options.seconds:g} s after 1 s, medians of {options.runs}. In parentheses how many "
        f"times better Xylem is. `*`: other work took more than a fifth of a core meanwhile. Linux {os.uname().release.split('-')[0]}"
        f"{', ' * bool(versions)}{versions}. {left_out}\n"
    )


def published_when(known):
    """Commits, the most used first; what was measured at another one is named."""
    groups = {}
    for (server, scenario), values in known.items():
        groups.setdefault((values["commit"], values["date"]), []).append(f"{server} {scenario}")
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    (newest, date), _ = ordered[0]
    others = [f"at {commit} ({date}) {', '.join(rows)}" for (commit, date), rows in ordered[1:]]
    return f"Commit {newest}, {date}" + "".join("; " + other for other in others)


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="one run of each main scenario: ten minutes on two cores")
    parser.add_argument("--rest", action="store_true", help="one run of what --quick leaves out: TLS, libxylem, start ...")
    parser.add_argument("--publish", action="store_true", help="put what was measured undisturbed into docs/, tables and charts")
    parser.add_argument("--scenarios", type=lambda t: t.split(","), help="which, separated by commas; default all")
    parser.add_argument("--servers", type=lambda t: t.lower().split(","), help="which, separated by commas; default all found")
    parser.add_argument("--runs", type=int, help="of each scenario; default 3")
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    options = parser.parse_args()
    options.items = direct.ITEMS
    options.scenarios = options.scenarios or QUICK * options.quick + REST * options.rest or SCENARIOS
    options.runs = options.runs or (1 if options.quick or options.rest else 3)
    for scenario in options.scenarios:
        if scenario not in SCENARIOS:
            parser.error(f"no scenario {scenario}; there are {', '.join(SCENARIOS)}")
    for name in options.servers or []:
        if name not in [s.name.lower() for s in servers.SERVERS]:
            parser.error(f"no server {name}; there are {', '.join(s.name.lower() for s in servers.SERVERS)}")
    return options


def publish(options, found):
    """What was measured replaces what is there; what was disturbed does not."""
    calm = {key: values for key, values in found.items() if values["other_cpu_share"] <= report.DISTURBED}
    folder = os.path.join(ROOT, "docs", "charts")
    of = {"commit": commit(), "date": time.strftime("%Y-%m-%d")}
    known = report.remember(os.path.join(folder, "measured.jsonl"), calm, of)
    body = report.text(about(options, published_when(known)), known, "charts") + "\n" + goals.table(known, missing=True)
    report.charts(known, folder)
    report.publish(os.path.join(ROOT, "docs", "performance.md"), body)
    log(f"published in docs/performance.md: {len(calm)} of {len(found)} rows")
    disturbed = [f"{server} {scenario}" for server, scenario in found if (server, scenario) not in calm]
    if disturbed:
        log(f"not published, as other work disturbed it: {', '.join(disturbed)}; measure that again (--servers, --scenarios)")
    return 1 if disturbed else 0


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped
    chosen = [s for s in servers.SERVERS if not s.missing() and (not options.servers or s.name.lower() in options.servers)]
    output = os.path.join(ROOT, "build", "bench")
    os.makedirs(output, exist_ok=True)
    results = []
    for server in chosen:
        measure(server(), options, results)
    with open(os.path.join(output, "results.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    found = report.medians(results)
    when = f"Commit {commit()}, {time.strftime('%Y-%m-%d')}"
    body = report.text(about(options, when, what_was_left_out(chosen)), found) + "\n" + goals.table(found)
    with open(os.path.join(output, "tables.md"), "w", encoding="utf-8") as file:
        file.write(body)
    report.charts(found, output)
    log("\n" + body)
    if report.faults(found) or not results:
        return 1
    return publish(options, found) if options.publish and found else 0


if __name__ == "__main__":
    sys.exit(main())
