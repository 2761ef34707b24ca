/* journal.h: one operation, from intention to announcement.
 *
 *   journal -> fill and publish a free slot -> raise overflow counts
 *     -> STORE THE ENTRY (commit) -> announce -> retire the old slot -> clear journal
 *
 * The entry is the truth: a journal whose target holds the new word describes an
 * operation that happened and is finished by the same code that a living writer
 * runs; one whose target holds the old word never happened and is undone. Every
 * value in the journal is absolute, so finishing and undoing may be repeated, and
 * broken off, at any instruction.
 */
#ifndef SHK_JOURNAL_H
#define SHK_JOURNAL_H

#include "index.h"

/* Makes the place hold a copy of the image, or, image being NULL, nothing. FULL or
 * CORRUPT: nothing has changed. */
int shk__journal_commit_locked(const shk_store *store, enum shk_change kind,
                               const struct shk__query *query, const struct shk__place *place,
                               const uint64_t *image);

/* A private copy of the journal, every number within bounds; 1 if there is one, 0
 * if it is empty, CORRUPT. */
int shk__journal_load(const shk_store *store, struct shk_journal_shm *out);

/* Finishes or undoes what the journal holds, if anything: 1, 0, CORRUPT. */
int shk__journal_recover_locked(const shk_store *store);

/* What the operation adds to the record count: 1, 0 or -1. */
static inline int64_t shk__journal_growth(const struct shk_journal_shm *j)
{
    return (int64_t)(j->new_word != 0) - (j->old_word != 0);
}

#endif
