"""Requests to InfluxDB through influxdb-client, one after the other, in a thread of their own.

The library blocks while it waits. A daemon thread, not an executor's: a request that hangs must not hold up the end of
the process. It is imported here and nowhere else, when the first client is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from processors.sinks.answers import MESSAGE_MAX, Answer
from processors.sinks.settings import InfluxSettings


class Client(Protocol):
    """Where a driver's requests go."""

    async def write(self, lines: Sequence[str]) -> Answer: ...
    def close(self) -> None: ...


class InfluxClient:
    """Writes lines to one bucket. Raises ModuleNotFoundError when influxdb-client is not installed."""

    def __init__(self, settings: InfluxSettings) -> None:
        self._send, self._end = _requests(settings)
        self._asked: queue.SimpleQueue[tuple[bytes, asyncio.AbstractEventLoop, asyncio.Future[Answer]] | None] = (
            queue.SimpleQueue()  # holds one request at most: the driver waits for each answer
        )
        threading.Thread(target=self._run, name="influx requests", daemon=True).start()

    async def write(self, lines: Sequence[str]) -> Answer:
        """One request; every failure is an answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._asked.put(("\n".join(lines).encode(), loop, future))
        return await future

    def close(self) -> None:
        """End the thread after the request that is under way."""
        self._asked.put(None)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            body, loop, future = asked
            answer = self._send(body)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, future, answer)
        self._end()


def _settle(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _requests(settings: InfluxSettings) -> tuple[Callable[[bytes], Answer], Callable[[], None]]:
    """How to send one request, and how to let go of the connections."""
    import urllib3
    from influxdb_client import InfluxDBClient, WriteApi, WritePrecision
    from influxdb_client.client.write_api import SYNCHRONOUS
    from influxdb_client.rest import ApiException

    client = InfluxDBClient(
        url=settings.url,
        token=settings.token or None,
        org=settings.org,
        enable_gzip=settings.gzip,
        timeout=(settings.connect_timeout_ms, settings.request_timeout_ms),
        ssl_ca_cert=settings.ca_file or None,
        retries=False,  # pauses and order are the driver's
    )
    api: WriteApi = client.write_api(write_options=SYNCHRONOUS)

    def send(body: bytes) -> Answer:
        try:
            api.write(settings.bucket, settings.org, body, write_precision=WritePrecision.MS)
        except ApiException as error:
            headers = error.headers or {}
            return Answer(error.status or 0, str(error.body or error.reason or ""), headers.get("Retry-After", ""))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return Answer(0, f"{type(error).__name__}: {error}"[:MESSAGE_MAX])
        return Answer(204)

    return send, client.close
