/* test_expiry.c: what has expired reads as EXPIRED, then as ABSENT, and gives its room back. */
#include "store_fixture.h"

#include "expiry.h"

#define PAST 1 /* a date long ago */

static void expired_pairs_read_as_expired_until_reclaimed(void)
{
    shk_store *store = store_make(100, 0, 0);
    CHECK_CODE(put_with(store, "gone", "key", (struct shk_put){.expires = PAST}), 0);
    CHECK_CODE(get(store, "gone", ""), SHK_E_EXPIRED);
    CHECK_EQUAL(record_of(store, "gone").expires, PAST);
    CHECK_EQUAL(store_stats(store).records, 1);
    uint64_t purged = 99;
    CHECK_CODE(shk_store_purge_expired(store, &purged), 0);
    CHECK_EQUAL(purged, 1);
    CHECK_CODE(get(store, "gone", ""), SHK_E_ABSENT);
    CHECK_EQUAL(store_stats(store).records, 0);
    CHECK_EQUAL(store_stats(store).reclaimed, 1);
    CHECK_CODE(shk_store_purge_expired(store, &purged), 0);
    CHECK_EQUAL(purged, 0);
    CHECK_SOUND(store);
    store_end(store);
}

static void time_to_live_ends(void)
{
    shk_store *store = store_make(10, 0, 0);
    CHECK_CODE(put_for(store, "a", "key", 60 * SHK_MILLISECOND), 0);
    CHECK_CODE(get(store, "a", "key"), 0);
    test_sleep(80);
    CHECK_CODE(get(store, "a", ""), SHK_E_EXPIRED);
    /* put brings it back, without end. */
    CHECK_CODE(put(store, "a", "new"), 0);
    CHECK_CODE(get(store, "a", "new"), 0);
    CHECK_EQUAL(record_of(store, "a").expires, 0);
    /* No time to live is too long for the date that it leads to. */
    CHECK_CODE(put_for(store, "b", "key", UINT64_MAX), 0);
    CHECK(record_of(store, "b").expires == UINT64_MAX);
    CHECK_CODE(get(store, "b", "key"), 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* The hand looks at two slots an insert: of n expired records n inserts leave none. */
static void the_hand_reclaims_by_and_by(void)
{
    enum { EXPIRED = 40 };
    shk_store *store = store_make(1000, 0, 0);
    for (unsigned i = 0; i < EXPIRED; i++)
        CHECK_CODE(put_with(store, numbered(i), "secret-of-the-expired",
                            (struct shk_put){.expires = PAST}),
                   0);
    CHECK(store_stats(store).records <= EXPIRED);
    for (unsigned i = 0; i < 2 * EXPIRED; i++)
        CHECK_CODE(put(store, numbered(1000 + i), "stays"), 0);
    CHECK_EQUAL(store_stats(store).records, 2 * EXPIRED);
    CHECK_EQUAL(store_stats(store).reclaimed, EXPIRED);
    CHECK(!store_holds(store, "secret-of-the-expired"));
    for (unsigned i = 0; i < 2 * EXPIRED; i++)
        CHECK_CODE(get(store, numbered(1000 + i), "stays"), 0);
    CHECK_SOUND(store);
    store_end(store);
}

/* Nothing can have expired: an insert looks at no slot, and moves no hand. */
static void nothing_is_looked_at_in_vain(void)
{
    shk_store *store = store_make(100, 0, 0);
    for (unsigned i = 0; i < 20; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    CHECK_EQUAL(shk__ledger(store)->hand, 0);
    CHECK_EQUAL(shk__ledger(store)->earliest, 0);
    CHECK_CODE(put_for(store, "later", "key", 3600 * SHK_SECOND), 0);
    uint64_t earliest = record_of(store, "later").expires;
    CHECK(shk__ledger(store)->earliest == earliest);
    CHECK_CODE(put_for(store, "even later", "key", 7200 * SHK_SECOND), 0);
    CHECK(shk__ledger(store)->earliest == earliest);
    CHECK_CODE(put(store, "new", "key"), 0);
    CHECK_EQUAL(shk__ledger(store)->hand, 0);
    /* A touch can be the first to expire too. */
    CHECK_CODE(shk_store_touch(store, text("new"), SERVER, 60 * SHK_SECOND), 0);
    CHECK(shk__ledger(store)->earliest == record_of(store, "new").expires);
    store_end(store);
}

/* Shorter than a tick of the coarse clock, by which readers go. */
static void a_full_store_is_swept_by_the_fine_clock(void)
{
    enum { CAPACITY = 50 };
    shk_store *store = store_make(CAPACITY, 0, 0);
    for (unsigned i = 0; i < 40 * CAPACITY; i++)
        CHECK_CODE(put_for(store, numbered(i), "short", 1000), 0);
    CHECK(store_stats(store).records <= CAPACITY);
    CHECK(store_stats(store).reclaimed >= 39 * CAPACITY);
    CHECK_SOUND(store);
    store_end(store);
}

static void a_full_store_sweeps_before_it_fails(void)
{
    enum { CAPACITY = 30 };
    shk_store *store = store_make(CAPACITY, 0, 0);
    for (unsigned i = 0; i < CAPACITY; i++)
        CHECK_CODE(put_for(store, numbered(i), "key", (i % 3 ? 3600000 : 300) * SHK_MILLISECOND),
                   0); /* none has expired before the last is there, also on a busy machine */
    test_sleep(320);
    CHECK_EQUAL(store_stats(store).records, CAPACITY);
    /* The whole of it at once: the sweep takes all that has expired. */
    CHECK_CODE(put(store, "new", "key"), 0);
    CHECK(store_stats(store).reclaimed >= 1);
    for (unsigned i = 1; i < CAPACITY / 3; i++)
        CHECK_CODE(put(store, numbered(100 + i), "key"), 0);
    CHECK_CODE(put(store, "excess", "key"), SHK_E_FULL);
    CHECK(strstr(shk_error_detail(), "30"));
    CHECK_EQUAL(store_stats(store).records, CAPACITY);
    CHECK_EQUAL(store_stats(store).reclaimed, CAPACITY / 3);
    /* And has learnt when it is worth it again. */
    CHECK(shk__ledger(store)->earliest > shk__realtime_fine());
    for (unsigned i = 0; i < CAPACITY; i++)
        CHECK_CODE(get(store, numbered(i), "key"), i % 3 ? 0 : SHK_E_ABSENT);
    CHECK_SOUND(store);
    store_end(store);
}

/* The million of the promise, in a store a thousandth of it large. */
static void a_million_short_lived_pairs(void)
{
    const unsigned pairs = is_long() || !TEST_TSAN ? 1000000 : 50000;
    shk_store *store = store_make(1000, 0, 0);
    for (unsigned i = 0; i < pairs; i++)
        CHECK_CODE(put_for(store, numbered(i), "short-lived", 10 * 1000), 0);
    struct shk_stats stats = store_stats(store);
    CHECK(stats.records <= 1000 && stats.reclaimed + stats.records == pairs);
    CHECK_SOUND(store);
    store_end(store);
}

/* Also where the expired lie behind the high-water mark's first chunk. */
static void purge_goes_through_every_chunk(void)
{
    enum { PAIRS = 10000 };
    shk_store *store = store_make(PAIRS, 0, 0);
    uint64_t purged;
    for (unsigned i = 0; i < PAIRS; i++)
        CHECK_CODE(put_with(store, numbered(i), "key",
                            (struct shk_put){.expires = i % 10 ? 0 : UINT64_MAX - 1}),
                   0);
    /* Expired by hand: inserts would have reclaimed them by and by. */
    for (unsigned i = 0; i < PAIRS; i += 10) {
        uint32_t slot = shk__entry_slot(place_of(store, numbered(i), 0).word);
        ((uint64_t *)shk__slot(store, slot))[store->geometry.times_offset / 8 + 1] = PAST;
    }
    CHECK_CODE(shk_store_purge_expired(store, &purged), 0);
    CHECK_EQUAL(purged, PAIRS / 10);
    for (unsigned i = 0; i < PAIRS; i++)
        CHECK_CODE(get(store, numbered(i), "key"), i % 10 ? 0 : SHK_E_ABSENT);
    CHECK_SOUND(store);
    store_end(store);
}

/* Hints: whatever they hold, nothing that lives is reclaimed and nothing fails. */
static void wrong_hints_do_no_harm(void)
{
    static const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63, 12345};
    for (size_t i = 0; i < 25; i++) {
        shk_store *store = store_make(20, 0, 0);
        CHECK_CODE(put_for(store, "later", "key", 3600 * SHK_SECOND), 0);
        shk__ledger(store)->hand = values[i % 5];
        shk__ledger(store)->earliest = values[i / 5];
        for (unsigned n = 0; n < 19; n++)
            CHECK_CODE(put(store, numbered(n), "key"), 0);
        CHECK_CODE(put(store, "too many", "key"), SHK_E_FULL);
        CHECK_CODE(get(store, "later", "key"), 0);
        CHECK_SOUND(store);
        store_end(store);
    }
}

/* An insert beside pairs that expire under it keeps agreeing with a table. */
static void churn_with_times_to_live(void)
{
    enum { PAIRS = 60, CAPACITY = 21, ROUNDS = 20000 };
    shk_store *store = store_make(CAPACITY, 0, 0);
    char expected[PAIRS][12] = {{0}};
    bool lives[PAIRS] = {false};
    unsigned living = 0;
    chance_start();
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned n = chance_below(PAIRS);
        bool expires = chance_below(3) != 0;
        if (chance_below(4) == 0) {
            int rc = drop(store, numbered(n));
            CHECK(lives[n] ? rc == 0 : rc == 0 || rc == SHK_E_ABSENT);
            living -= lives[n];
            lives[n] = false;
            continue;
        }
        (void)snprintf(expected[n], sizeof expected[n], "k%u", round);
        int rc = put_with(store, numbered(n), expected[n],
                          (struct shk_put){.expires = expires ? PAST : 0});
        if (living == CAPACITY && !lives[n]) {
            CHECK_CODE(rc, SHK_E_FULL);
            continue;
        }
        CHECK_CODE(rc, 0);
        living += (unsigned)!expires - (unsigned)lives[n];
        lives[n] = !expires;
        if (round % 100 == 0)
            CHECK_SOUND(store);
    }
    for (unsigned n = 0; n < PAIRS; n++) {
        int rc = get(store, numbered(n), expected[n]);
        CHECK(lives[n] ? rc == 0 : rc == SHK_E_EXPIRED || rc == SHK_E_ABSENT);
    }
    store_end(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(expired_pairs_read_as_expired_until_reclaimed),
        TEST(time_to_live_ends),
        TEST(the_hand_reclaims_by_and_by),
        TEST(nothing_is_looked_at_in_vain),
        TEST(a_full_store_is_swept_by_the_fine_clock),
        TEST(a_full_store_sweeps_before_it_fails),
        TEST(a_million_short_lived_pairs),
        TEST(purge_goes_through_every_chunk),
        TEST(wrong_hints_do_no_harm),
        TEST(churn_with_times_to_live),
    };
    return TEST_MAIN(argc, argv, tests);
}
