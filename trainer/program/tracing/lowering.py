"""From ATen operators to operations: the driver, and the table of all operators that are supported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.fx import Node

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op
from trainer.program.description import Precision
from trainer.program.exact import DType, ProgramBuilder
from trainer.program.tracing import elementwise
from trainer.program.tracing.capture import Captured
from trainer.program.tracing.elementwise import In, Rule
from trainer.program.tracing.refusals import refusal
from trainer.program.tracing.terms import Term, constant_term, literal, pointwise, program_dtype


class Refused(Exception):
    """Why a rule cannot lower a node; `Lowering` adds the operator and the module."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


class RuleFunction(Protocol):
    """A lowering: (context, node, the node's arguments with graph values as terms) to the node's value or values."""

    def __call__(self, context: Lowering, node: Node, *args: Any, **kwargs: Any) -> Any: ...


class Lowering:
    """Lowers captured graphs into one builder, any number of times (chunks of a batch)."""

    def __init__(self, build: ProgramBuilder, captured: Captured, precision: Precision) -> None:
        self.build = build
        self._captured = captured
        self._precision = precision
        self._known: dict[Node, Any] = {}
        self._weight_products = _weight_products(captured)
        self._constants = {
            node: self._guarded(node, functools.partial(constant_term, build, data))
            for node, data in captured.constants.items()
        }

    def lower(self, arguments: Sequence[Term]) -> list[Term]:
        """The outputs (loss, gradients) for one term a placeholder.

        Raises:
            TracingError: an operator that programs do not have.
        """
        self._known = dict(self._constants)
        self._known.update(zip(self._captured.placeholders, arguments, strict=True))
        for node in self._captured.nodes:
            self._known[node] = self._guarded(node, functools.partial(self._value_of, node))
        return [self._known[node] for node in self._captured.outputs]

    def term_of(self, node: Node) -> Term:
        """What an earlier node of one value became."""
        term: Term = self._known[node]
        return term

    def bits_of(self, node: Node) -> tuple[int, int]:
        """Precision of a product's operands."""
        if node in self._captured.forward:
            bits = self._precision.forward
        elif node in self._weight_products:
            bits = self._precision.weight_gradient
        else:
            bits = self._precision.input_gradient
        return bits, bits

    def is_weight_product(self, node: Node) -> bool:
        """Whether a product's result is a parameter's gradient."""
        return node in self._weight_products

    def is_parameter(self, node: Node) -> bool:
        """Whether a node is nothing but a view of a parameter."""
        while node.target in _VIEWS:
            node = node.all_input_nodes[0]
        return node in self._captured.placeholders[: len(self._captured.parameters)]

    def _guarded(self, node: Node, make: Callable[[], Any]) -> Any:
        # What is taken out of several results is named after the operator that gave them.
        named = node if isinstance(node.target, torch._ops.OpOverload) or not node.all_input_nodes else node.args[0]
        operator = str(named.target) if isinstance(named, Node) else str(node.target)
        try:
            return make()
        except Refused as no:
            raise refusal(operator, self._captured.modules[node], no.why, no.remedy) from no
        except ValueError as no:  # from the builder: a shape, dtype or size that programs do not have
            raise refusal(operator, self._captured.modules[node], f"cannot be lowered: {no}") from no

    def _value_of(self, node: Node) -> Any:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda one: self._known[one])
        if node.target in elementwise.RULES:
            return self._elementwise(node, elementwise.RULES[node.target], args)
        rule = RULES.get(node.target)
        if rule is None:
            raise refusal(str(node.target), self._captured.modules[node])
        return rule(self, node, *args, **kwargs)

    def _elementwise(self, node: Node, rule: Rule, args: Sequence[Any]) -> Term:
        return self.kernel(node, lambda build, floating, *x: rule.write(build, floating, *x), *args, takes=rule.takes)

    def kernel(self, node: Node, write: Callable[..., int], *operands: Any, takes: In = In.EITHER) -> Term:
        """POINTWISE over terms and Python numbers, brought to one type first; the node says shape and result type.

        `write(build, floating, *registers)` writes the kernel in that type.
        """
        floating = takes is In.FLOAT or any(is_float(one) for one in operands)
        wanted = DType.FLOAT32 if floating else DType.INT32
        terms = [one if isinstance(one, Term) else literal(one, wanted) for one in operands]
        result = dtype_of(node)

        def body(build: Builder, *registers: int) -> int:
            brought = []
            for register, term in zip(registers, terms, strict=True):
                if takes is In.TRUTH:
                    register = elementwise.truth(build, term.dtype is DType.FLOAT32, register)
                elif floating and term.dtype is DType.INT32:
                    register = build.emit(Op.I2F, register)
                brought.append(register)
            return write(build, floating, *brought)

        return pointwise(self.build, body, *terms, dtype=result, shape=shape_of(node))


def is_float(operand: Any) -> bool:
    """Whether a term or a Python number is floating-point."""
    return operand.dtype is DType.FLOAT32 if isinstance(operand, Term) else isinstance(operand, float)


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape that PyTorch gave a node's value."""
    return tuple(node.meta["val"].shape)


def dtype_of(node: Node) -> DType:
    """The dtype of a node's value in programs. Raises Refused for float64 and the like."""
    try:
        return program_dtype(node.meta["val"].dtype)
    except ValueError as no:
        raise Refused(str(no)) from no


def is_truth(node: Any) -> bool:
    """Whether a graph value is of bool in PyTorch."""
    return isinstance(node, Node) and node.meta["val"].dtype == torch.bool


_aten = torch.ops.aten
_CARRIES = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.permute.default,
    _aten.clone.default,
    _aten.expand.default,
    _aten.slice.Tensor,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
    _aten.add.Tensor,
    _aten.slice_scatter.default,
    _aten.cat.default,
}
_VIEWS = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.t.default,
    _aten.expand.default,
    _aten.unsqueeze.default,
    _aten.clone.default,
}
_PRODUCTS = {_aten.mm.default, _aten.bmm.default}


def _weight_products(captured: Captured) -> frozenset[Node]:
    """Products whose result becomes a parameter's gradient by nothing but views and additions."""
    found, seen = set(), set()
    waiting = list(captured.outputs[1:])
    while waiting:
        node = waiting.pop()
        if node in seen or node in captured.forward:
            continue
        seen.add(node)
        if node.target in _PRODUCTS:
            found.add(node)
        elif node.target in _CARRIES:
            waiting.extend(node.all_input_nodes)
    return frozenset(found)


RULES: dict[Any, RuleFunction] = {}
"""Operators that are not element-wise, filled by `rule` in views, reductions, products and indexing."""


def rule(*operators: Any) -> Callable[[RuleFunction], RuleFunction]:
    """Enters a function for some operators."""

    def enter(function: RuleFunction) -> RuleFunction:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return enter
