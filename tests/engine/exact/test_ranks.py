"""A step on several ranks has the bits of `run_program` on one. Ranks are threads here."""

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from compiled_programs import compiler, same
from exact_oracle import NAN, SIGN, SPECIAL_WORDS, tensor
from sharded_programs import sharded_program
from threaded_ranks import (
    CONTEXT,
    ThreadGroup,
    Windows,
    on_threads,
    reference_states,
    states_by_ranks,
    training,
    zeros_of,
)

from trainer.commit.states import state_root
from trainer.engine.engines import PartRun as Run
from trainer.engine.exact.exchange import CountedGroup, exact_sums
from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.engine.exact.ranks import RankedRun
from trainer.engine.exact.reference import exponent_of, sum_rows
from trainer.native import compiled_program
from trainer.program.exact import BuiltProgram, DType, Program, ProgramBuilder, Role, Value, check_program
from trainer.program.exact.cutting import cut_program

_CPU = torch.device("cpu")


@pytest.mark.parametrize("shards", [2, 4])
def test_ranked_run_training_steps_are_the_reference_s(shards: int) -> None:
    built, state = training(shards)
    expected = state_root(reference_states(built, state, steps=3))
    for ranks in (1, 2, 4):
        states = states_by_ranks(built, state, ranks, steps=3)
        assert [state_root(one) for one in states] == [expected] * ranks, ranks


def test_ranked_run_unequal_shares_are_the_reference_s() -> None:
    built, state = training(3, batch=6)
    expected = reference_states(built, state, steps=2)
    assert all(same(expected, one) for one in states_by_ranks(built, state, 2, steps=2))


def test_ranked_run_compiled_parts_are_the_reference_s(tmp_path: Path) -> None:
    built, state = training(2)
    fast = compiler("-O0")

    def make(program: Program, constants: Sequence[torch.Tensor]) -> Run:
        return compiled_program(program, constants, tmp_path, compiler=fast)

    expected = reference_states(built, state, steps=3)
    assert all(same(expected, one) for one in states_by_ranks(built, state, 2, steps=3, make=make))


def test_ranked_run_program_that_does_not_split_runs_whole() -> None:
    built, state = training(1)
    cut = cut_program(built.program, 2)
    assert (cut.before, cut.after.program, cut.joins) == ((None, None), built.program, ())
    expected = reference_states(built, state, steps=2)
    assert all(same(expected, one) for one in states_by_ranks(built, state, 2, steps=2))


def test_ranked_run_random_programs_are_the_reference_s() -> None:
    split = joined = gathered = 0
    poisoned = 0
    for seed in range(60):
        one = sharded_program(seed, shards=20 if seed % 10 == 0 else 2 + seed % 4)
        check_program(one.program)
        built = BuiltProgram(one.program, tuple(one.constants))
        expected = reference_states(built, one.state, batches=lambda _, given=one: given)
        for ranks in (2, 3):
            cut = cut_program(one.program, ranks)
            for piece in (*cut.before, cut.after):
                if piece is not None:
                    check_program(piece.program)
            states = states_by_ranks(built, one.state, ranks, batches=lambda _, given=one: given)
            assert all(same(expected, state) for state in states), (seed, ranks)
            split += any(piece is not None for piece in cut.before)
            joined += bool(cut.joins)
            gathered += bool(cut.gathered)
        poisoned += any(
            not bool(x.isfinite().all())
            for x, declared in zip(expected, one.program.states, strict=True)
            if declared.name.startswith("joined")
        )
    assert split >= 100
    assert joined >= 80
    assert gathered >= 60
    assert poisoned >= 30


def _values(ranks: int, most: int, elements: int, seed: int) -> torch.Tensor:
    """Bits of every kind: special ones, of one size, and of all sizes; [ranks, most, elements]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ranks, most, elements)
    special = tensor(SPECIAL_WORDS)[torch.randint(0, len(SPECIAL_WORDS), shape, generator=generator)]
    wide = torch.randint(-(2**31), 2**31, shape, generator=generator).to(torch.int32).view(torch.float32)
    wide = torch.where(wide.isnan(), 1.0, wide)
    near = torch.randn(shape, generator=generator)
    kind = torch.randint(0, 4, (1, 1, elements), generator=generator)
    mixed = torch.where(torch.rand(shape, generator=generator) < 0.2, special, near)
    return torch.where(kind == 0, special, torch.where(kind == 1, wide, torch.where(kind == 2, mixed, near)))


@pytest.mark.parametrize(("ranks", "most"), [(1, 1), (2, 1), (3, 1), (4, 1), (1, 3), (2, 2), (3, 5), (4, 8)])
def test_exact_sums_special_values_are_those_of_sum(ranks: int, most: int) -> None:
    sizes = [1, 700, 13, 1286]
    values = _values(ranks, most, sum(sizes), seed=ranks * 10 + most)
    columns = values.reshape(-1, sum(sizes)).mT.contiguous()
    expected = sum_rows(columns, exponent_of(columns)[0]).squeeze(-1)
    assert bool(expected.isnan().any())
    assert bool((expected == torch.inf).any())
    assert bool((expected == -torch.inf).any())

    def work(group: ThreadGroup) -> torch.Tensor:
        mine = [list(part.unbind(0)) for part in values[group.rank].split(sizes, dim=1)]
        return exact_sums(group, mine, sizes, most=most, device=_CPU)

    for total in on_threads(ranks, work):
        assert torch.equal(total.view(torch.int32), expected.view(torch.int32))


def test_exact_sums_extremes_lose_nothing() -> None:
    """As many greatest values as a rank may add: the integers sent fill their 40 bits, both ways."""
    for value in (3.4e38, -3.4e38, 1.0, -1.0, 1.9999999, -1.9999999):
        columns = torch.full((3, 1000), value)

        def work(group: ThreadGroup, value: float = value) -> torch.Tensor:
            return exact_sums(group, [[torch.full((3,), value)] * 500], [3], most=500, device=_CPU)

        expected = sum_rows(columns, exponent_of(columns)[0]).squeeze(-1)
        assert all(torch.equal(total, expected) for total in on_threads(2, work))


def test_exact_sums_too_many_values_refused() -> None:
    with pytest.raises(ValueError, match="at most 500 values to an element, not 501: use more ranks"):
        exact_sums(ThreadGroup(0, 1, [], threading.Barrier(1)), [[]], [3], most=501, device=_CPU)


def _shard_floats(build: ProgramBuilder, shard: int, tokens: Value) -> Value:
    """The tokens of a shard's row as the bits of floats, [CONTEXT]."""
    kernel = Builder(1)
    word = kernel.emit(Op.SHL, kernel.input(0), kernel.word(21))
    row = tokens.slice(0, shard, shard + 1).squeeze(0)
    return build.pointwise(kernel.kernel(word), row, dtype=DType.FLOAT32)


