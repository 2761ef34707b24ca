/* snapshot.c: all records as they were at one moment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "error.h"
#include "journal.h"

struct shk_snapshot {
    struct shk__geometry geometry;
    size_t count;
    size_t size; /* of the mapping */
    unsigned char *slots;
};

/* Keys lie in them: no core dump has them, and they are wiped before they are given back. */
static int slots_new(shk_snapshot *snapshot, uint64_t room)
{
    snapshot->size = (size_t)(room + 1) * snapshot->geometry.record_size;
    void *slots = mmap(NULL, snapshot->size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slots == MAP_FAILED)
        return shk__fail(-errno, "mmap(size=%zu) for a snapshot", snapshot->size);
    (void)madvise(slots, snapshot->size, MADV_DONTDUMP);
    snapshot->slots = slots;
    return 0;
}

static void slots_free(shk_snapshot *snapshot)
{
    if (!snapshot->slots)
        return;
    /* One more: the slot that a copy was begun in. */
    explicit_bzero(snapshot->slots, (snapshot->count + 1) * snapshot->geometry.record_size);
    munmap(snapshot->slots, snapshot->size);
    snapshot->slots = NULL;
    snapshot->count = 0;
}

/* Each entry's record, copied as a reader copies. */
static int copy_records(const shk_store *store, shk_snapshot *snapshot)
{
    const struct shk__geometry *g = &store->geometry;
    /* One more: an insert that is under way may be committed and not counted yet. */
    uint64_t room = shk__load(&shk__ledger(store)->records) + 1;
    if (room > g->capacity || room == 0) /* also of a corrupt store */
        room = g->capacity;
    int rc = slots_new(snapshot, room);
    const uint64_t entries = (uint64_t)g->buckets * SHK_WAYS;
    uint64_t *words = (uint64_t *)snapshot->slots;
    for (uint64_t target = 0; target < entries && rc >= 0; target++) {
        const uint64_t *entry = shk__entry_at(store, target);
        struct shk_record record;
        if (shk__load(entry) == 0 || (rc = shk__entry_read(store, entry, words)) <= 0)
            continue;
        shk__image_pad(store, words); /* of a longer key that was half copied before */
        shk__image_describe(store, words, &record);
        if (shk__image_flags(words) & SHK_FLAGS_IS_PREVIOUS || shk__record_expired(&record))
            explicit_bzero(words, g->record_size);
        else if (!shk__ids_are_named(shk__image_ids(words), g->id_size))
            rc = shk__fail(SHK_E_CORRUPT, "a record of bucket %llu has an empty id",
                           (unsigned long long)target / SHK_WAYS);
        else if (snapshot->count < room) {
            snapshot->count++;
            words += g->record_size / 8;
        } else
            rc = shk__fail(SHK_E_CORRUPT, "the index holds more than the %llu pairs that are counted",
                           (unsigned long long)room);
    }
    return rc < 0 ? rc : 0;
}

/* Without the lock: until nothing moved meanwhile. One operation may be under way, or have
 * been left by a dead writer: its commit changes one entry, so a copy is of the moment before
 * it or after. A repair changes many. */
static int copy_quietly(const shk_store *store, shk_snapshot *snapshot)
{
    for (int i = 0; i < SHK__QUIET_TRIES; i++) {
        struct shk__pulse before = shk__pulse(store);
        int rc = copy_records(store, snapshot);
        if (before.kind < SHK_CHANGE_COUNT && shk__pulse_is(store, &before))
            return rc;
        slots_free(snapshot);
        if (rc < 0 && rc != SHK_E_CORRUPT)
            return rc;
        if (before.kind >= SHK_CHANGE_COUNT && before.kind != SHK_CHANGE_REPAIR)
            return shk__fail(SHK_E_CORRUPT, "the journal of %s holds an operation of the "
                                            "unknown kind %llu",
                             store->title, (unsigned long long)before.kind);
        shk__quiet_pause(i);
    }
    return shk__fail(SHK_E_BUSY,
                     "writers changed %s during each of %d copies: take the snapshot through "
                     "a writable handle, which holds them up, or iterate",
                     store->title, SHK__QUIET_TRIES);
}

int shk_store_snapshot(shk_store *store, shk_snapshot **out)
{
    shk_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        return shk__fail(-ENOMEM, "a snapshot");
    snapshot->geometry = store->geometry;
    int rc = store->info.readonly ? shk__store_check_live(store) : shk__store_begin(store);
    if (rc == 0 && store->info.readonly) {
        rc = copy_quietly(store, snapshot);
        if (rc == 0)
            rc = shk__store_check_live(store);
    } else if (rc == 0) {
        rc = copy_records(store, snapshot);
        shk__store_end(store);
    }
    if (rc == 0)
        *out = snapshot;
    else
        shk_snapshot_free(snapshot);
    return rc;
}

size_t shk_snapshot_count(const shk_snapshot *snapshot)
{
    return snapshot->count;
}

const void *shk_snapshot_data(const shk_snapshot *snapshot)
{
    return snapshot->slots;
}

void shk_snapshot_record(const shk_snapshot *snapshot, size_t number, struct shk_pair *pair,
                         struct shk_record *record, const void **key)
{
    const struct shk__geometry *g = &snapshot->geometry;
    const unsigned char *slot = snapshot->slots + number * g->record_size;
    const char *client = (const char *)slot + SHK_IDS_OFFSET;
    *pair = (struct shk_pair){{client, strnlen(client, g->id_size - 1)},
                              {client + g->id_size, strnlen(client + g->id_size, g->id_size - 1)}};
    const struct shk_store view = {.geometry = *g};
    shk__image_describe(&view, (const uint64_t *)slot, record);
    *key = slot + g->key_offset;
}

void shk_snapshot_free(shk_snapshot *snapshot)
{
    if (!snapshot)
        return;
    slots_free(snapshot);
    free(snapshot);
}
