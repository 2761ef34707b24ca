/* test_store.c: what a store does for one process, and what it leaves in memory. */
#include "test.h"

#include "handle.h"
#include "index.h"
#include "journal.h"

static struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

static shk_store *make(uint64_t capacity, uint32_t id_size, uint32_t key_size)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {capacity, id_size, key_size, 0600, SHK_MEMORY_LOCK_TRY};
    struct shk_access access = {.open_timeout = 1000000000, .lock_timeout = 1000000000};
    struct shk_info info;
    shk_store *store;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access, &store), 0);
    shk_store_info(store, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    return store;
}

static void check_sound(shk_store *store)
{
    struct shk_report report;
    CHECK_CODE(shk_store_verify(store, &report), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        if (report.faults[i])
            FAIL("%s: %llu faults, the first at %llu", shk_check_name((enum shk_check)i),
                 (unsigned long long)report.faults[i], (unsigned long long)report.first[i]);
}

static struct shk_bytes numbered(char *room, int number)
{
    (void)snprintf(room, 12, "c%u", (unsigned)number);
    return text(room);
}

static int put(shk_store *store, int number, const char *key)
{
    char room[12];
    struct shk_put what = {.key = text(key), .key_id = SHK_KEY_ID_NEXT};
    return shk_store_put(store, numbered(room, number), text("server"), &what, NULL);
}

static int get(const shk_store *store, int number, char *key)
{
    char room[12];
    size_t length;
    int rc = shk_store_get_key(store, numbered(room, number), text("server"), key, 128, &length);
    if (rc == 0)
        key[length] = 0;
    return rc;
}

static int drop(shk_store *store, int number)
{
    char room[12];
    return shk_store_delete(store, numbered(room, number), text("server"));
}

static void classic_block_is_contiguous(void)
{
    shk_store *store = make(10, 12, 128);
    struct {
        int status;
        char client[12], server[12];
        int key_id;
        unsigned char key[128];
    } block;
    _Static_assert(sizeof block == 160, "the classic record");
    struct shk_put what = {.key = text("secret"), .key_id = 77, .status = SHK_REVOKED};
    CHECK_CODE(shk_store_put(store, text("client-1"), text("server-1"), &what, NULL), 0);
    memcpy(&block, (char *)shk__slot(store, 0) + SHK_STATUS_OFFSET, sizeof block);
    CHECK_EQUAL(block.status, 1);
    CHECK(strcmp(block.client, "client-1") == 0 && strcmp(block.server, "server-1") == 0);
    CHECK_EQUAL(block.key_id, 77);
    CHECK(memcmp(block.key, "secret", 7) == 0);
    CHECK_EQUAL(store->geometry.record_size, 192);
    shk_store_close(store);
}

static void full_means_capacity(void)
{
    char key[129];
    for (int capacity = 1; capacity < 60; capacity++) {
        shk_store *store = make((uint64_t)capacity, 0, 0);
        for (int i = 0; i < capacity; i++)
            CHECK_CODE(put(store, i, "one"), 0);
        CHECK_CODE(put(store, capacity, "one"), SHK_E_FULL);
        /* A full store is still overwritten, again and again. */
        for (int i = 0; i < 3 * capacity; i++)
            CHECK_CODE(put(store, i % capacity, "two"), 0);
        CHECK_CODE(drop(store, 0), 0);
        CHECK_CODE(put(store, capacity, "new"), 0);
        CHECK_CODE(get(store, capacity, key), 0);
        CHECK(strcmp(key, "new") == 0);
        CHECK_CODE(get(store, 0, key), SHK_E_ABSENT);
        check_sound(store);
        shk_store_close(store);
    }
}

/* A store of 21 pairs has 4 buckets, so that most inserts and deletes overflow. */
static void churn_agrees_with_a_table(void)
{
    enum { PAIRS = 60, CAPACITY = 21 };
    shk_store *store = make(CAPACITY, 0, 0);
    int present[PAIRS] = {0}, count = 0;
    uint32_t random = 12345;
    char key[129], expected[16];
    for (int round = 0; round < 20000; round++) {
        random = random * 1664525 + 1013904223;
        int number = (int)(random >> 8) % PAIRS;
        if (random >> 31) {
            CHECK_CODE(drop(store, number), present[number] ? 0 : SHK_E_ABSENT);
            count -= present[number] != 0;
            present[number] = 0;
        } else {
            (void)snprintf(expected, sizeof expected, "k%d", round);
            bool room = present[number] || count < CAPACITY;
            CHECK_CODE(put(store, number, expected), room ? 0 : SHK_E_FULL);
            count += room && !present[number];
            present[number] = room ? round + 1 : 0;
        }
        if (round % 100 == 0) {
            check_sound(store);
            for (int i = 0; i < PAIRS; i++) {
                CHECK_CODE(get(store, i, key), present[i] ? 0 : SHK_E_ABSENT);
                (void)snprintf(expected, sizeof expected, "k%d", present[i] - 1);
                CHECK(!present[i] || strcmp(key, expected) == 0);
            }
        }
    }
    shk_store_close(store);
}

static void slots_rest_before_they_are_used_again(void)
{
    shk_store *store = make(100, 0, 0);
    uint32_t last[SHK_SPARE_SLOTS];
    for (uint32_t i = 0; i < 1000; i++) {
        CHECK_CODE(put(store, 1, "key"), 0);
        struct shk__query query;
        struct shk__place place;
        char room[12];
        CHECK_CODE(shk__query_make(store, numbered(room, 1), text("server"), &query), 0);
        CHECK_CODE(shk__index_find_locked(store, &query, &place), 0);
        uint32_t slot = shk__entry_slot(place.word);
        for (uint32_t back = 0; back < SHK_SPARE_SLOTS && back < i; back++)
            CHECK(last[back] != slot);
        last[i % SHK_SPARE_SLOTS] = slot;
    }
    check_sound(store);
    shk_store_close(store);
}

/* 16 bits of generation stand in an entry: recycle slots through all of them. */
static void generations_wrap(void)
{
    shk_store *store = make(1, 0, 0);
    char key[129];
    for (int i = 0; i < 400000; i++)
        CHECK_CODE(put(store, 1, i % 2 ? "odd" : "even"), 0);
    CHECK_CODE(get(store, 1, key), 0);
    CHECK(strcmp(key, "odd") == 0);
    CHECK(shk__slot(store, 0)->generation > 65536);
    check_sound(store);
    shk_store_close(store);
}

static bool holds(const shk_store *store, const char *secret)
{
    return memmem(store->base, store->geometry.total_size, secret, strlen(secret)) != NULL;
}

static void replaced_keys_are_wiped(void)
{
    static const char *const secret = "MARKER-of-a-secret-that-must-go";
    shk_store *store = make(10, 0, 0);
    struct shk_record record;
    char room[12], key[128];
    struct shk_put what = {.key = text("other"), .key_id = SHK_KEY_ID_NEXT};

    CHECK_CODE(put(store, 1, secret), 0);
    CHECK(holds(store, secret));
    CHECK_CODE(shk_store_put(store, numbered(room, 1), text("server"), &what, NULL), 0);
    CHECK(!holds(store, secret));

    CHECK_CODE(put(store, 1, secret), 0);
    CHECK_CODE(shk_store_rotate(store, numbered(room, 1), text("server"), &(struct shk_rotation){.new_key = text("new")},
                                &record, key, sizeof key),
               0);
    CHECK(!holds(store, secret) && record.key_length == 3);

    CHECK_CODE(put(store, 2, secret), 0);
    CHECK_CODE(drop(store, 2), 0);
    CHECK(!holds(store, secret));

    CHECK_CODE(put(store, 3, secret), 0);
    CHECK_CODE(shk_store_revoke(store, numbered(room, 3), text("server")), 0);
    check_sound(store);
    CHECK_CODE(shk_store_destroy(store), 0);
    CHECK(!holds(store, secret));
    CHECK_CODE(get(store, 1, key), SHK_E_REMOVED);
    CHECK_CODE(put(store, 1, "x"), SHK_E_REMOVED);
    shk_store_close(store);
}

/* The store as it was before, with the journal set and the new slot filled. */
static void break_off(const shk_store *store, const struct shk_journal_shm *journal,
                      const char *before, const char *after)
{
    unsigned char *slot = (unsigned char *)shk__slot(store, shk__entry_slot(journal->new_word));
    memcpy(store->base, before, store->geometry.total_size);
    *shk__journal(store) = *journal;
    memcpy(slot, after + (slot - store->base), store->geometry.record_size);
}

/* So many times, as if each but the last were killed just before its end. */
static void recover(const shk_store *store, int times)
{
    for (; times > 0; times--) {
        shk__journal(store)->kind = SHK_CHANGE_OVERWRITE;
        CHECK_EQUAL(shk__journal_recover_locked(store), 1);
    }
    CHECK_EQUAL(shk__journal(store)->kind, SHK_CHANGE_NONE);
}

/* What a writer leaves that was killed right after its commit, or right before. */
static void recovery_may_be_repeated(void)
{
    shk_store *store = make(20, 0, 0);
    size_t size = store->geometry.total_size;
    char *before = malloc(size), *after = malloc(size), key[129];
    CHECK(before && after);
    for (int i = 0; i < 12; i++)
        CHECK_CODE(put(store, i, "old"), 0);
    memcpy(before, store->base, size);
    CHECK_CODE(put(store, 5, "new"), 0);
    memcpy(after, store->base, size);

    /* Committed, nothing after it done: journal kind set, entry new, old slot intact. */
    struct shk_journal_shm journal = *shk__journal(store);
    journal.kind = SHK_CHANGE_OVERWRITE;
    for (int times = 0; times < 3; times++) {
        uint32_t old_slot = shk__entry_slot(journal.old_word);
        break_off(store, &journal, before, after);
        *shk__entry_at(store, journal.target) = journal.new_word;
        recover(store, times + 1);
        CHECK_EQUAL(shk__slot(store, old_slot)->generation, journal.retired);
        CHECK_CODE(get(store, 5, key), 0);
        CHECK(strcmp(key, "new") == 0);
        check_sound(store);
    }
    /* Not committed: the filled slot is scrubbed, the old key stands. */
    for (int times = 0; times < 3; times++) {
        break_off(store, &journal, before, after);
        recover(store, times + 1);
        CHECK_CODE(get(store, 5, key), 0);
        CHECK(strcmp(key, "old") == 0);
        CHECK_CODE(put(store, 13, "next"), 0);
        check_sound(store);
    }
    /* A journal that nobody can have written is refused, and named by verify. */
    struct shk_report report;
    memcpy(store->base, before, size);
    *shk__journal(store) = journal;
    shk__journal(store)->target = UINT64_MAX;
    CHECK_CODE(put(store, 1, "x"), SHK_E_CORRUPT);
    CHECK_CODE(shk_store_verify(store, &report), 0);
    CHECK(report.faults[SHK_CHECK_journal] == 1);
    free(before);
    free(after);
    shk_store_close(store);
}

static void unused_capacity_takes_no_memory(void)
{
    shk_store *store = make(10 * 1000 * 1000, 0, 0);
    struct shm_info usage;
    CHECK(store->geometry.total_size > 2000000000u);
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&usage) >= 0);
    unsigned long before = usage.shm_rss;
    for (int i = 0; i < 100; i++)
        CHECK_CODE(put(store, i, "key"), 0);
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&usage) >= 0);
    CHECK(usage.shm_rss - before <= 110); /* a bucket's page a pair, and the records' */
    CHECK_CODE(shk_store_destroy(store), 0);
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&usage) >= 0);
    CHECK(usage.shm_rss <= before + 16); /* destroying must not touch it either */
    shk_store_close(store);
}

