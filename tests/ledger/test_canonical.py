from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import canonical_json, parse_json_strict, parse_root, root_hex
from ledger.errors import SpecificationError

ROOT = bytes(range(32))
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**53) + 1, 2.0**53 - 1)  # whole floats beyond read back as integers that JSON cannot hold
    | st.text()
)
_DOCUMENTS = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


def test_canonical_json_sorts_and_packs() -> None:
    # Number forms are those of RFC 8785's own example (section 3.2.2).
    value = {"b": [333333333.33333329, 1e30, 4.50, 2e-3], "a": '€$\u000f\nA\'B"\\\\"/'}
    expected = '{"a":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/","b":[333333333.3333333,1e+30,4.5,0.002]}'
    assert canonical_json(value) == expected.encode()


def test_canonical_json_sorts_by_utf16() -> None:
    assert canonical_json({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


@given(_DOCUMENTS)
def test_canonical_json_round_trips_and_is_stable(document: object) -> None:
    data = canonical_json(document)  # type: ignore[arg-type]  # hypothesis cannot name the strategy's JSON type
    assert canonical_json(parse_json_strict(data, "It")) == data


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, "\ud800"])
def test_canonical_json_refuses_what_json_cannot_hold(value: float | str) -> None:
    with pytest.raises(SpecificationError):
        canonical_json({"x": value})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a":1,"a":2}', "'a' stands twice"),
        (b'{"x":{"b":1,"c":2,"b":1}}', "'b' stands twice"),
        (b'{"a":NaN}', "NaN is not a JSON number"),
        (b'{"a":-Infinity}', "-Infinity is not"),
        (b'{"a":1e999}', "1e999 is out of range"),
        (b"{", "Expecting"),
        (b"[" * 65, "more than 64 deep"),
        (b'{"a":' * 100_000, "more than 64 deep"),
        (b'["]",' * 65, "more than 64 deep"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
        (b'{"a":"\xff"}', "not UTF-8 text (byte 6)"),
        (b"1" * 10_000, "not valid JSON"),
    ],
)
def test_parse_json_strict_refuses_ambiguity(data: bytes, reason: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_json_strict(data, "The document")
    assert caught.value.problem.startswith("The document is not")
    assert reason in caught.value.problem


def test_parse_json_strict_depth_counts_no_brackets_in_texts() -> None:
    assert parse_json_strict(b"[" * 64 + b"]" * 64, "It") is not None
    text = "[" * 1000 + '"{'
    assert parse_json_strict(canonical_json({"a": text, "b": [text]}), "It") == {"a": text, "b": [text]}


def test_parse_json_strict_texts_without_end_take_linear_time() -> None:
    started = time.monotonic()
    for hostile in (b'"' + b'\\"' * 500_000, b'["\\' * 500_000, b'"a' * 500_001):
        with pytest.raises(SpecificationError):
            parse_json_strict(hostile, "It")
    assert time.monotonic() - started < 10  # quadratic time would be hours


def test_root_hex_and_parse_root_are_inverse() -> None:
    assert root_hex(ROOT) == "0x" + ROOT.hex()
    assert parse_root(root_hex(ROOT), "program") == ROOT


@pytest.mark.parametrize(
    "text", ["", "0x", "0x" + "AB" * 32, "ab" * 32, "0x" + "ab" * 31, "0x" + "ab" * 33, "0x" + "gg" * 32, 5, None]
)
def test_parse_root_wrong_form_names_field(text: object) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_root(text, "dataset")
    assert caught.value.field == "dataset"
    assert repr(text) in caught.value.problem


def test_parse_root_zero_is_refused() -> None:
    with pytest.raises(SpecificationError, match="zero root"):
        parse_root("0x" + "00" * 32, "dataset")


def test_root_hex_wrong_length_is_a_bug() -> None:
    with pytest.raises(ValueError, match="not 31"):
        root_hex(bytes(31))
