"""The replicator: a sans-IO state machine that carries a node's log to its central exactly once (docs/replication.md).

`start` and `handle` take an event and the time and return one action. `TABLE` says for each state what is asked and
who hears the answer; `gateway.replicate.remedies` says what an error code means. Whatever is in doubt (a lost answer,
an unknown outcome, a fence) is decided in one way: forget the cursor, re-initialise the producer, read the progress
record. The first half of the way, up to that record, is in `gateway.replicate.search`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

from gateway.log.records import Compression
from gateway.replicate import requests
from gateway.replicate.actions import Ack, Action, Bury, Event, Failed, Stop, Wait
from gateway.replicate.gather import Load, Outgoing, Position, Producer, Source, behind
from gateway.replicate.journal import RunJournal
from gateway.replicate.known import LastKnown
from gateway.replicate.link import Emit, Link
from gateway.replicate.pacing import Backoff, Pacer
from gateway.replicate.progress import Progress, UnreadableProgressError
from gateway.replicate.remedies import Remedy, remedy_for
from gateway.replicate.requests import Body
from gateway.replicate.search import Search
from gateway.replicate.settings import UplinkSettings
from gateway.replicate.start import Choice, Found, GoOn, Halt, Local, decide
from gateway.replicate.states import State
from gateway.replicate.transaction import Author, Transaction
from gateway.replicate.trial import Trial
from gateway.wire.errors import ErrorCode, KafkaError
from headwater.errors import HeadwaterError, PeerError

AGAIN_START_MS, AGAIN_MAX_MS, AGAIN_COUNT_MAX = 10.0, 500.0, 60
IDLE_TICK_MS, OPERATOR_RETRY_MS = 1_000.0, 30_000.0


class Step(NamedTuple):
    """What a state asks for, and who hears the answer and names the next state."""

    ask: Callable[[Replicator, float], Action]
    heard: Callable[[Replicator, tuple[Body, ...], float], State]


class Replicator:
    """One node's uplink to one central. `sources` gives the partitions to copy, by `<topic>/<partition>`."""

    def __init__(
        self,
        *,
        node: str,
        version: str,
        log_id: str,
        settings: UplinkSettings,
        journal: RunJournal,
        sources: Callable[[], Mapping[str, Source]],
        random: Random,
        emit: Emit = lambda kind, **detail: None,
        now: float = 0.0,
    ) -> None:
        self.settings = settings
        self.link = Link(node, settings.bootstrap_servers, emit, now)
        self.pacer = Pacer(
            bytes_max=settings.transaction_bytes_max,
            linger_ms=settings.linger_ms,
            rate_bytes_per_s=settings.rate_bytes_per_s,
        )
        self.state = State.SEARCH
        self._node = node
        self._version = version
        self._log_id = log_id
        self._journal = journal
        self._sources = sources
        self._search = Search(node, settings)
        self._backoff = Backoff(random, settings.backoff_max_ms)
        self._producer = Producer(-1, -1, Compression[settings.compression.upper()])
        self._positions: dict[str, Position] = {}
        self._known = LastKnown(journal)
        self._record: Progress | None = None
        self._at: dict[str, tuple[int, str]] = {}
        self._epoch = 0
        self._txn = 0  # the highest that is known to be committed
        self._load: Load | None = None
        self._transaction: Transaction | None = None
        self._trial = Trial()
        self._verdict: Bury | None = None
        self._fence_seen = False
        self._was_up = False
        self._choice: Choice | None = None
        self._again = 0
        self._paused_until, self._after_pause = 0.0, State.SEARCH
        self._attempt_ms = now
        self._wall_ms = 0

    # --- the machine -----------------------------------------------------------------------------------------------

    def start(self, now: float, wall_ms: int) -> Action:
        """The first action."""
        self._wall_ms = wall_ms
        return self._to(State.SEARCH, now)

    def handle(self, event: Event, now: float, wall_ms: int) -> Action:
        """What to do next; never raises for anything that the central says or the disk fails at."""
        self._wall_ms = wall_ms
        try:
            if isinstance(event, Ack):
                following = TABLE[self.state].heard(self, event.bodies, now)
                self._again = 0
                return self._to(following, now)
            if isinstance(event, Failed):
                if event.timed_out and self._transaction is not None:
                    self.pacer.timed_out()
                return self._start_over(event.cause, now)
            return TABLE[self.state].ask(self, now)
        except KafkaError as error:
            return self._error(error, now)
        except UnreadableProgressError as error:
            self.link.stopped(now, "unreadable progress record", error.what, error.hint)
            return self._to(State.STOPPED, now)
        except (HeadwaterError, OSError) as error:
            return self._start_over(error.what if isinstance(error, HeadwaterError) else f"the disk: {error}", now)
        except (KeyError, IndexError, TypeError) as error:
            return self._start_over(f"an answer that makes no sense: {error!r}", now)

    def choose(self, choice: Choice, now: float) -> Action:
        """The operator's choice after `Stop`: send everything again, or accept what the central has."""
        self._choice = choice
        self._was_up = self._fence_seen = False
        if choice == "resend":
            self._known.forget()
        self.link.resumed(now, choice)
        return self._begin_search(now)

    def backlog(self) -> tuple[int, int]:
        """(records, bytes) of the log that are not at the central; bytes are an estimate from the log's mean."""
        return behind(self._sources(), self._known.with_positions(self._positions))

    def settled(self) -> dict[str, int]:
        """Per source the offset below which the central has everything, as far as it was last heard.

        Empty while an operator has to choose: what another central had, or this one lost, may have to be sent again.
        """
        return {} if self.state is State.STOPPED else self._known.with_positions(self._positions)

    def _to(self, state: State, now: float) -> Action:
        self.state = state
        return TABLE[state].ask(self, now)

    def _pause(self, until: float, after: State, now: float) -> Action:
        self._paused_until, self._after_pause = until, after
        return self._to(State.PAUSE, now)

    def _ask_pause(self, now: float) -> Action:
        if now < self._paused_until:
            return Wait(self._paused_until)
        return self._begin_search(now) if self._after_pause is State.SEARCH else self._to(self._after_pause, now)

    # --- what may go wrong -----------------------------------------------------------------------------------------

    def _error(self, error: KafkaError, now: float) -> Action:
        remedy = remedy_for(error.code)
        if remedy is Remedy.SAME_AGAIN and self._again < AGAIN_COUNT_MAX:
            pause = min(AGAIN_START_MS * 1.5**self._again, AGAIN_MAX_MS)
            self._again += 1
            if self.state is State.SEARCH:
                # A transaction of ours is being ended: asked again with the old epoch, Kafka would call us fenced.
                if error.code == ErrorCode.CONCURRENT_TRANSACTIONS:
                    self._producer.id = self._producer.epoch = -1
                self._search.hold(now + pause)
                return self._to(State.SEARCH, now)
            return self._pause(now + pause, self.state, now)
        self._again = 0
        if remedy is Remedy.FENCED:
            return self._fenced(error, now)
        if remedy is Remedy.PLAIN_INIT and self._producer.id >= 0:
            self._producer.id = self._producer.epoch = -1
            return self._start_over(error.what, now)
        if remedy is Remedy.BISECT and self._transaction is not None and self._transaction.refused is not None:
            return self._bisect(self._transaction.refused, error, now)
        if remedy is Remedy.OPERATOR:
            self._give_up_transaction(error.what)
            self.link.down(now, error.what)
            return self._pause(now + OPERATOR_RETRY_MS, State.SEARCH, now)
        return self._start_over(error.what, now, quiet=error.retriable)

    def _start_over(self, cause: str, now: float, *, quiet: bool = False) -> Action:
        self._give_up_transaction(cause)
        self.link.down(now, cause, quiet=quiet)
        self._search.rotate()
        return self._pause(self._backoff.until(now, self._attempt_ms), State.SEARCH, now)

    def _fenced(self, error: KafkaError, now: float) -> Action:
        known = self._producer.id >= 0
        self._give_up_transaction(error.what)
        self._fence_seen = True
        self._producer.id = self._producer.epoch = -1
        return self._from_init(now) if known else self._start_over(error.what, now)

    def _from_init(self, now: float) -> Action:
        self._search.from_init()
        return self._to(State.SEARCH, now)

    def _give_up_transaction(self, cause: str) -> None:
        if self._transaction is not None:
            self.link.abort(cause, self._transaction.load.records, unknown=self.state is State.COMMIT)
        self._known.keep(self._positions)
        self._load = self._transaction = self._record = None
        self._positions = {}

    def _bisect(self, batch: Outgoing, error: KafkaError, now: float) -> Action:
        self._give_up_transaction(error.what)
        self._verdict = self._trial.refuse(batch, error.code)
        return self._from_init(now) if self._verdict is None else self._to(State.BURY, now)

    def _ask_bury(self, now: float) -> Action:
        return self._verdict or self._to(State.IDLE, now)

    def _heard_buried(self, bodies: tuple[Body, ...], now: float) -> State:
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            return State.IDLE
        self._trial.condemn(verdict)
        self.link.bury(verdict.identity, verdict.reason)
        self._search.from_init()
        return State.SEARCH

    # --- up to the progress record ---------------------------------------------------------------------------------

    def _begin_search(self, now: float) -> Action:
        self._attempt_ms = now
        self._search.from_discovery()
        return self._to(State.SEARCH, now)

    def _ask_search(self, now: float) -> Action:
        return self._search.ask(now, self._producer, self._journal.remembered)

    def _heard_search(self, bodies: tuple[Body, ...], now: float) -> State:
        if not self._search.heard(bodies, now, self._producer):
            return State.SEARCH
        found = self._search.found()
        outcome = decide(
            found,
            Local(
                node=self._node,
                runs=self._journal.runs,
                remembered=self._journal.remembered,
                sources=self._sources(),
                was_up=self._was_up or self._fence_seen,
                txn_known=self._txn,
            ),
            self._choice,
        )
        if isinstance(outcome, Halt):
            self.link.stopped(now, outcome.reason, outcome.detail, outcome.hint)
            return State.STOPPED
        self._go_on(found, outcome, now)
        if self._fence_seen:
            self._fence_seen = False
            self.link.fenced_by_timeout()
            self._paused_until, self._after_pause = self._backoff.until(now, now), State.IDLE
            return State.PAUSE
        return State.IDLE

    def _go_on(self, found: Found, outcome: GoOn, now: float) -> None:
        record = found.record
        sources = self._sources()
        if outcome.raise_from:
            self._journal.raise_epoch(outcome.raise_from, outcome.epoch)
            for key in outcome.raise_from:
                while sources[key].leader_epoch < outcome.epoch:
                    sources[key].begin_epoch()
            self.link.note(f"{outcome.note}; records from {outcome.raise_from} on are sent under epoch {outcome.epoch}")
        if self._choice is not None:
            self._choice = None
            self._known.write_next()  # the choice is final with the next commit
        self._positions = {
            key: Position.resume(done, sources[key], record.parts.get(key) if record is not None else None)
            for key, done in outcome.positions.items()
        }
        self._record = record
        self._epoch = outcome.epoch
        self._txn = record.txn if record is not None else 0
        keeps_place = record is not None and record.to.cluster == found.cluster and not found.at_problem
        self._at = dict(record.to.at) if record is not None and keeps_place else {}
        self._was_up = True
        self.link.up(now, self.backlog()[0], outcome.note)

    # --- transactions ----------------------------------------------------------------------------------------------

    def _ask_idle(self, now: float) -> Action:
        sources = self._sources()
        for key, source in sources.items():
            if key not in self._positions:
                self._positions[key] = Position.resume(0, source, None)
        waiting_bytes = self.backlog()[1]
        if not waiting_bytes:
            self.link.caught_up(now)
            return Wait(now + IDLE_TICK_MS)
        ready = self.pacer.ready_at(waiting_bytes)
        if now < ready:
            return Wait(min(ready, now + IDLE_TICK_MS))
        self._load = Load(
            sources,
            self._positions,
            self._producer,
            node=self._node,
            raised=self._journal.raised,
            until=self._trial.until(self._positions),
            condemned=self._trial.condemned,
            bytes_max=self.pacer.size_bytes,
        )
        return self._to(State.GATHER, now)

    def _ask_gather(self, now: float) -> Action:
        load = self._load
        if load is None:
            return self._to(State.IDLE, now)
        if not load.step():
            return Wait(now)
        self._load = None
        if all(load.positions[key].done == position.done for key, position in self._positions.items()):
            return self._pause(now + IDLE_TICK_MS, State.IDLE, now)  # nothing that can be read yet
        self.pacer.opened(now, load.source_bytes)
        author = Author(self._node, self._version, self._log_id, self._journal.newest(), self._epoch)
        self._transaction = Transaction(
            load,
            self._search,
            self._producer,
            self._sources(),
            author,
            self._record,
            txn=self._txn + 1,
            at=self._at,
            timeout_ms=self.settings.request_timeout_ms,
        )
        return self._to(State.ADD, now)

    def _ask_add(self, now: float) -> Action:
        return self._open.add()

    def _heard_add(self, bodies: tuple[Body, ...], now: float) -> State:
        requests.read_add_partitions(bodies[0])
        return State.PRODUCE if self._open.load.batches else State.PROGRESS

    def _ask_produce(self, now: float) -> Action:
        return self._open.produce()

    def _heard_produce(self, bodies: tuple[Body, ...], now: float) -> State:
        return State.PROGRESS if self._open.heard_produce(bodies) else State.PRODUCE

    def _ask_progress(self, now: float) -> Action:
        return self._open.progress(self._wall_ms)

    def _heard_progress(self, bodies: tuple[Body, ...], now: float) -> State:
        self._open.heard_progress(bodies)
        return State.COMMIT

    def _ask_commit(self, now: float) -> Action:
        return self._open.commit()

    def _heard_commit(self, bodies: tuple[Body, ...], now: float) -> State:
        requests.read_end(bodies[0])
        done, self._transaction = self._open, None
        self._record, self._txn, self._at = done.record, done.txn, done.at
        self._positions = done.load.positions
        # Where the record stands is a hint only now: an aborted one must not hide the one before it.
        self._search.committed(done.offset, done.record)
        self.pacer.committed(now, done.load.source_bytes)
        self.link.committed(now, done.load.records, done.load.gone)
        self._backoff.reset()
        self._trial.settle(self._positions)
        settled = self._known.with_positions(self._positions)
        self._known.committed(self._search.remembered(self._txn, settled), now)
        return State.IDLE

    @property
    def _open(self) -> Transaction:
        if self._transaction is None:
            raise RuntimeError(f"no transaction while {self.state.value}")
        return self._transaction


def _never(replicator: Replicator, bodies: tuple[Body, ...], now: float) -> State:
    raise PeerError(f"an answer while {replicator.state.value}")


TABLE: dict[State, Step] = {
    State.SEARCH: Step(Replicator._ask_search, Replicator._heard_search),
    State.IDLE: Step(Replicator._ask_idle, _never),
    State.GATHER: Step(Replicator._ask_gather, _never),
    State.ADD: Step(Replicator._ask_add, Replicator._heard_add),
    State.PRODUCE: Step(Replicator._ask_produce, Replicator._heard_produce),
    State.PROGRESS: Step(Replicator._ask_progress, Replicator._heard_progress),
    State.COMMIT: Step(Replicator._ask_commit, Replicator._heard_commit),
    State.BURY: Step(Replicator._ask_bury, Replicator._heard_buried),
    State.PAUSE: Step(Replicator._ask_pause, _never),
    State.STOPPED: Step(lambda replicator, now: Stop(replicator.link.error), _never),
}
