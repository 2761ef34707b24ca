/* store_fixture.h: stores that go with their test, and short ways to use them.
 *
 * Pairs are (client, "server"); keys are strings; a client is a string or "c" and a number.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include "test.h"

#include "clock.h"
#include "previous.h"

#define SERVER text("server")

static const struct shk_access store_writing = {.open_timeout = SHK_SECOND,
                                                .lock_timeout = 10 * SHK_SECOND};
static const struct shk_access store_reading = {.readonly = true, .open_timeout = SHK_SECOND};

static inline struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

/* Valid until the 16th call after it. */
static inline const char *numbered(unsigned number)
{
    static _Thread_local char rooms[16][12];
    static _Thread_local unsigned next;
    char *room = rooms[next++ % 16];
    (void)snprintf(room, sizeof rooms[0], "c%u", number);
    return room;
}

/* ---------------------------------------------------------------- stores -- */

/* Zero sizes: the defaults. */
static inline shk_store *store_make(uint64_t capacity, uint32_t id_size, uint32_t key_size)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {capacity, id_size, key_size, 0600, SHK_MEMORY_LOCK_TRY};
    struct shk_info info;
    shk_store *store;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &store_writing, &store), 0);
    shk_store_info(store, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    return store;
}

/* One more handle. */
static inline shk_store *store_again(const shk_store *store, const struct shk_access *access)
{
    struct shk_info info;
    shk_store *again;
    shk_store_info(store, &info);
    CHECK_CODE(shk_store_from_id(info.id, access, &again), 0);
    return again;
}

static inline void store_end(shk_store *store)
{
    int rc = shk_store_destroy(store);
    CHECK(rc == 0 || rc == SHK_E_REMOVED);
    shk_store_close(store);
}

static inline struct shk_stats store_stats(const shk_store *store)
{
    struct shk_stats stats;
    CHECK_CODE(shk_store_stats(store, &stats), 0);
    return stats;
}

/* verify() of the store finds nothing. */
#define CHECK_SOUND(store)                                                                         \
    do {                                                                                           \
        struct shk_report report_;                                                                 \
        CHECK_CODE(shk_store_verify((store), &report_), 0);                                        \
        for (int i_ = 0; i_ < SHK_CHECK_COUNT; i_++)                                               \
            if (report_.faults[i_])                                                                \
                FAIL("%s: %llu faults, the first at %llu", shk_check_name((enum shk_check)i_),     \
                     (unsigned long long)report_.faults[i_],                                       \
                     (unsigned long long)report_.first[i_]);                                       \
    } while (0)

/* Anywhere in the segment. */
static inline bool store_holds(const shk_store *store, const char *secret)
{
    return memmem(store->base, store->geometry.total_size, secret, strlen(secret)) != NULL;
}

/* ----------------------------------------------------------------- pairs -- */

static inline int put_with(shk_store *store, const char *client, const char *key,
                           struct shk_put what)
{
    what.key = text(key);
    if (what.key_id == 0)
        what.key_id = SHK_KEY_ID_NEXT;
    return shk_store_put(store, text(client), SERVER, &what, NULL);
}

static inline int put(shk_store *store, const char *client, const char *key)
{
    return put_with(store, client, key, (struct shk_put){0});
}

static inline int put_for(shk_store *store, const char *client, const char *key, uint64_t ttl)
{
    return put_with(store, client, key, (struct shk_put){.ttl = ttl});
}

/* The code, or 0 if the key is the one expected. */
static inline int get(const shk_store *store, const char *client, const char *expected)
{
    char key[512];
    size_t length;
    int rc = shk_store_get_key(store, text(client), SERVER, key, sizeof key, &length);
    if (rc == 0 && (length != strlen(expected) || memcmp(key, expected, length) != 0))
        FAIL("the key of %s is '%.*s', not '%s'", client, (int)length, key, expected);
    return rc;
}

static inline int get_by_id(const shk_store *store, const char *client, int32_t key_id,
                            const char *expected)
{
    char key[512];
    size_t length;
    int rc = shk_store_get_key_by_id(store, text(client), SERVER, key_id, key, sizeof key, &length);
    if (rc == 0 && (length != strlen(expected) || memcmp(key, expected, length) != 0))
        FAIL("key %d of %s is '%.*s', not '%s'", key_id, client, (int)length, key, expected);
    return rc;
}

static inline int drop(shk_store *store, const char *client)
{
    return shk_store_delete(store, text(client), SERVER);
}

static inline int rotate(shk_store *store, const char *client, const char *key, uint64_t grace)
{
    struct shk_record about;
    char out[512];
    struct shk_rotation how = {.new_key = text(key), .grace = grace};
    return shk_store_rotate(store, text(client), SERVER, &how, &about, out, sizeof out);
}

static inline struct shk_record record_of(const shk_store *store, const char *client)
{
    struct shk_record about;
    char key[512];
    CHECK_CODE(shk_store_record(store, text(client), SERVER, &about, key, sizeof key), 0);
    return about;
}

/* The query of a pair's record, or (role) of its previous key. */
static inline struct shk__query query_of(const shk_store *store, const char *client, uint32_t role)
{
    struct shk__query query;
    CHECK_CODE(shk__query_make(store, text(client), SERVER, &query), 0);
    query.role = role;
    shk__query_hash(store, &query);
    return query;
}

static inline struct shk__place place_of(const shk_store *store, const char *client, uint32_t role)
{
    struct shk__query query = query_of(store, client, role);
    struct shk__place place;
    CHECK_CODE(shk__index_find_locked(store, &query, &place), 0);
    return place;
}

/* ---------------------------------------------------------------- chance -- */

/* The same in every run, unless TEST_SEED says otherwise. */
TEST_COMMON uint64_t chance_state;

static inline void chance_start(void)
{
    const char *seed = getenv("TEST_SEED");
    chance_state = seed ? strtoull(seed, NULL, 0) : 1;
    printf("TEST_SEED=%llu\n", (unsigned long long)chance_state);
    (void)fflush(stdout);
}

static inline uint32_t chance_below(uint32_t limit)
{
    chance_state = chance_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)((chance_state >> 33) % limit);
}

/* Kills the child some time after it raised the step, within `longest` nanoseconds; without
 * naps, which are longer than most operations. */
static inline void kill_in_the_midst(pid_t pid, const uint32_t *step, uint32_t longest)
{
    while (shk__load(step) == 0)
        shk__pause();
    uint64_t until = shk__monotonic() + chance_below(longest);
    while (shk__monotonic() < until)
        shk__pause();
    test_kill(pid);
}

/* TEST_LONG=1: the long forms. */
static inline bool is_long(void)
{
    const char *value = getenv("TEST_LONG");
    return value && *value == '1';
}

#endif
