"""The reference against exact fractions: no float takes part in any expected value."""

import struct
from fractions import Fraction

import pytest
import torch
from exact_oracle import (
    ANY,
    EXAMPLES,
    NAN,
    NEAR_ONE,
    SPECIAL,
    exact,
    is_nan,
    nearest,
    square_root,
    tensor,
)
from exact_oracle import words_of as bits
from hypothesis import given
from hypothesis import strategies as st

from trainer.engine.exact import reference
from trainer.engine.exact.backends import BACKENDS, admitted_backends
from trainer.engine.exact.selftest import KNOWN_ANSWERS, digests, inputs, run_selftest


def row_exponent(row: list[int]) -> int:
    greatest = max(pattern & 0x7FFFFFFF for pattern in row)
    return min(max((greatest >> 23) - 126, -96), 128)


@EXAMPLES
@given(st.lists(ANY, min_size=1, max_size=20), st.integers(3, 13))
def test_quantise_rows_equals_fractions(row: list[int], precision: int) -> None:
    q, scale = reference.quantise_rows(tensor(row)[None], precision)
    if any(pattern & 0x7FFFFFFF >= 0x7F800000 for pattern in row):
        assert q.tolist() == [[0] * len(row)]
        assert bits(scale) == [NAN]
        return
    exponent, largest = row_exponent(row), 2 ** (precision - 1) - 1
    expected = [
        min(max(round(exact(pattern) * Fraction(2) ** (precision - 1 - exponent)), -largest), largest)
        for pattern in row
    ]
    assert q.tolist() == [expected]
    assert bits(scale) == [nearest(Fraction(2) ** (exponent - precision + 1))]


@EXAMPLES
@given(st.lists(ANY, min_size=1, max_size=20))
def test_max_and_argmax_follow_the_total_order(row: list[int]) -> None:
    def rank(pattern: int) -> tuple[int, Fraction, int]:
        if is_nan(pattern):
            return (2, Fraction(0), 0)
        if pattern & 0x7FFFFFFF == 0x7F800000:
            return (-1 if pattern >> 31 else 1, Fraction(0), 0)
        return (0, exact(pattern), 0 if pattern >> 31 else 1)

    best = max(range(len(row)), key=lambda index: rank(row[index]))  # the first of equals
    assert bits(reference.max_rows(tensor(row)[None])) == [NAN if is_nan(row[best]) else row[best]]
    assert reference.argmax_rows(tensor(row)[None]).item() == best


@EXAMPLES
@given(st.lists(ANY, min_size=1, max_size=40), st.integers(-96, 128) | st.none())
def test_sum_rows_equals_fractions(row: list[int], exponent: int | None) -> None:
    exponent = row_exponent(row) if exponent is None else exponent
    actual = bits(reference.sum_rows(tensor(row)[None], torch.tensor([[exponent]], dtype=torch.int32)))
    infinities = {pattern for pattern in row if pattern & 0x7FFFFFFF == 0x7F800000}
    if any(map(is_nan, row)) or len(infinities) == 2:
        assert actual == [NAN]
        return
    if infinities:
        assert actual == list(infinities)
        return
    total = sum(min(max(round(exact(pattern) * Fraction(2) ** (30 - exponent)), -(2**30)), 2**30) for pattern in row)
    rounded = exact(nearest(Fraction(total)))
    assert actual == [nearest(rounded * Fraction(2) ** (exponent - 30))]


@EXAMPLES
@given(st.lists(NEAR_ONE | SPECIAL, min_size=6, max_size=6), st.sampled_from([(8, 8), (13, 13), (8, 13)]))
def test_matmul_equals_fractions(values: list[int], precision: tuple[int, int]) -> None:
    halves = zip((values[:3], values[3:]), precision, strict=True)
    a, b = (reference.quantise_rows(tensor(part)[None], p) for part, p in halves)
    actual = bits(reference.matmul(a, b, bits=precision))
    scales = [bits(part[1])[0] for part in (a, b)]
    if any(map(is_nan, scales)):
        assert actual == [NAN]
        return
    total = sum(x * y for x, y in zip(a[0][0].tolist(), b[0][0].tolist(), strict=True))
    first = nearest(exact(nearest(Fraction(total))) * exact(scales[0]))
    if first & 0x7FFFFFFF == 0x7F800000:  # the first of the two products overflows: the second cannot bring it back
        assert actual == [first]
    else:
        assert actual == [nearest(exact(first) * exact(scales[1]))]


