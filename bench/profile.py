#!/usr/bin/python3
"""Where the broker's processor time goes, per operation, by what it does: parse, route, store, write ...

Samples the broker with perf while bench/load runs a scenario, and gives each sample to the room of the code it fell into:
samples in the kernel to what was asked of it, samples in a library to what it is for, samples in libc to the caller.

`--beside` measures another build in turn with this one, such as that of an older commit; `--publish` puts the table into docs/.
Needs perf, addr2line and the right to use them.

usage: profile.py [--beside DIRECTORY-OF-XYLEMD] [--publish] [SCENARIO ...]      (default: fan1 fan100 pub100 tls-fan100)
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
os.environ.setdefault("XYLEM_BIN", os.path.join(ROOT, "build", "release", "bin"))
import run  # noqa: E402
import servers  # noqa: E402

SECONDS = 4
SETTLE_S = 2.5  # logins and warm-up
SAMPLE_S = 2
KERNEL = (
    (re.compile(r"sock_(read|recv)|__sys_recv|sys_recv"), "read sockets"),
    (re.compile(r"__sys_send|sys_send|sock_write|tcp_sendmsg"), "write sockets"),
    (re.compile(r"epoll|futex|eventfd|nanosleep|sched_yield|schedule"), "wait and wake"),
    (re.compile(r"ext4|fdatasync|fsync|pwrite|writev|blk_|virtio|page_fault|madvise"), "disk"),
)
LIBRARIES = (("libexpat", "parse"), ("liblmdb", "store"), ("libprotobuf", "store"), ("libuv", "loop"), ("libmbed", "TLS"))
LIBRARIES += (("libssl", "TLS"), ("libcrypto", "TLS"))
ROOMS = (  # the first that the file's path begins with
    ("core/xml/writer", "serialise"),
    ("core/xml", "parse"),
    ("core/tls", "TLS"),
    ("core/stream", "parse"),
    ("core/stanza", "parse"),
    ("broker/session/outbox", "serialise"),
    ("core/sm", "session"),
    ("broker/session", "session"),
    ("broker/router", "route"),
    ("broker/modules", "route"),
    ("core/jid", "route"),
    ("broker/pubsub", "publish-subscribe"),
    ("broker/delivery", "publish-subscribe"),
    ("broker/store", "store"),
    ("schemas", "store"),
    ("broker/shard", "loop"),
    ("broker/net", "loop"),
)
FRAME = re.compile(r"^\s+([0-9a-f]+) (\S+) \((.*)\)$")


def sample(pid, path):
    """Samples that process; a list of stacks, innermost first, of (address, symbol, file)."""
    subprocess.run(
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g", "-o", path, "-p", str(pid), "--", "sleep", str(SAMPLE_S)],
        check=True,
        capture_output=True,
    )
    text = subprocess.run(
        ["perf", "script", "-i", path, "-F", "ip,sym,dso"], check=True, capture_output=True, text=True, errors="replace"
    ).stdout
    stacks = [[FRAME.match(line) for line in block.splitlines()] for block in text.split("\n\n")]
    stacks = [[frame.groups() for frame in stack if frame] for stack in stacks]
    return [stack for stack in stacks if stack]


def source_files(addresses, program):
    """Of each address the file of the project that it was compiled from; the program is in build/PRESET/bin of that."""
    listed = sorted(addresses)
    lines = subprocess.run(
        ["addr2line", "-e", program], input="\n".join(listed), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    root = os.path.realpath(os.path.join(os.path.dirname(program), "..", "..", "..")) + os.sep
    return {address: os.path.realpath(line.rpartition(":")[0]).replace(root, "") for address, line in zip(listed, lines)}


def room_of(stack, files, program):
    if stack[0][2].startswith("[kernel"):
        names = " ".join(symbol for _, symbol, where in stack if where.startswith("[kernel"))
        return next((room for pattern, room in KERNEL if pattern.search(names)), "kernel, other")
    for address, _, where in stack:
        if where == program:
            path = files[address]
            if path.startswith("core/base/"):
                continue  # tools of whoever called
            return next((room for start, room in ROOMS if path.startswith((start, "build/release/" + start))), "other")
        for library, room in LIBRARIES:
            if library in where:
                return room
    return "memory and strings"  # of libc, called by a library without frame pointers


def profile(server, scenario):
    results = []
    load = threading.Thread(target=lambda: results.append(run.run_once(server, scenario, SECONDS)))
    load.start()
    time.sleep(SETTLE_S)
    with tempfile.TemporaryDirectory() as folder:
        stacks = sample(server.pid, os.path.join(folder, "perf.data"))
    load.join()
    if results[0] is None:
        sys.exit(1)
    program = os.path.realpath(os.path.join(server.bin, "xylemd"))
    files = source_files({address for stack in stacks for address, _, where in stack if where == program}, program)
    rooms = collections.Counter(room_of(stack, files, program) for stack in stacks)
    costs = {room: count / len(stacks) * results[0][run.report.CPU] for room, count in rooms.items()}
    return costs, results[0]["other_cpu_share"]


def profiles(scenarios, folder):
    """Of the broker in that folder; {scenario: ({room: CPU-s per million}, what others took of a core)}."""
    server = servers.Xylem()
    server.bin = folder
    server.start()
    try:
        return {scenario: profile(server, scenario) for scenario in scenarios}
    finally:
        server.stop()


def text(scenarios, builds):
    """`builds`: (name, what profiles() returned); a column for each scenario and build, the dearest room first."""
    columns = [(f"{scenario}{name}", found[scenario]) for scenario in scenarios for name, found in builds]
    costs = [cost for _, (cost, _) in columns]
    rooms = sorted({room for cost in costs for room in cost}, key=lambda room: -max(cost.get(room, 0) for cost in costs))
    rows = [["CPU-s per million", *(name for name, _ in columns)]]
    rows += [[room, *(f"{cost.get(room, 0):.2f}" for cost in costs)] for room in rooms]
    rows.append(["all", *(f"{sum(cost.values()):.2f}" for cost in costs)])
    rows.append(["other work meanwhile, of a core", *(f"{share:.2f}" for _, (_, share) in columns)])
    return run.report.table(rows)


def main():
    parser = argparse.ArgumentParser(prog="bench/profile.py", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--beside", metavar="DIRECTORY", help="of another xylemd, in the build tree of its commit")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("scenarios", nargs="*", default=["fan1", "fan100", "pub100", "tls-fan100"])
    options = parser.parse_args()
    folders = [options.beside, servers.harness.BIN] if options.beside else [servers.harness.BIN]
    builds = [(f", {run.commit(folder)}" if options.beside else "", profiles(options.scenarios, folder)) for folder in folders]
    body = text(options.scenarios, builds)
    print(body)
    if options.publish:
        run.report.publish(os.path.join(ROOT, "docs", "performance.md"), body, "profile")


if __name__ == "__main__":
    main()
