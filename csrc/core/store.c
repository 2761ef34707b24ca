/* store.c: what callers do with a store. Readers go straight to the index; each
 * mutation prepares its image in private memory, takes the lock, finds its place
 * and hands both to the journal. */
#include "store.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/shm.h>

#include "clock.h"
#include "error.h"
#include "journal.h"
#include "host.h"

/* ------------------------------------------------------------------- lock -- */

int shk__store_check_live(const shk_store *store)
{
    uint64_t state = shk__load(&shk__header(store)->state);
    if (state == SHK_STATE_LIVE)
        return 0;
    if (state == SHK_STATE_REMOVED)
        return shk__fail(SHK_E_REMOVED, "store %d was destroyed", store->info.id);
    return shk__fail(SHK_E_CORRUPT, "the state of store %d is %#llx, which no open store can have",
                     store->info.id, (unsigned long long)state);
}

/* Why the lock could not be had, in terms of the store. */
static int explain_lock(const shk_store *store, int rc)
{
    if (shk__load(&shk__header(store)->state) == SHK_STATE_REMOVED) {
        shk__removal_finish(store); /* its destroyer may have died */
        return shk__fail(SHK_E_REMOVED, "store %d was destroyed", store->info.id);
    }
    if (rc != -EIDRM && rc != SHK_E_CORRUPT)
        return rc;
    int elsewhere = shk__namespace_check(store);
    if (elsewhere < 0)
        return elsewhere;
    struct shk_segment_info info;
    if (shk_segment_stat(store->info.id, &info) < 0 || info.mode & SHM_DEST)
        return shk__fail(SHK_E_REMOVED, "store %d was removed by hand", store->info.id);
    if (rc == -EIDRM)
        return shk__fail(SHK_E_CORRUPT,
                         "semaphore set %d of store %d was removed, so a living writer can't be told "
                         "from a dead one: the store can still be read and destroyed",
                         store->info.semaphore_id, store->info.id);
    return rc;
}

int shk__store_begin(shk_store *store)
{
    if (store->info.readonly)
        return shk__fail(SHK_E_READONLY, "store %d was opened read-only", store->info.id);
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
        rc = shk__fail(SHK_E_REMOVED, "store %d was destroyed", store->info.id);
    } else if (rc == 0)
        rc = shk__journal_recover_locked(store);
    if (rc < 0)
        shk__lock_release(&store->lock);
    return rc < 0 ? rc : 0;
}

void shk__store_end(shk_store *store)
{
    shk__lock_release(&store->lock);
}

void shk_store_set_lock_timeout(shk_store *store, uint64_t timeout)
{
    shk__store(&store->lock_timeout, timeout);
}

uint64_t shk_store_lock_timeout(const shk_store *store)
{
    return shk__load(&store->lock_timeout);
}

/* ---------------------------------------------------------------- reading -- */

/* A key leaves only into room that holds all of it. */
static int give(const shk_store *store, const uint64_t *words, const struct shk_record *record,
                void *key_out, size_t capacity)
{
    if (record->key_length > capacity)
        return shk__fail(SHK_E_INVALID, "the key has %u bytes, the buffer %zu", record->key_length,
                         capacity);
    memcpy(key_out, shk__image_key(store, words), record->key_length);
    return 0;
}

int shk_store_record(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                     struct shk_record *out, void *key_out, size_t capacity)
{
    struct shk__query query;
    struct shk__image image;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    struct shk_record record;
    rc = shk__index_read(store, &query, image.words);
    if (rc == 0) {
        shk__image_describe(store, image.words, &record);
        rc = give(store, image.words, &record, key_out, capacity);
        if (rc == 0)
            *out = record;
    }
    shk__image_close(store, &image);
    return rc;
}

int shk_store_get_key(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                      void *key_out, size_t capacity, size_t *length)
{
    struct shk__query query;
    struct shk__image image;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    struct shk_record record;
    rc = shk__index_read(store, &query, image.words);
    if (rc == 0) {
        shk__image_describe(store, image.words, &record);
        rc = shk__record_usable(&record);
        if (rc == 0)
            rc = give(store, image.words, &record, key_out, capacity);
        if (rc == 0)
            *length = record.key_length;
    }
    shk__image_close(store, &image);
    return rc;
}

/* ---------------------------------------------------------------- writing -- */

