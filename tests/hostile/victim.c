/* victim.c: readers, writers and openers, who call all that the library offers. */
#include "victim.h"

#include "call.h"

static shk_store *reader, *writer;
static bool destroyed; /* by this process, in this round */

/* ----------------------------------------------------------------- reading -- */

static void get(const shk_store *store)
{
    unsigned char *key = key_room();
    size_t length;
    if (CALL("get_key", shk_store_get_key(store, client_of(any_client()), SERVER, key,
                                          arena->key_size, &length)) == 0)
        key_check(key, length);
}

static void get_record(const shk_store *store)
{
    unsigned char *key = key_room();
    struct shk_record record;
    if (CALL("record", shk_store_record(store, client_of(any_client()), SERVER, &record, key,
                                        arena->key_size)) == 0)
        key_check(key, record.key_length);
}

static void get_by_id(const shk_store *store)
{
    unsigned char *key = key_room();
    size_t length;
    if (CALL("get_key_by_id",
             shk_store_get_key_by_id(store, client_of(any_client()), SERVER, (int32_t)below(400),
                                     key, arena->key_size, &length)) == 0)
        key_check(key, length);
}

#define MANY 20u
static void get_many(const shk_store *store)
{
    static unsigned char keys[MANY * 1024 + 8];
    struct shk_pair pairs[MANY];
    uint32_t lengths[MANY];
    int results[MANY];
    const size_t stride = arena->key_size, end = MANY * stride;
    memset(keys, CANARY, sizeof keys);
    for (unsigned i = 0; i < MANY; i++)
        pairs[i] = (struct shk_pair){client_of(any_client()), SERVER};
    int found = CALL("get_many",
                     shk_store_get_many(store, pairs, MANY, keys, stride, lengths, results));
    for (size_t at = end; at < sizeof keys; at++)
        CHECK(keys[at] == CANARY);
    for (unsigned i = 0; found >= 0 && i < MANY; i++)
        CHECK(results[i] != 0 || (lengths[i] >= 1 && lengths[i] <= stride));
}

static void check_pair(const struct shk_pair *pair)
{
    CHECK(pair->client.size < arena->id_size && pair->server.size < arena->id_size);
}

/* Each entry may be met once from each home. */
static void iterate(const shk_store *store)
{
    const uint64_t most = (uint64_t)arena->geometry.buckets * arena->geometry.buckets * SHK_WAYS;
    shk_cursor *cursor;
    struct shk_pair pair;
    uint64_t count = 0;
    if (CALL("cursor_open", shk_cursor_open(store, &cursor)) < 0)
        return;
    while (CALL("cursor_next", shk_cursor_next(cursor, &pair)) == 1) {
        check_pair(&pair);
        CHECK(pair.client.size > 0 && pair.server.size > 0);
        CHECK(++count <= most);
    }
    shk_cursor_close(cursor);
}

static void take_snapshot(const shk_store *store)
{
    shk_snapshot *snapshot;
    if (CALL("snapshot", shk_store_snapshot((shk_store *)(uintptr_t)store, &snapshot)) < 0)
        return;
    CHECK(shk_snapshot_count(snapshot) <= arena->capacity);
    for (size_t i = 0; i < shk_snapshot_count(snapshot); i++) {
        struct shk_pair pair;
        struct shk_record record;
        const void *key;
        shk_snapshot_record(snapshot, i, &pair, &record, &key);
        check_pair(&pair);
        CHECK(record.key_length >= 1 && record.key_length <= arena->key_size);
    }
    shk_snapshot_free(snapshot);
}

static void verify(const shk_store *store)
{
    struct shk_report report;
    (void)CALL("verify", shk_store_verify((shk_store *)(uintptr_t)store, &report));
}

static void watch(const shk_store *store)
{
    static struct shk_change changes[SHK_RING + 8];
    uint64_t revision = 0, now;
    if (CALL("revision", shk_store_revision(store, &revision)) < 0)
        return;
    int found = CALL("changes", shk_store_changes(store, revision - below(SHK_RING + 2), changes,
                                                  1 + below(SHK_RING + 8)));
    CHECK(found <= (int)SHK_RING);
    for (int i = 0; i < found; i++) {
        const struct shk_change *c = &changes[i];
        CHECK(c->client_size < arena->id_size && c->server_size < arena->id_size);
        CHECK(c->kind >= SHK_CHANGE_INSERT && c->kind <= SHK_CHANGE_EXPIRE);
    }
    (void)CALL("wait", shk_store_wait(store, revision, below(2) * SHK_MILLISECOND, NULL, &now));
    if (one_in(4))
        shk_store_wake(store);
}

