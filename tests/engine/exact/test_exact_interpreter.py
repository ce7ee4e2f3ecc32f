"""The reference interpreter against the oracle, element by element, over random programs."""

import itertools
import math
import random

import pytest
import torch
from exact_oracle import words_of
from program_oracle import element
from random_programs import RandomProgram, random_program

from trainer.engine.exact.backends import BACKENDS, admitted_backends
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.exact.interpreter import run_program
from trainer.program.exact import DType, Part, Program, ProgramBuilder, Role, check_program, decode_program
from trainer.program.exact.encoding import encode_program
from trainer.program.exact.operations import Batch, Code, Constant, Load, Operation
from trainer.program.exact.validate import check_constants

_ELEMENTS = 24  # of each operation, drawn anew for every program


def elements_of(output: torch.Tensor) -> list[int]:
    """Bits of floats, signed integers."""
    return words_of(output) if output.dtype == torch.float32 else output.flatten().tolist()


def outputs_of(one: RandomProgram, **options: object) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The next state, and every operation's output."""
    outputs: list[torch.Tensor] = []
    state = run_program(
        one.program,
        one.state,
        one.constants,
        one,
        observe=lambda number, output: outputs.append(output.clone()),
        **options,  # type: ignore[arg-type]
    )
    return state, outputs


def assert_equals_the_oracle(seed: int) -> set[Code]:
    one = random_program(seed)
    check_program(one.program)
    check_constants(one.program, one.constants)
    assert decode_program(encode_program(one.program)) == one.program
    state, outputs = outputs_of(one)
    known = [elements_of(output) for output in outputs]

    def given(operation: Operation, index: tuple[int, ...]) -> int:
        match operation.attributes:
            case Load(number):
                held = one.state[number]
            case Constant(number):
                held = one.constants[number]
            case Batch(part, shift):
                held = one.tokens(part, shift, *operation.shape)
            case _:
                raise AssertionError("nothing is given to other operations")
        return elements_of(held[index].reshape(1))[0]

    rng = random.Random(seed)
    for number, operation in enumerate(one.program.operations):
        assert outputs[number].shape == operation.shape
        indexes = list(itertools.product(*map(range, operation.shape)))
        for place in rng.sample(range(len(indexes)), min(_ELEMENTS, len(indexes))):
            expected = element(operation, indexes[place], known, given)
            assert known[number][place] == expected, (seed, number, operation, indexes[place])
    assert_next_state(one, state, outputs)
    return {operation.code for operation in one.program.operations}


