"""One user's processor as the job of a driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from processors.budget import Limits
from processors.job import PartitionWork
from processors.user.loading import Loaded
from processors.user.partition import UserPartition, Watch
from processors.user.settings import UserLimits


class Suspects(NamedTuple):
    """What is known of readings that kill the processor's process, per partition.

    killers   offset -> why: these are dead letters without a further try
    careful   (first, last): one of these killed it when they were handled together
    """

    killers: Mapping[int, Mapping[int, str]] = {}
    careful: Mapping[int, tuple[int, int]] = {}


class UserJob:
    """`watches` gives each partition's watch; `suspects`: what is known from earlier lives of the process."""

    def __init__(self, loaded: Loaded, limits: UserLimits, watches: Watches, suspects: Suspects) -> None:
        self._loaded = loaded
        self._limits = limits
        self._watches = watches
        self._suspects = suspects
        self._begun: list[UserPartition] = []

    @property
    def names(self) -> list[str]:
        return [self._loaded.rule.name]

    @property
    def topics(self) -> list[str]:
        return [self._loaded.rule.topic]

    @property
    def outputs(self) -> Mapping[str, Mapping[str, str]]:
        return {topic: {"cleanup.policy": "delete"} for topic in self._loaded.topics}

    @property
    def relays(self) -> Mapping[str, str]:
        return {}

    def know(self, partitions: Mapping[str, int]) -> None:
        """What it writes does not depend on that."""

    def owns(self, version: str) -> bool:
        return version.startswith(f"{self._loaded.rule.name}@")

    def begin(self, topic: str, partition: int, limits: Limits) -> PartitionWork:
        found = UserPartition(
            self._loaded,
            partition,
            limits=self._limits,
            watch=self._watches.of(partition),
            killers=self._suspects.killers.get(partition),
            careful=self._suspects.careful.get(partition, (1, 0)),
        )
        self._begun = [one for one in self._begun if one.partition != partition] + [found]
        return found

    def limit(self, parts: Iterable[PartitionWork], limits: Limits) -> None:
        """Its own limits say how much each partition may have."""

    def about(self, parts: Iterable[PartitionWork]) -> dict[str, Any]:
        return {}

    @property
    def problem(self) -> str:
        """Why it stopped; "" while it is well."""
        return next((one.problem for one in self._begun if one.problem), "")


class Watches:
    """Gives each partition the one who looks that its calls come to an end."""

    def of(self, partition: int) -> Watch | None:
        """Nobody, unless a subclass knows better."""
        return None
