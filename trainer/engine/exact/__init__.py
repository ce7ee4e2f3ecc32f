"""Exact arithmetic: the same bits on every processor (docs/arithmetic.md)."""

from trainer.engine.exact.backends import BACKENDS, Backend, admitted_backends, dot
from trainer.engine.exact.reference import (
    CANONICAL_NAN,
    argmax_rows,
    canonical_nan,
    exponent_of,
    matmul,
    max_rows,
    order_key,
    quantise_rows,
    square_root,
    sum_rows,
)

__all__ = [
    "BACKENDS",
    "CANONICAL_NAN",
    "Backend",
    "admitted_backends",
    "argmax_rows",
    "canonical_nan",
    "dot",
    "exponent_of",
    "matmul",
    "max_rows",
    "order_key",
    "quantise_rows",
    "square_root",
    "sum_rows",
]
