/* MATMUL: exact products of quantised rows with int8 products that add up in 32 bits, over slices of K that cannot
   overflow (2^17 at the most: 127 * 127 * 2^17 < 2^31), and in 64 bits across slices.

   An operand of 13 bits is two planes of int8, 128 h + l with h in [-32, 32] and l in [-64, 63]; one of 8 bits is one
   plane. Products of planes whose weights are equal add up together: h l' and l h' in one accumulator.

   A block of WM by WN warps makes a tile of 32 WM rows and 32 WN columns, 32 values of K at a time. The next values
   come from memory while the ones in shared memory are multiplied. A warp makes 32 by 32 elements, laid out over its
   lanes as mma.m16n8k32 wants it: element c of part (i, j) is in row 16 i + 8 (c / 2) + lane / 4 and column
   8 j + 2 (lane % 4) + c % 2. */

#ifndef TL_TENSOR
#define TL_TENSOR (__CUDA_ARCH__ >= 800)
#endif

enum { TL_DEEP = 32, TL_ROW = 48, TL_CHUNK = 8 }; /* K a turn; bytes from row to row in shared memory; K a load */

struct __align__(16) tl_words4 { uint32_t word[4]; };
struct __align__(8) tl_words2 { uint32_t word[2]; };

/* Eight values of K of one row: 4 words of int16, or 2 of int8; zeros past the end and outside.
   WHOLE: rows begin where eight values can be read at once. */
template <int PLANES, int WHOLE>
INLINE void tl_load(uint32_t *words, const char *base, int64_t row, uint32_t k, uint32_t end)
{
#pragma unroll
    for (int w = 0; w < 2 * PLANES; w++) words[w] = 0;
    if (row < 0 || k >= end) return;
    const char *from = base + (row + k) * PLANES;
    if (WHOLE && end - k >= TL_CHUNK) {
        if constexpr (PLANES == 2) {
            struct tl_words4 four = *(const struct tl_words4 *)from;
#pragma unroll
            for (int w = 0; w < 4; w++) words[w] = four.word[w];
        } else {
            struct tl_words2 two = *(const struct tl_words2 *)from;
            words[0] = two.word[0], words[1] = two.word[1];
        }
        return;
    }
#pragma unroll
    for (int n = 0; n < TL_CHUNK; n++)
        if (n < end - k) {
            if constexpr (PLANES == 2)
                words[n / 2] |= (uint32_t)((const uint16_t *)from)[n] << n % 2 * 16;
            else
                words[n / 4] |= (uint32_t)((const uint8_t *)from)[n] << n % 4 * 8;
        }
}

/* Two words of int16 pairs as a word of each plane: low, high. Biased by 2^15 + 64, a pair has h + 256 in bits 7 to 15
   of each half, and l + 64 below. */
INLINE void tl_planes(uint32_t near, uint32_t far, uint32_t *low, uint32_t *high)
{
    near = (near ^ 0x80008000u) + 0x00400040u;
    far = (far ^ 0x80008000u) + 0x00400040u;
    *high = __byte_perm(near >> 7, far >> 7, 0x6420);
    /* Minus 64 in each byte, without a borrow from the next. */
    *low = ((((__byte_perm(near, far, 0x6420) & 0x7f7f7f7fu) | 0x80808080u) - 0x40404040u) ^ 0x80808080u);
}

/* Puts eight values of a row into the planes of a tile of `rows` rows. */
template <int PLANES>
INLINE void tl_put(const uint32_t *words, char *tile, uint32_t rows, uint32_t chunk)
{
    char *to = tile + chunk / 4 * TL_ROW + chunk % 4 * TL_CHUNK;
    struct tl_words2 low, high;
    if constexpr (PLANES == 1) {
        low.word[0] = words[0], low.word[1] = words[1];
    } else {
        tl_planes(words[0], words[1], &low.word[0], &high.word[0]);
        tl_planes(words[2], words[3], &low.word[1], &high.word[1]);
        *(struct tl_words2 *)(to + rows * TL_ROW) = high;
    }
    *(struct tl_words2 *)to = low;
}

#if TL_TENSOR
/* Of 16 rows of 32 bytes in shared memory, what mma wants of them as its first operand: lane / 4 and 8 more are a
   lane's rows, 4 (lane % 4) and 16 more its bytes. */
INLINE void tl_matrix(uint32_t *words, const char *rows)
{
#if defined(TL_EMULATED)
    tl_emulated_matrix(words, rows, TL_ROW);
#else
    uint32_t lane = threadIdx.x % 32;
    uint32_t at = (uint32_t)__cvta_generic_to_shared(rows + lane % 16 * TL_ROW + lane / 16 * 16);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at)
                 : "memory");