/* A damaged high-water mark must not keep destroy from wiping. */
static void destroy_does_not_trust_the_mark(void)
{
    static const char *const secret = "MARKER-of-a-secret-that-must-go";
    static const uint64_t marks[] = {0, 1, 1000000, UINT64_MAX};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        shk_store *store = make(100, 0, 0);
        for (int number = 0; number < 50; number++)
            CHECK_CODE(put(store, number, secret), 0);
        shk__ledger(store)->high_water = marks[i];
        CHECK_CODE(shk_store_destroy(store), 0);
        CHECK(!holds(store, secret));
        shk_store_close(store);
    }
}

static void an_unknown_status_is_corrupt(void)
{
    shk_store *store = make(10, 0, 0);
    char key[129];
    CHECK_CODE(put(store, 1, "key"), 0);
    ((int *)shk__slot(store, 0))[SHK_STATUS_OFFSET / 4] = 2;
    CHECK_CODE(get(store, 1, key), SHK_E_CORRUPT);
    shk_store_close(store);
}

static void geometry_names_what_is_wrong(void)
{
    struct shk__geometry g;
    CHECK_CODE(shk__geometry_compute(0, 12, 128, &g), SHK_E_INVALID);
    CHECK_CODE(shk__geometry_compute((uint64_t)SHK_CAPACITY_MAX + 1, 12, 128, &g), SHK_E_INVALID);
    CHECK(strstr(shk_error_detail(), "4294967041") && strstr(shk_error_detail(), "4294967040"));
    CHECK_CODE(shk__geometry_compute(1, 1, 128, &g), SHK_E_INVALID);
    CHECK_CODE(shk__geometry_compute(1, 257, 128, &g), SHK_E_INVALID);
    CHECK_CODE(shk__geometry_compute(1, 12, 0, &g), SHK_E_INVALID);
    CHECK_CODE(shk__geometry_compute(1, 12, 65537, &g), SHK_E_INVALID);
    CHECK_CODE(shk__geometry_compute(SHK_CAPACITY_MAX, 256, 65536, &g), 0);
    CHECK_CODE(shk__geometry_compute(1, 2, 1, &g), 0);
    CHECK(g.record_size == 64 && g.buckets == 1);
    for (uint64_t n = 10000; n <= 10000000; n *= 10) {
        CHECK_CODE(shk__geometry_compute(n, 12, 128, &g), 0);
        CHECK(g.total_size <= n * 215);
    }
}

