/* One run on up to 64 threads, which meet where one reads what another wrote. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

struct run {
    char *places[6];
    int threads;
    size_t scratch; /* bytes of each thread's own memory in the last place */
    atomic_int arrived, phase;
    atomic_int gate; /* 0 wait, 1 go, 2 give up */
};

static void tl_meet(struct run *run)
{
    if (run->threads == 1) return;
    int phase = atomic_load_explicit(&run->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&run->arrived, 1, memory_order_acq_rel) == run->threads - 1) {
        atomic_store_explicit(&run->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&run->phase, phase + 1, memory_order_release);
        return;
    }
    /* Waits awake for a moment, then lets others run: where processes outnumber cores, spinning starves them. */
    for (int turn = 0; atomic_load_explicit(&run->phase, memory_order_acquire) == phase; turn++)
        if (turn > 4096) sched_yield();
#if defined(__SSE__)
        else _mm_pause();
#endif
}
