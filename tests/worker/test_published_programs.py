"""Programs as files of a store: whatever is done to any of them is noticed, and said with the file's path."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_programs import traced
from worker_bench import tiny_dataset, tiny_program

from ledger.errors import BlobCorrupt, BlobMissing, SpecificationError
from trainer import materials
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.materials import constant_path, fetch_program, manifest_path, program_path, publish_program
from trainer.program.exact import BuiltProgram, DType, Operand, Operation, Program, Role, encode_program, program_root
from trainer.program.exact.encoding import MAXIMUM_FILE_BYTES, file_root
from trainer.program.exact.operations import ConstantTensor, Load, Pointwise, View
from trainer.program.task import MAXIMUM_MANIFEST_BYTES, Manifest, TaskProgram
from trainer.store import BlobStore

Files = dict[str, Path]


@pytest.fixture(scope="module")
def program() -> TaskProgram:
    return traced(tiny_program(), tiny_dataset())


@pytest.fixture(scope="module")
def store(program: TaskProgram, tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    store = BlobStore(str(tmp_path_factory.mktemp("programs") / "store"))
    publish_program(program, store)
    return store


@pytest.fixture(scope="module")
def files(program: TaskProgram, store: BlobStore) -> Files:
    """Every file that the program's root leads to, by its path in the store."""
    paths = [manifest_path(program.root)]
    for built in program.programs:
        paths.append(program_path(program_root(built.program)))
        paths += [constant_path(one.root) for one in built.program.constants]
    return {path: Path(store._root) / path for path in paths}


@contextmanager
def replaced(path: Path, data: bytes | None) -> Iterator[None]:
    """The file with other bytes, or gone, for a while."""
    whole = path.read_bytes()
    try:
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        yield
    finally:
        path.write_bytes(whole)


def test_fetch_program_gives_what_was_published(program: TaskProgram, store: BlobStore) -> None:
    fetched = fetch_program(program.root, store)
    assert (fetched.root, fetched.manifest) == (program.root, program.manifest)
    for there, here in zip(fetched.programs, program.programs, strict=True):
        assert there.program == here.program
        for mine, published in zip(there.constants, here.constants, strict=True):
            assert (mine.dtype, mine.shape) == (published.dtype, published.shape)
            assert torch.equal(mine.view(torch.int32), published.view(torch.int32))


