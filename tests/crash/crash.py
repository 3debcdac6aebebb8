#!/usr/bin/python3
"""Crashes the broker at random moments under load, and counts what became of what it had acknowledged.

Every round lets the workloads work for a random time, crashes the broker, and starts it again (crashes.py): by SIGKILL,
or with --power by a power cut under its disk that drops everything unflushed (`drop`) or keeps a random, torn part
(`tear`). At the end every workload gives its verdict. XYLEM_TEST_LONG=1 runs --long-rounds instead of --rounds.

usage: crash.py [--rounds N] [--long-rounds N] [--seed N] [--power drop|tear|both | --stop | --no-crash]
       [--lying-disk] [--grow] [--log lmdb|segments] [--workloads A,B]
       (XYLEM_BIN: the programs; exit code 77: not possible here)
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
import disk as power  # noqa: E402
import workload  # noqa: E402
from crashes import make_crash  # noqa: E402
from workload_acked import Acked  # noqa: E402
from workload_async import Async  # noqa: E402
from workload_backup import Backup  # noqa: E402
from workload_changes import Changes  # noqa: E402
from workload_items import Items  # noqa: E402
from workload_messages import Links, Messages  # noqa: E402
from workload_queue import Queue  # noqa: E402

SKIPPED = 77
WORKLOADS = (Items, Messages, Links, Changes, Queue, Acked, Async, Backup)
WORK_S = (0.02, 0.4)  # of a round before its crash
FILL_S = (1.5, 3.0)  # with --grow
FILL_BYTES = 2000  # of an item then
MAP_FIRST_MB, MAP_LAST_MB = 16, 1024  # with --grow
LYING_SETTLE_S = 5  # what a lying disk lost does not come, however long one waits
# Room for what a round may bring, and checkpoints often enough to be hit by crashes.
STORES = (
    {"checkpoint_records": 200000, "checkpoint_bytes": "64mb"},
    {"checkpoint_records": 1000, "checkpoint_bytes": "1mb"},
    {"checkpoint_records": 5000, "checkpoint_bytes": "4mb", "log_max": "64mb"},
)
SHARDS = (1, 2, 2, 4)  # what is stored does not depend on their number
NODE_MEMORY = ("1mb", "256mb")  # with little of it nodes leave memory and come back


def configure(broker, chance, growing):
    """Another way to keep the store each time; `growing`: the round, in a run where room is short at first."""
    store = broker.config["store"]
    store.update(chance.choice(STORES))
    broker.config["limits"]["node_memory"] = chance.choice(NODE_MEMORY)
    broker.config["shards"] = chance.choice(SHARDS)
    if growing is not None:
        store["map_size"] = f"{min(MAP_FIRST_MB << growing, MAP_LAST_MB)}mb"
    broker.write_config()


def rounds_of(broker, crash, workloads, rounds, chance, grow):
    for number in range(rounds):
        if grow:
            for each in workloads:
                each.leave_owed()
        time.sleep(chance.uniform(*(FILL_S if grow else WORK_S)))
        if crash.lying:
            for each in workloads:
                each.leave_owed()
        for each in workloads:
            each.before_crash(number)
        crash.crash()
        time.sleep(chance.uniform(0.0, 0.1))
        configure(broker, chance, number if grow else None)
        crash.start()
        for each in workloads:
            each.after_start(number)


def keep(broker, crash):
    """The evidence: data directory, log and what the programs said."""
    if broker.process:
        broker.kill()
    if crash:
        crash.give_access()
    folder = tempfile.mkdtemp(prefix="xylem-crash-kept-")
    for name in os.listdir(broker.folder):
        path = os.path.join(broker.folder, name)
        if os.path.isfile(path) and name != "image":
            shutil.copy(path, folder)
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(broker.data_dir, os.path.join(folder, "data"), dirs_exist_ok=True)
    print("kept:", folder)


def run(arguments, rounds):
    chance = random.Random(arguments.seed)
    # Passwords that a crash undid are tried, and fail, in good faith.
    broker = harness.Broker({"log": {"level": "warning"}, "limits": {"auth_failures_per_minute": "unlimited"}})
    broker.orderly = False  # whether it was told to stop, last time
    broker.lives = 0  # how often it was started again
    crash, workloads, good = None, [], False
    try:
        broker.config["store"]["log"] = arguments.log
        if arguments.grow:
            Items.item_bytes = FILL_BYTES
            broker.config["store"]["map_size"] = f"{MAP_FIRST_MB}mb"
            broker.write_config()
        crash = make_crash(broker, arguments)
        broker.start()
        chosen = arguments.workloads.split(",") if arguments.workloads else None
        for kind in WORKLOADS:
            if chosen is None or kind.name in chosen:
                workloads.append(kind(broker, random.Random(f"{kind.name} {arguments.seed}")))
                workloads[-1].repeats = crash.repeats
        for each in workloads:
            each.prepare()
        for each in workloads:
            each.start()
        rounds_of(broker, crash, workloads, rounds, chance, arguments.grow)
        verdicts = [(each.name, each.finish()) for each in workloads]
        print(f"seed {arguments.seed}: {rounds} rounds of {crash.label}, log in {arguments.log}, {crash.in_start} more while starting")
        for name, verdict in verdicts:
            print(f"  {name}: {verdict}")
        if arguments.lying_disk:
            return not any(verdict.good() for _, verdict in verdicts)
        short = any(verdict.refused for _, verdict in verdicts)
        assert short or not arguments.grow, "room was never short"
        good = all(verdict.good() for _, verdict in verdicts)
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
    finally:
        for each in workloads:
            each.close()
        if not good and not arguments.lying_disk:
            print(f"seed {arguments.seed} failed; the end of the broker's log:\n{broker.log(20)}")
            keep(broker, crash)
        try:
            broker.stop()
        finally:
            if crash:
                crash.close()
            broker.finish()
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--long-rounds", type=int)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("XYLEM_CRASH_SEED", "1")))
    parser.add_argument("--power", choices=("drop", "tear", "both"))
    parser.add_argument("--stop", action="store_true", help="the broker is stopped in order each time")
    parser.add_argument("--no-crash", action="store_true", help="the broker lives; only connections are cut")
    parser.add_argument("--lying-disk", action="store_true", help="a fault planted: every workload must notice it")
    parser.add_argument("--grow", action="store_true", help="begin with little room in the store, and give it more at each start")
    parser.add_argument("--log", choices=("lmdb", "segments"), default="lmdb", help="how the store keeps its log")
    parser.add_argument("--workloads")
    arguments = parser.parse_args()
    if arguments.power:
        reason = power.unavailable()
        if reason:
            print("skipped:", reason)
            sys.exit(SKIPPED)
        power.enter_namespace()
    if arguments.lying_disk:
        workload.SETTLE_S = LYING_SETTLE_S
    long = os.environ.get("XYLEM_TEST_LONG") == "1" and arguments.long_rounds
    good = run(arguments, arguments.long_rounds if long else arguments.rounds)
    if arguments.lying_disk:
        print("the lying disk was", "noticed" if good else "not noticed by every workload")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
