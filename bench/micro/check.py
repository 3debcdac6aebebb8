#!/usr/bin/python3
"""Counts the instructions of the micro-benchmarks with callgrind and compares them with the figures in expected.txt.

Instructions, because they are the same on a busy machine. A case that takes a tenth more than expected fails. Figures are
kept per build (compiler, architecture, kind of build); where there are none the test is skipped and says how to make them.

usage: check.py PROGRAM BUILD [--renew | --planted]
  --renew    write what is counted into expected.txt
  --planted  the program plants a slow-down in every case: succeeds when each one is noticed
"""

import os
import re
import subprocess
import sys
import tempfile

EXPECTED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "expected.txt")
MORE_MAX = 1.10
SKIPPED = 77


def cases(program):
    """Name and number of operations of each, as the program lists them."""
    listed = subprocess.run([program], capture_output=True, text=True, check=False).stdout
    return [(name, int(operations)) for name, operations in (line.split() for line in listed.splitlines())]


def count(program, name, planted):
    """Instructions inside `measured`."""
    with tempfile.TemporaryDirectory() as scratch:
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=measured"]
        command += [f"--callgrind-out-file={scratch}/out", program, name] + (["--slow"] if planted else [])
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    collected = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or collected is None or int(collected.group(1)) == 0:
        sys.exit(f"{' '.join(command)}\nended with {run.returncode} and no count:\n{run.stderr}")
    return int(collected.group(1))


def measure(program, planted):
    """Instructions per operation, by name."""
    return {name: round(count(program, name, planted) / operations) for name, operations in cases(program)}


def read_expected():
    """{build: {name: instructions}}; each line: BUILD NAME INSTRUCTIONS."""
    expected = {}
    with open(EXPECTED, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                build, name, instructions = line.split()
                expected.setdefault(build, {})[name] = int(instructions)
    return expected


def write_expected(expected):
    with open(EXPECTED, "w", encoding="utf-8") as file:
        file.write("# Instructions per operation, by build and case: written by check.py --renew, read by check.py.\n")
        for build in sorted(expected):
            file.writelines(f"{build} {name} {count}\n" for name, count in expected[build].items())


def compare(found, expected):
    """Prints a line per case; how many are slower than allowed, or have no figure."""
    slower = 0
    for name, instructions in found.items():
        if name not in expected:
            print(f"{name:10} {instructions:8} instructions per operation, no figure to compare with")
            slower += 1
            continue
        ratio = instructions / expected[name]
        verdict = "SLOWER" if ratio > MORE_MAX else "faster: renew" if ratio < 2 - MORE_MAX else "ok"
        slower += verdict == "SLOWER"
        print(f"{name:10} {instructions:8} instructions per operation, expected {expected[name]:8}: x{ratio:.3f} {verdict}")
    return slower


def main():
    program, build = sys.argv[1:3]
    option = sys.argv[3] if len(sys.argv) > 3 else ""
    expected = read_expected()
    how = f"renew with: cmake --build {os.path.dirname(os.path.dirname(os.path.abspath(program)))} --target micro-renew"
    if build not in expected and option != "--renew":
        print(f"no figures for {build} in {EXPECTED}; {how}")
        return SKIPPED
    found = measure(program, option == "--planted")
    if option == "--renew":
        expected[build] = found
        write_expected(expected)
        print(f"{EXPECTED}: {len(found)} figures of {build}")
        return 0
    slower = compare(found, expected[build])
    if option == "--planted":
        print(f"{slower} of {len(found)} planted slow-downs noticed")
        return 0 if slower == len(found) else 1
    if slower:
        print(f"{slower} slower by more than a tenth, or new. If that is the price of something wanted, say so in the commit and {how}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
