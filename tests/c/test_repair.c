/* test_repair.c: every sort of damage, one at a time: repair keeps what is valid, reports what
 * it gave up, and leaves nothing for verify() to find. */
#include "store_fixture.h"

#include "repair.h"

#define PAIRS 30u
#define CAPACITY 60u
#define HOUR (3600 * SHK_SECOND)
#define OLD "key-before-the-rotation"

static shk_store *store;
static char image[1 << 18];
static size_t size;

static char *key_of(unsigned number)
{
    static char key[32];
    (void)snprintf(key, sizeof key, "key-of-number-%u", number);
    return key;
}

/* Pairs c0 to c29: c0 to c4 have a previous key, c5 is revoked, c6 expires one day; some
 * slots are free. */
static void start(void)
{
    store = store_make(CAPACITY, 0, 0);
    size = store->geometry.total_size;
    CHECK(size <= sizeof image);
    for (unsigned i = 0; i < PAIRS; i++) {
        CHECK_CODE(put(store, numbered(i), i < 5 ? OLD : key_of(i)), 0);
        if (i < 5)
            CHECK_CODE(rotate(store, numbered(i), key_of(i), HOUR), 0);
    }
    CHECK_CODE(shk_store_revoke(store, text("c5"), SERVER), 0);
    CHECK_CODE(shk_store_touch(store, text("c6"), SERVER, HOUR), 0);
    for (unsigned i = 40; i < 55; i++)
        CHECK_CODE(put(store, numbered(i), "gone"), 0);
    for (unsigned i = 40; i < 55; i++)
        CHECK_CODE(drop(store, numbered(i)), 0);
    memcpy(image, store->base, size);
}

static void finish(void)
{
    store_end(store);
}

static void check_pair(unsigned number)
{
    char key[128];
    struct shk_record about;
    CHECK_CODE(shk_store_record(store, text(numbered(number)), SERVER, &about, key, sizeof key), 0);
    CHECK(about.key_length == strlen(key_of(number)) &&
          memcmp(key, key_of(number), about.key_length) == 0);
    CHECK_EQUAL(about.status, number == 5 ? SHK_REVOKED : SHK_VALID);
    CHECK_EQUAL(about.expires != 0, number == 6);
}

struct expected {
    unsigned restored;
    unsigned dropped[SHK_DROP_COUNT];
    unsigned lost;          /* this number + 1 is gone, with its previous key */
    unsigned lost_previous; /* of this number + 1 */
};

static struct shk_repair_report repair_and_check(const struct expected *expected)
{
    struct shk_repair_report report, again;
    CHECK_CODE(shk_store_repair(store, &report), 0);
    for (int i = 0; i < SHK_DROP_COUNT; i++)
        if (report.dropped[i] != expected->dropped[i])
            FAIL("%llu dropped as %s, not %u", (unsigned long long)report.dropped[i],
                 shk_drop_name((enum shk_drop)i), expected->dropped[i]);
    CHECK_EQUAL(report.restored, expected->restored);
    CHECK_SOUND(store);
    unsigned previous = 5;
    for (unsigned i = 0; i < PAIRS; i++) {
        bool lost = expected->lost == i + 1;
        if (lost)
            CHECK_CODE(get(store, numbered(i), ""), SHK_E_ABSENT);
        else
            check_pair(i);
        if (i < 5) {
            bool gone = lost || expected->lost_previous == i + 1;
            int32_t old = 2 * (int32_t)i + 1;
            CHECK_CODE(get_by_id(store, numbered(i), old, OLD), gone ? SHK_E_ABSENT : 0);
            previous -= gone;
        }
    }
    struct shk_stats stats = store_stats(store);
    CHECK_EQUAL(stats.previous_keys, previous);
    CHECK_EQUAL(report.kept, stats.records + stats.previous_keys);

    /* Once more: the same bytes, and nothing to report. */
    static char once[sizeof image];
    memcpy(once, store->base, size);
    CHECK_CODE(shk_store_repair(store, &again), 0);
    CHECK_EQUAL(store_stats(store).revision, stats.revision);
    CHECK_EQUAL(again.kept, report.kept);
    CHECK_EQUAL(again.restored, 0);
    for (int i = 0; i < SHK_DROP_COUNT; i++)
        CHECK_EQUAL(again.dropped[i], 0);
    /* (But for the moment of the last wake.) */
    memcpy(once + ((char *)shk__changes(store) - (char *)store->base), shk__changes(store),
           sizeof(struct shk_changes_shm));
    CHECK(memcmp(once, store->base, size) == 0);

