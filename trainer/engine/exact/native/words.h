/* Words, floats and folds of exact arithmetic (docs/arithmetic.md), on top of processor.h or device.h. */

#define INFINITY_WORD 0x7f800000u
#define MAGNITUDE 0x7fffffffu
#define ONE_NAN 0x7fc00000u

/* The bits of a float that are seen: every NaN is the one NaN. */
INLINE uint32_t seen(float x) { uint32_t word = bits_of(x); return x != x ? ONE_NAN : word; }
INLINE uint32_t seen_word(uint32_t word) { return (word & MAGNITUDE) > INFINITY_WORD ? ONE_NAN : word; }

INLINE uint32_t to_integer(float x)
{
    x = x == x ? x : 0.0f;
    /* Clamped first: processors disagree about what does not fit. Both bounds are whole, so this commutes. */
    x = x < -2147483648.0f ? -2147483648.0f : x;
    x = x > 2147483520.0f ? 2147483520.0f : x;
    return (uint32_t)rounded(x);
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
    y = multiplied(y, up);
    y = y < -1073741824.0f ? -1073741824.0f : y;
    y = y > 1073741824.0f ? 1073741824.0f : y;
    return rounded(y);
}

/* What infinities and NaNs make of a sum: kinds has 1 for a NaN, 2 for an infinity, 4 for a negative one. */
INLINE uint32_t special_kind(uint32_t word)
{
    uint32_t magnitude = word & MAGNITUDE;
    return magnitude > INFINITY_WORD ? 1u : magnitude < INFINITY_WORD ? 0u : word >> 31 ? 4u : 2u;
}

INLINE uint32_t summed(int64_t total, float down, uint32_t kinds)
{
    if (!kinds) return seen(multiplied(float_of_integer(total), down));
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
