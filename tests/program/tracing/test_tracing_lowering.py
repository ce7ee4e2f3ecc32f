"""Each lowering on its own against PyTorch, on random inputs; `lowered` also holds fused programs to the same bits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from traced import lowered

from trainer.program.tracing.refusals import TracingError

Function = Callable[..., Tensor | tuple[Tensor, ...]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def compare(function: Function, *inputs: Tensor, tolerance: float = 2e-6) -> None:
    expected = function(*inputs)
    wanted_all = expected if isinstance(expected, tuple) else (expected,)
    for wanted, given in zip(wanted_all, lowered(function, *inputs), strict=True):
        assert given.shape == wanted.shape
        if wanted.is_floating_point():
            torch.testing.assert_close(given, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            assert torch.equal(given, wanted.to(torch.int64))


POINTWISE: dict[str, Function] = {
    "add with alpha": lambda a, b: torch.add(a, b, alpha=-0.5),
    "subtract from a number": lambda a, b: 2.5 - a,
    "products and quotients": lambda a, b: a * b / (b * b + 1) * 3,
    "negative, magnitude, sign": lambda a, b: -a + b.abs() * torch.sign(a),
    "exponential": lambda a, b: torch.exp(a - b),
    "logarithm": lambda a, b: torch.log(a * a + 0.1),
    "hyperbolic tangent": lambda a, b: torch.tanh(a),
    "sigmoid and its like": lambda a, b: torch.sigmoid(a) + functional.silu(b),
    "error function": lambda a, b: torch.erf(a) + functional.gelu(b),
    "gelu by tanh": lambda a, b: functional.gelu(a, approximate="tanh"),
    "roots": lambda a, b: torch.rsqrt(a * a + 1) + torch.sqrt(b * b),
    "small exponentials": lambda a, b: torch.expm1(a) + torch.log1p(b * b) + functional.softplus(a) + functional.elu(b),
    "reciprocal": lambda a, b: torch.reciprocal(a * a + 1),
    "whole powers": lambda a, b: a**3 + b**2 + (a * a + 1) ** -2 + b**0,
    "powers of one half": lambda a, b: (a * a + 1) ** 0.5 + (b * b + 1) ** -0.5,
    "rectifier": lambda a, b: torch.relu(a) + functional.leaky_relu(b, 0.1),
    "extrema of two": lambda a, b: torch.maximum(a, b) - torch.minimum(a, b),
    "clamp on both sides": lambda a, b: torch.clamp(a, -0.5, 0.5),
    "clamp on one side": lambda a, b: torch.clamp(a, max=0.5) + torch.clamp(b, min=-0.25),
    "choice": lambda a, b: torch.where(a > b, a, b * 2),
    "choice of numbers": lambda a, b: torch.where(a > 0, 1.5, -2.0),
    "comparisons": lambda a, b: (a < b, a <= b, a > b, a >= b, a == b, a != 0),
    "logic": lambda a, b: ((a > 0) & (b > 0)) | ~(a > b) ^ torch.logical_not(b),
    "whole numbers": lambda a, b: (torch.round(a * 4), torch.floor(a * 4), torch.ceil(a * 4), torch.trunc(a * 4)),
    "conversions": lambda a, b: ((a * 9).to(torch.int64), (b > 0).float() * 2, (a * 9).to(torch.int32).float()),
    "tensors made in place": lambda a, b: a * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]) + torch.arange(5) % 2,
    "fills": lambda a, b: (torch.full_like(a, 3.0) + torch.zeros_like(b) + torch.ones_like(a)) * a,
}


@pytest.mark.parametrize("name", POINTWISE)
def test_elementwise_agrees_with_torch(name: str) -> None:
    compare(POINTWISE[name], random(3, 4, 5), random(4, 1, seed=7))


def test_elementwise_takes_tensors_without_axes() -> None:
    compare(lambda a, b: a * b + torch.exp(a), random(), random(3))
    compare(lambda a, b: torch.sqrt(a * a) + 1, random(), random())


def test_elementwise_keeps_special_values() -> None:
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-42, -3.0])
    compare(lambda a: (torch.relu(a), torch.isnan(a), torch.isinf(a), a == a, torch.clamp(a, -1, 1)), special)
    compare(lambda a: (torch.exp(a), torch.expm1(a), torch.log1p(a), torch.log(a), torch.tanh(a)), special)
    compare(lambda a, b: (torch.maximum(a, b), torch.minimum(a, b), a < b), special, special.flip(0))


def test_integers_stay_integers() -> None:
    numbers = torch.arange(-6, 6)
    compare(lambda i: (i * 3 - 1, -i, i.abs(), i.clamp(-2, 3), i < 2, ~i, (i & 3) | 8, i * 0.5, i / 4), numbers)


VIEWS: dict[str, Function] = {
    "view": lambda x: x.view(12, 10) * 2,
    "view with -1": lambda x: x.view(2, -1) + 1,
    "permute": lambda x: x.permute(2, 0, 3, 1) * 2,
    "view of a permuted copy": lambda x: x.permute(3, 1, 0, 2).reshape(5, 24) + 1,
    "negative axes": lambda x: x.transpose(-1, -3).unsqueeze(-2).squeeze(-2) * 2,
    "select": lambda x: x[:, 1] + x.select(-3, -1),
    "slice with step": lambda x: x[:, :, 1::2, :-1] * 3,
    "expand": lambda x: x[:, :1].expand(2, 3, 4, 5) + x,
    "split": lambda x: torch.cat([part * (n + 1) for n, part in enumerate(x.split(2, -1))], -1),
    "chunk and unbind": lambda x: torch.stack(
        [a * b for a, b in zip(x[:, :, :2].unbind(1), x.chunk(2, 2)[1].unbind(1), strict=True)]
    ),
    "diagonal": lambda x: x[0, 0, :4, :4].diagonal() * 2,
    "pad": lambda x: functional.pad(x, (1, 2, 0, 3), value=0.5),
    "pad away": lambda x: functional.pad(x, (-1, 1)),
    "write a slice": lambda x: torch.slice_scatter(x, x[:, :, :2] * 2, 2, 1, 3),
    "write one place": lambda x: torch.select_scatter(x, x[:, :, 0] * 2, -2, -1),
    "many parts": lambda x: torch.cat([x * n for n in range(20)], 1),
    "strides over memory": lambda x: x.as_strided((4, 5), (5, 1), 7) + (x * 2).as_strided((5, 4), (2, 3)).t(),
    "unfold": lambda x: x.unfold(3, 3, 2) * 2,
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_agree_with_torch(name: str) -> None:
    compare(VIEWS[name], random(2, 3, 4, 5))


FOLDS: dict[str, Function] = {
    "sum of all": lambda x: x.sum(),
    "sum of the last axis": lambda x: x.sum(-1),
    "sum of the first axis": lambda x: x.sum(0, keepdim=True),
    "sum of two axes": lambda x: x.sum((0, -1)),
    "sum of two axes kept": lambda x: x.sum((1, 2), keepdim=True),
    "sum of a permuted slice": lambda x: x.permute(2, 1, 0)[1:, :2].sum(1),
    "mean": lambda x: x.mean() + x.mean((0, 2)).sum(),
    "variance": lambda x: (x.var(-1), x.var((0, 1), correction=0, keepdim=True)),
    "softmax": lambda x: (x.softmax(-1), x.log_softmax(0)),
    "log of a sum": lambda x: torch.logsumexp(x, 1),
    "layer norm": lambda x: functional.layer_norm(x, (5,)),
    "group norm": lambda x: functional.group_norm(x, 2),
    "batch norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "extrema": lambda x: (x.amax(-1), x.amin((0, 1)), x.amax((0, 2), keepdim=True), x.max(1).values),
    "any and all": lambda x: ((x > 1).any(-1), (x > -2).all(0), (x > 5).any(), (x > 1.5).any(1, keepdim=True)),
    "count": lambda x: (x > 0).sum((0, 1)),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folds_agree_with_torch(name: str) -> None:
    compare(FOLDS[name], random(3, 4, 5))


def test_folds_take_tensors_without_axes_and_axes_of_one() -> None:
    compare(lambda x: (x.sum(), x.mean(), x.amax()), random())
    compare(lambda x: (x.sum(1), x.mean(1, keepdim=True), x.amax(-1)), random(4, 1))


def test_softmax_guards_rows_that_are_masked_everywhere() -> None:
    scores = random(4, 5)
    scores[1] = -torch.inf
    scores[2, 3] = -torch.inf
    scores[3, 0] = torch.nan
    compare(lambda x: torch.ops.aten._safe_softmax(x, -1), scores)
    compare(lambda x: torch.logical_not(x == -torch.inf).any(0, keepdim=True), scores)


def test_products_agree_with_torch_within_thirteen_bits() -> None:
    a, b = random(6, 40), random(40, 9, seed=1)
    for function, inputs in (
        (lambda x, y: x @ y, (a, b)),
        (lambda x, y: x.t() @ y.t(), (random(40, 6), random(9, 40))),
        (lambda x, y: x @ y.transpose(1, 2), (random(2, 3, 7), random(2, 5, 7))),
        (lambda x, y: torch.einsum("bhtd,bhsd->bhts", x, y), (random(2, 3, 4, 8), random(2, 3, 5, 8))),
        (lambda x, y: functional.linear(x, y.t(), x[0, :9]), (a, b)),
    ):
        compare(function, *inputs, tolerance=1e-2)
        exact = function(*inputs)
        assert (lowered(function, *inputs)[0] - exact).norm() < 1e-3 * exact.norm()


def test_products_keep_what_many_small_elements_add_up_to() -> None:
    """As in the gradient of a large vocabulary's logits: one element of 1, and small ones that add up to -1."""
    off = {}
    for length in (2**13, 2**13 + 2):
        row = torch.full((2, length), -1.0 / (length - 1))
        row[:, 0] = 1.0
        matrix = 1 + random(length, 3) / 8
        wanted = row.double() @ matrix.double()
        off[length] = ((lowered(lambda x, y: x @ y, row, matrix)[0] - wanted).norm() / wanted.norm()).item()
    # A unit is 2^-12 here and the small ones are an eighth of a thousandth: below half of it.
    assert off[2**13] > 1
    # What is left is the matrix's own rounding, half a thousandth, where the two parts of the row cancel to a tenth.
    assert off[2**13 + 2] < 1e-2


