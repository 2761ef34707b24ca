/* test_previous.c: the key before a rotation, for its grace and not a write longer. */
#include "store_fixture.h"

#define HOUR (3600 * SHK_SECOND)
#define FIRST "MARKER-the-first-key-of-the-pair"
#define SECOND "MARKER-the-second-key-of-the-pair"
#define THIRD "MARKER-the-third-key-of-the-pair"

static void the_old_key_is_found_by_its_id(void)
{
    shk_store *store = store_make(10, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    CHECK_CODE(put(store, "a", FIRST), 0);
    CHECK_CODE(get_by_id(reader, "a", 1, FIRST), 0);
    CHECK_CODE(get_by_id(reader, "a", 2, ""), SHK_E_ABSENT);
    CHECK_CODE(rotate(store, "a", SECOND, HOUR), 0);
    CHECK_CODE(get(reader, "a", SECOND), 0);
    CHECK_CODE(get_by_id(reader, "a", 1, FIRST), 0);
    CHECK_CODE(get_by_id(reader, "a", 2, SECOND), 0);
    CHECK_CODE(get_by_id(reader, "a", 3, ""), SHK_E_ABSENT);
    CHECK_CODE(get_by_id(reader, "b", 1, ""), SHK_E_ABSENT);
    struct shk_stats stats = store_stats(reader);
    CHECK_EQUAL(stats.records, 1);
    CHECK_EQUAL(stats.previous_keys, 1);
    /* The length of the buffer counts, and nothing is written beyond it. */
    char key[8] = "";
    size_t length = 77;
    CHECK_CODE(shk_store_get_key_by_id(reader, text("a"), SERVER, 1, key, sizeof key, &length),
               SHK_E_INVALID);
    CHECK(length == 77 && *key == 0);
    CHECK_SOUND(store);
    CHECK_SOUND(reader);
    shk_store_close(reader);
    store_end(store);
}

static void the_grace_ends(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put(store, "a", FIRST), 0);
    CHECK_CODE(rotate(store, "a", SECOND, 60 * SHK_MILLISECOND), 0);
    CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
    test_sleep(80);
    CHECK_CODE(get_by_id(store, "a", 1, ""), SHK_E_ABSENT);
    /* Its bytes go with the next purge, or by the hand. */
    uint64_t purged;
    CHECK_CODE(shk_store_purge_expired(store, &purged), 0);
    CHECK_EQUAL(purged, 1);
    CHECK(!store_holds(store, FIRST));
    CHECK_EQUAL(store_stats(store).previous_keys, 0);
    CHECK_EQUAL(store_stats(store).records, 1);
    CHECK_CODE(get(store, "a", SECOND), 0);
    CHECK_CODE(get_by_id(store, "a", 1, ""), SHK_E_ABSENT);
    CHECK_SOUND(store);
    /* The pair's record still names what has gone. */
    CHECK_CODE(rotate(store, "a", THIRD, HOUR), 0);
    CHECK_CODE(get_by_id(store, "a", 2, SECOND), 0);
    CHECK_SOUND(store);
    store_end(store);
}

