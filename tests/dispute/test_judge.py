"""What the judge makes of true evidence is the interpreter's element; anything else it refuses."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from true_runs import LENGTH, segment, truth_of_folds, truth_of_random

from ledger.disputes.moves import NOTHING, Evidence, Record, Source
from trainer.dispute import judge
from trainer.dispute.evidence import block_evidence, element_evidence, rounding_evidence, scene_of, state_evidence
from trainer.dispute.runs import RunTruth, Subject
from trainer.dispute.sources import EvidenceRefused, Scene
from trainer.program.exact.operations import Code

WORDS = st.one_of(st.integers(0, 2**256 - 1), st.integers(0, 2**67), st.sampled_from([0, 2**64, 2**65, 2**66, 3 << 65]))


def assert_judged(truth: RunTruth, operation: int, element: int) -> None:
    """The judge's element is the interpreter's; of a long fold, by its blocks and its rounding."""
    scene, true = scene_of(truth, operation), truth.element_bits(Subject(False, operation), element)
    length = truth.fold_length(operation)
    if length <= 1024:
        assert judge.element(scene, element, element_evidence(truth, operation, element)) == true
    if length:
        blocks = -(-length // 1024)
        words = truth.accumulators(operation, element, range(blocks + 1))
        for block in range(blocks):
            shown = block_evidence(truth, operation, element, block)
            assert judge.fold_block(scene, element, block, words[block], shown) == words[block + 1]
        shown = rounding_evidence(truth, operation, element)
        assert judge.fold_rounding(scene, element, words[-1], shown) == true


def elements_of(truth: RunTruth, operation: int, rng: random.Random, more: int) -> set[int]:
    """First and last, around the border of the last chunk, and some others."""
    one = truth.operation(operation)
    layout = truth.tensor_layout(Subject(False, operation))
    border = (layout.chunks - 1) * 1024 // layout.width
    chosen = {0, one.elements - 1, border, max(0, border - 1)}
    return chosen | {rng.randrange(one.elements) for _ in range(more)}


@pytest.mark.parametrize("seed", range(12))
def test_element_every_one_of_a_random_program(seed: int) -> None:
    truth = truth_of_random(seed)
    for operation in range(truth.operations):
        for element in range(truth.operation(operation).elements):
            assert_judged(truth, operation, element)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(12, 300))
def test_element_every_one_of_many_random_programs(seed: int) -> None:
    truth = truth_of_random(seed)
    for operation in range(truth.operations):
        for element in range(truth.operation(operation).elements):
            assert_judged(truth, operation, element)


def test_random_programs_have_every_operation() -> None:
    truths = [truth_of_random(seed) for seed in range(12)]
    assert {truth.operation(n).code for truth in truths for n in range(truth.operations)} == set(Code)


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_element_of_a_step_of_a_model(kind: str) -> None:
    truth, rng = segment(kind).run(1), random.Random(kind)
    for operation in range(0, truth.operations, 3):
        for element in elements_of(truth, operation, rng, 1):
            assert_judged(truth, operation, element)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
@pytest.mark.parametrize("run", [0, 3])
def test_element_of_every_operation_of_a_model(kind: str, run: int) -> None:
    truth, rng = segment(kind).run(run), random.Random(kind)
    for operation in range(truth.operations):
        for element in elements_of(truth, operation, rng, 6):
            assert_judged(truth, operation, element)


@pytest.mark.parametrize("seed", range(3))
def test_fold_block_of_long_folds_ends_in_the_element(seed: int) -> None:
    truth = truth_of_folds(seed)
    folds = [number for number in range(truth.operations) if truth.fold_length(number)]
    assert {truth.operation(number).code for number in folds} == {Code.MATMUL, Code.SUM, Code.MAX, Code.SCATTER_ADD}
    for operation in folds:
        for element in range(truth.operation(operation).elements):
            assert_judged(truth, operation, element)


def test_element_of_a_long_fold_is_refused() -> None:
    truth = truth_of_folds()
    operation = next(number for number in range(truth.operations) if truth.fold_length(number) == LENGTH)
    with pytest.raises(EvidenceRefused) as refused:
        judge.element(scene_of(truth, operation), 0, element_evidence(truth, operation, 0))
    assert (refused.value.error, refused.value.arguments) == ("WrongBlock", {"length": LENGTH, "first": 0})


def test_fold_block_after_the_end_is_refused() -> None:
    truth = truth_of_folds()
    operation = next(number for number in range(truth.operations) if truth.fold_length(number) == LENGTH)
    with pytest.raises(EvidenceRefused) as refused:
        judge.fold_block(scene_of(truth, operation), 0, 3, 0, block_evidence(truth, operation, 0, 2))
    assert (refused.value.error, refused.value.arguments) == ("WrongBlock", {"length": LENGTH, "first": 3})


@pytest.mark.parametrize("seed", range(6))
def test_state_element_is_the_sign_extended_output(seed: int) -> None:
    checked = 0
    for truth in (truth_of_random(seed), segment().run(1)):
        scene = scene_of(truth, truth.operations)
        for number in filter(truth.is_counter, range(truth.states)):
            subject = Subject(True, number)
            for element in range(truth.tensor_layout(subject).size // 8):
                bits = judge.state_element(scene, element, state_evidence(truth, number, element))
                assert bits == truth.element_bits(subject, element)
                checked += 1
    assert checked


def some_evidence() -> list[tuple[RunTruth, int, int]]:
    """One element of each kind of operation, where there is one that reads something."""
    found: dict[Code, tuple[RunTruth, int, int]] = {}
    for seed in range(12):
        truth = truth_of_random(seed)
        for operation in range(truth.operations):
            code = truth.operation(operation).code
            if code not in found and element_evidence(truth, operation, 0).sources:
                found[code] = (truth, operation, 0)
    assert set(found) == set(Code)
    return list(found.values())


def changed_sources(source: Source) -> list[Source]:
    """The source with each field changed, and each hash and the chunks at a few places."""
    change = dataclasses.replace
    wrong = [
        change(source, number=source.number + 1),
        *(change(source, dtype=dtype) for dtype in (0, 1, 2, 3, 4, 6, 9, 255) if dtype != source.dtype),
        change(source, size=source.size + 1),
        change(source, size=source.size + 2048),
        change(source, first_chunk=source.first_chunk + 1),
        change(source, chunks=b""),
        change(source, chunks=source.chunks[:-1]),
        change(source, chunks=source.chunks + bytes(1024)),
        change(source, siblings=(*source.siblings, bytes(32))),
        change(source, path=(*source.path, bytes(32))),
    ]
    for place in (0, 7, 511, len(source.chunks) - 1):
        chunks = bytearray(source.chunks)
        chunks[place] ^= 1
        wrong.append(change(source, chunks=bytes(chunks)))
    for name in ("siblings", "path"):
        proof = getattr(source, name)
        for place in range(len(proof)):
            flipped = bytes([proof[place][0] ^ 128]) + proof[place][1:]
            wrong.append(change(source, **{name: (*proof[:place], flipped, *proof[place + 1 :])}))
            wrong.append(change(source, **{name: (*proof[:place], *proof[place + 1 :])}))
    return wrong


def assert_refused(scene: Scene, element: int, evidence: Evidence) -> None:
    with pytest.raises(EvidenceRefused):
        judge.element(scene, element, evidence)


def test_element_any_change_of_a_source_is_refused() -> None:
    for truth, operation, element in some_evidence():
        scene, shown = scene_of(truth, operation), element_evidence(truth, operation, element)
        for place, source in enumerate(shown.sources):
            for wrong in changed_sources(source):
                sources = (*shown.sources[:place], wrong, *shown.sources[place + 1 :])
                assert_refused(scene, element, dataclasses.replace(shown, sources=sources))
        assert_refused(scene, element, dataclasses.replace(shown, sources=shown.sources[:-1]))
        assert_refused(scene, element, dataclasses.replace(shown, sources=(*shown.sources, shown.sources[0])))
        assert_refused(scene, truth.operation(operation).elements, shown)
        if shown.other == NOTHING:
            assert_refused(scene, element, dataclasses.replace(shown, other=Record(b"\1", ())))


def test_element_another_constant_is_refused() -> None:
    truth, operation, element = next(one for one in some_evidence() if one[0].operation(one[1]).code is Code.CONST)
    scene, shown = scene_of(truth, operation), element_evidence(truth, operation, element)
    record = shown.other
    others = [
        NOTHING,
        Record(record.data[:-1] + bytes([record.data[-1] ^ 1]), record.siblings),
        Record(record.data, record.siblings[:-1]),
        Record(record.data, (*record.siblings[:-1], bytes(32))),
        truth.header(),
        truth.record(Subject(False, operation)),
    ]
    for other in others:
        assert_refused(scene, element, dataclasses.replace(shown, other=other))


def test_element_any_change_of_the_scene_is_refused() -> None:
    for truth, operation, element in some_evidence():
        code = truth.operation(operation).code
        scene, shown = scene_of(truth, operation), element_evidence(truth, operation, element)
        wrong = {
            Code.LOAD: dataclasses.replace(scene, state_before=bytes(32)),
            Code.CONST: dataclasses.replace(scene, program=bytes(32)),
            Code.BATCH: dataclasses.replace(scene, dataset=bytes(32)),
        }.get(code, dataclasses.replace(scene, frontier=tuple(bytes(32) for _ in scene.frontier)))
        assert_refused(wrong, element, shown)


def test_element_changed_record_is_refused_or_judged() -> None:
    rng = random.Random(5)
    outcomes = set()
    for truth, operation, element in some_evidence():
        scene, shown = scene_of(truth, operation), element_evidence(truth, operation, element)
        for _ in range(60):
            record = bytearray(shown.record)
            record[rng.randrange(len(record))] ^= 1 << rng.randrange(8)
            try:
                bits = judge.element(scene, element, dataclasses.replace(shown, record=bytes(record)))
                assert 0 <= bits < 2**64
                outcomes.add("judged")
            except EvidenceRefused as refused:
                outcomes.add(refused.error)
    assert {"judged", "WrongRecord", "WrongSource"} <= outcomes


@given(st.data())
def test_fold_rounding_takes_any_word(drawn: st.DataObject) -> None:
    truth = truth_of_folds()
    operation = drawn.draw(st.sampled_from([n for n in range(truth.operations) if truth.fold_length(n)]))
    scene, word = scene_of(truth, operation), drawn.draw(WORDS)
    bits = judge.fold_rounding(scene, 0, word, rounding_evidence(truth, operation, 0))
    assert 0 <= bits < 2**32
    added = judge.fold_block(scene, 0, 1, word, block_evidence(truth, operation, 0, 1))
    assert 0 <= added < 2**256


def test_fold_rounding_of_what_does_not_fold_is_refused() -> None:
    truth = truth_of_folds()
    with pytest.raises(EvidenceRefused) as refused:
        judge.fold_rounding(scene_of(truth, 1), 0, 0, element_evidence(truth, 0, 0))
    assert refused.value.error == "WrongRecord"
