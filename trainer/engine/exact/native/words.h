/* Words, floats and folds of exact arithmetic (docs/arithmetic.md). Every unit begins with this file.
   Compiled without contraction and without any option that lets a compiler reassociate. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define INFINITY_WORD 0x7f800000u
#define MAGNITUDE 0x7fffffffu
#define ONE_NAN 0x7fc00000u

INLINE uint32_t bits_of(float x) { uint32_t word; memcpy(&word, &x, 4); return word; }
INLINE float float_of(uint32_t word) { float x; memcpy(&x, &word, 4); return x; }

/* The bits of a float that are seen: every NaN is the one NaN. */
INLINE uint32_t seen(float x) { uint32_t word = bits_of(x); return x != x ? ONE_NAN : word; }
INLINE uint32_t seen_word(uint32_t word) { return (word & MAGNITUDE) > INFINITY_WORD ? ONE_NAN : word; }

/* A zero that the compiler cannot see through. Where traps do not count, gcc 12 turns a float that becomes an integer
   and a float again into a truncated float, and so +0 into -0; an integer XORed with this in between stays one. */
INLINE uint32_t opaque_zero(void)
{
    uint32_t zero;
    __asm__("" : "=r"(zero) : "0"(0));
    return zero;
}

INLINE uint32_t to_integer(float x)
{
    x = x == x ? x : 0.0f;
    /* Clamped first: processors disagree about what does not fit. Both bounds are whole, so this commutes. */
    x = x < -2147483648.0f ? -2147483648.0f : x;
    x = x > 2147483520.0f ? 2147483520.0f : x;
    return (uint32_t)(int32_t)__builtin_rintf(x);
}

INLINE int32_t clamped(int32_t word, int32_t largest)
{
    word = word < -largest ? -largest : word;
    return word > largest ? largest : word;
}

INLINE int32_t key_of(uint32_t word) { return (int32_t)(word ^ ((uint32_t)((int32_t)word >> 31) & MAGNITUDE)); }

INLINE float power_of_two(int32_t exponent) { return float_of((uint32_t)(exponent + 127) << 23); }

INLINE int32_t sum_exponent(uint32_t word)
{
    int32_t e = (int32_t)word;
    e = e < -96 ? -96 : e;
    return e > 128 ? 128 : e;
}

/* One element as SUM adds it; what is not finite counts as zero here. */
INLINE int32_t sum_term(uint32_t word, float up)
{
    float y = (word & MAGNITUDE) >= INFINITY_WORD ? 0.0f : float_of(word);
    y *= up;
    y = y < -1073741824.0f ? -1073741824.0f : y;
    y = y > 1073741824.0f ? 1073741824.0f : y;
    return (int32_t)__builtin_rintf(y);
}

/* What infinities and NaNs make of a sum: kinds has 1 for a NaN, 2 for an infinity, 4 for a negative one. */
INLINE uint32_t special_kind(uint32_t word)
{
    uint32_t magnitude = word & MAGNITUDE;
    return magnitude > INFINITY_WORD ? 1u : magnitude < INFINITY_WORD ? 0u : word >> 31 ? 4u : 2u;
}

INLINE uint32_t summed(int64_t total, float down, uint32_t kinds)
{
    if (!kinds) return seen((float)(total ^ (int64_t)opaque_zero()) * down);
    if (kinds == 2u) return INFINITY_WORD;
    if (kinds == 4u) return INFINITY_WORD | 0x80000000u;
    return ONE_NAN;
}

INLINE uint32_t sum_run(const uint32_t *x, ptrdiff_t length, uint32_t exponent)
{
    int32_t e = sum_exponent(exponent);
    float up = power_of_two(30 - e);
    int64_t total = 0;
    uint32_t greatest = 0, kinds = 0;
    for (ptrdiff_t k = 0; k < length; k++) {
        uint32_t magnitude = x[k] & MAGNITUDE;
        greatest = magnitude > greatest ? magnitude : greatest;
        total += sum_term(x[k], up);
    }
    if (greatest >= INFINITY_WORD)
        for (ptrdiff_t k = 0; k < length; k++) kinds |= special_kind(x[k]);
    return summed(total, power_of_two(e - 30), kinds);
}

