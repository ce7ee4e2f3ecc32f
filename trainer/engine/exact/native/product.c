/* MATMUL: exact products of rows of at most 13 bits, accumulated in 32 bits over slices of K and in 64 across them.
   Work is shared by panels of columns, so a column's packed copy is made once; integers make the order of no matter. */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include <immintrin.h>
#endif

enum { PANEL = 64, TILE = 6 };

/* 16-bit pairs (2k, 2k + 1) of up to PANEL columns beside each other; zeros fill up columns and an odd K. */
static void pack_columns(const struct product *p, const void *b, ptrdiff_t columns, int32_t *packed)
{
    ptrdiff_t pairs = (p->length + 1) / 2;
    for (ptrdiff_t j = 0; j < PANEL; j++) {
        if (j >= columns) {
            for (ptrdiff_t k = 0; k < pairs; k++) packed[k * PANEL + j] = 0;
        } else if (p->b_bytes == 2) {
            const int16_t *row = (const int16_t *)b + j * p->b_column;
            for (ptrdiff_t k = 0; k < p->length / 2; k++) memcpy(&packed[k * PANEL + j], row + 2 * k, 4);
            if (p->length & 1) packed[(pairs - 1) * PANEL + j] = (uint16_t)row[p->length - 1];
        } else {
            const int8_t *row = (const int8_t *)b + j * p->b_column;
            for (ptrdiff_t k = 0; k < p->length / 2; k++)
                packed[k * PANEL + j] = (int32_t)((uint16_t)(int16_t)row[2 * k] | (uint32_t)(uint16_t)(int16_t)row[2 * k + 1] << 16);
            if (p->length & 1) packed[(pairs - 1) * PANEL + j] = (uint16_t)(int16_t)row[p->length - 1];
        }
    }
}

/* One row of a as 16-bit pairs, with a zero after an odd K. */
static void widen_row(const struct product *p, const void *a, ptrdiff_t at, int16_t *row)
{
    if (p->a_bytes == 2)
        memcpy(row, (const int16_t *)a + at, (size_t)p->length * 2);
    else
        for (ptrdiff_t k = 0; k < p->length; k++) row[k] = ((const int8_t *)a)[at + k];
    if (p->length & 1) row[p->length] = 0;
}

/* acc[r][j] = products of pairs [from, to) of TILE rows and PANEL columns. */
static void tile(const int16_t *const rows[TILE], const int32_t *packed, ptrdiff_t from, ptrdiff_t to,
                 int32_t acc[TILE][PANEL])
{
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    __m512i c[TILE][4];
    for (int r = 0; r < TILE; r++)
        for (int v = 0; v < 4; v++) c[r][v] = _mm512_setzero_si512();
    for (ptrdiff_t k = from; k < to; k++) {
        __m512i b[4];
        for (int v = 0; v < 4; v++) b[v] = _mm512_loadu_si512(packed + k * PANEL + v * 16);
#pragma GCC unroll 6
        for (int r = 0; r < TILE; r++) {
            int32_t pair;
            memcpy(&pair, rows[r] + 2 * k, 4);
            __m512i a = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) c[r][v] = _mm512_dpwssd_epi32(c[r][v], a, b[v]);
        }
    }
    for (int r = 0; r < TILE; r++)
        for (int v = 0; v < 4; v++) _mm512_storeu_si512(&acc[r][v * 16], c[r][v]);
#else
    memset(acc, 0, sizeof(int32_t) * TILE * PANEL);
    for (ptrdiff_t k = from; k < to; k++)
        for (int r = 0; r < TILE; r++) {
            int32_t low = rows[r][2 * k], high = rows[r][2 * k + 1];
            for (int j = 0; j < PANEL; j++) {
                int32_t pair = packed[k * PANEL + j];
                acc[r][j] += low * (int16_t)pair + high * (pair >> 16);
            }
        }
#endif
}

INLINE void finish(float *out, float sum, float scale_a, float scale_b)
{
    uint32_t word = seen((sum * scale_a) * scale_b);
    memcpy(out, &word, 4);
}

