/* Folds by many threads: sums of integers and maxima of keys, so that their order is of no matter.
   A run is folded by 1, 32 or 256 threads, or by several blocks that meet in the scratch. */

enum { TL_WARP = 32, TL_BLOCK = 256 };

/* What a SUM knows of a part of its run. */
struct tl_sum {
    int64_t total;
    uint32_t kinds;
};

INLINE void tl_add_term(struct tl_sum *sum, uint32_t word, float up)
{
    sum->total += sum_term(word, up);
    sum->kinds |= special_kind(word);
}

INLINE struct tl_sum tl_sum_part(const uint32_t *x, uint32_t from, uint32_t to, uint32_t lane, uint32_t lanes, float up)
{
    struct tl_sum sum = {0, 0};
    for (uint64_t k = (uint64_t)from + lane; k < to; k += lanes) tl_add_term(&sum, x[k], up);
    return sum;
}

/* Keys of values and of magnitudes as unsigned words, of which 0 is least. */
INLINE uint32_t tl_key(uint32_t word, int magnitudes)
{
    return magnitudes ? word & MAGNITUDE : (uint32_t)key_of(word) ^ 0x80000000u;
}

INLINE uint32_t tl_greater(uint32_t one, uint32_t other) { return one > other ? one : other; }

INLINE uint32_t tl_greatest_part(const uint32_t *x, uint32_t from, uint32_t to, uint32_t lane, uint32_t lanes,
                                 int magnitudes)
{
    uint32_t greatest = 0;
    for (uint64_t k = (uint64_t)from + lane; k < to; k += lanes)
        greatest = tl_greater(greatest, tl_key(x[k], magnitudes));
    return greatest;
}

INLINE uint32_t tl_greatest_word(uint32_t key, int magnitudes)
{
    return magnitudes ? key : (uint32_t)key_of(key ^ 0x80000000u);
}

/* All lanes of a warp call these together, and all get the result. */
INLINE struct tl_sum tl_warp_sum(struct tl_sum sum)
{
    for (int far = TL_WARP / 2; far; far /= 2) {
        sum.total += __shfl_xor_sync(0xffffffffu, (long long)sum.total, far);
        sum.kinds |= __shfl_xor_sync(0xffffffffu, sum.kinds, far);
    }
    return sum;
}

INLINE uint32_t tl_warp_greatest(uint32_t greatest)
{
    for (int far = TL_WARP / 2; far; far /= 2)
        greatest = tl_greater(greatest, __shfl_xor_sync(0xffffffffu, greatest, far));
    return greatest;
}

/* All threads of a block call these together; `room` is shared, one for each warp. The first warp gets the result. */
INLINE struct tl_sum tl_block_sum(struct tl_sum sum, struct tl_sum *room)
{
    sum = tl_warp_sum(sum);
    __syncthreads();
    if (threadIdx.x % TL_WARP == 0) room[threadIdx.x / TL_WARP] = sum;
    __syncthreads();
    if (threadIdx.x < TL_WARP) {
        struct tl_sum none = {0, 0};
        sum = tl_warp_sum(threadIdx.x < TL_BLOCK / TL_WARP ? room[threadIdx.x] : none);
    }
    return sum;
}

INLINE uint32_t tl_block_greatest(uint32_t greatest, uint32_t *room)
{
    greatest = tl_warp_greatest(greatest);
    __syncthreads();
    if (threadIdx.x % TL_WARP == 0) room[threadIdx.x / TL_WARP] = greatest;
    __syncthreads();
    if (threadIdx.x < TL_WARP) greatest = tl_warp_greatest(threadIdx.x < TL_BLOCK / TL_WARP ? room[threadIdx.x] : 0);
    return greatest;
}

/* The same, and all threads get the result. */
INLINE struct tl_sum tl_all_sum(struct tl_sum sum, struct tl_sum *room)
{
    sum = tl_block_sum(sum, room);
    if (threadIdx.x == 0) room[0] = sum;
    __syncthreads();
    return room[0];
}

INLINE uint32_t tl_all_greatest(uint32_t greatest, uint32_t *room)
{
    greatest = tl_block_greatest(greatest, room);
    if (threadIdx.x == 0) room[0] = greatest;
    __syncthreads();
    return room[0];
}

INLINE void tl_add(int64_t *total, int64_t more)
{
    atomicAdd((unsigned long long *)total, (unsigned long long)more);
}

/* The bits of `kinds` into a byte, through the word that holds it. */
INLINE void tl_mark(uint8_t *bytes, uint64_t place, uint32_t kinds)
{
    if (kinds) atomicOr((uint32_t *)bytes + place / 4, kinds << place % 4 * 8);
}
