/* previous.c: keeping and dropping previous keys. */
#include "previous.h"

#include <string.h>

#include "error.h"
#include "expiry.h"

static void make_query(const shk_store *store, const struct shk__query *pair, unsigned variant,
                       struct shk__query *out)
{
    out->role = SHK_FLAG_IS_PREVIOUS << variant;
    memcpy(out->pair.ids, pair->pair.ids, 2 * (size_t)store->geometry.id_size);
    shk__query_hash(store, out);
}

bool shk__previous_query(const shk_store *store, const struct shk__query *pair, uint32_t flags,
                         struct shk__query *out)
{
    if (!(flags & SHK_FLAGS_HAS_PREVIOUS))
        return false;
    make_query(store, pair, (flags & SHK_FLAG_HAS_PREVIOUS) == 0, out);
    return true;
}

int shk__previous_is_named_locked(const shk_store *store, const struct shk__query *previous)
{
    struct shk__query pair = {.role = 0, .pair = previous->pair};
    struct shk__place place;
    struct shk_record record;
    uint32_t flags;
    shk__query_hash(store, &pair);
    int rc = shk__index_find_locked(store, &pair, &place);
    if (rc == SHK_E_FULL || (rc == 0 && place.word == 0))
        return 0;
    if (rc < 0)
        return rc;
    shk__slot_describe_locked(store, shk__entry_slot(place.word), &record, &flags);
    return (flags & shk__previous_flag(previous->role)) != 0;
}

static void name(const shk_store *store, unsigned variant, uint64_t target_plus_one)
{
    shk__store(&shk__journal(store)->previous[variant], target_plus_one);
}

bool shk__previous_mark_locked(const shk_store *store, const struct shk__query *pair,
                               uint32_t flags)
{
    struct shk__query query;
    struct shk__place place;
    if (!shk__previous_query(store, pair, flags, &query) ||
        shk__index_find_locked(store, &query, &place) < 0 || !place.word)
        return false; /* expired and reclaimed */
    name(store, query.role != SHK_FLAG_IS_PREVIOUS, place.target + 1);
    return true;
}

int shk__previous_keep_locked(const shk_store *store, const struct shk__query *pair,
                              const uint64_t *words, uint64_t until, uint32_t *flag)
{
    uint32_t flags = shk__image_flags(words);
    (void)shk__previous_mark_locked(store, pair, flags);
    unsigned variant = (flags & SHK_FLAG_HAS_PREVIOUS) != 0;
    struct shk__query query;
    struct shk__place place;
    struct shk__image image;
    make_query(store, pair, variant, &query);
    int rc = shk__index_find_locked(store, &query, &place);
    if (rc == 0)
        rc = shk__expiry_check_room(store, &place);
    if (rc == 0)
        rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    memcpy(image.words, words, store->geometry.record_size);
    shk__image_set_flags(image.words, query.role);
    shk__image_set_times(store, image.words, shk__image_times(store, words)[0], until);
    name(store, variant, place.target + 1);
    rc = shk__journal_commit_locked(store, SHK_CHANGE_KEEP, &query, &place, image.words);
    shk__image_close(store, &image);
    *flag = SHK_FLAG_HAS_PREVIOUS << variant;
    return rc;
}

/* Whether the record at `target` is a previous key of this variant that its pair's record
 * does not flag: 1, 0 or CORRUPT. *place is then its place. */
static int is_to_drop(const shk_store *store, unsigned variant, uint64_t target,
                      struct shk__query *query, struct shk__place *place)
{
    if (target >= (uint64_t)store->geometry.buckets * SHK_WAYS)
        return shk__fail(SHK_E_CORRUPT, "the journal names entry %llu, which is none",
                         (unsigned long long)target);
    uint64_t word = shk__load(shk__entry_at(store, target));
    uint32_t slot = shk__entry_slot(word);
    if (word == 0 || slot >= store->geometry.slots)
        return 0;
    shk__query_of_image(store, (const uint64_t *)shk__slot(store, slot), query);
    if (query->role != SHK_FLAG_IS_PREVIOUS << variant)
        return 0;
    int rc = shk__previous_is_named_locked(store, query);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = shk__index_find_locked(store, query, place);
    if (rc == 0)
        return place->word == word;
    return rc == SHK_E_FULL ? 0 : rc;
}

int shk__previous_settle_locked(const shk_store *store)
{
    int rc = 0;
    for (unsigned variant = 0; variant < SHK_VARIANTS && rc >= 0; variant++) {
        uint64_t target_plus_one = shk__load(&shk__journal(store)->previous[variant]);
        if (target_plus_one == 0)
            continue;
        struct shk__query query;
        struct shk__place place;
        rc = is_to_drop(store, variant, target_plus_one - 1, &query, &place);
        if (rc > 0)
            rc = shk__journal_commit_locked(store, SHK_CHANGE_DROP, &query, &place, NULL);
        if (rc >= 0)
            name(store, variant, 0);
    }
    return rc < 0 ? rc : 0;
}
