/* The Merkle tree over a buffer's chunks (docs/formats.md, section 1), by several threads. Follows the two headers. */
#include <pthread.h>
#include <stdatomic.h>

enum {
    LEAF = 0,
    NODE = 1,
    MOST_LEVELS = 64,
    MOST_THREADS = 64,
    /* Chunks that a thread takes at a time, with the levels over them: a power of two, 64 KiB and so in its cache. */
    PIECE_LEVELS = 6,
    PIECE = 1 << PIECE_LEVELS,
};

struct tree {
    const uint8_t *data;
    size_t size, pieces;
    uint8_t kind, *hashes;
    int levels;                   /* those of more than one hash */
    size_t counts[MOST_LEVELS];   /* hashes of a level */
    size_t starts[MOST_LEVELS];   /* where they lie; after an odd number of them there is room for one more */
    uint8_t pads[MOST_LEVELS][DIGEST];
    atomic_size_t next;           /* the piece that the next free thread takes */
};

/* The hashes of any number of payloads that lie side by side. */
static void hash_row(const uint8_t *payloads, size_t count, size_t length, uint8_t *digests, uint8_t mark, uint8_t kind)
{
    const uint8_t prefix[2] = {mark, kind}, *places[LANES];
    size_t done = 0;
    for (; done + LANES <= count; done += LANES) {
        for (int i = 0; i < LANES; i++) places[i] = payloads + (done + i) * length;
        hash_together(places, length, prefix, digests + done * DIGEST);
    }
    if (done < count) {
        /* Lanes that nothing is left for hash the last payload again. */
        uint8_t rest[LANES * DIGEST];
        for (size_t i = 0; i < LANES; i++) places[i] = payloads + (done + i < count ? done + i : count - 1) * length;
        hash_together(places, length, prefix, rest);
        memcpy(digests + done * DIGEST, rest, (count - done) * DIGEST);
    }
}

/* Hashes `from` to before `to` of the level above one; the caller alone works on what is below them. */
static void hash_level(struct tree *tree, int below, size_t from, size_t to)
{
    uint8_t *children = tree->hashes + tree->starts[below], *made = tree->hashes + tree->starts[below + 1];
    if (2 * to > tree->counts[below]) memcpy(children + tree->counts[below] * DIGEST, tree->pads[below], DIGEST);
    hash_row(children + 2 * DIGEST * from, to - from, 2 * DIGEST, made + DIGEST * from, NODE, tree->kind);
}

static void hash_leaves(struct tree *tree, size_t from, size_t to)
{
    size_t whole = tree->size / CHUNK, rest = tree->size % CHUNK;
    if (whole > to) whole = to;
    hash_row(tree->data + from * CHUNK, whole - from, CHUNK, tree->hashes + from * DIGEST, LEAF, tree->kind);
    if (whole < to) {
        uint8_t last[CHUNK] = {0};
        memcpy(last, tree->data + whole * CHUNK, rest);
        hash_row(last, 1, CHUNK, tree->hashes + whole * DIGEST, LEAF, tree->kind);
    }
}

/* Takes pieces until none is left. Each is a whole subtree of the lower levels. */
static void *work(void *given)
{
    struct tree *tree = given;
    for (;;) {
        size_t piece = atomic_fetch_add(&tree->next, 1), from = piece * PIECE, to = from + PIECE;
        if (piece >= tree->pieces) return NULL;
        if (to > tree->counts[0]) to = tree->counts[0];
        hash_leaves(tree, from, to);
        for (int level = 0; level < PIECE_LEVELS && level < tree->levels; level++) {
            from /= 2, to = (to + 1) / 2;
            hash_level(tree, level, from, to);
        }
    }
}

/* Where each level lies: the leaves first, the root at the end. Gives the bytes that all of them take. */
static size_t lay_out(struct tree *tree, size_t size)
{
    size_t at = 0, count = size / CHUNK + (size % CHUNK != 0);
    int level = 0;
    for (; count > 1; level++) {
        tree->counts[level] = count;
        tree->starts[level] = at;
        count = (count + 1) / 2;
        at += count * 2 * DIGEST;
    }
    tree->counts[level] = 1;
    tree->starts[level] = at;
    tree->levels = level;
    return at + DIGEST;
}

/* Bytes that tl_tree writes. */
size_t tl_tree_bytes(size_t size)
{
    struct tree tree;
    return lay_out(&tree, size);
}

/* Writes the leaf hashes of `size` >= 1 bytes, then levels with gaps, at the end the root. `pad` is the leaves' pad. */
void tl_tree(const uint8_t *data, size_t size, int kind, const uint8_t *pad, int threads, uint8_t *hashes)
{
    struct tree tree = {.data = data, .size = size, .kind = (uint8_t)kind, .hashes = hashes};
    pthread_t others[MOST_THREADS];
    int started = 0;
    lay_out(&tree, size);
    tree.pieces = (tree.counts[0] + PIECE - 1) / PIECE;
    memcpy(tree.pads[0], pad, DIGEST);
    for (int level = 1; level < tree.levels; level++) {
        uint8_t pair[2 * DIGEST];
        memcpy(pair, tree.pads[level - 1], DIGEST);
        memcpy(pair + DIGEST, tree.pads[level - 1], DIGEST);
        hash_row(pair, 1, 2 * DIGEST, tree.pads[level], NODE, tree.kind);
    }
    /* A thread that the system does not give leaves its pieces to the others. */
    while (started < threads - 1 && started < MOST_THREADS && (size_t)started + 1 < tree.pieces) {
        if (pthread_create(&others[started], NULL, work, &tree)) break;
        started++;
    }
    work(&tree);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
    for (int level = PIECE_LEVELS; level < tree.levels; level++) hash_level(&tree, level, 0, tree.counts[level + 1]);
}
