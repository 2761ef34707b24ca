/* test_batch.c: many reads or writes in one call. */
#include "store_fixture.h"

#define MANY 200u
#define MARKER "MARKER-of-the-batch"

/* Pairs that stay where they are. */
static char ids[MANY][12];

static struct shk_pair pair_of(unsigned number)
{
    (void)snprintf(ids[number], sizeof ids[number], "c%u", number);
    return (struct shk_pair){text(ids[number]), SERVER};
}

static struct shk_item item_of(unsigned number, const char *key)
{
    return (struct shk_item){pair_of(number), {.key = text(key), .key_id = SHK_KEY_ID_NEXT}, -9};
}

static void many_are_put_read_and_deleted(void)
{
    static struct shk_item items[MANY];
    static struct shk_pair pairs[MANY];
    static char keys[MANY][32];
    uint32_t lengths[MANY];
    int results[MANY];
    shk_store *store = store_make(MANY, 0, 0);
    for (unsigned i = 0; i < MANY; i++) {
        items[i] = item_of(i, i % 2 ? "odd" : "even");
        pairs[i] = pair_of(i);
    }
    CHECK_CODE(shk_store_put_many(store, NULL, 0), 0);
    CHECK_CODE(shk_store_put_many(store, items, MANY), 0);
    for (unsigned i = 0; i < MANY; i++)
        CHECK_EQUAL(items[i].key_id, i + 1);
    CHECK_EQUAL(store_stats(store).records, MANY);
    CHECK_CODE(put(store, "excess", "key"), SHK_E_FULL);
    CHECK_CODE(shk_store_put_many(store, items, MANY), 0); /* overwriting needs no room */
    CHECK_SOUND(store);

    CHECK_CODE(shk_store_revoke(store, pairs[1].client, SERVER), 0);
    CHECK_CODE(drop(store, "c2"), 0);
    CHECK_CODE(put_with(store, "c3", "key", (struct shk_put){.expires = 1}), 0);
    memset(keys, '.', sizeof keys);
    CHECK_EQUAL(shk_store_get_many(store, pairs, MANY, keys, sizeof keys[0], lengths, results),
                MANY - 3);
    for (unsigned i = 0; i < MANY; i++) {
        int expected = i == 1 ? SHK_E_REVOKED : i == 2 ? SHK_E_ABSENT : i == 3 ? SHK_E_EXPIRED : 0;
        CHECK_EQUAL(results[i], expected);
        if (expected == 0)
            CHECK(lengths[i] == (i % 2 ? 3u : 4u) && memcmp(keys[i], i % 2 ? "odd" : "even",
                                                            lengths[i]) == 0);
        CHECK(keys[i][31] == '.');
    }
    CHECK_CODE(shk_store_get_many(store, pairs, MANY, keys, 3, lengths, results), SHK_E_INVALID);
    pairs[50].client.size = 0;
    CHECK_CODE(shk_store_get_many(store, pairs, MANY, keys, 32, lengths, results), SHK_E_INVALID);
    CHECK_CODE(shk_store_delete_many(store, pairs, MANY, NULL), SHK_E_INVALID);
    pairs[50] = pair_of(50);
    CHECK_EQUAL(store_stats(store).records, MANY - 1);

    uint64_t deleted = 77;
    CHECK_CODE(shk_store_delete_many(store, NULL, 0, &deleted), 0);
    CHECK_EQUAL(deleted, 0);
    pairs[7] = pairs[8]; /* twice */
    CHECK_CODE(shk_store_delete_many(store, pairs, MANY, &deleted), 0);
    CHECK_EQUAL(deleted, MANY - 2);
    CHECK_EQUAL(store_stats(store).records, 1);
    CHECK_CODE(get(store, "c7", "odd"), 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* Whatever is wrong with one item, none is written. */
static void all_or_none(void)
{
    struct shk_item items[20];
    shk_store *store = store_make(10, 0, 0);
    size_t size = store->geometry.total_size;
    char *before = malloc(size);
    CHECK(before);
    for (unsigned i = 0; i < 20; i++)
        items[i] = item_of(i, MARKER);
    memcpy(before, store->base, size);
    CHECK_CODE(shk_store_put_many(store, items, 11), SHK_E_FULL);
    CHECK(strstr(shk_error_detail(), "none was written"));

    items[3].what.key.size = 129;
    CHECK_CODE(shk_store_put_many(store, items, 5), SHK_E_INVALID);
    items[3] = item_of(3, MARKER);
    items[4].pair.server.size = 12;
    CHECK_CODE(shk_store_put_many(store, items, 5), SHK_E_INVALID);
    items[4] = item_of(4, MARKER);
    items[4].what.condition = SHK_IF_ABSENT;
    CHECK_CODE(shk_store_put_many(store, items, 5), SHK_E_INVALID);
    items[4] = item_of(4, MARKER);
    items[4].what.status = 2;
    CHECK_CODE(shk_store_put_many(store, items, 5), SHK_E_INVALID);
    items[4] = item_of(4, MARKER);
    items[0].what.key_id = INT32_MAX;
    CHECK_CODE(shk_store_put_many(store, items, 5), SHK_E_EXHAUSTED);
    items[0] = item_of(0, MARKER);
    CHECK(!store_holds(store, MARKER));
    /* The token apart, the store is as it was. */
    shk__lock_word(store)->word = ((struct shk_lock_shm *)(before + 1024))->word;
    CHECK(memcmp(before, store->base, size) == 0);
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQUAL(items[i].key_id, -9);

    /* What counts are different pairs that are absent. */
    for (unsigned i = 10; i < 20; i++)
        items[i] = item_of(i - 10, "again");
    CHECK_CODE(shk_store_put_many(store, items, 20), 0);
    CHECK_EQUAL(store_stats(store).records, 10);
    for (unsigned i = 0; i < 10; i++)
        CHECK_CODE(get(store, ids[i], "again"), 0);
    items[0] = item_of(10, MARKER);
    CHECK_CODE(shk_store_put_many(store, items, 20), SHK_E_FULL);
    CHECK(!store_holds(store, MARKER));
    /* An expired record is room. */
    CHECK_CODE(put_with(store, "c9", "key", (struct shk_put){.expires = 1}), 0);
    items[19] = items[9] = items[0];
    CHECK_CODE(shk_store_put_many(store, items, 20), 0);
    CHECK_SOUND(store);
    free(before);
    store_end(store);
}

static void clear_deletes_every_pair(void)
{
    shk_store *store = store_make(MANY, 0, 0);
    uint64_t deleted = 77;
    CHECK_CODE(shk_store_clear(store, &deleted), 0);
    CHECK_EQUAL(deleted, 0);
    for (unsigned i = 0; i < MANY / 2; i++) {
        CHECK_CODE(put(store, numbered(i), MARKER), 0);
        if (i % 3 == 0)
            CHECK_CODE(rotate(store, numbered(i), "new", 3600 * SHK_SECOND), 0);
        if (i % 3 == 1)
            CHECK_CODE(shk_store_revoke(store, text(numbered(i)), SERVER), 0);
        if (i % 3 == 2)
            CHECK_CODE(shk_store_touch(store, text(numbered(i)), SERVER, 1), 0);
    }
    uint64_t records = store_stats(store).records;
    CHECK_CODE(shk_store_clear(store, &deleted), 0);
    CHECK_EQUAL(deleted, records);
    CHECK(!store_holds(store, MARKER));
    struct shk_stats stats = store_stats(store);
    CHECK_EQUAL(stats.records + stats.previous_keys, 0);
    CHECK_SOUND(store);
    for (unsigned i = 0; i < MANY; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    CHECK_CODE(shk_store_clear(store, NULL), 0);
    for (uint32_t b = 0; b < store->geometry.buckets; b++)
        CHECK_EQUAL(shk__bucket(store, b)->overflow, 0);
    store_end(store);
}

/* A killed batch leaves the first of its items, in order. */
static void a_killed_batch_leaves_a_prefix(void)
{
    static struct shk_item items[2][MANY];
    enum { KILLS = 40 };
    shk_store *store = store_make(MANY, 0, 0);
    unsigned broken = 0;
    for (unsigned i = 0; i < MANY; i++) {
        items[0][i] = item_of(i, "first");
        items[1][i] = item_of(i, "second");
    }
    chance_start();
    for (unsigned kill_number = 0; kill_number < KILLS; kill_number++) {
        uint32_t *step = test_shared(4096);
        CHECK_CODE(shk_store_put_many(store, items[0], MANY), 0);
        pid_t pid = test_fork();
        if (pid == 0) {
            test_step(step);
            CHECK_CODE(shk_store_put_many(store, items[1], MANY), 0);
            for (;;)
                (void)pause();
        }
        kill_in_the_midst(pid, step, TEST_TSAN ? 1000000 : 200000);
        CHECK_SOUND(store);
        unsigned written = 0;
        char key[130];
        size_t length;
        for (unsigned i = 0; i < MANY; i++) {
            CHECK_CODE(shk_store_get_key(store, text(ids[i]), SERVER, key, 128, &length), 0);
            key[length] = 0;
            bool second = strcmp(key, "second") == 0;
            CHECK(second || strcmp(key, "first") == 0);
            CHECK(!second || written == i);
            written += second;
        }
        broken += written > 0 && written < MANY;
        CHECK(munmap(step, 4096) == 0);
    }
    printf("%u of %u batches were broken off between two items\n", broken, KILLS);
    store_end(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(many_are_put_read_and_deleted),
        TEST(all_or_none),
        TEST(clear_deletes_every_pair),
        TEST(a_killed_batch_leaves_a_prefix),
    };
    return TEST_MAIN(argc, argv, tests);
}
