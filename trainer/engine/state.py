"""States: what is read from them, the first one, and plain PyTorch models of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainer.models import LanguageModel, PublicConfig, build_model
from trainer.models.heldout import NAN_BITS
from trainer.models.initial import initialise
from trainer.program.description import ProgramDescription
from trainer.program.layout import ANCHOR, HELDOUT_LOSS, PARAMETER, STEP, StateLayout

# Tensors by name in layout order, on the CPU, contiguous.
State = OrderedDict[str, Tensor]


def step_of(state: Mapping[str, Tensor]) -> int:
    """Optimizer steps done since the initial state: `counter.step`."""
    return int(state[STEP].item())


def steps_between(before: int, after: int) -> int:
    """Steps that took `counter.step` from one value to another; programs count in words, which go round at 2^32."""
    return (after - before) & 0xFFFFFFFF


def heldout_loss_of(state: Mapping[str, Tensor]) -> float:
    """The held-out loss stored in a state."""
    return float(state[HELDOUT_LOSS].item())


def heldout_loss_bits(state: Mapping[str, Tensor]) -> int:
    """Binary32 bits of the stored held-out loss, exactly as committed (a NaN's bits too): what `submit` takes."""
    return int(state[HELDOUT_LOSS].view(torch.int32).item()) & 0xFFFFFFFF


def loss_tensor(loss: float) -> Tensor:
    """float32 [1] with the loss, any NaN as the canonical one."""
    tensor = torch.tensor([loss], dtype=torch.float32)
    if bool(tensor.isnan().any()):
        return torch.tensor([NAN_BITS], dtype=torch.int32).view(torch.float32)
    return tensor


def check_state(state: Mapping[str, Tensor], layout: StateLayout) -> None:
    """Raises ValueError where names, order, dtypes or shapes differ from the layout's."""
    if tuple(state) != layout.names:
        missing = [name for name in layout.names if name not in state]
        extra = [name for name in state if name not in layout.names]
        raise ValueError(f"tensors do not follow the layout (missing {missing[:3]}, unknown {extra[:3]})")
    for spec in layout.tensors:
        tensor = state[spec.name]
        if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise ValueError(
                f"{spec.name} is {tensor.dtype} {tuple(tensor.shape)}, the program has {spec.dtype} {spec.shape}"
            )


def initial_state(description: ProgramDescription, layout: StateLayout) -> State:
    """The state before the first step of an own model, from the description's seed; its held-out loss is NaN, unknown.

    Raises:
        ValueError: the description names a public model.
    """
    model = build_model(description.model, vocabulary=description.vocabulary, context=description.context)
    assert not isinstance(description.model, PublicConfig)  # build_model has refused it
    initialise(model, seed=description.seed, layers=description.model.layers)
    return state_of(model, layout)


def state_of(model: nn.Module, layout: StateLayout) -> State:
    """A state with copies of a model's parameters, anchors among them, everything else zero and the held-out loss NaN
    (not measured).
    """
    parameters = dict(model.named_parameters())
    state: State = OrderedDict()
    for spec in layout.tensors:
        if spec.name.startswith((PARAMETER, ANCHOR)):
            state[spec.name] = parameters[spec.name.partition(".")[2]].detach().clone().contiguous()
        else:
            state[spec.name] = torch.zeros(spec.shape, dtype=spec.dtype)
    state[HELDOUT_LOSS] = loss_tensor(float("nan"))
    return state


def model_of(description: ProgramDescription, state: Mapping[str, Tensor], *, device: str = "cpu") -> LanguageModel:
    """A plain PyTorch model with copies of the state's parameters."""
    with torch.device("meta"):
        model = build_model(description.model, vocabulary=description.vocabulary, context=description.context)
    model = model.to_empty(device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[PARAMETER + name])
    return model
