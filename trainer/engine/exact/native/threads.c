/* One run on up to 64 threads, which meet where one reads what another wrote. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

enum { AWAKE = 2000 };

struct run {
    char *const *places; /* where each memory begins */
    int threads;
    size_t scratch; /* bytes of each thread's own memory in the last place */
    atomic_int arrived, phase;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    atomic_int gate; /* 0 wait, 1 go, 2 give up */
};

static void tl_meet(struct run *run)
{
    if (run->threads == 1) return;
    int phase = atomic_load_explicit(&run->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&run->arrived, 1, memory_order_acq_rel) == run->threads - 1) {
        atomic_store_explicit(&run->arrived, 0, memory_order_relaxed);
        pthread_mutex_lock(&run->lock);
        atomic_store_explicit(&run->phase, phase + 1, memory_order_release);
        pthread_cond_broadcast(&run->moved);
        pthread_mutex_unlock(&run->lock);
        return;
    }
    /* Waits awake for a moment and then asleep: where threads outnumber cores, the one that is waited for needs a core. */
    for (int turn = 0; turn < AWAKE; turn++) {
        if (atomic_load_explicit(&run->phase, memory_order_acquire) != phase) return;
#if defined(__SSE__)
        _mm_pause();
#endif
    }
    pthread_mutex_lock(&run->lock);
    while (atomic_load_explicit(&run->phase, memory_order_acquire) == phase)
        pthread_cond_wait(&run->moved, &run->lock);
    pthread_mutex_unlock(&run->lock);
}
