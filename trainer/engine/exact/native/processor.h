/* What words.h rests on, for a C compiler and its processor. Every C unit begins with this file.
   Compiled without contraction and without any option that lets a compiler reassociate. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef ptrdiff_t tl_index;

INLINE uint32_t bits_of(float x) { uint32_t word; memcpy(&word, &x, 4); return word; }
INLINE float float_of(uint32_t word) { float x; memcpy(&x, &word, 4); return x; }

/* A zero that the compiler cannot see through. Where traps do not count, gcc 12 turns a float that becomes an integer
   and a float again into a truncated float, and so +0 into -0; an integer XORed with this in between stays one. */
INLINE uint32_t opaque_zero(void)
{
    uint32_t zero;
    __asm__("" : "=r"(zero) : "0"(0));
    return zero;
}

/* The nearest integer, ties to even, of what fits. */
INLINE int32_t rounded(float x) { return (int32_t)__builtin_rintf(x); }

/* The nearest float of an integer. */
INLINE float float_of_integer(int64_t n) { return (float)(n ^ (int64_t)opaque_zero()); }

INLINE float multiplied(float a, float b) { return a * b; }
