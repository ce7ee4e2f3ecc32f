"""`auditor enrol|resign|status|fund|budget|refund` on a real node: what they say, do, and refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from command_line import CommandLine
from life import ETHER, ClientFor, parameters

from ledger.keys import Wallet

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("rolled_back")]

Account = Callable[..., Wallet]


@pytest.fixture
def carol(online: CommandLine, account: Account) -> Wallet:
    """With 20 tokens at stake."""
    made = account("carol", tokens=100 * ETHER)
    online.json("account", "stake", "20", "--account", "carol")
    return made


def test_seats_are_taken_shown_and_given_up(online: CommandLine, carol: Wallet) -> None:
    before = online.json("auditor", "status", "carol")
    assert (before["account"], before["seats"], before["busy_until"]) == (carol.address, 0, 0)
    taken = online.json("auditor", "enrol", "3", "--account", "carol")
    assert (taken["seats"], taken["seats_of_all"]) == (3, before["seats_of_all"] + 3)
    assert (taken["seat_stake"]["tokens"], taken["free"]["tokens"]) == ("1", "17")
    said = online.run("auditor", "status", "carol").stdout
    assert f"{carol.address} has 3 of {taken['seats_of_all']} seats." in " ".join(said.split())
    assert online.json("auditor", "resign", "2", "--account", "carol")["seats"] == 1
    assert "has 1 seats, fewer than 2" in online.fail(2, "auditor", "resign", "2", "--account", "carol")
    assert online.json("auditor", "status", "carol")["free"]["tokens"] == "19"


def test_enrol_many_seats_goes_in_several_calls(online: CommandLine, carol: Wallet) -> None:
    online.json("account", "stake", "30", "--account", "carol")
    assert online.json("auditor", "enrol", "40", "--account", "carol")["seats"] == 40


def test_enrol_without_stake_says_what_to_do(online: CommandLine, carol: Wallet) -> None:
    problem = online.fail(3, "auditor", "enrol", "21", "--account", "carol")
    assert "InsufficientFreeStake" in problem
    assert "free=20 tokens, needed=21 tokens" in problem
    online.fail(2, "auditor", "enrol", "0", "--account", "carol")


def test_budget_is_funded_shown_and_refunded(
    online: CommandLine, account: Account, carol: Wallet, client_for: ClientFor
) -> None:
    requester = client_for(account("requester", tokens=1000 * ETHER))
    task = str(requester.post_task(parameters(), "file:///store"))
    assert "Nobody has opened an audit budget" in " ".join(online.run("auditor", "budget", task).stdout.split())
    refused = online.fail(3, "auditor", "fund", task, "9", "--fee", "0.5", "--account", "carol")
    assert "OnlyRequesterOpensBudget" in refused
    opened = online.json("auditor", "fund", task, "9", "--fee", "0.5", "--account", "requester")
    assert (opened["fee"]["tokens"], opened["held"]["tokens"], opened["audits_left"]) == ("0.5", "9", 2)
    assert online.json("auditor", "fund", task, "1", "--fee", "0.5", "--account", "carol")["held"]["tokens"] == "10"
    wrong = online.fail(3, "auditor", "fund", task, "1", "--fee", "0.6", "--account", "carol")
    assert "given=0.6 tokens, expected=0.5 tokens" in wrong
    assert "TaskStillRuns" in online.fail(3, "auditor", "refund", task, "--account", "carol")
    requester.close_task(int(task))
    assert online.json("auditor", "refund", task, "--account", "carol")["refunded"]["tokens"] == "10"
    assert online.json("auditor", "budget", task)["held"]["tokens"] == "0"


@pytest.mark.parametrize(("amount", "fee"), [("0", "1"), ("1", "0"), ("x", "1"), ("1", "99999999999999")])
def test_fund_bad_amounts_are_refused(online: CommandLine, carol: Wallet, amount: str, fee: str) -> None:
    online.fail(2, "auditor", "fund", "1", amount, "--fee", fee, "--account", "carol")


def test_unknown_task_is_named(online: CommandLine) -> None:
    assert "Task 999999 does not exist" in online.fail(3, "auditor", "budget", "999999")
