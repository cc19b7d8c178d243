"""A TCP forwarder from the underlay to the host's network, for an etcd that was given.

A socket belongs to the namespace in which it was made. The process sits in the underlay, where it
listens and where `sim down` finds it; a few threads stay in the host's namespace and make the
outgoing connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from ratchetctl.sim import netns

CONNECT_TIMEOUT_S = 5.0
CHUNK_BYTES = 65536


def serve(underlay: str, listen: tuple[str, int], target: tuple[str, int]) -> None:
    """Forward until a signal ends the process."""
    host = os.open(netns.OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    netns.enter(underlay)
    with ThreadPoolExecutor(
        max_workers=4, initializer=netns.enter, initargs=(f"/proc/self/fd/{host}",)
    ) as connectors:
        asyncio.run(_serve(connectors, listen, target))


async def _serve(
    connectors: ThreadPoolExecutor, listen: tuple[str, int], target: tuple[str, int]
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            outgoing = await loop.run_in_executor(
                connectors, socket.create_connection, target, CONNECT_TIMEOUT_S
            )
            outgoing.setblocking(False)
            far_reader, far_writer = await asyncio.open_connection(sock=outgoing)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(handle, *listen)
    async with server:
        await server.serve_forever()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
        sink.write_eof()
