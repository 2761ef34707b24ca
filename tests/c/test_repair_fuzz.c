/* test_repair_fuzz.c: random damage anywhere behind the header, then repair: verify() finds
 * nothing, what was not damaged is there, and readers beside it all are never held up.
 *
 * TEST_SEED=n repeats a run, TEST_LONG=1 makes it a hundred times as long.
 */
#include "store_fixture.h"

#define PAIRS 30u
#define CAPACITY 40u
#define HOUR (3600 * SHK_SECOND)
#define OLD "key-before-the-rotation"

static shk_store *store, *reader;
static unsigned char image[1 << 17], damaged[1 << 17];
static size_t size;
static uint32_t own; /* what the lock word is when this process holds it */
static struct place {
    uint32_t slot, previous; /* NONE: it has none */
    uint64_t target;
} places[PAIRS];
#define NONE UINT32_MAX

static char *key_of(unsigned number)
{
    static char key[32];
    (void)snprintf(key, sizeof key, "key-of-number-%u", number);
    return key;
}

static void start(void)
{
    store = store_make(CAPACITY, 0, 64);
    reader = store_again(store, &store_reading);
    shk_store_set_lock_timeout(store, SHK_MILLISECOND);
    size = store->geometry.total_size;
    CHECK(size <= sizeof image);
    for (unsigned i = 0; i < PAIRS; i++) {
        CHECK_CODE(put(store, numbered(i), i % 6 ? key_of(i) : OLD), 0);
        if (i % 6 == 0)
            CHECK_CODE(rotate(store, numbered(i), key_of(i), HOUR), 0);
    }
    CHECK_CODE(rotate(store, "c29", key_of(29), 0), 0);
    CHECK_CODE(put(store, "gone", "key"), 0);
    CHECK_CODE(drop(store, "gone"), 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        uint32_t flags = 0;
        struct shk_record about;
        struct shk__place place = place_of(store, numbered(i), 0);
        places[i].slot = shk__entry_slot(place.word);
        places[i].target = place.target;
        shk__slot_describe_locked(store, places[i].slot, &about, &flags);
        struct shk__query pair = query_of(store, numbered(i), 0), previous;
        places[i].previous = NONE;
        if (shk__previous_query(store, &pair, flags, &previous))
            places[i].previous =
                shk__entry_slot(place_of(store, numbered(i), previous.role).word);
    }
    CHECK_CODE(shk__store_begin(store), 0);
    own = shk__load(&shk__lock_word(store)->word) & ~SHK_LOCK_WAITERS;
    shk__store_end(store);
    memcpy(image, store->base, size);
}

static unsigned char damaged_byte(unsigned char old, unsigned char other)
{
    switch (chance_below(4)) {
    case 0:
        return (unsigned char)(old ^ 1u << chance_below(8));
    case 1:
        return other;
    default:
        return (unsigned char)chance_below(256);
    }
}

/* 1 to 50 bytes: single ones, runs, and copies of what stands elsewhere. */
static void damage(void)
{
    const uint32_t from = 1024, ring_end = (uint32_t)store->geometry.buckets_offset;
    uint32_t left = 1 + chance_below(50);
    memcpy(damaged, image, size);
    while (left > 0) {
        /* The ring is large and holds little: it gets an eighth. */
        uint32_t at = chance_below(8) == 0 ? from + chance_below((uint32_t)size - from)
                      : chance_below(4) == 0
                          ? from + chance_below((uint32_t)store->geometry.ring_offset - from)
                          : ring_end + chance_below((uint32_t)size - ring_end);
        uint32_t run = 1 + (chance_below(3) == 0 ? chance_below(left) : 0);
        if (run > size - at)
            run = (uint32_t)size - at;
        uint32_t source = chance_below((uint32_t)size - run);
        for (uint32_t i = 0; i < run; i++)
            damaged[at + i] = damaged_byte(damaged[at + i], image[source + i]);
        left -= run;
    }
}

static bool is_whole(uint32_t slot)
{
    size_t at = store->geometry.records_offset + (size_t)slot * store->geometry.record_size;
    return memcmp(damaged + at, image + at, store->geometry.record_size) == 0;
}

/* The index has lost the pair, and damage gave its ids to another record, perhaps a newer one. */
static bool has_impostor(unsigned number)
{
    const struct shk__geometry *g = &store->geometry;
    const size_t at = g->records_offset + SHK_IDS_OFFSET, ids_size = 2 * (size_t)g->id_size;
    const unsigned char *ids = image + at + (size_t)places[number].slot * g->record_size;
    const size_t entry = (size_t)((unsigned char *)shk__entry_at(store, places[number].target) -
                                  store->base);
    if (memcmp(damaged + entry, image + entry, 8) == 0)
        return false;
    for (uint32_t slot = 0; slot < g->slots; slot++)
        if (!is_whole(slot) && memcmp(damaged + at + (size_t)slot * g->record_size, ids, ids_size) == 0)
            return true;
    return false;
}

/* The lock may seem to be held by this process, which lives: that can't be told from truth. */
static bool free_own_lock(int rc)
{
    if (rc != SHK_E_TIMEOUT)
        return false;
    uint32_t word = shk__load(&shk__lock_word(store)->word);
    if ((word & ~SHK_LOCK_WAITERS) != own)
        FAIL("the lock word is %#x", word);
    shk__store(&shk__lock_word(store)->word, 0);
    return true;
}

