/* SHA-256 by the processor's own instructions, two messages at once: each waits for its last round half of the time. */
#if defined(SHA_INSTRUCTIONS)
#include <immintrin.h>

enum { LANES = 2 };

/* A state is held as the instructions want it: words a, b, e, f and c, d, g, h, the first of them on top. */
struct state {
    __m128i abef, cdgh;
};

INLINE void compress(struct state *states, const uint8_t *const *blocks, size_t at)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w[LANES][4], abef[LANES], cdgh[LANES];
#pragma GCC unroll 2
    for (int s = 0; s < LANES; s++) {
        abef[s] = states[s].abef, cdgh[s] = states[s].cdgh;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            w[s][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(blocks[s] + at) + i), big_endian);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        const __m128i round = _mm_load_si128((const __m128i *)ROUND + i);
#pragma GCC unroll 2
        for (int s = 0; s < LANES; s++) {
            __m128i *now = &w[s][i % 4], before = w[s][(i + 3) % 4];
            if (i >= 4) {
                __m128i sum = _mm_sha256msg1_epu32(*now, w[s][(i + 1) % 4]);
                sum = _mm_add_epi32(sum, _mm_alignr_epi8(before, w[s][(i + 2) % 4], 4));
                *now = _mm_sha256msg2_epu32(sum, before);
            }
            __m128i given = _mm_add_epi32(*now, round);
            cdgh[s] = _mm_sha256rnds2_epu32(cdgh[s], abef[s], given);
            abef[s] = _mm_sha256rnds2_epu32(abef[s], cdgh[s], _mm_shuffle_epi32(given, 0x0e));
        }
    }
#pragma GCC unroll 2
    for (int s = 0; s < LANES; s++) {
        states[s].abef = _mm_add_epi32(states[s].abef, abef[s]);
        states[s].cdgh = _mm_add_epi32(states[s].cdgh, cdgh[s]);
    }
}

/* The hashes of LANES payloads of one length. */
static void hash_together(const uint8_t *const *payloads, size_t length, const uint8_t *prefix, uint8_t *digests)
{
    const __m128i reversed = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    uint8_t ends[LANES][BLOCK];
    const uint8_t *blocks[LANES];
    struct state states[LANES];
    for (int s = 0; s < LANES; s++) {
        states[s].abef = _mm_set_epi32((int)START[0], (int)START[1], (int)START[4], (int)START[5]);
        states[s].cdgh = _mm_set_epi32((int)START[2], (int)START[3], (int)START[6], (int)START[7]);
        first_block(ends[s], payloads[s], prefix);
        blocks[s] = ends[s];
    }
    compress(states, blocks, 0);
    for (size_t at = BLOCK - 2; at + BLOCK <= length; at += BLOCK) {
        fetch_next(payloads, LANES, at, length);
        compress(states, payloads, at);
    }
    for (int s = 0; s < LANES; s++) last_block(ends[s], payloads[s], length);
    compress(states, blocks, 0);
    for (int s = 0; s < LANES; s++) {
        __m128i *digest = (__m128i *)(digests + DIGEST * s);
        __m128i abcd = _mm_unpackhi_epi64(states[s].cdgh, states[s].abef);
        __m128i efgh = _mm_unpacklo_epi64(states[s].cdgh, states[s].abef);
        _mm_storeu_si128(digest, _mm_shuffle_epi8(abcd, reversed));
        _mm_storeu_si128(digest + 1, _mm_shuffle_epi8(efgh, reversed));
    }
}
#endif
