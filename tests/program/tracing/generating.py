"""Models whose logits are known exactly, runs of generation programs, and the draw written a second time."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from traced import first_state, named

from trainer.engine.exact.functions import function_kernel
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.kernels import run_kernel
from trainer.models import LanguageModel
from trainer.program.description import OptimizerConfig
from trainer.program.exact import BuiltProgram
from trainer.program.tracing import trace_generation

ADAMW = OptimizerConfig()


class Bare(LanguageModel):
    """The same logits at every place, whatever the text."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float32))

    def logits(self, inputs: Tensor) -> Tensor:
        return self.values.expand(*inputs.shape, len(self.values))


class Following(LanguageModel):
    """The likeliest after each token is the next one: the logit is 1 there and 0 elsewhere."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.eye(vocabulary).roll(1, 1))

    def logits(self, inputs: Tensor) -> Tensor:
        return self.table[inputs]


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    assert isinstance(model, LanguageModel)
    return model.logits(inputs)


def generation(model: nn.Module, *, context: int, vocabulary: int, fused: bool = True) -> BuiltProgram:
    return trace_generation(model, logits_of, ADAMW, context=context, vocabulary=vocabulary, fused=fused)


def text_state(built: BuiltProgram, model: nn.Module, tokens: Sequence[int], **settings: float) -> list[Tensor]:
    """The state before a run: a model's parameters, a window that begins with tokens, and numbers by short name."""
    state = first_state(built, model)
    held = named(built, state)
    window = held["generation.tokens"]
    window[: len(tokens)] = torch.tensor(tokens)
    for name, value in {"length": len(tokens), "temperature": 1.0, **settings}.items():
        held[f"generation.{name}"][0] = value
    return state


def after(built: BuiltProgram, state: Sequence[Tensor]) -> dict[str, Tensor]:
    """The text's part of the state after a run, by short name."""
    found = named(built, run_program(built.program, state, built.constants))
    return short_names(found)


def short_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("generation."): one for name, one in state.items() if name.startswith("generation.")}


def newest(text: Mapping[str, Tensor], length: int) -> int:
    """The token that a run added to a text of that length."""
    return int(text["tokens"][min(length, len(text["tokens"]) - 1)].item())


def drawn_again(logits: Sequence[float], *, seed: int, position: int, temperature: float, top_k: int = 0) -> int:
    """The choice as docs/generation.md has it, one token at a time, in numpy's float32 and Python's integers."""
    minus_infinity = np.float32(-np.inf)
    usable = [minus_infinity if np.isnan(x) else np.float32(x) for x in logits]
    keys = [_key(x) for x in usable]
    greatest = usable[max(range(len(usable)), key=keys.__getitem__)]
    kept = top_k if 1 <= top_k <= len(keys) else len(keys)
    limit = sorted(keys, reverse=True)[kept - 1]
    heat = np.float32(min(np.float32(temperature), np.finfo(np.float32).max))
    scores = []
    with np.errstate(over="ignore"):
        for token, (x, key) in enumerate(zip(usable, keys, strict=True)):
            if not np.float32(2.0**-126) <= np.float32(temperature):
                scores.append(x)
            elif key < limit or x == minus_infinity:
                scores.append(minus_infinity)
            else:
                distance = np.float32(0) if x == greatest else x - greatest
                scores.append(distance / heat + _noise(seed, position, token))
    return scores.index(max(scores))


def _key(x: np.float32) -> int:
    bits: int = struct.unpack("<i", struct.pack("<f", x))[0]
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _noise(seed: int, position: int, token: int) -> np.float32:
    word = _threefry((seed, 0), (token, position))
    one = np.float32(1)
    v = np.float32(np.float32((word >> 1) | 1) * np.float32(2.0**-31))
    v = v if v < one else np.float32(1 - 2.0**-24)
    r = one - v
    e = v if r == one else (_log(r) * v) / (r - one)
    return np.float32(0) - _log(e)


def _log(x: np.float32) -> np.float32:
    word = torch.tensor([float(x)], dtype=torch.float32).view(torch.int32)
    return np.float32(run_kernel(function_kernel("log"), [word]).view(torch.float32).item())


def _threefry(key: tuple[int, int], counter: tuple[int, int]) -> int:
    keys = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    low, high = ((c + k) % 2**32 for c, k in zip(counter, key, strict=True))
    for i in range(20):
        places = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        low = (low + high) % 2**32
        high = low ^ ((high << places | high >> (32 - places)) % 2**32)
        if i % 4 == 3:
            j = (i + 1) // 4
            low, high = (low + keys[j % 3]) % 2**32, (high + keys[(j + 1) % 3] + j) % 2**32
    return low