static void write_row(float *out, const int32_t *narrow, const int64_t *wide, ptrdiff_t columns, float scale_a,
                      const float *scale_b)
{
    if (wide)
        for (ptrdiff_t j = 0; j < columns; j++) finish(out + j, (float)wide[j], scale_a, scale_b[j]);
    else
        for (ptrdiff_t j = 0; j < columns; j++) finish(out + j, (float)narrow[j], scale_a, scale_b[j]);
}

static void panel_rows(const struct product *p, const int32_t *packed, const int16_t *const rows[TILE],
                       float *const outs[TILE], const float scales[TILE], ptrdiff_t count, ptrdiff_t columns,
                       const float *scale_b)
{
    int32_t acc[TILE][PANEL] __attribute__((aligned(64)));
    int64_t wide[TILE][PANEL];
    ptrdiff_t pairs = (p->length + 1) / 2, step = p->slice / 2;
    int one = pairs <= step;
    for (ptrdiff_t k = 0; k < pairs; k += step) {
        tile(rows, packed, k, k + step < pairs ? k + step : pairs, acc);
        if (!one)
            for (int r = 0; r < TILE; r++)
                for (int j = 0; j < PANEL; j++) wide[r][j] = (k ? wide[r][j] : 0) + acc[r][j];
    }
    for (ptrdiff_t r = 0; r < count; r++)
        write_row(outs[r], acc[r], one ? NULL : wide[r], columns, scales[r], scale_b);
}

/* `batch` < 0: all batches share b, and their rows are rows of one product. */
static void panel(const struct product *p, ptrdiff_t batch, ptrdiff_t first, float *out, const void *a, const void *b,
                  const float *sa, const float *sb, char *scratch)
{
    ptrdiff_t pairs = (p->length + 1) / 2, columns = p->columns - first < PANEL ? p->columns - first : PANEL;
    int32_t *packed = (int32_t *)scratch;
    int16_t *copies = (int16_t *)(packed + pairs * PANEL);
    float scale_b[PANEL];
    ptrdiff_t shared = batch < 0 ? 0 : batch;
    ptrdiff_t b_at = offset_of(p, p->b_batch, shared) + first * p->b_column;
    const float *scale = sb + offset_of(p, p->sb_batch, shared) + first * p->sb_column;
    for (ptrdiff_t j = 0; j < columns; j++) scale_b[j] = scale[j * p->sb_column];
    pack_columns(p, (const char *)b + b_at * p->b_bytes, columns, packed);
    ptrdiff_t from = batch < 0 ? 0 : batch * p->rows, to = batch < 0 ? p->batches * p->rows : from + p->rows;
    int copy = p->a_bytes == 1 || p->length & 1;
    for (ptrdiff_t row = from; row < to; row += TILE) {
        const int16_t *rows[TILE];
        float *outs[TILE], scales[TILE];
        ptrdiff_t count = to - row < TILE ? to - row : TILE;
        for (ptrdiff_t r = 0; r < TILE; r++) {
            /* Past the end, the last row again: computed and not written. */
            ptrdiff_t index = row + (r < count ? r : count - 1), at = index / p->rows, inside = index % p->rows;
            ptrdiff_t a_at = offset_of(p, p->a_batch, at) + inside * p->a_row;
            rows[r] = (const int16_t *)a + a_at;
            if (copy) {
                widen_row(p, a, a_at, copies + r * 2 * pairs);
                rows[r] = copies + r * 2 * pairs;
            }
            outs[r] = out + index * p->columns + first;
            scales[r] = sa[offset_of(p, p->sa_batch, at) + inside * p->sa_row];
        }
        panel_rows(p, packed, rows, outs, scales, count, columns, scale_b);
    }
}

void tl_product(int t, int n, const struct product *p, float *out, const void *a, const void *b, const float *sa,
                const float *sb, char *scratch)
{
    int shared = 1;
    for (int axis = 0; axis < 4; axis++) shared &= !p->b_batch[axis] && !p->sb_batch[axis];
    ptrdiff_t panels = (p->columns + PANEL - 1) / PANEL, from, to;
    share(shared ? panels : panels * p->batches, t, n, &from, &to);
    for (ptrdiff_t item = from; item < to; item++)
        panel(p, shared ? -1 : item / panels, item % panels * PANEL, out, a, b, sa, sb, scratch);
}