def test_publish_program_writes_these_files_alone_and_the_manifest_last(
    program: TaskProgram, files: Files, tmp_path: Path
) -> None:
    class Noting(BlobStore):
        def put_bytes(self, path: str, data: bytes) -> None:
            order.append(path)
            super().put_bytes(path, data)

    order: list[str] = []
    store = Noting(str(tmp_path / "store"))
    publish_program(program, store)
    publish_program(program, store)  # a command that was killed is run again
    assert {str(one.relative_to(tmp_path / "store")) for one in (tmp_path / "store").rglob("*.*")} == set(files)
    assert order[len(order) // 2 - 1] == order[-1] == manifest_path(program.root)
    assert order.count(manifest_path(program.root)) == 2
    assert fetch_program(program.root, store).root == program.root


def test_publish_program_what_nobody_could_fetch_refused_unwritten(
    program: TaskProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = program.training.program
    one = next(one for one in training.operations if isinstance(one.attributes, Pointwise))
    long = dataclasses.replace(training, operations=(*training.operations, *[one] * 65_536))
    store = BlobStore(str(tmp_path / "store"))
    with pytest.raises(SpecificationError, match=r"more than 65536 records|at most 16777216 are read") as caught:
        publish_program(dataclasses.replace(program, training=BuiltProgram(long, program.training.constants)), store)
    assert caught.value.remedy.startswith("Nobody could fetch this: use fewer layers")
    size = sum(one.nbytes for built in program.programs for one in built.constants)
    monkeypatch.setattr(materials, "MAXIMUM_CONSTANT_BYTES", size - 1)
    with pytest.raises(SpecificationError, match="constants have"):
        publish_program(program, store)
    assert not (tmp_path / "store").exists()


def test_fetch_program_any_file_missing_named(program: TaskProgram, store: BlobStore, files: Files) -> None:
    assert len(files) > 4  # a manifest, two programs, and constants
    for path, file in files.items():
        with replaced(file, None), pytest.raises(BlobMissing) as caught:
            fetch_program(program.root, store)
        assert caught.value.path == path


def _flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        at = int(place * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        _flipped(0.0),
        _flipped(0.37),
        _flipped(1.0),
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data + data,
        lambda data: bytes(len(data)),
    ],
    ids=["first byte", "a byte", "last byte", "cut short", "half", "empty", "too long", "twice", "zeros"],
)
def test_fetch_program_any_file_damaged_is_corrupt_and_named(
    program: TaskProgram, store: BlobStore, files: Files, damage: Callable[[bytes], bytes]
) -> None:
    for path, file in files.items():
        whole = file.read_bytes()
        if (data := damage(whole)) == whole:
            continue  # a constant of zeros
        with replaced(file, data), pytest.raises(BlobCorrupt) as caught:
            fetch_program(program.root, store)
        assert caught.value.path == path
    assert fetch_program(program.root, store).root == program.root


def test_fetch_program_another_file_of_its_kind_under_the_name_is_corrupt(
    program: TaskProgram, store: BlobStore, files: Files
) -> None:
    tried = 0
    for path, file in files.items():
        for other in {one for one in files.values() if one.suffix == file.suffix and one != file}:
            if other.read_bytes() == file.read_bytes():
                continue
            with replaced(file, other.read_bytes()), pytest.raises(BlobCorrupt) as caught:
                fetch_program(program.root, store)
            assert caught.value.path == path
            tried += 1
    assert tried >= 4
    manifest = manifest_path(program.root)
    for other_manifest in (
        dataclasses.replace(program.manifest, seed=program.seed + 1),
        dataclasses.replace(program.manifest, training=program.manifest.evaluation),
        dataclasses.replace(program.manifest, generation=program.manifest.evaluation),
        dataclasses.replace(program.manifest, description={}),
    ):
        with replaced(files[manifest], other_manifest.to_bytes()), pytest.raises(BlobCorrupt, match="its root is 0x"):
            fetch_program(program.root, store)


def test_fetch_program_endless_files_refused_before_they_are_read(
    program: TaskProgram, store: BlobStore, files: Files
) -> None:
    limits = {".json": MAXIMUM_MANIFEST_BYTES, ".program": MAXIMUM_FILE_BYTES}
    for path, file in files.items():
        most = limits.get(file.suffix, file.stat().st_size)
        with replaced(file, b""):
            with file.open("wb") as stream:
                stream.truncate(10**12)  # a sparse file
            with pytest.raises(BlobCorrupt, match=f"1000000000000 bytes and at most {most}") as caught:
                fetch_program(program.root, store)
        assert caught.value.path == path


def planted(store: BlobStore, training: Program, evaluation: Program, generation: Program | None = None) -> bytes:
    """The root of a manifest over any programs at all, well committed to: what a hostile requester could publish."""
    for one in (training, evaluation, generation):
        if one is not None:
            store.put_bytes(program_path(program_root(one)), encode_program(one))
    manifest = Manifest(
        seed=1,
        training=program_root(training),
        evaluation=program_root(evaluation),
        generation=None if generation is None else program_root(generation),
        description={},
    )
    store.put_bytes(manifest_path(manifest.root), manifest.to_bytes())
    return manifest.root


def refusal(store: BlobStore, root: bytes) -> SpecificationError:
    """How a program is refused, which takes no time."""
    began = time.process_time()
    with pytest.raises(SpecificationError) as caught:
        fetch_program(root, store)
    assert time.process_time() - began < 3
    return caught.value


def storing(program: Program, tensor: str, operation: Operation) -> Program:
    """The program with one more operation, which gives a tensor of the state."""
    states = tuple(
        dataclasses.replace(one, source=len(program.operations)) if one.name == tensor else one
        for one in program.states
    )
    return dataclasses.replace(program, states=states, operations=(*program.operations, operation))


def test_fetch_program_programs_of_another_role_refused(program: TaskProgram, store: BlobStore) -> None:
    training, evaluation = program.training.program, program.evaluation.program
    generating = dataclasses.replace(evaluation, role=Role.GENERATE)
    for trio, field, says in (
        ((evaluation, evaluation), "training", "The training program has the role evaluate"),
        ((generating, evaluation), "training", "The training program has the role generate"),
        ((training, training), "evaluation", "The evaluation program has the role train"),
        ((training, evaluation, evaluation), "generation", "The generation program has the role evaluate"),
    ):
        error = refusal(store, planted(store, *trio))
        assert (error.field, says in error.problem) == (field, True)


def test_fetch_program_programs_over_other_states_refused(program: TaskProgram, store: BlobStore) -> None:
    training, evaluation = program.training.program, program.evaluation.program
    wider = traced(tiny_program(model={"kind": "transformer", "layers": 1, "heads": 2, "width": 32}), tiny_dataset())
    publish_program(wider, store)
    fewer = dataclasses.replace(evaluation, states=evaluation.states[:-1])
    swapped = dataclasses.replace(evaluation, states=(*evaluation.states[:-2], *evaluation.states[:-3:-1]))
    more = dataclasses.replace(
        evaluation, states=(*evaluation.states, dataclasses.replace(evaluation.states[0], name="more", source=None))
    )
    for other in (wider.evaluation.program, fewer, swapped, more):
        error = refusal(store, planted(store, training, other))
        assert error.field == "evaluation"
        assert "over other states" in error.problem


def test_fetch_program_an_evaluation_that_changes_the_model_refused(program: TaskProgram, store: BlobStore) -> None:
    training, evaluation = program.training.program, program.evaluation.program
    for number, tensor in enumerate(evaluation.states[1:], start=1):
        dtype = DType.INT32 if tensor.dtype is DType.INT64 else tensor.dtype
        # Even where what is stored is what was there.
        changing = storing(evaluation, tensor.name, Operation(Load(number), dtype, tensor.shape))
        error = refusal(store, planted(store, training, changing))
        assert (error.field, error.problem) == ("evaluation", f"The evaluation program changes {tensor.name}.")


def test_fetch_program_training_without_a_loss_or_a_counter_refused(program: TaskProgram, store: BlobStore) -> None:
    training, evaluation = program.training.program, program.evaluation.program
    renamed = dataclasses.replace(training.states[0], name="metric.other")
    headless = dataclasses.replace(training, states=(renamed, *training.states[1:]))
    assert "states begin with metric.other float32 [1]" in refusal(store, planted(store, headless, evaluation)).problem
    still = dataclasses.replace(training.states[1], source=None)
    standing = dataclasses.replace(training, states=(training.states[0], still, *training.states[2:]))
    twice = Kernel(1, (Instruction(Op.INPUT), Instruction(Op.CONST, word=2), Instruction(Op.IADD, 0, 1)))
    at = training.operations[training.states[1].source or 0].operands[0]
    leaping = storing(training, "counter.step", Operation(Pointwise(twice), DType.INT32, (1,), (at,)))
    for wrong in (standing, leaping):
        error = refusal(store, planted(store, wrong, evaluation))
        assert (error.field, "does not add one to counter.step" in error.problem) == ("training", True)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([(2500, 1000, 1000)], "constants have 10000"),
        ([(10**9,)], "constants have 4000"),
        ([(2**26,)], "constants have 2684"),
        ([(2**16, 2**16)], "has no elements, or more than 4294967295"),
        ([(2**32 - 1,) * 6], "has no elements, or more than 4294967295"),
        ([(1000, 0)], "has no elements"),
        ([(2**18,)] * 300, "constants have 3145"),
    ],
)
def test_fetch_program_huge_constants_refused_unfetched(
    program: TaskProgram, store: BlobStore, shapes: list[tuple[int, ...]], says: str
) -> None:
    training, evaluation = program.training.program, program.evaluation.program
    huge = tuple(ConstantTensor(DType.FLOAT32, shape, b"\7" * 32) for shape in shapes)
    for pair in (
        (dataclasses.replace(training, constants=(*training.constants, *huge)), evaluation),
        (training, dataclasses.replace(evaluation, constants=(*evaluation.constants, *huge))),
    ):
        assert says in refusal(store, planted(store, *pair)).problem