static void look_around(const shk_store *store)
{
    struct shk_stats stats;
    struct shk_info info;
    struct shk_successor to = {.id = 0};
    const void *slots;
    uint64_t count = 0, sum = 0;
    (void)CALL("stats", shk_store_stats(store, &stats));
    (void)CALL("successor", shk_store_successor(store, &to));
    CHECK(memchr(to.name, 0, sizeof to.name));
    shk_store_info(store, &info);
    CHECK(memchr(info.name, 0, sizeof info.name));
    if (CALL("slots", shk_store_slots(store, &slots, &count)) == 0) {
        CHECK(count <= arena->geometry.slots);
        for (uint64_t at = 0; at < count * info.record_size / 8; at++) /* as a view reads it */
            sum += shk__load((const uint64_t *)slots + at);
    }
    CHECK(sum != 1 || count); /* so that the reads are made */
}

typedef void read_call(const shk_store *);
static read_call *const reads[] = {get,  get,           get,    get_record, get_by_id, get_many,
                                   iterate, take_snapshot, verify, watch,      look_around};

static void read_something(const shk_store *store)
{
    reads[below(sizeof reads / sizeof *reads)](store);
}

/* ----------------------------------------------------------------- writing -- */

static struct shk_put any_put(void)
{
    static unsigned char key[1024];
    for (unsigned i = 0; i < 4; i++)
        key[below(sizeof key)] = (unsigned char)chance();
    return (struct shk_put){.key = {key, 1 + below(arena->key_size)},
                            .key_id = one_in(8) ? (int32_t)below(1000) : SHK_KEY_ID_NEXT,
                            .status = one_in(16),
                            .ttl = one_in(4) ? 1 + below(2) * SHK_MILLISECOND : 0};
}

static void put(shk_store *store)
{
    struct shk_put what = any_put();
    what.condition = one_in(4) ? SHK_IF_ABSENT : one_in(4) ? SHK_IF_KEY_ID : SHK_ALWAYS;
    what.if_key_id = (int32_t)below(400);
    (void)CALL("put", shk_store_put(store, client_of(any_client()), SERVER, &what, NULL));
}

static void rotate(shk_store *store)
{
    unsigned char *key = key_room();
    struct shk_record record;
    struct shk_rotation how = {.grace = one_in(2) ? below(4) * SHK_MILLISECOND : 0,
                               .conditional = one_in(8),
                               .if_key_id = (int32_t)below(400)};
    if (CALL("rotate", shk_store_rotate(store, client_of(any_client()), SERVER, &how, &record, key,
                                        arena->key_size)) == 0)
        key_check(key, record.key_length);
}

static void revoke_one(shk_store *store)
{
    (void)CALL("revoke", shk_store_revoke(store, client_of(any_client()), SERVER));
}

static void touch(shk_store *store)
{
    (void)CALL("touch", shk_store_touch(store, client_of(any_client()), SERVER,
                                        below(3) * SHK_MILLISECOND));
}

static void delete(shk_store *store)
{
    (void)CALL("delete", shk_store_delete(store, client_of(any_client()), SERVER));
}

static void pop(shk_store *store)
{
    unsigned char *key = key_room();
    struct shk_record record;
    if (CALL("pop", shk_store_pop(store, client_of(any_client()), SERVER, &record, key,
                                  arena->key_size)) == 0)
        key_check(key, record.key_length);
}

static void put_many(shk_store *store)
{
    struct shk_item items[MANY];
    for (unsigned i = 0; i < MANY; i++)
        items[i] = (struct shk_item){{client_of(any_client()), SERVER}, any_put(), 0};
    (void)CALL("put_many", shk_store_put_many(store, items, 1 + below(MANY)));
}

static void delete_many(shk_store *store)
{
    struct shk_pair pairs[MANY];
    uint64_t count;
    for (unsigned i = 0; i < MANY; i++)
        pairs[i] = (struct shk_pair){client_of(any_client()), SERVER};
    (void)CALL("delete_many", shk_store_delete_many(store, pairs, 1 + below(MANY), &count));
}

static void purge(shk_store *store)
{
    uint64_t count;
    (void)CALL("purge", shk_store_purge_expired(store, &count));
}

static void clear(shk_store *store)
{
    uint64_t count;
    if (one_in(8))
        (void)CALL("clear", shk_store_clear(store, &count));
}

static void repair(shk_store *store)
{
    struct shk_repair_report report;
    (void)CALL("repair", shk_store_repair(store, &report));
}

typedef void write_call(shk_store *);
static write_call *const writes[] = {put,      put,         put,   rotate, rotate, revoke_one, touch, delete,
                                     put_many, delete_many, purge, clear,  pop,    repair};

