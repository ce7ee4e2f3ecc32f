"""The contract and the judge in Python say the same of any evidence, true or changed, values of errors included."""

import random
from collections.abc import Callable

import pytest
from referee_changes import changed_bytes, changed_evidence
from referee_programs import long_world, random_world
from referee_world import BLOCK, Referee, World
from referee_world import Scene as AbiScene
from web3 import Web3

from ledger.compile import Artifact
from ledger.disputes.moves import Evidence
from ledger.errors import ContractReverted
from trainer.data.dataset import dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.dispute import judge
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.evidence import block_evidence, element_evidence, rounding_evidence, scene_of, state_evidence
from trainer.dispute.runs import RunTruth
from trainer.dispute.sources import EvidenceRefused, Scene
from trainer.program.exact import BuiltProgram, DType, Operation
from trainer.program.exact.operations import Code

pytestmark = pytest.mark.chain
Answer = int | tuple[str, dict[str, object]]
JUDGES: dict[str, Callable[..., int]] = {
    "element": judge.element,
    "stateElement": judge.state_element,
    "foldBlock": judge.fold_block,
    "foldRounding": judge.fold_rounding,
}
# Some of them are words that no fold gives.
WORDS = [0, 1, 2**63, 2**64 - 1, 2**64, 2**65, 2**66, 3 << 65, 7 << 64, 2**255, 2**256 - 1]


@pytest.fixture(scope="module")
def referee(web3: Web3, artifacts: dict[str, Artifact]) -> Referee:
    return Referee(web3, artifacts["StepReferee"])


def truth_of(world: World) -> RunTruth:
    """The same run as the product sees it; its data set has a header and a tokenizer of its own."""
    data = dataset_of(ByteTokenizer(), world.data.train, world.data.heldout)
    built = BuiltProgram(world.program, tuple(world.constants))
    return RunTruth(built, world.state, DatasetProofs(data), seed=world.seed, slot=world.slot)


def of_contract(referee: Referee, function: str, scene: Scene, numbers: tuple[int, ...], evidence: Evidence) -> Answer:
    try:
        return referee.ask(function, AbiScene(**vars(scene)), *numbers, evidence)
    except ContractReverted as refusal:
        return refusal.error, dict(refusal.arguments)


def of_judge(function: str, scene: Scene, numbers: tuple[int, ...], evidence: Evidence) -> Answer:
    try:
        return JUDGES[function](scene, *numbers, evidence)
    except EvidenceRefused as refusal:
        shown = {k: "0x" + v.hex() if isinstance(v, bytes) else v for k, v in refusal.arguments.items()}
        return refusal.error, dict(shown)


def accumulator_of(one: Operation, word: int) -> int:
    """The word; of a MAX, one that its fold can give: beyond them both have an answer, but not the same."""
    return min(word, 0x7FC00000) if one.code is Code.MAX else word


def assert_same(
    referee: Referee, function: str, scene: Scene, numbers: tuple[int, ...], evidence: Evidence, rng: random.Random
) -> int:
    """Compares the answers to the evidence as it is, with each field changed, and with another record."""
    assert isinstance(of_judge(function, scene, numbers, evidence), int)
    asked = [evidence, *changed_evidence(evidence, rng)]
    for one in asked:
        expected, answer = of_judge(function, scene, numbers, one), of_contract(referee, function, scene, numbers, one)
        if one.sources != evidence.sources and sorted(one.sources, key=repr) == sorted(evidence.sources, key=repr):
            # Exchanged: each is wrong, and which one is looked at first is nobody's affair.
            assert not isinstance(expected, int)
            assert not isinstance(answer, int)
        else:
            assert answer == expected, (function, numbers, one)
    return len(asked)


