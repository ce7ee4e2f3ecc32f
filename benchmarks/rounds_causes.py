"""What DiLoCo loses against DDP, and by what: one thing changed at a time, in float32, all slots side by side.

python benchmarks/rounds_causes.py --text FILE
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from quality import measured
from reporting import write
from rounds_quality import SETTING
from torch import Tensor
from torch.func import functional_call, grad, vmap
from training_setting import dataset_of_text

from trainer.data.dataset import Dataset
from trainer.engine.schedule import learning_rate
from trainer.models import build_model
from trainer.models.initial import initialise
from trainer.program.description import ProgramDescription
from trainer.program.layout import PARAMETER

Named = dict[str, Tensor]
Moments = Literal["zero", "own", "mean", "mean of 8 bits"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of training.

    Attributes:
        workers: slots of a round, side by side. steps: of each. in_round: of each in a round.
        windows: of a batch. moments: what a round begins with: zeros, each slot's own, or the mean of all.
        bits: that the parameters' differences are rounded to, 0 for none.
        outer_rate, momentum: of the outer step; 1 and 0 is the mean.
        warm: steps of one worker alone, before the first round.
    """

    workers: int
    steps: int
    in_round: int = 160
    windows: int = 4
    rate: float = 4e-3
    moments: Moments = "zero"
    bits: int = 8
    outer_rate: float = 1.0
    momentum: float = 0.5
    warm: int = 0


