/* move.c: how a store grows: its records are copied to a larger one, which its header then
 * names.
 *
 *   both locks -> copy -> successor into the header -> STATE = MOVED -> wipe
 *
 * Until the state is stored this store is the one that counts; afterwards the other. The
 * wiping may be repeated, and is, by whoever next wants to write here.
 */
#include "move.h"

#include <string.h>

#include "error.h"
#include "expiry.h"
#include "removal.h"
#include "watch.h"

/* ------------------------------------------------------------- the successor -- */

/* A private copy, within bounds. */
static void load_successor(const shk_store *store, struct shk_successor *out)
{
    struct shk_header_shm header;
    shk__header_copy(shk__header(store), &header);
    const struct shk_successor_shm *s = &header.successor;
    size_t size = s->name_size < SHK_NAME_MAX ? s->name_size : SHK_NAME_MAX;
    *out = (struct shk_successor){.id = (int)s->id, .key = (key_t)s->key, .owner = s->owner};
    memcpy(out->store_id, s->store_id, sizeof out->store_id);
    memcpy(out->name, s->name, size);
}

int shk__moved(const shk_store *store)
{
    struct shk_successor to;
    load_successor(store, &to);
    if (to.id < 0)
        return shk__fail(SHK_E_MOVED, "%s moved to one in a buffer, whose store id begins with "
                                      "%02x%02x%02x%02x: open that one",
                         store->title, to.store_id[0], to.store_id[1], to.store_id[2],
                         to.store_id[3]);
    return shk__fail(SHK_E_MOVED, "%s moved to store %d (key 0x%x%s%s%s): open that one",
                     store->title, to.id, (unsigned)to.key, *to.name ? ", name '" : "", to.name,
                     *to.name ? "'" : "");
}

void shk__moved_finish(const shk_store *store)
{
    shk__removal_wipe(store);
}

int shk_store_successor(const shk_store *store, struct shk_successor *out)
{
    uint64_t state = shk__load(&shk__header(store)->state);
    if (state == SHK_STATE_LIVE)
        return shk__fail(SHK_E_ABSENT, "%s has not moved", store->title);
    if (state != SHK_STATE_MOVED)
        return shk__store_check_live(store);
    load_successor(store, out);
    return 0;
}

static void announce_locked(const shk_store *store, const shk_store *target)
{
    struct shk_header_shm *header = shk__header(store);
    const struct shk_info *info = &target->info;
    struct shk_successor_shm to = {.id = (uint32_t)info->id,
                                   .key = (uint32_t)info->key,
                                   .owner = info->owner,
                                   .name_size = (uint32_t)strlen(info->name)};
    memcpy(to.store_id, info->store_id, sizeof to.store_id);
    memcpy(to.name, info->name, to.name_size);
    header->successor = to;
    /* Damaged, it might be taken for the sign of a store that is wiped already. */
    uint64_t *mark = &shk__ledger(store)->high_water;
    if (shk__load(mark) > store->geometry.slots)
        shk__store(mark, store->geometry.slots);
    shk__store(&header->state, SHK_STATE_MOVED);
}

/* ------------------------------------------------------------------- copying -- */

static int check_fit(const shk_store *store, const shk_store *target)
{
    const struct shk__geometry *from = &store->geometry, *to = &target->geometry;
    if (memcmp(store->info.store_id, target->info.store_id, sizeof store->info.store_id) == 0)
        return shk__fail(SHK_E_INVALID, "%s can't be copied to itself", store->title);
    if (target->info.readonly || store->info.readonly)
        return shk__fail(SHK_E_READONLY, "%s was opened read-only; both are written to",
                         target->info.readonly ? target->title : store->title);
    if (to->id_size < from->id_size || to->key_size < from->key_size)
        return shk__fail(SHK_E_INVALID,
                         "the new store has id_size %u, key_size %u; it must have at least this "
                         "one's, %u and %u",
                         to->id_size, to->key_size, from->id_size, from->key_size);
    return 0;
}

static int check_room_locked(const shk_store *store, const shk_store *target)
{
    const struct shk_ledger_shm *from = shk__ledger(store), *to = shk__ledger(target);
    uint64_t there = shk__load(&to->records) + shk__load(&to->previous);
    uint64_t wanted = shk__load(&from->records) + shk__load(&from->previous);
    if (there > 0)
        return shk__fail(SHK_E_INVALID,
                         "the new store holds %llu records: an empty one is needed, so that none "
                         "is overwritten",
                         (unsigned long long)there);
    if (wanted > target->geometry.capacity)
        return shk__fail(SHK_E_FULL, "%llu records do not fit a store of capacity %llu",
                         (unsigned long long)wanted, (unsigned long long)target->geometry.capacity);
    return 0;
}

