/* test_move.c: a store that grows: its records are copied to a larger one, which it names. */
#include "store_fixture.h"

#define HOUR (3600 * SHK_SECOND)
#define SECRET "MARKER-of-a-key-that-moves"
#define OLDER "MARKER-of-a-key-before-it"

/* 20 pairs of every sort. */
static void fill(shk_store *store)
{
    for (unsigned i = 0; i < 20; i++) {
        CHECK_CODE(put_with(store, numbered(i), OLDER,
                            (struct shk_put){.ttl = i % 2 ? HOUR : 0, .key_id = (int32_t)i * 10 + 1}),
                   0);
        CHECK_CODE(rotate(store, numbered(i), SECRET, i % 3 ? 0 : HOUR), 0);
        if (i % 6 == 3) /* the other variant */
            CHECK_CODE(rotate(store, numbered(i), SECRET "2", HOUR), 0);
        if (i % 5 == 4)
            CHECK_CODE(shk_store_revoke(store, text(numbered(i)), SERVER), 0);
    }
}

static void everything_is_carried_over(void)
{
    /* Into stores of the same sizes, and of larger ones. */
    for (uint32_t larger = 0; larger < 2; larger++) {
        shk_store *store = store_make(40, 0, 0);
        shk_store *reader = store_again(store, &store_reading);
        shk_store *other = store_again(store, &store_writing);
        shk_store *target = store_make(larger ? 1000 : 40, 12 + 12 * larger, 128 + 100 * larger);
        struct shk_record before[20];
        int32_t older[20];
        fill(store);
        for (unsigned i = 0; i < 20; i++) {
            before[i] = record_of(store, numbered(i));
            older[i] = i % 6 == 3 ? before[i].key_id - 1 : (int32_t)i * 10 + 1;
        }
        CHECK_CODE(put_with(store, "expired", "gone", (struct shk_put){.expires = 1}), 0);
        struct shk_stats was = store_stats(store);
        uint64_t copied = 0;
        CHECK_CODE(shk_store_copy_to(store, target, &copied), 0);
        CHECK_EQUAL(copied, 20);
        struct shk_stats is = store_stats(target);
        CHECK_EQUAL(is.records, 20);
        CHECK_EQUAL(is.previous_keys, was.previous_keys);
        CHECK_EQUAL(is.last_key_id, was.last_key_id);
        CHECK_CODE(get(target, "expired", ""), SHK_E_ABSENT);
        for (unsigned i = 0; i < 20; i++) {
            struct shk_record after = record_of(target, numbered(i));
            CHECK(after.status == before[i].status && after.key_id == before[i].key_id &&
                  after.key_length == before[i].key_length && after.updated == before[i].updated &&
                  after.expires == before[i].expires);
            bool has = i % 3 == 0 && i % 5 != 4;
            int expected = i % 5 == 4 ? SHK_E_REVOKED : has ? 0 : SHK_E_ABSENT;
            CHECK_CODE(get_by_id(target, numbered(i), older[i], i % 6 == 3 ? SECRET : OLDER),
                       expected);
        }
        CHECK_SOUND(target);
        CHECK_CODE(rotate(target, "c0", "next", HOUR), 0);
        CHECK_CODE(get_by_id(target, "c0", before[0].key_id, SECRET), 0);
        CHECK_SOUND(target);

        /* Every handle of the old one says where to, and nothing of it is left. */
        struct shk_successor to;
        struct shk_info info;
        shk_store_info(target, &info);
        shk_store *handles[] = {store, reader, other};
        for (unsigned h = 0; h < 3; h++) {
            CHECK_CODE(get(handles[h], "c1", ""), SHK_E_MOVED);
            CHECK_CODE(shk_store_successor(handles[h], &to), 0);
            CHECK(to.id == info.id && to.key == info.key && to.owner == info.owner &&
                  memcmp(to.store_id, info.store_id, 16) == 0 && *to.name == 0);
        }
        CHECK_CODE(put(other, "c1", "key"), SHK_E_MOVED);
        CHECK(strstr(shk_error_detail(), "moved to store"));
        CHECK(!store_holds(store, "MARKER-of"));
        CHECK_CODE(shk_store_copy_to(store, target, NULL), SHK_E_MOVED);
        CHECK_CODE(shk_store_destroy(store), 0);
        CHECK_CODE(get(reader, "c1", ""), SHK_E_REMOVED);
        CHECK_CODE(shk_store_successor(reader, &to), SHK_E_REMOVED);
        CHECK_CODE(shk_store_successor(target, &to), SHK_E_ABSENT);
        shk_store_close(reader);
        shk_store_close(other);
        shk_store_close(store);
        store_end(target);
    }
}

