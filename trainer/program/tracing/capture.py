"""Graphs of ordinary PyTorch: forward, loss and backward as one list of core ATen operators.

What needs no input (masks, positions, rotary tables) is computed here, once, and becomes a constant.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx.traceback
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.func import functional_call, functionalize, grad_and_value
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.program.tracing.refusals import TracingError, random_refusal

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs [B, T] int64, targets [B, T] int64) to a loss of one element."""

_aten = torch.ops.aten
# Decomposed beyond the core set, and not decomposed although in it: CAT and SCATTER_ADD say these in one operation.
_DECOMPOSED = (
    _aten.native_layer_norm,
    _aten.native_layer_norm_backward,
    _aten.native_group_norm,
    _aten.native_group_norm_backward,
    _aten.native_batch_norm,
    _aten.native_batch_norm_backward,
    _aten.hardtanh,
    _aten.hardtanh_backward,
    _aten._softmax,
    _aten._softmax_backward_data,
    _aten._log_softmax,
    _aten._log_softmax_backward_data,
    _aten.addmm,
    _aten.gelu,
    _aten.gelu_backward,
    _aten.leaky_relu,
    _aten.elu,
)
_KEPT = (_aten.slice_scatter.default, _aten.embedding_dense_backward.default)
_MODULE, _PHASE = "module", "phase"


@dataclass(frozen=True)
class Captured:
    """A cleaned graph.

    Attributes:
        nodes: the operators that are left, in order; every other argument is a placeholder or in `constants`.
        placeholders: one for each parameter in `parameters`' order, then the inputs, then the targets.
        constants: values of what depends on no input.
        modules: the module that each node belongs to.
        forward: the nodes of the forward pass and the loss.
        outputs: the loss, then the gradients in `parameters`' order (none without gradients).
    """

    nodes: tuple[Node, ...]
    placeholders: tuple[Node, ...]
    parameters: tuple[str, ...]
    constants: dict[Node, Tensor]
    modules: dict[Node, str]
    forward: frozenset[Node]
    outputs: tuple[Node, ...]


