"""A step of fine-tuning SmolLM2-135M: the exact program, compiled and on the reference, against PyTorch's float32.

python benchmarks/smollm2_step.py --folder FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from reporting import write
from torch import Tensor, nn

from trainer.data.corpus import STANDARD_LIBRARY, read_corpus
from trainer.engine.exact.interpreter import run_program
from trainer.engine.schedule import learning_rate
from trainer.foreign import ForeignModel, GgufFile, build_foreign, find_smollm2, smollm2_tokenizer
from trainer.native import compiled_program
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, DType, Part, cost_of, encode_program
from trainer.program.tracing import SgdConfig, trace_training

BATCH, CONTEXT, ROUNDS, WARMING, FOLLOWED = 2, 128, 8, 2, 6
OPTIMIZER = OptimizerConfig(weight_decay=0.01)
SCHEDULE = ScheduleConfig(learning_rate=5e-5, minimum_learning_rate=5e-6, warmup_steps=2, total_steps=200)
VOCABULARY = 49_152


class Text:
    """Windows of the standard library's source, other ones at each step."""

    def __init__(self) -> None:
        tokens = smollm2_tokenizer(GgufFile(find_smollm2())).encode(read_corpus(STANDARD_LIBRARY, limit_bytes=200_000))
        self._windows = torch.from_numpy(tokens.astype("int64"))[: -1 - len(tokens) % CONTEXT].unfold(
            0, CONTEXT + 1, CONTEXT
        )
        self.step = 0

    def batch(self) -> Tensor:
        """[BATCH, CONTEXT + 1] int64."""
        first = self.step * BATCH % (len(self._windows) - BATCH)
        return self._windows[first : first + BATCH]

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        return self.batch()[:samples, shift : shift + length].to(torch.int32).contiguous()


def first_state(built: BuiltProgram, model: nn.Module) -> list[Tensor]:
    given = {f"parameter.{name}": one.detach().clone() for name, one in model.named_parameters()}
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    return [given.get(s.name, torch.zeros(s.shape, dtype=dtypes[s.dtype])) for s in built.program.states]


def smollm2() -> ForeignModel:
    return build_foreign({"kind": "smollm2"}, vocabulary=VOCABULARY, context=CONTEXT, seed=1)


def traced(foreign: ForeignModel) -> BuiltProgram:
    return trace_training(foreign.model, foreign.loss, OPTIMIZER, SCHEDULE, batch_size=BATCH, context=CONTEXT)


