"""One small program with every operation in it, written with the builder."""

import torch

from trainer.engine.exact.functions import function_kernel
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role


def every_operation() -> BuiltProgram:
    """A token embedding, a product, a softmax's pieces and their like; no sense beyond that."""
    build = ProgramBuilder(Role.TRAIN)
    build.state("counter.step", DType.INT64, (1,))
    build.state("parameter.table", DType.FLOAT32, (9, 4))
    build.state("parameter.weight", DType.FLOAT32, (5, 4))
    build.state("moment.unused", DType.FLOAT32, (2,))
    table, weight = build.load("parameter.table"), build.load("parameter.weight")
    tokens = build.batch(2, 3)
    x = build.take(table, tokens)
    y = build.pointwise(function_kernel("exp"), build.matmul(x, weight, (8, 13)), dtype=DType.FLOAT32)
    rows = build.cat([y, build.constant(torch.ones(2, 3, 1)).expand((2, 3, 2))], -1, extent=8)
    total = build.sum_last(rows)
    best = build.max_last(build.reshape(total, (6,)))
    gradient = build.scatter_add(build.reshape(x, (6, 4)).transpose(), build.reshape(tokens, (6,)), 9)
    build.store("parameter.table", gradient)
    build.store("parameter.weight", best.expand((5, 4)))
    build.store("counter.step", build.load("counter.step"))
    return build.finish()
