"""Whatever is changed in evidence, the referee refuses it, and says with an error of its own what is wrong."""

import random
from dataclasses import replace

import pytest
from referee_changes import changed_bytes, changed_evidence
from referee_programs import batch_world, long_world, random_world
from referee_world import NO_RECORD, Referee, Scene, World
from web3 import Web3

from ledger.compile import Artifact
from ledger.disputes.moves import Evidence
from ledger.errors import ContractReverted
from trainer.program.exact.operations import Code

pytestmark = pytest.mark.chain
ERRORS = {
    "WrongProof",
    "WrongProofLength",
    "WrongSource",
    "WrongSourceCount",
    "WrongDtype",
    "NoSuchChunks",
    "MissingChunk",
    "WrongRecord",
}
KERNEL_ERRORS = {"KernelLength", "NotAnInstruction", "RegisterNotEarlier", "NoSuchInput"}


@pytest.fixture(scope="module")
def referee(web3: Web3, artifacts: dict[str, Artifact]) -> Referee:
    return Referee(web3, artifacts["StepReferee"])


def outcome(referee: Referee, scene: Scene, place: int, evidence: Evidence) -> int | str:
    """The element, or the name of the error."""
    try:
        return referee.element(scene, place, evidence)
    except ContractReverted as refusal:
        return refusal.error


def assert_refused(
    referee: Referee, function: str, scene: Scene, arguments: tuple[int, ...], evidence: Evidence
) -> str:
    with pytest.raises(ContractReverted) as refusal:
        referee.ask(function, scene, *arguments, evidence)
    assert refusal.value.error in ERRORS, refusal.value
    return refusal.value.error


def assert_every_change_refused(
    referee: Referee, function: str, scene: Scene, arguments: tuple[int, ...], evidence: Evidence, rng: random.Random
) -> set[str]:
    referee.ask(function, scene, *arguments, evidence)  # as it stands it is accepted
    changes = list(changed_evidence(evidence, rng))
    return {assert_refused(referee, function, scene, arguments, other) for other in changes}


def refused_elements(referee: Referee, world: World, codes: set[Code], rng: random.Random) -> set[str]:
    """Changes the evidence of one element of the last operation of each code in `codes`, and takes the code out."""
    errors: set[str] = set()
    for number, one in reversed(list(enumerate(world.program.operations))):
        if one.code in codes:
            codes.remove(one.code)
            place = rng.randrange(one.elements)
            scene, evidence = world.scene(number), world.element(number, place)
            errors |= assert_every_change_refused(referee, "element", scene, (place,), evidence, rng)
    return errors


def test_element_with_any_field_changed_is_refused(referee: Referee) -> None:
    codes, rng, errors, seed = set(Code), random.Random(1), set[str](), 40
    while codes:
        errors |= refused_elements(referee, random_world(seed), codes, rng)
        seed += 1
    assert errors == ERRORS - {"MissingChunk"}  # whole chunks of another place: below


def test_fold_block_with_any_field_changed_is_refused(referee: Referee) -> None:
    world, rng = long_world(True), random.Random(2)
    codes = {Code.MATMUL, Code.SUM, Code.MAX, Code.SCATTER_ADD}
    for number, one in enumerate(world.program.operations):
        if one.code in codes and one.fold > 2048:
            codes.remove(one.code)
            scene, block, rounding = world.scene(number), world.block(number, 1, 1), world.rounding(number, 1)
            assert_every_change_refused(referee, "foldBlock", scene, (1, 1, 77), block, rng)
            assert_every_change_refused(referee, "foldRounding", scene, (1, 77), rounding, rng)
    assert not codes


def test_state_element_with_any_field_changed_is_refused(referee: Referee) -> None:
    rng, compared = random.Random(3), 0
    for seed in range(6):
        world = random_world(seed)
        if world.program.states[1].source is not None:
            scene, evidence = world.scene(len(world.program.operations)), world.state_element(1, 0)
            assert_every_change_refused(referee, "stateElement", scene, (0,), evidence, rng)
            compared += 1
    assert compared


def test_element_under_another_scene_is_refused_or_another_batch(referee: Referee) -> None:
    world, rng = batch_world(1500, 700, 12, 0), random.Random(4)
    scene, evidence = world.scene(0), world.element(0, 20)
    for other in (
        replace(scene, state_before=changed_bytes(scene.state_before, rng)),
        replace(scene, dataset=changed_bytes(scene.dataset, rng)),
        replace(scene, states=scene.states + 1),
        replace(scene, states=1),
    ):
        assert_refused(referee, "element", other, (20,), evidence)
    # Another seed or slot reads other tokens: there the chunk shown may be the wrong one, but never the token.
    for other in (replace(scene, seed=scene.seed - 1), replace(scene, slot=1)):
        answer = outcome(referee, other, 20, evidence)
        assert answer == "MissingChunk" or (isinstance(answer, int) and answer != world.bits(0, 20))


