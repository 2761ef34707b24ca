/* test_hostile.c: whatever bytes a segment holds, no call crashes, hangs, writes beyond
 * its buffers or touches what is not the store's.
 *
 * Each round restores the image of a small store, damages it and makes every call there
 * is, through handles that were open before the damage (geometry is private by then) and
 * through new ones. Strays end at guard pages around the mappings; two sets and a segment
 * stand by and must stay as they are. Every run does the same.
 */
#include "test.h"

#include "clock.h"
#include "index.h"

#define KEY_SIZE 16u
#define CAPACITY 8u /* two buckets */
#define SLOTS (CAPACITY + SHK_SPARE_SLOTS)
#define CANARY 0xA5

static shk_store *writer, *reader;
static shk_store *other;          /* a sound one, to copy from and to */
static unsigned char other_image[1 << 17];
static unsigned char *bytes;      /* the writer's mapping */
static unsigned char image[1 << 16];
static size_t size;
static char clients[CAPACITY][3]; /* all of one home bucket, so the last one overflows */
static struct shk_access access_ = {.open_timeout = SHK_MILLISECOND / 10,
                                    .lock_timeout = SHK_MILLISECOND / 10};
static struct shk_access readonly = {.readonly = true, .open_timeout = SHK_MILLISECOND / 10};
static uint64_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)((random_state >> 33) % limit);
}

/* -------------------------------------------------------------- bystanders -- */

static struct {
    int sets[2], segment;
    unsigned short values[2][SHK_WRITERS_MAX + SHK_IDENTITY];
} bystanders;

/* One as large as a token set, all zeros; one whose values are small. */
static void bystanders_make(void)
{
    for (int i = 0; i < 2; i++) {
        unsigned short *values = bystanders.values[i];
        int id = bystanders.sets[i] = semget(IPC_PRIVATE, SHK_WRITERS_MAX + SHK_IDENTITY, 0600);
        CHECK(id >= 0);
        test_keep_set(id);
        for (unsigned at = 0; at < SHK_WRITERS_MAX + SHK_IDENTITY; at++)
            values[at] = i ? (unsigned short)(at % 3) : 0;
        CHECK(semctl(id, 0, SETALL, values) == 0);
    }
    bystanders.segment = test_keep_segment(shmget(IPC_PRIVATE, 4096, 0600));
    CHECK(bystanders.segment >= 0);
}

static void bystanders_check(void)
{
    unsigned short values[SHK_WRITERS_MAX + SHK_IDENTITY];
    struct shmid_ds segment;
    struct semid_ds set;
    for (int i = 0; i < 2; i++) {
        CHECK(semctl(bystanders.sets[i], 0, IPC_STAT, &set) == 0 && set.sem_otime == 0);
        CHECK(semctl(bystanders.sets[i], 0, GETALL, values) == 0);
        CHECK(memcmp(values, bystanders.values[i], sizeof values) == 0);
    }
    CHECK(shmctl(bystanders.segment, IPC_STAT, &segment) == 0 && segment.shm_nattch == 0);
}

/* --------------------------------------------------------------- the store -- */

static struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

static int put(shk_store *store, const char *client, uint64_t ttl)
{
    static const unsigned char key[KEY_SIZE] = "0123456789abcde";
    struct shk_put what = {.key = {key, 1 + random_below(KEY_SIZE)},
                           .key_id = SHK_KEY_ID_NEXT,
                           .ttl = ttl};
    return shk_store_put(store, text(client), text("server"), &what, NULL);
}

/* Where there is room for them, pages that nobody may touch. */
static void guard(const shk_store *store)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), length = (size + page - 1) / page * page;
    void *const places[] = {store->base - page, store->base + length};
    for (int i = 0; i < 2; i++)
        (void)mmap(places[i], page, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void choose_clients(void)
{
    unsigned chosen = 0;
    for (unsigned i = 0; chosen < CAPACITY; i++) {
        struct shk__query query;
        snprintf(clients[chosen], sizeof clients[chosen], "%c%c", 'a' + i / 26 % 26, 'a' + i % 26);
        CHECK(shk__query_make(writer, text(clients[chosen]), text("server"), &query) == 0);
        chosen += query.home == 0;
    }
}

/* As large as the other's layout needs, with three pairs. */
static void open_other(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {CAPACITY, 0, KEY_SIZE, 0600, SHK_MEMORY_LOCK_TRY};
    struct shk_info info;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access_, &other), 0);
    shk_store_info(other, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    for (unsigned i = 0; i < 3; i++)
        CHECK_CODE(put(other, clients[i], 0), 0);
    CHECK(other->geometry.total_size <= sizeof other_image);
    memcpy(other_image, other->base, other->geometry.total_size);
}

