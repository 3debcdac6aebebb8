"""Files in-band: xylem to xylem, and with slixmpp's XEP-0047 in both directions."""

import asyncio
import filecmp
import os
import re
import signal
import subprocess
import time

import harness
import library
from harness import DOMAIN

ALICE, BOB = "alice@" + DOMAIN, "bob@" + DOMAIN


class Recv:
    def __init__(self, broker, folder, *options):
        self.process = subprocess.Popen(
            [harness.program("xylem"), "recv", "--as", BOB, "--into", str(folder), *options], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "XYLEM_SOCKET": broker.local})
        assert "receiving as " + BOB in self.process.stderr.readline()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=20)

    def wait(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def rss_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def make_file(path, size):
    with open(path, "wb") as file:
        file.write(os.urandom(size))
    return str(path)


def send(broker, file, to=BOB, *options, timeout=100):
    return broker.xylem("--as", ALICE, "send", file, to, *options, timeout=timeout)


def test_files_of_many_sizes_arrive_whole(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    recv = Recv(broker, into)
    for size in (0, 1, 511, 16383, 16384, 16385, 3 * 1024 * 1024 + 7):
        file = make_file(tmp_path / f"file-{size}", size)
        run = send(broker, file)
        assert run.returncode == 0, run.stderr
        assert "hash verified" in run.stderr
        assert filecmp.cmp(file, into / f"file-{size}", shallow=False)
    recv.end()
    assert sorted(p.name for p in into.iterdir()) == sorted(
        f"file-{size}" for size in (0, 1, 511, 16383, 16384, 16385, 3 * 1024 * 1024 + 7))


def test_nothing_is_replaced_and_names_are_tamed(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    (into / "same").write_text("mine")
    recv = Recv(broker, into)
    make_file(tmp_path / "same", 100)
    make_file(tmp_path / ".hidden", 100)
    assert send(broker, str(tmp_path / "same")).returncode == 0
    assert send(broker, str(tmp_path / ".hidden")).returncode == 0
    recv.end()
    assert (into / "same").read_text() == "mine"
    assert sorted(p.name for p in into.iterdir()) == ["_hidden", "same", "same.1"]


def test_absent_recipient_says_so(broker, tmp_path):
    file = make_file(tmp_path / "f", 10)
    for to in (BOB, BOB + "/elsewhere", "nobody@" + DOMAIN):
        run = send(broker, file, to)
        assert run.returncode == 1 and "xylem recv" in run.stderr, run.stderr
    run = send(broker, str(tmp_path / "missing"))
    assert run.returncode == 1 and "No such file" in run.stderr
    run = send(broker, str(tmp_path))
    assert run.returncode == 1 and "regular" in run.stderr


def test_recipient_that_dies_ends_the_transfer(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    recv = Recv(broker, into)
    file = make_file(tmp_path / "big", 64 * 1024 * 1024)
    sender = subprocess.Popen([harness.program("xylem"), "--as", ALICE, "send", file, BOB], stderr=subprocess.PIPE,
                              text=True, env={**os.environ, "XYLEM_SOCKET": broker.local})
    deadline = time.monotonic() + 20
    while not any(p.stat().st_size > 0 for p in into.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    recv.end()
    _, errors = sender.communicate(timeout=60)
    assert sender.returncode == 1 and "big" in errors, errors
    assert not list(into.iterdir())  # no half file stays


def test_memory_is_constant(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    recv = Recv(broker, into, "--once")
    make_file(tmp_path / "small", 1024)
    before_broker, before_recv = broker.rss_kb(), recv.rss_kb()
    file = make_file(tmp_path / "large", 96 * 1024 * 1024)
    sender = subprocess.Popen([harness.program("xylem"), "--as", ALICE, "send", file, BOB], stderr=subprocess.PIPE,
                              text=True, env={**os.environ, "XYLEM_SOCKET": broker.local})
    peak = 0
    peak_broker = before_broker
    peak_recv = before_recv
    while sender.poll() is None:
        try:
            with open(f"/proc/{sender.pid}/status", encoding="ascii") as status:
                found = re.search(r"VmRSS:\s+(\d+)", status.read())
                peak = max(peak, int(found.group(1)) if found else 0)
            peak_recv = max(peak_recv, recv.rss_kb())
        except (FileNotFoundError, AttributeError, ProcessLookupError):
            pass
        peak_broker = max(peak_broker, broker.rss_kb())
        time.sleep(0.05)
    assert sender.returncode == 0, sender.stderr.read()
    sender.stderr.close()
    status, _, errors = recv.wait()
    assert status == 0, errors
    assert filecmp.cmp(file, into / "large", shallow=False)
    if "san" not in harness.BIN:
        assert peak_broker - before_broker < 16 * 1024 and peak_recv - before_recv < 16 * 1024 and peak < 32 * 1024


async def test_to_slixmpp(broker, tmp_path):
    file = make_file(tmp_path / "f", 100_000)
    bob = await library.connect(broker, "bob", resource="slix", plugins=("xep_0047",))
    bob["xep_0047"].auto_accept = True
    bob["xep_0047"].api.register(lambda *_: True, "authorized", default=True)
    received, ended = bytearray(), asyncio.get_event_loop().create_future()
    bob.add_event_handler("ibb_stream_data", lambda stream: received.extend(stream.recv_queue.get_nowait()))
    bob.add_event_handler("ibb_stream_end", lambda stream: ended.set_result(True))
    run = await asyncio.get_event_loop().run_in_executor(None, send, broker, file, BOB + "/slix", "--block", "4096")
    assert run.returncode == 0, run.stderr
    await asyncio.wait_for(ended, 20)
    with open(file, "rb") as sent:
        assert bytes(received) == sent.read()
    await bob.close()


async def test_from_slixmpp(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    recv = Recv(broker, into, "--once")
    alice = await library.connect(broker, "alice", plugins=("xep_0047",))
    stream = await alice["xep_0047"].open_stream(BOB + "/xylem-recv", sid="photo", block_size=4096, ifrom=alice.boundjid)
    data = os.urandom(50_000)
    await stream.sendall(data)
    await stream.close()
    status, out, errors = await asyncio.get_event_loop().run_in_executor(None, recv.wait)
    assert status == 0, errors
    assert out == "photo\n"
    assert (into / "photo").read_bytes() == data
    await alice.close()


def test_a_killed_recv_leaves_nothing_behind_the_next(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    foreign = into / ".keep.part"
    foreign.write_text("not ours")
    recv = Recv(broker, into)
    file = make_file(tmp_path / "big", 40 * 1024 * 1024)
    sender = subprocess.Popen([harness.program("xylem"), "--as", ALICE, "send", file, BOB], stderr=subprocess.DEVNULL,
                              env={**os.environ, "XYLEM_SOCKET": broker.local})
    parts = lambda: [p for p in into.iterdir() if p.name.endswith(".part") and p != foreign]
    deadline = time.monotonic() + 30
    while not parts() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(parts()) == 1
    recv.process.kill()
    recv.process.communicate()
    sender.wait(60)
    assert len(parts()) == 1
    recv = Recv(broker, into)
    assert parts() == [] and foreign.exists()
    small = make_file(tmp_path / "small", 100)
    assert send(broker, small).returncode == 0
    recv.end()


def test_a_second_recv_leaves_the_files_of_the_first(broker, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    first = Recv(broker, into)
    file = make_file(tmp_path / "big", 60 * 1024 * 1024)
    sender = subprocess.Popen([harness.program("xylem"), "--as", ALICE, "send", file, BOB], stderr=subprocess.DEVNULL,
                              env={**os.environ, "XYLEM_SOCKET": broker.local})
    deadline = time.monotonic() + 30
    while not any(p.name.endswith(".part") for p in into.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = Recv(broker, into, "--resource", "another")
    assert sender.wait(100) == 0
    assert filecmp.cmp(file, into / "big", shallow=False)
    first.end()
    second.end()