@EXAMPLES
@given(st.lists(ANY, min_size=1, max_size=30))
def test_square_root_is_correctly_rounded(row: list[int]) -> None:
    assert bits(reference.square_root(tensor(row))) == [square_root(word) for word in row]


def test_square_root_keeps_the_shape() -> None:
    assert reference.square_root(torch.tensor(4.0)).shape == ()
    assert reference.square_root(torch.ones(2, 3).mT).shape == (3, 2)


def test_nearest_equals_the_processor() -> None:
    values = [1.5, -0.1, 3.4e38, 1e-45, 1e-40, 2**-126, 16777217.0, 0.3333333333333333]
    expected = [struct.unpack("<I", struct.pack("<f", value))[0] for value in values]
    assert [nearest(Fraction(value)) for value in values] == expected


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_admitted_or_named(name: str) -> None:
    fault = admitted_backends(torch.device("cpu"))[name]
    # int8 kernels may be wrong on processors without VNNI; the two float backends are right wherever IEEE 754 holds.
    assert not fault or (name == "int8" and "sums are wrong" in fault)


@EXAMPLES
@given(st.integers(1, 9), st.integers(1, 300), st.integers(1, 9), st.integers(0, 2**31), st.data())
def test_backends_agree(rows: int, length: int, columns: int, seed: int, data: st.DataObject) -> None:
    precision = data.draw(st.sampled_from([(8, 8), (13, 13), (8, 13), (13, 8), (3, 13)]))
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randint(1 - 2 ** (p - 1), 2 ** (p - 1), (size, length), generator=generator, dtype=torch.int16)
        for p, size in zip(precision, (rows, columns), strict=True)
    )
    expected = (a[:, None].to(torch.int64) * b[None].to(torch.int64)).sum(-1)
    for name, fault in admitted_backends_once().items():
        if not fault:
            assert torch.equal(BACKENDS[name].multiply(a, b, *precision), expected), name


@pytest.mark.parametrize(("rows", "columns"), [(1, 1030), (33, 64), (1024, 1025)])  # slices of K: many, some, one
def test_float32_products_of_wide_operands_in_several_calls_are_exact(rows: int, columns: int) -> None:
    generator, length = torch.Generator().manual_seed(rows), 1100 if rows < 1024 else 3
    a, b = (
        torch.randint(-4095, 4096, (size, length), generator=generator, dtype=torch.int16) for size in (rows, columns)
    )
    exact = (a.to(torch.float64) @ b.to(torch.float64).mT).to(torch.int64)
    assert torch.equal(BACKENDS["float32"].multiply(a, b, 13, 13), exact)


_ADMITTED: dict[str, str] = {}


def admitted_backends_once() -> dict[str, str]:
    if not _ADMITTED:
        _ADMITTED.update(admitted_backends(torch.device("cpu")))
    return _ADMITTED


def test_inputs_reach_special_values() -> None:
    a, b = inputs()
    assert a.shape == b.shape == (64, 257)
    pairs = set(zip(bits(a[1]), bits(b[1]), strict=True))
    special = {pattern for pair in pairs for pattern in pair}
    assert {0, 0x80000000, 1, 0x7F800000, 0xFF800000, NAN} <= special


def test_selftest_passes_here() -> None:
    test = run_selftest()
    assert [check for check in test.checks if check.fault] == []
    assert test.passed
    assert test.fastest in test.backends


def test_selftest_reports_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN_ANSWERS, "divide", "00" * 32)
    test = run_selftest()
    assert not test.passed
    assert [check.name for check in test.checks if check.fault] == ["divide"]


def test_digests_do_not_depend_on_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = dict(digests(torch.device("cpu")))
        torch.set_num_threads(2)
        assert dict(digests(torch.device("cpu"))) == one
    finally:
        torch.set_num_threads(threads)
