"""The least that one Python process needs for `mqtt-ingest`: a server for this load alone, and for nothing else.

It cuts PUBLISH packets, decodes, encodes and stores their readings with Headwater's own batch, and answers PUBACK after
`fdatasync`. It knows no sessions, repeats, natural keys, marks, profiles, limits or errors: what it is quicker by is
the price of those, and what Mosquitto is quicker by than it no single Python process can reach.

    python -m benchmarks.mqtt_floor PORT FILE
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import msgspec

from gateway.ingest.mqtt.packets import encode_pubacks
from gateway.log.records import NO_HEADERS
from gateway.log.rows import Rows


class Fields(msgspec.Struct, gc=False):
    """What profile `wind-turbine` takes from the load's payloads; `ts` is stored among them, for want of a profile."""

    ts: int
    seq: int
    wind_speed: float
    power: float
    rotor_rpm: float


class Floor:
    """What came while a group was being synced is the next group."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._decode = msgspec.json.Decoder(Fields).decode
        self._encode = msgspec.json.Encoder().encode_lines
        self._waiting: list[tuple[Client, bytes, list[bytes]]] = []
        self._syncing = False
        self._thread = ThreadPoolExecutor(1)

    def take(self, client: Client, ids: bytes, payloads: list[bytes]) -> None:
        if not self._waiting and not self._syncing:
            asyncio.get_running_loop().call_soon(self._commit)
        self._waiting.append((client, ids, payloads))

    def _commit(self) -> None:
        group, self._waiting = self._waiting, []
        messages = [self._decode(payload) for _, _, payloads in group for payload in payloads]
        keys = [client.key for client, _, payloads in group for _ in payloads]
        values = self._encode(messages).split(b"\n")[:-1]
        rows = Rows()
        rows.extend([message.ts for message in messages], keys, values, [NO_HEADERS] * len(keys))
        os.write(self._file, rows.encode())
        self._syncing = True
        synced = asyncio.get_running_loop().run_in_executor(self._thread, os.fdatasync, self._file)
        synced.add_done_callback(lambda _: self._acknowledge(group))

    def _acknowledge(self, group: list[tuple[Client, bytes, list[bytes]]]) -> None:
        self._syncing = False
        for client, ids, _ in group:
            client.write(encode_pubacks(ids))
        if self._waiting:
            self._commit()


class Client(asyncio.Protocol):
    """One connection: CONNECT, then PUBLISH with QoS 1 to one topic of at most 16 KiB each."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._rest = b""
        self._is_new = True
        self.key = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast("asyncio.Transport", transport).write

    def data_received(self, data: bytes) -> None:
        data, position = self._rest + data, 0
        if self._is_new and len(data) >= 2:
            self._is_new = False
            position = 2 + data[1]
            self.write(b"\x20\x02\0\0")
        end, ids, payloads = len(data), bytearray(), list[bytes]()
        while position + 5 <= end and data[position] == 0x32:
            body, length = position + 2, data[position + 1]
            if length >= 0x80:
                length, body = length & 0x7F | data[body] << 7, body + 1
            if body + length > end:
                break
            at = body + 2 + (data[body] << 8 | data[body + 1])
            if not self.key:
                self.key = b"floor/" + data[body + 2 : at].split(b"/")[1]
            ids += data[at : at + 2]
            position = body + length
            payloads.append(data[at + 2 : position])
        self._rest = data[position:]
        if ids:
            self._floor.take(self, bytes(ids), payloads)


async def serve(port: int, path: str) -> None:
    floor = Floor(path)
    server = await asyncio.get_running_loop().create_server(lambda: Client(floor), "127.0.0.1", port, backlog=1024)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
