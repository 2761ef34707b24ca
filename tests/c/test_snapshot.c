/* test_snapshot.c: all records as they were at one moment. */
#include "store_fixture.h"

#define ACCOUNTS 40u

static void it_holds_what_was_there(void)
{
    shk_store *store = store_make(50, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    CHECK_CODE(put(store, "a", "the key of a"), 0);
    CHECK_CODE(put_for(store, "b", "the key of b", 3600 * SHK_SECOND), 0);
    CHECK_CODE(put(store, "c", "the key of c"), 0);
    CHECK_CODE(shk_store_revoke(store, text("c"), SERVER), 0);
    CHECK_CODE(rotate(store, "a", "the new key of a", 3600 * SHK_SECOND), 0);
    CHECK_CODE(put_with(store, "d", "gone", (struct shk_put){.expires = 1}), 0);
    for (int handle = 0; handle < 2; handle++) {
        shk_store *through = handle ? reader : store;
        shk_snapshot *snapshot;
        CHECK_CODE(shk_store_snapshot(through, &snapshot), 0);
        CHECK_EQUAL(shk_snapshot_count(snapshot), 3);
        unsigned found = 0;
        for (size_t i = 0; i < 3; i++) {
            struct shk_pair pair;
            struct shk_record about, now;
            const void *key;
            char current[128];
            shk_snapshot_record(snapshot, i, &pair, &about, &key);
            CHECK(pair.client.size == 1 && pair.server.size == 6);
            CHECK_CODE(shk_store_record(reader, pair.client, SERVER, &now, current, 128), 0);
            CHECK(about.status == now.status && about.key_id == now.key_id &&
                  about.updated == now.updated && about.expires == now.expires);
            CHECK(about.key_length == now.key_length && memcmp(key, current, now.key_length) == 0);
            found |= 1u << (*(const char *)pair.client.data - 'a');
        }
        CHECK_EQUAL(found, 7);
        /* The slots lie in a row, with the store's layout. */
        const char *data = shk_snapshot_data(snapshot);
        CHECK(memmem(data, 3 * store->geometry.record_size, "the new key of a", 16));
        CHECK(!memmem(data, 4 * store->geometry.record_size, "gone", 4));
        /* It is private, and outlives what it shows. */
        if (handle) {
            CHECK_CODE(drop(store, "a"), 0);
            CHECK(memmem(data, 3 * store->geometry.record_size, "the new key of a", 16));
        }
        shk_snapshot_free(snapshot);
    }
    shk_snapshot_free(NULL);
    shk_store_close(reader);
    store_end(store);
}

static void an_empty_and_a_removed_store(void)
{
    shk_store *store = store_make(50, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    shk_snapshot *snapshot;
    CHECK_CODE(shk_store_snapshot(reader, &snapshot), 0);
    CHECK_EQUAL(shk_snapshot_count(snapshot), 0);
    shk_snapshot_free(snapshot);
    CHECK_CODE(shk_store_destroy(store), 0);
    CHECK_CODE(shk_store_snapshot(reader, &snapshot), SHK_E_REMOVED);
    CHECK_CODE(shk_store_snapshot(store, &snapshot), SHK_E_REMOVED);
    shk_store_close(reader);
    shk_store_close(store);
}

/* Each write raises one account by its round, in turn: at any moment the rounds of two
 * neighbours differ by one at most, and never rise again towards the end. */
static void move_money(shk_store *store, const uint32_t *stop)
{
    char key[12];
    for (unsigned round = 1; !__atomic_load_n(stop, __ATOMIC_ACQUIRE); round++) {
        (void)snprintf(key, sizeof key, "%u", round);
        for (unsigned i = 0; i < ACCOUNTS; i++)
            CHECK_CODE(put(store, numbered(i), key), 0);
        test_sleep(round % 2); /* quiet for a reader, now and then */
    }
}

static void check_moment(const shk_snapshot *snapshot)
{
    unsigned rounds[ACCOUNTS] = {0};
    CHECK_EQUAL(shk_snapshot_count(snapshot), ACCOUNTS);
    for (size_t i = 0; i < ACCOUNTS; i++) {
        struct shk_pair pair;
        struct shk_record about;
        const void *key;
        char digits[13] = {0};
        shk_snapshot_record(snapshot, i, &pair, &about, &key);
        memcpy(digits, key, about.key_length);
        rounds[strtoul((const char *)pair.client.data + 1, NULL, 10)] =
            (unsigned)strtoul(digits, NULL, 10);
    }
    for (unsigned i = 1; i < ACCOUNTS; i++)
        if (rounds[i] > rounds[i - 1] || rounds[0] - rounds[i] > 1)
            FAIL("account %u is in round %u, the one before it in %u, the first in %u", i,
                 rounds[i], rounds[i - 1], rounds[0]);
}

static void one_moment_beside_a_writer(void)
{
    shk_store *store = store_make(ACCOUNTS, 0, 0);
    uint32_t *stop = test_shared(sizeof *stop);
    unsigned taken[2] = {0}, busy = 0;
    for (unsigned i = 0; i < ACCOUNTS; i++)
        CHECK_CODE(put(store, numbered(i), "0"), 0);
    pid_t writer = test_fork();
    if (writer == 0) {
        move_money(store, stop);
        exit(0);
    }
    shk_store *reader = store_again(store, &store_reading);
    uint64_t until = shk__monotonic() + (is_long() ? 10 : 2) * SHK_SECOND;
    while (shk__monotonic() < until) {
        for (int handle = 0; handle < 2; handle++) {
            shk_snapshot *snapshot;
            int rc = shk_store_snapshot(handle ? reader : store, &snapshot);
            if (handle && rc == SHK_E_BUSY) {
                busy++;
                continue;
            }
            CHECK_CODE(rc, 0);
            check_moment(snapshot);
            taken[handle]++;
            shk_snapshot_free(snapshot);
        }
    }
    __atomic_store_n(stop, 1, __ATOMIC_RELEASE);
    test_join(writer);
    printf("%u snapshots by a writer, %u by a reader, which was told BUSY %u times\n", taken[0],
           taken[1], busy);
    CHECK(taken[0] > 0 && taken[1] > 0);
    shk_store_close(reader);
    store_end(store);
}

/* A writer that was stopped or killed anywhere in its write delays no reader. */
static void beside_a_writer_that_stopped(void)
{
    shk_store *store = store_make(20, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    for (unsigned i = 0; i < 10; i++)
        CHECK_CODE(put(store, numbered(i), "old"), 0);
    size_t size = store->geometry.total_size;
    char *before = malloc(size);
    CHECK(before);
    memcpy(before, store->base, size);
    CHECK_CODE(put(store, "c5", "new"), 0);
    struct shk_journal_shm journal = *shk__journal(store);
    for (int committed = 0; committed < 2; committed++) {
        unsigned char *slot =
            (unsigned char *)shk__slot(store, shk__entry_slot(journal.new_word));
        char *filled = malloc(store->geometry.record_size);
        CHECK(filled);
        if (!committed)
            memcpy(filled, slot, store->geometry.record_size);
        memcpy(store->base, before, size);
        *shk__journal(store) = journal;
        shk__journal(store)->kind = SHK_CHANGE_OVERWRITE;
        shk__lock_word(store)->word = 1;
        if (committed) {
            memcpy(slot, shk__slot(store, shk__entry_slot(journal.old_word)),
                   store->geometry.record_size);
            *(uint64_t *)slot = journal.generation;
            *shk__entry_at(store, journal.target) = journal.new_word;
        }
        shk_snapshot *snapshot;
        uint64_t start = shk__monotonic();
        CHECK_CODE(shk_store_snapshot(reader, &snapshot), 0);
        CHECK(shk__monotonic() - start < SHK_SECOND / 2);
        CHECK_EQUAL(shk_snapshot_count(snapshot), 10);
        shk_snapshot_free(snapshot);
        free(filled);
    }
    shk__lock_word(store)->word = 0;
    shk__journal(store)->kind = SHK_CHANGE_NONE;
    /* A repair that was broken off is another matter: nobody knows what is missing. */
    shk__journal(store)->kind = SHK_CHANGE_REPAIR;
    shk_snapshot *snapshot;
    CHECK_CODE(shk_store_snapshot(reader, &snapshot), SHK_E_BUSY);
    free(before);
    shk_store_close(reader);
    store_end(store);
}

/* An index that names one slot again and again must not overfill the copy. */
static void more_entries_than_the_store_can_hold(void)
{
    static const uint64_t counts[] = {0, 1, 8, 9, UINT64_MAX};
    enum { CAPACITY = 1000 };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        shk_store *store = store_make(CAPACITY, 0, 0);
        shk_store *reader = store_again(store, &store_reading);
        shk_snapshot *snapshot;
        CHECK_CODE(put(store, "a", "key"), 0);
        uint64_t word = place_of(store, "a", 0).word;
        for (uint64_t target = 0; target < (uint64_t)store->geometry.buckets * SHK_WAYS; target++)
            *shk__entry_at(store, target) = word;
        shk__ledger(store)->records = counts[i];
        CHECK_CODE(shk_store_snapshot(reader, &snapshot), SHK_E_CORRUPT);
        CHECK_CODE(shk_store_snapshot(store, &snapshot), SHK_E_CORRUPT);
        shk_store_close(reader);
        store_end(store);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(it_holds_what_was_there),
        TEST(an_empty_and_a_removed_store),
        TEST(one_moment_beside_a_writer),
        TEST(beside_a_writer_that_stopped),
        TEST(more_entries_than_the_store_can_hold),
    };
    return TEST_MAIN(argc, argv, tests);
}
