/* test_batch.c: many operations at once, imports too: all or none, for whatever reason, and
 * what a kill leaves; lookups that overlap, and copies of all records. */
#include "test.h"

#include "store.h"

#define MANY 12000u

static struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

static shk_store *make(uint64_t capacity)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {.capacity = capacity, .mode = 0600};
    struct shk_access access = {.open_timeout = 1000000000, .lock_timeout = 5000000000};
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
        CHECK_EQUAL(report.faults[i], 0);
}

static struct shk_stats stats(const shk_store *store)
{
    struct shk_stats stats;
    CHECK_CODE(shk_store_stats(store, &stats), 0);
    return stats;
}

/* One key, put under many names. */
static struct shk_item item(const char *client, const char *key)
{
    return (struct shk_item){.pair = {text(client), text("s")},
                             .what = {.key = text(key), .key_id = SHK_KEY_ID_NEXT}};
}

static int put(shk_store *store, const char *client, const char *key, uint64_t ttl)
{
    struct shk_put what = {.key = text(key), .key_id = SHK_KEY_ID_NEXT, .ttl = ttl};
    return shk_store_put(store, text(client), text("s"), &what, NULL);
}

static void check_key(const shk_store *store, const char *client, const char *expected)
{
    char key[129] = {0};
    size_t length = 0;
    int rc = shk_store_get_key(store, text(client), text("s"), key, 128, &length);
    if (!expected) {
        CHECK_CODE(rc, SHK_E_ABSENT);
        return;
    }
    CHECK_CODE(rc, 0);
    CHECK(length == strlen(expected) && memcmp(key, expected, length) == 0);
}

/* The batch fails so, and nobody can tell that it was tried. */
static void check_refused(shk_store *store, struct shk_item *items, size_t count, int code)
{
    struct shk_stats before = stats(store);
    CHECK_CODE(shk_store_put_many(store, items, count), code);
    struct shk_stats after = stats(store);
    CHECK_EQUAL(after.revision, before.revision);
    CHECK_EQUAL(after.records, before.records);
    CHECK_EQUAL(after.last_key_id, before.last_key_id);
}

/* ------------------------------------------------------------------- room -- */