/* 1, or 0 where it is a previous key that its pair does not name, which nobody can find. */
static int copy_record(const shk_store *store, const uint64_t *words, const shk_store *target,
                       uint64_t *copy)
{
    const char *client = (const char *)shk__image_ids(words);
    const char *server = client + store->geometry.id_size;
    const size_t longest = store->geometry.id_size - 1;
    struct shk__query query;
    struct shk__place place;
    struct shk_record about;
    if (!shk__image_is_sound(store, words))
        return shk__fail(SHK_E_CORRUPT, "%s holds a record that nobody can have written: "
                                        "repair it first",
                         store->title);
    int rc = shk__pair_make(target, (struct shk_bytes){client, strnlen(client, longest)},
                            (struct shk_bytes){server, strnlen(server, longest)}, &query.pair);
    query.role = shk__image_flags(words) & SHK_FLAGS_IS_PREVIOUS;
    if (rc < 0)
        return rc;
    shk__query_hash(target, &query);
    if (query.role) { /* its pair was copied before */
        int named = shk__previous_is_named_locked(target, &query);
        if (named <= 0)
            return named;
    }
    rc = shk__index_find_locked(target, &query, &place);
    if (rc == 0)
        rc = shk__expiry_check_room(target, &place);
    if (rc < 0)
        return rc;
    shk__image_describe(store, words, &about);
    memset(copy, 0, target->geometry.record_size);
    shk__image_fill(target, copy, &query.pair, &about, shk__image_key(store, words));
    shk__image_set_flags(copy, shk__image_flags(words));
    rc = shk__journal_commit_locked(target, query.role ? SHK_CHANGE_KEEP : SHK_CHANGE_INSERT, &query,
                                    &place, copy);
    return rc < 0 ? rc : 1;
}

/* Pairs first: a previous key never stands without its pair. */
static int copy_all_locked(const shk_store *store, const shk_store *target, uint64_t *copied)
{
    const uint64_t entries = (uint64_t)store->geometry.buckets * SHK_WAYS;
    struct shk__image from, to;
    int rc = shk__image_open(store, &from);
    if (rc < 0)
        return rc;
    rc = shk__image_open(target, &to);
    for (unsigned previous = 0; previous < 2 && rc >= 0; previous++) {
        if (previous && shk__load(&shk__ledger(store)->previous) == 0)
            break;
        for (uint64_t entry = 0; entry < entries && rc >= 0; entry++) {
            rc = shk__entry_read(store, shk__entry_at(store, entry), from.words);
            bool is_previous = rc > 0 && shk__image_flags(from.words) & SHK_FLAGS_IS_PREVIOUS;
            if (rc > 0 && is_previous == previous) {
                rc = copy_record(store, from.words, target, to.words);
                *copied += rc > 0 && !previous;
            }
        }
    }
    if (to.words)
        shk__image_close(target, &to);
    shk__image_close(store, &from);
    return rc < 0 ? rc : 0;
}

static int copy_locked(const shk_store *store, const shk_store *target, uint64_t *copied)
{
    int rc = shk__expiry_sweep_locked(store);
    if (rc == 0)
        rc = check_room_locked(store, target);
    if (rc < 0)
        return rc;
    uint64_t last = shk__load(&shk__ledger(store)->last_key_id);
    if (last > shk__load(&shk__ledger(target)->last_key_id))
        shk__store(&shk__ledger(target)->last_key_id, last);
    return copy_all_locked(store, target, copied);
}

int shk_store_copy_to(shk_store *store, shk_store *target, uint64_t *copied)
{
    uint64_t count = 0;
    int rc = check_fit(store, target);
    if (rc == 0)
        rc = shk__store_begin(store);
    if (rc < 0)
        return rc;
    rc = shk__store_begin(target);
    if (rc == 0) {
        rc = copy_locked(store, target, &count);
        if (rc == 0) {
            announce_locked(store, target);
            shk__tell_end(store);
        }
        shk__store_end(target);
    }
    if (rc == 0)
        shk__moved_finish(store);
    shk__store_end(store);
    if (rc == 0 && copied)
        *copied = count;
    return rc;
}
