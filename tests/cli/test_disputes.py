"""`dispute list|show|settle|release` on a real node: what they say, as JSON and in words, and their refusals."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import CommandLine
from games import STEPS, GameWorld, Submission, narrow, open_game
from life import LEASE
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.canonical import root_hex
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.positions import GameView
from ledger.keys import Wallet

pytestmark = pytest.mark.chain

KEYS = [
    "game",
    "open_task",
    "task",
    "round",
    "slot",
    "merge",
    "about",
    "attempt",
    "state",
    "ended",
    "winner",
    "defender",
    "challenger",
    "at_stake",
    "phase",
    "place",
    "run",
    "operation",
    "tensor",
    "chunk",
    "element",
    "moves",
    "to_move",
    "mover",
    "deadline",
    "seconds_left",
    "late",
    "fell_elsewhere",
    "submitted",
    "claimed",
    "symbol",
]


@pytest.fixture(scope="module")
def played(
    chain: LocalChain, web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], deployer: Wallet
) -> tuple[GameWorld, Submission]:
    world = GameWorld(web3, deployment, artifacts, chain, "commands")
    return world, world.people(deployer)


@pytest.fixture
def world(played: tuple[GameWorld, Submission], rolled_back: None) -> GameWorld:
    return played[0]


@pytest.fixture
def game(played: tuple[GameWorld, Submission], world: GameWorld) -> GameView:
    """A game in which the defender has moved once."""
    view = open_game(world.client("challenger"), played[1])
    world.client("defender").play(view, narrow(view, 2, "defender"))
    return world.client("challenger").view(view.number)


@pytest.fixture
def commands(online: CommandLine, world: GameWorld) -> CommandLine:
    """With the key of a stranger, who may do what anybody may."""
    online.add(world.wallet("stranger"), "sam")
    return online


def words(commands: CommandLine, *arguments: str) -> str:
    done = commands.run(*arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_show_explains_a_running_game(commands: CommandLine, game: GameView, played: Any) -> None:
    document = commands.json("dispute", "show", str(game.number))
    assert list(document) == [*KEYS, "explanation"]
    matter = game.position.matter
    low, high = game.position.low, game.position.high
    place = f"which of the runs {low} to {high - 1} (of {STEPS + 1}) differs first"
    seconds = document.pop("seconds_left")
    assert 2 * LEASE - 60 < seconds <= 2 * LEASE
    assert {name: value for name, value in document.items() if value is not None} == {
        "game": game.number,
        "open_task": False,
        "task": matter.task,
        "round": 0,
        "slot": 0,
        "merge": False,
        "about": "round 0",
        "attempt": 0,
        "state": "running",
        "defender": matter.defender,
        "challenger": matter.challenger,
        "at_stake": {"wei": str(10**17), "tokens": "0.1"},
        "phase": "runs",
        "place": place,
        "moves": 2,
        "to_move": "challenger",
        "mover": matter.challenger,
        "deadline": game.deadline,
        "late": False,
        "fell_elsewhere": False,
        "submitted": root_hex(played[1].root),
        "claimed": root_hex(matter.claimed),
        "symbol": "TRAIN",
    }
    said = words(commands, "dispute", "show", str(game.number))
    assert said.startswith(f"Game {game.number} is about the submission of round 0 of task {matter.task} (attempt 0).")
    assert place in said
    assert "0.1 TRAIN of each side" in said
    assert "The challenger is to move, within 1" in said


def test_list_shows_games_by_task_party_and_state(commands: CommandLine, game: GameView, world: GameWorld) -> None:
    number, task = game.number, game.position.matter.task
    found = commands.json("dispute", "list", "--task", str(task))
    assert [item["game"] for item in found] == [number]
    assert list(found[0]) == KEYS
    assert commands.json("dispute", "list", "--task", str(task + 1)) == []
    assert commands.json("dispute", "list", "--party", "sam") == []
    of_defender = commands.json("dispute", "list", "--running", "--party", game.position.matter.defender)
    assert [item["game"] for item in of_defender] == [number]
    table = words(commands, "dispute", "list", "--running")
    assert "which of the runs" in table
    assert "challenger" in table
    done = commands.run("dispute", "list", "--party", "sam")
    assert (done.stdout, done.stderr) == ("", "No disputes.\n")


def test_settle_ends_a_late_game_for_anybody_once(commands: CommandLine, game: GameView, world: GameWorld) -> None:
    number = str(game.number)
    refused = commands.fail(3, "dispute", "settle", number, "--account", "sam")
    assert refused.startswith("DisputeGame.settleLate refused: NotLate(")
    world.chain.advance(2 * LEASE + 1)
    assert f"The challenger is late and loses; `trainledger dispute settle {number}`" in words(
        commands, "dispute", "show", number
    )
    settled = {"game": game.number, "already_over": False, "state": "defender_won"}
    first = commands.json("dispute", "settle", number, "--account", "sam")
    assert first == settled | {"winner": game.position.matter.defender}
    again = commands.json("dispute", "settle", number, "--account", "sam")
    assert again == first | {"already_over": True}
    assert words(commands, "dispute", "settle", number, "--account", "sam") == (
        f"Game {number} was over already: the defender won: the challenger did not move in time.\n"
    )
    shown = commands.json("dispute", "show", number)
    assert (shown["state"], shown["late"], shown["mover"], shown["deadline"]) == ("defender_won", False, None, None)
    assert f"It is over: the defender won: the challenger did not move in time, {game.position.matter.defender}." in (
        words(commands, "dispute", "show", number)
    )
    assert commands.json("dispute", "list", "--running", "--party", game.position.matter.defender) == []


def test_release_frees_a_game_whose_submission_fell(
    commands: CommandLine, game: GameView, world: GameWorld, played: tuple[GameWorld, Submission]
) -> None:
    other = open_game(world.client("other"), played[1], "other")
    number = str(game.number)
    refused = commands.fail(3, "dispute", "release", number, "--account", "sam")
    assert refused == f"DisputeGame.release refused: SubmissionStands(game={number})."
    world.chain.advance(2 * LEASE + 1)
    commands.json("dispute", "settle", str(other.number), "--account", "sam")
    assert commands.json("dispute", "show", number)["fell_elsewhere"] is True
    assert f"`trainledger dispute release {number}` frees" in words(commands, "dispute", "show", number)
    released = commands.json("dispute", "release", number, "--account", "sam")
    assert released == {"game": game.number, "already_over": False, "state": "void", "winner": None}
    assert words(commands, "dispute", "release", number, "--account", "sam") == (
        f"Game {number} was over already: void: the submission fell in another game.\n"
    )


def test_game_that_is_not_there_is_named(commands: CommandLine, game: GameView) -> None:
    there = f"Game {game.number + 1} does not exist; there "
    for command in (("show",), ("settle", "--account", "sam"), ("release", "--account", "sam")):
        assert commands.fail(3, "dispute", command[0], str(game.number + 1), *command[1:]).startswith(there)
    assert "Invalid value for 'GAME'" in commands.run("dispute", "show", "0").stderr
