/* SHA-256 of as many messages at once as a vector has words, each in a lane of its own. */
#if !defined(SHA_INSTRUCTIONS)
#if defined(__AVX512BW__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef uint32_t vector __attribute__((vector_size(4 * LANES)));
typedef uint8_t vector_bytes __attribute__((vector_size(4 * LANES)));

INLINE vector turned(vector x, int by) { return x >> by | x << (32 - by); }

INLINE vector big_endian(vector x)
{
    vector_bytes order;
    for (int i = 0; i < 4 * LANES; i++) order[i] = (uint8_t)(i ^ 3);
    return (vector)__builtin_shuffle((vector_bytes)x, order);
}

/* Row i, lane k becomes row k, lane i: each pass puts two rows together lane by lane. */
INLINE void transpose(vector *rows)
{
    vector low, high, done[LANES];
    for (int i = 0; i < LANES; i++) {
        low[i] = (uint32_t)(i / 2 + i % 2 * LANES);
        high[i] = low[i] + LANES / 2;
    }
#pragma GCC unroll 16
    for (int width = 1; width < LANES; width *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; i++) {
            done[2 * i] = __builtin_shuffle(rows[i], rows[i + LANES / 2], low);
            done[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + LANES / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = done[i];
    }
}

/* One block of every lane goes into their states. */
static void compress(vector *state, const uint8_t *const *blocks, size_t at)
{
    vector w[16], a = state[0], b = state[1], c = state[2], d = state[3];
    vector e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 16
    for (int part = 0; part < 16; part += LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) memcpy(&w[part + i], blocks[i] + at + 4 * part, sizeof(vector));
        transpose(w + part);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) w[i] = big_endian(w[i]);
    for (int turn = 0; turn < 64; turn += 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            vector sum = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + (g ^ (e & (f ^ g)));
            sum += w[i] + ROUND[turn + i];
            h = g, g = f, f = e, e = d + sum;
            sum += (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) | (c & (a | b)));
            d = c, c = b, b = a, a = sum;
        }
        if (turn == 48) break;
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            vector old = w[(i + 1) % 16], young = w[(i + 14) % 16];
            w[i] += w[(i + 9) % 16] + (turned(old, 7) ^ turned(old, 18) ^ old >> 3);
            w[i] += turned(young, 17) ^ turned(young, 19) ^ young >> 10;
        }
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* The hashes of LANES payloads of one length. */
static void hash_together(const uint8_t *const *payloads, size_t length, const uint8_t *prefix, uint8_t *digests)
{
    uint8_t ends[LANES][BLOCK];
    const uint8_t *blocks[LANES];
    vector state[8];
    for (int i = 0; i < 8; i++) state[i] = (vector){0} + START[i];
    for (int i = 0; i < LANES; i++) {
        first_block(ends[i], payloads[i], prefix);
        blocks[i] = ends[i];
    }
    compress(state, blocks, 0);
    for (size_t at = BLOCK - 2; at + BLOCK <= length; at += BLOCK) {
        fetch_next(payloads, LANES, at, length);
        compress(state, payloads, at);
    }
    for (int i = 0; i < LANES; i++) last_block(ends[i], payloads[i], length);
    compress(state, blocks, 0);
    for (int word = 0; word < 8; word++) {
        vector bytes = big_endian(state[word]);
        for (int i = 0; i < LANES; i++) {
            uint32_t one = bytes[i];
            memcpy(digests + DIGEST * i + 4 * word, &one, 4);
        }
    }
}
#endif
