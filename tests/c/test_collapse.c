/* test_collapse.c: what has filled gets huge pages, in every process, and takes no more memory. */
#include "store_fixture.h"

#include "collapse.h"

#define GRANULE ((size_t)1 << 21)
#define KEY "a key of thirty-two bytes, or so"
#define PAIRS 60000u /* 11.5 MB of records */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Of the mapping at `base`, in bytes: a line of /proc/self/smaps. */
static size_t smaps(const void *base, const char *label)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[256], wanted[32];
    size_t kilobytes = SIZE_MAX;
    bool here = false;
    CHECK(file);
    (void)snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)(uintptr_t)base);
    while (kilobytes == SIZE_MAX && fgets(line, sizeof line, file)) {
        if (strncmp(line, wanted, strlen(wanted)) == 0)
            here = true;
        else if (here && strncmp(line, label, strlen(label)) == 0)
            CHECK(sscanf(line + strlen(label), " %zu kB", &kilobytes) == 1);
    }
    fclose(file);
    CHECK(kilobytes != SIZE_MAX);
    return kilobytes << 10;
}

/* What the kernel keeps of the segment, in bytes, whoever has it mapped. */
static size_t resident(const shk_store *store)
{
    FILE *file = fopen("/proc/sysvipc/shm", "re");
    char line[512];
    long long id, bytes = -1;
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%*d %lld %*o %*u %*d %*d %*u %*u %*u %*u %*u %*u %*u %*u %lld", &id, &bytes) ==
                2 &&
            id == store->info.id)
            break;
    fclose(file);
    CHECK(bytes >= 0);
    return (size_t)bytes;
}

/* Tried on a segment of its own. */
static void skip_where_the_kernel_cannot(void)
{
    int id = shmget(IPC_PRIVATE, 2 * GRANULE, 0600);
    struct shk_segment_info info;
    void *at;
    CHECK(id >= 0);
    test_keep_segment(id);
    CHECK_CODE(shk__collapse_map(id, 2 * GRANULE, 0, &info, &at), 0);
    memset(at, 1, GRANULE);
    if (madvise(at, GRANULE, MADV_COLLAPSE) != 0)
        SKIP("this kernel collapses no shared memory (MADV_COLLAPSE, Linux 6.1)");
}

static void fill(shk_store *store, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        CHECK_CODE(put(store, numbered(i), KEY), 0);
}

static void what_filled_is_huge_and_nothing_else(void)
{
    skip_where_the_kernel_cannot();
    shk_store *store = store_make(PAIRS, 0, 0);
    const unsigned char *base = store->base;
    CHECK_EQUAL((uintptr_t)base % GRANULE, 0);
    fill(store, 0, PAIRS / 2);
    size_t used = store->geometry.records_offset + PAIRS / 2 * store->geometry.record_size;
    size_t full = used / GRANULE - (store->geometry.records_offset + GRANULE - 1) / GRANULE;
    CHECK(full >= 2);
    CHECK_EQUAL(smaps(base, "ShmemPmdMapped:"), full * GRANULE);
    /* P9: capacity that is not used costs nothing still. */
    CHECK(resident(store) < used + GRANULE / 4);

    /* A reader that comes later sees them, and one read there maps all of one. */
    shk_store *reader = store_again(store, &store_reading);
    CHECK_EQUAL((uintptr_t)reader->base % GRANULE, 0);
    CHECK_EQUAL(smaps(reader->base, "ShmemPmdMapped:"), 0);
    CHECK_CODE(get(reader, numbered(PAIRS / 2 - 10000), KEY), 0);
    CHECK(smaps(reader->base, "ShmemPmdMapped:") >= GRANULE);
    shk_store_close(reader);

    /* A writer that comes later goes on where this one stopped. */
    shk_store *other = store_again(store, &store_writing);
    fill(other, PAIRS / 2, PAIRS);
    CHECK(smaps(other->base, "ShmemPmdMapped:") >= 2 * GRANULE);
    shk_store_close(other);
    CHECK_SOUND(store);
    for (unsigned i = 0; i < PAIRS; i++)
        CHECK_CODE(get(store, numbered(i), KEY), 0);
    store_end(store);
}

static void so_is_a_large_index_soon(void)
{
    skip_where_the_kernel_cannot();
    shk_store *store = store_make(400000, 0, 0); /* 4.9 MB of buckets */
    const struct shk__geometry *g = &store->geometry;
    fill(store, 0, 50000);
    size_t used = g->records_offset + 50000 * g->record_size, index = g->queue_offset / GRANULE;
    size_t full = used / GRANULE - (g->records_offset + GRANULE - 1) / GRANULE;
    CHECK_EQUAL(index, 2);
    CHECK_EQUAL(smaps(store->base, "ShmemPmdMapped:"), (full + index) * GRANULE);
    CHECK(resident(store) < index * GRANULE + GRANULE / 2 + 50000 * g->record_size);
    CHECK_SOUND(store);
    store_end(store);
}

