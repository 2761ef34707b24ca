/* expiry.c: the clock hand, the sweep, the purge. */
#include "expiry.h"

#include "clock.h"
#include "error.h"

#define VISITS 2
#define PURGE_CHUNK 4096u /* slots a lock */

uint64_t shk__expiry_room(const shk_store *store)
{
    const struct shk_ledger_shm *ledger = shk__ledger(store);
    uint64_t used = shk__load(&ledger->records) + shk__load(&ledger->previous);
    return used < store->geometry.capacity ? store->geometry.capacity - used : 0;
}

int shk__expiry_check_room(const shk_store *store, const struct shk__place *place)
{
    if (place->word || shk__expiry_room(store) > 0)
        return 0;
    unsigned long long previous = shk__load(&shk__ledger(store)->previous);
    unsigned long long capacity = store->geometry.capacity;
    if (previous == 0)
        return shk__fail(SHK_E_FULL,
                         "the store holds %llu pairs, its capacity: delete some, or copy it to a "
                         "larger store",
                         capacity);
    return shk__fail(SHK_E_FULL,
                     "the store holds %llu pairs and %llu previous keys within their grace, %llu "
                     "records are its capacity: delete some, or copy it to a larger store",
                     (unsigned long long)shk__load(&shk__ledger(store)->records), previous,
                     capacity);
}

/* When the slot's record expires; 0: never, or there is no record. */
static uint64_t expiry_of(const shk_store *store, uint32_t number)
{
    const struct shk_slot_shm *slot = shk__slot(store, number);
    uint64_t generation = shk__load(&slot->generation);
    if (generation == 0 || generation % 2 || !(shk__load(&slot->flags) & SHK_FLAG_EXPIRES))
        return 0;
    return shk__load(&shk__image_times(store, (const uint64_t *)slot)[1]);
}

/* The record in the slot has expired: 1, 0 if it is not where it should be, or CORRUPT. */
static int reclaim(const shk_store *store, uint32_t number)
{
    struct shk__query query;
    struct shk__place place;
    shk__query_of_image(store, (const uint64_t *)shk__slot(store, number), &query);
    int rc = shk__index_find_locked(store, &query, &place);
    if (rc == SHK_E_FULL || (rc == 0 && shk__entry_slot(place.word) != number))
        return 0;
    if (rc < 0)
        return rc;
    uint32_t flags = shk__load(&shk__slot(store, number)->flags);
    bool marked = query.role == 0 && shk__previous_mark_locked(store, &query, flags);
    rc = shk__journal_commit_locked(store, query.role ? SHK_CHANGE_DROP : SHK_CHANGE_EXPIRE, &query,
                                    &place, NULL);
    if (marked) {
        int settled = shk__previous_settle_locked(store);
        rc = rc < 0 ? rc : settled;
    }
    if (rc < 0)
        return rc;
    uint64_t *reclaimed = &shk__stats(store)->reclaimed;
    shk__store(reclaimed, shk__load(reclaimed) + 1);
    return 1;
}

static uint32_t slots_in_use(const shk_store *store)
{
    uint64_t mark = shk__load(&shk__ledger(store)->high_water);
    return mark < store->geometry.slots ? (uint32_t)mark : store->geometry.slots;
}

static bool may_have_expired(const shk_store *store, uint64_t now)
{
    uint64_t earliest = shk__load(&shk__ledger(store)->earliest);
    return earliest && earliest <= now;
}

int shk__expiry_visit_locked(const shk_store *store)
{
    uint32_t slots = slots_in_use(store);
    if (slots == 0 || shk__load(&shk__ledger(store)->earliest) == 0)
        return 0;
    uint64_t now = shk__realtime();
    if (!may_have_expired(store, now))
        return 0;
    uint64_t *hand = &shk__ledger(store)->hand;
    int rc = 0;
    for (int i = 0; i < VISITS && rc >= 0; i++) {
        uint32_t number = (uint32_t)(shk__load(hand) % slots);
        shk__store(hand, (uint64_t)number + 1);
        uint64_t expires = expiry_of(store, number);
        if (expires && expires <= now)
            rc = reclaim(store, number);
    }
    return rc < 0 ? rc : 0;
}

int shk__expiry_sweep_locked(const shk_store *store)
{
    uint64_t now = shk__realtime_fine();
    if (!may_have_expired(store, now))
        return 0;
    uint64_t earliest = 0;
    uint32_t slots = slots_in_use(store);
    for (uint32_t number = 0; number < slots; number++) {
        uint64_t expires = expiry_of(store, number);
        if (expires == 0)
            continue;
        int rc = expires <= now ? reclaim(store, number) : 0;
        if (rc < 0)
            return rc;
        if (rc == 0 && (earliest == 0 || expires < earliest))
            earliest = expires;
    }
    shk__store(&shk__ledger(store)->earliest, earliest);
    return 0;
}

int shk_store_purge_expired(shk_store *store, uint64_t *purged)
{
    uint64_t count = 0;
    for (uint32_t from = 0, slots = 1; from < slots;) {
        int rc = shk__store_begin(store);
        if (rc < 0)
            return rc;
        slots = slots_in_use(store);
        uint64_t now = shk__realtime_fine();
        uint32_t chunk_end = slots - from < PURGE_CHUNK ? slots : from + PURGE_CHUNK;
        for (; from < chunk_end && rc >= 0; from++) {
            uint64_t expires = expiry_of(store, from);
            rc = expires && expires <= now ? reclaim(store, from) : 0;
            count += rc > 0;
        }
        shk__store_end(store);
        if (rc < 0)
            return rc;
    }
    if (purged)
        *purged = count;
    return 0;
}
