/* test_conditions.c: puts with a condition, key ids, touch and pop: what one write to one
 * pair promises beside the write itself. */
#include "store_fixture.h"

#define PAST 1

static int put_if(shk_store *store, const char *client, enum shk_condition condition, int32_t id)
{
    return put_with(store, client, "new",
                    (struct shk_put){.condition = condition, .if_key_id = id});
}

static void if_absent(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_ABSENT, 0), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_ABSENT, 0), SHK_E_EXISTS);
    CHECK(strstr(shk_error_detail(), "key id 1"));
    CHECK_CODE(shk_store_revoke(store, text("a"), SERVER), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_ABSENT, 0), SHK_E_EXISTS);
    CHECK_CODE(get(store, "a", ""), SHK_E_REVOKED);
    CHECK_CODE(drop(store, "a"), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_ABSENT, 0), 0);
    CHECK_CODE(put_with(store, "b", "old", (struct shk_put){.expires = PAST}), 0);
    CHECK_CODE(put_if(store, "b", SHK_IF_ABSENT, 0), 0); /* expired is absent */
    CHECK_CODE(get(store, "b", "new"), 0);
    CHECK_SOUND(store);
    store_end(store);
}

static void if_key_id(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_KEY_ID, 1), SHK_E_CONFLICT);
    CHECK_CODE(get(store, "a", ""), SHK_E_ABSENT);
    CHECK_CODE(put(store, "a", "old"), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_KEY_ID, 2), SHK_E_CONFLICT);
    CHECK(strstr(shk_error_detail(), "key id is 1, not 2"));
    CHECK_CODE(get(store, "a", "old"), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_KEY_ID, 1), 0);
    CHECK_CODE(get(store, "a", "new"), 0);
    int32_t id = record_of(store, "a").key_id;
    CHECK_CODE(shk_store_revoke(store, text("a"), SERVER), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_KEY_ID, id), 0); /* put brings it back */
    CHECK_CODE(get(store, "a", "new"), 0);
    CHECK_CODE(put_with(store, "b", "old", (struct shk_put){.expires = PAST, .key_id = 77}), 0);
    CHECK_CODE(put_if(store, "b", SHK_IF_KEY_ID, 77), SHK_E_CONFLICT);
    CHECK_CODE(drop(store, "a"), 0);
    CHECK_CODE(put_if(store, "a", SHK_IF_KEY_ID, id + 1), SHK_E_CONFLICT);
    CHECK_SOUND(store);
    store_end(store);
}

/* A store without room still knows that a condition does not hold. */
static void conditions_come_before_room(void)
{
    shk_store *store = store_make(2, 0, 0);
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_CODE(put(store, "b", "key"), 0);
    CHECK_CODE(put_if(store, "c", SHK_IF_KEY_ID, 1), SHK_E_CONFLICT);
    CHECK_CODE(put_if(store, "c", SHK_IF_ABSENT, 0), SHK_E_FULL);
    CHECK_CODE(put_if(store, "a", SHK_IF_ABSENT, 0), SHK_E_EXISTS);
    CHECK_CODE(put_if(store, "a", SHK_IF_KEY_ID, 1), 0);
    /* And reclaims nothing where it does not hold. */
    CHECK_CODE(put_with(store, "b", "key", (struct shk_put){.expires = PAST}), 0);
    CHECK_CODE(put_if(store, "c", SHK_IF_KEY_ID, 1), SHK_E_CONFLICT);
    CHECK_EQUAL(store_stats(store).reclaimed, 0);
    store_end(store);
}