/* Seven pairs, one in the second bucket, one revoked; every slot used. */
static void open_store(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {CAPACITY, 0, KEY_SIZE, 0600, SHK_MEMORY_LOCK_TRY};
    struct shk_info info;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access_, &writer), 0);
    shk_store_info(writer, &info);
    if (test_kept->count > TEST_KEPT_MAX - 8)
        test_kept->count = 7; /* the earlier stores are gone; bystanders and the other stay */
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    memset(writer->hash_key, 0, sizeof writer->hash_key);
    memset(((struct shk_header_shm *)writer->base)->hash_key, 0, sizeof writer->hash_key);
    choose_clients();
    for (unsigned i = 0; i < CAPACITY; i++)
        CHECK_CODE(put(writer, clients[i], i ? 0 : SHK_SECOND * 3600), 0);
    CHECK_CODE(shk_store_revoke(writer, text(clients[1]), text("server")), 0);
    for (unsigned i = 0; i < SLOTS; i++)
        CHECK_CODE(put(writer, clients[3], 0), 0);
    CHECK_CODE(shk_store_delete(writer, text(clients[2]), text("server")), 0);
    struct shk_stats stats;
    CHECK_CODE(shk_store_stats(writer, &stats), 0);
    CHECK_EQUAL(stats.slots_touched, SLOTS);
    CHECK_CODE(shk_store_from_id(info.id, &readonly, &reader), 0);
    bytes = writer->base;
    size = (size_t)writer->geometry.total_size;
    CHECK(size <= sizeof image);
    memcpy(image, bytes, size);
    guard(writer);
    guard(reader);
    if (!other)
        open_other();
}

static void close_store(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = size; at < (size + page - 1) / page * page; at++)
        CHECK(bytes[at] == 0);
    struct shk_info info;
    shk_store_info(writer, &info);
    shk_store_close(reader);
    shk_store_close(writer);
    (void)shmctl(info.id, IPC_RMID, NULL);
    (void)semctl(info.semaphore_id, 0, IPC_RMID);
}

/* -------------------------------------------------------------- every call -- */

/* An answer, or a complaint about the store; never about the caller or the system. */
static void check_code(const char *call, int rc)
{
    static const int codes[] = {0, SHK_E_INVALID /* the header may name another key size */,
                                SHK_E_ABSENT, SHK_E_REVOKED, SHK_E_EXPIRED, SHK_E_FULL,
                                SHK_E_EXHAUSTED, SHK_E_REMOVED, SHK_E_CORRUPT,
                                SHK_E_INCOMPATIBLE, SHK_E_TIMEOUT, SHK_E_BUSY, SHK_E_MOVED,
                                SHK_E_CHANGES_LOST, SHK_E_EXISTS, SHK_E_CONFLICT};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (rc == codes[i])
            return;
    FAIL("%s is %d (%s: %s)", call, rc, shk_error_message(rc), shk_error_detail());
}

static void walk(const shk_store *store)
{
    shk_cursor *cursor;
    struct shk_pair pair;
    unsigned count = 0;
    int rc;
    CHECK_CODE(shk_cursor_open(store, &cursor), 0);
    while ((rc = shk_cursor_next(cursor, &pair)) == 1) {
        CHECK(pair.client.size - 1 < 11 && pair.server.size - 1 < 11);
        CHECK(++count <= 2 * SHK_WAYS * 2); /* at most each entry from each of two homes */
    }
    check_code("cursor", rc);
    shk_cursor_close(cursor);
}

/* Through a const handle: a reader's, whoever's it is. */
static void take_snapshot(const shk_store *store)
{
    shk_snapshot *snapshot;
    int rc = shk_store_snapshot((shk_store *)(uintptr_t)store, &snapshot);
    check_code("snapshot", rc);
    if (rc < 0)
        return;
    CHECK(shk_snapshot_count(snapshot) <= CAPACITY);
    for (size_t i = 0; i < shk_snapshot_count(snapshot); i++) {
        struct shk_pair pair;
        struct shk_record record;
        const void *key;
        shk_snapshot_record(snapshot, i, &pair, &record, &key);
        CHECK(pair.client.size - 1 < 11 && pair.server.size - 1 < 11);
        CHECK(record.key_length >= 1 && record.key_length <= KEY_SIZE);
    }
    shk_snapshot_free(snapshot);
}

