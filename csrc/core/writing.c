/* writing.c: changing one pair. Each call prepares what it can in private memory, takes
 * the lock, finds its place and hands both to the journal. */
#include "writing.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "clock.h"
#include "error.h"

/* ---------------------------------------------------------------- current -- */

int shk__current_find_locked(const shk_store *store, const struct shk__query *query,
                             struct shk__current *out)
{
    int rc = shk__index_find_locked(store, query, &out->place);
    out->flags = 0;
    if (rc == 0 && out->place.word)
        shk__slot_describe_locked(store, shk__entry_slot(out->place.word), &out->record,
                                  &out->flags);
    return rc;
}

/* The pair is there. Its record goes to `words`, if that is not NULL. */
static int find_present(const shk_store *store, const struct shk__query *query,
                        struct shk__current *out, uint64_t *words)
{
    int rc = shk__current_find_locked(store, query, out);
    if (rc == SHK_E_FULL || (rc == 0 && out->place.word == 0))
        return shk__fail_plainly(SHK_E_ABSENT);
    if (rc < 0 || !words)
        return rc;
    if (shk__slot_read(store, out->place.word, shk__entry_at(store, out->place.target), words) !=
        SHK__READ)
        return shk__fail(SHK_E_CORRUPT, "entry %llu names a slot that it does not fit",
                         (unsigned long long)out->place.target);
    shk__image_describe(store, words, &out->record); /* what was checked, and is copied from */
    out->flags = shk__image_flags(words);
    return 0;
}

int shk__current_replace_locked(const shk_store *store, uint64_t kind,
                                const struct shk__query *query, const struct shk__current *current,
                                const uint64_t *words)
{
    uint32_t kept = words ? shk__image_flags(words) : 0;
    uint32_t gone = current->flags & ~kept & SHK_FLAGS_HAS_PREVIOUS;
    if (gone)
        (void)shk__previous_mark_locked(store, query, gone);
    int rc = shk__journal_commit_locked(store, kind, query, &current->place, words);
    if (__builtin_expect(shk__previous_unsettled(store), 0)) {
        int settled = shk__previous_settle_locked(store);
        rc = rc < 0 ? rc : settled;
    }
    return rc;
}

/* CONFLICT, in words. */
static int check_key_id(const struct shk_record *record, int32_t expected)
{
    if (record->key_id == expected)
        return 0;
    return shk__fail(SHK_E_CONFLICT, "the pair's key id is %d, not %d as expected: read it anew",
                     record->key_id, expected);
}

/* -------------------------------------------------------------------- put -- */

static int check_key(const shk_store *store, struct shk_bytes key)
{
    if (key.size < 1 || key.size > store->geometry.key_size)
        return shk__fail(SHK_E_INVALID,
                         "the key has %zu bytes; this store takes 1 to %u (key_size, fixed at "
                         "creation)",
                         key.size, store->geometry.key_size);
    return 0;
}

int shk__put_check(const shk_store *store, const struct shk_put *what)
{
    if (what->status != SHK_VALID && what->status != SHK_REVOKED)
        return shk__fail(SHK_E_INVALID, "status is %d; it must be %d (valid) or %d (revoked)",
                         what->status, SHK_VALID, SHK_REVOKED);
    if (what->key_id < SHK_KEY_ID_NEXT)
        return shk__fail(SHK_E_INVALID, "key_id is %d; it must be 0 to %d", what->key_id,
                         INT32_MAX);
    return check_key(store, what->key);
}

static uint64_t expires_after(uint64_t now, uint64_t ttl)
{
    return ttl < UINT64_MAX - now ? now + ttl : UINT64_MAX;
}

void shk__put_fill(const shk_store *store, const struct shk__query *query,
                   const struct shk_put *what, uint64_t *words)
{
    uint64_t now = shk__realtime_fine();
    struct shk_record about = {.status = what->status,
                               .key_length = (uint32_t)what->key.size,
                               .updated = what->updated ? what->updated : now,
                               .expires = what->ttl ? expires_after(now, what->ttl)
                                                    : what->expires};
    shk__image_fill(store, words, &query->pair, &about, what->key.data);
}

/* Draws the next key id, or moves the counter to an explicit one. */
static int draw_key_id(const shk_store *store, int32_t wanted, int32_t *out)
{
    uint64_t *last = &shk__ledger(store)->last_key_id;
    uint64_t id = (uint64_t)wanted;
    if (wanted == SHK_KEY_ID_NEXT)
        id = shk__load(last) < UINT64_MAX ? shk__load(last) + 1 : UINT64_MAX;
    if (id > INT32_MAX)
        return shk__fail(SHK_E_EXHAUSTED,
                         "key id %d, the last of 31 bits, was used: copy the pairs to a new store",
                         INT32_MAX);
    if (id > shk__load(last))
        shk__store(last, id);
    *out = (int32_t)id;
    return 0;
}

