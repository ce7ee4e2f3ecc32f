"""Models of the package transformers, as they are: losses and gradients against PyTorch's own, and what is refused."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from traced import BATCH, CONTEXT, VOCABULARY, Windows, equal_states, first_state, named, step
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from trainer.engine.exact.interpreter import run_program
from trainer.engine.schedule import learning_rate
from trainer.native import compiled_program
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram
from trainer.program.exact.validate import check_program
from trainer.program.layout import HELDOUT_LOSS
from trainer.program.tracing import Precision, SgdConfig, TracingError, trace_evaluation, trace_training

SCHEDULE = ScheduleConfig(learning_rate=1e-2, minimum_learning_rate=1e-3, warmup_steps=2, total_steps=20)
PLAIN = SgdConfig(momentum=0.0)  # a step of rate 1 from zero moments leaves the gradient in moment1

MARKS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
GPT2: dict[str, Any] = {
    **MARKS,
    "vocab_size": VOCABULARY,
    "n_positions": CONTEXT,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    # Wider than usual, or the gradients of so small a model are noise.
    "initializer_range": 0.2,
}
SURE = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA: dict[str, Any] = {
    **MARKS,
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}


def gpt2(**given: Any) -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(**{**GPT2, **given}))


def llama(**given: Any) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, **given}))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2 eager": lambda: gpt2(**SURE, attn_implementation="eager"),
    "gpt2 sdpa": lambda: gpt2(**SURE, attn_implementation="sdpa"),
    "llama eager": lambda: llama(attn_implementation="eager"),
    "llama sdpa, tied": lambda: llama(attn_implementation="sdpa", tie_word_embeddings=True),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**{**LLAMA, "sliding_window": 4})),
}


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), targets.flatten())


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(5)
    return make()


def traced(model: nn.Module, bits: int = 13) -> BuiltProgram:
    precision = Precision(bits, bits, bits)
    return trace_training(model, loss_of, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT, precision=precision)


@functools.cache
def traced_plainly(name: str) -> tuple[nn.Module, BuiltProgram]:
    model = seeded(MODELS[name])
    return model, traced(model)


def torch_gradients(model: nn.Module, windows: Windows) -> tuple[float, dict[str, Tensor]]:
    model = copy.deepcopy(model)
    loss = loss_of(model, *windows.batch())
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def apart(built: BuiltProgram, model: nn.Module, windows: Windows) -> dict[str, float]:
    """How far each gradient is from PyTorch's, as a part of its norm."""
    after = named(built, step(built, first_state(built, model), windows))
    _, gradients = torch_gradients(model, windows)
    assert gradients.keys() == dict(model.named_parameters()).keys()
    return {key: ((after["moment1." + key] - one).norm() / one.norm()).item() for key, one in gradients.items()}


@pytest.mark.parametrize("name", MODELS)
def test_trace_training_agrees_with_torch_on_loss_and_each_gradient(name: str) -> None:
    model, built = traced_plainly(name)
    check_program(built.program)
    windows = Windows(3)
    after = named(built, step(built, first_state(built, model), windows))
    loss, _ = torch_gradients(model, windows)
    # The logits' errors, a thousandth of them or so, mostly cancel in the mean over 32 places: 1e-5 to 4e-5 was seen.
    assert after[HELDOUT_LOSS].item() == pytest.approx(loss, rel=1e-4)
    # 13 bits of a row's largest element leave each operand of a product an error of 2e-4 of its norm or so (half a unit
    # of 2^-12 of the largest, over the root of 3, where the largest is twice or three times the usual), and the product
    # 3e-4. On its way forwards and back a gradient meets 30 products, whose errors add like independent ones: 1.7e-3.
    # Gradients in which large terms cancel have more of it; three times as much is the most allowed.
    assert max(apart(built, model, windows).values()) < 5e-3


@pytest.mark.parametrize("name", ["gpt2 eager", "llama eager"])
def test_trace_training_errs_by_nothing_but_the_products_bits(name: str) -> None:
    """With 4 bits less every gradient is some 16 times further off: a mistake would not shrink along with the unit."""
    model, built = traced_plainly(name)
    fine, coarse = apart(built, model, Windows(3)), apart(traced(model, 9), model, Windows(3))
    assert all(coarse[key] > 5 * fine[key] for key in fine)
    assert 10 < sum(coarse.values()) / sum(fine.values()) < 26


