"""The referee against the reference interpreter: every operation, element by element, on a real EVM."""

import random
from collections import Counter

import pytest
from referee_programs import batch_world, long_world, random_world, traced_world
from referee_world import BLOCK, Referee, World
from web3 import Web3

from ledger.compile import Artifact
from trainer.program.exact import DType
from trainer.program.exact.operations import Code

pytestmark = pytest.mark.chain
FOLDS = {Code.MATMUL, Code.SUM, Code.MAX, Code.SCATTER_ADD}


@pytest.fixture(scope="module")
def referee(web3: Web3, artifacts: dict[str, Artifact]) -> Referee:
    return Referee(web3, artifacts["StepReferee"])


def assert_elements(referee: Referee, world: World, each: int) -> Counter[Code]:
    """Compares up to `each` elements of every operation, often the first and the last among them."""
    rng, compared = random.Random(each), Counter[Code]()
    for number, one in enumerate(world.program.operations):
        if one.fold > BLOCK:
            continue
        places = {0, one.elements - 1} | {rng.randrange(one.elements) for _ in range(each)}
        for place in rng.sample(sorted(places), min(each, len(places))):
            answer = referee.element(world.scene(number), place, world.element(number, place))
            assert answer == world.bits(number, place), (number, one, place)
            compared[one.code] += 1
    return compared


def assert_states(referee: Referee, world: World) -> int:
    """Compares every element of counters that operations write."""
    scene, compared = world.scene(len(world.program.operations)), 0
    for number, tensor in enumerate(world.program.states):
        if tensor.dtype is DType.INT64 and tensor.source is not None:
            for place in range(world.after[number].numel()):
                answer = referee.state_element(scene, place, world.state_element(number, place))
                assert answer == world.state_bits(number, place), (number, place)
                compared += 1
    return compared


def assert_folds(referee: Referee, world: World, number: int, place: int) -> None:
    """Folds an element block by block, and rounds it."""
    scene, accumulator = world.scene(number), 1  # what comes before block 0 is ignored
    for block in range(-(-world.program.operations[number].fold // BLOCK)):
        accumulator = referee.fold_block(scene, place, block, accumulator, world.block(number, place, block))
    answer = referee.fold_rounding(scene, place, accumulator, world.rounding(number, place))
    assert answer == world.bits(number, place), (number, place)


def test_referee_fits_into_a_contract(artifacts: dict[str, Artifact]) -> None:
    assert len(artifacts["StepReferee"].runtime_bytecode) <= 24_576  # EIP-170


def test_element_equals_the_interpreter(referee: Referee) -> None:
    compared = sum((assert_elements(referee, random_world(seed), 2) for seed in range(14)), Counter[Code]())
    assert set(compared) == set(Code)
    assert sum(compared.values()) > 400


def test_element_of_a_traced_training_step(referee: Referee) -> None:
    compared = assert_elements(referee, traced_world("transformer"), 1)
    assert set(compared) == set(Code)
    assert sum(compared.values()) > 300


def test_state_element_equals_the_interpreter(referee: Referee) -> None:
    assert sum(assert_states(referee, random_world(seed)) for seed in range(12)) > 20


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
def test_fold_block_and_rounding_equal_the_interpreter(referee: Referee, special: bool) -> None:
    world, rng, folded = long_world(special), random.Random(3), Counter[Code]()
    for number, one in enumerate(world.program.operations):
        if one.code in FOLDS:
            assert_folds(referee, world, number, rng.randrange(one.elements))
            folded[one.code] += 1
    assert folded.keys() == FOLDS
    assert sum(assert_elements(referee, world, 2).values()) > 40


# More tokens than a chunk holds; a held-out part that ends inside a batch; a train part with no room for a window.
@pytest.mark.parametrize(
    ("train", "heldout", "step", "slot"),
    [(1500, 20, 12, 0), (700, 512, -1, 2**32 - 1), (9, 1, 2**62, 1), (10, 700, 0, 0), (1, 36, -(2**63), 5)],
)
def test_element_of_a_batch_at_the_edges(referee: Referee, train: int, heldout: int, step: int, slot: int) -> None:
    world = batch_world(train, heldout, step, slot)
    compared = assert_elements(referee, world, 12)
    assert compared[Code.BATCH] >= 6 * 10


@pytest.mark.full
@pytest.mark.parametrize("first", range(100, 300, 25))
def test_element_equals_the_interpreter_over_thousands(referee: Referee, first: int) -> None:
    compared = Counter[Code]()
    for seed in range(first, first + 25):
        world = random_world(seed)
        compared += assert_elements(referee, world, 8)
        assert_states(referee, world)
    assert set(compared) == set(Code)
    assert sum(compared.values()) > 2500


@pytest.mark.full
@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_element_of_a_traced_training_step_many(referee: Referee, kind: str) -> None:
    assert sum(assert_elements(referee, traced_world(kind), 12).values()) > 2000


@pytest.mark.full
@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
def test_fold_block_and_rounding_equal_the_interpreter_everywhere(referee: Referee, special: bool) -> None:
    world = long_world(special)
    for number, one in enumerate(world.program.operations):
        if one.code in FOLDS:
            for place in range(one.elements):
                assert_folds(referee, world, number, place)