def test_element_of_an_operation_that_is_not_agreed_is_refused(referee: Referee) -> None:
    """An operand may be read only where it comes before the operation in question."""
    world = random_world(3)
    number = max(n for n, one in enumerate(world.program.operations) if one.operands and one.code is not Code.CAT)
    source = world.program.operations[number].operands[0].source
    evidence = world.element(number, 0)
    for reached in range(source + 1):
        assert assert_refused(referee, "element", world.scene(reached), (0,), evidence) in {"WrongSource"}
    short = replace(world.scene(number), frontier=())
    assert assert_refused(referee, "element", short, (0,), evidence) == "WrongProofLength"


def test_element_outside_the_output_is_refused(referee: Referee) -> None:
    world = random_world(2)
    for number, one in enumerate(world.program.operations):
        for place in (one.elements, 2**32, 2**64 - 1):
            with pytest.raises(ContractReverted) as refusal:
                referee.element(world.scene(number), place, world.element(number, 0))
            assert refusal.value.error == "NoSuchElement"
            assert refusal.value.arguments == {"element": place, "elements": one.elements}


def test_folds_refuse_what_is_too_long_or_no_block(referee: Referee) -> None:
    world = long_world(False)
    number = next(n for n, one in enumerate(world.program.operations) if one.code is Code.SUM and one.fold == 2600)
    scene = world.scene(number)
    with pytest.raises(ContractReverted) as refusal:
        referee.element(scene, 0, world.element(number, 0))
    assert (refusal.value.error, refusal.value.arguments) == ("WrongBlock", {"length": 2600, "first": 0})
    for block in (3, 2**64 - 1):
        with pytest.raises(ContractReverted) as refusal:
            referee.fold_block(scene, 0, block, 0, world.block(number, 0, 2))
        assert (refusal.value.error, refusal.value.arguments) == ("WrongBlock", {"length": 2600, "first": block})
    # The last block shown for the one before it, and the other way round.
    for block, shown in ((1, 2), (2, 1)):
        with pytest.raises(ContractReverted) as refusal:
            referee.fold_block(scene, 0, block, 0, world.block(number, 0, shown))
        assert refusal.value.error == "MissingChunk"


def test_element_from_chunks_of_another_place_is_refused(referee: Referee) -> None:
    """Everything shown is true, but it is not what the element depends on."""
    world = long_world(False)
    number = next(n for n, one in enumerate(world.program.operations) if one.code is Code.POINTWISE)
    scene, evidence, elsewhere = world.scene(number), world.element(number, 600), world.element(number, 2000)
    assert outcome(referee, scene, 600, evidence) == world.bits(number, 600)
    assert outcome(referee, scene, 600, elsewhere) == "MissingChunk"
    assert outcome(referee, scene, 2000, evidence) == "MissingChunk"


def test_folds_refuse_operations_that_do_not_fold(referee: Referee) -> None:
    world = random_world(5)
    for number, one in enumerate(world.program.operations):
        if one.code not in {Code.MATMUL, Code.SUM, Code.MAX, Code.SCATTER_ADD}:
            scene, evidence = world.scene(number), replace(world.element(number, 0), other=NO_RECORD)
            assert assert_refused(referee, "foldBlock", scene, (0, 0, 0), evidence) == "WrongRecord"
            assert assert_refused(referee, "foldRounding", scene, (0, 0), evidence) == "WrongRecord"


def test_fold_rounding_of_any_accumulator_answers(referee: Referee) -> None:
    """A liar's accumulator has a result too, whatever word it is."""
    world, rng = long_world(False), random.Random(6)
    words = [0, 1, 2**63, 2**64 - 1, 2**64, 2**65, 2**66, 7 << 64, 2**255 - 1, 2**255, 2**256 - 1]
    for number, one in enumerate(world.program.operations):
        if one.fold == 2600:
            for word in (*words, *(rng.getrandbits(256) for _ in range(4))):
                answer = referee.fold_rounding(world.scene(number), 0, word, world.rounding(number, 0))
                assert 0 <= answer < 2**32
                folded = referee.fold_block(world.scene(number), 0, 1, word, world.block(number, 0, 1))
                assert 0 <= folded < 2**256


def test_records_of_any_bytes_never_panic(referee: Referee) -> None:
    """The caller proves records, but a program may be one that no loader accepts."""
    world, rng = random_world(8), random.Random(7)
    known, answered = ERRORS | KERNEL_ERRORS | {"NoSuchElement", "WrongBlock"}, 0
    for number, one in enumerate(world.program.operations):
        evidence = world.element(number, 0)
        for _ in range(12):
            record = changed_bytes(evidence.record, rng)
            record = record[: rng.randrange(len(record) + 1)] if rng.random() < 0.2 else record
            answer = outcome(referee, world.scene(number), 0, replace(evidence, record=record))
            answered += isinstance(answer, int)
            assert isinstance(answer, int) or answer in known, (one, answer)
    assert answered


def test_calldata_cut_short_reverts(referee: Referee) -> None:
    world, rng = random_world(9), random.Random(8)
    number = next(n for n, one in enumerate(world.program.operations) if one.code is Code.MATMUL)
    data = referee.calldata("element", world.scene(number), 0, world.element(number, 0))
    assert referee.send("element", data) == world.bits(number, 0)
    for _ in range(40):
        with pytest.raises(ContractReverted):
            referee.send("element", data[: rng.randrange(len(data) - 32)])
