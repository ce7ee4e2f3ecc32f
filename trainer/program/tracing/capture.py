"""Graphs of ordinary PyTorch: forward, loss and backward as one list of core ATen operators.

What needs no input (masks, positions, rotary tables) is computed here, once, and becomes a constant.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

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
Logits = Callable[[nn.Module, Tensor], Tensor]
"""(model, inputs [B, T] int64) to logits for the next token at each place, float32 [B, T, V]."""

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
        placeholders: one for each parameter in `parameters`' order, then the inputs, then the targets if there are.
        constants: values of what depends on no input.
        modules: the module that each node belongs to.
        forward: the nodes of the forward pass and the loss.
        outputs: the loss, then the gradients in `parameters`' order (none without gradients); or the logits alone.
    """

    nodes: tuple[Node, ...]
    placeholders: tuple[Node, ...]
    parameters: tuple[str, ...]
    constants: dict[Node, Tensor]
    modules: dict[Node, str]
    forward: frozenset[Node]
    outputs: tuple[Node, ...]


class _Objective(nn.Module):
    """The model and what is asked of it as one module, so that one call can be given all parameters."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(self.model, *inputs)


class _Subject:
    """What is asked of a model as a function of its parameters, its buffers and the inputs, in this order.

    Attributes:
        parameters: by name; there is one at least. trained: places of those that require gradients.
    """

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        self.parameters = dict(model.named_parameters())
        self._buffers = dict(model.named_buffers())
        if not self.parameters:
            raise TracingError("The model has no parameters.")
        self._objective = _Objective(model, function)
        self._names = [f"model.{name}" for name in (*self.parameters, *self._buffers)]
        self.trained = tuple(index for index, one in enumerate(self.parameters.values()) if one.requires_grad)

    @property
    def differentiated(self) -> tuple[int, ...]:
        """Places of what gradients are taken for: something always."""
        return self.trained or tuple(range(len(self.parameters)))

    def __call__(self, *values: Tensor) -> Tensor:
        held = len(self._names)
        with torch.fx.traceback.annotate({_PHASE: "forward"}):
            result: Tensor = functional_call(
                self._objective, dict(zip(self._names, values[:held], strict=True)), values[held:]
            )
        return result

    def graph(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> Captured:
        """The graph of a function that calls this with all its arguments; inputs are examples."""
        values = [one.detach() for one in (*self.parameters.values(), *self._buffers.values())]
        with _plain_kernels(), _module_names(self._objective) as entered:
            module = _trace(function, [*values, *inputs], entered)
        return _clean(module, tuple(self.parameters), list(self._buffers.values()))


def capture(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, gradients: bool = True) -> Captured:
    """Traces a loss of a model, and its gradients for the parameters that require them.

    Args:
        inputs, targets: examples, [B, T] int64; only their shapes matter.

    Raises:
        TracingError: random numbers, values read into Python, buffers that change, a loss of several elements.
    """
    subject = _Subject(model, loss)

    def evaluate(*values: Tensor) -> Tensor:
        result = subject(*values)
        if not isinstance(result, Tensor) or result.numel() != 1:
            raise TracingError("The loss is not a tensor of one element.", remedy="Take its mean or its sum.")
        return result.reshape(())

    def everything(*values: Tensor) -> tuple[Tensor, ...]:
        slopes, value = grad_and_value(evaluate, argnums=subject.differentiated)(*values)
        if not gradients:
            # Differentiated all the same: without, PyTorch takes other paths, with operators that write in place.
            return (value,)
        found = dict(zip(subject.trained, slopes, strict=True))
        return (value, *(found.get(i, torch.zeros_like(values[i])) for i in range(len(subject.parameters))))

    return subject.graph(everything, inputs, targets)


def capture_logits(model: nn.Module, logits_of: Logits, inputs: Tensor, *, vocabulary: int) -> Captured:
    """Traces a model's logits: the one output, [B, T, V]. The inputs are the only placeholder but the parameters.

    Args:
        inputs: an example, [B, T] int64; only its shape matters.
        vocabulary: V.

    Raises:
        TracingError: random numbers, values read into Python, buffers that change, logits of another shape or type.
    """
    subject = _Subject(model, logits_of)
    wanted = (*inputs.shape, vocabulary)

    def evaluate(*values: Tensor) -> tuple[Tensor, Tensor]:
        logits = subject(*values)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted or logits.dtype != torch.float32:
            kind = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise TracingError(
                f"The logits are {kind.removeprefix('torch.')}, and float32 {list(wanted)} is asked.",
                remedy="Give a function of the model and its inputs that returns logits for every place.",
            )
        return logits.sum(), logits

    def everything(*values: Tensor) -> tuple[Tensor, ...]:
        # Differentiated for the same reason as a loss that is only measured; nobody reads the gradients.
        _, (_, logits) = grad_and_value(evaluate, argnums=subject.differentiated, has_aux=True)(*values)
        return (logits,)

    return subject.graph(everything, inputs)


def capture_function(function: Callable[..., tuple[Tensor, ...]], *examples: Tensor) -> Captured:
    """Traces any function of tensors as it is, without gradients; every argument is a placeholder.

    Raises:
        TracingError: random numbers, values read into Python.
    """
    with _plain_kernels():
        return _clean(_trace(function, list(examples), []), (), [])


def _trace(function: Callable[..., tuple[Tensor, ...]], values: list[Tensor], entered: list[str]) -> GraphModule:
    """The raw graph. Nothing is computed: tensors are traced by shape, so this takes seconds and little memory."""
    traced = make_fx(
        functionalize(function), decomposition_table=_decompositions(), tracing_mode="fake", _allow_non_fake_inputs=True
    )
    try:
        return traced(*values)
    except (DataDependentOutputException, GuardOnDataDependentSymNode) as error:
        module, name = _inside(entered)
        raise TracingError(
            f"{name} decides by a tensor's value in Python, which would fix the decision for ever.",
            module=module,
            operator="aten._local_scalar_dense.default",
            remedy="Use torch.where, or shapes, instead of .item() and of if on a tensor.",
        ) from error
    except RuntimeError as error:
        if "autograd.Function" not in str(error):
            raise
        module, name = _inside(entered)
        raise TracingError(
            f"{name} has a gradient of its own making (a torch.autograd.Function, or an operator that has one).",
            module=module,
            remedy="Write its forward with ordinary operators, or choose the model's plain implementation of it.",
        ) from error


@functools.cache
def _decompositions() -> dict[OpOverload, Callable[..., Any]]:
    """What is traced as other operators. Made once, because PyTorch takes a tenth of a whole trace to make it."""
    table = {**core_aten_decompositions(), **get_decompositions(list(_DECOMPOSED))}
    for kept in _KEPT:
        table.pop(kept, None)
    return table


def _inside(entered: Sequence[str]) -> tuple[str, str]:
    """The path of the module whose forward is running, and how a sentence calls it."""
    module = entered[-1] if entered else ""
    return module, f"Module {module}" if module else "The model"


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Nothing fused or opaque: attention from products, recurrent layers step by step.

    A model is told that it is being compiled, as torch.export does: it then computes a mask instead of looking at
    values to see whether it could do without.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")  # said by the flags below
            with (
                torch.backends.mkldnn.flags(enabled=False),
                sdpa_kernel(SDPBackend.MATH),
                torch.compiler._compile_session_context(),
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
        _leave_out_empty(node)
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


def _leave_out_empty(node: Node) -> None:
    """Tensors without elements add nothing to what is joined: a cache of keys begins with one."""
    if node.target == _aten.cat.default:
        parts = cast(Sequence[Node], node.args[0])
        node.args = ([one for one in parts if one.meta["val"].numel()] or parts, *node.args[1:])


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