PLACES: dict[str, Function] = {
    "embedding": lambda x, i: functional.embedding(i, x),
    "rows": lambda x, i: x[i],
    "rows from the end": lambda x, i: x[i - 4],
    "along an inner axis": lambda x, i: x[:, i],
    "index_select": lambda x, i: x.index_select(-1, i[0]),
    "gather": lambda x, i: x.gather(1, i[:, :2]),
    "gather along the first axis": lambda x, i: x.gather(0, i),
    "labels": lambda x, i: x.gather(1, i[:, 1:2]).squeeze(1),
    "scatter of a number": lambda x, i: x.scatter(1, i[:, :1], 2.5),
    "scatter along the first axis": lambda x, i: x.scatter(-2, i[:1], -1.0),
    "scatter of a tensor": lambda x, i: x.scatter(1, i[:, :1], x[:, 2:3] * 2),
    "added rows": lambda x, i: torch.zeros(4, 4).index_put((i,), x[i] * 2, accumulate=True),
    "added numbers": lambda x, i: x[0].index_put((i,), x[0, i] * 2, accumulate=True),
    "embedding gradient": lambda x, i: torch.ops.aten.embedding_dense_backward(x[i], i, 4, -1, False),
    "embedding gradient with padding": lambda x, i: torch.ops.aten.embedding_dense_backward(x[i], i, 4, 2, False),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_agree_with_torch(name: str) -> None:
    places = torch.randint(0, 4, (4, 4), generator=torch.Generator().manual_seed(3))
    compare(PLACES[name], random(4, 4), places)


def test_cross_entropy_agrees_with_torch() -> None:
    labels = torch.tensor([0, 3, 1, -100, 2])
    compare(lambda x, i: functional.cross_entropy(x, i), random(5, 4), labels)
    compare(lambda x, i: functional.cross_entropy(x, i, reduction="sum"), random(5, 4), labels)


REFUSED: list[tuple[str, str, Function]] = [
    ("aten.sort.default", "no sorting", lambda x: x.sort().values),
    ("aten.topk.default", "no sorting", lambda x: x.topk(2).values),
    ("aten.cumsum.default", "running sums", lambda x: x.cumsum(0)),
    ("aten.argmax.default", "amax", lambda x: x.argmax(-1)),
    ("aten.pow.Tensor_Scalar", "Whole exponents", lambda x: x**0.3),
    ("aten.cos.default", "positions alone", lambda x: x.cos()),
    ("aten.max.dim", "Only their values", lambda x: x.max(0).indices),
    ("aten.scatter.src", "one place", lambda x: x.scatter(1, torch.zeros(3, 4, dtype=torch.int64), x * 2)),
    ("aten.index.Tensor", "one index", lambda x: x[torch.tensor([0, 1]), torch.tensor([1, 2])]),
    ("aten._local_scalar_dense.default", "torch.where", lambda x: x * x.sum().item()),
    ("aten.index.Tensor", "torch.where", lambda x: x[x > 0].sum()),
    ("aten.index_put.default", "torch.where", lambda x: x.index_put((torch.tensor([0, 1]),), x[:2] * 2)),
    ("aten._to_copy.default", "docs/tracing.md", lambda x: x.double() * 2),
    ("aten.sum.dim_IntList", "float32 first", lambda x: (x * 3).to(torch.int64).sum()),
]


@pytest.mark.parametrize(("operator", "remedy", "function"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_lowering_refuses_by_name(operator: str, remedy: str, function: Function) -> None:
    with pytest.raises(TracingError) as caught:
        lowered(function, random(3, 4))
    assert caught.value.operator == operator
    assert operator in str(caught.value)
    assert remedy in caught.value.remedy
