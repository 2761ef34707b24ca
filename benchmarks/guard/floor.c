/* floor.c: what a lookup at random costs beside the bare loads that it can't do without.
 *
 *   cc -O2 -D_GNU_SOURCE -Icsrc/core benchmarks/guard/floor.c csrc/core/[a-z]*.c -pthread -o floor
 *   ./floor [pairs [MB]]
 *
 * Nanoseconds an item beyond those of the loop, which makes ids and computes for as long as
 * CPython takes from one lookup to the next; so lookups don't overlap here either. Medians of
 * rounds of 2,000 items; before each, so many MB of other memory are written, as other processes would.
 *
 *   bucket             the line that the pair's hash names
 *   and then record    the record's first two lines, whose place only the bucket tells
 *   or both at once    the same three lines, their places known before: what no index can do
 *   get                shk_store_get_key, hash, checks, copies and all
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "index.h"

#define ITEMS 2000u
#define ROUNDS 101
#define LOOP 350 /* steps of the loop's own work, 1 ns each */

enum { NOTHING, BUCKET, THEN, AT_ONCE, GET, KINDS };
static const char *const names[KINDS] = {"", "bucket", "and then record", "or both at once", "get"};

struct item {
    char client[16], server[8];
    uint32_t bucket, slot; /* numbers: some processors follow addresses in arrays ahead of time */
};

static double seen[KINDS][ROUNDS];
static shk_store *store;
static volatile uint64_t nothing; /* 0, which the compiler can't know */

static struct shk_bytes bytes(const char *text)
{
    return (struct shk_bytes){text, strlen(text)};
}

static void name(struct item *item, unsigned number)
{
    (void)snprintf(item->client, sizeof item->client, "c%u", number);
    (void)snprintf(item->server, sizeof item->server, "s%u", number % 50);
}

/* Where the pair's bucket and record are. */
static bool find(struct item *item)
{
    struct shk__query query;
    struct shk__place place;
    if (shk__query_make(store, bytes(item->client), bytes(item->server), &query) < 0 ||
        shk__index_find_locked(store, &query, &place) < 0 || place.word == 0)
        return false;
    item->bucket = (uint32_t)(place.target / SHK_WAYS);
    item->slot = shk__entry_slot(place.word);
    return true;
}

static uint64_t touch(int kind, const struct item *item, uint64_t mask)
{
    const uint64_t *bucket = &shk__bucket(store, item->bucket)->overflow;
    const uint64_t *record = (const uint64_t *)shk__slot(store, item->slot);
    unsigned char key[SHK_KEY_SIZE_DEFAULT];
    size_t length;
    switch (kind) {
    case BUCKET:
        return shk__load(bucket);
    case THEN:
        record += shk__load(bucket) & mask;
        return shk__load(record) + shk__load(record + 8);
    case AT_ONCE:
        return shk__load(bucket) + shk__load(record) + shk__load(record + 8);
    case GET:
        if (shk_store_get_key(store, bytes(item->client), bytes(item->server), key, sizeof key,
                              &length) == 0)
            return key[0];
        abort();
    default:
        return 0;
    }
}

/* Each item's address depends on what the item before gave. */
static uint64_t run(int kind, const struct item *items, uint64_t state)
{
    const uint64_t mask = nothing;
    for (unsigned i = 0; i < ITEMS; i++) {
        uint64_t got = touch(kind, &items[i + (state & mask)], mask);
        for (int step = 0; step < LOOP; step++)
            state = state * 3 + got;
    }
    return state;
}

static void write_other(volatile char *other, size_t size)
{
    for (size_t i = 0; i < size; i += 64)
        other[i]++;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

int main(int count, char **arguments)
{
    const unsigned pairs = count > 1 ? (unsigned)atoi(arguments[1]) : 1000000;
    const size_t other_size = (size_t)(count > 2 ? atoi(arguments[2]) : 64) << 20;
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {.capacity = pairs, .mode = 0600, .memory_lock = SHK_MEMORY_LOCK_OFF};
    struct shk_access access = {.open_timeout = SHK_SECOND, .lock_timeout = SHK_SECOND};
    const size_t all = (size_t)ROUNDS * KINDS * ITEMS;
    struct item *drawn = calloc(all, sizeof *drawn), items[ITEMS];
    char *other = calloc(1, other_size + 1);
    bool good = drawn && other && pairs > 0 &&
                shk_store_open(SHK_CREATE, &address, &shape, &access, &store) == 0;
    if (!good)
        return 1;
    for (unsigned i = 0; good && i < pairs; i++) {
        struct shk_put put = {.key = {"0123456789abcdef0123456789abcdef", 32},
                              .key_id = SHK_KEY_ID_NEXT};
        name(&items[0], i);
        good = shk_store_put(store, bytes(items[0].client), bytes(items[0].server), &put, NULL) == 0;
    }
    /* All of them are found before, so that what is timed was not touched for long. */
    srandom(1);
    for (size_t i = 0; good && i < all; i++) {
        name(&drawn[i], (unsigned)random() % pairs);
        good = find(&drawn[i]);
    }
    for (unsigned round = 0; good && round < ROUNDS * KINDS; round++) {
        const unsigned kind = round % KINDS;
        memcpy(items, drawn + (size_t)round * ITEMS, sizeof items);
        write_other(other, other_size);
        uint64_t start = shk__monotonic();
        nothing &= run((int)kind, items, round);
        seen[kind][round / KINDS] = (double)(shk__monotonic() - start) / ITEMS;
    }
    for (int kind = BUCKET; good && kind < KINDS; kind++)
        printf("%-16s %5.0f ns\n", names[kind], median(seen[kind]) - median(seen[NOTHING]));
    good = shk_store_destroy(store) == 0 && good;
    shk_store_close(store);
    free(other);
    free(drawn);
    return !good;
}
