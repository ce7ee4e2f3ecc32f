/* The program: its calls in order, over a table of numbers. */
enum { SOLO = 1, MEET = 2 };

static void tl_steps(struct run *run, int t)
{
    char *scratch = run->places[5] + (size_t)t * run->scratch;
    for (size_t number = 0; number < tl_call_count; number++) {
        const struct call *call = &tl_calls[number];
        char *at[17];
        if (call->flags & MEET) tl_meet(run);
        if (call->flags & SOLO && t) continue;
        for (int place = 0; place < call->count; place++) {
            const struct place *one = &tl_places[call->first + (size_t)place];
            at[place] = run->places[one->base] + one->offset;
        }
        call->function(call->flags & SOLO ? 0 : t, call->flags & SOLO ? 1 : run->threads, at, scratch);
    }
}
