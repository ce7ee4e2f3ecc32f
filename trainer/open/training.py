"""Ways to make a state for a round of an open task: the task's recipe, a script of the user's, a file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ledger.errors import UsageError
from trainer.engine.engines import Engine
from trainer.engine.segment import StepReport, run_segment
from trainer.engine.state import State, step_of, steps_between
from trainer.open.source import OpenMaterials
from trainer.program.layout import HELDOUT_LOSS, StateLayout, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a way to train is given.

    Attributes:
        base: the state that the round starts from; not to be changed.
        begun: a state kept of training that was interrupted, or None.
        seconds: that it should take at most.
        keep: may be given states between two steps of the recipe, to go on from after a kill.
        should_stop: true asks a recipe to end early.
    """

    materials: OpenMaterials
    base: State
    begun: State | None
    worker: str
    seconds: float
    keep: Callable[[State], None]
    on_step: Callable[[StepReport], None]
    should_stop: Callable[[], bool]


class Training(Protocol):
    """A way to make a state."""

    name: str

    def train(self, job: Job) -> State | None:
        """The state to hand in, or None where it was asked to stop.

        Raises:
            UsageError: the user's script or file gives no state of this task.
            ResourceError: memory or disk ran out.
        """
        ...


class RecipeTraining:
    """The task's own training program, in exact arithmetic, for as many steps as the task says.

    Args:
        engine: runs it.
    """

    name = "recipe"

    def __init__(self, engine: Engine, *, snapshot_seconds: float) -> None:
        self._engine, self._snapshot_seconds = engine, snapshot_seconds

    def train(self, job: Job) -> State | None:
        """See `Training`. Each worker's batches are its own, or all would hand in the same state."""
        start = job.base if job.begun is None else job.begun
        asked = job.materials.specification.steps_per_round
        result = run_segment(
            job.materials.program,
            job.materials.dataset,
            start,
            steps=asked - steps_between(step_of(job.base), step_of(start)),
            slot=slot_of_worker(job.worker),
            engine=self._engine,
            on_step=job.on_step,
            snapshot=job.keep,
            snapshot_seconds=self._snapshot_seconds,
            should_stop=job.should_stop,
        )
        if not result.completed:
            job.keep(result.state)
            return None
        return result.state


class ScriptTraining:
    """A Python file of the user's with `train(state, data, seconds)`; docs/open-tasks.md, "A script".

    Raises:
        UsageError: it cannot be imported, or has no such function.
    """

    name = "script"

    def __init__(self, path: Path) -> None:
        self._path = path
        function = getattr(_imported(path), "train", None)
        if not callable(function):
            raise UsageError(
                f"{path} has no function train(state, data, seconds).",
                remedy="examples/open_script.py shows how such a script looks.",
            )
        self._function = function

    def train(self, job: Job) -> State | None:
        """See `Training`. The script gets copies, so it may change what it is given."""
        given = OrderedDict((name, tensor.clone()) for name, tensor in job.base.items())
        try:
            made = self._function(given, job.materials.dataset, job.seconds)
        except Exception as error:
            raise UsageError(
                f"{self._path}: train() ended with {type(error).__name__}: {error}.",
                remedy="Correct the script and run the same command again; -v shows where it was.",
            ) from error
        return adapted(made, job.base, job.materials.layout, what=str(self._path))


class FileTraining:
    """A safetensors file with the tensors to hand in; what it does not have stays the base's."""

    name = "state"

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise UsageError(f"{path} is no file.", remedy="Name a safetensors file with --state.")

    def train(self, job: Job) -> State | None:
        """See `Training`."""
        try:
            tensors = load_file(self._path)
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"{self._path} cannot be read: {error}.", remedy="Write it with safetensors.torch.save_file."
            ) from error
        return adapted(tensors, job.base, job.materials.layout, what=str(self._path))


def slot_of_worker(worker: str) -> int:
    """Which batches a worker's recipe reads: 32 bits of its address's hash; it has no slot before it commits."""
    return int.from_bytes(hashlib.sha256(bytes.fromhex(worker.removeprefix("0x"))).digest()[:4], "big")


def adapted(given: object, base: State, layout: StateLayout, *, what: str) -> State:
    """A state of the task out of the tensors that a script or file gave, in the layout's dtypes and order.

    Tensors that were not given stay the base's, and so does the held-out loss, which the score replaces: two equal
    models are one state.

    Args:
        what: gave them, for errors.

    Raises:
        UsageError: not tensors by name; an unknown name, a wrong shape, a kind of number that does not fit, NaN or
            infinity; or nothing at all.
    """
    if not isinstance(given, Mapping) or not all(isinstance(one, Tensor) for one in given.values()):
        raise _refused(what, f"gave {type(given).__name__}, not a dictionary of tensors")
    unknown = [str(name) for name in given if name not in base]
    if unknown:
        raise _refused(what, f"gave tensors that the task's states do not have: {', '.join(unknown[:3])}")
    if not given:
        raise _refused(what, "gave no tensors")
    state: State = OrderedDict()
    for spec in layout.tensors:
        keep = spec.name == HELDOUT_LOSS or spec.name not in given
        state[spec.name] = base[spec.name] if keep else _cast(given[spec.name], spec, what)
    return state


def _cast(tensor: Tensor, spec: TensorSpec, what: str) -> Tensor:
    if tuple(tensor.shape) != spec.shape:
        raise _refused(what, f"gave {spec.name} the shape {list(tensor.shape)}, and it has {list(spec.shape)}")
    whole = not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
    if whole == spec.dtype.is_floating_point:
        raise _refused(what, f"gave {spec.name} as {tensor.dtype}, and it is {spec.dtype}")
    made = tensor.detach().to("cpu", spec.dtype).contiguous().clone()
    if spec.dtype.is_floating_point and not bool(made.isfinite().all()):
        raise _refused(what, f"gave {spec.name} a NaN or an infinity")
    return made


def _refused(what: str, problem: str) -> UsageError:
    return UsageError(
        f"{what} {problem}.", remedy="It has to give what it was given, by the same names, with other values."
    )


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"{path} is no Python file.", remedy="Name a file that ends in .py with --script.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles in the script look for it there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}.") from error
    return module