/* What was refused has changed nothing, not even the counter of key ids. */
static void refusals_change_nothing(void)
{
    shk_store *store = store_make(4, 0, 0);
    size_t size = store->geometry.total_size;
    char *before = malloc(size), key[8];
    struct shk_record about;
    struct shk_put bad = {.key = text("x"), .key_id = -2};
    CHECK(before);
    for (unsigned i = 0; i < 4; i++)
        CHECK_CODE(put(store, numbered(i), "a longer key"), 0);
    CHECK_CODE(shk_store_revoke(store, text("c3"), SERVER), 0);
    /* The wake that the last write may owe comes with the next call, a coarse tick later. */
    usleep(20000);
    CHECK_CODE(put(store, "new", "key"), SHK_E_FULL);
    memcpy(before, store->base, size);
    CHECK_CODE(put(store, "new", "key"), SHK_E_FULL);
    CHECK_CODE(put_if(store, "c0", SHK_IF_ABSENT, 0), SHK_E_EXISTS);
    CHECK_CODE(put_if(store, "c0", SHK_IF_KEY_ID, 9), SHK_E_CONFLICT);
    CHECK_CODE(put_if(store, "new", SHK_IF_KEY_ID, 9), SHK_E_CONFLICT);
    CHECK_CODE(drop(store, "new"), SHK_E_ABSENT);
    CHECK_CODE(shk_store_touch(store, text("new"), SERVER, 1), SHK_E_ABSENT);
    CHECK_CODE(shk_store_touch(store, text("c3"), SERVER, 1), SHK_E_REVOKED);
    CHECK_CODE(rotate(store, "c3", "key", 0), SHK_E_REVOKED);
    CHECK_CODE(shk_store_revoke(store, text("c3"), SERVER), 0); /* revoked already */
    CHECK_CODE(shk_store_revoke(store, text("new"), SERVER), SHK_E_ABSENT);
    CHECK_CODE(shk_store_pop(store, text("new"), SERVER, NULL, NULL, 0), SHK_E_ABSENT);
    CHECK_CODE(shk_store_pop(store, text("c0"), SERVER, &about, key, sizeof key), SHK_E_INVALID);
    CHECK_CODE(shk_store_put(store, text("c0"), SERVER, &bad, NULL), SHK_E_INVALID);
    CHECK_CODE(shk_store_rotate(store, text("c0"), SERVER,
                                &(struct shk_rotation){.conditional = true, .if_key_id = 7}, &about,
                                key, sizeof key),
               SHK_E_CONFLICT);
    CHECK(memcmp(before, store->base, size) == 0);
    free(before);
    store_end(store);
}

static void key_ids_are_drawn_once_for_the_store(void)
{
    shk_store *store = store_make(10, 0, 0);
    struct shk_put next = {.key = text("key"), .key_id = SHK_KEY_ID_NEXT};
    struct shk_put explicit = {.key = text("key"), .key_id = 500};
    int32_t id = -7;
    CHECK_CODE(shk_store_put(store, text("a"), SERVER, &next, &id), 0);
    CHECK_EQUAL(id, 1);
    CHECK_CODE(shk_store_put(store, text("b"), SERVER, &next, &id), 0);
    CHECK_EQUAL(id, 2);
    CHECK_CODE(shk_store_put(store, text("c"), SERVER, &explicit, &id), 0);
    CHECK_EQUAL(id, 500);
    CHECK_CODE(rotate(store, "a", "key", 0), 0);
    CHECK_EQUAL(record_of(store, "a").key_id, 501);
    explicit.key_id = 0; /* smaller ones are taken as they are, and move nothing */
    CHECK_CODE(shk_store_put(store, text("d"), SERVER, &explicit, &id), 0);
    CHECK_EQUAL(id, 0);
    CHECK_CODE(drop(store, "a"), 0);
    CHECK_CODE(shk_store_put(store, text("a"), SERVER, &next, &id), 0);
    CHECK_EQUAL(id, 502);
    explicit.key_id = INT32_MAX;
    CHECK_CODE(shk_store_put(store, text("b"), SERVER, &explicit, &id), 0);
    CHECK_CODE(shk_store_put(store, text("b"), SERVER, &next, &id), SHK_E_EXHAUSTED);
    CHECK_CODE(rotate(store, "a", "key", SHK_SECOND), SHK_E_EXHAUSTED);
    CHECK_EQUAL(id, INT32_MAX);
    CHECK_SOUND(store);
    store_end(store);
}

/* A counter as no writer can have left it draws no id a second time. */
static void a_damaged_counter_is_exhausted(void)
{
    static const uint64_t counters[] = {UINT64_MAX, INT32_MAX, (uint64_t)INT32_MAX + 1,
                                        UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        shk_store *store = store_make(10, 0, 0);
        shk__ledger(store)->last_key_id = counters[i];
        CHECK_CODE(put(store, "a", "key"), SHK_E_EXHAUSTED);
        struct shk_item item = {{text("a"), SERVER}, {.key = text("k"), .key_id = -1}, 0};
        CHECK_CODE(shk_store_put_many(store, &item, 1), SHK_E_EXHAUSTED);
        struct shk_repair_report report;
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_CODE(put(store, "a", "key"), counters[i] == INT32_MAX ? SHK_E_EXHAUSTED : 0);
        store_end(store);
    }
}

