/* removal.c: how a handle closes and a store goes.
 *
 *   state LIVE or MOVED -> REMOVED -> entries, then records wiped -> set removed -> segment removed
 *
 * In memory of the caller's the last step is the caller's: it holds a REMOVED store until it is
 * zeroed, which is right once no handle of that store is left (memory.c).
 * Every step may be repeated, and whoever finds a store REMOVED does the rest, so a
 * destroyer may be killed anywhere.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "removal.h"

#include "error.h"
#include "host.h"
#include "realm.h"
#include "watch.h"

#define SHK_WIPED UINT64_MAX /* ledger.high_water once such a store holds no key */

/* Zeroes whole pages by giving them back, and what can't be given back by hand:
 * reading or writing a hole would only fill it with pages. */
static void wipe(unsigned char *from, uint64_t size)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t *word = (uint64_t *)from, *end = (uint64_t *)(from + size);
    unsigned char *first = (unsigned char *)(((uintptr_t)from + page - 1) / page * page);
    unsigned char *last = (unsigned char *)((uintptr_t)end / page * page);
    if (first < last &&
        madvise(first, (size_t)(last - first), MADV_REMOVE) == 0) {
        for (; (unsigned char *)word < first; word++)
            shk__store(word, 0);
        word = (uint64_t *)last;
    }
    for (; word < end; word++)
        shk__store(word, 0);
}

void shk__removal_wipe(const shk_store *store)
{
    const struct shk__geometry *g = &store->geometry;
    struct shk_ledger_shm *ledger = shk__ledger(store);
    uint64_t touched = shk__load(&ledger->high_water);
    if (touched == SHK_WIPED)
        return;
    /* Entries first, so that no reader takes a wiped slot for corruption. Slots that a
     * dead writer had begun to fill stand at the high-water mark. */
    wipe(store->base + g->buckets_offset, g->queue_offset - g->buckets_offset);
    touched = touched < g->slots ? touched + 1 : g->slots;
    uint64_t *words = (uint64_t *)shk__slot(store, 0);
    for (uint64_t i = 0; i < touched * g->record_size / 8; i++)
        shk__store(&words[i], 0);
    /* Of a damaged store the mark may have been too low. */
    wipe((unsigned char *)words + touched * g->record_size, (g->slots - touched) * g->record_size);
    shk__store(&ledger->high_water, SHK_WIPED);
}

void shk__removal_finish(const shk_store *store)
{
    shk__removal_wipe(store);
    if (shk__namespace_check(store) < 0)
        return;
    /* The set first: whoever finds the segment can finish both, but nobody finds the
     * set alone. */
    struct shk__set set;
    shk__set_describe(&set, store->info.semaphore_id, store->info.store_id, store->info.id);
    shk__set_remove(&set);
    if (!shk__is_in_memory(store))
        (void)shk_segment_remove(store->info.id);
}

/* Whoever may write in memory of the caller's may destroy what is there. */
static int check_owner(const shk_store *store)
{
    struct shk_segment_info info;
    if (shk__is_in_memory(store))
        return 0;
    int rc = shk_segment_stat(store->info.id, &info);
    if (rc < 0 || geteuid() == 0 || geteuid() == info.uid || geteuid() == info.cuid)
        return rc;
    return shk__fail(-EPERM, "shmctl(id=%d, IPC_RMID): only its owner (uid %u) or creator (uid %u) "
                             "may destroy a store",
                     info.id, info.uid, info.cuid);
}

int shk_store_destroy(shk_store *store)
{
    if (store->info.readonly)
        return shk__fail(SHK_E_READONLY, "a read-only handle can't destroy %s", store->title);
    int rc = shk__namespace_check(store);
    if (rc == 0)
        rc = shk__realm_check(store);
    if (rc == 0)
        rc = check_owner(store);
    if (rc < 0)
        return rc;
    uint64_t *state = &shk__header(store)->state;
    int locked = shk__lock_acquire(&store->lock, shk_store_lock_timeout(store));
    /* Without its set a store can no longer be locked, only destroyed. */
    if (locked < 0 && locked != -EIDRM && locked != SHK_E_CORRUPT &&
        shk__load(state) != SHK_STATE_REMOVED)
        rc = locked;
    else {
        uint64_t *mark = &shk__ledger(store)->high_water;
        uint64_t before = shk__exchange(state, SHK_STATE_REMOVED);
        if (before == SHK_STATE_REMOVED)
            rc = SHK_E_REMOVED;
        else if (before != SHK_STATE_MOVED && shk__load(mark) > store->geometry.slots)
            shk__store(mark, store->geometry.slots); /* damaged, and not the sign of a wiped store */
        shk__tell_end(store);
        shk__removal_finish(store); /* also where another's destruction was broken off */
    }
    if (locked >= 0)
        shk__lock_release(&store->lock);
    return rc == SHK_E_REMOVED ? shk__fail(rc, "%s was destroyed already", store->title)
                               : rc;
}

/* The segment went with our attachment, being marked for removal, or because the host keeps
 * none that nobody has attached (kernel.shm_rmid_forced): its set serves nobody. */
static void remove_orphan(const shk_store *store)
{
    struct shk_segment_info info;
    struct shk__set set;
    if (shk__namespace_check(store) < 0 || shk_segment_stat(store->info.id, &info) != -ENOENT)
        return;
    shk__set_describe(&set, store->info.semaphore_id, store->info.store_id, store->info.id);
    shk__set_remove(&set);
}

void shk_store_close(shk_store *store)
{
    if (!store)
        return;
    const bool writes = store->lock.seat;
    if (writes)
        shk__lock_close(&store->lock);
    if (!shk__is_in_memory(store)) {
        shk_segment_detach(store->base);
        if (writes)
            remove_orphan(store);
    }
    explicit_bzero(store, sizeof *store);
    free(store);
}