static void refusals_change_nothing(void)
{
    shk_store *store = store_make(40, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    shk_store *again = store_again(store, &store_writing);
    shk_store *small = store_make(19, 0, 0);
    shk_store *short_ids = store_make(40, 11, 0);
    shk_store *short_keys = store_make(40, 0, 127);
    shk_store *taken = store_make(40, 0, 0);
    shk_store *target = store_make(40, 0, 0);
    uint64_t copied = 77;
    fill(store);
    CHECK_CODE(put(taken, "a", "key"), 0);
    CHECK_CODE(shk_store_copy_to(store, store, &copied), SHK_E_INVALID);
    CHECK_CODE(shk_store_copy_to(store, again, &copied), SHK_E_INVALID);
    CHECK_CODE(shk_store_copy_to(reader, target, &copied), SHK_E_READONLY);
    CHECK_CODE(shk_store_copy_to(store, small, &copied), SHK_E_FULL);
    CHECK_CODE(shk_store_copy_to(store, short_ids, &copied), SHK_E_INVALID);
    CHECK_CODE(shk_store_copy_to(store, short_keys, &copied), SHK_E_INVALID);
    CHECK_CODE(shk_store_copy_to(store, taken, &copied), SHK_E_INVALID);
    shk_store_close(reader);
    reader = store_again(target, &store_reading);
    CHECK_CODE(shk_store_copy_to(store, reader, &copied), SHK_E_READONLY);
    CHECK_CODE(shk_store_destroy(small), 0);
    CHECK_CODE(shk_store_copy_to(store, small, &copied), SHK_E_REMOVED);
    CHECK_EQUAL(copied, 77);
    CHECK_CODE(get(store, "c1", SECRET), 0);
    CHECK_EQUAL(store_stats(target).records, 0);
    CHECK_SOUND(store);
    CHECK_CODE(shk_store_copy_to(store, target, &copied), 0);
    CHECK_EQUAL(copied, 20);
    shk_store_close(reader);
    shk_store_close(again);
    shk_store_close(small);
    shk_store *stores[] = {store, short_ids, short_keys, taken, target};
    for (unsigned i = 0; i < 5; i++)
        store_end(stores[i]);
}

static void a_full_store_fits_one_of_its_size(void)
{
    shk_store *store = store_make(21, 0, 0);
    shk_store *target = store_make(21, 0, 0);
    for (unsigned i = 0; i < 20; i++)
        CHECK_CODE(put(store, numbered(i), SECRET), 0);
    CHECK_CODE(rotate(store, "c0", "new", HOUR), 0);
    CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
    CHECK_CODE(put(target, "new", "key"), SHK_E_FULL);
    CHECK_CODE(get_by_id(target, "c0", 1, SECRET), 0);
    CHECK_SOUND(target);
    store_end(store);
    store_end(target);
}

/* What a copier leaves that was killed: the old store as it was, or the new one complete. */
static void killed_anywhere(void)
{
    enum { PAIRS = 200, KILLS = 60 };
    unsigned moved = 0, begun = 0;
    chance_start();
    for (unsigned round = 0; round < KILLS; round++) {
        shk_store *store = store_make(2 * PAIRS, 0, 0);
        shk_store *target = store_make(2 * PAIRS, 0, 0);
        uint32_t *step = test_shared(4096);
        for (unsigned i = 0; i < PAIRS; i++) {
            CHECK_CODE(put(store, numbered(i), SECRET), 0);
            if (i % 4 == 0)
                CHECK_CODE(rotate(store, numbered(i), SECRET "2", HOUR), 0);
        }
        pid_t pid = test_fork();
        if (pid == 0) {
            test_step(step);
            CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
            for (;;)
                (void)pause();
        }
        kill_in_the_midst(pid, step, TEST_TSAN ? 2000000 : 300000);
        int rc = get(store, "c1", SECRET);
        CHECK(rc == 0 || rc == SHK_E_MOVED);
        shk_store *counts = rc == 0 ? store : target;
        begun += rc == 0 && shk__ledger(target)->records > 0;
        moved += rc != 0;
        CHECK_SOUND(counts);
        CHECK_EQUAL(store_stats(counts).records, PAIRS);
        CHECK_EQUAL(store_stats(counts).previous_keys, PAIRS / 4);
        for (unsigned i = 0; i < PAIRS; i++)
            CHECK_CODE(get(counts, numbered(i), i % 4 ? SECRET : SECRET "2"), 0);
        if (rc != 0) { /* whoever comes next wipes what its mover had not */
            CHECK_CODE(put(store, "a", "key"), SHK_E_MOVED);
            CHECK(!store_holds(store, SECRET));
        } else { /* and what it had begun to fill can be cleared and used */
            CHECK_CODE(shk_store_clear(target, NULL), 0);
            CHECK_SOUND(target);
            CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
            CHECK_SOUND(target);
        }
        store_end(store);
        store_end(target);
        CHECK(munmap(step, 4096) == 0);
    }
    printf("%u of %u moves happened before the kill, %u were broken off in the midst\n", moved,
           KILLS, begun);
}

/* Writers and readers beside it: nothing that was written is lost. */
static void writers_follow(void)
{
    enum { WRITERS = 3 };
    shk_store *store = store_make(2000, 0, 0);
    shk_store *target = store_make(20000, 0, 0);
    uint32_t *step = test_shared(4096), *written = test_shared(4096);
    struct shk_info info;
    pid_t pids[WRITERS];
    shk_store_info(target, &info);
    for (unsigned w = 0; w < WRITERS; w++) {
        if ((pids[w] = test_fork()) != 0)
            continue;
        shk_store *mine = store;
        test_step(step);
        for (unsigned i = 0; i < 600; i++) {
            const char *client = numbered(w * 1000 + i);
            int rc = put(mine, client, "key");
            if (rc == SHK_E_MOVED) {
                struct shk_successor to;
                CHECK_CODE(shk_store_successor(mine, &to), 0);
                CHECK(to.id == info.id);
                CHECK_CODE(shk_store_from_id(to.id, &store_writing, &mine), 0);
                rc = put(mine, client, "key");
            }
            CHECK_CODE(rc, 0);
            written[w] = i + 1;
            if (i % 50 == 0)
                test_sleep(1);
        }
        _exit(0); /* with handles open */
    }
    test_await(step, WRITERS);
    test_sleep(5);
    CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
    for (unsigned w = 0; w < WRITERS; w++)
        test_join(pids[w]);
    for (unsigned w = 0; w < WRITERS; w++)
        for (unsigned i = 0; i < 600; i++)
            CHECK_CODE(get(target, numbered(w * 1000 + i), "key"), 0);
    CHECK_SOUND(target);
    store_end(store);
    store_end(target);
}

/* Two that are copied into each other wait for each other's locks: an error, not for ever. */
static void crosswise(void)
{
    shk_store *stores[2] = {store_make(10, 0, 0), store_make(10, 0, 0)};
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        CHECK_CODE(put(stores[i], "a", "key"), 0);
        shk_store_set_lock_timeout(stores[i], 50 * SHK_MILLISECOND);
    }
    for (int i = 0; i < 2; i++)
        if ((pids[i] = test_fork()) == 0) {
            for (int n = 0; n < 200; n++) {
                int rc = shk_store_copy_to(stores[i], stores[!i], NULL);
                CHECK(rc == SHK_E_INVALID || rc == SHK_E_TIMEOUT);
            }
            _exit(0);
        }
    test_join(pids[0]);
    test_join(pids[1]);
    store_end(stores[0]);
    store_end(stores[1]);
}