static void touch_counts_anew(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put_for(store, "a", "key", 50 * SHK_MILLISECOND), 0);
    struct shk_record before = record_of(store, "a");
    CHECK_CODE(shk_store_touch(store, text("a"), SERVER, 3600 * SHK_SECOND), 0);
    struct shk_record after = record_of(store, "a");
    CHECK(after.expires > before.expires + 3000 * SHK_SECOND);
    CHECK(after.updated >= before.updated && after.key_id == before.key_id);
    test_sleep(70);
    CHECK_CODE(get(store, "a", "key"), 0);
    CHECK_CODE(shk_store_touch(store, text("a"), SERVER, 0), 0);
    CHECK_EQUAL(record_of(store, "a").expires, 0);
    CHECK_CODE(shk_store_touch(store, text("a"), SERVER, 1), 0);
    test_sleep(20);
    CHECK_CODE(shk_store_touch(store, text("a"), SERVER, SHK_SECOND), SHK_E_EXPIRED);
    CHECK_CODE(rotate(store, "a", "new", 0), SHK_E_EXPIRED);
    CHECK_SOUND(store);
    store_end(store);
}

/* The date of a rotation that keeps the time to live, and of a revocation. */
static void expires_stays_beside_rotation_and_revocation(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put_for(store, "a", "key", 3600 * SHK_SECOND), 0);
    uint64_t expires = record_of(store, "a").expires;
    CHECK_CODE(rotate(store, "a", "new", 0), 0);
    CHECK(record_of(store, "a").expires == expires);
    CHECK_CODE(rotate(store, "a", "newer", SHK_SECOND), 0);
    CHECK(record_of(store, "a").expires == expires);
    CHECK_CODE(shk_store_revoke(store, text("a"), SERVER), 0);
    CHECK(record_of(store, "a").expires == expires);
    store_end(store);
}

static void pop_tells_what_was_there(void)
{
    shk_store *store = store_make(10, 0, 0);
    struct shk_record about = {.key_id = -1};
    char key[128] = "untouched";
    CHECK_CODE(put(store, "a", "SECRET-that-is-popped"), 0);
    CHECK_CODE(shk_store_pop(store, text("a"), SERVER, &about, key, sizeof key), 0);
    CHECK(about.key_length == 21 && memcmp(key, "SECRET-that-is-popped", 21) == 0);
    CHECK_EQUAL(about.key_id, 1);
    CHECK(!store_holds(store, "SECRET-that-is-popped"));
    CHECK_CODE(shk_store_pop(store, text("a"), SERVER, &about, key, sizeof key), SHK_E_ABSENT);

    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_CODE(shk_store_revoke(store, text("a"), SERVER), 0);
    CHECK_CODE(shk_store_pop(store, text("a"), SERVER, &about, NULL, 0), 0);
    CHECK_EQUAL(about.status, SHK_REVOKED);

    CHECK_CODE(put_with(store, "a", "SECRET-expired", (struct shk_put){.expires = PAST}), 0);
    about.key_id = -1;
    memset(key, 0, sizeof key);
    CHECK_CODE(shk_store_pop(store, text("a"), SERVER, &about, key, sizeof key), SHK_E_EXPIRED);
    CHECK(about.key_id == -1 && *key == 0);
    CHECK_CODE(get(store, "a", ""), SHK_E_ABSENT); /* deleted all the same */
    CHECK(!store_holds(store, "SECRET-expired"));
    CHECK_SOUND(store);
    store_end(store);
}

/* Compare-and-put by many processes: each increment counts once, whoever is killed. */
static void increments_are_not_lost(void)
{
    enum { PROCESSES = 8, INCREMENTS = 300 };
    shk_store *store = store_make(10, 0, 0);
    pid_t pids[PROCESSES];
    CHECK_CODE(put(store, "counter", "0"), 0);
    for (unsigned p = 0; p < PROCESSES; p++) {
        pids[p] = test_fork();
        if (pids[p] != 0)
            continue;
        for (unsigned done = 0; done < INCREMENTS;) {
            char key[130] = "";
            struct shk_record about;
            CHECK_CODE(shk_store_record(store, text("counter"), SERVER, &about, key, 128), 0);
            (void)snprintf(key, sizeof key, "%d", atoi(key) + 1);
            int rc = put_with(store, "counter", key,
                              (struct shk_put){.condition = SHK_IF_KEY_ID,
                                               .if_key_id = about.key_id});
            CHECK(rc == 0 || rc == SHK_E_CONFLICT);
            done += rc == 0;
        }
        exit(0);
    }
    for (unsigned p = 0; p < PROCESSES; p++)
        test_join(pids[p]);
    CHECK_CODE(get(store, "counter", "2400"), 0);
    CHECK_SOUND(store);
    store_end(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(if_absent),
        TEST(if_key_id),
        TEST(conditions_come_before_room),
        TEST(refusals_change_nothing),
        TEST(key_ids_are_drawn_once_for_the_store),
        TEST(a_damaged_counter_is_exhausted),
        TEST(touch_counts_anew),
        TEST(expires_stays_beside_rotation_and_revocation),
        TEST(pop_tells_what_was_there),
        TEST(increments_are_not_lost),
    };
    return TEST_MAIN(argc, argv, tests);
}
