"""Generation programs: PyTorch's likeliest token, the distribution of draws, windows, and logits of every kind."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from compiled_programs import compiler
from generating import (
    ADAMW,
    Bare,
    Following,
    after,
    drawn_again,
    generation,
    logits_of,
    newest,
    short_names,
    text_state,
)
from torch import Tensor, nn
from traced import CONTEXT, VOCABULARY, equal_states, mean_loss, named, small_model

from trainer.engine.exact.fast import CompiledProgram
from trainer.engine.exact.interpreter import run_program
from trainer.models import LanguageModel, RecurrentConfig, TransformerConfig
from trainer.native import compiled_program
from trainer.program.description import ScheduleConfig
from trainer.program.exact import BuiltProgram, cost_of, decode_program, encode_program
from trainer.program.exact.operations import Code, Role
from trainer.program.exact.validate import check_program
from trainer.program.tracing import TracingError, trace_generation, trace_training

MODELS = {
    "transformer": lambda: small_model(TransformerConfig(layers=2, heads=2, width=16)),
    "untied transformer with biases": lambda: small_model(
        TransformerConfig(layers=1, heads=2, width=16, bias=True, tied_embeddings=False)
    ),
    "rnn": lambda: small_model(RecurrentConfig(cell="rnn", layers=1, heads=2, width=16)),
    "gru": lambda: small_model(RecurrentConfig(cell="gru", layers=1, heads=2, width=16)),
    "lstm": lambda: small_model(RecurrentConfig(cell="lstm", layers=1, heads=2, width=16)),
}
Ready = tuple[nn.Module, BuiltProgram, CompiledProgram]
NAN, INF = math.nan, math.inf
LOGITS = (1.0, -0.5, 0.25, 2.0, -3.0, 1.5)
# 99.9 % of chi-square variables are below this, by degrees of freedom.
BOUND = {2: 13.82, 3: 16.27, 5: 20.52, 35: 66.62}


@pytest.fixture(scope="module")
def bare() -> BuiltProgram:
    return generation(Bare(LOGITS), context=3, vocabulary=len(LOGITS))


@pytest.fixture(scope="module")
def fast(bare: BuiltProgram, tmp_path_factory: pytest.TempPathFactory) -> CompiledProgram:
    folder = tmp_path_factory.mktemp("libraries")
    return compiled_program(bare.program, bare.constants, folder, compiler=compiler())


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ready]:
    """A model, its program and that compiled for two threads, each made once."""
    folder = tmp_path_factory.mktemp("libraries")

    @functools.cache
    def make(name: str) -> Ready:
        model = MODELS[name]()
        built = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
        run = compiled_program(built.program, built.constants, folder, compiler=compiler(), threads=2)
        return model, built, run

    return make


def drawn(
    built: BuiltProgram, fast: CompiledProgram, logits: Sequence[float], count: int, **settings: float
) -> list[int]:
    """First tokens of `count` seeds."""
    state = text_state(built, Bare(logits), [0], **settings)
    tokens, seed = (
        next(i for i, one in enumerate(built.program.states) if one.name == f"generation.{name}")
        for name in ("tokens", "seed")
    )
    found = []
    for number in range(count):
        state[seed][0] = number
        fast.load(state)
        fast.step()
        found.append(int(fast.state()[tokens][1].item()))
    return found


def chi_square(found: Sequence[int], chances: Sequence[float]) -> float:
    counts = Counter(found)
    expected = [len(found) * chance for chance in chances]
    return sum((counts[value] - mean) ** 2 / mean for value, mean in enumerate(expected) if mean)


def softmax(logits: Sequence[float], temperature: float) -> list[float]:
    weights = [math.exp(x / temperature) for x in logits]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("name", MODELS)
def test_trace_generation_takes_the_likeliest_token_of_torch(name: str, compiled: Callable[[str], Ready]) -> None:
    model, built, run = compiled(name)
    check_program(built.program)
    generator = torch.Generator().manual_seed(3)
    compared = 0
    for length in [1, 2, 3, 5, 6, 7, CONTEXT, CONTEXT] * 4:
        tokens = torch.randint(0, VOCABULARY, (length,), generator=generator)
        with torch.no_grad():
            logits = logits_of(model, tokens[None])[0, -1]
        first, second = logits.topk(2).values.tolist()
        if first - second > 0.01 * logits.abs().max().item():  # ten times what 13 bits leave in doubt
            compared += 1
            run.load(text_state(built, model, tokens.tolist(), temperature=0.0))
            run.step()
            assert newest(short_names(named(built, run.state())), length) == int(logits.argmax().item())
    assert compared >= 20


def test_trace_generation_computes_one_row_of_the_last_product_with_its_bits() -> None:
    model = MODELS["transformer"]()

    def copied(model: nn.Module, inputs: Tensor) -> Tensor:
        return logits_of(model, inputs).clamp(-1e30, 1e30)  # logits that are no product, so all rows are made

    few = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
    all_rows = trace_generation(model, copied, ADAMW, context=CONTEXT, vocabulary=VOCABULARY)
    saved = (CONTEXT - 1) * VOCABULARY * 16
    assert cost_of(all_rows.program).multiply_adds - cost_of(few.program).multiply_adds == saved
    state = text_state(few, model, [1, 2, 3], seed=4)

    def last_product(built: BuiltProgram) -> Tensor:
        found: list[Tensor] = []
        made = built.program.operations

        def observe(number: int, output: Tensor) -> None:
            if made[number].code is Code.MATMUL and output.shape[-1] == VOCABULARY:
                found.append(output.clone())

        run_program(built.program, state, built.constants, observe=observe)
        return found[-1].reshape(-1, VOCABULARY)

    assert equal_states([last_product(all_rows)[2]], [last_product(few)[0]])


def test_trace_generation_state_is_that_of_training_and_the_text() -> None:
    model = MODELS["gru"]()
    built = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
    schedule = ScheduleConfig(learning_rate=1e-2, minimum_learning_rate=1e-3, warmup_steps=2, total_steps=20)
    training = trace_training(model, mean_loss, ADAMW, schedule, batch_size=2, context=CONTEXT)
    kept = len(training.program.states)
    assert built.program.role is Role.GENERATE
    of = [(one.name, one.dtype, one.shape) for one in built.program.states]
    assert of[:kept] == [(one.name, one.dtype, one.shape) for one in training.program.states]
    names = ["tokens", "length", "seed", "position", "temperature", "top_k", "diverged"]
    assert [name for name, _, _ in of[kept:]] == [f"generation.{name}" for name in names]
    state = text_state(built, model, [1], seed=3)
    ended = run_program(built.program, state, built.constants)
    assert equal_states(ended[:kept], state[:kept])
    assert decode_program(encode_program(built.program)) == built.program


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_trace_generation_fused_gives_the_same_bits(name: str) -> None:
    model = MODELS[name]()
    built = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
    plain = generation(model, context=CONTEXT, vocabulary=VOCABULARY, fused=False)
    assert len(built.program.operations) < len(plain.program.operations)
    state = text_state(built, model, [1, 2], seed=9, top_k=5)
    for _ in range(3):
        ended = run_program(built.program, state, built.constants)
        assert equal_states(ended, run_program(plain.program, state, plain.constants))
        state = ended


@pytest.mark.parametrize("name", MODELS)
def test_trace_generation_compiled_gives_the_bits_of_the_reference(name: str, compiled: Callable[[str], Ready]) -> None:
    model, built, run = compiled(name)
    state = text_state(built, model, [3, 1, 4], seed=5, temperature=0.9, top_k=11)
    run.load(state)
    tokens = []
    for _ in range(CONTEXT + 2):
        length = int(short_names(named(built, state))["length"].item())
        state = run_program(built.program, state, built.constants)
        tokens.append(newest(short_names(named(built, state)), length))
        run.step()
        assert equal_states(state, run.state())
    assert len(set(tokens)) > 3


@pytest.mark.parametrize("context", [1, 2, 5])
def test_trace_generation_moves_a_full_window(context: int) -> None:
    vocabulary = 7
    model = Following(vocabulary)
    built = generation(model, context=context, vocabulary=vocabulary)
    check_program(built.program)
    state = text_state(built, model, [4], temperature=0.0)
    history = [4]
    for chosen in range(1, 10):
        state = run_program(built.program, state, built.constants)
        history.append((history[-1] + 1) % vocabulary)
        text = short_names(named(built, state))
        window = history[-context:]
        assert text["tokens"].tolist() == window + [0] * (context - len(window))
        assert (text["length"].item(), text["position"].item()) == (len(window), chosen)


def test_trace_generation_forgets_what_lies_past_the_length() -> None:
    model = MODELS["transformer"]()
    built = generation(model, context=CONTEXT, vocabulary=VOCABULARY)
    clean = text_state(built, model, [5, 6], seed=1)
    dirty = text_state(built, model, [5, 6, 7, 8, 9, 16], seed=1, length=2)
    assert equal_states(
        run_program(built.program, clean, built.constants), run_program(built.program, dirty, built.constants)
    )
    for given, meant in ((0, 1), (-7, 1), (CONTEXT + 1, CONTEXT), (2**40 + 3, 3)):
        tokens = [5, 6, 7, 8, 9, 10, 11, 12]
        odd, plain = (after(built, text_state(built, model, tokens, length=n)) for n in (given, meant))
        assert equal_states(list(odd.values()), list(plain.values()))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 3.0])
def test_draws_over_seeds_follow_the_softmax(bare: BuiltProgram, fast: CompiledProgram, temperature: float) -> None:
    found = drawn(bare, fast, LOGITS, 6000, temperature=temperature)
    assert chi_square(found, softmax(LOGITS, temperature)) < BOUND[5]


def test_draws_of_one_text_follow_the_softmax_and_not_each_other(bare: BuiltProgram, fast: CompiledProgram) -> None:
    fast.load(text_state(bare, Bare(LOGITS), [0, 0, 0], seed=123))
    place = next(i for i, one in enumerate(bare.program.states) if one.name == "generation.tokens")
    found = []
    for _ in range(12_000):
        fast.step()
        found.append(int(fast.state()[place][-1].item()))
    chances = softmax(LOGITS, 1.0)
    assert chi_square(found, chances) < BOUND[5]
    pairs = [6 * one + two for one, two in zip(found[::2], found[1::2], strict=True)]
    assert chi_square(pairs, [one * two for one in chances for two in chances]) < BOUND[35]


def test_draws_are_those_of_the_page(bare: BuiltProgram) -> None:
    generator = torch.Generator().manual_seed(6)
    for case in range(60):
        logits = (3 * torch.randn(6, generator=generator)).tolist()
        if case % 5 == 0:
            logits[case % 6], logits[case % 4] = logits[(case + 1) % 6], -0.0
        settings = {"seed": 2**32 - case, "position": 10**9 * case, "top_k": case % 8 - 1}
        temperature = [1.0, 0.3, 1e-20, 0.0, 1e30, 2.0**-126][case % 6]
        text = after(bare, text_state(bare, Bare(logits), [0], temperature=temperature, **settings))
        position = settings["position"] % 2**32
        again = drawn_again(
            logits,
            seed=settings["seed"] % 2**32,
            position=position,
            temperature=temperature,
            top_k=settings["top_k"],
        )
        assert newest(text, 1) == again
        assert text["position"].item() % 2**32 == (position + 1) % 2**32


@pytest.mark.parametrize("temperature", [0.0, -0.0, -1.0, NAN, -INF, 1e-39, 2.0**-127])
def test_cold_temperatures_take_the_first_of_the_likeliest(bare: BuiltProgram, temperature: float) -> None:
    for logits, likeliest in (
        (LOGITS, 3),
        ((0.0, 5.0, 1.0, 5.0, 5.0, 2.0), 1),
        ((-2.0, -1.0, -0.0, 0.0, 0.0, -3.0), 2),
    ):
        for seed in range(4):
            state = text_state(bare, Bare(logits), [0], temperature=temperature, seed=seed)
            assert newest(after(bare, state), 1) == likeliest


def test_the_coldest_temperature_that_draws_leaves_only_the_likeliest(
    bare: BuiltProgram, fast: CompiledProgram
) -> None:
    found = drawn(bare, fast, (7.0, 5.0, 7.0, 6.999, -1e38, 7.0), 3000, temperature=2.0**-126)
    assert chi_square([{0: 0, 2: 1, 5: 2}[one] for one in found], [1 / 3] * 3) < BOUND[2]


@pytest.mark.parametrize("temperature", [INF, 3e38])
def test_the_hottest_temperatures_draw_evenly(bare: BuiltProgram, fast: CompiledProgram, temperature: float) -> None:
    assert chi_square(drawn(bare, fast, LOGITS, 3000, temperature=temperature), [1 / 6] * 6) < BOUND[5]


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [(1, {3}), (2, {3, 5}), (4, {0, 2, 3, 5}), (5, {0, 1, 2, 3, 5}), (6, set(range(6))), (0, set(range(6)))],
)
def test_top_k_draws_among_the_likeliest(bare: BuiltProgram, fast: CompiledProgram, top_k: int, kept: set[int]) -> None:
    assert set(drawn(bare, fast, LOGITS, 300, temperature=INF, top_k=top_k)) == kept


@pytest.mark.parametrize("top_k", [7, 2**31 - 1, -1, -(2**31)])
def test_top_k_out_of_range_draws_among_all(bare: BuiltProgram, fast: CompiledProgram, top_k: int) -> None:
    assert set(drawn(bare, fast, LOGITS, 300, temperature=INF, top_k=top_k)) == set(range(6))


def test_top_k_keeps_ties_and_the_softmax_of_the_rest(bare: BuiltProgram, fast: CompiledProgram) -> None:
    assert set(drawn(bare, fast, (1.0, 4.0, 1.0, 1.0, 0.0, 5.0), 300, temperature=INF, top_k=3)) == {0, 1, 2, 3, 5}
    assert set(drawn(bare, fast, (-1.0, -INF, -4.0, NAN, -1e-40, -2.0), 300, temperature=INF, top_k=3)) == {0, 4, 5}
    found = drawn(bare, fast, LOGITS, 3000, top_k=4)
    chances = softmax([LOGITS[token] for token in (0, 2, 3, 5)], 1.0)
    assert chi_square([{0: 0, 2: 1, 3: 2, 5: 3}[one] for one in found], chances) < BOUND[3]


@pytest.mark.parametrize("temperature", [0.0, 1.0, INF])
@pytest.mark.parametrize(
    ("logits", "possible", "diverged"),
    [
        ((NAN, 1.0, 2.0, NAN, 0.0, 1.0), {1, 2, 4, 5}, 1),
        ((NAN,) * 6, {0}, 1),
        ((-INF,) * 6, {0}, 1),
        ((NAN, -INF, -INF, -INF, -INF, NAN), {0}, 1),
        ((1.0, INF, NAN, 3.0, INF, -INF), {1, 4}, 1),
        ((-INF, 1.0, -INF, 3.0, 2.0, -INF), {1, 3, 4}, 0),
        ((-3.4e38, 3.4e38, 0.0, -3.4e38, 3.4e38, 1.0), {0, 1, 2, 3, 4, 5}, 0),
    ],
)
def test_logits_of_every_kind_choose_as_said_and_are_told(
    bare: BuiltProgram,
    fast: CompiledProgram,
    logits: tuple[float, ...],
    possible: set[int],
    diverged: int,
    temperature: float,
) -> None:
    state = text_state(bare, Bare(logits), [0], temperature=temperature)
    assert after(bare, state)["diverged"].item() == diverged
    found = drawn(bare, fast, logits, 50, temperature=temperature)
    assert set(found) <= possible
    position, seeds = 0, range(50)
    assert found == [drawn_again(logits, seed=s, position=position, temperature=temperature) for s in seeds]


def test_diverged_stays_told(bare: BuiltProgram) -> None:
    assert after(bare, text_state(bare, Bare(LOGITS), [0], diverged=1))["diverged"].item() == 1
    assert after(bare, text_state(bare, Bare(LOGITS), [0], diverged=0))["diverged"].item() == 0


def _too_many(model: nn.Module, inputs: Tensor) -> Tensor:
    return logits_of(model, inputs)[..., :-1]


def _whole_numbers(model: nn.Module, inputs: Tensor) -> Tensor:
    return logits_of(model, inputs).to(torch.int64)


def _none(model: nn.Module, inputs: Tensor) -> Tensor:
    return [logits_of(model, inputs)]  # type: ignore[return-value]  # what is refused


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (_too_many, r"float32 \[1, 3, 5\], and float32 \[1, 3, 6\]"),
        (_whole_numbers, r"int64 \[1, 3, 6\]"),
        (_none, "The logits are list"),
    ],
)
def test_trace_generation_refuses_what_is_no_logits(function: Callable[[nn.Module, Tensor], Tensor], told: str) -> None:
    with pytest.raises(TracingError, match=told):
        trace_generation(Bare(LOGITS), function, ADAMW, context=3, vocabulary=6)


@pytest.mark.parametrize("vocabulary", [0, 2**24 + 1])
def test_trace_generation_refuses_vocabularies_that_cannot_be_counted(vocabulary: int) -> None:
    with pytest.raises(TracingError, match=f"A vocabulary of {vocabulary} tokens"):
        trace_generation(Bare(LOGITS), logits_of, ADAMW, context=3, vocabulary=vocabulary)


def test_trace_generation_leaves_the_model_in_its_mode() -> None:
    class Noisy(LanguageModel):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Bare(LOGITS)
            self.dropout = nn.Dropout(0.5)

        def logits(self, inputs: Tensor) -> Tensor:
            dropped: Tensor = self.dropout(self.inner.logits(inputs))
            return dropped

    model = Noisy().train()
    check_program(generation(model, context=3, vocabulary=6).program)
    assert model.dropout.training
