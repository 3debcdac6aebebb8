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
import report  # noqa: E402
import servers  # noqa: E402

QUICK = ["fan1", "fan100", "fan1000", "afan100", "pub1", "pub100", "msg50", "amsg50", "aoffline", "rate1000", "arate1000"]
QUICK += ["logins", "idle", "sdk-fan100", "sdk-afan100", "sdk-pub100"]
QUICK += ["tls-fan100", "tls-pub100", "tls-msg50", "tls-logins", "tls-idle"]
SCENARIOS = [scenario for scenario in report.MEANING if scenario != report.DRAIN]
FRESH = ("idle", "tls-idle", "aoffline")  # a server that has done nothing else yet
AGAIN = 2  # times that a disturbed run is repeated at most; with --quick not at all
RUN_S = 300


def log(text):
    print(text, flush=True)


def generator(scenario):
    """Of all TLS the cheapest, whatever the server uses: both share the machine."""
    return os.path.join(servers.OPENSSL if scenario.startswith("tls-") else servers.harness.BIN, "load")


def run_once(server, scenario, seconds):
    command = [generator(scenario), "--port", str(server.port), "--domain", server.domain]
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
    for _ in range(1 if options.quick else 1 + AGAIN):
        if scenario in FRESH:
            server.restart()
        result = run_once(server, scenario, options.seconds)
        if result is None:
            return best
        if best is None or result["other_cpu_share"] < best["other_cpu_share"]:
            best = result
        if best["other_cpu_share"] <= report.DISTURBED:
            break
    return best


def measure(server, options, results):
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
                    figure = "kib_per_session" if scenario.endswith("idle") else report.CPU
                    log(f"{server.name} {scenario}: {result[figure]:.4g} {figure}, {result[report.RATE]:.0f}/s")
    finally:
        server.stop()


def what_was_left_out(chosen):
    left = [f"{s.name}: {s.missing()}" for s in servers.SERVERS if s.missing()]
    left += [f"{s.name}: not asked for" for s in servers.SERVERS if not s.missing() and s not in chosen]
    return "Not measured: " + "; ".join(left) + "." if left else ""


def about(options, chosen):
    """What has to be known to read the figures."""
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return (
        f"Commit {commit.stdout.strip()}, {time.strftime('%Y-%m-%d')}: {', '.join(s.name for s in chosen)}; generator and server "
        f"on the same {os.cpu_count()} cores ({models[0] if models else os.uname().machine}), TCP on loopback, 256-byte payloads, runs of "
        f"{options.seconds:g} s after 1 s, medians of {options.runs}. A ratio above 1 is in Xylem's favour. `*`: other work took "
        f"more than a fifth of a core while Xylem was measured. {what_was_left_out(chosen)}\n"
    )


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="one run of each: less than ten minutes on two cores")
    parser.add_argument("--publish", action="store_true", help="put tables and charts into docs/ (not from a disturbed machine)")
    parser.add_argument("--scenarios", type=lambda t: t.split(","), help="which, separated by commas; default all")
    parser.add_argument("--servers", type=lambda t: t.lower().split(","), help="which, separated by commas; default all found")
    parser.add_argument("--runs", type=int, help="of each scenario; default 3")
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    options = parser.parse_args()
    options.scenarios = options.scenarios or (QUICK if options.quick else SCENARIOS)
    options.runs = options.runs or (1 if options.quick else 3)
    for scenario in options.scenarios:
        if scenario not in SCENARIOS:
            parser.error(f"no scenario {scenario}; there are {', '.join(SCENARIOS)}")
    for name in options.servers or []:
        if name not in [s.name.lower() for s in servers.SERVERS]:
            parser.error(f"no server {name}; there are {', '.join(s.name.lower() for s in servers.SERVERS)}")
    return options


def publish(options, chosen, found):
    disturbed = [scenario for (server, scenario), values in found.items() if values["other_cpu_share"] > report.DISTURBED]
    if disturbed:
        log(f"not published: other work disturbed {', '.join(sorted(set(disturbed)))}; run it again on a quiet machine")
        return 1
    docs = os.path.join(ROOT, "docs")
    report.charts(found, os.path.join(docs, "charts"))
    report.publish(os.path.join(docs, "performance.md"), report.text(about(options, chosen), found, "charts"))
    log("published in docs/performance.md")
    return 0


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
    body = report.text(about(options, chosen), found)
    with open(os.path.join(output, "tables.md"), "w", encoding="utf-8") as file:
        file.write(body)
    report.charts(found, output)
    log("\n" + body)
    if report.faults(found) or not results:
        return 1
    return publish(options, chosen, found) if options.publish else 0


if __name__ == "__main__":
    sys.exit(main())
