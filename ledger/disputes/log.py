"""The games of a deployment as its logs tell them: fetched once, and again where the chain was reorganised."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping

from web3 import Web3
from web3.exceptions import BlockNotFound

from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.positions import NO_ROOT, GameView, Outcome, Position
from ledger.errors import ChainError
from ledger.events import fetch_events
from ledger.types import Event

__all__ = ["GameLog"]

_STARTED, _MOVED, _ENDED = "GameStarted", "Moved", "GameEnded"
# Reorganisations deeper than this make the log be read from the deployment on: rare, and merely slow.
_KEPT_MARKS = 256


class GameLog:
    """All games so far. `update` asks for what is new; everything else answers from memory.

    What is kept of each game is its last event and those of the newest blocks. Threads may share one.

    Args:
        open_tasks: the games of the ledger of open tasks, in place of the training ledger's.
    """

    def __init__(
        self, web3: Web3, deployment: Deployment, *, open_tasks: bool = False, artifacts: Mapping[str, Artifact]
    ) -> None:
        self._web3 = web3
        self._deployment = deployment
        self._open_tasks = open_tasks
        self._artifacts = artifacts
        self._events: dict[int, list[Event]] = {}
        # (number, hash) of blocks up to which the log was read, oldest first: they tell whether they still stand.
        self._marks: list[tuple[int, bytes]] = []
        self._positions: dict[int, tuple[Event, Position]] = {}
        self._lock = threading.RLock()

    def update(self) -> None:
        """Reads the log to the newest block.

        Raises:
            ChainUnreachable, ChainError: what `fetch_events` raises.
        """
        with self._lock:
            # The hash is taken before the log: should the chain be reorganised in between, the mark is wrong and the
            # next update reads those blocks again.
            head = self._web3.eth.get_block("latest")
            mark = (head["number"], bytes(head["hash"]))
            if self._marks and self._marks[-1] == mark:
                return
            first = self._rewind() + 1
            found = fetch_events(
                self._web3,
                self._deployment,
                from_block=first,
                to_block=mark[0],
                names={_STARTED, _MOVED, _ENDED},
                open_tasks=self._open_tasks,
                artifacts=self._artifacts,
            )
            # All or nothing: an answer that breaks off must not leave half of what is then asked for again.
            for event in list(found):
                self._events.setdefault(int(str(event.arguments["game"])), []).append(event)
            if mark[0] >= first:
                self._marks.append(mark)
            self._prune()

    def games(self) -> list[int]:
        """Numbers of all games that the log tells a position of, oldest first."""
        with self._lock:
            return sorted(game for game, events in self._events.items() if any(_tells(event) for event in events))

    def view(self, game: int, *, deadline: int) -> GameView | None:
        """A game as its last events leave it; None where the log has none that says a position.

        Args:
            deadline: of the side to move, as the contract has it.

        Raises:
            ChainError: the node's log holds what is no position.
        """
        with self._lock:
            events = list(self._events.get(game, []))
        told = [event for event in events if _tells(event)]
        if not told:
            return None
        last, end = told[-1], events[-1] if events[-1].name == _ENDED else None
        posted = last.arguments.get("posted", b"")
        outcome = Outcome.RUNNING if end is None else _outcome(end)
        winner = None if end is None else str(end.arguments["winner"])
        return GameView(
            position=self._position_in(game, last),
            posted=posted if isinstance(posted, bytes) else b"",
            deadline=deadline,
            outcome=outcome,
            winner=winner if outcome in (Outcome.DEFENDER_WON, Outcome.CHALLENGER_WON) else None,
            late=end is not None and bool(end.arguments["late"]),
            moved_block=last.block_number,
        )

    def _position_in(self, game: int, event: Event) -> Position:
        """The position that a game's last event tells; decoded once, for many games are looked at again and again."""
        with self._lock:
            known = self._positions.get(game)
            if known is None or known[0] is not event:
                known = self._positions[game] = (event, Position.from_abi(event.arguments["position"]))
            return known[1]

    def _rewind(self) -> int:
        """Forgets what the chain no longer has; returns the last block whose log is known."""
        before = len(self._marks)
        while self._marks and self._hash_of(self._marks[-1][0]) != self._marks[-1][1]:
            self._marks.pop()
        known = self._marks[-1][0] if self._marks else self._deployment.block_number - 1
        if len(self._marks) == before:
            return known
        if not self._marks:  # older events were pruned: begin anew
            self._events.clear()
        for game in list(self._events):
            self._events[game] = [event for event in self._events[game] if event.block_number <= known]
            if not self._events[game]:
                del self._events[game]
        return known

    def _hash_of(self, number: int) -> bytes:
        try:
            return bytes(self._web3.eth.get_block(number)["hash"])
        except BlockNotFound:
            return NO_ROOT

    def _prune(self) -> None:
        """Drops marks past counting, and of each game what no rewind to a kept mark can need."""
        if len(self._marks) <= _KEPT_MARKS:
            return
        del self._marks[: len(self._marks) - _KEPT_MARKS]
        oldest = self._marks[0][0]
        for events in self._events.values():
            passed = bisect_right(events, oldest, key=lambda event: event.block_number)
            last_told = max((at for at in range(passed) if _tells(events[at])), default=0)
            del events[:last_told]


def _tells(event: Event) -> bool:
    """Whether an event carries a position."""
    return event.name != _ENDED


def _outcome(end: Event) -> Outcome:
    value = int(str(end.arguments["outcome"]))
    try:
        return Outcome(value)
    except ValueError:
        raise ChainError(
            f"The log that the node gives of game {end.arguments['game']} has an outcome {value}, which there is not.",
            remedy="Name another node with --rpc-url.",
        ) from None
