"""What run.py measures by other means than a load: how long a start takes, what a commit costs, handshakes of one core.

Each function is given the server and the options, and returns a result as the load generator prints one. Processor time says
the same beside other work; where a figure is a time, the result says how much of the processor others took.
"""

import json
import os
import subprocess
import tempfile
import time

import servers

ITEMS = 1000000
SECONDS = 2
FILL_S = 400
CRASH_AFTER_S = 3  # of publishing


def others_cpu_s(pids):
    """Of everybody but these and us; as bench/load/machine.c does."""
    ticks = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        if int(name) in pids or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:15]))
        except OSError:
            pass  # it has just ended
    return ticks / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid):
    """By its clock, as clock_getcpuclockid() names it."""
    return time.clock_gettime(~pid << 3 | 2)


def result(server, scenario, **figures):
    zero = {"operations_per_s": 0, "other_cpu_share": 0, "lost": 0, "repeated": 0, "corrupt": 0}
    return {"server": server.name, "scenario": scenario, **zero, **figures}


def start(server, options):
    """Until READY=1, with a million items in ten nodes: after a stop, and after a SIGKILL in the midst of publishing."""
    if fill(server, options.items) != 0:
        return None
    server.broker.stop()
    stopped = started(server)
    pub = subprocess.Popen(load(server, "pub100", "--seconds", "60"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(CRASH_AFTER_S)
    server.broker.kill()
    pub.wait()
    killed = started(server)
    figures = {f"{name}_s": value for name, value in stopped.items()} | {f"killed_{name}_s": value for name, value in killed.items()}
    share = (stopped["others"] + killed["others"]) / (stopped["start"] + killed["start"])
    return result(server, "start", other_cpu_share=share, **figures)


def load(server, scenario, *more):
    command = [os.path.join(servers.harness.BIN, "load"), "--port", str(server.port), "--domain", server.domain]
    return [*command, "--service", server.service, "--password", servers.PASSWORD, *more, scenario]


def fill(server, items):
    return subprocess.run(load(server, "fill", "--total", str(items)), stdout=subprocess.DEVNULL, timeout=FILL_S, check=False).returncode


def started(server):
    others, begin = others_cpu_s(()), time.monotonic()
    server.broker.start()
    took = time.monotonic() - begin
    return {"start": took, "cpu": process_cpu_s(server.pid), "others": others_cpu_s((server.pid,)) - others}


def commits(server, options):
    """Of LMDB alone, beside where brokers have their data."""
    del options
    with tempfile.TemporaryDirectory(dir=os.path.dirname(server.broker.folder)) as folder:
        others, begin = others_cpu_s(()), time.monotonic()
        done = program(server, "commit_bench", folder, str(SECONDS))
        share = (others_cpu_s(()) - others) / (time.monotonic() - begin)
    return done and result(server, "commits", **json.loads(done), other_cpu_share=share)


def handshakes(server, options):
    """Of the library alone, one core, by processor time; and what it keeps of a connection that idles."""
    del options
    done = program(server, "tls_bench", str(SECONDS), "--json", *([server.library] if server.library else []))
    return done and result(server, "handshakes", **json.loads(done))


def program(server, name, *arguments):
    done = subprocess.run([os.path.join(server.bin, name), *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        print(f"{name}: {done.stderr.strip()}", flush=True)
        return None
    return done.stdout


DIRECTLY = {"start": start, "commits": commits, "handshakes": handshakes}
