/* What C units have besides words.h and product.h: shares of threads, and transpositions. */

/* The part [*from, *to) of `count` pieces of work that belongs to thread t of n. */
INLINE void share(ptrdiff_t count, int t, int n, ptrdiff_t *from, ptrdiff_t *to)
{
    *from = (ptrdiff_t)((__int128)count * t / n);
    *to = (ptrdiff_t)((__int128)count * (t + 1) / n);
}

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