class Training:
    """Slots of one model, each parameter of all slots in one tensor [W, ...]."""

    def __init__(self, way: Way, dataset: Dataset, *, seed: int) -> None:
        self.way, self._dataset = way, dataset
        whole = way.warm + way.steps
        fields = {**SETTING, "seed": seed, "batch_size": way.windows}
        fields["schedule"] = {"learning_rate": way.rate, "total_steps": whole}
        self._description = ProgramDescription.from_task_file(fields, vocabulary=dataset.vocabulary, total_steps=whole)
        described = self._description
        self._model = build_model(described.model, vocabulary=described.vocabulary, context=described.context)
        initialise(self._model, seed=seed, layers=SETTING["model"]["layers"])
        self._anchor: Named = {name: one.detach().clone() for name, one in self._model.named_parameters()}
        self._velocity = {name: torch.zeros_like(one) for name, one in self._anchor.items()}
        self._spread(1 if way.warm else way.workers)
        self._first, self._second = self._zeros(), self._zeros()
        self._since = self._done = 0
        self._random = np.random.default_rng(seed)
        self._text = torch.from_numpy(np.asarray(dataset.train).astype(np.int64))
        self._gradients = vmap(grad(self._loss), in_dims=(0, 0, 0))

    def _spread(self, slots: int) -> None:
        self._parameters = {name: one.expand(slots, *one.shape).clone() for name, one in self._anchor.items()}

    def _zeros(self) -> Named:
        return {name: torch.zeros_like(one) for name, one in self._parameters.items()}

    def _loss(self, parameters: Named, inputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = functional_call(self._model, parameters, (inputs, targets))
        return loss

    def step(self, windows: int) -> None:
        """A step of AdamW in every slot, each with a batch of its own."""
        described = self._description
        slots = next(iter(self._parameters.values())).shape[0]
        starts = self._random.integers(len(self._text) - described.context, size=(slots, windows, 1))
        places = torch.from_numpy(starts) + torch.arange(described.context + 1)
        tokens = self._text[places]
        gradients = self._gradients(self._parameters, tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous())
        config, rate = described.optimizer, learning_rate(described.schedule, self._done)
        squares = sum(one.flatten(1).square().sum(1) for one in gradients.values())
        assert isinstance(squares, Tensor)
        scale = (config.gradient_clip / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        self._since, self._done = self._since + 1, self._done + 1
        corrected = [1 - beta**self._since for beta in (config.beta1, config.beta2)]
        for name, parameter in self._parameters.items():
            gradient = gradients[name] * scale.view(-1, *[1] * (parameter.dim() - 1))
            one = self._first[name].lerp_(gradient, 1 - config.beta1)
            two = self._second[name].mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
            if parameter.dim() > 2:
                parameter.mul_(1 - rate * config.weight_decay)
            parameter.addcdiv_(one / corrected[0], (two / corrected[1]).sqrt() + config.epsilon, value=-rate)

    def merge(self) -> None:
        """The outer step, and what the next round begins with."""
        way = self.way
        for name, parameter in self._parameters.items():
            moved = rounded(parameter - self._anchor[name], way.bits)
            difference = -moved.mean(0)
            self._velocity[name] = way.momentum * self._velocity[name] + difference
            ahead = difference + way.momentum * self._velocity[name]
            self._anchor[name] = self._anchor[name] - way.outer_rate * ahead
        self._spread(way.workers)
        if way.moments == "zero":
            self._first, self._second, self._since = self._zeros(), self._zeros(), 0
        elif way.moments != "own":
            few = 8 if way.moments == "mean of 8 bits" else 0
            self._first = {name: averaged(rounded(one, few)) for name, one in self._first.items()}
            # Roots of second moments have the range of the first ones.
            self._second = {name: averaged(rounded(one.sqrt(), few).square()) for name, one in self._second.items()}

    def run(self) -> Iterator[float]:
        """Trains; the held-out loss at each quarter of the steps."""
        way = self.way
        for _ in range(way.warm):
            self.step(4)
        if way.warm:
            self._anchor = {name: one[0].clone() for name, one in self._parameters.items()}
            self._spread(way.workers)
            self._first = {name: averaged(one, way.workers) for name, one in self._first.items()}
            self._second = {name: averaged(one, way.workers) for name, one in self._second.items()}
        quarter = way.steps // 4
        for step in range(1, way.steps + 1):
            self.step(way.windows)
            if way.workers > 1 and step % way.in_round == 0:
                self.merge()
            if step % quarter == 0:
                yield self.loss()

    def loss(self) -> float:
        """Held-out loss of the last merge, or of the one worker."""
        state = OrderedDict((PARAMETER + name, one[0]) for name, one in self._parameters.items())
        return measured(self._description, self._dataset, state)


def rounded(tensor: Tensor, bits: int) -> Tensor:
    """Each row to `bits` bits, with a scale of its own; a vector of a slot is one row."""
    if bits == 0:
        return tensor
    rows = tensor if tensor.dim() > 2 else tensor.flatten(1)
    most = 2 ** (bits - 1) - 1
    # The scale is a power of two, as in exact programs.
    scale = torch.exp2(torch.ceil(torch.log2(rows.abs().amax(-1, keepdim=True).clamp(min=1e-30) / most)))
    return (torch.round(rows / scale) * scale).view(tensor.shape)


def averaged(tensor: Tensor, slots: int | None = None) -> Tensor:
    """The mean over slots, for each of `slots` or of as many as there are."""
    return tensor.mean(0).expand(slots or tensor.shape[0], *tensor.shape[1:]).clone()


BATCHES = 12 * 160 * 8  # of one worker, that each row of rounds_quality trains on
EIGHT = Way(workers=8, steps=BATCHES // 8)
MEAN = replace(EIGHT, moments="mean")


def of_eight(one: Way) -> tuple[tuple[str, Way], ...]:
    """What the others of a table are held against: DDP with eight workers, and one worker for as many steps."""
    return (("DDP", replace(one, workers=1, windows=32)), ("one worker, as many steps", replace(one, workers=1)))


def after(steps: int) -> tuple[tuple[str, Way], ...]:
    """Workers who go on with a model that one of them has begun."""
    one = replace(EIGHT, warm=steps)
    return (*of_eight(one), ("as tasks do it", one))


CAUSES: dict[str, tuple[tuple[str, Way], ...]] = {
    "From random parameters, 12 rounds of 160 steps": (
        *of_eight(EIGHT),
        ("DDP, learning rate 0.008", replace(EIGHT, workers=1, windows=32, rate=8e-3)),
        ("as tasks do it", EIGHT),
        ("no rounding", replace(EIGHT, bits=0)),
        ("own moments kept", replace(EIGHT, moments="own")),
        ("mean moments", MEAN),
        ("mean moments of 8 bits", replace(EIGHT, moments="mean of 8 bits")),
        ("outer 1 and 0", replace(EIGHT, momentum=0.0)),
        ("outer 0.7 and 0.9", replace(EIGHT, outer_rate=0.7, momentum=0.9)),
        ("mean moments, outer 1 and 0", replace(MEAN, momentum=0.0)),
        ("mean moments, outer 1 and 0.8", replace(MEAN, momentum=0.8)),
        ("mean moments, outer 0.7 and 0.9", replace(MEAN, outer_rate=0.7, momentum=0.9)),
        ("mean moments, learning rate 0.008", replace(MEAN, rate=8e-3)),
        ("48 rounds of 40", replace(EIGHT, in_round=40)),
        ("48 rounds of 40, outer 1 and 0", replace(EIGHT, in_round=40, momentum=0.0)),
        ("48 rounds of 40, mean moments", replace(MEAN, in_round=40)),
        ("48 rounds of 40, mean moments, outer 1 and 0", replace(MEAN, in_round=40, momentum=0.0)),
    ),
    "Four times the tokens": (
        *of_eight(replace(EIGHT, steps=4 * EIGHT.steps)),
        ("DDP, learning rate 0.008", replace(EIGHT, steps=4 * EIGHT.steps, workers=1, windows=32, rate=8e-3)),
        ("outer 1 and 0", replace(EIGHT, steps=4 * EIGHT.steps, momentum=0.0)),
        ("mean moments, outer 1 and 0", replace(MEAN, steps=4 * EIGHT.steps, momentum=0.0)),
    ),
    "After 1,920 steps of one worker": (*after(1_920), ("mean moments", replace(MEAN, warm=1_920))),
    "After 3,840 steps of one worker": (*after(3_840), ("mean moments", replace(MEAN, warm=3_840))),
    "After 7,680 steps of one worker": (
        *after(7_680),
        ("outer 1 and 0", replace(EIGHT, warm=7_680, momentum=0.0)),
        ("mean moments, outer 1 and 0", replace(MEAN, warm=7_680, momentum=0.0)),
        ("6 rounds of 320", replace(EIGHT, warm=7_680, in_round=320)),
    ),
}

NOTE = (
    "What DiLoCo with eight workers loses against DDP, one thing changed at a time. The model, text and sizes of "
    "`rounds_quality.py`, but plain float32 PyTorch with all slots side by side, and batches drawn by another "
    "generator: losses agree with the exact programs' to a percent or two, not in their bits. One seed. All rows "
    "of a table but one train on as many tokens in the rounds; `one worker, as many steps` has an eighth of them "
    "and takes as long as each of the eight. Outer settings are 1 and 0.5 unless a row says otherwise, `as tasks "
    "do it` is zero moments at each round, differences of 8 bits. Learning rate 0.004, over a table's own steps.\n\n"
    "What it shows. Rounding to 8 bits costs nothing that one seed shows. Zero moments cost 1 % or less in rounds "
    "of 160 steps, and nothing that can be told after 7,680 steps alone; only in rounds of 40 without outer "
    "momentum are they 4 %. So the mean of the slots' moments is not worth the two further bytes a parameter that "
    "it would take to send them, and `[merge]` has no such option. The outer momentum costs 2.6 % in so few "
    "rounds from random parameters, and gains 0.2 % after 7,680 steps. Rounds of 40 steps in place of 160 take "
    "off 6 %, for four times the bytes. All that together leaves most of the gap. What closes it is training for "
    "longer: in the first thousands of steps DDP gains from its larger batch at every step, and eight workers "
    "apart do hardly better than one alone; with four times the tokens the gap is 4.4 % in place of 13, and after "
    "7,680 steps of one worker alone, as the DiLoCo paper starts from a trained model, it is 0.7 %. The rate is "
    "low by then and all rows gain little: of what DDP gains over one worker, DiLoCo gains some 60 % there."
)


def row(name: str, way: Way, dataset: Dataset, last_of_ddp: float | None) -> dict[str, float | str]:
    """One way's losses; without DDP's it is DDP's."""
    losses = list(Training(way, dataset, seed=1).run())
    print(name, losses, flush=True)
    points = {f"{25 * point} %": loss for point, loss in enumerate(losses, start=1)}
    return {"way": name, **points, "the last, over DDP's": losses[-1] / (last_of_ddp or losses[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = dataset_of_text(arguments.text)
    tables: dict[str, list[dict[str, Any]]] = {}
    for heading, ways in CAUSES.items():
        rows = tables.setdefault(heading, [])
        for name, way in ways:
            rows.append(row(name, way, dataset, rows[0]["100 %"] if rows else None))
    report(tables)


def report(tables: dict[str, list[dict[str, Any]]]) -> None:
    write(
        "rounds_causes",
        title="What DiLoCo loses against DDP, cause by cause",
        command="python benchmarks/rounds_causes.py --text tinyshakespeare.txt",
        figures={"workers": 8, "steps_of_each_in_the_rounds": EIGHT.steps},
        tables=tables,
        note=NOTE,
    )


if __name__ == "__main__":
    main()