def plain_step(foreign: ForeignModel, text: Text) -> Callable[[], float]:
    """PyTorch's own step, eager; gives the loss."""
    matrices, vectors = (
        [p for p in foreign.model.parameters() if (p.dim() >= 2) is wanted] for wanted in (True, False)
    )
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": OPTIMIZER.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
        fused=True,
    )

    def step() -> float:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(SCHEDULE, text.step)
        window = text.batch()
        loss = foreign.loss(foreign.model, window[:, :-1], window[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
        torch.nn.utils.clip_grad_norm_(foreign.model.parameters(), OPTIMIZER.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def alone(name: str, folder: Path) -> dict[str, object]:
    """What a process of its own tells: of "float32", "exact" or "reference"."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        told: dict[str, object] = pool.apply(_told, (name, folder))
    return told


def _told(name: str, folder: Path) -> dict[str, object]:
    """Seconds of what is done once, the first state's hash, losses, and the most memory that was ever held."""
    torch.set_num_threads(2)
    began = time.perf_counter()
    foreign, text = smollm2(), Text()
    told: dict[str, object] = {"loading seconds": time.perf_counter() - began}
    if name == "float32":
        step, losses = plain_step(foreign, text), []
        for text.step in range(FOLLOWED):
            losses.append(step())
        told["losses"] = losses
    else:
        began = time.perf_counter()
        built = traced(foreign)
        told["tracing seconds"] = time.perf_counter() - began
        state = first_state(built, foreign.model)
        del foreign
        told |= _compiled(built, state, text, folder) if name == "exact" else _interpreted(built, state, text)
    status = Path("/proc/self/status").read_text()
    told["peak GiB"] = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    return told


def _compiled(built: BuiltProgram, state: list[Tensor], text: Text, folder: Path) -> dict[str, object]:
    began = time.perf_counter()
    fast = compiled_program(built.program, built.constants, folder, threads=2)
    told: dict[str, object] = {"compiling seconds": time.perf_counter() - began}
    fast.load(state)
    state.clear()
    losses = []
    for text.step in range(FOLLOWED):
        fast.step(text)
        losses.append(fast.tensor(0).item())
        if text.step == 0:
            told["hash"] = hashed(fast.tensor(index) for index in range(len(built.program.states)))
    return {**told, "losses": losses}


def _interpreted(built: BuiltProgram, state: list[Tensor], text: Text) -> dict[str, object]:
    began = time.perf_counter()
    made = run_program(built.program, state, built.constants, text)
    return {"seconds": time.perf_counter() - began, "hash": hashed(made)}


def hashed(state: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in state:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def follow(folder: Path) -> dict[str, object]:
    """The three, each in a process of its own, from the same start."""
    told = {name: alone(name, folder) for name in ("float32", "exact", "reference")}
    exact, plain = told["exact"], told["float32"]
    pairs = list(zip(exact["losses"], plain["losses"], strict=True))  # type: ignore[call-overload]  # lists, see _told
    return {
        "loading seconds": plain["loading seconds"],
        "tracing seconds": exact["tracing seconds"],
        "compiling seconds": exact["compiling seconds"],
        "reference seconds": told["reference"]["seconds"],
        "compiled state has the reference's bits": exact["hash"] == told["reference"]["hash"],
        "exact losses": exact["losses"],
        "float32 losses": plain["losses"],
        "relative difference of the first loss": abs(pairs[0][0] / pairs[0][1] - 1),
        "largest relative difference of a loss": max(abs(a / b - 1) for a, b in pairs),
        **{f"{name} peak GiB": one["peak GiB"] for name, one in told.items()},
    }


def gradients(foreign: ForeignModel, folder: Path) -> dict[str, object]:
    """How far the gradients of one batch are from PyTorch's, as a part of their norms."""
    text = Text()
    built = trace_training(
        foreign.model, foreign.loss, SgdConfig(momentum=0.0), SCHEDULE, batch_size=BATCH, context=CONTEXT
    )
    fast = compiled_program(built.program, built.constants, folder, threads=2)
    fast.load(first_state(built, foreign.model))
    fast.step(text)
    places = {one.name: index for index, one in enumerate(built.program.states)}
    window = text.batch()
    foreign.loss(foreign.model, window[:, :-1], window[:, 1:]).backward()  # type: ignore[no-untyped-call]  # torch's
    squares = []
    for name, parameter in foreign.model.named_parameters():
        assert parameter.grad is not None
        away = (fast.tensor(places["moment1." + name]) - parameter.grad).square().sum().item()
        squares.append((away, parameter.grad.square().sum().item()))
        parameter.grad = None
    each = sorted((away / norm) ** 0.5 for away, norm in squares)
    return {
        "gradients apart from float32's, all": (sum(a for a, _ in squares) / sum(n for _, n in squares)) ** 0.5,
        "gradients apart from float32's, median": statistics.median(each),
        "gradients apart from float32's, worst": each[-1],
    }


def speed(built: BuiltProgram, foreign: ForeignModel, folder: Path) -> dict[str, object]:
    """Seconds of a step, the two taking turns, so that what else the machine does disturbs both alike.

    The second of a turn's two steps counts: PyTorch's threads wait awake for a while after their last work.
    """
    text = Text()
    figures: dict[str, object] = {}
    step = plain_step(foreign, text)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        fast = compiled_program(built.program, built.constants, folder, threads=threads)
        fast.load(first_state(built, foreign.model))
        times: dict[str, list[float]] = {"float32": [], "exact": []}
        for turn in range(ROUNDS + WARMING):
            text.step = turn
            for name, run in (("float32", step), ("exact", lambda fast=fast: fast.step(text))):
                run()
                began = time.perf_counter()
                run()
                if turn >= WARMING:
                    times[name].append(time.perf_counter() - began)
        for name, values in times.items():
            figures[f"{name} seconds, {threads} threads, median"] = statistics.median(values)
            figures[f"{name} seconds, {threads} threads, best"] = min(values)
        ratios = [exact / plain for exact, plain in zip(times["exact"], times["float32"], strict=True)]
        figures[f"exact over float32, {threads} threads"] = statistics.median(ratios)
        del fast
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    folder = parser.parse_args().folder
    figures = follow(folder)
    torch.set_num_threads(2)
    foreign = smollm2()
    figures |= gradients(foreign, folder)
    built = traced(foreign)
    figures["operations"] = len(built.program.operations)
    figures["program MB"] = len(encode_program(built.program)) / 1e6
    figures["constants MB"] = sum(one.nbytes for one in built.constants) / 1e6
    figures["multiply-adds, thousand million"] = cost_of(built.program).multiply_adds / 1e9
    figures |= speed(built, foreign, folder)
    write(
        "smollm2_step",
        title="A step of fine-tuning SmolLM2-135M",
        command="python benchmarks/smollm2_step.py --folder FOLDER",
        figures=figures,
        note=f"Batch {BATCH}, context {CONTEXT}, AdamW and clipping; text: the standard library's source. All matrix "
        "products of 13 bits. float32 is PyTorch eager with fused AdamW. The losses are those of "
        f"{FOLLOWED} steps from the same start, each before its step; AdamW's first steps go by the signs of "
        "gradients, however small, so the two part more than their gradients do. For speed the two take turns of two "
        f"steps, of which the second counts, {ROUNDS} times; the ratio is the median over pairs. Peaks are of "
        "processes that do one thing alone. "
        "Compiling is once for a program, and is kept; it and the reference were timed once.",
    )


if __name__ == "__main__":
    main()