static void names_lead_to_the_same_key_everywhere(void)
{
    key_t key, again, other;
    CHECK_CODE(shk_named_key("gateway", 7, 1000, &key), 0);
    CHECK_CODE(shk_named_key("gateway", 7, 1000, &again), 0);
    CHECK_CODE(shk_named_key("gateway", 7, 1001, &other), 0);
    CHECK(key == again && key != other && key > 0 && other > 0);
    CHECK_CODE(shk_named_key("", 0, 0, &key), SHK_E_INVALID);
}

static void out_parameters_that_may_be_null(void)
{
    char room[12], key[128];
    size_t length;
    shk_store *store = make(10, 12, 128), *larger = make(20, 12, 128);
    struct shk_bytes client = numbered(room, 1), server = text("server");
    struct shk_rotation how = {.new_key = text("a longer key")};
    CHECK_CODE(put(store, 1, "key"), 0);
    CHECK_CODE(shk_store_rotate(store, client, server, &how, NULL, NULL, 0), 0);
    CHECK_CODE(shk_store_rotate(store, client, server, &how, NULL, key, 3), SHK_E_INVALID);
    CHECK_CODE(shk_store_record(store, client, server, &(struct shk_record){0}, NULL, 0), 0);
    CHECK_CODE(shk_store_get_key(store, client, server, key, sizeof key, &length), 0);
    CHECK(length == how.new_key.size && memcmp(key, how.new_key.data, length) == 0);
    CHECK_CODE(shk_store_pop(store, client, server, NULL, NULL, 0), 0);
    CHECK_CODE(put(store, 1, "key"), 0);
    CHECK_CODE(shk_store_delete_many(store, &(struct shk_pair){client, server}, 1, NULL), 0);
    CHECK_CODE(shk_store_clear(store, NULL), 0);
    CHECK_CODE(shk_store_purge_expired(store, NULL), 0);
    CHECK_CODE(shk_store_copy_to(store, larger, NULL), 0);
    shk_store_close(NULL);
    shk_cursor_close(NULL);
    shk_snapshot_free(NULL);
    shk_store_close(larger);
    shk_store_close(store);
}