static void write_something(shk_store *store)
{
    writes[below(sizeof writes / sizeof *writes)](store);
}

/* ----------------------------------------------------------------- opening -- */

static struct shk_address address(void)
{
    return (struct shk_address){.name = shk_text(arena->name), .owner = geteuid()};
}

static shk_store *open_somehow(void)
{
    const struct shk_address named = address(), keyed = {.key = arena->key};
    const struct shk_address *which = one_in(2) ? &named : &keyed;
    const struct shk_access *how = one_in(2) ? &writing : &reading;
    struct shk_shape shape = {.capacity = arena->capacity,
                              .id_size = arena->id_size,
                              .key_size = arena->key_size,
                              .mode = 0600};
    shk_store *store = NULL;
    switch (below(8)) {
    case 0:
        (void)CALL("open_or_create", shk_store_open(SHK_OPEN_OR_CREATE, &named, &shape, &writing, &store));
        break;
    case 1:
        (void)CALL("create", shk_store_open(SHK_CREATE, &named, &shape, &writing, &store));
        break;
    case 2:
    case 3:
        (void)CALL("open", shk_store_open(SHK_OPEN, which, NULL, how, &store));
        break;
    default:
        (void)CALL("from_id", shk_store_from_id(arena->segment, how, &store));
    }
    return store;
}

static shk_store *make_another(uint64_t capacity, uint32_t key_size)
{
    struct shk_address private_ = {.key = IPC_PRIVATE};
    struct shk_shape shape = {
        .capacity = capacity, .id_size = arena->id_size, .key_size = key_size, .mode = 0600};
    shk_store *store;
    int rc = shk_store_open(SHK_CREATE, &private_, &shape, &writing, &store);
    if (rc != 0)
        fail("another store can't be made: %d (%s: %s)", rc, shk_error_message(rc), shk_error_detail());
    return store;
}

/* What the attacked store gave must make a sound one. */
static void check_sound(shk_store *store)
{
    struct shk_report report;
    CHECK(shk_store_verify(store, &report) == 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        CHECK(report.faults[i] == 0);
}

static void copy(shk_store *store)
{
    uint64_t count;
    if (one_in(2)) {
        shk_store *target = make_another(arena->capacity * 2, arena->key_size + 8);
        (void)CALL("copy_to", shk_store_copy_to(store, target, &count));
        check_sound(target);
        CHECK(shk_store_destroy(target) == 0);
        shk_store_close(target);
    } else {
        shk_store *source = make_another(8, 1);
        struct shk_put what = {.key = {"k", 1}, .key_id = SHK_KEY_ID_NEXT};
        CHECK(shk_store_put(source, client_of(0), SERVER, &what, NULL) == 0);
        (void)CALL("clear", shk_store_clear(store, &count));
        (void)CALL("copy_to it", shk_store_copy_to(source, store, &count));
        CHECK(shk_store_destroy(source) == 0);
        shk_store_close(source);
    }
}

static void open_and_use(void)
{
    shk_store *store = open_somehow();
    if (!store)
        return;
    struct shk_info info;
    shk_store_info(store, &info);
    /* Of a forged header's sizes nothing is known but that they are the handle's. */
    bool usual = info.key_size == arena->key_size && info.id_size == arena->id_size &&
                 info.capacity == arena->capacity;
    for (unsigned i = usual ? below(6) : 0; i > 0; i--) {
        read_something(store);
        if (!info.readonly)
            write_something(store);
    }
    if (!usual) {
        struct shk_stats stats;
        verify(store);
        (void)CALL("stats", shk_store_stats(store, &stats));
    }
    if (!info.readonly && one_in(24))
        copy(store);
    if (!info.readonly && !destroyed && one_in(64)) {
        destroyed = true;
        (void)CALL("destroy", shk_store_destroy(store));
    }
    shk_store_close(store);
}

/* ------------------------------------------------------------------ rounds -- */

static void act(void)
{
    if (role == READER)
        read_something(reader);
    else if (role == OPENER && one_in(2))
        open_and_use();
    else if (one_in(3))
        read_something(writer);
    else
        write_something(writer);
}

void victim_run(void)
{
    while (arena_await(OPEN)) {
        chance_restart();
        destroyed = false;
        CHECK(shk_store_from_id(arena->segment, &reading, &reader) == 0);
        CHECK(shk_store_from_id(arena->segment, &writing, &writer) == 0);
        arena_finish();
        if (!arena_await(ATTACK))
            break;
        while (arena_attacked())
            act();
        call_begin("close");
        shk_store_close(reader);
        shk_store_close(writer);
        call_end(0);
        arena_finish();
    }
}
