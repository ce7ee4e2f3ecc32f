/* SHA-256 (FIPS 180-4) of many messages of one length on a GPU, one to a thread (docs/formats.md, section 1). Follows
   device.h. A message is two bytes of prefix and a payload; payloads lie side by side, and so do the digests. */

__constant__ uint32_t tl_start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

__constant__ uint32_t tl_round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

struct __align__(16) tl_four { uint32_t word[4]; };

INLINE uint32_t tl_right(uint32_t x, uint32_t places) { return x >> places | x << (32 - places); }

/* Takes a block of 16 big-endian words into the state; the words are used up. */
INLINE void tl_compress(uint32_t *state, uint32_t *w)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
#pragma unroll
    for (int round = 0; round < 64; round++) {
        int at = round % 16;
        if (round >= 16) {
            uint32_t near = w[(at + 1) % 16], far = w[(at + 14) % 16];
            w[at] += (tl_right(near, 7) ^ tl_right(near, 18) ^ near >> 3) + w[(at + 9) % 16] +
                     (tl_right(far, 17) ^ tl_right(far, 19) ^ far >> 10);
        }
        uint32_t one = h + (tl_right(e, 6) ^ tl_right(e, 11) ^ tl_right(e, 25)) + ((e & f) ^ (~e & g)) +
                       tl_round[round] + w[at];
        uint32_t two = (tl_right(a, 2) ^ tl_right(a, 13) ^ tl_right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* Bytes 2 and 3 of one little-endian word and 0 and 1 of the next, as a big-endian word: payloads begin at byte 2. */
INLINE uint32_t tl_word(uint32_t one, uint32_t next) { return __byte_perm(one, next, 0x2345); }

/* given: digests, payloads, how many, and the prefix as a little-endian number. WORDS: of a payload. */
template <int WORDS>
INLINE void tl_hash_rows(const struct tl_given *given)
{
    uint32_t *digests = (uint32_t *)given->at[0];
    const struct tl_four *payloads = (const struct tl_four *)given->at[1];
    uint64_t count = (uint64_t)given->at[2];
    for (uint64_t row = tl_thread(); row < count; row += tl_threads()) {
        uint32_t state[8], w[16], last = (uint32_t)(uint64_t)given->at[3] << 16;
#pragma unroll
        for (int n = 0; n < 8; n++) state[n] = tl_start[n];
        for (int block = 0; block < WORDS / 16; block++) {
#pragma unroll
            for (int n = 0; n < 16; n += 4) {
                struct tl_four four = payloads[row * (WORDS / 4) + block * 4 + n / 4];
                w[n] = tl_word(last, four.word[0]), w[n + 1] = tl_word(four.word[0], four.word[1]);
                w[n + 2] = tl_word(four.word[1], four.word[2]), w[n + 3] = tl_word(four.word[2], four.word[3]);
                last = four.word[3];
            }
            tl_compress(state, w);
        }
        w[0] = tl_word(last, 0x80);
#pragma unroll
        for (int n = 1; n < 15; n++) w[n] = 0;
        w[15] = (WORDS * 4 + 2) * 8;
        tl_compress(state, w);
#pragma unroll
        for (int n = 0; n < 8; n++) digests[row * 8 + n] = __byte_perm(state[n], 0, 0x0123);
    }
}

extern "C" __global__ void __launch_bounds__(128) tl_hash_chunks(const __grid_constant__ struct tl_given given)
{
    tl_hash_rows<256>(&given);
}

extern "C" __global__ void __launch_bounds__(128) tl_hash_pairs(const __grid_constant__ struct tl_given given)
{
    tl_hash_rows<16>(&given);
}