static size_t mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    size_t bytes = 0;
    unsigned long from, to;
    char line[512];
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%lx-%lx", &from, &to) == 2 && !strstr(line, "[heap]"))
            bytes += to - from;
    fclose(file);
    return bytes;
}

/* Nothing of the room that was asked for stays, whatever the segment's size. */
static void an_attachment_takes_and_leaves_no_more_than_itself(void)
{
    for (size_t size = 2 * GRANULE; size < 3 * GRANULE; size += GRANULE / 3 + 4096 - 7) {
        int id = shmget(IPC_PRIVATE, size, 0600);
        struct shk_segment_info info;
        void *at;
        CHECK(id >= 0);
        test_keep_segment(id);
        size_t before = mappings();
        CHECK_CODE(shk__collapse_map(id, size, 0, &info, &at), 0);
        CHECK_EQUAL((uintptr_t)at % GRANULE, 0);
        CHECK_EQUAL(mappings() - before, (size + 4095) / 4096 * 4096);
        CHECK_CODE(shk_segment_detach(at), 0);
        CHECK_EQUAL(mappings(), before);
    }
}

/* What stands in the usual place is not replaced, and the next attachment is aligned as well. */
static void a_place_that_is_taken_stays_as_it_is(void)
{
    const size_t size = 2 * GRANULE + 4096;
    int id = shmget(IPC_PRIVATE, size, 0600);
    struct shk_segment_info info;
    void *usual, *again, *elsewhere;
    CHECK(id >= 0);
    test_keep_segment(id);
    CHECK_CODE(shk__collapse_map(id, size, 0, &info, &usual), 0);
    CHECK_CODE(shk_segment_detach(usual), 0);
    CHECK_CODE(shk__collapse_map(id, size, 0, &info, &again), 0);
    CHECK(again == usual);
    CHECK_CODE(shk_segment_detach(again), 0);

    /* Only its last page, and of a stranger's. */
    char *page = mmap((char *)usual + size - 4096, 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(page == (char *)usual + size - 4096);
    memset(page, 'x', 4096);
    CHECK_CODE(shk__collapse_map(id, size, 0, &info, &elsewhere), 0);
    CHECK(elsewhere != usual);
    CHECK_EQUAL((uintptr_t)elsewhere % GRANULE, 0);
    memset(elsewhere, 'y', size);
    CHECK(page[0] == 'x' && page[4095] == 'x');
    CHECK_CODE(shk_segment_detach(elsewhere), 0);
    CHECK(munmap(page, 4096) == 0);
}

/* Each granule is one thread's business, and a second store's granules are its own. */
static void *fill_a_share(void *argument)
{
    shk_store *store = argument;
    static _Atomic unsigned next;
    for (unsigned i; (i = next++) < PAIRS;) {
        char client[12];
        (void)snprintf(client, sizeof client, "c%u", i);
        CHECK_CODE(put(store, client, "key"), 0);
    }
    return NULL;
}

static void threads_fill_it_together(void)
{
    shk_store *store = store_make(PAIRS, 0, 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, fill_a_share, store) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK_SOUND(store);
    CHECK_EQUAL(store_stats(store).records, PAIRS);
    CHECK_EQUAL(shk__load(&store->collapse_at), UINT64_MAX);
    store_end(store);
}

/* At the slot that completes a granule, wherever that begins; and then no other write looks. */
static void each_granule_is_due_once(void)
{
    for (uint64_t capacity = 50000; capacity < 50008; capacity++) {
        shk_store *store = store_make(capacity, 0, 0);
        const struct shk__geometry *g = &store->geometry;
        for (uint64_t due; (due = shk__load(&store->collapse_at)) != UINT64_MAX;) {
            uint64_t end = g->records_offset + due * g->record_size;
            CHECK_EQUAL(end / GRANULE, (end - g->record_size) / GRANULE + 1);
            shk__store(&shk__ledger(store)->high_water, due);
            shk__collapse_filled(store);
            CHECK(shk__load(&store->collapse_at) > due);
        }
        store_end(store);
    }
}

static void a_small_store_is_none_of_this(void)
{
    shk_store *store = store_make(1000, 0, 0);
    CHECK_EQUAL(store->collapse_at, UINT64_MAX);
    store_end(store);
}

static const struct test tests[] = {
    TEST(what_filled_is_huge_and_nothing_else),
    TEST(so_is_a_large_index_soon),
    TEST(an_attachment_takes_and_leaves_no_more_than_itself),
    TEST(a_place_that_is_taken_stays_as_it_is),
    TEST(threads_fill_it_together),
    TEST(each_granule_is_due_once),
    TEST(a_small_store_is_none_of_this),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