#endif
}

INLINE void tl_multiply(int32_t *sum, const uint32_t *a, uint32_t b0, uint32_t b1)
{
#if defined(TL_EMULATED)
    tl_emulated_multiply(sum, a, b0, b1);
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
#endif

/* Adds the products of 32 values of K, on the tensor cores. a, b: this warp's rows in the first planes. */
template <int A, int B>
INLINE void tl_turn(int32_t (*sums)[2][4][4], const char *a, uint32_t a_rows, const char *b, uint32_t b_rows)
{
#if TL_TENSOR
    uint32_t left[A][2][4], right[B][2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int one = 0; one < A; one++) tl_matrix(left[one][i], a + (one * a_rows + 16 * i) * TL_ROW);
#pragma unroll
        for (int one = 0; one < B; one++) tl_matrix(right[one][i], b + (one * b_rows + 16 * i) * TL_ROW);
    }
#pragma unroll
    for (int one = 0; one < A; one++)
#pragma unroll
        for (int two = 0; two < B; two++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    tl_multiply(sums[one + two][i][j], left[one][i], right[two][j / 2][j % 2],
                                right[two][j / 2][2 + j % 2]);
#else
    uint32_t lane = threadIdx.x % 32;
    a += lane / 4 * TL_ROW;
    b += lane % 4 * 2 * TL_ROW;
    for (uint32_t k = 0; k < TL_DEEP; k += 4)
#pragma unroll
        for (int one = 0; one < A; one++)
#pragma unroll
            for (int two = 0; two < B; two++) {
                const char *left = a + one * a_rows * TL_ROW + k, *right = b + two * b_rows * TL_ROW + k;
#pragma unroll
                for (int n = 0; n < 32; n++) {
                    int i = n / 16, j = n / 4 % 4, c = n % 4;
                    int32_t *sum = &sums[one + two][i][j][c];
                    *sum = __dp4a(*(const int *)(left + (16 * i + 8 * (c / 2)) * TL_ROW),
                                  *(const int *)(right + (8 * j + c % 2) * TL_ROW), *sum);
                }
            }
#endif
}

/* The element of an output: rounded once as a sum, and once by each scale. */
INLINE uint32_t tl_element(int64_t sum, float scale_a, float scale_b)
{
    return seen(multiplied(multiplied(float_of_integer(sum), scale_a), scale_b));
}

/* Where a row of a's begins and its scale is; its number counts batches too where they share b. */
INLINE uint32_t tl_row_of(const struct product *p, const tl_index *batches, tl_index step, uint32_t batch, uint32_t row)
{
    return offset_of(p, batches, batch + row / p->rows) + row % p->rows * step;
}

/* A tile of a product, or a part of K of one; columns count first, then rows, parts of K, batches. */
struct tl_area {
    uint32_t rows, columns; /* of the whole product; rows count batches too where these share b */
    uint32_t row, column, batch, from, end;
};

INLINE struct tl_area tl_area_of(const struct product *p, int shared, uint32_t parts, uint32_t high, uint32_t wide,
                                 uint64_t tile)
{
    struct tl_area area;
    area.rows = shared ? p->rows * p->batches : p->rows;
    area.columns = p->columns;
    uint32_t across = (area.columns + wide - 1) / wide, down = (area.rows + high - 1) / high;
    area.column = (uint32_t)(tile % across) * wide;
    area.row = (uint32_t)(tile / across % down) * high;
    uint64_t rest = tile / across / down;
    area.batch = (uint32_t)(rest / parts);
    area.from = (uint32_t)(rest % parts) * p->slice;
    area.end = p->length - area.from < p->slice ? p->length : area.from + p->slice;
    return area;
}

/* One operand of a tile on its way into shared memory: this thread's eight values of each of its rows. */
template <int PLANES, int WHOLE, int LOADS>
struct tl_side {
    const char *base;
    int64_t at[LOADS]; /* where a row begins, or -1 */
    uint32_t words[LOADS][2 * PLANES];

    __device__ __forceinline__ void load(uint32_t k, uint32_t end)
    {
#pragma unroll
        for (int n = 0; n < LOADS; n++)
            tl_load<PLANES, WHOLE>(words[n], base, at[n], k + threadIdx.x % 4 * TL_CHUNK, end);
    }

    __device__ __forceinline__ void put(char *tile, uint32_t rows)
    {
#pragma unroll
        for (int n = 0; n < LOADS; n++) tl_put<PLANES>(words[n], tile, rows, n * blockDim.x + threadIdx.x);
    }
};

/* Writes a warp's elements, or adds them to the totals of all parts of K. */
template <int SUMS>
INLINE void tl_write(const struct product *p, const struct tl_area *area, uint32_t parts, int32_t (*sums)[2][4][4],
                     uint32_t *out, const float *scale_a, const float *scale_b, int64_t *totals)
{
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 32; n++) {
        int i = n / 16, j = n / 4 % 4, c = n % 4;
        uint32_t row = area->row + 16 * i + 8 * (c / 2) + lane / 4, column = area->column + 8 * j + 2 * (lane % 4) + c % 2;
        int64_t sum = 0;
#pragma unroll
        for (int s = 0; s < SUMS; s++) sum += (int64_t)sums[s][i][j][c] * (1 << 7 * s);
        if (row >= area->rows || column >= area->columns) continue;
        uint64_t place = ((uint64_t)area->batch * p->rows + row) * area->columns + column;
        if (parts > 1)
            tl_add(totals + place, sum);
        else
            out[place] = tl_element(sum, scale_a[tl_row_of(p, p->sa_batch, p->sa_row, area->batch, row)],
                                    scale_b[offset_of(p, p->sb_batch, area->batch) + column * p->sb_column]);
    }
}

