"""The one error of tracing, and what to use instead of what cannot be traced."""

from __future__ import annotations

from ledger.errors import SpecificationError

_RANDOM = (
    "Random numbers would be drawn once and be the same for ever. Set dropout to 0 and keep noise out of the model."
)
_ORDERED = "An exact program has no sorting or running sums: use a mask, a maximum or a product with a constant matrix."

# By the operator's name without its overload.
_REMEDIES = {
    "aten.sort": _ORDERED,
    "aten.topk": _ORDERED,
    "aten.argsort": _ORDERED,
    "aten.cumsum": _ORDERED,
    "aten.cumprod": _ORDERED,
    "aten.argmax": "Compare with the maximum (amax) instead.",
    "aten.copy_": "A buffer that training changes is not part of the state. "
    "Use a norm without running statistics, such as nn.LayerNorm.",
    "aten.convolution": "Write it as unfolded slices and a linear layer.",
    "aten.sin": "Compute it from positions alone, so that it becomes a constant, or keep a table as a buffer.",
    "aten.cos": "Compute it from positions alone, so that it becomes a constant, or keep a table as a buffer.",
    "aten._scaled_dot_product_flash_attention_for_cpu": "Leave the choice of backend to scaled_dot_product_attention.",
    "aten.pow": "Whole exponents, 0.5 and -0.5 are supported; for others use exp and log.",
    "aten._local_scalar_dense": "A value read into Python would become a constant. Use torch.where.",
    "aten.nonzero": "Shapes cannot depend on values. Use torch.where with three arguments.",
}


class TracingError(SpecificationError):
    """A model, loss or optimizer does something that an exact program cannot.

    Attributes:
        module: dotted path of the module that did it, "" for the model itself or its loss.
        operator: the ATen operator, "" where it is not about one.
    """

    def __init__(self, problem: str, *, module: str = "", operator: str = "", remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.module = module
        self.operator = operator


def refusal(
    operator: str, module: str, why: str = "is not supported in exact programs", remedy: str = ""
) -> TracingError:
    """The error for an operator ("aten.sort.default") met in a module, with what to use instead where that is known."""
    name = ".".join(operator.split(".")[:2])
    place = f"in module {module}" if module else "in the model's own forward or loss"
    return TracingError(
        f"The operator {operator} {place} {why}.",
        module=module,
        operator=operator,
        remedy=remedy or _REMEDIES.get(name, "docs/tracing.md lists the operators that are."),
    )


def random_refusal(operator: str, module: str) -> TracingError:
    """The error for an operator that draws random numbers."""
    return refusal(operator, module, "draws random numbers", _RANDOM)
