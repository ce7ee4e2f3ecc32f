struct worker { struct run *run; int number; };

static void *tl_work(void *given)
{
    struct worker *worker = given;
    int gate;
    while (!(gate = atomic_load(&worker->run->gate))) sched_yield();
    if (gate == 2) return NULL;
#if defined(__SSE__)
    /* Rounding to nearest, subnormals kept, whatever the process had set. */
    unsigned int before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    tl_steps(worker->run, worker->number);
    _mm_setcsr(before);
#else
    tl_steps(worker->run, worker->number);
#endif
    return NULL;
}

/* Runs the program once, on memories that begin at these places. Returns 0, or 1 where a thread could not be started (nothing has run then). */
int tl_run(char *const *places, int threads, size_t scratch)
{
    struct run run = {.places = places, .threads = threads, .scratch = scratch};
    struct worker workers[64];
    pthread_t started[64];
    if (threads < 1 || threads > 64) return 1;
    atomic_init(&run.gate, 0);
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.moved, NULL);
    for (int number = 1; number < threads; number++) {
        workers[number] = (struct worker){&run, number};
        if (pthread_create(&started[number], NULL, tl_work, &workers[number])) {
            atomic_store(&run.gate, 2);
            for (int other = 1; other < number; other++) pthread_join(started[other], NULL);
            return 1;
        }
    }
    atomic_store(&run.gate, 1);
    workers[0] = (struct worker){&run, 0};
    tl_work(&workers[0]);
    for (int number = 1; number < threads; number++) pthread_join(started[number], NULL);
    return 0;
}
