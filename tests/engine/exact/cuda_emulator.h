/* A GPU made of one processor: lets g++ compile the CUDA of a program as it is, and runs it a block at a time.

   The threads of a block are fibers. One runs until it meets the others (a barrier of its block or of its warp) or
   ends; then the next one runs. Their order is drawn anew at every turn, blocks' order too, and shared memory is filled
   with rubbish before each block, so that what depends on an order, or on memory nobody wrote, gives other bits.
   Threads that wait for others which have ended, or which wait elsewhere, end the process with a message. */
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define TL_EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
#define __constant__ static const
#define __grid_constant__
#define __launch_bounds__(threads)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static __attribute__((section("tl_shared")))

static struct { unsigned x; } threadIdx, blockIdx, blockDim, gridDim;

extern char __start_tl_shared[], __stop_tl_shared[];

/* ---- Fibers ---- */
enum { TL_MOST_THREADS = 256, TL_STACK = 256 * 1024, TL_RUNNING, TL_AT_BLOCK, TL_AT_WARP, TL_ENDED };

struct tl_fiber {
    jmp_buf here;
    ucontext_t start;
    char *stack;
    int state;
    uint64_t words[8]; /* what this thread shows to its warp */
};
static struct tl_fiber tl_fibers[TL_MOST_THREADS];
static jmp_buf tl_scheduler;
static ucontext_t tl_outside;
static unsigned tl_now;
static uint64_t tl_random = 1;
static void (*tl_kernel)(const void *);
static const void *tl_arguments;

static unsigned tl_draw(unsigned below)
{
    tl_random = tl_random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((tl_random >> 33) % below);
}

static __attribute__((noinline)) void tl_wait(int state)
{
    tl_fibers[tl_now].state = state;
    if (!_setjmp(tl_fibers[tl_now].here)) _longjmp(tl_scheduler, 1);
}

static void tl_thread_main(void)
{
    tl_kernel(tl_arguments);
    tl_fibers[tl_now].state = TL_ENDED;
    _longjmp(tl_scheduler, 1);
}

static __attribute__((noinline)) void tl_resume(unsigned number, int fresh)
{
    struct tl_fiber *one = &tl_fibers[number];
    tl_now = threadIdx.x = number;
    one->state = TL_RUNNING;
    if (_setjmp(tl_scheduler)) return;
    if (!fresh) _longjmp(one->here, 1);
    if (!one->stack) one->stack = (char *)malloc(TL_STACK);
    getcontext(&one->start);
    one->start.uc_stack.ss_sp = one->stack;
    one->start.uc_stack.ss_size = TL_STACK;
    one->start.uc_link = &tl_outside;
    makecontext(&one->start, tl_thread_main, 0);
    setcontext(&one->start);
}

/* Whether all of the threads [from, to) that have not ended wait at one place, and some do. */
static int tl_met(unsigned from, unsigned to, int state)
{
    for (unsigned n = from; n < to; n++)
        if (tl_fibers[n].state != state) return 0;
    return to > from;
}

static void tl_shuffled(unsigned *order, unsigned count)
{
    for (unsigned n = 0; n < count; n++) order[n] = n;
    for (unsigned n = count; n > 1; n--) {
        unsigned other = tl_draw(n), held = order[n - 1];
        order[n - 1] = order[other], order[other] = held;
    }
}

static void tl_run_block(unsigned threads)
{
    unsigned order[TL_MOST_THREADS], ended = 0;
    memset(__start_tl_shared, 0xa5, (size_t)(__stop_tl_shared - __start_tl_shared));
    tl_shuffled(order, threads);
    for (unsigned n = 0; n < threads; n++) tl_resume(order[n], 1);
    for (;;) {
        int moved = 0, all = tl_met(0, threads, TL_AT_BLOCK), warps[TL_MOST_THREADS / 32 + 1];
        for (unsigned warp = 0; warp * 32 < threads; warp++)
            warps[warp] = tl_met(warp * 32, warp * 32 + 32 < threads ? warp * 32 + 32 : threads, TL_AT_WARP);
        tl_shuffled(order, threads);
        for (unsigned n = 0; n < threads; n++)
            if ((all && tl_fibers[order[n]].state == TL_AT_BLOCK) ||
                (warps[order[n] / 32] && tl_fibers[order[n]].state == TL_AT_WARP)) {
                tl_resume(order[n], 0);
                moved = 1;
            }
        for (ended = 0; ended < threads && tl_fibers[ended].state == TL_ENDED; ended++) {}
        if (ended == threads) return;
        if (!moved) {
            fprintf(stderr, "threads of a block wait for each other at different places\n");
            abort();
        }
    }
}

