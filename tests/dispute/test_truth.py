"""States and traces on demand: the same whoever computes them, and never held as a whole."""

import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from small_programs import engine
from torch import Tensor
from true_runs import LENGTH, data, segment, truth_of_folds, truth_of_random

from ledger.errors import MachineFault, ResourceError
from trainer.commit.hashing import Kind, leaf, seal
from trainer.commit.proofs import climb
from trainer.commit.states import state_root
from trainer.commit.traces import trace_leaves, trace_root
from trainer.dispute import runs
from trainer.dispute.runs import Interpreter, RunTruth, Subject
from trainer.dispute.truth import KeptStates, SegmentTruth
from trainer.engine.engines import ReferenceEngine, Run
from trainer.engine.exact.backends import BACKENDS
from trainer.engine.segment import run_segment
from trainer.engine.state import State
from trainer.program.exact import BuiltProgram, cost_of
from trainer.program.exact.operations import Load


@pytest.fixture
def one_thread_again() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def state_of(truth: SegmentTruth) -> State:
    """The base, as segments take it."""
    return dict(zip(truth.task.layout.names, truth.state(0), strict=True))


def test_state_root_is_that_of_a_segment_of_so_many_steps() -> None:
    truth = segment()
    for steps in (1, 3):
        result = run_segment(truth.task, data(), state_of(truth), steps=steps, engine=engine(), slot=1)
        fresh = SegmentTruth(truth.task, data(), state_of(truth), steps=steps, slot=1, engine=engine())
        assert fresh.state_root(steps + 1) == state_root(result.state.values())
        assert fresh.state_root(steps) == truth.state_root(steps)
    with pytest.raises(IndexError):
        truth.state_root(truth.runs + 1)


def test_state_root_is_the_same_in_any_order() -> None:
    truth = segment()
    wanted = [truth.state_root(run) for run in range(truth.runs + 1)]
    assert len(set(wanted)) == len(wanted)
    for order in ([4, 0, 2, 1, 3], [3, 2, 1, 0, 4], [1, 3, 4, 2, 0]):
        keeper = KeptStates(spacing=2, recent=1)
        again = SegmentTruth(truth.task, data(), state_of(truth), steps=3, slot=1, engine=engine(), keeper=keeper)
        assert {run: again.state_root(run) for run in order} == dict(enumerate(wanted))


def test_kept_states_are_few_and_the_nearest_is_given() -> None:
    keeper = KeptStates(spacing=10, recent=2)
    for run in range(1, 51):
        keeper.keep(run, [torch.tensor(run)])
    assert len(keeper) == 5 + 2
    assert [keeper.nearest(run)[0] for run in (10, 19, 47, 48, 49, 50, 99)] == [10, 10, 40, 48, 49, 50, 50]
    assert keeper.nearest(9) is None
    assert keeper.nearest(49)[1] == [torch.tensor(49)]


def test_state_takes_up_again_after_an_interruption() -> None:
    truth = segment()
    broken = BrokenEngine(fails_at=1)
    again = SegmentTruth(truth.task, data(), state_of(truth), steps=2, slot=1, engine=broken)
    with pytest.raises(KeyboardInterrupt):
        again.state_root(2)
    assert again.state_root(2) == truth.state_root(2)
    assert again.state_root(1) == truth.state_root(1)


class BrokenEngine(ReferenceEngine):
    """Stops once, in the middle of a step."""

    def __init__(self, *, fails_at: int) -> None:
        super().__init__()
        self._left = fails_at

    def open(self, built: BuiltProgram) -> Run:
        run = super().open(built)
        step = run.step

        def stopping(batches: object = None) -> None:
            self._left -= 1
            step(batches)
            if self._left == 0:
                raise KeyboardInterrupt

        run.step = stopping
        return run


@pytest.mark.parametrize(("kind", "numbers"), [("transformer", (0, 1, 3)), ("recurrent", (1,))])
def test_run_ends_in_the_next_state_of_the_segment(kind: str, numbers: tuple[int, ...]) -> None:
    truth = segment(kind)
    for number in numbers:
        run = truth.run(number)
        assert run.state_before == truth.state_root(number)
        assert run.state_after == truth.state_root(number + 1)
    with pytest.raises(IndexError):
        truth.run(truth.runs)


def test_run_of_a_segment_without_steps_is_the_evaluation() -> None:
    whole = segment()
    truth = SegmentTruth(whole.task, data(), state_of(whole), steps=0, engine=engine())
    assert truth.runs == 1
    assert truth.run(0).state_after == truth.state_root(1)
    with pytest.raises(ValueError, match="no -1 steps"):
        SegmentTruth(whole.task, data(), state_of(whole), steps=-1)