    /* It works on. */
    for (unsigned i = 0; i < 20; i++)
        CHECK_CODE(put(store, numbered(100 + i), "new"), 0);
    CHECK_SOUND(store);
    for (unsigned i = 0; i < 20; i++)
        CHECK_CODE(drop(store, numbered(100 + i)), 0);
    CHECK_SOUND(store);
    memcpy(store->base, image, size);
    return report;
}

#define EXPECT(...) (void)repair_and_check(&(struct expected){__VA_ARGS__})

static uint64_t *entry_of(const char *client, uint32_t role)
{
    struct shk__place place = place_of(store, client, role);
    CHECK(place.word);
    return shk__entry_at(store, place.target);
}

static struct shk_slot_shm *slot_of(const char *client, uint32_t role)
{
    return shk__slot(store, shk__entry_slot(*entry_of(client, role)));
}

/* The even variant: what the first rotation of a pair adds. */
static uint32_t role_of(const char *client)
{
    return slot_of(client, 0)->flags & SHK_FLAG_HAS_PREVIOUS ? SHK_FLAG_IS_PREVIOUS
                                                               : SHK_FLAG_IS_PREVIOUS << 1;
}

static uint32_t free_slot(void)
{
    const struct shk_ledger_shm *ledger = shk__ledger(store);
    CHECK(ledger->tail > ledger->head);
    return *shk__queue_at(store, ledger->head + 3);
}

/* -------------------------------------------------------------------- tests -- */

static void a_sound_store_stays_as_it_is(void)
{
    start();
    uint64_t revision = store_stats(store).revision;
    struct shk_change change;
    struct shk_repair_report report;
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_EQUAL(report.kept, PAIRS + 5);
    CHECK_EQUAL(store_stats(store).revision, revision);
    CHECK_EQUAL(shk_store_changes(store, revision - 1, &change, 1), 1);
    EXPECT(.restored = 0);
    shk_store *reader = store_again(store, &store_reading);
    CHECK_CODE(shk_store_repair(reader, &report), SHK_E_READONLY);
    shk_store_close(reader);
    finish();
}

static void counts_and_queue(void)
{
    static const uint64_t values[] = {0, 1, 12, CAPACITY, 100000, INT64_MAX, UINT64_MAX};
    start();
    for (size_t field = 0; field < sizeof(struct shk_ledger_shm) / 8; field++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            ((uint64_t *)shk__ledger(store))[field] = values[i];
            EXPECT(.restored = 0);
        }
    for (uint32_t place = 0; place < store->geometry.slots; place++) {
        *shk__queue_at(store, place) = UINT32_MAX;
        EXPECT(.restored = 0);
        *shk__queue_at(store, place) = shk__entry_slot(*entry_of("c3", 0)); /* in use */
        EXPECT(.restored = 0);
    }
    finish();
}

static void overflow_counts(void)
{
    static const uint64_t values[] = {0, 1, 1000, UINT64_MAX};
    start();
    for (uint32_t bucket = 0; bucket < store->geometry.buckets; bucket++)
        for (size_t i = 0; i < 4; i++) {
            shk__bucket(store, bucket)->overflow = values[i];
            struct shk_repair_report report =
                repair_and_check(&(struct expected){.restored = 0});
            CHECK_EQUAL(report.kept, PAIRS + 5);
        }
    /* And they are no higher than they must be, for searches end at 0. */
    shk__bucket(store, 1)->overflow = 1000;
    struct shk_repair_report report;
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_CODE(shk_store_clear(store, NULL), 0);
    for (uint32_t bucket = 0; bucket < store->geometry.buckets; bucket++)
        CHECK_EQUAL(shk__bucket(store, bucket)->overflow, 0);
    finish();
}

static void lost_entries_are_restored(void)
{
    start();
    for (unsigned i = 0; i < PAIRS; i++) {
        *entry_of(numbered(i), 0) = 0;
        EXPECT(.restored = 1);
        if (i < 5) {
            *entry_of(numbered(i), role_of(numbered(i))) = 0;
            EXPECT(.restored = 1);
        }
    }
    /* All of them. */
    for (uint64_t target = 0; target < (uint64_t)store->geometry.buckets * SHK_WAYS; target++)
        *shk__entry_at(store, target) = 0;
    EXPECT(.restored = PAIRS + 5);
    finish();
}