static void read_changes(const shk_store *store)
{
    static struct shk_change changes[SHK_RING + 8];
    uint64_t revision = 0, now;
    check_code("revision", shk_store_revision(store, &revision));
    const uint64_t since[] = {0, revision, revision - 1, revision - 4, revision - SHK_RING};
    for (size_t i = 0; i < sizeof since / sizeof *since; i++) {
        int rc = shk_store_changes(store, since[i], changes, i % 2 ? SHK_RING + 8 : 4);
        if (rc < 0)
            check_code("changes", rc);
        CHECK(rc <= (int)SHK_RING);
        for (int n = 0; n < rc; n++)
            CHECK(changes[n].client_size < 12 && changes[n].server_size < 12);
    }
    check_code("wait", shk_store_wait(store, revision, 1000, NULL, &now));
    check_code("wait", shk_store_wait(store, 0, 1000, NULL, &now));
}

/* Batches, walks and what tells about the store. */
static void read_more(const shk_store *store)
{
    struct shk_pair pairs[CAPACITY];
    unsigned char keys[CAPACITY][KEY_SIZE + 1];
    uint32_t lengths[CAPACITY];
    int results[CAPACITY];
    size_t length;
    memset(keys, CANARY, sizeof keys);
    for (unsigned i = 0; i < CAPACITY; i++) {
        pairs[i] = (struct shk_pair){text(clients[i]), text("server")};
        for (int32_t id = 0; id < 3; id++)
            check_code("get_key_by_id",
                       shk_store_get_key_by_id(store, pairs[i].client, pairs[i].server,
                                               id * (int32_t)i, keys[i], KEY_SIZE, &length));
    }
    int rc = shk_store_get_many(store, pairs, CAPACITY, keys, KEY_SIZE, lengths, results);
    if (rc < 0)
        check_code("get_many", rc);
    CHECK(keys[CAPACITY - 1][KEY_SIZE] == CANARY && rc <= (int)CAPACITY);
    walk(store);
    take_snapshot(store);
    read_changes(store);
    const void *slots;
    uint64_t count = 0;
    check_code("slots", shk_store_slots(store, &slots, &count));
    CHECK(count <= SLOTS);
    struct shk_successor to = {.id = 0};
    check_code("successor", shk_store_successor(store, &to));
    CHECK(memchr(to.name, 0, sizeof to.name));
}

static void read_all(const shk_store *store)
{
    for (unsigned i = 0; i < CAPACITY; i++) {
        const struct shk_bytes id = text(clients[i]);
        unsigned char key[KEY_SIZE + 8];
        struct shk_record record;
        size_t length = 0;
        memset(key, CANARY, sizeof key);
        int rc = shk_store_get_key(store, id, text("server"), key, KEY_SIZE, &length);
        check_code("get_key", rc);
        CHECK(rc != 0 || (length >= 1 && length <= KEY_SIZE));
        for (size_t at = length; at < sizeof key; at++)
            CHECK(key[at] == CANARY);
        check_code("record",
                   shk_store_record(store, id, text("server"), &record, key, KEY_SIZE));
    }
    struct shk_stats stats;
    check_code("stats", shk_store_stats(store, &stats));
    read_more(store);
}

static void verify(shk_store *store)
{
    struct shk_report report;
    check_code("verify", shk_store_verify(store, &report));
}

static void write_all(shk_store *store)
{
    unsigned char key[KEY_SIZE];
    struct shk_record record;
    for (unsigned i = 0; i < CAPACITY; i++) {
        const struct shk_bytes id = text(clients[i]);
        check_code("put", put(store, clients[i], 0));
        check_code("rotate", shk_store_rotate(store, id, text("server"),
                                              &(struct shk_rotation){.grace = i % 3}, &record, key,
                                              sizeof key));
        check_code("revoke", shk_store_revoke(store, id, text("server")));
        if (i % 2)
            check_code("delete", shk_store_delete(store, id, text("server")));
    }
}

