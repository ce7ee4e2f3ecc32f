"""The demonstration's report: computed from what the chain says, refused where it does not add up, and its text."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from worker_fakes import ALICE, BOB, TOKEN

from ledger.errors import TrainledgerError
from ledger.performance import float_bits, pay_for
from ledger.types import Checkpoint, TaskParameters, VaultTotals
from trainer.demo.report import Caught, Report, make_report, print_report

PARAMETERS = TaskParameters(
    specification_hash=b"s" * 32,
    program_root=b"p" * 32,
    dataset_root=b"d" * 32,
    initial_state_root=b"\x00" * 31 + b"\x01",
    state_tensors=5,
    rounds=3,
    steps_per_round=100,
    minimum_steps=100,
    slot_reward=30 * TOKEN,
    bond=5 * TOKEN,
    lease_fee=TOKEN,
    lease_seconds=60,
    challenge_window=60,
    has_target=True,
    base_loss=float_bits(4.0),
    target_loss=float_bits(1.0),
)
LOSSES = (3.5, 2.25, 1.5)
# Worked out by hand from formats §6: half of round 0's part, then 1.75 of 2, then 2.5 of 3.
PAID = (15 * TOKEN, 2625 * TOKEN // 100, 25 * TOKEN)
TOTALS = VaultTotals(held=266 * TOKEN, staked=200 * TOKEN, owed=66 * TOKEN)
BEFORE = {"worker-1": {"address": ALICE, "balance": "100"}, "worker-2": {"address": BOB, "balance": "7"}}


CAUGHT = Caught(
    game=9,
    cheat="0x" + "C4" * 20,
    auditor="0x" + "A7" * 20,
    transactions=7,
    gas=1_208_684,
    lost=5 * TOKEN,
    awarded=25 * TOKEN // 10,
)


class Commands:
    """Answers `generate` as the command would."""

    def __init__(self, folder: Path) -> None:
        self.run = SimpleNamespace(folder=folder)
        self.asked: list[tuple[str, ...]] = []

    def ask(self, *words: str) -> dict[str, str]:
        self.asked.append(words)
        return {"text": "def [red]f[/red]():\n    return [1]\n"}


class Client:
    """A chain after the last round: alice did rounds 0 and 2, bob round 1, and both have withdrawn."""

    def __init__(self, losses: tuple[float, ...] = LOSSES, **changes: Any) -> None:
        self.parameters = dataclasses.replace(PARAMETERS, **changes)
        self.entries = [
            Checkpoint(
                task=4,
                round=number,
                parent=bytes([number]) * 32,
                state_root=bytes([number + 1]) * 32,
                worker=(ALICE, BOB)[number % 2],
                steps=100,
                heldout_loss=float_bits(loss),
            )
            for number, loss in enumerate(losses)
        ]
        self.balances = {ALICE: 100, BOB: 7}
        for entry in self.entries:
            loss = entry.heldout_loss
            self.balances[entry.worker] += pay_for(self.parameters, round_number=entry.round, steps=100, loss_bits=loss)

    def task(self, number: int) -> Any:
        return SimpleNamespace(parameters=self.parameters)

    def lineage(self, number: int) -> list[Checkpoint]:
        return self.entries

    def token_balance(self, address: str) -> int:
        return self.balances[address]

    def totals(self) -> VaultTotals:
        return TOTALS


def report_of(client: Client, commands: Commands, caught: Caught = CAUGHT) -> Report:
    workers: Any = [SimpleNamespace(name="worker-1"), SimpleNamespace(name="worker-2")]
    chain, runner = (client, commands)  # both are the few methods that the report calls
    return make_report(chain, runner, 4, BEFORE, workers, caught)  # type: ignore[arg-type]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "run-1")


def test_make_report_pays_by_the_formula(commands: Commands) -> None:
    report = report_of(Client(), commands)
    assert report.paid == PAID
    assert [(one.name, one.rounds, one.expected, one.received) for one in report.earnings] == [
        ("worker-1", (0, 2), 40 * TOKEN, 40 * TOKEN),
        ("worker-2", (1,), PAID[1], PAID[1]),
    ]
    assert (report.task, report.base_loss, report.totals) == (4, 4.0, TOTALS)
    assert commands.asked == [("generate", "--task", "4", "--prompt", "def ", "--tokens", "240", "--seed", "7")]


def test_report_as_json_has_exact_amounts_and_roots(commands: Commands) -> None:
    document = json.loads(json.dumps(report_of(Client(), commands).as_json(), allow_nan=False))
    assert document == {
        "task": 4,
        "rounds": [
            {
                "round": number,
                "worker": (ALICE, BOB, ALICE)[number],
                "heldout_loss": LOSSES[number],
                "state_root": "0x" + f"0{number + 1}" * 32,
                "paid": str(PAID[number]),
            }
            for number in range(3)
        ],
        "earnings": [
            {"name": "worker-1", "address": ALICE, "rounds": [0, 2], "received": "40000000000000000000"},
            {"name": "worker-2", "address": BOB, "rounds": [1], "received": "26250000000000000000"},
        ],
        "vault": {"held": str(266 * TOKEN), "staked": str(200 * TOKEN), "owed": str(66 * TOKEN)},
        "dispute": {
            "game": 9,
            "cheat": CAUGHT.cheat,
            "auditor": CAUGHT.auditor,
            "transactions": 7,
            "gas": 1_208_684,
            "lost": "5000000000000000000",
            "awarded": "2500000000000000000",
        },
        "sample": "def [red]f[/red]():\n    return [1]\n",
    }


def test_report_as_json_holds_no_number_that_json_lacks(commands: Commands) -> None:
    entry = dataclasses.replace(Client().entries[0], heldout_loss=0x7FC00000)
    report = dataclasses.replace(report_of(Client(), commands), lineage=(entry,), paid=(0,))
    assert json.loads(json.dumps(report.as_json(), allow_nan=False))["rounds"][0]["heldout_loss"] is None


@pytest.mark.parametrize("wei", [-1, 1])
def test_make_report_one_wei_too_many_or_few_is_refused(commands: Commands, wei: int) -> None:
    client = Client()
    client.balances[BOB] += wei
    with pytest.raises(TrainledgerError) as caught:
        report_of(client, commands)
    assert caught.value.problem == (
        f"worker-2 received {PAID[1] + wei} wei for rounds [1], and the formula gives {PAID[1]}."
    )
    assert "report it" in caught.value.remedy
    assert commands.asked == []


@pytest.mark.parametrize("changes", [{"lost": 5 * TOKEN - 1}, {"awarded": 3 * TOKEN}, {"awarded": 0}])
def test_make_report_cheat_that_lost_another_amount_is_refused(commands: Commands, changes: dict[str, int]) -> None:
    with pytest.raises(TrainledgerError, match=f"of a bond of {5 * TOKEN}"):
        report_of(Client(), commands, dataclasses.replace(CAUGHT, **changes))


@pytest.mark.parametrize("losses", [(4.0, 3.0, 2.0), (3.0, 3.0, 2.0), (3.0, 2.0, 2.5), (3.0, float("nan"), 2.0)])
def test_make_report_loss_that_does_not_fall_every_round_is_refused(
    commands: Commands, losses: tuple[float, ...]
) -> None:
    with pytest.raises(TrainledgerError) as caught:
        report_of(Client(losses), commands)
    assert caught.value.problem == f"The held-out loss did not fall in every round: {[4.0, *losses]}."


def test_make_report_without_a_target_starts_at_the_first_round(commands: Commands) -> None:
    report = report_of(Client((9.0, 8.0, 7.0), has_target=False, base_loss=0, target_loss=0), commands)
    assert (report.base_loss, report.paid) == (None, (30 * TOKEN,) * 3)
    assert "(initial state)" not in printed(report, commands)


def printed(report: Report, commands: Commands) -> str:
    output = io.StringIO()
    print_report(Console(file=output, width=400), commands, report)  # type: ignore[arg-type]
    return output.getvalue()


def test_print_report_text_for_people(commands: Commands) -> None:
    lines = [line.rstrip() for line in printed(report_of(Client(), commands), commands).splitlines()]
    cells = [line.split() for line in lines[:6]]
    assert cells[:3] == [
        ["Lineage"],
        ["round", "worker", "held-out", "loss", "paid", "state", "root"],
        ["4.0000", "(initial", "state)"],
    ]
    assert cells[3:] == [
        ["0", "worker-1", "3.5000", "15", "0x0101010101010101…"],
        ["1", "worker-2", "2.2500", "26.25", "0x0202020202020202…"],
        ["2", "worker-1", "1.5000", "25", "0x0303030303030303…"],
    ]
    assert lines[7:11] == [
        "worker-1 trained rounds 0, 2 and received 40 tokens, to the wei what reward x rate x performance gives.",
        "worker-2 trained rounds 1 and received 26.25 tokens, to the wei what reward x rate x performance gives.",
        "worker-3 cheated in one element, and lost its bond of 5 tokens to game 9: 7 transactions, 1,208,684 gas. "
        "2.5 were burned, 2.5 went to the auditor. The lineage is what it would be without the cheat: every state in "
        "it has been replayed.",
        "Conservation: the vault holds 266 = stakes 200 + escrows and credits 66.",
    ]
    # The model's text is shown as it is, never as markup.
    assert lines[12:15] == ["The last checkpoint writes:", "  def [red]f[/red]():", "      return [1]"]
    folder = commands.run.folder
    assert [line.strip() for line in lines[17::2]][:5] == [
        f"trainledger up --home {folder}",
        f"trainledger rewards --home {folder} --account worker-1",
        f"trainledger verify 4 --all --home {folder}",
        f"trainledger dispute show 9 --home {folder}",
        f"trainledger checkpoint export 4 --to my-model --home {folder}",
    ]


def test_print_report_stranger_in_the_lineage_is_shown_by_address(commands: Commands) -> None:
    stranger = "0x" + "57" * 20
    report = report_of(Client(), commands)
    entry = dataclasses.replace(report.lineage[1], worker=stranger)
    text = printed(dataclasses.replace(report, lineage=(report.lineage[0], entry, report.lineage[2])), commands)
    assert stranger in text