static int check_condition(const struct shk_put *what, const struct shk__current *current)
{
    if (what->condition == SHK_ALWAYS)
        return 0;
    bool there = current->place.word && !shk__record_expired(&current->record);
    if (what->condition == SHK_IF_ABSENT)
        return there ? shk__fail(SHK_E_EXISTS, "the pair is there already, with key id %d",
                                 current->record.key_id)
                     : 0;
    if (!there)
        return shk__fail(SHK_E_CONFLICT, "the pair is absent, key id %d was expected",
                         what->if_key_id);
    return check_key_id(&current->record, what->if_key_id);
}

/* A place and room for a pair that is not there. found: 0, or FULL where no place was. */
static int make_room(const shk_store *store, const struct shk__query *query, int found,
                     struct shk__current *current)
{
    int rc = found;
    if (rc == 0)
        rc = shk__expiry_visit_locked(store);
    if (rc == 0)
        rc = shk__expiry_check_room(store, &current->place);
    if (rc != SHK_E_FULL)
        return rc;
    rc = shk__expiry_sweep_locked(store);
    if (rc == 0)
        rc = shk__current_find_locked(store, query, current);
    return rc < 0 ? rc : shk__expiry_check_room(store, &current->place);
}

int shk__put_locked(const shk_store *store, const struct shk__query *query,
                    const struct shk_put *what, uint64_t *words, int32_t *key_id)
{
    struct shk__current current = {0};
    int32_t drawn = 0;
    int found = shk__current_find_locked(store, query, &current);
    if (found < 0 && found != SHK_E_FULL)
        return found;
    int rc = check_condition(what, &current); /* before room is made for nothing */
    if (rc == 0 && current.place.word == 0)
        rc = make_room(store, query, found, &current);
    if (rc == 0)
        rc = draw_key_id(store, what->key_id, &drawn);
    if (rc < 0)
        return rc;
    shk__image_set_key_id(store, words, drawn);
    rc = shk__current_replace_locked(
        store, current.place.word ? SHK_CHANGE_OVERWRITE : SHK_CHANGE_INSERT, query, &current,
        words);
    if (rc == 0)
        *key_id = drawn;
    return rc;
}

int shk_store_put(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                  const struct shk_put *what, int32_t *key_id_out)
{
    struct shk__query query;
    struct shk__image image;
    int32_t key_id;
    int rc = shk__put_check(store, what);
    if (rc == 0)
        rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    /* What comes out of memory comes meanwhile, and before the lock is held. */
    shk__index_prefetch_bucket(store, &query);
    shk__put_fill(store, &query, what, image.words);
    shk__index_prefetch_slot(store, &query);
    rc = shk__store_begin(store);
    if (rc == 0) {
        rc = shk__put_locked(store, &query, what, image.words, &key_id);
        shk__store_end(store);
    }
    shk__image_close(store, &image);
    if (rc == 0 && key_id_out)
        *key_id_out = key_id;
    return rc;
}

/* ----------------------------------------------------------------- rotate -- */

/* A place for one more record, if there is none yet, before anything is looked up: the
 * sweep may delete whatever has expired. */
static int sweep_if_full(const shk_store *store)
{
    return shk__expiry_room(store) == 0 ? shk__expiry_sweep_locked(store) : 0;
}

static int rotate_locked(const shk_store *store, const struct shk__query *query,
                         const struct shk_rotation *how, struct shk_bytes new_key, uint64_t *words,
                         struct shk_record *about, size_t capacity)
{
    struct shk__current current;
    uint32_t keeps = 0;
    int rc = how->grace ? sweep_if_full(store) : 0;
    if (rc == 0)
        rc = find_present(store, query, &current, words);
    if (rc < 0)
        return rc;
    *about = current.record;
    rc = shk__record_usable(about);
    if (rc == 0 && how->conditional)
        rc = check_key_id(about, how->if_key_id);
    if (new_key.size == 0)
        new_key.size = about->key_length; /* the random bytes' length */
    if (rc == 0 && new_key.size > capacity)
        rc = shk__fail(SHK_E_INVALID, "the key has %zu bytes, the buffer %zu", new_key.size,
                       capacity);
    if (rc == 0)
        rc = draw_key_id(store, SHK_KEY_ID_NEXT, &about->key_id);
    uint64_t now = shk__realtime_fine();
    if (rc == 0 && how->grace) {
        rc = shk__previous_keep_locked(store, query, words, expires_after(now, how->grace), &keeps);
        if (rc < 0)
            (void)shk__previous_settle_locked(store);
    }
    if (rc < 0)
        return rc;
    about->key_length = (uint32_t)new_key.size;
    about->updated = now;
    shk__image_fill(store, words, &query->pair, about, new_key.data);
    shk__image_set_flags(words, shk__image_flags(words) | keeps);
    return shk__current_replace_locked(store, SHK_CHANGE_ROTATE, query, &current, words);
}

/* Before the lock: a copy that no thread of the caller's changes, or random bytes, as many
 * as the longest key needs. */