static int check_key(const shk_store *store, struct shk_bytes key)
{
    if (key.size < 1 || key.size > store->geometry.key_size)
        return shk__fail(SHK_E_INVALID,
                         "the key has %zu bytes; this store takes 1 to %u (key_size, fixed at "
                         "creation)",
                         key.size, store->geometry.key_size);
    return 0;
}

/* Draws the next key id, or moves the counter to an explicit one. */
static int draw_key_id(const shk_store *store, int32_t wanted, int32_t *out)
{
    uint64_t *last = &shk__ledger(store)->last_key_id;
    uint64_t id = wanted == SHK_KEY_ID_NEXT ? shk__load(last) + 1 : (uint64_t)wanted;
    if (id > INT32_MAX)
        return shk__fail(SHK_E_EXHAUSTED,
                         "key id %d, the last of 31 bits, was used: copy the pairs to a new store",
                         INT32_MAX);
    if (id > shk__load(last))
        shk__store(last, id);
    *out = (int32_t)id;
    return 0;
}

static int check_room(const shk_store *store, const struct shk__place *place)
{
    uint64_t records = shk__load(&shk__ledger(store)->records);
    if (place->word == 0 && records >= store->geometry.capacity)
        return shk__fail(SHK_E_FULL,
                         "the store holds %llu pairs, its capacity: delete some, or make a larger "
                         "store",
                         (unsigned long long)records);
    return 0;
}

int shk_store_put(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                  const struct shk_put *what, int32_t *key_id_out)
{
    if (what->status != SHK_VALID && what->status != SHK_REVOKED)
        return shk__fail(SHK_E_INVALID, "status is %d; it must be %d (valid) or %d (revoked)",
                         what->status, SHK_VALID, SHK_REVOKED);
    if (what->key_id < SHK_KEY_ID_NEXT)
        return shk__fail(SHK_E_INVALID, "key_id is %d; it must be 0 to %d", what->key_id,
                         INT32_MAX);
    struct shk__query query;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = check_key(store, what->key);
    struct shk__image image;
    if (rc == 0)
        rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;

    shk__index_prefetch_bucket(store, &query);
    struct shk_record about = {.status = what->status,
                               .key_length = (uint32_t)what->key.size,
                               .updated = shk__realtime()};
    if (what->ttl)
        about.expires = what->ttl < UINT64_MAX - about.updated ? about.updated + what->ttl
                                                               : UINT64_MAX;
    shk__image_fill(store, image.words, &query.pair, &about, what->key.data);
    shk__index_prefetch_slot(store, &query);

    rc = shk__store_begin(store);
    if (rc == 0) {
        struct shk__place place;
        rc = shk__index_find_locked(store, &query, &place);
        if (rc == 0)
            rc = check_room(store, &place);
        if (rc == 0)
            rc = draw_key_id(store, what->key_id, &about.key_id);
        if (rc == 0) {
            shk__image_set_key_id(store, image.words, about.key_id);
            rc = shk__journal_commit_locked(
                store, place.word ? SHK_CHANGE_OVERWRITE : SHK_CHANGE_INSERT, &query, &place,
                image.words);
        }
        shk__store_end(store);
    }
    shk__image_close(store, &image);
    if (rc == 0 && key_id_out)
        *key_id_out = about.key_id;
    return rc;
}

/* Where the pair stands, and a private copy of its record. */
static int find_locked(const shk_store *store, const struct shk__query *query,
                       struct shk__place *place, uint64_t *words)
{
    int rc = shk__index_find_locked(store, query, place);
    if (rc == SHK_E_FULL || (rc == 0 && place->word == 0))
        return shk__fail_plainly(SHK_E_ABSENT);
    if (rc == 0 && words && shk__slot_read(store, place->word, shk__entry_at(store, place->target),
                                           words) != SHK__READ)
        return shk__fail(SHK_E_CORRUPT, "entry %llu names a slot that it does not fit",
                         (unsigned long long)place->target);
    return rc;
}

