/* A MATMUL of quantised rows, as product.c and product.cuh take it. Strides count elements; *_batch hold one for each
   batch axis. tl_index: of indexes and offsets. */

struct product {
    tl_index batches, extents[4], rows, columns, length;
    tl_index a_batch[4], a_row, b_batch[4], b_column, sa_batch[4], sa_row, sb_batch[4], sb_column;
    int a_bytes, b_bytes; /* of an element: 1 or 2 */
    tl_index slice;       /* so many products fit 32 bits */
};

/* Where a batch begins. */
INLINE tl_index offset_of(const struct product *p, const tl_index *strides, tl_index batch)
{
    tl_index at = 0;
    for (int axis = 3; axis >= 0; axis--) {
        at += batch % p->extents[axis] * strides[axis];
        batch /= p->extents[axis];
    }
    return at;
}
