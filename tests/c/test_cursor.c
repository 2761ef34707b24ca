/* test_cursor.c: iterating. Pairs that are there throughout come exactly once, none comes
 * twice, whatever writers do meanwhile. */
#include "store_fixture.h"

#define STAYING 300u
#define COMING 300u

/* Gathers every client into seen[], by its number. How many pairs came. */
static unsigned iterate(const shk_store *store, unsigned *seen, unsigned room)
{
    shk_cursor *cursor;
    struct shk_pair pair;
    unsigned count = 0;
    int rc;
    memset(seen, 0, room * sizeof *seen);
    CHECK_CODE(shk_cursor_open(store, &cursor), 0);
    while ((rc = shk_cursor_next(cursor, &pair)) == 1) {
        CHECK(pair.client.size > 1 && *(const char *)pair.client.data == 'c');
        CHECK(pair.server.size == 6 && memcmp(pair.server.data, "server", 6) == 0);
        unsigned number = (unsigned)strtoul((const char *)pair.client.data + 1, NULL, 10);
        CHECK(number < room && strlen(numbered(number)) == pair.client.size);
        if (++seen[number] != 1)
            FAIL("c%u comes twice", number);
        count++;
    }
    CHECK_CODE(rc, 0);
    CHECK_CODE(shk_cursor_next(cursor, &pair), 0); /* the end stays the end */
    shk_cursor_close(cursor);
    return count;
}