static int prepare_key(const shk_store *store, struct shk_bytes new_key, void *out)
{
    if (new_key.size > 0) {
        memcpy(out, new_key.data, new_key.size);
        return 0;
    }
    for (size_t wanted = store->geometry.key_size, got = 0; got < wanted;) {
        ssize_t more = getrandom((char *)out + got, wanted - got, 0);
        if (more > 0)
            got += (size_t)more;
        else if (errno != EINTR)
            return shk__fail(-errno, "getrandom");
    }
    return 0;
}

int shk_store_rotate(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                     const struct shk_rotation *how, struct shk_record *out, void *key_out,
                     size_t capacity)
{
    struct shk__query query;
    struct shk__image old, fresh;
    struct shk_record about;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0 && how->new_key.size)
        rc = check_key(store, how->new_key);
    if (rc == 0)
        rc = shk__image_open(store, &old);
    if (rc < 0)
        return rc;
    rc = shk__image_open(store, &fresh);
    if (rc == 0) {
        rc = prepare_key(store, how->new_key, fresh.words);
        if (rc == 0)
            rc = shk__store_begin(store);
        if (rc == 0) {
            struct shk_bytes key = {fresh.words, how->new_key.size};
            rc = rotate_locked(store, &query, how, key, old.words, &about,
                               key_out ? capacity : SIZE_MAX);
            shk__store_end(store);
        }
        if (rc == 0) {
            if (key_out)
                memcpy(key_out, fresh.words, about.key_length);
            if (out)
                *out = about;
        }
        shk__image_close(store, &fresh);
    }
    shk__image_close(store, &old);
    return rc;
}

/* ------------------------------------------------- revoke, touch, delete -- */

/* What a change in place does to the image. 1: nothing is to be changed. */
typedef int edit(const shk_store *store, uint64_t *words, const void *how);

static int change(shk_store *store, struct shk_bytes client, struct shk_bytes server, uint64_t kind,
                  edit *change_image, const void *how)
{
    struct shk__query query;
    struct shk__image image;
    struct shk__current current;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    rc = shk__store_begin(store);
    if (rc == 0) {
        rc = find_present(store, &query, &current, image.words);
        if (rc == 0)
            rc = change_image(store, image.words, how);
        if (rc == 0)
            rc = shk__current_replace_locked(store, kind, &query, &current, image.words);
        shk__store_end(store);
    }
    shk__image_close(store, &image);
    return rc < 0 ? rc : 0;
}

static int edit_status(const shk_store *store, uint64_t *words, const void *how)
{
    (void)how;
    struct shk_record about;
    shk__image_describe(store, words, &about);
    if (about.status == SHK_REVOKED)
        return 1;
    shk__image_revoke(words);
    shk__image_set_flags(words, 0); /* the previous key is revoked with it */
    shk__image_set_times(store, words, shk__realtime_fine(), about.expires);
    return 0;
}

int shk_store_revoke(shk_store *store, struct shk_bytes client, struct shk_bytes server)
{
    return change(store, client, server, SHK_CHANGE_REVOKE, edit_status, NULL);
}

static int edit_expiry(const shk_store *store, uint64_t *words, const void *how)
{
    const uint64_t *ttl = how;
    struct shk_record about;
    shk__image_describe(store, words, &about);
    int rc = shk__record_usable(&about);
    uint64_t now = shk__realtime_fine();
    if (rc == 0)
        shk__image_set_times(store, words, now, *ttl ? expires_after(now, *ttl) : 0);
    return rc;
}

int shk_store_touch(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                    uint64_t ttl)
{
    return change(store, client, server, SHK_CHANGE_TOUCH, edit_expiry, &ttl);
}

int shk_store_delete(shk_store *store, struct shk_bytes client, struct shk_bytes server)
{
    struct shk__query query;
    struct shk__current current;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__store_begin(store);
    if (rc < 0)
        return rc;
    rc = find_present(store, &query, &current, NULL);
    if (rc == 0)
        rc = shk__current_replace_locked(store, SHK_CHANGE_DELETE, &query, &current, NULL);
    shk__store_end(store);
    return rc;
}

int shk_store_pop(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                  struct shk_record *out, void *key_out, size_t capacity)
{
    struct shk__query query;
    struct shk__image image;
    struct shk__current current;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    rc = shk__store_begin(store);
    if (rc == 0) {
        rc = find_present(store, &query, &current, image.words);
        if (rc == 0 && key_out && current.record.key_length > capacity)
            rc = shk__fail(SHK_E_INVALID, "the key has %u bytes, the buffer %zu",
                           current.record.key_length, capacity);
        if (rc == 0)
            rc = shk__current_replace_locked(store, SHK_CHANGE_DELETE, &query, &current, NULL);
        shk__store_end(store);
    }
    if (rc == 0 && shk__record_expired(&current.record))
        rc = shk__fail(SHK_E_EXPIRED, "key id %d had expired, and is deleted now",
                       current.record.key_id);
    if (rc == 0 && key_out)
        memcpy(key_out, shk__image_key(store, image.words), current.record.key_length);
    if (rc == 0 && out)
        *out = current.record;
    shk__image_close(store, &image);
    return rc;
}