def test_fetch_program_constants_of_all_programs_count_together(
    program: TaskProgram, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(one.nbytes for built in program.programs for one in built.constants)
    monkeypatch.setattr(materials, "MAXIMUM_CONSTANT_BYTES", size)
    assert fetch_program(program.root, store).root == program.root
    monkeypatch.setattr(materials, "MAXIMUM_CONSTANT_BYTES", size - 1)
    assert "constants have" in refusal(store, program.root).problem


@pytest.mark.parametrize(
    ("shape", "strides", "says"),
    [
        ((2**16, 2**16), (0, 0), "has no elements, or more than 4294967295"),
        ((2**31, 2, 2), (0, 0, 0), "has no elements, or more than 4294967295"),
        ((10**9,), (1,), "it reaches element 999999999 of 1"),
        ((2,) * 7, (0,) * 7, "7 dimensions are more than 6"),
    ],
)
def test_fetch_program_impossible_tensors_refused(
    program: TaskProgram, store: BlobStore, shape: tuple[int, ...], strides: tuple[int, ...], says: str
) -> None:
    training, evaluation = program.training.program, program.evaluation.program
    loss = next(n for n, one in enumerate(training.operations) if one.attributes == Load(1))
    view = Operation(View(), DType.INT32, shape, (Operand(loss, 0, strides),))
    wrong = dataclasses.replace(training, operations=(*training.operations, view))
    assert says in refusal(store, planted(store, wrong, evaluation)).problem


def test_fetch_program_manifest_that_leads_nowhere_is_missing_and_named(store: BlobStore) -> None:
    nowhere = Manifest(seed=1, training=b"\1" * 32, evaluation=b"\2" * 32, generation=None, description={})
    store.put_bytes(manifest_path(nowhere.root), nowhere.to_bytes())
    with pytest.raises(BlobMissing) as caught:
        fetch_program(nowhere.root, store)
    assert caught.value.path == program_path(b"\1" * 32)


@pytest.mark.parametrize("record", [b"junk", b"TLXP", bytes(20), b"TLXP\0\1\1\0" + b"\xff" * 12])
def test_fetch_program_a_well_named_file_that_is_no_program_refused(
    program: TaskProgram, store: BlobStore, record: bytes
) -> None:
    data = len(record).to_bytes(4, "big") + record
    store.put_bytes(program_path(file_root(data)), data)
    manifest = dataclasses.replace(program.manifest, training=file_root(data))
    store.put_bytes(manifest_path(manifest.root), manifest.to_bytes())
    assert "In the program, the header" in refusal(store, manifest.root).problem