def assert_next_state(one: RandomProgram, state: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
    for tensor, before, after in zip(one.program.states, one.state, state, strict=True):
        expected = before if tensor.source is None else outputs[tensor.source]
        assert after.dtype == before.dtype
        assert elements_of(after) == elements_of(expected)


@pytest.mark.parametrize("first", range(0, 240, 24))
def test_run_program_equals_the_oracle(first: int) -> None:
    codes = set().union(*(assert_equals_the_oracle(seed) for seed in range(first, first + 24)))
    assert codes == set(Code)


@pytest.mark.full
@pytest.mark.parametrize("first", range(1000, 3400, 100))
def test_run_program_equals_the_oracle_over_thousands(first: int) -> None:
    for seed in range(first, first + 100):
        assert_equals_the_oracle(seed)


def test_run_program_backends_and_threads_agree() -> None:
    faults = admitted_backends(torch.device("cpu"))
    threads = torch.get_num_threads()
    try:
        for seed in range(40):
            one = random_program(seed)
            _, expected = outputs_of(one)
            for name, fault in faults.items():
                torch.set_num_threads(1 + seed % 2)
                if not fault:
                    _, actual = outputs_of(one, backend=BACKENDS[name])
                    assert list(map(elements_of, actual)) == list(map(elements_of, expected)), (seed, name)
    finally:
        torch.set_num_threads(threads)


def test_run_program_blocks_do_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [random_program(seed) for seed in range(30)]
    expected = [list(map(elements_of, outputs_of(one)[1])) for one in programs]
    monkeypatch.setattr("trainer.engine.exact.interpreter._BLOCK", 5)
    assert [list(map(elements_of, outputs_of(one)[1])) for one in programs] == expected


def test_scatter_add_carries_flags_to_their_own_row() -> None:
    inf, nan = math.inf, math.nan
    x = torch.tensor([inf, -inf, 1.0, inf, nan, -inf, 2.0, inf, 3.0])
    index = torch.tensor([0, 0, 1, 2, 3, 4, 2, 9, -1], dtype=torch.int32)
    build = ProgramBuilder(Role.GENERATE)
    build.state("sums", DType.FLOAT32, (6,))
    exponent = build.constant(torch.tensor(3, dtype=torch.int32))
    build.store("sums", build.scatter_add(build.constant(x), build.constant(index), 6, exponent))
    built = build.finish()
    (sums,) = run_program(built.program, [torch.ones(6)], built.constants)
    assert words_of(sums) == [0x7FC00000, 0x3F800000, 0x7F800000, 0x7FC00000, 0xFF800000, 0]


def test_run_program_does_not_change_its_inputs() -> None:
    for seed in range(20):
        one = random_program(seed)
        before = [tensor.clone() for tensor in (*one.state, *one.constants)]
        outputs_of(one)
        after = [*one.state, *one.constants]
        assert [elements_of(tensor) for tensor in after] == [elements_of(tensor) for tensor in before]


def test_run_program_frees_outputs_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("x", DType.FLOAT32, (4,))
    value = build.load("x")
    for _ in range(5):
        value = build.view(build.reshape(value, (2, 2)).transpose())
    build.store("x", build.reshape(value, (4,)))
    program = build.finish().program
    alive: list[int] = []
    from trainer.engine.exact import interpreter

    original = interpreter._Run.output

    def counting(run: interpreter._Run, one: Operation) -> torch.Tensor:
        alive.append(len(run.outputs))
        return original(run, one)

    monkeypatch.setattr(interpreter._Run, "output", counting)
    run_program(program, [torch.zeros(4)], [])
    assert max(alive) == 1


def one_batch(samples: int = 2, length: int = 3) -> Program:
    build = ProgramBuilder(Role.EVALUATE)
    build.state("tokens", DType.INT64, (samples, length))
    build.store("tokens", build.batch(samples, length))
    return build.finish().program


def test_run_program_without_batches_refused() -> None:
    with pytest.raises(ValueError, match="no batches were given"):
        run_program(one_batch(), [torch.zeros(2, 3, dtype=torch.int64)], [])


def test_run_program_wrong_batch_refused() -> None:
    class Wrong:
        def tokens(self, part: Part, shift: int, samples: int, length: int) -> torch.Tensor:
            return torch.zeros(samples, length, dtype=torch.int64)

    with pytest.raises(ValueError, match=r"a batch of torch\.int64"):
        run_program(one_batch(), [torch.zeros(2, 3, dtype=torch.int64)], [], Wrong())


def test_run_program_reads_batches_that_are_part_of_something_else() -> None:
    class Slices:
        def tokens(self, part: Part, shift: int, samples: int, length: int) -> torch.Tensor:
            return torch.arange(100, dtype=torch.int32)[7 : 7 + samples * length].reshape(samples, length)

    build = ProgramBuilder(Role.EVALUATE)
    build.state("tokens", DType.INT64, (3, 2))
    build.store("tokens", build.view(build.batch(2, 3).transpose()))
    (state,) = run_program(build.finish().program, [torch.zeros(3, 2, dtype=torch.int64)], [], Slices())
    assert state.tolist() == [[7, 10], [8, 11], [9, 12]]


def test_run_program_wrong_state_refused() -> None:
    with pytest.raises(ValueError, match="the state tensors are"):
        run_program(one_batch(), [torch.zeros(3, 2, dtype=torch.int64)], [])


class Text:
    """A data set of a few tokens."""

    def __init__(self, train: int, heldout: int) -> None:
        import numpy as np

        self.train = np.arange(100, 100 + train, dtype=np.uint16)
        self.heldout = np.arange(500, 500 + heldout, dtype=np.uint16)


def test_dataset_batches_follow_the_formats() -> None:
    import hashlib

    batches = DatasetBatches(data=Text(30, 11), seed=7, slot=1, step=4)
    rows = batches.tokens(Part.TRAIN, 1, 3, 5).tolist()
    for sample, row in enumerate(rows):
        head = b"trainledger/batch/1\0" + (7).to_bytes(8, "big") + (1).to_bytes(4, "big") + (4).to_bytes(8, "big")
        position = int.from_bytes(hashlib.sha256(head + sample.to_bytes(4, "big")).digest()[:8], "big") % (30 - 5)
        assert row == [100 + position + 1 + t for t in range(5)]


def test_dataset_batches_heldout_windows_follow_each_other_and_end_in_zeros() -> None:
    batches = DatasetBatches(data=Text(30, 11), seed=7, run=1)
    assert batches.tokens(Part.HELDOUT, 0, 2, 3).tolist() == [[506, 507, 508], [509, 510, 0]]


def test_dataset_batches_too_few_tokens_begin_at_the_first() -> None:
    batches = DatasetBatches(data=Text(3, 0), seed=7)
    assert batches.tokens(Part.TRAIN, 1, 2, 4).tolist() == [[101, 102, 0, 0]] * 2
    assert batches.tokens(Part.HELDOUT, 0, 1, 2).tolist() == [[0, 0]]
