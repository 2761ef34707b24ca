/* previous.h: the key that a rotation replaced, while its grace lasts.
 *
 * It is a record of its own, with the pair's ids, under another hash (its role). There
 * are two variants of it. The pair's record says by a flag which one counts, so
 * the commit of that record alone decides what readers see:
 *
 *   name both in the journal -> add variant B (KEEP) -> THE PAIR'S RECORD, flag B
 *     -> drop variant A (DROP) -> clear the names
 *
 * Settling looks at each variant that is named and drops it if the pair's record does
 * not flag it. That is right before the commit and after it, so recovery settles too.
 */
#ifndef SHK_PREVIOUS_H
#define SHK_PREVIOUS_H

#include "journal.h"

/* The query of the pair's previous key, if flags, those of the pair's record, name one. */
bool shk__previous_query(const shk_store *store, const struct shk__query *pair, uint32_t flags,
                         struct shk__query *out);

/* Whether the record of its pair names the previous key of this query: 1, 0 or CORRUPT. */
int shk__previous_is_named_locked(const shk_store *store, const struct shk__query *previous);

/* Under the lock, before the pair's record, with these flags, is replaced or deleted: the
 * previous key it has will not outlive that. True: settle afterwards. */
bool shk__previous_mark_locked(const shk_store *store, const struct shk__query *pair,
                               uint32_t flags);
/* Keeps the key of `words`, the pair's record as it is, until `until`. *flag is for the
 * record that replaces it. Settle afterwards, also on failure: FULL or CORRUPT. */
int shk__previous_keep_locked(const shk_store *store, const struct shk__query *pair,
                              const uint64_t *words, uint64_t until, uint32_t *flag);
/* 0 or CORRUPT. May be repeated. */
int shk__previous_settle_locked(const shk_store *store);

/* The flag by which a pair's record names the previous key of this role. */
static inline uint32_t shk__previous_flag(uint32_t role)
{
    return role / SHK_FLAG_IS_PREVIOUS * SHK_FLAG_HAS_PREVIOUS;
}

static inline bool shk__previous_unsettled(const shk_store *store)
{
    const uint64_t *named = shk__journal(store)->previous;
    return (shk__load(&named[0]) | shk__load(&named[1])) != 0;
}

#endif