@pytest.mark.parametrize("name", ["gpt2 sdpa", "llama sdpa, tied"])
def test_training_follows_torch(name: str, tmp_path: Path) -> None:
    """Six steps of AdamW; the compiled program has the reference's bits in all of them."""
    model, config = seeded(MODELS[name]), OptimizerConfig()
    built = trace_training(model, loss_of, config, SCHEDULE, batch_size=BATCH, context=CONTEXT)
    state = first_state(built, model)
    fast = compiled_program(built.program, built.constants, tmp_path)
    fast.load(state)
    matrices, vectors = ([p for p in model.parameters() if (p.dim() >= 2) is wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )
    for done in range(6):
        windows = Windows(done)
        state = step(built, state, windows)
        fast.step(windows)
        assert equal_states(state, fast.state()), done
        loss = loss_of(model, *windows.batch())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(SCHEDULE, done)
        optimizer.step()
        assert named(built, state)[HELDOUT_LOSS].item() == pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.parametrize("name", ["gpt2 sdpa", "llama eager"])
def test_trace_evaluation_measures_what_torch_does(name: str) -> None:
    model, _ = traced_plainly(name)
    built = trace_evaluation(model, loss_of, PLAIN, windows=7, evaluation_batch=4, context=CONTEXT)
    windows = Windows(6)
    after = run_program(built.program, first_state(built, model), built.constants, windows)
    with torch.no_grad():
        assert after[0].item() == pytest.approx(loss_of(model, *windows.batch(7)).item(), rel=1e-4)


def test_trace_training_takes_the_loss_of_transformers_itself() -> None:
    """`labels` shifts inside: the loss of 7 of 8 places."""
    model = seeded(MODELS["llama eager"])

    def own(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = model(input_ids=inputs, labels=inputs).loss
        return loss

    built = trace_training(model, own, PLAIN, SCHEDULE, batch_size=BATCH, context=CONTEXT)
    windows = Windows(8)
    after = step(built, first_state(built, model), windows)
    assert after[0].item() == pytest.approx(own(model, *windows.batch()).item(), rel=1e-4)


def test_trace_training_lists_tied_parameters_once() -> None:
    names = [one.name for one in traced_plainly("gpt2 eager")[1].program.states]
    assert "parameter.transformer.wte.weight" in names
    assert not any("lm_head" in name for name in names)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str, str, str]] = {
    "dropout, GPT-2's default": (
        gpt2,
        "transformer.drop",
        "aten.bernoulli.p",
        "draws random numbers",
        "Set dropout to 0",
    ),
    "dropout of attention": (
        lambda: llama(attention_dropout=0.1),
        "model.layers.0.self_attn",
        "aten.bernoulli.p",
        "draws random numbers",
        "Set dropout to 0",
    ),
    "bfloat16": (
        lambda: llama().to(torch.bfloat16),
        "model.embed_tokens",
        "",
        "model.embed_tokens.weight is bfloat16",
        "model.float()",
    ),
    "convolution": (
        lambda: MambaForCausalLM(
            MambaConfig(**MARKS, vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
        ),
        "backbone.layers.0.mixer",
        "aten.convolution.default",
        "is not supported in exact programs",
        "unfolded slices and a linear layer",
    ),
    "the best of some experts": (
        lambda: MixtralForCausalLM(MixtralConfig(**LLAMA, num_local_experts=4, experts_implementation="batched_mm")),
        "model.layers.0.mlp.gate",
        "aten.topk.default",
        "is not supported in exact programs",
        "use a mask, a maximum",
    ),
    "a loop over the experts that are named": (
        lambda: MixtralForCausalLM(MixtralConfig(**LLAMA, num_local_experts=4, experts_implementation="eager")),
        "model.layers.0.mlp.experts",
        "aten._local_scalar_dense.default",
        "decides by a tensor's value in Python",
        "Use torch.where",
    ),
    "an autograd function": (
        lambda: BloomForCausalLM(BloomConfig(**MARKS, vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2)),
        "transformer.h.0.mlp.gelu_impl",
        "",
        "has a gradient of its own making",
        "with ordinary operators",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_trace_training_refuses_and_names_module_operator_and_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, module, operator, problem, remedy = REFUSED[name]
    monkeypatch.setattr(transformers.logging.get_logger("transformers"), "disabled", True)  # on what a model lacks
    with pytest.raises(TracingError) as caught:
        traced(seeded(make))
    assert (caught.value.module, caught.value.operator) == (module, operator)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
