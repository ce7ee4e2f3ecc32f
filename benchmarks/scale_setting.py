"""What the simulated protocol is given and what it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gas:
    """Gas of whole transactions. `collect` is what it takes beside `collect_slot` for each slot."""

    claim: int
    submit: int
    finalise: int
    collect: int
    collect_slot: int
    lapsed: int

    def of_round(self, slots: int) -> int:
        """Of a round without faults: its slots and its merge are claimed, submitted and finalised."""
        each = self.claim + self.submit + self.finalise
        return (slots + 1) * each + self.collect + self.collect_slot * slots


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is simulated. Times are in seconds, bandwidth in bytes a second.

    Attributes:
        workers: in groups of `slots`, each of which works on `tasks` tasks of as many slots a round.
        spread: the standard deviation of the logarithm of a worker's seconds a step; the median is `step_seconds`.
        failures_per_hour: of a worker that trains; it is back after `repair_seconds`, with its snapshot.
        quorum: share of the slots that is enough once `deadline_seconds` have passed since a round's first claim.
        window_seconds: from a submission until it may be finalised.
        difference_bytes, state_bytes: of a slot's difference file, and of a whole state.
        merge_seconds: of a merge of all slots, evaluation and hashing included.
        latency: of one request's way there and back. requests: one after the other, to see the chain before a claim.
        poll_seconds: between two looks at the chain.
        horizon: seconds simulated; figures are of those after the first `warm` share.
        rounds: of each task, None for as many as there is time for.
        staggered: tasks begin at times of their own, not all at once.
        last_merges: whoever submits a round's last slot collects and merges before it takes any other slot.
    """

    workers: int
    slots: int
    tasks: int
    steps: int
    step_seconds: float
    tokens_per_step: int
    spread: float
    failures_per_hour: float
    repair_seconds: float
    lease_seconds: float
    deadline_seconds: float
    quorum: float
    window_seconds: float
    difference_bytes: float
    state_bytes: float
    merge_seconds: float
    latency: float
    requests: int
    bandwidth: float
    poll_seconds: float
    block_seconds: float
    block_gas: int
    gas: Gas
    horizon: float
    warm: float = 0.25
    rounds: int | None = None
    last_merges: bool = True
    staggered: bool = True
    seed: int = 1


@dataclass(kw_only=True)
class Counts:
    """What happened. Tokens are those of whole segments; `lost` are of segments that nobody was paid for.

    `wasted_seconds` are those of `busy_seconds` that trained what nobody was paid for, segments begun among them.
    """

    trained: int = 0
    paid: int = 0
    lost: int = 0
    rounds: int = 0
    claims: int = 0
    lapsed: int = 0
    gas: int = 0
    busy_seconds: float = 0.0
    wasted_seconds: float = 0.0
    sent: float = 0.0
    received: float = 0.0
    longest_queue: int = 0
    waited_seconds: float = 0.0
    transactions: int = 0

    def since(self, earlier: Counts) -> Counts:
        """What was added after an earlier count."""
        return Counts(**{name: value - getattr(earlier, name) for name, value in vars(self).items()})