static void write_more(shk_store *store)
{
    struct shk_item items[3];
    struct shk_pair pairs[3];
    struct shk_record record;
    unsigned char key[KEY_SIZE];
    uint64_t count;
    for (unsigned i = 0; i < 3; i++) {
        pairs[i] = (struct shk_pair){text(clients[i + 2]), text("server")};
        items[i] = (struct shk_item){pairs[i], {.key = {"k", 1}, .key_id = -1, .ttl = i}, 0};
    }
    struct shk_put what = {.key = {"k", 1}, .key_id = -1, .condition = SHK_IF_ABSENT};
    check_code("put if absent", shk_store_put(store, pairs[1].client, pairs[1].server, &what, NULL));
    what.condition = SHK_IF_KEY_ID;
    check_code("put if key id", shk_store_put(store, pairs[2].client, pairs[2].server, &what, NULL));
    check_code("touch", shk_store_touch(store, pairs[0].client, pairs[0].server, 1));
    check_code("pop", shk_store_pop(store, pairs[0].client, pairs[0].server, &record, key,
                                    sizeof key));
    check_code("put_many", shk_store_put_many(store, items, 3));
    check_code("delete_many", shk_store_delete_many(store, pairs, 2, &count));
    check_code("purge", shk_store_purge_expired(store, &count));
    take_snapshot(store);
    if (random_below(2))
        check_code("clear", shk_store_clear(store, &count));
}

static void restore_other(void)
{
    memcpy(other->base, other_image, other->geometry.total_size);
}

/* From and to the damaged store; it ends as it was before. */
static void copy_both_ways(const unsigned char *damaged)
{
    uint64_t count;
    struct shk_ledger_shm *ledger = shk__ledger(other);
    memset(other->base + other->geometry.buckets_offset, 0,
           other->geometry.total_size - other->geometry.buckets_offset);
    memset(ledger, 0, sizeof *ledger);
    check_code("copy_to from it", shk_store_copy_to(writer, other, &count));
    restore_other();
    memcpy(bytes, damaged, size);
    shk__ledger(writer)->records = shk__ledger(writer)->previous = 0;
    check_code("copy_to to it", shk_store_copy_to(other, writer, &count));
    restore_other();
    memcpy(bytes, damaged, size);
}

/* Whatever it was, it can be repaired, unless it is not a living store any more, or this
 * process, which lives, seems to hold its lock. */
