"""The power-loss disk itself: what was flushed survives a cut, what was not is gone or torn, and a disk that lies is seen.

Writes straight to files on the disk, without a broker. A harness that cannot lose data proves nothing about who keeps it.
usage: test_disk.py     (exit code 77: this machine cannot do it)
"""

import mmap
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import disk as power  # noqa: E402

SKIPPED = 77
BLOCK, SECTOR = 4096, 512
BLOCKS = 64


def write(path, data, sync):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write_through(path, data):
    """To the disk and not flushed: O_DIRECT leaves the page cache and asks for nothing more."""
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, len(data))  # aligned, as O_DIRECT needs
        buffer.write(data)
        assert os.pwrite(descriptor, buffer, 0) == len(data)
    finally:
        os.close(descriptor)


def cycle(disk, mode, seed):
    disk.cut(0, mode, seed)
    disk.shut_down()
    disk.restore()


def check_flushed_survives(disk):
    before = disk.figures()
    write(os.path.join(disk.root, "kept"), b"k" * 10000, sync=True)
    after = disk.figures()
    assert after["flushes"] > before["flushes"], "an fsync does not reach the disk as a flush"
    assert after["writes"] > before["writes"]
    write(os.path.join(disk.root, "forgotten"), b"f" * 10000, sync=False)
    cycle(disk, "drop", 1)
    assert read(os.path.join(disk.root, "kept")) == b"k" * 10000
    assert read(os.path.join(disk.root, "forgotten")) is None, "without fsync, and yet it survived a power cut"


def check_written_is_not_flushed(disk):
    """Data that reached the disk's cache, but was not flushed, must be lost too."""
    path = os.path.join(disk.root, "cached")
    write(path, b"1" * BLOCK * BLOCKS, sync=True)
    write_through(path, b"2" * BLOCK * BLOCKS)
    assert disk.figures()["unflushed_bytes"] >= BLOCK * BLOCKS
    lost = disk.figures()["blocks_lost"]
    cycle(disk, "drop", 2)
    assert read(path) == b"1" * BLOCK * BLOCKS
    assert disk.figures()["blocks_lost"] >= lost + BLOCKS
    assert disk.figures()["unflushed_bytes"] < BLOCK * BLOCKS


def check_tearing(disk):
    """Of unflushed blocks some survive, some do not, some in part; the same seed tears alike."""
    path = os.path.join(disk.root, "torn")
    write(path, b"1" * BLOCK * BLOCKS, sync=True)
    write_through(path, b"2" * BLOCK * BLOCKS)
    cycle(disk, "tear", 3)
    content = read(path)
    assert len(content) == BLOCK * BLOCKS
    sectors = [set(content[at : at + SECTOR]) for at in range(0, len(content), SECTOR)]
    assert all(len(s) == 1 for s in sectors), "a sector is written as a whole or not at all"
    per_block = [sectors[at : at + BLOCK // SECTOR] for at in range(0, len(sectors), BLOCK // SECTOR)]
    kinds = {"old" if all(s == {ord("1")} for s in b) else "new" if all(s == {ord("2")} for s in b) else "torn" for b in per_block}
    assert kinds == {"old", "new", "torn"}, kinds


def check_cut_is_exact(disk):
    """After the cut nothing is taken any more, and whoever syncs is told."""
    path = os.path.join(disk.root, "exact")
    disk.cut(5, "drop", 4)
    synced = -1
    with open(path, "ab", buffering=0) as file:
        try:
            for number in range(100):
                file.write(b"%04d" % number)
                os.fsync(file.fileno())
                synced = number
        except OSError as error:
            assert power.is_device_error(error), error
    assert disk.figures()["power"] == 0 and synced < 99
    disk.shut_down()
    disk.restore()
    content = read(path) or b""
    assert len(content) >= 4 * (synced + 1), "what fsync confirmed is gone"


def check_lying(disk):
    """A disk that acknowledges flushes without doing them loses what fsync confirmed: the broker's test must notice."""
    disk.command("lie")
    write(os.path.join(disk.root, "promised"), b"p" * 1000, sync=True)
    cycle(disk, "drop", 5)
    disk.command("honest")
    assert read(os.path.join(disk.root, "promised")) is None


def main():
    reason = power.unavailable()
    if reason:
        print("skipped:", reason)
        sys.exit(SKIPPED)
    power.enter_namespace()
    with tempfile.TemporaryDirectory(prefix="xylem-power-") as folder:
        disk = power.Disk(folder, 64)
        try:
            for check in (check_flushed_survives, check_written_is_not_flushed, check_tearing, check_cut_is_exact, check_lying):
                check(disk)
                print(check.__name__, "passed")
        finally:
            print(disk.figures())
            disk.close()


if __name__ == "__main__":
    main()