static void wrong_entries_are_replaced(void)
{
    start();
    for (unsigned bit = 0; bit < 64; bit++) {
        *entry_of("c7", 0) ^= UINT64_C(1) << bit; /* slot, generation or tag */
        EXPECT(.restored = 1, .dropped = {[SHK_DROP_entry] = 1});
    }
    /* One that names a slot in use, a free one, and the other's place. */
    uint64_t *empty = NULL;
    for (uint64_t target = 0; !empty; target++)
        if (*shk__entry_at(store, target) == 0)
            empty = shk__entry_at(store, target);
    const uint64_t words[] = {*entry_of("c8", 0), shk__entry(free_slot(), 1, 5), 1, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        *empty = words[i];
        struct shk_repair_report report;
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_EQUAL(report.dropped[SHK_DROP_entry], 1);
        CHECK(report.restored <= 1); /* a copy before the right place is as good as it */
        CHECK_SOUND(store);
        for (unsigned n = 0; n < PAIRS; n++)
            check_pair(n);
        memcpy(store->base, image, size);
    }
    uint64_t *a = entry_of("c7", 0), *b = entry_of("c8", 0), word = *a;
    *a = *b;
    *b = word;
    struct shk_repair_report report;
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_EQUAL(report.kept, PAIRS + 5);
    CHECK_SOUND(store);
    finish();
}

static void damaged_records_are_dropped_and_wiped(void)
{
    start();
    for (unsigned what = 0; what < 7; what++) {
        struct shk_slot_shm *slot = slot_of("c9", 0);
        unsigned char *bytes = (unsigned char *)slot;
        switch (what) {
        case 0:
            slot->key_length = 0;
            break;
        case 1:
            slot->key_length = 129;
            break;
        case 2:
            slot->flags = 64;
            break;
        case 3:
            slot->flags = SHK_FLAGS_HAS_PREVIOUS;
            break;
        case 4:
            bytes[SHK_STATUS_OFFSET] = 2;
            break;
        case 5:
            memset(bytes + SHK_IDS_OFFSET, 'x', 12); /* no NUL */
            break;
        default:
            bytes[SHK_IDS_OFFSET + 12] = 0; /* an empty server */
        }
        struct shk_repair_report report;
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_EQUAL(report.dropped[SHK_DROP_damaged], 1);
        CHECK_EQUAL(report.dropped[SHK_DROP_entry], 1);
        CHECK(!store_holds(store, "key-of-number-9"));
        memcpy(store->base, image, size);
        /* The same, with all the other checks. */
        slot->key_length = 200;
        EXPECT(.lost = 10, .dropped = {[SHK_DROP_damaged] = 1, [SHK_DROP_entry] = 1});
    }
    /* An id that was changed is another pair's, whose place is elsewhere. */
    ((unsigned char *)slot_of("c9", 0))[SHK_IDS_OFFSET] = 'd';
    EXPECT(.lost = 10, .restored = 1, .dropped = {[SHK_DROP_entry] = 1});
    /* Of a pair with a previous key: that is an orphan then. */
    slot_of("c2", 0)->key_length = 0;
    EXPECT(.lost = 3,
           .dropped = {[SHK_DROP_damaged] = 1, [SHK_DROP_entry] = 1, [SHK_DROP_orphan] = 1});
    finish();
}

static void generations(void)
{
    start();
    /* Another even one: the record is as good as before. */
    slot_of("c9", 0)->generation += 2;
    EXPECT(.restored = 1, .dropped = {[SHK_DROP_entry] = 1});
    slot_of("c9", 0)->generation |= UINT64_C(1) << 63;
    EXPECT(.restored = 0);
    slot_of("c9", 0)->generation = UINT64_MAX - 1;
    EXPECT(.restored = 1, .dropped = {[SHK_DROP_entry] = 1});
    /* An odd one says that the slot is free. */
    slot_of("c9", 0)->generation++;
    EXPECT(.lost = 10, .dropped = {[SHK_DROP_entry] = 1});
    /* Of a free slot. */
    static const uint64_t values[] = {0, 2, 7, UINT64_MAX, UINT64_MAX - 1};
    for (size_t i = 0; i < 5; i++) {
        shk__slot(store, free_slot())->generation = values[i];
        bool even = values[i] && values[i] % 2 == 0;
        EXPECT(.dropped = {[SHK_DROP_damaged] = even});
    }
    finish();
}

