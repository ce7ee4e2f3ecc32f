"""Everything that trainledger does with the dispute game. The one place that names its ABI methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from web3 import Web3

from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.log import GameLog
from ledger.disputes.moves import Move, Opening, Release, SettleLate
from ledger.disputes.positions import GameView, Outcome
from ledger.errors import ChainError, ContractReverted, TransactionFailed
from ledger.tx import Receipt, TransactionSender

__all__ = ["DisputeClient", "GameState"]

# A node may answer from blocks, and another behind the same URL from logs, that are a moment apart.
_LOOKS = 6
_LOOK_SECONDS = 0.2
_PENDING_SECONDS = 30.0
# Answers to a move that somebody has made before, or that came too late for its position.
_MOVED_ON = frozenset({"WrongPosition", "GameOver"})


class GameState(NamedTuple):
    """What the contract keeps of a game: hash of the position, deadline of the side to move, outcome."""

    digest: bytes
    deadline: int
    outcome: Outcome


class DisputeClient(LedgerClient):
    """Reads and plays games, on top of all that `LedgerClient` does.

    Games are rebuilt from the log and compared with the contract, so a node that keeps events back, or a chain that
    was reorganised, is noticed before anybody moves.

    Args:
        open_tasks: the games about scores of open tasks. Then `slot` is the slot as games see it, and of the ledger's
            other calls only `task_count`, `base_root`, `finalise`, `close_task` and `award_fall` mean anything:
            `OpenClient` does the rest.
    """

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        sender: TransactionSender | None = None,
        *,
        artifacts: Mapping[str, Artifact] | None = None,
        open_tasks: bool = False,
    ) -> None:
        super().__init__(web3, deployment, sender, artifacts=artifacts, open_tasks=open_tasks)
        self._log = GameLog(web3, deployment, open_tasks=open_tasks, artifacts=self.artifacts)
        self._look_seconds = _LOOK_SECONDS

    # --- reads ---

    def game_count(self) -> int:
        """Games ever opened; they are numbered from 1."""
        return int(self._read(self._game.functions.gameCount()))

    def game_state(self, game: int) -> GameState:
        """What the contract keeps of a game.

        Raises:
            ContractReverted: `NoSuchGame`.
        """
        try:
            digest, deadline, outcome = self._read(self._game.functions.getGame(game))
        except ContractReverted as problem:
            if problem.error == "NoSuchGame":
                raise self._no_such_game(game, problem) from None
            raise
        return GameState(bytes(digest), int(deadline), Outcome(outcome))

    def minimum_clock(self) -> int:
        """Least seconds that each side of any game has in all."""
        return int(self._read(self._game.functions.minimumClock()))

    def minimum_move(self) -> int:
        """Seconds that each move of any game has at least."""
        return int(self._read(self._game.functions.minimumMove()))

    def earliest_challenger(self, task: int, round_number: int, attempt: int, root: bytes, slot: int = 0) -> str:
        """Who first committed to `root` for this attempt of a slot and has not lost; the zero address if nobody."""
        return str(self._read(self._game.functions.earliest(task, round_number, slot, attempt, root), task=task))

    def games(self, *, task: int | None = None, party: str | None = None, only_running: bool = False) -> list[GameView]:
        """Games, oldest first: of one task, or with this defender or challenger, or still running.

        Raises:
            ChainError: the node's log lacks games, or contradicts what the contract keeps.
        """
        who = None if party is None else Web3.to_checksum_address(party)
        found = []
        for number in self._all_games():
            view = self._log.view(number, deadline=0)
            assert view is not None  # `_all_games` has seen to it
            matter = view.position.matter
            if task is not None and matter.task != task:
                continue
            if who is not None and who not in (matter.defender, matter.challenger):
                continue
            if only_running and not view.running:
                continue
            checked = self._consistent(number) or self.view(number)
            if checked.running or not only_running:
                found.append(checked)
        return found

    def view(self, game: int) -> GameView:
        """One game as it stands now.

        Raises:
            ContractReverted: `NoSuchGame`.
            ChainError: the node's log lacks the game, or contradicts what the contract keeps.
        """
        for look in range(_LOOKS):
            if look:
                time.sleep(self._look_seconds)
            self._log.update()
            view = self._consistent(game)
            if view is not None:
                return view
        raise ChainError(
            f"The log that the node gives of game {game} does not lead to what the contract keeps of it.",
            remedy="Name a node that keeps all logs with --rpc-url.",
        )

    def _consistent(self, game: int) -> GameView | None:
        """The game by the log as read so far; None where the contract says something else."""
        state = self.game_state(game)
        view = self._log.view(game, deadline=state.deadline)
        if view is None or view.outcome is not state.outcome:
            return None
        return view if not view.running or view.position.digest() == state.digest else None

    def _all_games(self) -> list[int]:
        for look in range(_LOOKS):
            if look:
                time.sleep(self._look_seconds)
            count = self.game_count()
            self._log.update()
            games = self._log.games()
            if len(games) >= count:
                return games
        raise ChainError(
            f"There are {count} games, and the node's log has {len(games)} of them.",
            remedy="Name a node that keeps all logs with --rpc-url.",
        )

    # --- moves ---

    def open(self, opening: Opening, points: Sequence[bytes]) -> int:
        """Challenges a submission with the challenger's state roots at the points of all runs; returns the game.

        Safe to repeat: a game that this challenger has about the same roots, and has not lost, is that game.

        Raises:
            ContractReverted: among others `WindowOver`, `WrongState`, `InsufficientFreeStake`, `NotAuthorised`.
        """
        self._await_pending()
        known = self._find(opening, points[-1])
        if known is not None:
            return known
        receipt = self._write(self._game.functions.open(opening.to_abi(), list(points)), task=opening.task)
        for event in self._events(receipt, "GameStarted"):
            return int(str(event.arguments["game"]))
        raise ChainError(f"Transaction {receipt.transaction} started no game.", remedy="Check the deployment record.")

    def play(self, view: GameView, move: Move) -> Receipt | None:
        """Makes a move in the position that `view` shows. None where the game has gone on from there already.

        The contract takes a move for exactly one position, so repeating one does nothing twice.

        Raises:
            ContractReverted: the move is refused (among others `NotYourMove`, `TooLate`, `NotLate`), the game was
                lost by the clock, or the chain was reorganised to before this position.
        """
        call = self._game.functions[move.function](*move.arguments(view.position.to_abi()))
        try:
            return self._write(call)
        except (ContractReverted, TransactionFailed) as problem:
            cause = problem if isinstance(problem, ContractReverted) else problem.__cause__
            if not isinstance(cause, ContractReverted) or cause.error not in _MOVED_ON:
                raise
            if self._went_on(view, move):
                return None
            raise

    def settle_late(self, game: int) -> Receipt | None:
        """Ends a game whose side to move is late; that side loses. None where the game is over already.

        Raises:
            ContractReverted: among others `NotLate`, `NoSuchGame`.
        """
        view = self.view(game)
        return self.play(view, SettleLate()) if view.running else None

    def release(self, game: int) -> Receipt | None:
        """Ends a game whose submission fell in another one. None where the game is over already.

        Raises:
            ContractReverted: among others `SubmissionStands`, `NoSuchGame`.
        """
        view = self.view(game)
        return self.play(view, Release()) if view.running else None

    def _went_on(self, view: GameView, move: Move) -> bool:
        """Whether the game has left a position by a move, and not by the clock or by a reorganisation."""
        now = self.view(view.number)
        if not now.running:
            return isinstance(move, SettleLate) or not now.late
        return now.position.moves > view.position.moves

    def _find(self, opening: Opening, claimed: bytes) -> int | None:
        """The newest game of this opening that its challenger has not lost."""
        for number in reversed(self._all_games()):
            view = self._log.view(number, deadline=0)
            if view is None or view.outcome is Outcome.DEFENDER_WON:
                continue
            matter = view.position.matter
            about = Opening(matter.challenger, matter.task, matter.round, matter.slot, matter.attempt, matter.submitted)
            if about == opening and matter.claimed == claimed:
                return number
        return None

    def _await_pending(self) -> None:
        """Waits for transactions that an earlier process of this account has left: one may be this very opening."""
        address = Web3.to_checksum_address(self.address)
        end = time.monotonic() + _PENDING_SECONDS
        while time.monotonic() < end:
            mined = self.web3.eth.get_transaction_count(address, "latest")
            if self.web3.eth.get_transaction_count(address, "pending") <= mined:
                return
            time.sleep(self._look_seconds)

    def _no_such_game(self, game: int, reverted: ContractReverted) -> ContractReverted:
        count = self.game_count()
        there = {0: "there is none yet", 1: "there is only game 1"}.get(count, f"there are games 1 to {count}")
        reverted.problem = f"Game {game} does not exist; {there}."
        return reverted