def questions(truth: RunTruth, rng: random.Random) -> list[tuple[str, int, tuple[int, ...], Evidence]]:
    """(function, leaf of the trace, numbers, evidence) of one element of each operation and of each counter."""
    asked: list[tuple[str, int, tuple[int, ...], Evidence]] = []
    for number, one in enumerate(truth.program.operations):
        place, length = rng.randrange(one.elements), truth.fold_length(number)
        if length <= BLOCK:
            asked.append(("element", number, (place,), element_evidence(truth, number, place)))
        if length:
            block, word = rng.randrange(-(-length // BLOCK)), accumulator_of(one, rng.choice(WORDS))
            asked.append(("foldBlock", number, (place, block, word), block_evidence(truth, number, place, block)))
            asked.append(("foldRounding", number, (place, word), rounding_evidence(truth, number, place)))
    for number, state in enumerate(truth.program.states):
        if state.dtype is DType.INT64 and state.source is not None:
            asked.append(("stateElement", truth.operations, (0,), state_evidence(truth, number, 0)))
    return asked


def assert_truth_is_judged_alike(referee: Referee, truth: RunTruth, rng: random.Random, share: float) -> int:
    """Compares a share of the questions; how many answers were compared."""
    compared = 0
    for function, reached, numbers, evidence in questions(truth, rng):
        if rng.random() < share:
            compared += assert_same(referee, function, scene_of(truth, reached), numbers, evidence, rng)
    return compared


def test_referee_and_judge_agree_on_changed_evidence(referee: Referee) -> None:
    rng = random.Random(1)
    compared = sum(
        assert_truth_is_judged_alike(referee, truth_of(random_world(seed)), rng, 0.05) for seed in range(200, 208)
    )
    assert compared + assert_truth_is_judged_alike(referee, truth_of(long_world(True)), rng, 0.07) > 300


def test_evidence_is_what_the_page_asks_for() -> None:
    """The product's evidence and that of the tests, written apart, are the same bytes."""
    compared = 0
    for seed in range(220, 226):
        world = random_world(seed)
        truth = truth_of(world)
        for number, one in enumerate(world.program.operations):
            if one.code is not Code.BATCH:
                for place in {0, one.elements // 2, one.elements - 1}:
                    assert element_evidence(truth, number, place) == world.element(number, place)
                    compared += 1
    world = long_world(False)
    truth = truth_of(world)
    for number, one in enumerate(world.program.operations):
        if one.fold > BLOCK:
            for block in range(-(-one.fold // BLOCK)):
                assert block_evidence(truth, number, 2, block) == world.block(number, 2, block)
                compared += 1
            assert rounding_evidence(truth, number, 2) == world.rounding(number, 2)
    assert compared > 200


def test_referee_and_judge_agree_on_accumulators(referee: Referee) -> None:
    """Words are folded on and rounded alike."""
    truth, rng = truth_of(long_world(True)), random.Random(2)
    for function, reached, (place, *rest), evidence in questions(truth, rng):
        if function.startswith("fold"):
            for word in (*WORDS, *(rng.getrandbits(256) for _ in range(2))):
                word = accumulator_of(truth.operation(reached), word)
                numbers = (place, *rest[:-1], word)
                expected = of_judge(function, scene_of(truth, reached), numbers, evidence)
                assert isinstance(expected, int)
                assert of_contract(referee, function, scene_of(truth, reached), numbers, evidence) == expected


def test_referee_and_judge_agree_on_records(referee: Referee) -> None:
    """Whatever bytes a record has: never two answers. (Records that no program holds, only the contract refuses.)"""
    rng, answered = random.Random(3), 0
    for seed in range(300, 304):
        for function, reached, numbers, evidence in questions(truth := truth_of(random_world(seed)), rng):
            record = changed_bytes(evidence.record, rng)
            shown, scene = Evidence(record, evidence.other, evidence.sources), scene_of(truth, reached)
            expected, answer = (
                of_judge(function, scene, numbers, shown),
                of_contract(referee, function, scene, numbers, shown),
            )
            answered += isinstance(answer, int)
            assert not isinstance(answer, int) or answer == expected, (function, record)
    assert answered


@pytest.mark.full
@pytest.mark.parametrize("first", range(1000, 1040, 10))
def test_referee_and_judge_agree_on_much_changed_evidence(referee: Referee, first: int) -> None:
    rng = random.Random(first)
    for seed in range(first, first + 10):
        assert assert_truth_is_judged_alike(referee, truth_of(random_world(seed)), rng, 0.7) > 200
    assert assert_truth_is_judged_alike(referee, truth_of(long_world(first % 20 == 0)), rng, 1) > 300
