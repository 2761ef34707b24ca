/* writing.h: what one write does to one pair, for the files that write one or many. */
#ifndef SHK_WRITING_H
#define SHK_WRITING_H

#include "expiry.h"

/* What stands for a pair now. place.word 0: nothing, and the place is where it would. */
struct shk__current {
    struct shk__place place;
    struct shk_record record;
    uint32_t flags;
};
/* 0 whether or not the pair is there; FULL (no place within reach), CORRUPT. */
int shk__current_find_locked(const shk_store *store, const struct shk__query *query,
                             struct shk__current *out);
/* Makes the image the pair's record, or deletes that where words is NULL. A previous key
 * stays only if the image has its flag. */
int shk__current_replace_locked(const shk_store *store, uint64_t kind,
                                const struct shk__query *query, const struct shk__current *current,
                                const uint64_t *words);

/* INVALID, naming the limit. */
int shk__put_check(const shk_store *store, const struct shk_put *what);
/* Before the lock, or with the caller's memory in private hands. The key id comes later. */
void shk__put_fill(const shk_store *store, const struct shk__query *query,
                   const struct shk_put *what, uint64_t *words);
int shk__put_locked(const shk_store *store, const struct shk__query *query,
                    const struct shk_put *what, uint64_t *words, int32_t *key_id);

#endif
