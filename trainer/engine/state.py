"""States in and out of models and optimizers. A state is all there is: nothing is kept beside it between steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import AdamW

from trainer.engine.batches import TokenData
from trainer.models import LanguageModel, build_model
from trainer.models.heldout import NAN_BITS
from trainer.models.initial import initialise
from trainer.program.description import TrainingProgram
from trainer.program.layout import HELDOUT_LOSS, MOMENT1, MOMENT2, PARAMETER, STEP, StateLayout

# Tensors by name in layout order, on the CPU, contiguous.
State = OrderedDict[str, Tensor]


def step_of(state: Mapping[str, Tensor]) -> int:
    """Optimizer steps done since the initial state."""
    return int(state[STEP].item())


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
    if step_of(state) < 0:
        raise ValueError(f"{STEP} is {step_of(state)}")


def initial_state(
    program: TrainingProgram, layout: StateLayout | None = None, *, dataset: TokenData | None = None
) -> State:
    """The state before the first step, from the program's seed.

    Its held-out loss is measured where a data set is given, and NaN (unknown) without.
    """
    layout = layout or StateLayout.of(program)
    model = build_model(program.model, vocabulary=program.vocabulary, context=program.context)
    initialise(model, seed=program.seed, layers=program.model.layers)
    parameters = dict(model.named_parameters())
    state: State = OrderedDict()
    for spec in layout.tensors:
        if spec.name.startswith(PARAMETER):
            state[spec.name] = parameters[spec.name.removeprefix(PARAMETER)].detach().clone()
        else:
            state[spec.name] = torch.zeros(spec.shape, dtype=spec.dtype)
    loss = float("nan")
    if dataset is not None:
        from trainer.engine.evaluate import evaluate_state  # evaluate needs `model_of` from here

        loss = evaluate_state(program, dataset, state)
    state[HELDOUT_LOSS] = loss_tensor(loss)
    return state


def model_of(program: TrainingProgram, state: Mapping[str, Tensor], *, device: str = "cpu") -> LanguageModel:
    """A model with copies of the state's parameters. Copies, because a kernel may not see memory that a file or
    another library placed: its alignment could choose another path through the kernel.
    """
    with torch.device("meta"):
        model = build_model(program.model, vocabulary=program.vocabulary, context=program.context)
    model = model.to_empty(device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[PARAMETER + name])
    return model


def optimizer_of(program: TrainingProgram, model: LanguageModel, state: Mapping[str, Tensor]) -> AdamW:
    """AdamW that goes on from the state's moments and step, over the parameters of `model`."""
    named = list(model.named_parameters())
    config = program.optimizer
    optimizer = AdamW(
        [
            {"params": [p for _, p in named if p.dim() >= 2], "weight_decay": config.weight_decay},
            # Norms and biases have a scale of their own; decaying them hurts (Radford et al. 2019).
            {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=program.schedule.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )
    step = step_of(state)
    for name, parameter in named:
        optimizer.state[parameter] = {
            # Fused AdamW wants its counter beside the parameter.
            "step": torch.tensor(float(step), dtype=torch.float32, device=parameter.device),
            "exp_avg": state[MOMENT1 + name].to(parameter.device, copy=True),
            "exp_avg_sq": state[MOMENT2 + name].to(parameter.device, copy=True),
        }
    return optimizer


def training_objects(
    program: TrainingProgram, state: Mapping[str, Tensor], *, device: str = "cpu"
) -> tuple[LanguageModel, AdamW]:
    """Model and optimizer that go on from a state. They own copies; the state is not changed by training."""
    model = model_of(program, state, device=device)
    return model, optimizer_of(program, model, state)


def capture(model: LanguageModel, optimizer: AdamW, *, step: int, loss: float | Tensor) -> State:
    """Copies of everything into a state. `loss` is a float, or the tensor of an earlier state to carry on."""
    state: State = OrderedDict()
    state[HELDOUT_LOSS] = loss.clone() if isinstance(loss, Tensor) else loss_tensor(loss)
    state[STEP] = torch.tensor([step], dtype=torch.int64)
    named = list(model.named_parameters())
    for name, parameter in named:
        state[PARAMETER + name] = _owned(parameter)
    for prefix, key in ((MOMENT1, "exp_avg"), (MOMENT2, "exp_avg_sq")):
        for name, parameter in named:
            state[prefix + name] = _owned(optimizer.state[parameter][key])
    return state


def _owned(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
