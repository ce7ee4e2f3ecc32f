"""The rules of the game: what is refused, with which error and values, what a verdict says, and the clocks."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from arena import CLOCK, MINIMUM_MOVE, Solver, matter_of, view_of
from liars import plants
from worlds import LONG, LONGEST, World, world

from ledger.disputes.moves import (
    Descend,
    EnterRun,
    EnterState,
    EnterTensor,
    Move,
    Narrow,
    NarrowFold,
    OpenChunk,
    OpenFold,
    Pick,
    ProveElement,
    ProvePadding,
    ProvePaddingBytes,
    ProveRounding,
    ProveStateLeaf,
    SettleLate,
)
from ledger.disputes.positions import NO_ROOT, Outcome, Phase
from trainer.dispute import judge, rules
from trainer.dispute.rules import Played, Refused
from trainer.dispute.solver import opening_points
from trainer.dispute.sources import EvidenceRefused
from trainer.dispute.subjects import Subject

NOW = 50_000


def replayed(at: World, lie: str, *, run: int = 1, honest: str = "challenger") -> list[tuple[Played, Move]]:
    """A game by the solver on both sides: each position with the move that was made in it."""
    liar = at.liar(run, next(one for one in plants(at.plain.run(run), random.Random(8)) if one.name == lie))
    work, doubt = (liar, at.party) if honest == "challenger" else (at.party, liar)
    submitted = work.state_root(at.plain.steps + 1)
    points = opening_points(doubt, steps=at.plain.steps, submitted=submitted)
    assert isinstance(points, tuple)
    played = rules.opened(matter_of(at.plain, submitted=submitted, claimed=points[-1]), points, now=NOW)
    steps: list[tuple[Played, Move]] = []
    while played.outcome is Outcome.RUNNING:
        player = Solver(work if played.position.defender_to_move else doubt)
        move = player.move(view_of(played))
        steps.append((played, move))
        played = make(played, move)
    return steps


def make(played: Played, move: Move, *, now: int = NOW + 1) -> Played:
    return rules.play(played.position, move, now=now, minimum_move=MINIMUM_MOVE, referee=judge)


def before(kind: type, at: World, lie: str, **more: Any) -> tuple[Played, Any]:
    """The position in which the first move of a kind was made, and that move."""
    return next((played, move) for played, move in replayed(at, lie, **more) if isinstance(move, kind))


def refusal(played: Played, move: Move, **more: Any) -> tuple[str, tuple[object, ...]]:
    with pytest.raises(Refused) as caught:
        make(played, move, **more)
    return caught.value.error, caught.value.values


def replaced(move: Any, **changes: Any) -> Any:
    return dataclasses.replace(move, **changes)


FLIPPED: Callable[[bytes], bytes] = lambda word: bytes([word[0] ^ 1]) + word[1:]  # noqa: E731  # reads as a value
LONG_LIE, LATE_LIE = "matmul 10 element 0 alone", "sum 12 root"


def test_opened_wrong_points_refused() -> None:
    at = world(LONG)
    matter = matter_of(at.plain, submitted=b"s" * 32, claimed=b"c" * 32)
    with pytest.raises(Refused, match=r"WrongCount\(3, 4\)"):
        rules.opened(matter, [b"p" * 32] * 3, now=NOW)
    with pytest.raises(Refused, match="NothingDisputed"):
        rules.opened(matter, [b"p" * 32] * 3 + [b"s" * 32], now=NOW)


def test_play_deadline_second_still_counts_and_the_next_does_not() -> None:
    played, move = replayed(world(LONG), LONG_LIE)[0]
    deadline = NOW + CLOCK
    assert make(played, move, now=deadline).position.waiter_seconds == 0
    assert refusal(played, move, now=deadline + 1) == ("TooLate", (deadline, deadline + 1))
    with pytest.raises(Refused, match=rf"NotLate\({deadline}, {deadline}\)"):
        rules.settle_late(played.position, now=deadline, minimum_move=MINIMUM_MOVE)
    late = rules.settle_late(played.position, now=deadline + 1, minimum_move=MINIMUM_MOVE)
    assert (late.outcome, late.late) == (Outcome.CHALLENGER_WON, True)


def test_play_turns_clocks_and_counts_change_hands() -> None:
    (played, move), (second, reply), *_ = replayed(world(LONG), LONG_LIE)
    after = make(played, move, now=NOW + 30).position
    assert (after.moves, after.defender_to_move, after.since) == (2, False, NOW + 30)
    assert (after.mover_seconds, after.waiter_seconds) == (CLOCK, CLOCK - 30)
    assert second.position.moves == 2
    third = make(dataclasses.replace(second, position=after), reply, now=NOW + 70).position
    assert (third.mover_seconds, third.waiter_seconds, third.moves) == (CLOCK - 30, CLOCK - 40, 3)


def test_play_every_move_has_the_minimum_time_however_little_is_left() -> None:
    played, move = replayed(world(LONG), LONG_LIE)[0]
    short = dataclasses.replace(played, position=dataclasses.replace(played.position, mover_seconds=2))
    assert make(short, move, now=NOW + MINIMUM_MOVE).position.waiter_seconds == 0
    assert refusal(short, move, now=NOW + MINIMUM_MOVE + 1)[0] == "TooLate"


def test_play_moves_of_other_phases_refused() -> None:
    steps = replayed(world(LONG), LONG_LIE)
    found = {type(move): (played, move) for played, move in steps}
    phases = {EnterRun: {0}, EnterTensor: {1, 2}, OpenChunk: {3}, OpenFold: {4}, ProveRounding: {5}}
    assert found.keys() == phases.keys()
    for played, _ in steps:
        for kind, (_, move) in found.items():
            if played.position.phase not in phases[kind]:
                error, values = refusal(played, move)
                assert (error, values[0]) == ("WrongPhase", int(played.position.phase))


def test_play_what_only_others_may_do_is_no_move() -> None:
    played, _ = replayed(world(LONG), LONG_LIE)[0]
    with pytest.raises(TypeError, match="SettleLate"):
        make(played, SettleLate())


def test_narrow_wrong_place_count_or_nothing_disputed_refused() -> None:
    at = world(300, 40)
    played, move = before(Narrow, at, "pad of the state", run=3)
    count = len(played.position.points)
    assert refusal(played, replaced(move, place=count)) == ("WrongPlace", (count, count))
    assert refusal(played, replaced(move, points=move.points[:-1])) == ("WrongCount", (1, 2))
    disputed = played.position.points[move.place]
    assert refusal(played, replaced(move, points=(*move.points[:-1], disputed))) == ("NothingDisputed", (disputed,))
    # One run is entered, and more than one is not.
    enter, entered = before(EnterRun, at, "pad of the state", run=3)
    assert refusal(enter, Narrow(entered.place, (b"x" * 32,))) == ("WrongCount", (1, 0))
    assert refusal(played, replaced(entered, place=move.place)) == ("WrongCount", (2, 1))


def test_enter_run_wrong_proofs_refused() -> None:
    at = world(LONG)
    played, move = before(EnterRun, at, LONG_LIE)
    proof = move.proof
    disputed = played.position.points[move.place]
    assert refusal(played, replaced(move, state_after=disputed)) == ("NothingDisputed", (disputed,))
    assert refusal(played, replaced(move, state_after=b"z" * 32))[0] == "WrongProof"
    assert refusal(played, replaced(move, nodes=move.nodes[1:])) == ("WrongCount", (63, 64))
    assert refusal(played, replaced(move, state_siblings=())) == ("WrongCount", (0, 6))
    other = at.party.program_proof(at.plain.steps)  # the evaluation's, where training is run
    header = replaced(proof.header, data=proof.header.data[:-1] + b"\x07")
    for wrong in (
        other,
        replaced(proof, seed=proof.seed + 1),
        replaced(proof, program=FLIPPED(proof.program)),
        replaced(proof, header=other.header),
        replaced(proof, header=header),
        replaced(proof, header=replaced(proof.header, siblings=tuple(map(FLIPPED, proof.header.siblings)))),
    ):
        assert refusal(played, replaced(move, proof=wrong))[0] in ("WrongProof", "WrongProofLength"), wrong
    assert refusal(played, replaced(move, proof=replaced(proof, seed_siblings=())))[0] == "WrongProofLength"
    short = replaced(proof, header=replaced(proof.header, data=proof.header.data[:-1]))
    assert refusal(played, replaced(move, proof=short))[0] == "WrongRecord"


@pytest.mark.parametrize("kind", [EnterTensor, EnterState, OpenChunk, Descend, ProveStateLeaf])
def test_pick_of_what_was_not_posted_refused(kind: type) -> None:
    lies = {
        EnterState: "state metric.heldout_loss element 0",
        ProveStateLeaf: "state moment.unused element 0",
        EnterTensor: LONG_LIE,
    }
    at = world(LONGEST) if kind is Descend else world(LONG)
    played, move = before(kind, at, lies.get(kind, "pointwise 28 element 0 alone"))
    pick: Pick = move.pick
    width = played.position.tree.width
    assert refusal(played, replaced(move, pick=replaced(pick, node=FLIPPED(pick.node))))[0] == "WrongProof"
    assert refusal(played, replaced(move, pick=replaced(pick, place=1 << width)))[0] == "WrongPlace"
    assert refusal(played, replaced(move, pick=replaced(pick, siblings=()))) == ("WrongCount", (0, width))
    changed = tuple(map(FLIPPED, pick.siblings))
    assert refusal(played, replaced(move, pick=replaced(pick, siblings=changed)))[0] == "WrongProof"
    moved = replaced(pick, place=pick.place ^ 1)
    assert refusal(played, replaced(move, pick=moved))[0] == "WrongProof"


def test_views_that_say_the_same_or_have_another_size_refused() -> None:
    at = world(LONG)
    played, move = before(EnterTensor, at, LONG_LIE)
    index = played.position.tree.index << played.position.tree.width | move.pick.place
    assert index == 10
    liar = at.liar(1, next(one for one in plants(at.plain.run(1), random.Random(8)) if one.name == LONG_LIE))
    same = liar.run(1).tensor_nodes(Subject(False, 10), 0, 0, 0)
    assert refusal(played, replaced(move, nodes=tuple(same)))[0] == "NothingDisputed"
    assert refusal(played, replaced(move, nodes=(*move.nodes, *move.nodes)))[0] == "WrongCount"


def test_leaves_of_another_kind_refused() -> None:
    at = world(LONG)
    played, move = before(EnterTensor, at, LONG_LIE)
    index = move.pick.place
    assert refusal(played, EnterState(move.pick, move.nodes)) == ("WrongLeaf", (index,))
    assert refusal(played, ProvePadding(move.pick)) == ("WrongLeaf", (index,))
    state, leaf = before(ProveStateLeaf, at, "state moment.unused element 0")
    assert refusal(state, ProvePadding(leaf.pick)) == ("WrongLeaf", (4,))
    assert refusal(state, EnterTensor(leaf.pick, leaf.record, (NO_ROOT,)))[0] == "WrongLeaf"
    counter, entered = before(EnterTensor, at, "state counter.step element 0")
    root, path = at.party.run(1).state_leaf(1)
    assert counter.position.phase is Phase.STATE
    assert refusal(counter, ProveStateLeaf(entered.pick, entered.record, root, tuple(path))) == ("WrongLeaf", (1,))
    padded, proof = before(ProvePadding, at, "pad of the state")
    assert refusal(padded, ProveStateLeaf(proof.pick, leaf.record, root, tuple(path))) == ("WrongLeaf", (7,))
    assert refusal(padded, EnterTensor(proof.pick, move.record, (NO_ROOT,))) == ("WrongLeaf", (7,))
    pad, proof = before(ProvePadding, at, "pointwise 28 pad")
    assert refusal(pad, OpenChunk(proof.pick, bytes(1024))) == ("WrongLeaf", (31,))


def test_state_leaf_wrong_root_path_or_record_refused() -> None:
    at = world(LONG)
    for lie in ("state moment.unused element 0", "state parameter.x element 0"):
        played, move = before(ProveStateLeaf, at, lie)
        assert refusal(played, replaced(move, tensor_root=FLIPPED(move.tensor_root)))[0] == "WrongProof"
        assert refusal(played, replaced(move, path=move.path[:-1]))[0] == "WrongProofLength"
        changed = (FLIPPED(move.path[0]), *move.path[1:])
        assert refusal(played, replaced(move, path=changed))[0] == "WrongProof"
        record = replaced(move.record, data=move.record.data + b"x")
        assert refusal(played, replaced(move, record=record))[0] == "WrongProof"


def test_chunk_other_bytes_elements_or_sizes_refused() -> None:
    at = world(LONG)
    played, move = before(OpenChunk, at, LONG_LIE)
    assert refusal(played, replaced(move, chunk=move.chunk[:-1])) == ("WrongCount", (1023, 1024))
    lie = "view 18 element 0 alone"
    played, move = before(ProveElement, at, lie)
    assert refusal(played, replaced(move, element=20)) == ("NoSuchElement", (20, 20))
    assert refusal(played, replaced(move, chunk=FLIPPED(move.chunk)))[0] == "WrongProof"
    other = replaced(move.evidence, record=move.evidence.record + b"x")
    assert refusal(played, replaced(move, evidence=other))[0] == "WrongProof"
    with pytest.raises(EvidenceRefused, match="WrongSourceCount"):
        make(played, replaced(move, evidence=replaced(move.evidence, sources=())))


def test_padding_bytes_clean_ones_lose_and_full_chunks_have_none() -> None:
    at = world(LONG)
    played, move = before(ProveElement, at, "view 18 element 0 alone")
    lost = make(played, ProvePaddingBytes(move.chunk))
    winner = Outcome.CHALLENGER_WON if played.position.defender_to_move else Outcome.DEFENDER_WON
    assert lost.outcome is winner
    full, opened = before(ProveElement, at, "pointwise 28 element 0 alone")
    assert refusal(full, ProvePaddingBytes(opened.chunk)) == ("WrongLeaf", (0,))


def test_fold_short_ones_equal_values_and_wrong_counts_refused() -> None:
    at = world(LONG)
    played, move = before(OpenFold, at, LONG_LIE)
    assert refusal(played, replaced(move, points=move.points[1:])) == ("WrongCount", (2, 3))
    posted = int.from_bytes(played.posted[:4], "little")
    assert refusal(played, replaced(move, bits=posted))[0] == "NothingDisputed"
    assert refusal(played, replaced(move, record=move.record + b"x"))[0] == "WrongProof"
    short, proof = before(ProveElement, at, "sum 21 element 0 alone")
    words = OpenFold(proof.chunk, proof.evidence.record, 0, 1, (NO_ROOT,))
    assert refusal(short, words) == ("WrongRecord", (proof.evidence.record,))


def test_fold_rounding_only_right_after_opening() -> None:
    at = world(LONGEST)
    steps = replayed(at, "matmul 10 fold wrong from block 71")
    narrowed = next(played for played, move in steps if played.position.phase is Phase.FOLD)
    run = at.party.run(1)
    element = narrowed.position.fold.element
    blocks = list(range(1, 72))
    garbage = NarrowFold(len(narrowed.position.points) - 1, (b"g" * 32, b"h" * 32))
    assert narrowed.position.high == len(blocks)
    after = make(narrowed, garbage)
    assert not after.position.fold.opening
    assert refusal(after, ProveRounding(run.prove_rounding(10, element)))[0] == "WrongPhase"