/* From any generation on slots are used again without end. */
static void generations_do_not_end(void)
{
    struct shk_repair_report report;
    store = store_make(1, 0, 0);
    for (int i = 0; i < 20; i++)
        CHECK_CODE(put(store, "a", "key"), 0);
    for (uint32_t slot = 0; slot < store->geometry.slots; slot++)
        if (shk__slot(store, slot)->generation % 2)
            shk__slot(store, slot)->generation = UINT64_MAX - 2 * slot;
    for (int i = 0; i < 100; i++) {
        CHECK_CODE(put(store, "a", "key"), 0);
        CHECK_CODE(get(store, "a", "key"), 0);
        CHECK_SOUND(store);
    }
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_SOUND(store);
    finish();
}

/* A copy of the record of c10 in a free slot, under another generation. */
static uint32_t make_twin(uint64_t later)
{
    uint32_t number = free_slot();
    struct shk_slot_shm *slot = shk__slot(store, number);
    uint64_t generation = slot->generation + 1;
    memcpy(slot, slot_of("c10", 0), store->geometry.record_size);
    slot->generation = generation;
    ((uint64_t *)slot)[store->geometry.times_offset / 8] += later;
    memcpy((unsigned char *)slot + store->geometry.key_offset, "KEY", 3);
    return number;
}

static void twins(void)
{
    start();
    /* No entry names it: it never was the pair's, or is not any more. */
    (void)make_twin(1);
    EXPECT(.dropped = {[SHK_DROP_twin] = 1});
    /* An entry names each: the newer one stands. */
    for (int newer = 0; newer < 2; newer++) {
        uint32_t number = make_twin(newer ? 1 : (uint64_t)-1);
        struct shk__query query = query_of(store, "c10", 0);
        uint32_t bucket = query.home, passed = 0;
        unsigned way = 0;
        while (shk__bucket(store, bucket)->entries[way])
            if (++way == SHK_WAYS) {
                bucket = shk__next_bucket(store, bucket);
                way = 0;
                passed++;
            }
        shk__index_overflow_locked(store, &query, passed, 1);
        shk__bucket(store, bucket)->entries[way] =
            shk__entry(number, shk__slot(store, number)->generation, query.tag);
        struct shk_repair_report report;
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_EQUAL(report.dropped[SHK_DROP_twin], 1);
        CHECK_EQUAL(report.kept, PAIRS + 5);
        CHECK_EQUAL(report.restored, 0);
        CHECK_SOUND(store);
        CHECK_CODE(get(store, "c10", newer ? "KEY-of-number-10" : "key-of-number-10"), 0);
        CHECK(!store_holds(store, newer ? "key-of-number-10" : "KEY-of-number-10"));
        memcpy(store->base, image, size);
    }
    finish();
}

static void orphans(void)
{
    start();
    /* Its pair is gone, names the other variant, or none. */
    uint32_t role = role_of("c1"), flag = shk__previous_flag(role);
    slot_of("c1", 0)->flags &= ~flag;
    EXPECT(.lost_previous = 2, .dropped = {[SHK_DROP_orphan] = 1});
    slot_of("c1", 0)->flags ^= SHK_FLAGS_HAS_PREVIOUS;
    EXPECT(.lost_previous = 2, .dropped = {[SHK_DROP_orphan] = 1});
    /* The index has lost it too: it is restored for nobody. */
    slot_of("c1", 0)->flags &= ~flag;
    *entry_of("c1", role) = 0;
    EXPECT(.lost_previous = 2, .dropped = {[SHK_DROP_orphan] = 1});
    /* The index has lost both: both are kept. */
    uint64_t *pair = entry_of("c1", 0), *previous = entry_of("c1", role);
    *pair = *previous = 0;
    EXPECT(.restored = 2);
    /* A record that says it is both, and one that names what is not there. */
    slot_of("c1", 0)->flags |= SHK_FLAG_IS_PREVIOUS;
    EXPECT(.lost = 2,
           .dropped = {[SHK_DROP_damaged] = 1, [SHK_DROP_entry] = 1, [SHK_DROP_orphan] = 1});
    slot_of("c20", 0)->flags |= SHK_FLAG_HAS_PREVIOUS;
    EXPECT(.restored = 0);
    /* What the journal names is nobody's. */
    shk__journal(store)->previous[0] = UINT64_MAX;
    EXPECT(.restored = 0);
    finish();
}