def test_program_proof_leads_to_the_tasks_root() -> None:
    truth = segment()
    for number in (0, truth.steps):
        proof, place = truth.program_proof(number), 1 if number < truth.steps else 2
        seed = b"TLXT\x00\x02\x00\x00" + proof.seed.to_bytes(8, "big")
        shown = ((0, seed, proof.seed_siblings), (place, proof.program, proof.program_siblings))
        for index, record, siblings in shown:
            top = climb(Kind.PROGRAM, leaf(Kind.PROGRAM, record), index, siblings)
            assert seal(Kind.PROGRAM, 2, 6, top) == truth.task.root
        header = climb(Kind.PROGRAM, leaf(Kind.PROGRAM, proof.header.data), 0, proof.header.siblings)
        run = truth.run(number)
        assert seal(Kind.PROGRAM, 1, 1 + run.states + run.constants + run.operations, header) == proof.program


def test_trace_refuses_an_engine_that_computes_something_else() -> None:
    whole = segment()
    truth = SegmentTruth(whole.task, data(), state_of(whole), steps=1, engine=WrongEngine())
    truth.state_root(1)
    with pytest.raises(MachineFault, match="reference"):
        _ = truth.run(0).state_after


class WrongEngine(ReferenceEngine):
    """Gives one wrong bit."""

    def open(self, built: BuiltProgram) -> Run:
        run = super().open(built)
        state = run.state

        def wrong() -> list[Tensor]:
            given = state()
            given[2].view(torch.int32).reshape(-1)[0] ^= 1
            return given

        run.state = wrong
        return run


def test_run_is_traced_on_the_device_of_the_engine() -> None:
    whole = segment()

    class OnGpu(ReferenceEngine):
        """As a GPU's engine: it has the reference beside it."""

        reference = ReferenceEngine("meta", backend="float32")

    engines = {"meta": OnGpu(), "cpu": engine(), "cuda:3": ReferenceEngine("cuda:3")}
    for device, one in engines.items():
        truth = SegmentTruth(whole.task, data(), state_of(whole), steps=1, engine=one)
        assert truth.run(0).interpreter.device == device
    given = SegmentTruth(whole.task, data(), state_of(whole), steps=1, interpreter=Interpreter("cuda"))
    assert given.run(0).interpreter == Interpreter("cuda")


# --- one run ---


def test_trace_root_is_over_all_outputs_and_the_state_after() -> None:
    truth = truth_of_random(3)
    outputs = [truth.tensor(Subject(False, number)).root for number in range(truth.operations)]
    after = [truth.tensor(Subject(True, number)).root for number in range(truth.states)]
    assert truth.trace_root == trace_root(trace_leaves(outputs, truth.state_after))
    assert truth.state_nodes(0, 0, 0) == [leaf(Kind.STATE, after[0])]
    assert [truth.output_root(number) for number in range(truth.operations)] == outputs
    for number, root in enumerate(after):
        assert truth.tensor_root(Subject(True, number)) == root


@pytest.mark.parametrize("threads", [1, 2])
def test_trace_root_is_the_same_on_any_threads_and_backend(threads: int, one_thread_again: None) -> None:
    wanted = segment().run(1).trace_root
    torch.set_num_threads(threads)
    backend = BACKENDS["float32"] if threads == 2 else None
    assert fresh(segment().run(1), interpreter=Interpreter(backend=backend)).trace_root == wanted