static void a_pair_that_comes_twice_needs_room_once(void)
{
    shk_store *store = make(4);
    CHECK_CODE(put(store, "old-1", "1", 0), 0);
    CHECK_CODE(put(store, "old-2", "2", 0), 0);
    struct shk_item items[] = {item("a", "A1"), item("old-1", "1+"), item("b", "B1"),
                               item("a", "A2"), item("b", "B2"),     item("c", "C")};
    check_refused(store, items, 6, SHK_E_FULL);
    CHECK(strstr(shk_error_detail(), "3 of the 6 pairs are new and the store has room for 2"));
    check_key(store, "old-1", "1");
    check_key(store, "a", NULL);
    CHECK_CODE(shk_store_put_many(store, items, 5), 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(items[i].key_id, 3 + i);
    check_key(store, "a", "A2"); /* the last one counts */
    check_key(store, "b", "B2");
    check_key(store, "old-1", "1+");
    check_key(store, "old-2", "2");
    CHECK_EQUAL(stats(store).records, 4);
    check_sound(store);
    shk_store_close(store);
}

/* Ids that only their length tells apart are different pairs. */
static void prefixes_are_other_pairs(void)
{
    shk_store *store = make(3);
    struct shk_item items[] = {item("a", "1"), item("aa", "2"), item("aaa", "3"), item("aa", "4")};
    CHECK_CODE(shk_store_put_many(store, items, 4), 0);
    struct shk_item more[] = {item("a", "5"), item("ab", "6")};
    check_refused(store, more, 2, SHK_E_FULL);
    shk_store_close(store);
}

static void expired_records_make_room(void)
{
    shk_store *store = make(4);
    CHECK_CODE(put(store, "stays", "s", 0), 0);
    CHECK_CODE(put(store, "gone-1", "1", 1), 0);
    CHECK_CODE(put(store, "gone-2", "2", 1), 0);
    CHECK_CODE(put(store, "gone-3", "3", 1), 0);
    test_sleep(20);
    /* One of the expired pairs is in the batch: it takes the room that it gives back. */
    struct shk_item items[] = {item("new-1", "A"), item("gone-2", "B"), item("new-2", "C"),
                               item("new-3", "D")};
    struct shk_stats before = stats(store);
    CHECK_CODE(shk_store_put_many(store, items, 4), SHK_E_FULL);
    CHECK_EQUAL(stats(store).last_key_id, before.last_key_id);
    check_key(store, "new-1", NULL);
    check_key(store, "stays", "s");
    CHECK_CODE(shk_store_put_many(store, items, 3), 0);
    check_key(store, "gone-2", "B");
    check_key(store, "new-2", "C");
    CHECK_EQUAL(stats(store).records, 4);
    check_sound(store);
    shk_store_close(store);
}

static void previous_keys_take_room(void)
{
    shk_store *store = make(3);
    struct shk_rotation how = {.new_key = text("new"), .grace = UINT64_C(3600000000000)};
    struct shk_record about;
    char key[128];
    CHECK_CODE(put(store, "a", "old", 0), 0);
    CHECK_CODE(shk_store_rotate(store, text("a"), text("s"), &how, &about, key, 128), 0);
    struct shk_item items[] = {item("b", "B"), item("c", "C")};
    check_refused(store, items, 2, SHK_E_FULL);
    CHECK_CODE(shk_store_put_many(store, items, 1), 0);
    check_sound(store);
    shk_store_close(store);
}

/* -------------------------------------------------------- what is refused -- */

static void invalid_items_stop_the_whole_batch(void)
{
    shk_store *store = make(100);
    char longest[256];
    memset(longest, 'x', sizeof longest);
    struct shk_item bad[9];
    for (int i = 0; i < 9; i++)
        bad[i] = item("bad", "key");
    bad[0].pair.client.size = 0;
    bad[1].pair.client = (struct shk_bytes){longest, 12};
    bad[2].pair.server = (struct shk_bytes){"a\0b", 3};
    bad[3].what.key.size = 0;
    bad[4].what.key = (struct shk_bytes){longest, 129};
    bad[5].what.status = 2;
    bad[6].what.key_id = -2;
    bad[7].what.condition = SHK_IF_ABSENT;
    bad[8].what.condition = SHK_IF_KEY_ID;
    for (int i = 0; i < 9; i++) {
        struct shk_item items[] = {item("good", "key"), bad[i]};
        check_refused(store, items, 2, SHK_E_INVALID);
        CHECK_CODE(shk_store_check_item(store, &bad[i]), SHK_E_INVALID);
        CHECK_CODE(shk_store_check_item(store, &items[0]), 0);
        check_key(store, "good", NULL);
    }
    CHECK_CODE(put(store, "a", "A", 0), 0);
    struct shk_pair pairs[] = {{text("a"), text("s")}, bad[2].pair};
    uint64_t deleted = 99;
    CHECK_CODE(shk_store_delete_many(store, pairs, 2, &deleted), SHK_E_INVALID);
    CHECK_EQUAL(deleted, 99);
    check_key(store, "a", "A");
    CHECK_CODE(shk_store_put_many(store, NULL, 0), 0);
    shk_store_close(store);
}

static void key_ids_suffice_for_all_or_none_is_drawn(void)
{
    shk_store *store = make(100);
    struct shk_item first = item("first", "key");
    first.what.key_id = INT32_MAX - 2;
    CHECK_CODE(shk_store_put_many(store, &first, 1), 0);
    struct shk_item items[] = {item("a", "A"), item("b", "B"), item("c", "C")};
    check_refused(store, items, 3, SHK_E_EXHAUSTED);
    check_key(store, "a", NULL);

    struct shk_item jump[] = {item("a", "A"), item("b", "B")};
    jump[0].what.key_id = INT32_MAX;
    check_refused(store, jump, 2, SHK_E_EXHAUSTED); /* the second would be one too high */
    jump[0].what.key_id = SHK_KEY_ID_NEXT;
    jump[1].what.key_id = 5; /* behind the counter: takes nothing from it */
    CHECK_CODE(shk_store_put_many(store, jump, 2), 0);
    CHECK_EQUAL(jump[0].key_id, INT32_MAX - 1);
    CHECK_EQUAL(jump[1].key_id, 5);
    CHECK_CODE(shk_store_put_many(store, &items[2], 1), 0);
    CHECK_EQUAL(items[2].key_id, INT32_MAX);
    check_refused(store, items, 1, SHK_E_EXHAUSTED);
    shk_store_close(store);
}

/* ---------------------------------------------------------------- import -- */

/* A store with two of the three pairs, one revoked, and one that has expired. */
static shk_store *make_with_some(struct shk_item *items)
{
    shk_store *store = make(4);
    CHECK_CODE(put(store, "a", "newer", 0), 0);
    CHECK_CODE(put(store, "b", "newer", 0), 0);
    CHECK_CODE(shk_store_revoke(store, text("b"), text("s")), 0);
    CHECK_CODE(put(store, "x", "expired", 1), 0);
    test_sleep(20);
    items[0] = item("a", "A");
    items[1] = item("b", "B");
    items[2] = item("c", "C");
    items[3] = item("x", "X");
    for (int i = 0; i < 4; i++)
        items[i].what.key_id = 10 + i;
    return store;
}

static void an_import_refuses_what_is_there(void)
{
    struct shk_item items[4];
    shk_store *store = make_with_some(items);
    struct shk_stats before = stats(store);
    uint64_t written = 99;
    CHECK_CODE(shk_store_import(store, items, 4, SHK_PRESENT_REFUSE, 70, &written), SHK_E_EXISTS);
    CHECK(strstr(shk_error_detail(), "2 of the 4 pairs are there already"));
    struct shk_stats after = stats(store);
    CHECK_EQUAL(after.revision, before.revision);
    CHECK_EQUAL(after.last_key_id, before.last_key_id);
    CHECK_EQUAL(written, 99);
    CHECK_CODE(shk_store_import(store, items + 2, 2, SHK_PRESENT_REFUSE, 70, &written), 0);
    CHECK_EQUAL(written, 2);
    CHECK_EQUAL(stats(store).last_key_id, 70);
    check_key(store, "c", "C");
    check_key(store, "x", "X");
    check_key(store, "a", "newer");
    check_sound(store);
    shk_store_close(store);
}

static void an_import_keeps_or_replaces_what_is_there(void)
{
    for (int keep = 0; keep < 2; keep++) {
        struct shk_item items[4];
        shk_store *store = make_with_some(items);
        uint64_t written = 0;
        enum shk_present present = keep ? SHK_PRESENT_KEEP : SHK_PRESENT_REPLACE;
        CHECK_CODE(shk_store_import(store, items, 4, present, 0, &written), 0);
        CHECK_EQUAL(written, keep ? 2 : 4);
        check_key(store, "a", keep ? "newer" : "A");
        check_key(store, "c", "C");
        check_key(store, "x", "X");
        struct shk_record about;
        CHECK_CODE(shk_store_record(store, text("b"), text("s"), &about, NULL, 0), 0);
        CHECK_EQUAL(about.status, keep ? SHK_REVOKED : SHK_VALID);
        CHECK_EQUAL(stats(store).records, 4);
        CHECK_EQUAL(stats(store).last_key_id, 13);
        check_sound(store);
        shk_store_close(store);
    }
}

static void an_import_needs_room_and_ids_for_all(void)
{
    struct shk_item items[6];
    shk_store *store = make_with_some(items);
    items[4] = item("d", "D");
    items[5] = item("e", "E");
    struct shk_stats before = stats(store);
    CHECK_CODE(shk_store_import(store, items, 6, SHK_PRESENT_KEEP, 70, NULL), SHK_E_FULL);
    /* The two that draw their ids would draw beyond the last. */
    CHECK_CODE(shk_store_import(store, items + 4, 1, SHK_PRESENT_KEEP, INT32_MAX, NULL),
               SHK_E_EXHAUSTED);
    CHECK_EQUAL(stats(store).last_key_id, before.last_key_id);
    check_key(store, "d", NULL);
    items[3].what.condition = SHK_IF_ABSENT;
    CHECK_CODE(shk_store_import(store, items, 4, SHK_PRESENT_KEEP, 0, NULL), SHK_E_INVALID);
    CHECK_CODE(shk_store_import(store, NULL, 0, SHK_PRESENT_REFUSE, INT32_MAX, NULL), 0);
    CHECK_EQUAL(stats(store).last_key_id, INT32_MAX);
    shk_store_close(store);
}

static void an_import_has_its_own_dates(void)
{
    shk_store *store = make(4);
    struct shk_item old = item("a", "A");
    struct shk_record about;
    old.what.updated = 12345;
    old.what.expires = UINT64_MAX - 1;
    CHECK_CODE(shk_store_import(store, &old, 1, SHK_PRESENT_REFUSE, 0, NULL), 0);
    CHECK_CODE(shk_store_record(store, text("a"), text("s"), &about, NULL, 0), 0);
    CHECK_EQUAL(about.updated, 12345);
    CHECK_EQUAL(about.expires, UINT64_MAX - 1);
    CHECK_CODE(put(store, "a", "B", 0), 0);
    CHECK_CODE(shk_store_record(store, text("a"), text("s"), &about, NULL, 0), 0);
    CHECK(about.updated > 12345);
    shk_store_close(store);
}

/* -------------------------------------------------------------- deleting -- */

static void deleting_counts_what_was_there(void)
{
    shk_store *store = make(10);
    CHECK_CODE(put(store, "a", "A", 0), 0);
    CHECK_CODE(put(store, "b", "B", 1), 0);
    CHECK_CODE(put(store, "c", "C", 0), 0);
    test_sleep(20);
    struct shk_pair pairs[] = {{text("a"), text("s")}, {text("x"), text("s")},
                               {text("b"), text("s")}, {text("a"), text("s")}};
    uint64_t deleted = 0;
    CHECK_CODE(shk_store_delete_many(store, pairs, 4, &deleted), 0);
    CHECK_EQUAL(deleted, 2);
    CHECK_EQUAL(stats(store).records, 1);
    check_key(store, "c", "C");
    CHECK_CODE(shk_store_delete_many(store, pairs, 4, NULL), 0);
    check_sound(store);
    shk_store_close(store);
}

/* ------------------------------------------------------------------ kills -- */

static char names[MANY][12];

static void put_all(shk_store *store, const char *key)
{
    static struct shk_item items[MANY];
    for (size_t i = 0; i < MANY; i++)
        items[i] = item(names[i], key);
    CHECK_CODE(shk_store_put_many(store, items, MANY), 0);
}

static void delete_all(shk_store *store)
{
    static struct shk_pair pairs[MANY];
    for (size_t i = 0; i < MANY; i++)
        pairs[i] = (struct shk_pair){text(names[i]), text("s")};
    CHECK_CODE(shk_store_delete_many(store, pairs, MANY, NULL), 0);
}

/* Of a batch a child is killed in: how many of its items were done, which are the first. */
static size_t done_when_killed(shk_store *store, const char *before, const char *key, unsigned wait)
{
    uint32_t *step = test_shared(sizeof *step);
    uint64_t revision = stats(store).revision;
    pid_t pid = test_fork();
    if (pid == 0) {
        test_step(step);
        if (key)
            put_all(store, key);
        else
            delete_all(store);
        exit(0);
    }
    test_await(step, 1);
    bool has_ended = false;
    while (!has_ended && stats(store).revision < revision + wait)
        has_ended = waitpid(pid, NULL, WNOHANG) == pid;
    if (!has_ended)
        test_kill(pid);
    CHECK_CODE(put(store, "next", "N", 0), 0); /* the next writer recovers */
    check_sound(store);
    size_t done = 0;
    for (size_t i = 0; i < MANY; i++) {
        char found[129] = {0};
        size_t length = 0;
        int rc = shk_store_get_key(store, text(names[i]), text("s"), found, 128, &length);
        CHECK(rc == 0 || rc == SHK_E_ABSENT);
        const char *shown = rc == 0 ? found : NULL;
        bool is_new = key ? shown && strcmp(shown, key) == 0 : !shown;
        bool is_old = before ? shown && strcmp(shown, before) == 0 : !shown;
        CHECK(is_new || is_old);
        if (is_new) {
            CHECK_EQUAL(i, done); /* none before it is as it was */
            done++;
        }
    }
    CHECK(munmap(step, sizeof *step) == 0);
    return done;
}

static void a_killed_batch_leaves_its_first_items_done(void)
{
    shk_store *store = make(MANY + 1);
    unsigned inside = 0, kills = 0;
    char keys[2][2] = {"0", "1"};
    for (size_t i = 0; i < MANY; i++)
        (void)snprintf(names[i], sizeof names[i], "c%zu", i);
    put_all(store, keys[0]);
    for (unsigned round = 1; inside < 15 && round <= 300; round++) {
        unsigned wait = round * 97 % (MANY - 400) + 1;
        const char *before = keys[(round - 1) % 2], *key = keys[round % 2];
        size_t done = done_when_killed(store, before, key, wait);
        kills++;
        inside += done > 0 && done < MANY;
        put_all(store, key);
        if (round % 3 == 0) {
            kills++;
            done = done_when_killed(store, key, NULL, wait);
            inside += done > 0 && done < MANY;
            put_all(store, key);
        }
    }
    printf("%u of %u kills fell inside a batch\n", inside, kills);
    CHECK(inside >= 15);
    shk_store_close(store);
}

/* ---------------------------------------------------------------- reading -- */

static void lookups_of_any_number_agree_with_single_ones(void)
{
    enum { MOST = 70, STRIDE = 40 };
    shk_store *store = make(MOST);
    static char clients[MOST][12];
    for (int i = 0; i < MOST; i++) {
        char key[40];
        (void)snprintf(clients[i], sizeof clients[i], "c%d", i);
        (void)snprintf(key, sizeof key, "%.*s%d", i % 30, "the key of client with this num", i);
        if (i % 7 == 3)
            continue; /* absent */
        CHECK_CODE(put(store, clients[i], key, i % 7 == 5 ? 1 : 0), 0);
        if (i % 7 == 1)
            CHECK_CODE(shk_store_revoke(store, text(clients[i]), text("s")), 0);
    }
    test_sleep(20);
    for (size_t count = 0; count <= MOST; count++) {
        struct shk_pair pairs[MOST];
        unsigned char keys[MOST * STRIDE];
        uint32_t lengths[MOST];
        int results[MOST], found = 0;
        memset(keys, 0xEE, sizeof keys);
        for (size_t i = 0; i < count; i++)
            pairs[i] = (struct shk_pair){text(clients[MOST - 1 - i]), text("s")};
        int rc = shk_store_get_many(store, pairs, count, keys, STRIDE, lengths, results);
        for (size_t i = 0; i < count; i++) {
            char key[128];
            size_t length = 0;
            CHECK_EQUAL(results[i], shk_store_get_key(store, pairs[i].client, pairs[i].server, key,
                                                      128, &length));
            if (results[i] == 0)
                CHECK(lengths[i] == length && memcmp(keys + i * STRIDE, key, length) == 0);
            for (size_t at = i * STRIDE + length; at < (i + 1) * STRIDE; at++)
                CHECK_EQUAL(keys[at], 0xEE);
            found += results[i] == 0;
        }
        CHECK_EQUAL(rc, found);
    }
    struct shk_pair bad[] = {{text("c0"), text("s")}, {text(""), text("s")}};
    unsigned char keys[2 * 128];
    uint32_t lengths[2];
    int results[2];
    CHECK_CODE(shk_store_get_many(store, bad, 2, keys, 128, lengths, results), SHK_E_INVALID);
    CHECK_CODE(shk_store_get_many(store, bad, 1, keys, 1, lengths, results), 1);
    bad[0].client = text("c14"); /* a key of 16 bytes */
    CHECK_CODE(shk_store_get_many(store, bad, 1, keys, 15, lengths, results), SHK_E_INVALID);
    CHECK_CODE(shk_store_destroy(store), 0);
    CHECK_CODE(shk_store_get_many(store, bad, 1, keys, 128, lengths, results), SHK_E_REMOVED);
    shk_store_close(store);
}

struct asked {
    size_t count, next, answered;
    int refuse_at, missing_result; /* what next returns behind the last pair; what missing does */
    bool no_room;
    char names[64][8];
    int results[64];
    char keys[64][128];
    size_t lengths[64];
};

static int ask_next(void *context, struct shk_pair *out)
{
    struct asked *asked = context;
    static char lent[8]; /* the ids need not stand for longer than until the next call */
    if (asked->next == asked->count)
        return asked->refuse_at;
    memcpy(lent, asked->names[asked->next++], sizeof lent);
    *out = (struct shk_pair){text(lent), text("s")};
    return 1;
}

static void *ask_found(void *context, size_t length)
{
    struct asked *asked = context;
    asked->results[asked->answered] = 0;
    asked->lengths[asked->answered] = length;
    return asked->no_room ? NULL : asked->keys[asked->answered++];
}

static int ask_missing(void *context, int result)
{
    struct asked *asked = context;
    asked->results[asked->answered++] = result;
    return asked->missing_result;
}

/* Every number of pairs up to a few groups; whatever a function refuses ends the call. */
static void lookups_without_arrays_answer_in_order(void)
{
    shk_store *store = make(40);
    for (unsigned i = 0; i < 40; i += 2) {
        char name[8];
        snprintf(name, sizeof name, "c%u", i);
        struct shk_put what = {.key = {"0123456789abcdef0123456789abcdef0123456789", i + 1},
                               .key_id = SHK_KEY_ID_NEXT};
        CHECK_CODE(shk_store_put(store, text(name), text("s"), &what, NULL), 0);
    }
    struct asked asked;
    const struct shk_lookups lookups = {&asked, ask_next, ask_found, ask_missing};
    for (size_t count = 0; count <= 64; count++) {
        asked = (struct asked){.count = count};
        for (size_t i = 0; i < count; i++)
            snprintf(asked.names[i], sizeof asked.names[i], "c%zu", 63 - i);
        CHECK_CODE(shk_store_get_each(store, &lookups), 0);
        CHECK_EQUAL(asked.answered, count);
        for (size_t i = 0; i < count; i++) {
            char key[128];
            size_t length = 0;
            CHECK_EQUAL(asked.results[i], shk_store_get_key(store, text(asked.names[i]), text("s"),
                                                            key, 128, &length));
            CHECK(asked.lengths[i] == length && memcmp(asked.keys[i], key, length) == 0);
        }
    }
    asked.next = asked.answered = 0;
    asked.refuse_at = -EINTR;
    CHECK_CODE(shk_store_get_each(store, &lookups), -EINTR);
    asked.next = asked.answered = 0;
    asked.missing_result = -EAGAIN;
    CHECK_CODE(shk_store_get_each(store, &lookups), -EAGAIN);
    CHECK_EQUAL(asked.answered, 1);
    asked = (struct asked){.count = 1, .no_room = true, .names = {"c0"}};
    CHECK_CODE(shk_store_get_each(store, &lookups), -ENOMEM);
    asked = (struct asked){.count = 2, .names = {"c0", ""}};
    CHECK_CODE(shk_store_get_each(store, &lookups), SHK_E_INVALID);
    CHECK_EQUAL(asked.next, 2);
    CHECK_CODE(shk_store_destroy(store), 0);
    shk_store_close(store);
}

/* More entries than the store may hold, and a count that says so. */
static void a_snapshot_believes_no_count(void)
{
    enum { CAPACITY = 100 };
    shk_store *store = make(CAPACITY);
    for (int i = 0; i < CAPACITY; i++) {
        char client[12];
        (void)snprintf(client, sizeof client, "c%d", i);
        CHECK_CODE(put(store, client, "key", 0), 0);
    }
    shk_snapshot *snapshot;
    CHECK_CODE(shk_store_snapshot(store, &snapshot), 0);
    CHECK_EQUAL(shk_snapshot_count(snapshot), CAPACITY);
    shk_snapshot_free(snapshot);
    uint64_t word = 0, entries = (uint64_t)store->geometry.buckets * SHK_WAYS;
    for (uint64_t target = 0; target < entries; target++) {
        uint64_t *entry = shk__entry_at(store, target);
        word = *entry ? *entry : word;
        *entry = word;
    }
    CHECK(entries > CAPACITY * 5 / 4);
    shk__ledger(store)->records = UINT64_C(1) << 40;
    CHECK_CODE(shk_store_snapshot(store, &snapshot), SHK_E_CORRUPT);
    shk_store_close(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_pair_that_comes_twice_needs_room_once),
        TEST(prefixes_are_other_pairs),
        TEST(expired_records_make_room),
        TEST(previous_keys_take_room),
        TEST(invalid_items_stop_the_whole_batch),
        TEST(key_ids_suffice_for_all_or_none_is_drawn),
        TEST(an_import_refuses_what_is_there),
        TEST(an_import_keeps_or_replaces_what_is_there),
        TEST(an_import_needs_room_and_ids_for_all),
        TEST(an_import_has_its_own_dates),
        TEST(deleting_counts_what_was_there),
        TEST(a_killed_batch_leaves_its_first_items_done),
        TEST(lookups_of_any_number_agree_with_single_ones),
        TEST(lookups_without_arrays_answer_in_order),
        TEST(a_snapshot_believes_no_count),
    };
    return TEST_MAIN(argc, argv, tests);
}
