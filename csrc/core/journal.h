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
 *
 * One operation changes one entry. A write that concerns a previous key too is several
 * operations, of which one, on the pair's own entry, decides (previous.h).
 */
#ifndef SHK_JOURNAL_H
#define SHK_JOURNAL_H

#include "index.h"

/* Makes the place hold a copy of the image, or, image being NULL, nothing. FULL or
 * CORRUPT: nothing has changed. */
int shk__journal_commit_locked(const shk_store *store, uint64_t kind,
                               const struct shk__query *query, const struct shk__place *place,
                               const uint64_t *image);

/* A private copy of the journal, every number within bounds; 1 if there is one, 0
 * if it is empty, CORRUPT. */
int shk__journal_load(const shk_store *store, struct shk_journal_shm *out);

/* Finishes or undoes what the journal holds, if anything: 1, 0, CORRUPT. */
int shk__journal_recover_locked(const shk_store *store);

/* What the operation adds to the count it concerns: 1, 0 or -1. */
static inline int64_t shk__journal_growth(const struct shk_journal_shm *j)
{
    return (int64_t)(j->new_word != 0) - (j->old_word != 0);
}

/* Previous keys are counted apart, and nobody is told of them. */
static inline bool shk__journal_is_silent(uint64_t kind)
{
    return kind >= SHK_CHANGE_KEEP;
}
static inline uint64_t *shk__journal_count(const shk_store *store, uint64_t kind)
{
    struct shk_ledger_shm *ledger = shk__ledger(store);
    return shk__journal_is_silent(kind) ? &ledger->previous : &ledger->records;
}

/* What every writer moves: the journal before its commit, the rest after it. Between two
 * equal pulses one operation at most was committed: the next would have begun with other
 * numbers in the journal. */
struct shk__pulse {
    uint64_t kind, revision;
    uint64_t begun[3], done[3];
    uint32_t owner;
};
#define SHK__QUIET_TRIES 20
struct shk__pulse shk__pulse(const shk_store *store);
bool shk__pulse_is(const shk_store *store, const struct shk__pulse *before);
/* Between two tries: longer each time. */
void shk__quiet_pause(int tries);

#endif