static void repair(shk_store *store)
{
    struct shk_repair_report report;
    struct shk_report found;
    int rc = shk_store_repair(store, &report);
    check_code("repair", rc);
    if (rc < 0) {
        if (rc != SHK_E_TIMEOUT && rc != SHK_E_REMOVED && /* an opener had condemned it */
            shk__header(store)->state == SHK_STATE_LIVE)
            FAIL("repair is %d (%s: %s)", rc, shk_error_message(rc), shk_error_detail());
        return;
    }
    CHECK_CODE(shk_store_verify(store, &found), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        if (found.faults[i])
            FAIL("after a repair: %s: %llu faults, the first at %llu",
                 shk_check_name((enum shk_check)i), (unsigned long long)found.faults[i],
                 (unsigned long long)found.first[i]);
}

static void try_handles(const unsigned char *damaged)
{
    read_all(reader);
    verify(reader);
    write_all(writer);
    verify(writer);
    write_more(writer);
    memcpy(bytes, damaged, size);
    copy_both_ways(damaged);
    repair(writer);
    memcpy(bytes, damaged, size);
}

static void try_opening(const struct shk_access *access, int id)
{
    shk_store *store;
    int rc = shk_store_from_id(id, access, &store);
    if (rc == -ENOENT) /* it was condemned or found destroyed */
        return;
    check_code("from_id", rc);
    if (rc < 0)
        return;
    read_all(store);
    if (!access->readonly)
        write_all(store);
    verify(store);
    shk_store_close(store);
}

/* Ends with a store that is whole. */
static void round_trip(const unsigned char *damaged, bool opening, bool destroying)
{
    memcpy(bytes, damaged, size);
    struct shmid_ds segment;
    if (opening) {
        try_opening(&readonly, writer->info.id);
        try_opening(&access_, writer->info.id);
        memcpy(bytes, damaged, size);
    }
    if (destroying && random_below(2) && shmctl(writer->info.id, IPC_STAT, &segment) == 0) {
        shk_store *store; /* by its own handle, which took the damaged numbers over */
        if (shk_store_from_id(writer->info.id, &access_, &store) == 0) {
            check_code("destroy", shk_store_destroy(store));
            shk_store_close(store);
        }
        memcpy(bytes, damaged, size);
    }
    try_handles(damaged);
    if (destroying) {
        check_code("destroy", shk_store_destroy(writer));
        read_all(reader);
        bystanders_check();
    }
    if (destroying || shmctl(writer->info.id, IPC_STAT, &segment) < 0 ||
        segment.shm_perm.mode & SHM_DEST) {
        close_store();
        open_store();
    }
    memcpy(bytes, image, size);
}

/* ------------------------------------------------------------------- tests -- */

static void start(void)
{
    bystanders_make();
    open_store();
}

static void finish(void)
{
    bystanders_check();
    close_store();
    shk_store_close(other);
}

/* Each entry of the ring is read alike: its ends will do. */
static bool is_ring_middle(size_t at)
{
    const struct shk__geometry *g = &writer->geometry;
    return at >= g->ring_offset + g->ring_size && at < g->buckets_offset - g->ring_size;
}

static void each_byte(void)
{
    static unsigned char damaged[sizeof image];
    start();
    for (size_t at = 0; at < size; at++) {
        if (is_ring_middle(at))
            continue;
        const unsigned char old = image[at];
        const unsigned char values[] = {0, 1, 0x7F, 0x80, 0xFF, (unsigned char)(old + 1),
                                        (unsigned char)(old ^ 0x10)};
        for (size_t i = 0; i < sizeof values; i++) {
            if (values[i] == old)
                continue;
            memcpy(damaged, image, size);
            damaged[at] = values[i];
            round_trip(damaged, at < sizeof(struct shk_header_shm) && i % 2, false);
        }
    }
    finish();
}

/* Words that mean something somewhere: numbers near every limit, and what stands elsewhere. */
static uint64_t interesting(void)
{
    uint64_t word;
    switch (random_below(7)) {
    case 0:
        return random_below(16);
    case 1:
        return UINT64_MAX - random_below(16);
    case 2:
        return UINT64_C(1) << random_below(64);
    case 3:
        return shk__entry(random_below(SLOTS + 1), random_below(8), (uint16_t)random_below(4));
    case 4:
        return (uint64_t)bystanders.sets[random_below(2)] + 1;
    case 5:
        return (uint64_t)random_below(1u << 31) << 33 | random_below(1u << 31);
    default:
        memcpy(&word, image + random_below((uint32_t)size / 8) * 8, sizeof word);
        return word;
    }
}

static void damage_words(unsigned char *damaged, unsigned count)
{
    memcpy(damaged, image, size);
    while (count-- > 0) {
        size_t at;
        do
            at = random_below((uint32_t)size / 4) * 4;
        while (is_ring_middle(at));
        uint64_t word = interesting();
        memcpy(damaged + at, &word, random_below(2) || at + 8 > size ? 4 : 8);
    }
}

static void random_words(void)
{
    static unsigned char damaged[sizeof image];
    start();
    for (unsigned i = 0; i < 4000; i++) {
        damage_words(damaged, 1 + random_below(i % 2 ? 4 : 40));
        round_trip(damaged, i % 4 == 0, i % 8 == 0);
    }
    finish();
}

/* A journal whose every field is plausible, for recovery to act on. */
static void random_journals(void)
{
    static unsigned char damaged[sizeof image];
    start();
    for (unsigned i = 0; i < 8000; i++) {
        damage_words(damaged, random_below(3));
        struct shk_journal_shm *j = (struct shk_journal_shm *)(damaged + 1088);
        struct shk_bucket_shm *buckets =
            (struct shk_bucket_shm *)(damaged + writer->geometry.buckets_offset);
        *j = (struct shk_journal_shm){.kind = 1 + random_below(SHK_CHANGE_COUNT - 1),
                                      .target = random_below(2 * SHK_WAYS),
                                      .head = random_below(32),
                                      .tail = random_below(40),
                                      .high_water = SLOTS - random_below(3),
                                      .generation = 2 * random_below(12),
                                      .revision = random_below(2) ? 26 : interesting(),
                                      .records = random_below(CAPACITY + 2)};
        uint64_t *entry = &buckets[j->target / SHK_WAYS].entries[j->target % SHK_WAYS];
        j->old_word = random_below(4) ? *entry : 0;
        j->retired = (j->old_word >> 16 & 0xFFFF) + 1;
        j->new_word = random_below(2) ? shk__entry(random_below(SLOTS), j->generation, 0) : 0;
        if (random_below(2)) /* it seems to have been committed */
            *entry = j->new_word;
        if (random_below(4) == 0)
            *((uint64_t *)j + random_below(13)) = interesting();
        if (random_below(4) == 0)
            j->previous[random_below(2)] = random_below(2 * SHK_WAYS + 2);
        round_trip(damaged, false, i % 16 == 0);
    }
    finish();
}

/* The header names a set that is somebody else's. */
static void foreign_sets(void)
{
    static unsigned char damaged[sizeof image];
    start();
    for (unsigned i = 0; i < 300; i++) {
        memcpy(damaged, image, size);
        struct shk_header_shm *header = (struct shk_header_shm *)damaged;
        const uint32_t ids[] = {(uint32_t)bystanders.sets[0], (uint32_t)bystanders.sets[1],
                                UINT32_MAX, INT32_MAX, UINT32_C(0x80000000), 0};
        header->set = ids[i % 6] + 1;
        const uint64_t states[] = {SHK_STATE_LIVE, SHK_STATE_MAKING, SHK_STATE_DEAD,
                                   SHK_STATE_REMOVED, SHK_STATE_MOVED};
        header->state = states[i / 6 % 5];
        header->successor.name_size = (uint32_t)interesting();
        memset(header->successor.name, 'x', sizeof header->successor.name);
        ((struct shk_lock_shm *)(damaged + 1024))->word = 1 + random_below(SHK_WRITERS_MAX);
        if (random_below(3) == 0)
            memset(header->store_id, 0, sizeof header->store_id);
        round_trip(damaged, true, i % 3 == 0);
    }
    finish();
}

/* Only a destroyed store may be wiped: a damaged state is no reason to. */
static void damaged_state(void)
{
    start();
    for (unsigned bit = 0; bit < 64; bit++) {
        const unsigned char mask = (unsigned char)(1u << bit % 8);
        unsigned char key[KEY_SIZE];
        struct shk_report report;
        size_t length;
        bytes[bit / 8] ^= mask;
        CHECK_CODE(put(writer, clients[0], 0), SHK_E_CORRUPT);
        CHECK_CODE(shk_store_get_key(reader, text(clients[0]), text("server"), key, sizeof key,
                                     &length), SHK_E_CORRUPT);
        CHECK_CODE(shk_store_verify(reader, &report), SHK_E_CORRUPT);
        CHECK_CODE(shk_store_verify(writer, &report), SHK_E_CORRUPT);
        bytes[bit / 8] ^= mask;
        CHECK(memcmp(bytes, image, size) == 0);
    }
    finish();
}

/* Two entries of one pair, each with a record. */
static void make_twins(void)
{
    uint64_t *entries = shk__bucket(writer, 0)->entries;
    uint64_t *from = (uint64_t *)shk__slot(writer, shk__entry_slot(entries[0]));
    uint64_t *to = (uint64_t *)shk__slot(writer, shk__entry_slot(entries[1]));
    memcpy(to + 1, from + 1, writer->geometry.record_size - 8);
    entries[1] = shk__entry(shk__entry_slot(entries[1]), to[0], shk__entry_tag(entries[0]));
}

/* Until it is killed: slots that are sound now and then, and entries that now and then name
 * a slot far beyond the last. */
static _Noreturn void flip_records_and_entries(void)
{
    uint64_t *entries = shk__bucket(writer, 0)->entries;
    const uint64_t twins[] = {entries[0], entries[1]}, far = UINT64_C(0xFFFFFFFF) << 32;
    const size_t last = writer->geometry.record_size / 8 - 1;
    for (uint32_t i = 0;; i++) {
        uint64_t *slot = (uint64_t *)shk__slot(writer, i % SLOTS);
        uint64_t length = shk__load(&slot[1]);
        shk__store(&slot[last], 1);
        shk__store(&slot[1], length | INT32_MAX);
        for (int n = 0; n < 8; n++) {
            shk__store(&entries[n % 2], twins[n % 2] | far);
            shk__store(&entries[n % 2], twins[n % 2]);
        }
        shk__store(&slot[1], length);
    }
}

/* What repair has checked may be another thing when it is used. */
static void repair_beside_changes(void)
{
    start();
    make_twins();
    memcpy(image, bytes, size);
    pid_t hostile = test_fork();
    if (hostile == 0)
        flip_records_and_entries();
    for (uint64_t end = shk__monotonic() + SHK_SECOND; shk__monotonic() < end;) {
        struct shk_repair_report report;
        memcpy(bytes, image, size);
        check_code("repair", shk_store_repair(writer, &report));
    }
    test_kill(hostile);
    memcpy(bytes, image, size);
    finish();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(each_byte), TEST(random_words), TEST(random_journals),
                                        TEST(foreign_sets), TEST(damaged_state),
                                        TEST(repair_beside_changes)};
    return TEST_MAIN(argc, argv, tests);
}
