"""The ways a broker ends without being asked, and how it comes back: SIGKILL, a power cut under its disk, or not at all.

crash.py calls crash() and start() in turn. A start may be crashed, too, before the broker is ready; a few of the kills are
orderly stops, which must keep what is acknowledged just the same.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time

import disk as power
import harness

CUT_OPERATIONS = 400  # a power cut comes within so many writes and flushes of the disk
CUT_OPERATIONS_STARTING = 60
CUT_WAIT_S = 0.3
LYING_S = 1
NO_CRASH_S = 0.5
STOPPED = 0.1  # of the SIGKILLs are SIGTERM
AGAIN = 0.2  # of the starts are crashed
AGAIN_S = 0.2  # within so much time


def check_store(broker):
    """Whatever a crash left behind must be sound before it is recovered, too."""
    run_check = subprocess.run(
        [harness.program("xylemd"), "--config", broker.config_file, "--check-store"], capture_output=True, text=True, check=False
    )
    assert run_check.returncode == 0, f"--check-store: {run_check.stdout}{run_check.stderr}"


class Kill:
    """SIGKILL: what the operating system has taken stays."""

    label = "SIGKILL"
    repeats = True  # what was sent may be sent again to a session that is resumed
    lying = False

    def __init__(self, broker, chance):
        self.broker = broker
        self.chance = chance
        self.crashes = 0
        self.in_start = 0

    def crash(self):
        self.crashes += 1
        status = self.broker.process.poll()
        assert status is None, f"xylemd ended by itself with {status}:\n{self.broker.log()}"
        self.broker.orderly = self.chance.random() < STOPPED
        if self.broker.orderly:
            self.broker.stop()
        else:
            self.broker.kill()

    def start(self):
        """Until it is ready; some starts are crashed like anything else."""
        self.recover()
        while self.chance.random() < AGAIN and not self.lying:
            self.in_start += 1
            self.launch()
            time.sleep(self.chance.uniform(0, AGAIN_S))
            self.crash_starting()
            self.recover()
        self.broker.lives += 1
        self.broker.start()

    def launch(self):
        self.broker.lives += 1
        with open(self.broker.log_file, "ab") as log:
            command = [harness.program("xylemd"), "--config", self.broker.config_file]
            self.broker.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def crash_starting(self):
        status = self.broker.process.poll()
        assert status is None, f"xylemd ended by itself with {status}:\n{self.broker.log()}"
        self.broker.kill()

    def recover(self):
        check_store(self.broker)

    def give_access(self):
        """To the data directory, whatever went wrong."""

    def close(self):
        pass


class Stop(Kill):
    """SIGTERM, always: nobody who resumes may be sent anything twice."""

    label = "SIGTERM"
    repeats = False

    def crash(self):
        self.broker.orderly = True
        self.broker.stop()

    def start(self):
        self.broker.lives += 1
        self.broker.start()


class NoCrash(Kill):
    """The broker lives on: what its workloads do to their connections is all that happens."""

    label = "no crash"
    repeats = False

    def crash(self):
        time.sleep(NO_CRASH_S)

    def start(self):
        pass


class PowerCut(Kill):
    """The disk loses its power in the midst of what the broker writes; the broker is killed a moment later."""

    def __init__(self, broker, chance, modes, lying=False):
        super().__init__(broker, chance)
        self.modes = modes
        self.label = "power cut (" + ", ".join(modes) + ")"
        self.disk = power.Disk(broker.folder)
        data = os.path.join(self.disk.root, "data")
        shutil.copytree(broker.data_dir, data)
        broker.data_dir = broker.config["data_dir"] = data
        broker.write_config()
        os.sync()
        self.lying = lying

    def crash(self):
        if self.lying:
            self.disk.command("lie")
            time.sleep(LYING_S)
        self.cut(CUT_OPERATIONS)

    def crash_starting(self):
        self.cut(CUT_OPERATIONS_STARTING)

    def cut(self, operations):
        mode, seed = self.modes[self.crashes % len(self.modes)], self.chance.getrandbits(63)
        self.crashes += 1
        self.disk.cut(self.chance.randrange(operations), mode, seed)
        self.disk.wait_cut(CUT_WAIT_S, mode, seed)
        time.sleep(self.chance.choice((0, 0, 0.02)))  # long enough, at times, for the broker to notice by itself
        process, self.broker.process = self.broker.process, None
        process.kill()
        status = process.wait()
        assert status in (1, -signal.SIGKILL), f"xylemd ended with {status}:\n{self.broker.log()}"
        self.disk.shut_down()

    def recover(self):
        if self.lying:
            self.disk.command("honest")
        self.disk.restore()
        super().recover()

    def give_access(self):
        if self.disk.figures()["power"] == 0:
            with contextlib.suppress(AssertionError, RuntimeError):
                self.disk.shut_down()
                self.disk.restore()

    def close(self):
        print("disk:", ", ".join(f"{key} {value}" for key, value in self.disk.figures().items()))
        self.disk.close()


def make_crash(broker, arguments):
    chance = random.Random(f"crash {arguments.seed}")
    if arguments.power is None:
        kind = NoCrash if arguments.no_crash else Stop if arguments.stop else Kill
        return kind(broker, chance)
    modes = ("drop", "tear") if arguments.power == "both" else (arguments.power,)
    return PowerCut(broker, chance, modes, arguments.lying_disk)
