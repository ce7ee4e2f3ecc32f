"""Whole training and evaluation programs against PyTorch's own float32."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from public_models import EncoderBlock, Gpt2Block, LlamaBlock, PublicModel
from torch import Tensor, nn
from traced import BATCH, CONTEXT, VOCABULARY, Windows, equal_states, first_state, mean_loss, named, small_model, step

from trainer.engine.exact.interpreter import run_program
from trainer.engine.schedule import learning_rate
from trainer.models import RecurrentConfig, TransformerConfig, build_model
from trainer.program.description import OptimizerConfig, Precision, ProgramDescription, ScheduleConfig
from trainer.program.exact import BuiltProgram
from trainer.program.exact.operations import Code, Max
from trainer.program.exact.validate import check_program
from trainer.program.layout import HELDOUT_LOSS, STEP
from trainer.program.tracing.optimizers import SgdConfig
from trainer.program.tracing.refusals import TracingError
from trainer.program.tracing.training import trace_description, trace_evaluation, trace_training

SCHEDULE = ScheduleConfig(learning_rate=1e-2, minimum_learning_rate=1e-3, warmup_steps=2, total_steps=20)
PLAIN = SgdConfig(momentum=0.0)  # a step of rate 1 from zero moments leaves the gradient in moment1
WIDTH = 16


def public(block: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(5)
    return PublicModel(block(), VOCABULARY, WIDTH)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "transformer": lambda: small_model(TransformerConfig(layers=2, heads=2, width=WIDTH)),
    "transformer with biases": lambda: small_model(
        TransformerConfig(layers=1, heads=2, width=WIDTH, bias=True, tied_embeddings=False)
    ),
    "rnn": lambda: small_model(RecurrentConfig(cell="rnn", layers=1, heads=2, width=WIDTH)),
    "gru": lambda: small_model(RecurrentConfig(cell="gru", layers=1, heads=2, width=WIDTH, tied_embeddings=False)),
    "lstm": lambda: small_model(RecurrentConfig(cell="lstm", layers=1, heads=2, width=WIDTH)),
    "like GPT-2": lambda: public(lambda: Gpt2Block(WIDTH, 2, CONTEXT)),
    "like Llama": lambda: public(lambda: LlamaBlock(WIDTH, 4, 2)),
    "torch's encoder": lambda: public(lambda: EncoderBlock(WIDTH, 2)),
}


@functools.cache
def traced_plainly(name: str) -> tuple[nn.Module, BuiltProgram]:
    model = MODELS[name]()
    return model, trace_training(model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT)


def torch_gradients(model: nn.Module, windows: Windows) -> tuple[float, dict[str, Tensor]]:
    model = copy.deepcopy(model)
    loss = mean_loss(model, *windows.batch())
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_agree_with_torch(name: str) -> None:
    model, built = traced_plainly(name)
    check_program(built.program)
    windows = Windows(3)
    after = named(built, step(built, first_state(built, model), windows))
    loss, gradients = torch_gradients(model, windows)
    assert after[HELDOUT_LOSS].item() == pytest.approx(loss, rel=2e-5)
    assert after[STEP].item() == 1
    norm = torch.stack([one.norm() for one in gradients.values()]).norm()
    apart = torch.stack([(after["moment1." + key] - one).norm() for key, one in gradients.items()]).norm()
    # 13 bits of the largest element of a row leave a relative error of about 2**-13 to each product; through the layers
    # of these models, forwards and backwards, that comes to one or two thousandths of the gradient.
    assert apart < 2.5e-3 * norm


def test_fewer_bits_give_coarser_gradients() -> None:
    model = small_model(TransformerConfig(layers=1, heads=2, width=WIDTH))
    windows = Windows(3)
    _, gradients = torch_gradients(model, windows)
    apart = {}
    for bits in ((13, 13, 13), (8, 8, 13), (8, 8, 8)):
        built = trace_training(
            model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT, precision=Precision(*bits)
        )
        after = named(built, step(built, first_state(built, model), windows))
        apart[bits] = sum((after["moment1." + key] - one).square().sum().item() for key, one in gradients.items())
    assert apart[13, 13, 13] < apart[8, 8, 13] / 50 < apart[8, 8, 8]


@pytest.mark.parametrize("name", ["transformer", "gru"])
def test_training_follows_torch(name: str) -> None:
    model = MODELS[name]()
    config = OptimizerConfig()
    built = trace_training(model, mean_loss, config, SCHEDULE, batch_size=BATCH, context=CONTEXT)
    state = first_state(built, model)
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for one in model.parameters() if one.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [one for one in model.parameters() if one.dim() < 2], "weight_decay": 0.0},
        ],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )
    for done in range(6):
        windows = Windows(done)
        state = step(built, state, windows)
        loss = mean_loss(model, *windows.batch())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(SCHEDULE, done)
        optimizer.step()
        assert named(built, state)[HELDOUT_LOSS].item() == pytest.approx(loss.item(), rel=5e-4)
    assert named(built, state)[STEP].item() == 6


def test_trace_training_lays_the_state_out_as_formats_says() -> None:
    model = MODELS["gru"]()
    built = trace_training(model, mean_loss, OptimizerConfig(), SCHEDULE, batch_size=BATCH, context=CONTEXT)
    keys = [name for name, _ in model.named_parameters()]
    moments = [prefix + key for prefix in ("parameter.", "moment1.", "moment2.") for key in keys]
    assert [tensor.name for tensor in built.program.states] == [HELDOUT_LOSS, STEP, *moments]


def test_shards_give_the_mean_of_their_gradients() -> None:
    model, whole = traced_plainly("transformer")
    halves = trace_training(model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT, shards=2)
    windows = Windows(4)
    one, two = (named(built, step(built, first_state(built, model), windows)) for built in (whole, halves))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-2, atol=2e-4)
    with pytest.raises(TracingError, match="no 3 equal shards"):
        trace_training(model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT, shards=3)


def test_attention_takes_the_maximum_of_its_scores_once() -> None:
    operations = traced_plainly("transformer")[1].program.operations
    maxima = [one for one in operations if isinstance(one.attributes, Max) and not one.attributes.magnitudes]
    assert len(maxima) == 3  # two layers, and the loss


def test_the_same_model_traces_to_the_same_program() -> None:
    model, built = traced_plainly("transformer")
    again = trace_training(model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT)
    assert again.program == built.program


@pytest.mark.parametrize("name", ["transformer with biases", "lstm"])
def test_fused_training_gives_the_same_bits(name: str) -> None:
    model, fused = traced_plainly(name)
    plain = trace_training(model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT, fused=False)
    assert len(fused.program.operations) < 0.95 * len(plain.program.operations)
    state = first_state(fused, model)
    assert equal_states(step(fused, state, Windows(5)), step(plain, state, Windows(5)))


@pytest.mark.parametrize("name", ["transformer", "rnn"])
def test_evaluation_measures_all_windows(name: str) -> None:
    model, trained = traced_plainly(name)
    built = trace_evaluation(model, mean_loss, PLAIN, windows=7, evaluation_batch=4, context=CONTEXT)
    check_program(built.program)
    assert [s.name for s in built.program.states] == [s.name for s in trained.program.states]
    state, windows = first_state(built, model), Windows(6)
    after = run_program(built.program, state, built.constants, windows)
    with torch.no_grad():
        expected = mean_loss(model, *windows.batch(7)).item()
    assert after[0].item() == pytest.approx(expected, rel=2e-5)
    assert equal_states(after[1:], state[1:])


def test_trace_description_keeps_the_layout_of_the_description() -> None:
    model = {"kind": "transformer", "layers": 1, "heads": 2, "width": 8}
    table = {"model": model, "context": CONTEXT, "batch_size": 2, "evaluation_windows": 5, "evaluation_batch": 3}
    description = ProgramDescription.from_task_file(table, vocabulary=VOCABULARY, total_steps=10)
    module = build_model(description.model, vocabulary=VOCABULARY, context=CONTEXT)
    layout: list[tuple[str, tuple[int, ...]]] = [(HELDOUT_LOSS, (1,)), (STEP, (1,))]
    for prefix in ("parameter.", "moment1.", "moment2."):
        layout += [(prefix + name, tuple(one.shape)) for name, one in module.named_parameters()]
    for built, rows in zip(trace_description(description, windows=4), (2, 4), strict=True):
        check_program(built.program)
        assert [(one.name, one.shape) for one in built.program.states] == layout
        batches = [one for one in built.program.operations if one.code is Code.BATCH]
        assert [one.shape for one in batches] == [(rows, CONTEXT)] * 2


def test_frozen_parameters_stay_and_have_no_moments() -> None:
    model = MODELS["transformer"]()
    model.get_submodule("embedding").requires_grad_(False)
    built = trace_training(model, mean_loss, OptimizerConfig(), SCHEDULE, batch_size=BATCH, context=CONTEXT)
    state = first_state(built, model)
    before, after = named(built, state), named(built, step(built, state, Windows(7)))
    assert "moment1.embedding.weight" not in before
    assert torch.equal(before["parameter.embedding.weight"], after["parameter.embedding.weight"])
    assert not torch.equal(before["parameter.positions.weight"], after["parameter.positions.weight"])


def test_trace_training_refuses_parameters_of_other_types() -> None:
    model = MODELS["transformer"]().to(torch.bfloat16)
    with pytest.raises(TracingError, match=r"embedding\.weight is bfloat16") as caught:
        trace_training(model, mean_loss, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT)
    assert "model.float()" in caught.value.remedy