static void each_pair_comes_once(void)
{
    enum { CAPACITY = 500 };
    unsigned seen[CAPACITY];
    shk_store *store = store_make(CAPACITY, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    CHECK_EQUAL(iterate(reader, seen, CAPACITY), 0);
    for (unsigned i = 0; i < CAPACITY; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    CHECK_EQUAL(iterate(reader, seen, CAPACITY), CAPACITY);
    /* Revoked ones too; expired ones and previous keys not. */
    for (unsigned i = 0; i < CAPACITY; i += 5)
        CHECK_CODE(drop(store, numbered(i)), 0);
    CHECK_CODE(put_with(store, "c1", "key", (struct shk_put){.expires = 1}), 0);
    CHECK_CODE(shk_store_revoke(store, text("c2"), SERVER), 0);
    CHECK_CODE(rotate(store, "c3", "new", 3600 * SHK_SECOND), 0);
    CHECK_EQUAL(iterate(reader, seen, CAPACITY), CAPACITY - CAPACITY / 5 - 1);
    CHECK(!seen[0] && !seen[1] && seen[2] && seen[3]);
    shk_store_close(reader);
    store_end(store);
}

/* Ids of every length, in one home and in many. */
static void ids_come_whole(void)
{
    shk_store *store = store_make(100, 16, 8);
    shk_cursor *cursor;
    struct shk_pair pair;
    unsigned found = 0;
    int rc;
    struct shk_put what = {.key = text("k"), .key_id = SHK_KEY_ID_NEXT};
    static const char letters[] = "abcdefghijklmno";
    for (size_t client = 1; client <= 15; client += 7)
        for (size_t server = 1; server <= 15; server += 7)
            CHECK_CODE(shk_store_put(store, (struct shk_bytes){letters, client},
                                     (struct shk_bytes){letters, server}, &what, NULL),
                       0);
    CHECK_CODE(shk_cursor_open(store, &cursor), 0);
    while ((rc = shk_cursor_next(cursor, &pair)) == 1) {
        CHECK(memcmp(pair.client.data, letters, pair.client.size) == 0);
        CHECK(memcmp(pair.server.data, letters, pair.server.size) == 0);
        CHECK(pair.client.size % 7 == 1 && pair.server.size % 7 == 1);
        found |= 1u << (pair.client.size / 7 * 3 + pair.server.size / 7);
    }
    CHECK_CODE(rc, 0);
    CHECK_EQUAL(found, 0x1FF);
    shk_cursor_close(cursor);
    store_end(store);
}

/* Half of the pairs stay and are overwritten; the others come and go, at capacity, where
 * most buckets overflow, so that they come back to other places. */
static void churn(shk_store *store, unsigned writer, const uint32_t *stop)
{
    chance_state = writer + 1;
    while (!__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
        const char *comer = numbered(STAYING + chance_below(COMING));
        int rc = 0;
        switch (chance_below(8)) {
        case 0:
            rc = rotate(store, numbered(chance_below(STAYING)), "rotated",
                        chance_below(2) ? SHK_MILLISECOND : 0);
            break;
        case 1:
            rc = put(store, numbered(chance_below(STAYING)), "overwritten");
            break;
        case 2:
            rc = put_for(store, comer, "short-lived", SHK_MILLISECOND);
            break;
        case 3:
        case 4:
        case 5:
            rc = put(store, comer, "key");
            break;
        default:
            rc = drop(store, comer);
        }
        CHECK(rc == 0 || rc == SHK_E_ABSENT || rc == SHK_E_FULL);
    }
}

static void beside_writers(void)
{
    enum { WRITERS = 2 };
    unsigned seen[STAYING + COMING];
    shk_store *store = store_make(STAYING + COMING / 2, 0, 0);
    shk_store *reader = store_again(store, &store_reading);
    uint32_t *stop = test_shared(sizeof *stop);
    pid_t pids[WRITERS];
    /* The comers first: they take the homes, and the stayers overflow. */
    for (unsigned i = 0; i < COMING / 2; i++)
        CHECK_CODE(put(store, numbered(STAYING + i), "key"), 0);
    for (unsigned i = 0; i < STAYING; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    for (unsigned w = 0; w < WRITERS; w++)
        if ((pids[w] = test_fork()) == 0) {
            churn(store, w, stop);
            exit(0);
        }
    uint64_t rounds = 0, passing = 0, first = store_stats(reader).revision;
    uint64_t until = shk__monotonic() + (is_long() ? 10 : 2) * SHK_SECOND;
    while (shk__monotonic() < until) {
        unsigned count = iterate(reader, seen, STAYING + COMING);
        for (unsigned i = 0; i < STAYING; i++)
            if (!seen[i])
                FAIL("c%u did not come in round %llu", i, (unsigned long long)rounds);
        passing += count - STAYING;
        rounds++;
    }
    __atomic_store_n(stop, 1, __ATOMIC_RELEASE);
    for (unsigned w = 0; w < WRITERS; w++)
        test_join(pids[w]);
    printf("%llu iterations beside %llu writes, %u pairs that stay, %llu others met\n",
           (unsigned long long)rounds,
           (unsigned long long)(store_stats(reader).revision - first), STAYING,
           (unsigned long long)passing);
    CHECK(rounds > 2 && passing > 0);
    CHECK_SOUND(store);
    shk_store_close(reader);
    store_end(store);
}

/* A pair that moves to another place of its probe sequence between two steps. */
static void a_pair_that_moves_comes_once(void)
{
    enum { CAPACITY = 42 };
    unsigned seen[100];
    shk_store *store = store_make(CAPACITY, 0, 0);
    for (unsigned i = 0; i < CAPACITY; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    for (unsigned steps = 0; steps < CAPACITY; steps++) {
        shk_cursor *cursor;
        struct shk_pair pair;
        unsigned count = 0, moved = steps, other = (steps + 13) % CAPACITY;
        memset(seen, 0, sizeof seen);
        CHECK_CODE(shk_cursor_open(store, &cursor), 0);
        while (shk_cursor_next(cursor, &pair) == 1) {
            CHECK(++seen[strtoul((const char *)pair.client.data + 1, NULL, 10)] == 1);
            if (count++ == steps) {
                CHECK_CODE(drop(store, numbered(moved)), 0);
                CHECK_CODE(drop(store, numbered(other)), 0);
                CHECK_CODE(put(store, numbered(moved), "key"), 0);
                CHECK_CODE(put(store, numbered(other), "key"), 0);
            }
        }
        for (unsigned i = 0; i < CAPACITY; i++)
            CHECK(seen[i] == 1 || i == moved || i == other);
        shk_cursor_close(cursor);
    }
    store_end(store);
}

static void it_ends_with_its_store(void)
{
    shk_store *store = store_make(10, 0, 0);
    shk_cursor *cursor;
    struct shk_pair pair;
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_CODE(shk_cursor_open(store, &cursor), 0);
    CHECK_CODE(shk_store_destroy(store), 0);
    CHECK_CODE(shk_cursor_next(cursor, &pair), SHK_E_REMOVED);
    shk_cursor_close(cursor);
    shk_cursor_close(NULL);
    shk_store_close(store);
}

/* No call takes such an id, so none gives it. */
static void a_record_without_an_id_is_damage(void)
{
    shk_store *store = store_make(5, 0, 0); /* one bucket, everybody's home */
    shk_cursor *cursor;
    struct shk_pair pair;
    CHECK_CODE(put(store, "a", "key"), 0);
    uint32_t slot = shk__entry_slot(place_of(store, "a", 0).word);
    ((char *)shk__slot(store, slot))[SHK_IDS_OFFSET] = 0;
    CHECK_CODE(shk_cursor_open(store, &cursor), 0);
    CHECK_CODE(shk_cursor_next(cursor, &pair), SHK_E_CORRUPT);
    shk_cursor_close(cursor);
    store_end(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(each_pair_comes_once),
        TEST(ids_come_whole),
        TEST(beside_writers),
        TEST(a_pair_that_moves_comes_once),
        TEST(it_ends_with_its_store),
        TEST(a_record_without_an_id_is_damage),
    };
    return TEST_MAIN(argc, argv, tests);
}
