"""A disk that loses its power on command: ext4 on a loop device on powerfs.c, in a mount namespace of its own.

`unavailable` says why this machine cannot do it; `enter_namespace` must come first, early in the program. Everything that
is mounted disappears with the namespace, whatever ends the program; other loop devices are never touched.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time

import harness

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
EXT4_GOING_FLAGS_NOLOGFLUSH = 2
INSIDE = "XYLEM_CRASH_NAMESPACE"
TOOLS = ("unshare", "mkfs.ext4", "mount", "umount")
WAIT_S = 20
MKFS = ["mkfs.ext4", "-q", "-F", "-J", "size=8", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]


def unavailable():
    """Why there can be no such disk here, or None."""
    if not os.path.exists(harness.program("powerfs")):
        return "powerfs is not built (libfuse3-dev)"
    if os.geteuid() != 0:
        return "it needs root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(path, os.R_OK | os.W_OK):
            return f"no {path}"
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"no {tool}"
    with open("/proc/filesystems", encoding="ascii") as known:
        if "\text4\n" not in known.read():
            return "this kernel has no ext4"
    probe = subprocess.run(["unshare", "-m", "-p", "-f", "--mount-proc", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "this kernel grants no mount namespace: " + probe.stderr.decode().strip()


def enter_namespace():
    """Runs the program again inside namespaces of its own, of mounts and of processes: nothing outlives it."""
    if os.environ.get(INSIDE):
        return
    os.environ[INSIDE] = "1"
    command = ["unshare", "-m", "--propagation", "private", "-p", "-f", "--kill-child", "--mount-proc"]
    os.execvp(command[0], [*command, sys.executable, "-B", *sys.argv])


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Disk:
    """The file system is at `root` while there is power."""

    def __init__(self, folder, megabytes=768):
        self.powerfs = os.path.join(folder, "powerfs")
        self.root = os.path.join(folder, "disk")
        os.mkdir(self.powerfs)
        os.mkdir(self.root)
        self.process = subprocess.Popen(
            [harness.program("powerfs"), self.powerfs, os.path.join(folder, "image"), str(megabytes)], stdin=subprocess.DEVNULL
        )
        self.device = os.path.join(self.powerfs, "disk")
        self.control = os.path.join(self.powerfs, "control")
        self.mounted = False
        deadline = time.monotonic() + WAIT_S
        while not os.path.exists(self.device):
            assert self.process.poll() is None and time.monotonic() < deadline, "powerfs did not start"
            time.sleep(0.01)
        run(*MKFS, self.device)
        self.mount()
        os.sync()

    def mount(self):
        """`-o loop` takes a free loop device and gives it back at the unmount."""
        run("mount", "-t", "ext4", "-o", "loop,noatime", self.device, self.root)
        self.mounted = True

    def command(self, text):
        with open(self.control, "wb", buffering=0) as file:
            file.write(text.encode())

    def figures(self):
        with open(self.control, encoding="ascii") as file:
            return {key: int(value) for key, value in (line.split() for line in file)}

    def cut(self, after, mode, seed):
        """Power goes after so many more writes and flushes; what was not flushed is dropped, or (`tear`) partly kept."""
        self.command(f"cut {after} {mode} {seed}")

    def wait_cut(self, seconds, mode, seed):
        """Until the power is gone; a disk that nobody writes to any more is cut at once."""
        deadline = time.monotonic() + seconds
        while self.figures()["power"] == 1:
            if time.monotonic() > deadline:
                self.cut(0, mode, seed)
                return
            time.sleep(0.002)

    def shut_down(self):
        """The file system as after the cut: nothing of what it holds in memory reaches the disk any more."""
        with contextlib.suppress(OSError):  # it may have noticed already that its disk fails
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, ctypes.c_uint32(EXT4_GOING_FLAGS_NOLOGFLUSH))
            finally:
                os.close(descriptor)
        self.unmount()

    def unmount(self):
        """A loop device is let go a moment after the unmount; a new one must not see the old one's pages. Somebody who
        looks at the files just now, as a workload may, makes it busy for a moment."""
        if not self.mounted:
            return
        deadline = time.monotonic() + WAIT_S
        while subprocess.run(["umount", self.root], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, "the file system stays busy"
            time.sleep(0.01)
        self.mounted = False
        while self._looped():
            assert time.monotonic() < deadline, "the loop device stays attached"
            time.sleep(0.002)

    def _looped(self):
        for name in os.listdir("/sys/block"):
            if name.startswith("loop"):
                with contextlib.suppress(OSError), open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as file:
                    if file.read().strip() == self.device:
                        return True
        return False

    def restore(self):
        """Power is back: the journal is replayed, and what was flushed must be there."""
        self.command("on")
        self.mount()

    def close(self):
        """Also after a failure half way, so every step is tried."""
        for step in (self.unmount, lambda: run("umount", self.powerfs)):
            with contextlib.suppress(RuntimeError, AssertionError):
                step()
        self.process.terminate()
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def is_device_error(error):
    return error.errno in (errno.EIO, errno.EROFS)
