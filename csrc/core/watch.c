/* watch.c: revision, waiting, and the ring of recent changes. */
#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "host.h"

#define NAP_FIRST SHK_MILLISECOND
#define NAP_LONGEST (100 * SHK_MILLISECOND)

static uint32_t *futex_of(const shk_store *store)
{
    return (uint32_t *)&shk__changes(store)->revision; /* little-endian: the low half */
}

void shk_store_wake(const shk_store *store)
{
    (void)syscall(SYS_futex, futex_of(store), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void shk__tell_waiters(const shk_store *store)
{
    struct shk_changes_shm *changes = shk__changes(store);
    uint64_t revision = shk__load(&changes->revision), woken = shk__load(&changes->woken);
    if (woken == revision)
        return;
    uint64_t now = shk__clock(CLOCK_MONOTONIC_COARSE);
    if (shk__load(&changes->awaited) <= woken && shk__load(&changes->woken_at) == now)
        return;
    shk_store_wake(store);
    /* After it: what a writer killed or stopped in between has not done, the next one does.
     * A late store of an older revision only makes for a wake too many. So does `awaited`
     * where it is of a boot before; `woken_at`, of another clock then, can equal `now` for one
     * tick at most, as after a kill. */
    shk__store(&changes->woken_at, now);
    shk__store(&changes->woken, revision);
}

void shk__tell_end(const shk_store *store)
{
    /* Whoever is about to sleep must find another revision. */
    uint64_t *revision = &shk__changes(store)->revision;
    shk__store(revision, shk__load(revision) + 1);
    shk_store_wake(store);
}

int shk_store_revision(const shk_store *store, uint64_t *out)
{
    uint64_t revision = shk__load(&shk__changes(store)->revision);
    int rc = shk__store_check_live(store);
    if (rc == 0)
        *out = revision;
    return rc;
}

/* A segment removed by hand says nothing in its header. */
static int check_removed(const shk_store *store)
{
    struct shk_segment_info info;
    if (shk__is_in_memory(store))
        return 0;
    int rc = shk_segment_stat(store->info.id, &info);
    bool removed = rc == -ENOENT || (rc == 0 && info.mode & SHM_DEST);
    /* In another IPC namespace the id means another segment, or none. */
    if (!removed || shk__ipc_namespace() != store->ipc_namespace)
        return 0;
    rc = shk__store_check_live(store); /* destroyed just now: the state comes first */
    return rc < 0 ? rc : shk__fail(SHK_E_REMOVED, "%s was removed by hand", store->title);
}

/* Only ever raised: to lower it would hide whoever is about to sleep. Pairs with the
 * writer's release of the lock, an exchange between its store of the revision and its look
 * at `awaited`; the kernel compares the revision after this. */
static void announce_waiter(const shk_store *store, uint64_t since)
{
    uint64_t *awaited = &shk__changes(store)->awaited, seen = shk__load(awaited);
    while (seen < since + 1 && !shk__cas64(awaited, &seen, since + 1))
        continue;
}

int shk_store_wait(const shk_store *store, uint64_t since, uint64_t timeout, const uint32_t *stop,
                   uint64_t *out)
{
    struct shk_changes_shm *changes = shk__changes(store);
    uint64_t now = shk__monotonic(), nap = NAP_FIRST;
    const uint64_t deadline = timeout < UINT64_MAX - now ? now + timeout : UINT64_MAX;
    for (;;) {
        uint64_t revision = shk__load(&changes->revision);
        int rc = shk__store_check_live(store);
        if (rc < 0)
            return rc;
        if (revision < since)
            return shk__fail(SHK_E_INVALID, "since is %llu, the store's revision %llu",
                             (unsigned long long)since, (unsigned long long)revision);
        if (revision != since || now >= deadline) {
            *out = revision;
            return 0;
        }
        if (stop && shk__load(stop))
            return shk__fail(-ECANCELED, "waiting for changes");
        if (!store->info.readonly)
            announce_waiter(store, since);
        uint64_t duration = nap < deadline - now ? nap : deadline - now;
        struct timespec t = shk__timespec(duration);
        (void)syscall(SYS_futex, futex_of(store), FUTEX_WAIT, (uint32_t)since, &t, NULL, 0);
        if (shk__hook_run() != 0)
            return shk__fail(-EINTR, "waiting for changes");
        if (nap == NAP_LONGEST && (rc = check_removed(store)) < 0)
            return rc;
        nap = nap * 2 < NAP_LONGEST ? nap * 2 : NAP_LONGEST;
        now = shk__monotonic();
    }
}

/* ---------------------------------------------------------------- changes -- */

/* 1, or 0 where the place was reused or is being so. */
static int read_change(const shk_store *store, uint64_t revision, struct shk_change *out)
{
    const struct shk_ring_shm *at = shk__ring_at(store, revision - 1);
    const uint32_t id_size = store->geometry.id_size;
    uint64_t words[(2 * SHK_ID_SIZE_MAX + 7) / 8];
    if (shk__load(&at->revision) != revision)
        return 0;
    uint64_t kind = shk__load(&at->kind);
    shk__load_words(words, (const uint64_t *)(at + 1), (2 * (size_t)id_size + 7) / 8);
    /* Pairs with announce: 0 before the first word of another change. */
    if (shk__load(&at->revision) != revision)
        return 0;
    const char *client = (const char *)words, *server = client + id_size;
    memset(out, 0, sizeof *out);
    out->revision = revision;
    out->kind = (enum shk_change_kind)kind;
    out->client_size = (uint32_t)strnlen(client, id_size - 1);
    out->server_size = (uint32_t)strnlen(server, id_size - 1);
    memcpy(out->client, client, out->client_size);
    memcpy(out->server, server, out->server_size);
    if (kind < SHK_CHANGE_INSERT || kind > SHK_CHANGE_EXPIRE)
        return shk__fail(SHK_E_CORRUPT, "change %llu is of the unknown kind %llu",
                         (unsigned long long)revision, (unsigned long long)kind);
    return 1;
}

int shk_store_changes(const shk_store *store, uint64_t since, struct shk_change *out, size_t room)
{
    uint64_t revision = 0;
    int rc = shk_store_revision(store, &revision);
    if (rc < 0)
        return rc;
    if (revision < since)
        return shk__fail(SHK_E_INVALID, "since is %llu, the store's revision %llu",
                         (unsigned long long)since, (unsigned long long)revision);
    uint64_t wanted = revision - since < room ? revision - since : room;
    if (wanted > SHK_RING)
        wanted = SHK_RING;
    for (uint64_t i = 0; i < wanted; i++) {
        rc = revision - since > SHK_RING ? 0 : read_change(store, since + 1 + i, &out[i]);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return shk__fail(SHK_E_CHANGES_LOST,
                             "change %llu is not remembered any more: the revision is %llu, and the "
                             "last %u are kept; read the store anew",
                             (unsigned long long)(since + 1 + i), (unsigned long long)revision,
                             SHK_RING);
    }
    return (int)wanted;
}