static void messages_call_a_store_by_its_id(void)
{
    static const int ids[] = {0, 9, 10, 4321, INT32_MAX};
    const struct shk_access access = {.readonly = true};
    shk_store *store = make(10, 0, 0);
    struct shk_header_shm header;
    shk__header_copy(shk__header(store), &header);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        struct shk__memory memory = {store->base, store->info.segment_size, ids[i], 0, true};
        char expected[32];
        shk_store *handle;
        CHECK_CODE(shk__handle_make(&memory, &header, &store->geometry, -1, &access, &handle), 0);
        (void)snprintf(expected, sizeof expected, "store %d", ids[i]);
        CHECK(strcmp(handle->title, expected) == 0);
        free(handle); /* which leaves what is mapped */
    }
    shk_store_close(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(classic_block_is_contiguous),
        TEST(full_means_capacity),
        TEST(churn_agrees_with_a_table),
        TEST(slots_rest_before_they_are_used_again),
        TEST(generations_wrap),
        TEST(replaced_keys_are_wiped),
        TEST(recovery_may_be_repeated),
        TEST(unused_capacity_takes_no_memory),
        TEST(destroy_does_not_trust_the_mark),
        TEST(an_unknown_status_is_corrupt),
        TEST(out_parameters_that_may_be_null),
        TEST(geometry_names_what_is_wrong),
        TEST(names_lead_to_the_same_key_everywhere),
        TEST(messages_call_a_store_by_its_id),
    };
    return TEST_MAIN(argc, argv, tests);
}
