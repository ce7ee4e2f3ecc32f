"""Public models by name and sizes; what is refused before anything is built."""

import builtins
from typing import Any

import pytest
import torch

from ledger.errors import SpecificationError, ToolMissing
from trainer.foreign import ForeignModel, build_foreign

GPT2 = {"kind": "gpt2", "layers": 2, "heads": 2, "width": 16}
LLAMA = {"kind": "llama", "layers": 2, "heads": 4, "key_heads": 2, "width": 16}


def built(table: dict[str, Any], *, vocabulary: int = 17, context: int = 8, seed: int = 1) -> ForeignModel:
    return build_foreign(table, vocabulary=vocabulary, context=context, seed=seed)


def count(foreign: ForeignModel) -> int:
    return sum(one.numel() for one in foreign.parameters.values())


@pytest.mark.parametrize("table", [GPT2, LLAMA, {**LLAMA, "tied_embeddings": True}], ids=["gpt2", "llama", "tied"])
def test_build_foreign_gives_a_model_its_loss_and_its_first_values(table: dict[str, Any]) -> None:
    foreign = built(table)
    tokens = torch.randint(0, 17, (3, 9), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits = foreign.logits(foreign.model, inputs)
    assert logits.shape == (3, 8, 17)
    expected = -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()
    assert torch.allclose(foreign.loss(foreign.model, inputs, targets), expected)
    assert list(foreign.parameters) == [name for name, _ in foreign.model.named_parameters()]
    assert all(one.dtype == torch.float32 and not one.requires_grad for one in foreign.parameters.values())
    assert (foreign.vocabulary, foreign.longest_context) == (17, 8)


def test_build_foreign_has_the_sizes_that_were_asked_for() -> None:
    block = 2 * 2 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)  # norms and four layers
    assert count(built(GPT2)) == (17 + 8) * 16 + 2 * block + 2 * 16
    # Queries and output, keys and values of half as many heads, three layers of 48 = 8/3 of 16 in whole eights, norms.
    block = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 48 + 2 * 16
    assert count(built(LLAMA)) == 2 * 17 * 16 + 2 * block + 16
    assert count(built({**LLAMA, "tied_embeddings": True})) == 17 * 16 + 2 * block + 16
    assert built({"kind": "llama"}).parameters["model.layers.3.mlp.up_proj.weight"].shape == (344, 128)


def test_build_foreign_draws_by_the_seed_and_leaves_torchs_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    one, again, other = built(GPT2), built(GPT2), built(GPT2, seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    name = "transformer.h.0.mlp.c_fc.weight"
    assert torch.equal(one.parameters[name], again.parameters[name])
    assert not torch.equal(one.parameters[name], other.parameters[name])


@pytest.mark.parametrize("table", [GPT2, LLAMA])
def test_check_size_bounds_the_parameters_from_above(table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    held = count(built(table))
    monkeypatch.setattr("trainer.foreign.models.MAXIMUM_PARAMETERS", held - 1)
    with pytest.raises(SpecificationError, match="parameters") as caught:
        built(table)
    assert caught.value.field == "program.model.width"
    monkeypatch.setattr("trainer.foreign.models.MAXIMUM_PARAMETERS", 2 * held)
    assert count(built(table)) == held


@pytest.mark.parametrize(
    ("table", "field", "says"),
    [
        ({}, "program.model.kind", "is missing"),
        ({"kind": "gpt3"}, "program.model.kind", "Did you mean 'gpt2'?"),
        ({**GPT2, "bias": True}, "program.model.bias", "is not a known field"),
        ({**GPT2, "dropout": 0.1}, "program.model.dropout", "Dropout is not supported"),
        ({**GPT2, "width": 15}, "program.model.width", "15, which is no multiple of the 2 heads"),
        ({**GPT2, "width": "wide"}, "program.model.width", "must be a whole number"),
        ({**GPT2, "layers": 0}, "program.model.layers", "from 1 to 128"),
        ({**LLAMA, "width": 12}, "program.model.width", "Use a multiple of 8"),
        ({**LLAMA, "key_heads": 3}, "program.model.key_heads", "3, which does not divide the 4 heads"),
        ({**LLAMA, "hidden_width": 0}, "program.model.hidden_width", "is 0"),
        ({**LLAMA, "tied_embeddings": 1}, "program.model.tied_embeddings", "must be true or false"),
        ({**LLAMA, "layers": 128, "width": 8192}, "program.model.width", "at most 268435456 are allowed"),
        ({"kind": "smollm2", "layers": 2}, "program.model.layers", "is not a known field"),
        ({"kind": "smollm2"}, "program.vocabulary", "SmolLM2 has 49152 tokens"),
    ],
)
def test_build_foreign_names_the_wrong_field(table: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        built(table)
    assert caught.value.field == field
    assert says in str(caught.value)


def test_build_foreign_without_transformers_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolMissing, match="defines llama, is not installed") as caught:
        built(LLAMA)
    assert "trainledger[models]" in caught.value.remedy