def test_trace_root_is_the_same_after_an_interruption() -> None:
    truth = segment().run(0)

    def stop(done: int, every: int) -> None:
        if done == every // 2:
            raise KeyboardInterrupt

    again = fresh(truth, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        _ = again.trace_root
    again._progress = None
    assert again.trace_root == truth.trace_root


def fresh(truth: RunTruth, **changes: object) -> RunTruth:
    """The same run, of which nothing is computed yet."""
    return RunTruth(truth._built, truth._before, truth.data, seed=truth.seed, slot=truth.slot, **changes)


def test_trace_lets_outputs_go_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = fresh(segment().run(0), cache_bytes=0)
    outputs: list[weakref.ref[Tensor]] = []
    most = [0]
    hashed = runs.tensor_root

    def watched(output: Tensor) -> bytes:
        if len(outputs) < truth.operations:
            outputs.append(weakref.ref(output))
            alive = [one for one in (known() for known in outputs) if one is not None]
            most[0] = max(most[0], sum(one.numel() * one.element_size() for one in alive))
        return hashed(output)

    monkeypatch.setattr(runs, "tensor_root", watched)
    assert truth.trace_root == segment().run(0).trace_root
    assert len(outputs) == truth.operations
    cost = cost_of(truth.program)
    held = sum(one.numel() * one.element_size() for one in (*truth._before, *truth._built.constants))
    # What its plan says, and nothing like the whole trace.
    assert most[0] <= cost.peak_bytes - held
    assert most[0] < cost.bytes_written / 3


def test_outputs_without_room_are_those_of_the_whole_trace() -> None:
    for seed in range(6):
        truth, without = truth_of_random(seed), truth_of_random(seed, cache_bytes=0)
        assert truth.trace_root == without.trace_root
        for number in range(truth.operations):
            subject = Subject(False, number)
            assert without.chunk(subject, 0) == truth.chunk(subject, 0)
            assert without.tensor(subject).root == truth.output_root(number)


def test_outputs_are_kept_within_the_budget() -> None:
    truth = fresh(segment().run(0), cache_bytes=200_000)
    sizes = [truth.tensor_layout(Subject(False, number)).size for number in range(truth.operations)]
    assert sum(sizes) > 2_000_000
    for number in range(0, truth.operations, 150):
        truth.outputs([number])
        kept = sum(one.size for one in truth._held.values())
        assert kept == truth._held_bytes <= max(200_000, sizes[number])
    every = truth.outputs(range(100))
    assert set(every) == set(range(100))


def test_tensor_layout_says_what_the_tensor_is() -> None:
    truth = segment().run(0)
    subjects = [Subject(False, number) for number in range(0, truth.operations, 25)]
    for subject in [*subjects, *(Subject(True, number) for number in range(truth.states))]:
        layout, tensor = truth.tensor_layout(subject), truth.tensor(subject)
        assert (layout.dtype, layout.size, layout.chunks) == (tensor.dtype, tensor.size, tensor.chunks)
        assert layout.width == tensor.width
        last = truth.chunk(subject, layout.chunks - 1)
        assert len(last) == 1024
        assert not any(last[(layout.size - 1) % 1024 + 1 :])
        with pytest.raises(IndexError):
            truth.chunk(subject, layout.chunks)


def test_state_leaf_of_what_is_unchanged_is_that_before() -> None:
    run = segment().run(segment().steps)
    changed = [number for number in range(run.states) if run.program.states[number].source is not None]
    assert changed == [0]
    root, path = run.state_leaf(5)
    top = climb(Kind.STATE, leaf(Kind.STATE, root), 5, path)
    assert seal(Kind.STATE, 0, run.states, top) == run.state_before


def test_state_leaf_of_what_is_written_is_in_the_frontier() -> None:
    run = segment().run(0)
    frontier = run.frontier(run.operations)
    for number in range(run.states):
        source = run.program.states[number].source
        assert source is not None
        root, path = run.state_leaf(number)
        assert climb(Kind.TRACE, leaf(Kind.TRACE, root), source, path) == frontier[len(path)]


def test_record_is_proved_by_the_programs_root() -> None:
    truth = truth_of_random(1)
    count = 1 + truth.states + truth.constants + truth.operations
    shown = [(0, truth.header())]
    shown += [(1 + number, truth.record(Subject(True, number))) for number in range(truth.states)]
    first = 1 + truth.states
    shown += [(first + number, truth.constant_record(number)) for number in range(truth.constants)]
    first += truth.constants
    shown += [(first + number, truth.record(Subject(False, number))) for number in range(truth.operations)]
    for place, record in shown:
        top = climb(Kind.PROGRAM, leaf(Kind.PROGRAM, record.data), place, record.siblings)
        assert seal(Kind.PROGRAM, 1, count, top) == truth.program_root
    with pytest.raises(IndexError):
        truth.record(Subject(False, truth.operations))
    with pytest.raises(IndexError):
        truth.constant_record(-1)


def test_accumulators_start_at_the_folds_start() -> None:
    truth = truth_of_folds()
    fold = next(number for number in range(truth.operations) if truth.fold_length(number) == LENGTH)
    words: Sequence[int] = truth.accumulators(fold, 0, [0, 1, 2, 3])
    assert words[0] == 0
    assert words[1] <= words[2] <= words[3]
    assert truth.accumulators(fold, 0, [2, 0]) == [words[2], 0]
    assert isinstance(truth.operation(0).attributes, Load)
    assert truth.fold_length(0) == 0
    with pytest.raises(IndexError, match="does not fold"):
        truth.accumulators(0, 0, [0])
    with pytest.raises(IndexError):
        truth.accumulators(fold, 2, [0])


def test_trace_says_what_it_needs_where_memory_runs_out() -> None:
    def no_more(done: int, every: int) -> None:
        raise MemoryError

    with pytest.raises(ResourceError, match=r"Out of memory while computing the trace.* MiB on cpu") as error:
        _ = fresh(segment().run(0), progress=no_more).trace_root
    assert "machine with more memory" in error.value.remedy