def test_ranked_run_other_joins_are_gathered() -> None:
    """A product of two shards' quantised rows, a maximum, integers, and what one shard alone decides."""
    build = ProgramBuilder(Role.TRAIN)
    build.state("product", DType.FLOAT32, (1, 1))
    build.state("greatest", DType.FLOAT32, (CONTEXT,))
    build.state("tokens", DType.INT64, (2, CONTEXT))
    build.state("own", DType.FLOAT32, (CONTEXT,))
    tokens = build.batch(2, CONTEXT)
    first, second = (_shard_floats(build, shard, tokens) for shard in range(2))
    quantised = [build.quantise(one.unsqueeze(0), bits) for one, bits in ((first, 8), (second, 13))]
    build.store("product", build.product(*quantised))
    build.store("greatest", build.max_last(build.cat([first.unsqueeze(-1), second.unsqueeze(-1)], -1)))
    negated = Builder(1)
    kernel = negated.kernel(negated.emit(Op.ISUB, negated.word(0), negated.input(0)))
    rows = [build.pointwise(kernel, tokens.slice(0, row, row + 1), dtype=DType.INT32) for row in range(2)]
    build.store("tokens", build.cat(rows, 0))
    build.store("own", second)
    built = build.finish()
    cut = cut_program(built.program, 2)
    gathered = {built.program.operations[number].dtype for number in cut.gathered}
    assert gathered == {DType.FLOAT32, DType.INT32, DType.INT8, DType.INT16}
    assert not cut.joins
    for piece in (*cut.before, cut.after):
        assert piece is not None
        check_program(piece.program)
    state = zeros_of(built.program)
    for step in range(4):
        expected = reference_states(built, state, batches=lambda _, seed=step: Windows(seed, most=2**11))
        states = states_by_ranks(built, state, 2, batches=lambda _, seed=step: Windows(seed, most=2**11))
        assert all(same(expected, one) for one in states), step


def test_ranked_run_unchanged_tensor_keeps_its_bits() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("kept", DType.FLOAT32, (2,))
    build.state("sum", DType.FLOAT32, (CONTEXT,))
    tokens = build.batch(2, CONTEXT)
    parts = [_shard_floats(build, shard, tokens).unsqueeze(-1) for shard in range(2)]
    build.store("sum", build.sum_last(build.cat(parts, -1)))
    built = build.finish()
    state = [tensor([NAN | SIGN | 1, 0x3F800000]), torch.zeros(CONTEXT)]
    for one in states_by_ranks(built, state, 2):
        assert same(one[:1], state[:1])


def test_ranked_run_another_program_on_a_rank_refused() -> None:
    built, _ = training(2)
    other = dataclasses.replace(built.program, role=Role.EVALUATE)

    def work(group: ThreadGroup) -> str:
        with pytest.raises(ValueError, match="the 2 ranks were not given one program") as refusal:
            RankedRun(built.program if group.rank else other, built.constants, group)
        return str(refusal.value)

    assert len(on_threads(2, work)) == 2


def test_ranked_run_other_state_refused() -> None:
    built, state = training(2)
    run = RankedRun(built.program, built.constants, ThreadGroup(0, 1, [torch.empty(0)], threading.Barrier(1)))
    with pytest.raises(ValueError, match=f"^{len(state) - 1} state tensors, and the program has {len(state)}$"):
        run.load(state[:-1])
    with pytest.raises(ValueError, match=r"state tensor 0 is torch.float64 \[1\]"):
        run.load([state[0].double(), *state[1:]])


@pytest.mark.parametrize(("shards", "ratio"), [(2, 1.0), (4, 1.375), (8, 1.375)])
def test_traffic_one_value_a_rank_is_that_of_float32(shards: int, ratio: float) -> None:
    built, state = training(shards, batch=8)

    def work(group: ThreadGroup) -> float:
        run = RankedRun(built.program, built.constants, group)
        run.load(state)
        run.step(Windows(0))
        return run.traffic.ratio

    for measured in on_threads(2, work):
        assert measured == pytest.approx(ratio, rel=0.01)


def test_counted_group_counts_what_rings_send() -> None:
    def work(group: ThreadGroup) -> int:
        counted = CountedGroup(group)
        counted.greatest(torch.zeros(12, dtype=torch.uint8))
        counted.swap(torch.zeros(3, 4))
        counted.gather(torch.zeros(5))
        return counted.traffic.sent

    assert on_threads(3, work) == [2 * 8 + 32 + 40] * 3
