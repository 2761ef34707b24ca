/* store.c: whether a store is alive, taking turns in it, and what is known about it. */
#include "store.h"

#include <errno.h>
#include <string.h>
#include <sys/shm.h>

#include "collapse.h"
#include "error.h"
#include "host.h"
#include "move.h"
#include "previous.h"
#include "realm.h"
#include "removal.h"
#include "repair.h"
#include "watch.h"

/* ------------------------------------------------------------------- lock -- */

int shk__store_check_live(const shk_store *store)
{
    uint64_t state = shk__load(&shk__header(store)->state);
    if (state == SHK_STATE_LIVE)
        return 0;
    if (state == SHK_STATE_REMOVED)
        return shk__fail(SHK_E_REMOVED, "%s was destroyed", store->title);
    if (state == SHK_STATE_MOVED)
        return shk__moved(store);
    return shk__fail(SHK_E_CORRUPT, "the state of %s is none that an open store can have",
                     store->title);
}

/* Why the lock could not be had, in terms of the store. */
static int explain_lock(const shk_store *store, int rc)
{
    if (shk__load(&shk__header(store)->state) == SHK_STATE_REMOVED) {
        shk__removal_finish(store); /* its destroyer may have died */
        return shk__fail(SHK_E_REMOVED, "%s was destroyed", store->title);
    }
    if (rc != -EIDRM && rc != SHK_E_CORRUPT)
        return rc;
    int elsewhere = shk__namespace_check(store);
    if (elsewhere == 0)
        elsewhere = shk__realm_check(store);
    if (elsewhere < 0)
        return elsewhere;
    struct shk_segment_info info;
    if (!shk__is_in_memory(store) &&
        (shk_segment_stat(store->info.id, &info) < 0 || info.mode & SHM_DEST))
        return shk__fail(SHK_E_REMOVED, "%s was removed by hand", store->title);
    if (rc == -EIDRM)
        return shk__fail(SHK_E_CORRUPT,
                         "semaphore set %d of %s was removed, so a living writer can't be told "
                         "from a dead one: the store can still be read and destroyed",
                         store->info.semaphore_id, store->title);
    return rc;
}

/* What a dead writer had begun: its repair, its operation, its previous keys. */
static int recover_locked(const shk_store *store)
{
    uint64_t kind = shk__load(&shk__journal(store)->kind);
    if (kind == SHK_CHANGE_REPAIR)
        return shk__repair_locked(store, &(struct shk_repair_report){0});
    int rc = kind ? shk__journal_recover_locked(store) : 0;
    if (rc >= 0 && shk__previous_unsettled(store))
        rc = shk__previous_settle_locked(store);
    return rc;
}

int shk__store_begin(shk_store *store)
{
    if (store->info.readonly)
        return shk__fail(SHK_E_READONLY, "%s was opened read-only", store->title);
    int acquired = shk__lock_acquire(&store->lock, shk_store_lock_timeout(store));
    if (acquired < 0)
        return explain_lock(store, acquired);
    if (acquired == SHK__FROM_THE_DEAD) {
        uint64_t *takeovers = &shk__stats(store)->takeovers;
        shk__store(takeovers, shk__load(takeovers) + 1);
    }
    int rc = shk__store_check_live(store);
    if (rc == SHK_E_REMOVED) {
        shk__removal_finish(store); /* its destroyer may have died */
        rc = shk__fail(SHK_E_REMOVED, "%s was destroyed", store->title);
    } else if (rc == SHK_E_MOVED) {
        shk__moved_finish(store); /* its mover may have died */
        rc = shk__moved(store);
    } else if (rc == 0 && (rc = shk__realm_check(store)) == 0)
        rc = recover_locked(store);
    if (rc < 0)
        shk__lock_release(&store->lock);
    return rc < 0 ? rc : 0;
}

int shk__store_begin_damaged(shk_store *store)
{
    int acquired = shk__lock_acquire(&store->lock, shk_store_lock_timeout(store));
    if (acquired == SHK_E_CORRUPT && shk__lock_clear_nobody(&store->lock))
        acquired = shk__lock_acquire(&store->lock, shk_store_lock_timeout(store));
    if (acquired < 0)
        return explain_lock(store, acquired);
    int rc = shk__store_check_live(store);
    if (rc == 0)
        rc = shk__realm_check(store);
    if (rc < 0)
        shk__lock_release(&store->lock);
    return rc;
}

void shk__store_end(shk_store *store)
{
    shk__lock_release(&store->lock);
    shk__tell_waiters(store);
    shk__collapse(store);
}

void shk_store_set_lock_timeout(shk_store *store, uint64_t timeout)
{
    shk__store(&store->lock_timeout, timeout);
}

uint64_t shk_store_lock_timeout(const shk_store *store)
{
    return shk__load(&store->lock_timeout);
}

/* ------------------------------------------------------------------ about -- */

void shk_store_info(const shk_store *store, struct shk_info *out)
{
    *out = store->info;
}

int shk_store_slots(const shk_store *store, const void **slots, uint64_t *count)
{
    uint64_t mark = shk__load(&shk__ledger(store)->high_water);
    int rc = shk__store_check_live(store);
    if (rc == 0 && mark > store->geometry.slots)
        rc = shk__fail(SHK_E_CORRUPT, "the high-water mark is %llu of %u slots",
                       (unsigned long long)mark, store->geometry.slots);
    if (rc < 0)
        return rc;
    *slots = shk__slot(store, 0);
    *count = mark;
    return 0;
}

int shk_store_stats(const shk_store *store, struct shk_stats *out)
{
    struct shk_stats stats = {
        .records = shk__load(&shk__ledger(store)->records),
        .previous_keys = shk__load(&shk__ledger(store)->previous),
        .revision = shk__load(&shk__changes(store)->revision),
        .slots_touched = shk__load(&shk__ledger(store)->high_water),
        .reclaimed = shk__load(&shk__stats(store)->reclaimed),
        .takeovers = shk__load(&shk__stats(store)->takeovers),
        .recoveries = shk__load(&shk__stats(store)->recoveries),
        .last_key_id = (int32_t)shk__load(&shk__ledger(store)->last_key_id),
    };
    int rc = shk__store_check_live(store);
    if (rc == 0)
        *out = stats;
    return rc;
}