class _Objective(nn.Module):
    """The model and its loss as one module, so that one call can be given all parameters."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(self.model, inputs, targets)


def capture(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, gradients: bool = True) -> Captured:
    """Traces a loss of a model, and its gradients for the parameters that require them.

    Args:
        inputs, targets: examples, [B, T] int64; only their shapes matter.

    Raises:
        TracingError: random numbers, values read into Python, buffers that change, a loss of several elements.
    """
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    if not parameters:
        raise TracingError("The model has no parameters.")
    objective = _Objective(model, loss)
    names = [f"model.{name}" for name in (*parameters, *buffers)]
    trained = [index for index, one in enumerate(parameters.values()) if one.requires_grad]

    def evaluate(*values: Tensor) -> Tensor:
        with torch.fx.traceback.annotate({_PHASE: "forward"}):
            result = functional_call(objective, dict(zip(names, values[:-2], strict=True)), values[-2:])
        if not isinstance(result, Tensor) or result.numel() != 1:
            raise TracingError("The loss is not a tensor of one element.", remedy="Take its mean or its sum.")
        return result.reshape(())

    def everything(*values: Tensor) -> tuple[Tensor, ...]:
        slopes, value = grad_and_value(evaluate, argnums=tuple(trained or range(len(parameters))))(*values)
        if not gradients:
            # Differentiated all the same: without, PyTorch takes other paths, with operators that write in place.
            return (value,)
        found = dict(zip(trained, slopes, strict=True))
        return (value, *(found.get(i, torch.zeros_like(values[i])) for i in range(len(parameters))))

    values = [one.detach() for one in (*parameters.values(), *buffers.values())]
    with _plain_kernels(), _module_names(objective) as entered:
        module = _trace(everything, [*values, inputs, targets], entered)
    return _clean(module, tuple(parameters), list(buffers.values()))


def capture_function(function: Callable[..., tuple[Tensor, ...]], *examples: Tensor) -> Captured:
    """Traces any function of tensors as it is, without gradients; every argument is a placeholder.

    Raises:
        TracingError: random numbers, values read into Python.
    """
    with _plain_kernels():
        return _clean(_trace(function, list(examples), []), (), [])


def _trace(function: Callable[..., tuple[Tensor, ...]], values: list[Tensor], entered: list[str]) -> GraphModule:
    """The raw graph. Nothing is computed: tensors are traced by shape, so this takes seconds and little memory."""
    table = {**core_aten_decompositions(), **get_decompositions(list(_DECOMPOSED))}
    for kept in _KEPT:
        table.pop(kept, None)
    traced = make_fx(
        functionalize(function), decomposition_table=table, tracing_mode="fake", _allow_non_fake_inputs=True
    )
    try:
        return traced(*values)
    except (DataDependentOutputException, GuardOnDataDependentSymNode) as error:
        module = entered[-1] if entered else ""
        raise TracingError(
            f"{f'Module {module}' if module else 'The model'} decides by a tensor's value in Python, "
            "which would fix the decision for ever.",
            module=module,
            operator="aten._local_scalar_dense.default",
            remedy="Use torch.where, or shapes, instead of .item() and of if on a tensor.",
        ) from error


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Nothing fused or opaque: attention from products, recurrent layers step by step."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")  # said by the flags below
            with (
                torch.backends.mkldnn.flags(enabled=False),
                sdpa_kernel(SDPBackend.MATH),
                torch.fx.traceback.preserve_node_meta(),
                torch.enable_grad(),
            ):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextlib.contextmanager
def _module_names(objective: nn.Module) -> Iterator[list[str]]:
    """Marks every node with the path of the module whose forward makes it. Gives the paths entered and not left."""
    open_marks: list[Any] = []
    entered: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            mark = torch.fx.traceback.annotate({_MODULE: path})
            mark.__enter__()
            open_marks.append(mark)
            entered.append(path)

        return hook

    def leave(*_: Any) -> None:
        open_marks.pop().__exit__(None, None, None)
        entered.pop()

    handles = []
    for path, module in objective.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path.removeprefix("model").removeprefix("."))))
        handles.append(module.register_forward_hook(leave))
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()
        while open_marks:  # an exception inside a forward skips its hook
            leave()


def _clean(module: GraphModule, parameters: tuple[str, ...], buffers: list[Tensor]) -> Captured:
    graph = module.graph
    modules = _modules_of(list(graph.nodes))
    for node in graph.nodes:
        # Before anything is dropped or folded: a mask drawn once would be the mask for ever.
        if _is_random(node):
            raise random_refusal(_operator_of(node), modules[node])
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    known = dict(zip(placeholders[len(parameters) : len(parameters) + len(buffers)], buffers, strict=True))
    outputs = tuple(next(node for node in graph.nodes if node.op == "output").args[0])
    live, constants = _fold(module, known)
    needed = _needed(live, outputs)
    nodes = tuple(node for node in live if node in needed)
    used = {argument for node in nodes for argument in node.all_input_nodes} | set(outputs)
    return Captured(
        nodes=nodes,
        placeholders=tuple(node for node in placeholders if node not in known),
        parameters=parameters,
        constants={node: value for node, value in constants.items() if node in used},
        modules=modules,
        forward=frozenset(node for node in nodes if _PHASE in _marks(node)),
        outputs=outputs,
    )


def _marks(node: Node) -> dict[str, str]:
    return node.meta.get("custom") or {}


def _operator_of(node: Node) -> str:
    """What the model called, where the decomposition remembers it, else the node's own operator."""
    return str(node.meta.get("original_aten") or node.target)


def _modules_of(nodes: list[Node]) -> dict[Node, str]:
    """Backward nodes carry no mark; they belong to the module whose values they read last."""
    modules: dict[Node, str] = {}
    for node in nodes:
        inherited = [modules[one] for one in node.all_input_nodes if modules.get(one)]
        modules[node] = _marks(node).get(_MODULE, inherited[-1] if inherited else "")
    return modules


def _fold(module: GraphModule, known: dict[Node, Tensor]) -> tuple[list[Node], dict[Node, Tensor]]:
    """Splits a graph into what depends on a live placeholder, and the values of what does not."""
    values: dict[Node, Any] = dict(known)
    live = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = getattr(module, str(node.target))
        elif node.op == "call_function":
            # What writes is never folded: it would change the model's own buffers, and escape refusal.
            if all(one in values for one in node.all_input_nodes) and not _writes(node):
                arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), lambda one: values[one])
                with torch.no_grad():
                    values[node] = node.target(*arguments, **options)
            else:
                live.append(node)
    return live, {node: value for node, value in values.items() if isinstance(value, Tensor)}


def _is_random(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _writes(node: Node) -> bool:
    """Whether an operator writes into its argument: an effect although nobody reads it, so kept, to be refused."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _needed(live: list[Node], outputs: tuple[Node, ...]) -> set[Node]:
    needed = set(outputs)
    for node in reversed(live):
        if node in needed or _writes(node):
            needed.add(node)
            needed.update(node.all_input_nodes)
    return needed
