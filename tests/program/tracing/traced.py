"""Runs traced functions and training programs on the reference interpreter."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trainer.engine.exact.interpreter import run_program
from trainer.models import build_model
from trainer.models.config import ModelConfig
from trainer.models.initial import initialise
from trainer.program.description import Precision
from trainer.program.exact import BuiltProgram, DType, Part, ProgramBuilder, Role
from trainer.program.exact.validate import check_program
from trainer.program.tracing.capture import capture_function
from trainer.program.tracing.fusing import fuse
from trainer.program.tracing.lowering import Lowering
from trainer.program.tracing.terms import as_value
from trainer.program.tracing.training import RULE_MODULES

assert RULE_MODULES  # imported for the rules that they enter
VOCABULARY, CONTEXT, BATCH = 17, 8, 4


class Windows:
    """Random tokens as BATCH reads them: one set of windows, whatever the part."""

    def __init__(self, seed: int, windows: int = 16) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.windows = torch.randint(0, VOCABULARY, (windows, CONTEXT + 1), generator=generator)

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        return self.windows[:samples, shift : shift + length].to(torch.int32).contiguous()

    def batch(self, samples: int = BATCH) -> tuple[Tensor, Tensor]:
        return self.windows[:samples, :-1].contiguous(), self.windows[:samples, 1:].contiguous()


def lowered(function: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> list[Tensor]:
    """A function's results from its program, which is also run fused and must give the same bits."""

    def several(*values: Tensor) -> tuple[Tensor, ...]:
        results = function(*values)
        return (results,) if isinstance(results, Tensor) else tuple(results)

    captured = capture_function(several, *inputs)
    build = ProgramBuilder(Role.GENERATE)
    for number, one in enumerate(inputs):
        build.state(f"in{number}", _state_dtype(one.dtype), tuple(one.shape))
    arguments = [build.load(f"in{number}") for number in range(len(inputs))]
    terms = Lowering(build, captured, Precision()).lower(arguments)
    outputs = []
    for number, term in enumerate(terms):
        value = as_value(build, term)
        dtype = DType.FLOAT32 if value.dtype is DType.FLOAT32 else DType.INT64
        build.state(f"out{number}", dtype, value.shape)
        build.store(f"out{number}", value)
        outputs.append(torch.zeros(value.shape, dtype=torch.float32 if dtype is DType.FLOAT32 else torch.int64))
    state = [one.detach().to(torch.float32 if one.is_floating_point() else torch.int64) for one in inputs]
    built = build.finish()
    fused = fuse(built.program)
    for program in (built.program, fused):
        check_program(program)
    plain = run_program(built.program, [*state, *outputs], built.constants)
    assert equal_states(plain, run_program(fused, [*state, *outputs], built.constants))
    return plain[len(inputs) :]


def _state_dtype(dtype: torch.dtype) -> DType:
    return DType.FLOAT32 if dtype == torch.float32 else DType.INT64


def bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32) if tensor.dtype == torch.float32 else tensor


def equal_states(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether two states have the same bits, NaN included."""
    return all(torch.equal(bits(x), bits(y)) for x, y in zip(a, b, strict=True))


def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = model(inputs, targets)
    return loss


def small_model(config: ModelConfig) -> nn.Module:
    """A model with values large enough that its gradients are no noise."""
    model = build_model(config, vocabulary=VOCABULARY, context=CONTEXT)
    initialise(model, seed=1, layers=config.layers)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def first_state(built: BuiltProgram, model: nn.Module) -> list[Tensor]:
    """The state before the first step: the model's parameters, all else zero."""
    parameters = {f"parameter.{name}": one.detach().clone() for name, one in model.named_parameters()}
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    return [parameters.get(s.name, torch.zeros(s.shape, dtype=dtypes[s.dtype])) for s in built.program.states]


def named(built: BuiltProgram, state: Sequence[Tensor]) -> dict[str, Tensor]:
    return {tensor.name: value for tensor, value in zip(built.program.states, state, strict=True)}


def step(built: BuiltProgram, state: Sequence[Tensor], windows: Windows) -> list[Tensor]:
    return run_program(built.program, state, built.constants, windows)
