"""How far an operand reaches into its source: the first and the last element that it can name."""

from __future__ import annotations

from trainer.program.exact.operations import KINDS, Cat, Operation, Shape, Take


def extents_of(one: Operation, place: int) -> Shape:
    """The output indexes at which operand `place` is read: of CAT, those that it covers."""
    if not isinstance(one.attributes, Cat):
        return one.shape
    axis = one.attributes.axis
    return (*one.shape[:axis], one.attributes.extents[place], *one.shape[axis + 1 :])


def last_element(one: Operation, place: int) -> int:
    """The largest element that operand `place` can name, runs and a table's last row included.

    The smallest is the operand's offset, since strides are not negative.
    """
    operand = one.operands[place]
    last = operand.offset
    for extent, stride in zip(extents_of(one, place), operand.strides, strict=True):
        last += (extent - 1) * stride
    if isinstance(one.attributes, Take) and place == 0:
        last += (one.attributes.rows - 1) * one.attributes.row_stride
    return last + (one.fold - 1 if place in KINDS[one.code].folds else 0)