static void the_hand_takes_it_too(void)
{
    shk_store *store = store_make(100, 0, 0);
    CHECK_CODE(put(store, "a", FIRST), 0);
    CHECK_CODE(rotate(store, "a", SECOND, 1), 0);
    test_sleep(20);
    for (unsigned i = 0; i < 10; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    CHECK(!store_holds(store, FIRST));
    CHECK_EQUAL(store_stats(store).previous_keys, 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* One at most: a second rotation, of either variant, wipes the one before. */
static void the_second_rotation_wipes_it(void)
{
    shk_store *store = store_make(10, 0, 0);
    char key[2][40] = {"MARKER-key-of-round-00"};
    CHECK_CODE(put(store, "a", key[0]), 0);
    for (int32_t round = 1; round < 40; round++) {
        char *new_key = key[round % 2], *old = key[(round + 1) % 2], gone[40];
        memcpy(gone, new_key, sizeof gone); /* of two rounds ago */
        (void)snprintf(new_key, sizeof key[0], "MARKER-key-of-round-%02d", round);
        CHECK_CODE(rotate(store, "a", new_key, HOUR), 0);
        CHECK(round < 2 || !store_holds(store, gone));
        CHECK_CODE(get_by_id(store, "a", round + 1, new_key), 0);
        CHECK_CODE(get_by_id(store, "a", round, old), 0);
        CHECK_CODE(get_by_id(store, "a", round - 1, ""), SHK_E_ABSENT);
        CHECK_EQUAL(store_stats(store).previous_keys, 1);
        CHECK_SOUND(store);
    }
    store_end(store);
}

static int do_put(shk_store *store)
{
    return put(store, "a", THIRD);
}
static int do_rotate(shk_store *store)
{
    return rotate(store, "a", THIRD, 0);
}
static int do_revoke(shk_store *store)
{
    return shk_store_revoke(store, text("a"), SERVER);
}
static int do_delete(shk_store *store)
{
    return drop(store, "a");
}
static int do_pop(shk_store *store)
{
    return shk_store_pop(store, text("a"), SERVER, NULL, NULL, 0);
}
static int do_clear(shk_store *store)
{
    return shk_store_clear(store, NULL);
}
static int do_delete_many(shk_store *store)
{
    struct shk_pair pair = {text("a"), SERVER};
    return shk_store_delete_many(store, &pair, 1, NULL);
}
static int do_put_many(shk_store *store)
{
    struct shk_item item = {{text("a"), SERVER}, {.key = text(THIRD), .key_id = 9}, 0};
    return shk_store_put_many(store, &item, 1);
}
static int do_rotate_again(shk_store *store)
{
    return rotate(store, "a", THIRD, HOUR);
}

static void every_write_wipes_it(void)
{
    static int (*const writes[])(shk_store *) = {do_put,   do_rotate,      do_revoke,
                                                 do_delete, do_pop,        do_clear,
                                                 do_delete_many, do_put_many, do_rotate_again};
    for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
        /* Both variants: after one rotation, and after two. */
        for (int rotations = 1; rotations <= 2; rotations++) {
            shk_store *store = store_make(10, 0, 0);
            CHECK_CODE(put(store, "a", FIRST), 0);
            CHECK_CODE(rotate(store, "a", SECOND, HOUR), 0);
            if (rotations == 2)
                CHECK_CODE(rotate(store, "a", FIRST "-anew", HOUR), 0);
            const char *gone = rotations == 1 ? FIRST : SECOND;
            CHECK(store_holds(store, gone));
            CHECK_CODE(writes[i](store), 0);
            CHECK(!store_holds(store, gone));
            CHECK_EQUAL(store_stats(store).previous_keys, writes[i] == do_rotate_again);
            CHECK_CODE(shk__load(&shk__journal(store)->previous[0]) != 0, 0);
            CHECK_CODE(shk__load(&shk__journal(store)->previous[1]) != 0, 0);
            CHECK_SOUND(store);
            store_end(store);
        }
    }
}

static void it_stays_beside_touch_and_other_pairs(void)
{
    shk_store *store = store_make(40, 0, 0);
    CHECK_CODE(put(store, "a", FIRST), 0);
    CHECK_CODE(rotate(store, "a", SECOND, HOUR), 0);
    CHECK_CODE(shk_store_touch(store, text("a"), SERVER, 0), 0);
    CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
    CHECK_CODE(shk_store_touch(store, text("a"), SERVER, HOUR), 0);
    CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
    for (unsigned i = 0; i < 20; i++) {
        CHECK_CODE(put(store, numbered(i), "key"), 0);
        CHECK_CODE(rotate(store, numbered(i), "new", i % 2 ? HOUR : 0), 0);
        if (i % 4 == 3)
            CHECK_CODE(drop(store, numbered(i)), 0);
    }
    CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
    CHECK_EQUAL(store_stats(store).previous_keys, 6);
    CHECK_SOUND(store);
    /* A write that was refused leaves it. */
    CHECK_CODE(put_with(store, "a", "x", (struct shk_put){.condition = SHK_IF_ABSENT}),
               SHK_E_EXISTS);
    CHECK_CODE(put_with(store, "a", "x",
                        (struct shk_put){.condition = SHK_IF_KEY_ID, .if_key_id = 1}),
               SHK_E_CONFLICT);
    CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
    store_end(store);
}

/* It goes with its pair when that expires. */
static void it_expires_with_its_pair(void)
{
    shk_store *store = store_make(10, 0, 0);
    uint64_t purged;
    CHECK_CODE(put_for(store, "a", FIRST, 50 * SHK_MILLISECOND), 0);
    CHECK_CODE(rotate(store, "a", SECOND, HOUR), 0);
    test_sleep(70);
    CHECK_CODE(get_by_id(store, "a", 1, ""), SHK_E_EXPIRED);
    CHECK_CODE(shk_store_purge_expired(store, &purged), 0);
    CHECK(!store_holds(store, FIRST) && !store_holds(store, SECOND));
    CHECK_EQUAL(store_stats(store).records + store_stats(store).previous_keys, 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* It takes room: without any the rotation fails and nothing is changed. */
static void full_with_a_grace(void)
{
    enum { CAPACITY = 8 };
    shk_store *store = store_make(CAPACITY, 0, 0);
    for (unsigned i = 0; i < CAPACITY - 1; i++)
        CHECK_CODE(put(store, numbered(i), FIRST), 0);
    CHECK_CODE(rotate(store, "c0", SECOND, HOUR), 0); /* the last room */
    CHECK_CODE(rotate(store, "c1", SECOND, HOUR), SHK_E_FULL);
    CHECK(strstr(shk_error_detail(), "previous"));
    CHECK_CODE(get(store, "c1", FIRST), 0);
    CHECK_CODE(rotate(store, "c0", THIRD, HOUR), SHK_E_FULL);
    CHECK_CODE(get(store, "c0", SECOND), 0);
    CHECK_CODE(get_by_id(store, "c0", 1, FIRST), 0); /* what it had stays */
    CHECK_CODE(put(store, "new", "key"), SHK_E_FULL);
    CHECK_SOUND(store);
    CHECK_CODE(rotate(store, "c1", SECOND, 0), 0);
    CHECK_CODE(rotate(store, "c0", THIRD, 0), 0); /* gives room back */
    CHECK_CODE(put(store, "new", "key"), 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* A full store of expired previous keys is swept, for a rotation and for an insert. */
static void expired_graces_give_room(void)
{
    enum { PAIRS = 6 };
    shk_store *store = store_make(2 * PAIRS, 0, 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        CHECK_CODE(put(store, numbered(i), FIRST), 0);
        CHECK_CODE(rotate(store, numbered(i), SECOND, 1), 0);
    }
    test_sleep(10);
    CHECK_CODE(rotate(store, "c0", THIRD, HOUR), 0);
    CHECK(!store_holds(store, FIRST));
    CHECK_EQUAL(store_stats(store).previous_keys, 1);
    for (unsigned i = 0; i < PAIRS - 1; i++)
        CHECK_CODE(put(store, numbered(100 + i), "key"), 0);
    CHECK_CODE(put(store, "too many", "key"), SHK_E_FULL);
    CHECK_SOUND(store);
    store_end(store);
}

static void revoked_and_expired_pairs_give_none(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put(store, "a", FIRST), 0);
    CHECK_CODE(rotate(store, "a", SECOND, HOUR), 0);
    CHECK_CODE(do_revoke(store), 0);
    CHECK_CODE(get_by_id(store, "a", 1, ""), SHK_E_REVOKED);
    CHECK_CODE(get_by_id(store, "a", 2, ""), SHK_E_REVOKED);
    CHECK_CODE(rotate(store, "a", THIRD, HOUR), SHK_E_REVOKED);
    CHECK_CODE(put(store, "a", THIRD), 0);
    CHECK_CODE(get_by_id(store, "a", 1, ""), SHK_E_ABSENT);
    CHECK_SOUND(store);
    store_end(store);
}

/* Whole words of the journal that name anything are harmless, and settled by the next write. */
static void settling_checks_what_is_named(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put(store, "a", FIRST), 0);
    CHECK_CODE(put(store, "b", "key"), 0);
    CHECK_CODE(rotate(store, "a", SECOND, HOUR), 0);
    const uint64_t entries = (uint64_t)store->geometry.buckets * SHK_WAYS;
    for (uint64_t named = 1; named <= entries; named++) {
        for (int variant = 0; variant < 2; variant++) {
            shk__journal(store)->previous[variant] = named;
            CHECK_SOUND(store);
            CHECK_EQUAL(shk__journal(store)->previous[variant], 0);
            CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
            CHECK_CODE(get_by_id(store, "a", 3, SECOND), 0);
            CHECK_CODE(get(store, "b", "key"), 0);
        }
    }
    shk__journal(store)->previous[1] = entries + 1;
    CHECK_CODE(put(store, "b", "x"), SHK_E_CORRUPT);
    CHECK(strstr(shk_error_detail(), "journal"));
    struct shk_repair_report report;
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_CODE(get_by_id(store, "a", 1, FIRST), 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* The id that callers ask for is found at any moment of its life, beside rotations. */
static void readers_beside_rotations(void)
{
    shk_store *store = store_make(10, 0, 0);
    uint32_t *stop = test_shared(sizeof *stop);
    CHECK_CODE(put_with(store, "a", "1", (struct shk_put){.key_id = 1}), 0);
    pid_t writer = test_fork();
    if (writer == 0) {
        char key[12];
        for (int32_t id = 2; !__atomic_load_n(stop, __ATOMIC_ACQUIRE); id++) {
            (void)snprintf(key, sizeof key, "%d", id);
            CHECK_CODE(rotate(store, "a", key, HOUR), 0);
        }
        exit(0);
    }
    shk_store *reader = store_again(store, &store_reading);
    uint64_t found = 0, until = shk__monotonic() + (is_long() ? 10 : 1) * SHK_SECOND;
    while (shk__monotonic() < until) {
        char key[40], expected[40];
        struct shk_record about;
        size_t length = 0;
        CHECK_CODE(shk_store_record(reader, text("a"), SERVER, &about, key, sizeof key), 0);
        int rc = shk_store_get_key_by_id(reader, text("a"), SERVER, about.key_id, key, sizeof key,
                                         &length);
        if (rc == 0) {
            int size = snprintf(expected, sizeof expected, "%d", about.key_id);
            CHECK(length == (size_t)size && memcmp(key, expected, length) == 0);
            found++;
        } else { /* two rotations since */
            CHECK_CODE(rc, SHK_E_ABSENT);
            CHECK(record_of(reader, "a").key_id > about.key_id + 1);
        }
    }
    __atomic_store_n(stop, 1, __ATOMIC_RELEASE);
    test_join(writer);
    CHECK(found > 0);
    CHECK_SOUND(store);
    shk_store_close(reader);
    store_end(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(the_old_key_is_found_by_its_id),
        TEST(the_grace_ends),
        TEST(the_hand_takes_it_too),
        TEST(the_second_rotation_wipes_it),
        TEST(every_write_wipes_it),
        TEST(it_stays_beside_touch_and_other_pairs),
        TEST(it_expires_with_its_pair),
        TEST(full_with_a_grace),
        TEST(expired_graces_give_room),
        TEST(revoked_and_expired_pairs_give_none),
        TEST(settling_checks_what_is_named),
        TEST(readers_beside_rotations),
    };
    return TEST_MAIN(argc, argv, tests);
}
