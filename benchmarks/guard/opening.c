/* opening.c: where the time of an open and a first get goes, in microseconds.
 *
 *   cc -O2 -D_GNU_SOURCE -Icsrc/core benchmarks/guard/opening.c csrc/core/[a-z]*.c -pthread -o opening
 *   ./opening [pairs [MB]]
 *
 * Medians of a process that does nothing else, and of one that writes so many MB of other memory
 * before each round, as a fresh process has. The parts are the kernel's, called as an open calls
 * it; the rest of the whole is the library's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "clock.h"
#include "store.h"

#define ROUNDS 301

enum { STAT, ATTACH, STAT_AGAIN, DUMPS, HEADER, BUCKET, SLOT, WHOLE, STEPS };
static const char *const names[STEPS] = {
    "IPC_STAT",       "shmat",          "IPC_STAT again",     "madvise",
    "header's page",  "bucket's page",  "record's page",      "open and first get, all of it"};
static double seen[STEPS][ROUNDS];
static const struct shk_access reading = {.readonly = true},
                               writing = {.lock_timeout = SHK_SECOND};
static int made = -1; /* the store's segment */
static const struct shk_bytes client = {"client", 6}, server = {"server", 6};

static void check(int rc, const char *what)
{
    if (rc >= 0)
        return;
    (void)fprintf(stderr, "%s: %s: %s\n", what, shk_error_message(rc), shk_error_detail());
    shk_store *store;
    if (made >= 0 && shk_store_from_id(made, &writing, &store) == 0)
        (void)shk_store_destroy(store);
    exit(1);
}

static void evict(char *other, size_t size)
{
    for (size_t at = 0; at < size; at += SHK_LINE)
        *(volatile char *)(other + at) = 1;
}

static uint64_t since(uint64_t *last)
{
    uint64_t now = shk__monotonic(), passed = now - *last;
    *last = now;
    return passed;
}

static void measure_parts(int id, const struct shk__geometry *g, void *at, int round)
{
    struct shmid_ds status;
    uint64_t last = shk__monotonic(), took[WHOLE];
    (void)shmctl(id, IPC_STAT, &status);
    took[STAT] = since(&last);
    volatile const char *base = shmat(id, at, SHM_RDONLY);
    took[ATTACH] = since(&last);
    if ((uintptr_t)base == UINTPTR_MAX)
        check(-errno, "shmat");
    (void)shmctl(id, IPC_STAT, &status);
    took[STAT_AGAIN] = since(&last);
    (void)madvise((void *)(uintptr_t)base, g->total_size, MADV_DONTDUMP);
    took[DUMPS] = since(&last);
    (void)base[0];
    took[HEADER] = since(&last);
    (void)base[g->queue_offset - 1]; /* the last bucket's */
    took[BUCKET] = since(&last);
    (void)base[g->total_size - 1];
    took[SLOT] = since(&last);
    (void)shmdt((const void *)(uintptr_t)base);
    for (int step = 0; step < WHOLE; step++)
        seen[step][round] = (double)took[step] / 1e3;
}

static void measure_whole(int id, int round)
{
    unsigned char key[SHK_KEY_SIZE_DEFAULT];
    size_t length;
    shk_store *reader;
    uint64_t last = shk__monotonic();
    check(shk_store_from_id(id, &reading, &reader), "open");
    check(shk_store_get_key(reader, client, server, key, sizeof key, &length), "get");
    seen[WHOLE][round] = (double)since(&last) / 1e3;
    shk_store_close(reader);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(int id, const struct shk__geometry *geometry, void *at, size_t megabytes,
                    double medians[STEPS])
{
    const size_t size = megabytes << 20;
    char *other = malloc(size + 1);
    check(other ? 0 : -ENOMEM, "other memory");
    for (int round = 0; round < ROUNDS; round++) {
        evict(other, size);
        measure_parts(id, geometry, at, round);
        evict(other, size);
        measure_whole(id, round);
    }
    free(other);
    for (int step = 0; step < STEPS; step++) {
        qsort(seen[step], ROUNDS, sizeof seen[step][0], compare);
        medians[step] = seen[step][ROUNDS / 2];
    }
}

int main(int argc, char **argv)
{
    const uint64_t pairs = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    const size_t megabytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 64;
    const struct shk_address address = {.key = IPC_PRIVATE};
    const struct shk_shape shape = {.capacity = pairs, .mode = 0600};
    const struct shk_put what = {.key = {"a key", 5}, .status = SHK_VALID, .key_id = -1};
    double warm[STEPS], cold[STEPS];
    shk_store *store;
    check(shk_store_open(SHK_CREATE, &address, &shape, &writing, &store), "create");
    made = store->info.id;
    check(shk_store_put(store, client, server, &what, NULL), "put");
    const struct shk__geometry geometry = store->geometry;
    const int id = made;
    void *at = pairs < 20000 ? NULL : store->base; /* as an open would have it */
    shk_store_close(store);
    measure(id, &geometry, at, 0, warm);
    measure(id, &geometry, at, megabytes, cold);
    check(shk_store_from_id(id, &writing, &store), "open");
    check(shk_store_destroy(store), "destroy");
    shk_store_close(store);
    (void)printf("%-30s %6s %9zu MB later\n", "us", "warm", megabytes);
    for (int step = 0; step < STEPS; step++)
        (void)printf("%-30s %6.2f %9.2f\n", names[step], warm[step], cold[step]);
    return 0;
}
