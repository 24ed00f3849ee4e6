"""A member's records: fetched past librdkafka by the node's own reader, and given to its loop as columns.

librdkafka makes an object of every record, which costs more than all the windows. What is read here was never in its
hands: it holds the membership, and is told to read nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from gateway.consume.batches import Block
from gateway.consume.cluster import ClusterReader
from gateway.wire.sign_in import ClientSecurity
from headwater.net import RealNet, parse_address
from processors.batches import decode_batches
from processors.group.core import Source
from processors.group.settings import GroupSettings

ENOUGH_BYTES = 128 << 10
"""So much is worked on at once; less is waited for, up to `wait_s`."""
_PORT = 9092


class Fetcher:
    """Reads partitions in an event loop that runs only while `poll` waits; between two polls the sockets wait."""

    def __init__(self, settings: GroupSettings) -> None:
        """Raises `UserError` for addresses that are none."""
        self._prefix = settings.topic_prefix
        self._records_max = settings.fetch_records_max
        bootstrap = [
            parse_address(address.strip(), default_port=_PORT) for address in settings.bootstrap_servers.split(",")
        ]
        security = ClientSecurity(settings, "the file")
        self._loop = asyncio.new_event_loop()
        self._reader = ClusterReader(
            bootstrap,
            net=RealNet(),
            client_id=settings.client_id,
            security=security,
            bytes_max=settings.queue_bytes_max,
            decode=decode_batches,
        )

    @property
    def trouble(self) -> str:
        """What keeps a partition from being read just now, "" when nothing does."""
        return self._reader.trouble

    def assign(self, positions: Mapping[Source, int]) -> None:
        """Read these too, from there on."""
        self._reader.assign({self._named(source): position for source, position in positions.items()})

    def drop(self, gone: Iterable[Source]) -> None:
        """Nothing of these is given any more, also of what has come already."""
        self._reader.drop([self._named(source) for source in gone])

    def poll(self, wait_s: float) -> list[Block]:
        """What comes within `wait_s`, about `fetch_records_max` records at most: a block per partition.

        Raises what `ClusterReader.poll` and `take` do.
        """
        self._loop.run_until_complete(self._reader.poll(wait_s, enough_bytes=ENOUGH_BYTES))
        blocks = self._reader.take(self._records_max)
        if not self._prefix:
            return blocks
        return [block._replace(topic=block.topic[len(self._prefix) :]) for block in blocks]

    def lags(self, positions: Mapping[str, int]) -> dict[str, int]:
        """Records not read yet by `<topic>/<partition>`; partitions whose end no answer has told yet are left out.

        Offsets of transaction markers count, so that a partition that is read to its end may be behind by one or two.
        """
        found = {}
        for name, position in positions.items():
            topic, _, partition = name.rpartition("/")
            end = self._reader.ends.get(self._named((topic, int(partition))), -1)
            if end >= 0:
                found[name] = max(0, end - position)
        return found

    def close(self) -> None:
        """A second call does nothing."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._reader.close())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _named(self, source: Source) -> Source:
        return f"{self._prefix}{source[0]}", source[1]