/* A damaged mark must not keep the old keys from being wiped. */
static void the_mark_is_not_trusted(void)
{
    static const uint64_t marks[] = {0, 1, 100000, UINT64_MAX};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        shk_store *store = store_make(40, 0, 0), *target = store_make(40, 0, 0);
        fill(store);
        shk__ledger(store)->high_water = marks[i];
        CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
        CHECK(!store_holds(store, "MARKER-of"));
        CHECK_SOUND(target);
        store_end(store);
        store_end(target);
    }
}

/* What is damaged is not carried into a new store. */
static void damage_does_not_move(void)
{
    shk_store *store = store_make(40, 0, 0), *target = store_make(40, 0, 0);
    struct shk_repair_report report;
    fill(store);
    uint32_t slot = shk__entry_slot(place_of(store, "c1", 0).word);
    shk__slot(store, slot)->flags = SHK_FLAGS_ALL;
    CHECK_CODE(shk_store_copy_to(store, target, NULL), SHK_E_CORRUPT);
    CHECK(strstr(shk_error_detail(), "repair"));
    CHECK_CODE(get(store, "c2", SECRET), 0);
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_CODE(shk_store_clear(target, NULL), 0);
    /* A previous key that its pair does not name, and a count that is too low. */
    slot = shk__entry_slot(place_of(store, "c0", 0).word);
    shk__slot(store, slot)->flags &= ~SHK_FLAGS_HAS_PREVIOUS;
    shk__ledger(store)->records = 1;
    CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
    CHECK_EQUAL(store_stats(target).records, 19);
    CHECK_SOUND(target);
    store_end(store);
    store_end(target);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(everything_is_carried_over),
        TEST(refusals_change_nothing),
        TEST(a_full_store_fits_one_of_its_size),
        TEST(killed_anywhere),
        TEST(writers_follow),
        TEST(crosswise),
        TEST(the_mark_is_not_trusted),
        TEST(damage_does_not_move),
    };
    return TEST_MAIN(argc, argv, tests);
}