static void check_what_is_whole(unsigned long round)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        if (!is_whole(places[i].slot) || has_impostor(i))
            continue;
        if (get(store, numbered(i), key_of(i)) != 0)
            FAIL("round %lu: c%u is lost", round, i);
        if (places[i].previous != NONE && is_whole(places[i].previous) &&
            get_by_id(store, numbered(i), (int32_t)(i + i / 6 + 1), OLD) != 0)
            FAIL("round %lu: the previous key of c%u is lost", round, i);
    }
}

static unsigned long one_round(unsigned long round)
{
    struct shk_repair_report report, again;
    damage();
    /* By words, so that a reader beside it sees each field old or new. */
    shk__store_words((uint64_t *)(store->base + 1024), (uint64_t *)(damaged + 1024),
                     (size - 1024) / 8);
    /* Half of them are first written to, which may do more damage, or find it. */
    bool written = chance_below(2) == 0;
    for (unsigned i = 0; written && i < 3; i++)
        (void)free_own_lock(put(store, numbered(chance_below(PAIRS)), "written"));
    int rc = shk_store_repair(store, &report);
    if (free_own_lock(rc))
        rc = shk_store_repair(store, &report);
    CHECK_CODE(rc, 0);
    struct shk_report found;
    CHECK_CODE(shk_store_verify(store, &found), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        if (found.faults[i])
            FAIL("round %lu: %s: %llu faults, the first at %llu", round,
                 shk_check_name((enum shk_check)i), (unsigned long long)found.faults[i],
                 (unsigned long long)found.first[i]);
    CHECK_EQUAL(report.kept, store_stats(store).records + store_stats(store).previous_keys);
    if (!written)
        check_what_is_whole(round);
    CHECK_CODE(shk_store_repair(store, &again), 0);
    CHECK_EQUAL(again.kept, report.kept);
    CHECK_EQUAL(again.restored, 0);
    unsigned long dropped = 0;
    for (int i = 0; i < SHK_DROP_COUNT; i++) {
        CHECK_EQUAL(again.dropped[i], 0);
        dropped += report.dropped[i];
    }
    struct shk_change changes[4];
    uint64_t revision = store_stats(store).revision;
    if (revision > 4 && revision < UINT64_MAX) {
        int known = shk_store_changes(store, revision - 4, changes, 4);
        CHECK(known == 4 || known == SHK_E_CHANGES_LOST);
    }
    int inserted = put(store, "new", "key");
    CHECK(inserted == 0 || inserted == SHK_E_FULL || inserted == SHK_E_EXHAUSTED);
    CHECK_SOUND(store);
    shk__store_words((uint64_t *)(store->base + 1024), (uint64_t *)(image + 1024),
                     (size - 1024) / 8);
    return report.restored + dropped;
}

/* Every answer is allowed but none at all, and a key that nobody ever put. */
static void read_on(uint64_t *beats, const uint32_t *stop)
{
    char key[64];
    size_t length;
    struct shk_stats stats;
    struct shk_change change;
    struct shk_pair pair;
    while (!__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
        for (unsigned i = 0; i < PAIRS; i++) {
            (void)shk_store_get_key(reader, text(numbered(i)), SERVER, key, sizeof key, &length);
            (void)shk_store_get_key_by_id(reader, text(numbered(i)), SERVER, (int32_t)i, key,
                                          sizeof key, &length);
            __atomic_fetch_add(beats, 1, __ATOMIC_ACQ_REL);
        }
        (void)shk_store_stats(reader, &stats);
        (void)shk_store_changes(reader, stats.revision > 1 ? stats.revision - 1 : 0, &change, 1);
        shk_cursor *cursor;
        CHECK_CODE(shk_cursor_open(reader, &cursor), 0);
        while (shk_cursor_next(cursor, &pair) == 1)
            continue;
        shk_cursor_close(cursor);
    }
}

static void random_damage(void)
{
    const unsigned long rounds = is_long() ? 1000000 : 10000;
    uint64_t *beats = test_shared(sizeof *beats);
    uint32_t *stop = test_shared(sizeof *stop);
    start();
    chance_start();
    pid_t pid = test_fork();
    if (pid == 0) {
        read_on(beats, stop);
        _exit(0);
    }
    unsigned long changed = 0;
    uint64_t seen = 0, seen_at = shk__monotonic();
    for (unsigned long round = 0; round < rounds; round++) {
        changed += one_round(round) > 0;
        uint64_t now = shk__monotonic(), beats_now = __atomic_load_n(beats, __ATOMIC_ACQUIRE);
        if (beats_now != seen)
            seen_at = now;
        seen = beats_now;
        CHECK(now - seen_at < 20 * SHK_SECOND); /* on a loaded machine; each read takes ms */
    }
    __atomic_store_n(stop, 1, __ATOMIC_RELEASE);
    test_join(pid);
    CHECK(*beats > 0);
    printf("%lu repairs of random damage, %lu of them changed records, beside %llu reads\n", rounds,
           changed, (unsigned long long)*beats);
    shk_store_close(reader);
    store_end(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(random_damage)};
    return TEST_MAIN(argc, argv, tests);
}
