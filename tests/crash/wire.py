"""A wire between clients and the broker that can be cut: with a reset, or silently, so that each side waits for the other.

A TCP proxy in a thread of its own. Clients connect to `port` instead of the broker's; cut() hits what is connected then,
later connections work. Silence comes in two kinds: bytes are no longer taken (`stalled`: the sender's buffers fill), or
taken and dropped (`eaten`: the sender believes them sent).
"""

import asyncio
import contextlib
import socket
import struct
import threading

import harness

CUTS = ("reset", "stalled", "eaten")
CHUNK = 65536


class Wire:
    def __init__(self, broker):
        self.broker = broker
        (self.port,) = harness.free_ports(1)
        self.links = []  # of writers, by pairs
        self.tasks = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result()

    @property
    def orderly(self):
        return self.broker.orderly

    @property
    def lives(self):
        return self.broker.lives

    async def _listen(self):
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _connected(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.broker.port)
        except OSError:
            reset(writer)
            return
        link = Link(writer, up_writer)
        self.links.append(link)
        await asyncio.gather(link.pump(reader, up_writer), link.pump(up_reader, writer))
        if link.how is None or link.how == "eaten":
            link.close()

    def cut(self, how):
        """Returns how many connections it hit."""

        async def cut_all():
            links = [link for link in self.links if link.how is None and not link.closed]
            self.links = [link for link in self.links if not link.closed]
            for link in links:
                link.cut(how)
            return len(links)

        return asyncio.run_coroutine_threadsafe(cut_all(), self.loop).result()

    def close(self):
        async def end():
            self.server.close()
            for link in self.links:
                link.close()
            mine = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not mine]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        harness.release_ports(self.port)


class Link:
    """One connection through the wire. `how` says how it was cut, None while it is whole."""

    def __init__(self, *writers):
        self.writers = writers
        self.how = None
        self.closed = False

    async def pump(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while self.how != "stalled":
                data = await reader.read(CHUNK)
                if not data:
                    break
                if self.how is None:
                    writer.write(data)
                    await writer.drain()
        if self.how is None:
            self.close()

    def cut(self, how):
        self.how = how
        if how == "reset":
            for writer in self.writers:
                reset(writer)
            self.closed = True
        elif how == "stalled":
            for writer in self.writers:
                with contextlib.suppress(RuntimeError):
                    writer.transport.pause_reading()

    def close(self):
        self.closed = True
        for writer in self.writers:
            writer.transport.abort()


def reset(writer):
    """Closes so that the other side sees a TCP reset."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