static int rotate_locked(const shk_store *store, const struct shk__query *query,
                         struct shk_bytes new_key, uint64_t *words, struct shk_record *about,
                         void *key_out, size_t capacity)
{
    struct shk__place place;
    int rc = find_locked(store, query, &place, words);
    if (rc < 0)
        return rc;
    shk__image_describe(store, words, about);
    rc = shk__record_usable(about);
    if (rc == 0 && new_key.size == 0)
        new_key.size = about->key_length; /* the random bytes' length */
    if (rc == 0 && new_key.size > capacity)
        rc = shk__fail(SHK_E_INVALID, "the key has %zu bytes, the buffer %zu", new_key.size,
                       capacity);
    if (rc == 0)
        rc = draw_key_id(store, SHK_KEY_ID_NEXT, &about->key_id);
    if (rc < 0)
        return rc;
    about->key_length = (uint32_t)new_key.size;
    about->updated = shk__realtime();
    shk__image_fill(store, words, &query->pair, about, new_key.data);
    memset((unsigned char *)words + store->geometry.key_offset + new_key.size, 0,
           store->geometry.key_size - new_key.size);
    rc = shk__journal_commit_locked(store, SHK_CHANGE_ROTATE, query, &place, words);
    return rc < 0 ? rc : give(store, words, about, key_out, capacity);
}

int shk_store_rotate(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                     struct shk_bytes new_key, struct shk_record *out, void *key_out,
                     size_t capacity)
{
    struct shk__query query;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0 && new_key.size)
        rc = check_key(store, new_key);
    struct shk__image old, fresh;
    if (rc == 0)
        rc = shk__image_open(store, &old);
    if (rc < 0)
        return rc;
    rc = shk__image_open(store, &fresh);
    /* Before the lock: a copy that no thread of the caller's changes, or random bytes,
     * as many as the longest key needs. */
    if (rc == 0 && new_key.size > 0) {
        memcpy(fresh.words, new_key.data, new_key.size);
        new_key.data = fresh.words;
    } else if (rc == 0) {
        size_t wanted = store->geometry.key_size, got = 0;
        new_key.data = fresh.words;
        while (got < wanted && rc == 0) {
            ssize_t more = getrandom((char *)fresh.words + got, wanted - got, 0);
            if (more > 0)
                got += (size_t)more;
            else if (errno != EINTR)
                rc = shk__fail(-errno, "getrandom");
        }
    }
    struct shk_record about;
    if (rc == 0)
        rc = shk__store_begin(store);
    if (rc == 0) {
        rc = rotate_locked(store, &query, new_key, old.words, &about, key_out, capacity);
        shk__store_end(store);
    }
    if (rc == 0)
        *out = about;
    if (fresh.words)
        shk__image_close(store, &fresh);
    shk__image_close(store, &old);
    return rc;
}

static int revoke_locked(const shk_store *store, const struct shk__query *query, uint64_t *words)
{
    struct shk__place place;
    struct shk_record about;
    int rc = find_locked(store, query, &place, words);
    if (rc < 0)
        return rc;
    shk__image_describe(store, words, &about);
    if (about.status == SHK_REVOKED)
        return 0;
    shk__image_revoke(store, words, shk__realtime());
    return shk__journal_commit_locked(store, SHK_CHANGE_REVOKE, query, &place, words);
}

int shk_store_revoke(shk_store *store, struct shk_bytes client, struct shk_bytes server)
{
    struct shk__query query;
    struct shk__image image;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    rc = shk__store_begin(store);
    if (rc == 0) {
        rc = revoke_locked(store, &query, image.words);
        shk__store_end(store);
    }
    shk__image_close(store, &image);
    return rc;
}

int shk_store_delete(shk_store *store, struct shk_bytes client, struct shk_bytes server)
{
    struct shk__query query;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__store_begin(store);
    if (rc < 0)
        return rc;
    struct shk__place place;
    rc = find_locked(store, &query, &place, NULL);
    if (rc == 0)
        rc = shk__journal_commit_locked(store, SHK_CHANGE_DELETE, &query, &place, NULL);
    shk__store_end(store);
    return rc;
}

/* ------------------------------------------------------------------ about -- */

void shk_store_info(const shk_store *store, struct shk_info *out)
{
    *out = store->info;
}

int shk_store_stats(const shk_store *store, struct shk_stats *out)
{
    struct shk_stats stats = {
        .records = shk__load(&shk__ledger(store)->records),
        .revision = shk__load(&shk__changes(store)->revision),
        .slots_touched = shk__load(&shk__ledger(store)->high_water),
        .takeovers = shk__load(&shk__stats(store)->takeovers),
        .recoveries = shk__load(&shk__stats(store)->recoveries),
        .last_key_id = (int32_t)shk__load(&shk__ledger(store)->last_key_id),
    };
    int rc = shk__store_check_live(store);
    if (rc == 0)
        *out = stats;
    return rc;
}
