/* SHA-256 (FIPS 180-4) of many short messages of one length at a time (docs/formats.md, section 1).
   A message is two bytes of prefix and a payload of 64 or 1024 bytes: payload / 64 + 1 blocks, the last of them padding
   but for two bytes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sixteen messages in AVX-512 lanes take less time than two by the processor's SHA-256 instructions; eight take more.
   What is compiled here runs only where it was compiled: a library's name holds the processor (compiler.py). */
#if defined(__SHA__) && !defined(__AVX512BW__)
#define SHA_INSTRUCTIONS
#endif

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 64, DIGEST = 32, CHUNK = 1024 };

static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint32_t ROUND[64] __attribute__((aligned(64))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* The first block of a message: the prefix and 62 bytes. */
INLINE void first_block(uint8_t *block, const uint8_t *payload, const uint8_t *prefix)
{
    memcpy(block, prefix, 2);
    memcpy(block + 2, payload, BLOCK - 2);
}

/* The last block of a message: two bytes, the end mark, zeros, and the message's bits as a big-endian number. */
INLINE void last_block(uint8_t *block, const uint8_t *payload, size_t length)
{
    uint32_t bits = (uint32_t)(length + 2) * 8;
    memset(block, 0, BLOCK);
    memcpy(block, payload + length - 2, 2);
    block[2] = 0x80;
    for (int i = 0; i < 4; i++) block[BLOCK - 1 - i] = (uint8_t)(bits >> 8 * i);
}

/* Asks memory for a block of each of the payloads that follow `count` others: streams too short to be foreseen. */
INLINE void fetch_next(const uint8_t *const *payloads, int count, size_t at, size_t length)
{
    for (int i = 0; i < count; i++) __builtin_prefetch(payloads[i] + at + (size_t)count * length);
}