/* More records than there may be: what the index had is kept before what it had lost. */
static void excess(void)
{
    struct shk_repair_report report;
    store = store_make(10, 0, 0);
    for (unsigned i = 0; i < 9; i++)
        CHECK_CODE(put(store, numbered(i), key_of(i)), 0);
    CHECK_CODE(rotate(store, "c0", key_of(0), HOUR), 0);
    for (int entries = 0; entries < 2; entries++) {
        for (unsigned i = 0; i < 5; i++) {
            char client[12];
            uint64_t high_water = shk__ledger(store)->high_water;
            uint32_t number = (uint32_t)high_water;
            CHECK(number < store->geometry.slots);
            struct shk_slot_shm *slot = shk__slot(store, number);
            memcpy(slot, slot_of("c5", 0), store->geometry.record_size);
            slot->generation = 2;
            (void)snprintf(client, sizeof client, "x%u", i + 10 * (unsigned)entries);
            memset((unsigned char *)slot + SHK_IDS_OFFSET, 0, 12);
            memcpy((unsigned char *)slot + SHK_IDS_OFFSET, client, strlen(client));
            shk__ledger(store)->high_water = high_water + 1;
            if (entries) {
                struct shk__query query = query_of(store, client, 0);
                struct shk__place place = place_of(store, client, 0);
                shk__index_overflow_locked(store, &query, place.passed, 1);
                *shk__entry_at(store, place.target) = shk__entry(number, 2, query.tag);
            }
            if (entries && number + 1 == store->geometry.slots)
                break;
        }
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_EQUAL(report.kept, 10);
        CHECK_EQUAL(report.restored, 0);
        CHECK(report.dropped[SHK_DROP_excess] > 0);
        CHECK_SOUND(store);
        if (entries == 0)
            for (unsigned i = 0; i < 9; i++)
                CHECK_CODE(get(store, numbered(i), key_of(i)), 0);
        CHECK_EQUAL(store_stats(store).previous_keys, entries == 0);
        CHECK_EQUAL(report.dropped[SHK_DROP_orphan], 0);
    }
    CHECK_CODE(put(store, "new", "key"), SHK_E_FULL);
    CHECK_CODE(put(store, "c0", "key"), 0);
    finish();
}

static void bytes_that_must_be_zero(void)
{
    start();
    const struct shk__geometry *g = &store->geometry;
    for (uint32_t at = g->key_offset + 16; at < g->times_offset; at++) { /* behind the key */
        ((unsigned char *)slot_of("c11", 0))[at] = 1;
        EXPECT(.restored = 0);
    }
    for (uint32_t at = 8; at < g->record_size; at += 8) {
        ((unsigned char *)shk__slot(store, free_slot()))[at] = 1;
        EXPECT(.restored = 0);
        /* Slots behind the mark, the next and the last. */
        ((unsigned char *)shk__slot(store, (uint32_t)shk__ledger(store)->high_water))[at] = 1;
        EXPECT(.restored = 0);
        ((unsigned char *)shk__slot(store, g->slots - 1))[at] = 1;
        EXPECT(.restored = 0);
    }
    finish();
}

static void journals(void)
{
    start();
    struct shk_report found;
    /* Kinds that nobody has, and fields that nobody stores. */
    for (uint64_t kind = SHK_CHANGE_COUNT; kind < SHK_CHANGE_REPAIR; kind += 9) {
        shk__journal(store)->kind = kind;
        CHECK_CODE(put(store, "a", "key"), SHK_E_CORRUPT);
        CHECK_CODE(shk_store_verify(store, &found), 0);
        CHECK(found.faults[SHK_CHECK_journal] == 1);
        EXPECT(.dropped = {[SHK_DROP_journal] = 1});
    }
    shk__journal(store)->kind = SHK_CHANGE_OVERWRITE;
    shk__journal(store)->target = UINT64_MAX;
    EXPECT(.dropped = {[SHK_DROP_journal] = 1});
    /* One whose entry is neither the old nor the new. */
    shk__journal(store)->kind = SHK_CHANGE_OVERWRITE;
    shk__journal(store)->target = place_of(store, "c3", 0).target;
    shk__journal(store)->old_word = shk__entry(3, 2, 1);
    shk__journal(store)->retired = 3;
    shk__journal(store)->new_word = 0;
    EXPECT(.dropped = {[SHK_DROP_journal] = 1});
    /* A repair that was broken off is begun anew by whoever comes next. */
    *entry_of("c12", 0) = 0;
    shk__journal(store)->kind = SHK_CHANGE_REPAIR;
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_EQUAL(shk__journal(store)->kind, SHK_CHANGE_NONE);
    check_pair(12);
    CHECK_CODE(drop(store, "a"), 0);
    EXPECT(.restored = 0);
    finish();
}