template <int A, int B, int A_WHOLE, int B_WHOLE, int WM, int WN>
INLINE void tl_tile(const struct product *p, int shared, uint32_t parts, uint64_t tile, uint32_t *out, const char *a,
                    const char *b, const float *scale_a, const float *scale_b, int64_t *totals, char *room)
{
    const uint32_t HIGH = 32 * WM, WIDE = 32 * WN, SIZE = (A * HIGH + B * WIDE) * TL_ROW;
    struct tl_area area = tl_area_of(p, shared, parts, HIGH, WIDE, tile);
    struct tl_side<A, A_WHOLE, 4 / WN> left = {a};
    struct tl_side<B, B_WHOLE, 4 / WM> right = {b};
#pragma unroll
    for (int n = 0; n < 4 / WN; n++) {
        uint32_t row = area.row + (n * blockDim.x + threadIdx.x) / 4;
        left.at[n] = row < area.rows ? (int64_t)tl_row_of(p, p->a_batch, p->a_row, area.batch, row) : -1;
    }
#pragma unroll
    for (int n = 0; n < 4 / WM; n++) {
        uint32_t column = area.column + (n * blockDim.x + threadIdx.x) / 4;
        right.at[n] = column < area.columns ? (int64_t)(offset_of(p, p->b_batch, area.batch) + column * p->b_column) : -1;
    }
    int32_t sums[A + B - 1][2][4][4];
#pragma unroll
    for (int n = 0; n < (A + B - 1) * 32; n++) sums[n / 32][n / 16 % 2][n / 4 % 4][n % 4] = 0;
    uint32_t row = threadIdx.x / 32 / WN * 32, column = threadIdx.x / 32 % WN * 32; /* of this warp in the tile */
    char *now = room, *next = room + SIZE;
    left.load(area.from, area.end), right.load(area.from, area.end);
    left.put(now, HIGH), right.put(now + A * HIGH * TL_ROW, WIDE);
    __syncthreads();
    for (uint32_t k = area.from; k < area.end; k += TL_DEEP) {
        int more = area.end - k > TL_DEEP;
        if (more) left.load(k + TL_DEEP, area.end), right.load(k + TL_DEEP, area.end);
        tl_turn<A, B>(sums, now + row * TL_ROW, HIGH, now + (A * HIGH + column) * TL_ROW, WIDE);
        if (more) left.put(next, HIGH), right.put(next + A * HIGH * TL_ROW, WIDE);
        char *other = now;
        now = next, next = other;
        __syncthreads();
    }
    area.row += row, area.column += column;
    tl_write<A + B - 1>(p, &area, parts, sums, out, scale_a, scale_b, totals);
}

/* An element of a product whose parts of K have been added up. */
INLINE void tl_total(const struct product *p, uint32_t place, uint32_t *out, const float *scale_a, const float *scale_b,
                     const int64_t *totals)
{
    uint32_t column = place % p->columns, row = place / p->columns % p->rows, batch = place / p->columns / p->rows;
    out[place] = tl_element(totals[place], scale_a[offset_of(p, p->sa_batch, batch) + row * p->sa_row],
                            scale_b[offset_of(p, p->sb_batch, batch) + column * p->sb_column]);
}
