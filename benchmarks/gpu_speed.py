"""Exact training on an NVIDIA GPU against PyTorch in float32, TF32 and bfloat16 under torch.compile; and hashing there.

python benchmarks/gpu_speed.py --folder FOLDER [--peak 989] [--only small]

Needs nothing but torch and numpy, and transformers for the shape of SmolLM2. Text is random: its content does not
change the work.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from reporting import write
from torch import Tensor, nn

from trainer.commit.hashing import Kind
from trainer.engine.engines import Run
from trainer.engine.exact.interpreter import TORCH_DTYPES
from trainer.models import TransformerConfig, build_model
from trainer.models.initial import initialise
from trainer.native.cuda.hashing import open_gpu_hasher
from trainer.native.engine import choose_engine
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, Part, cost_of
from trainer.program.tracing import Precision, trace_training

PRECISIONS = {"13 bits": Precision(), "8-8-13 bits": Precision(8, 8, 13)}
OPTIMIZER = OptimizerConfig(beta2=0.95, weight_decay=0.1)
SCHEDULE = ScheduleConfig(learning_rate=6e-4, minimum_learning_rate=6e-5, warmup_steps=10, total_steps=1000)
WARMING = 5
Step = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """A model and the tokens of a step: [batch, context] of a vocabulary."""

    vocabulary: int
    context: int
    batch: int
    model: TransformerConfig | None  # None: the shape of SmolLM2-135M

    @property
    def tokens(self) -> int:
        return self.batch * self.context


def transformer(layers: int, heads: int, width: int) -> TransformerConfig:
    return TransformerConfig(layers=layers, heads=heads, width=width, bias=False, tied_embeddings=True)


SETTINGS = {
    "small": Setting(256, 64, 12, transformer(4, 4, 128)),
    "ten million": Setting(256, 256, 64, transformer(6, 6, 384)),
    "GPT-2-124M": Setting(50_304, 1024, 8, transformer(12, 12, 768)),
    "SmolLM2-135M": Setting(49_152, 1024, 8, None),
}


class Windows:
    """Random tokens, the same at every step: what is measured does not depend on them."""

    def __init__(self, setting: Setting) -> None:
        generator = torch.Generator().manual_seed(4)
        shape = (setting.batch, setting.context + 1)
        self.windows = torch.randint(0, setting.vocabulary, shape, generator=generator)

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        return self.windows[:samples, shift : shift + length].to(torch.int32).contiguous()


def model_of(setting: Setting) -> nn.Module:
    if setting.model is None:
        return _llama(setting)
    model = build_model(setting.model, vocabulary=setting.vocabulary, context=setting.context)
    initialise(model, seed=1, layers=setting.model.layers)
    return model


def _llama(setting: Setting) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=setting.vocabulary,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    out = model(inputs) if hasattr(model, "lm_head") else model(inputs, targets)
    if isinstance(out, Tensor):
        return out
    logits: Tensor = out.logits
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def state_of(built: BuiltProgram, model: nn.Module) -> list[Tensor]:
    """The state before the first step."""
    given = {f"parameter.{name}": one.detach() for name, one in model.named_parameters()}
    return [given.get(one.name, torch.zeros(one.shape, dtype=TORCH_DTYPES[one.dtype])) for one in built.program.states]


def plain_step(setting: Setting, mode: str) -> Step:
    """PyTorch's own step on the GPU under torch.compile: "float32", "TF32" or "bfloat16"."""
    model = model_of(setting).cuda().train()
    compiled = torch.compile(lambda inputs, targets: loss_of(model, inputs, targets))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    windows = Windows(setting).windows.cuda()

    def step() -> Tensor:
        torch.set_float32_matmul_precision("highest" if mode == "float32" else "high")
        mixed = torch.autocast("cuda", torch.bfloat16) if mode == "bfloat16" else contextlib.nullcontext()
        with mixed:
            loss: Tensor = compiled(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch has no type for it
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    return step


def exact_step(run: Run, setting: Setting) -> Step:
    windows = Windows(setting)
    return lambda: run.step(windows)


def seconds_of(step: Step, rounds: int) -> list[float]:
    """Seconds of each of so many steps, after some that are not counted."""
    times = []
    for turn in range(rounds + WARMING):
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if turn >= WARMING:
            times.append(time.perf_counter() - began)
    return times


def one_setting(name: str, folder: Path, rounds: int, peak: float) -> Iterator[tuple[str, object]]:
    """Figures of a setting. MFU: 2 FLOP for each multiply-add of the exact program's products, over the peak."""
    setting, medians = SETTINGS[name], {}
    flops = math.nan
    for title, precision in PRECISIONS.items():
        model = model_of(setting)
        began = time.perf_counter()
        built = trace_training(
            model,
            loss_of,
            OPTIMIZER,
            SCHEDULE,
            batch_size=setting.batch,
            context=setting.context,
            precision=precision,
        )
        traced = time.perf_counter()
        run = choose_engine("cuda", folder, notice=print).open(built)
        run.load(state_of(built, model))
        yield f"{name}: {title}, tracing, s", traced - began
        yield f"{name}: {title}, compiling or finding, and loading, s", time.perf_counter() - traced
        medians[f"exact, {title}"] = statistics.median(seconds_of(exact_step(run, setting), rounds))
        flops = 2 * cost_of(built.program).multiply_adds
        del run
        torch.cuda.empty_cache()
    for mode in ("float32", "TF32", "bfloat16"):
        medians[mode] = statistics.median(seconds_of(plain_step(setting, mode), rounds))
        torch.compiler.reset()
        torch.cuda.empty_cache()
    for title, seconds in medians.items():
        yield f"{name}: {title}, ms a step (median)", seconds * 1e3
        yield f"{name}: {title}, tokens a second", setting.tokens / seconds
        yield f"{name}: {title}, MFU", flops / seconds / (peak * 1e12)
    for title in PRECISIONS:
        for mode in ("float32", "TF32", "bfloat16"):
            yield f"{name}: speed of {title} over {mode}", medians[mode] / medians[f"exact, {title}"]


def hashing(folder: Path) -> Iterator[tuple[str, object]]:
    """Gigabytes a second of a tree over a gigabyte: of data on the GPU, and of data that is not there yet."""
    hasher = open_gpu_hasher("cuda", folder, rivals=[])
    if hasher is None:
        raise SystemExit("Trees are not hashed on this GPU.")
    there = torch.randint(0, 256, (2**30,), dtype=torch.uint8, device="cuda")
    here = there.cpu().numpy().data
    ways: dict[str, Step] = {
        "on the GPU": lambda: hasher.tree(Kind.TENSOR, there),
        "taken there": lambda: hasher(Kind.TENSOR, here),
    }
    for title, way in ways.items():
        yield f"hashing, {title}, GB/s", 2**30 / 1e9 / statistics.median(seconds_of(way, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s that MFU counts as all: bfloat16 of an H100")
    parser.add_argument("--only", choices=sorted(SETTINGS), help="one setting")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"GPU": torch.cuda.get_device_name(), "peak, TFLOP/s": arguments.peak}
    for name in [arguments.only] if arguments.only else SETTINGS:
        figures.update(one_setting(name, arguments.folder, arguments.rounds, arguments.peak))
    if not arguments.only:
        figures.update(hashing(arguments.folder))
    write(
        "gpu_speed",
        title="Exact training on a GPU against PyTorch",
        command="python benchmarks/gpu_speed.py --folder FOLDER",
        figures=figures,
        note="Whole training steps with clipping and AdamW (fused in PyTorch), batches on the processor in exact "
        "training, where they come from. PyTorch runs under torch.compile: float32 without TF32, with it, and "
        "bfloat16 autocast. The same multiply-adds are counted for all, so MFU compares times.",
    )


if __name__ == "__main__":
    main()