/* ---- What CUDA has ---- */
static inline void __syncthreads(void) { tl_wait(TL_AT_BLOCK); }

template <class T> static T __shfl_xor_sync(unsigned, T mine, int mask)
{
    T other;
    memcpy(tl_fibers[tl_now].words, &mine, sizeof mine);
    tl_wait(TL_AT_WARP);
    memcpy(&other, tl_fibers[tl_now ^ (unsigned)mask].words, sizeof other);
    tl_wait(TL_AT_WARP);
    return other;
}

static inline unsigned __float_as_uint(float x) { unsigned word; memcpy(&word, &x, 4); return word; }
static inline float __uint_as_float(unsigned word) { float x; memcpy(&x, &word, 4); return x; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline int __float2int_rn(float x) { return (int)__builtin_rintf(x); }
static inline float __int2float_rn(int n) { return (float)n; }
static inline float __ll2float_rn(long long n) { return (float)n; }

static inline void atomicAdd(unsigned long long *at, unsigned long long more) { *at += more; }
static inline void atomicOr(unsigned *at, unsigned more) { *at |= more; }
static inline void atomicMax(unsigned *at, unsigned other) { *at = other > *at ? other : *at; }

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned chosen)
{
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned made = 0;
    for (int n = 0; n < 4; n++) made |= (unsigned)(both >> (chosen >> 4 * n & 7) * 8 & 0xff) << 8 * n;
    return made;
}

static inline int tl_byte(unsigned word, int n) { return (int8_t)(word >> 8 * n); }

static inline int __dp4a(int a, int b, int sum)
{
    for (int n = 0; n < 4; n++) sum += tl_byte((unsigned)a, n) * tl_byte((unsigned)b, n);
    return sum;
}

/* ldmatrix.x4: lane l has of matrix n its row l / 4, word l % 4; matrices are rows 0 and 8, then 16 bytes on. */
static inline void tl_emulated_matrix(uint32_t *words, const char *rows, int step)
{
    unsigned lane = tl_now % 32;
    for (unsigned n = 0; n < 4; n++)
        memcpy(&words[n], rows + (lane / 4 + 8 * (n % 2)) * (unsigned)step + 4 * (lane % 4) + 16 * (n / 2), 4);
}

/* mma.m16n8k32.s8 (PTX ISA, "Matrix Fragments for mma.m16n8k32"): a has rows g and g + 8 of K 4 t to 4 t + 3, and the
   same of K 16 on; b has column g of the same K; the sums are of rows g and g + 8, columns 2 t and 2 t + 1; g is lane
   / 4 and t lane % 4. */
static inline void tl_emulated_multiply(int32_t *sum, const uint32_t *a, uint32_t b0, uint32_t b1)
{
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    unsigned lane = tl_now % 32, warp = tl_now - lane;
    memcpy(tl_fibers[tl_now].words, mine, sizeof mine);
    tl_wait(TL_AT_WARP);
    for (unsigned c = 0; c < 4; c++)
        for (unsigned t = 0; t < 4; t++) {
            uint32_t left[6], right[6];
            memcpy(left, tl_fibers[warp + lane / 4 * 4 + t].words, sizeof left);
            memcpy(right, tl_fibers[warp + (lane % 4 * 2 + c % 2) * 4 + t].words, sizeof right);
            sum[c] = __dp4a((int)left[c / 2], (int)right[4], sum[c]);
            sum[c] = __dp4a((int)left[c / 2 + 2], (int)right[5], sum[c]);
        }
    tl_wait(TL_AT_WARP);
}

/* ---- A launch ---- */
static void tl_launch(void (*kernel)(const void *), const void *arguments, unsigned blocks, unsigned threads)
{
    unsigned first = tl_draw(blocks), step = blocks > 1 && tl_draw(2) ? blocks - 1 : 1;
    if (threads > TL_MOST_THREADS || !blocks) abort();
    tl_kernel = kernel, tl_arguments = arguments;
    gridDim.x = blocks, blockDim.x = threads;
    for (unsigned n = 0; n < blocks; n++) {
        blockIdx.x = (unsigned)((first + (uint64_t)n * step) % blocks);
        tl_run_block(threads);
    }
}