static void the_lock_word(void)
{
    static const uint32_t words[] = {UINT32_MAX, SHK_LOCK_WAITERS, SHK_WRITERS_MAX + 1,
                                     0x7FFFFFFF, SHK_LOCK_WAITERS | 0x12345, 700};
    start();
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        shk__lock_word(store)->word = words[i];
        EXPECT(.restored = 0);
        CHECK_EQUAL(shk__lock_word(store)->word, 0);
    }
    finish();
}

/* The ring can hold anything: afterwards a change is as it was, or lost, never nonsense. */
static void the_ring(void)
{
    start();
    struct shk_repair_report report;
    struct shk_change changes[64];
    uint64_t revision = store_stats(store).revision;
    CHECK_EQUAL(shk_store_changes(store, revision - 10, changes, 64), 10);
    static const uint64_t kinds[] = {0, 8, 9, 64, UINT64_MAX};
    for (size_t i = 0; i < 5; i++) {
        shk__ring_at(store, revision - 5)->kind = kinds[i];
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_CODE(shk_store_changes(store, revision - 10, changes, 64), SHK_E_CHANGES_LOST);
        CHECK_EQUAL(shk_store_changes(store, revision - 4, changes, 64), 4);
        memcpy(store->base, image, size);
    }
    /* What repair itself changed is not in the ring. */
    *entry_of("c13", 0) = 0;
    CHECK_CODE(shk_store_repair(store, &report), 0);
    CHECK_CODE(shk_store_changes(store, revision, changes, 64), SHK_E_CHANGES_LOST);
    CHECK(store_stats(store).revision > revision);
    revision = store_stats(store).revision;
    CHECK_CODE(put(store, "c13", "key"), 0);
    CHECK_EQUAL(shk_store_changes(store, revision, changes, 64), 1);
    finish();
}

/* Sound pairs are found at any moment of a repair, by readers that don't wait. */
static void readers_go_on(void)
{
    start();
    uint32_t *stop = test_shared(sizeof *stop);
    uint64_t *reads = test_shared(sizeof *reads);
    pid_t pid = test_fork();
    if (pid == 0) {
        shk_store *reader = store_again(store, &store_reading);
        while (!__atomic_load_n(stop, __ATOMIC_ACQUIRE))
            for (unsigned i = 10; i < PAIRS; i++) {
                CHECK_CODE(get(reader, numbered(i), key_of(i)), 0);
                ++*reads;
            }
        _exit(0);
    }
    uint64_t until = shk__monotonic() + (is_long() ? 10 : 1) * SHK_SECOND, repairs = 0;
    chance_start();
    while (shk__monotonic() < until) {
        struct shk_repair_report report;
        /* Damage that hides none of them. */
        shk__bucket(store, chance_below(store->geometry.buckets))->overflow += 1000;
        shk__ledger(store)->head = chance_below(1000);
        shk__ledger(store)->records = chance_below(1000);
        *entry_of("c0", role_of("c0")) ^= 1u << 16;
        *entry_of("c1", 0) ^= UINT64_C(1) << 20;
        CHECK_CODE(shk_store_repair(store, &report), 0);
        CHECK_EQUAL(report.kept, PAIRS + 5);
        repairs++;
    }
    __atomic_store_n(stop, 1, __ATOMIC_RELEASE);
    test_join(pid);
    printf("%llu repairs beside %llu reads\n", (unsigned long long)repairs,
           (unsigned long long)*reads);
    CHECK(repairs > 10 && *reads > 1000);
    CHECK_SOUND(store);
    finish();
}

static void reasons_have_names(void)
{
    for (int i = 0; i < SHK_DROP_COUNT; i++)
        CHECK(*shk_drop_name((enum shk_drop)i) && *shk_drop_text((enum shk_drop)i));
    CHECK(!shk_drop_name(SHK_DROP_COUNT) && !shk_drop_text(SHK_DROP_COUNT));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(a_sound_store_stays_as_it_is),
        TEST(counts_and_queue),
        TEST(overflow_counts),
        TEST(lost_entries_are_restored),
        TEST(wrong_entries_are_replaced),
        TEST(damaged_records_are_dropped_and_wiped),
        TEST(generations),
        TEST(generations_do_not_end),
        TEST(twins),
        TEST(orphans),
        TEST(excess),
        TEST(bytes_that_must_be_zero),
        TEST(journals),
        TEST(the_lock_word),
        TEST(the_ring),
        TEST(readers_go_on),
        TEST(reasons_have_names),
    };
    return TEST_MAIN(argc, argv, tests);
}