INLINE uint32_t greatest_magnitude(const uint32_t *x, ptrdiff_t length)
{
    int32_t greatest = 0;
    for (ptrdiff_t k = 0; k < length; k++) {
        int32_t magnitude = (int32_t)(x[k] & MAGNITUDE);
        greatest = magnitude > greatest ? magnitude : greatest;
    }
    return (uint32_t)greatest;
}

INLINE uint32_t greatest_value(const uint32_t *x, ptrdiff_t length)
{
    int32_t greatest = key_of(x[0]);
    for (ptrdiff_t k = 1; k < length; k++) {
        int32_t key = key_of(x[k]);
        greatest = key > greatest ? key : greatest;
    }
    return (uint32_t)key_of((uint32_t)greatest);
}

/* The part [*from, *to) of `count` pieces of work that belongs to thread t of n. */
INLINE void share(ptrdiff_t count, int t, int n, ptrdiff_t *from, ptrdiff_t *to)
{
    *from = (ptrdiff_t)((__int128)count * t / n);
    *to = (ptrdiff_t)((__int128)count * (t + 1) / n);
}

/* A product of quantised rows: see product.c. Strides count elements; *_batch hold one for each batch axis. */
struct product {
    ptrdiff_t batches, extents[4], rows, columns, length;
    ptrdiff_t a_batch[4], a_row, b_batch[4], b_column, sa_batch[4], sa_row, sb_batch[4], sb_column;
    int a_bytes, b_bytes;       /* of an element: 1 or 2 */
    ptrdiff_t slice;            /* so many products fit 32 bits */
};
void tl_product(int t, int n, const struct product *p, float *out, const void *a, const void *b, const float *sa,
                const float *sb, char *scratch);

/* to[c][r] = from[r][c] for a block of 16 by 16 words; steps count words. */
typedef uint32_t words16 __attribute__((vector_size(64)));
typedef uint32_t loose16 __attribute__((vector_size(64), aligned(4)));

#define TL_LOW(d, c) ((c) & (d) ? 16 + (c) - (d) : (c))
#define TL_HIGH(d, c) ((c) & (d) ? 16 + (c) : (c) + (d))
#define TL_MASK(m, d)                                                                                              \
    {m(d, 0), m(d, 1), m(d, 2),  m(d, 3),  m(d, 4),  m(d, 5),  m(d, 6),  m(d, 7),                                   \
     m(d, 8), m(d, 9), m(d, 10), m(d, 11), m(d, 12), m(d, 13), m(d, 14), m(d, 15)}
#define TL_EXCHANGE(d)                                                                                             \
    _Pragma("GCC unroll 16") for (int r = 0; r < 16; r++) if (!(r & (d)))                                          \
    {                                                                                                              \
        words16 low = __builtin_shuffle(x[r], x[r + (d)], (words16)TL_MASK(TL_LOW, d));                            \
        x[r + (d)] = __builtin_shuffle(x[r], x[r + (d)], (words16)TL_MASK(TL_HIGH, d));                            \
        x[r] = low;                                                                                                \
    }

INLINE void transpose16(uint32_t *to, ptrdiff_t to_step, const uint32_t *from, ptrdiff_t from_step)
{
    words16 x[16];
    _Pragma("GCC unroll 16") for (int r = 0; r < 16; r++) x[r] = *(const loose16 *)(from + r * from_step);
    TL_EXCHANGE(8)
    TL_EXCHANGE(4)
    TL_EXCHANGE(2)
    TL_EXCHANGE(1)
    _Pragma("GCC unroll 16") for (int r = 0; r < 16; r++) *(loose16 *)(to + r * to_step) = x[r];
}
