/* journal.c: commit and recovery. */
#include "journal.h"

#include <string.h>
#include <time.h>

#include "clock.h"
#include "error.h"

#define AHEAD 4u /* operations, to the one for which a slot is fetched */

/* The free queue and the slot that an operation would take from it. */
static int take_slot(const shk_store *store, const struct shk_journal_shm *j, uint32_t *out)
{
    uint64_t queued = j->tail - j->head, slots = store->geometry.slots;
    if (queued > slots || j->high_water > slots)
        return shk__fail(SHK_E_CORRUPT, "free queue from %llu to %llu, high-water mark %llu of %llu",
                         (unsigned long long)j->head, (unsigned long long)j->tail,
                         (unsigned long long)j->high_water, (unsigned long long)slots);
    bool fresh = queued < SHK_SPARE_SLOTS && j->high_water < slots;
    if (!fresh && queued == 0)
        return shk__fail(SHK_E_CORRUPT, "no free slot is left beside %llu records",
                         (unsigned long long)j->records);
    uint32_t slot = fresh ? (uint32_t)j->high_water : shk__load(shk__queue_at(store, j->head));
    if (slot >= slots)
        return shk__fail(SHK_E_CORRUPT, "the free queue names slot %u of %llu", slot,
                         (unsigned long long)slots);
    if (!fresh)
        shk__slot_prefetch(store, shk__load(shk__queue_at(store, j->head + AHEAD)),
                           store->geometry.record_size);
    *out = slot;
    return 0;
}

static void announce(const shk_store *store, const struct shk_journal_shm *j, uint32_t slot)
{
    const size_t ids_size = 2 * (size_t)store->geometry.id_size;
    const uint64_t *record = (const uint64_t *)shk__slot(store, slot);
    struct shk_ring_shm *change = shk__ring_at(store, j->revision);
    if (shk__load(&change->revision) == j->revision + 1)
        return; /* complete, and perhaps being read: its writer died later */
    uint64_t *ids = (uint64_t *)(change + 1);
    shk__store(&change->revision, 0);
    shk__store(&change->kind, j->kind);
    size_t i = 0;
    for (; i < ids_size / 8; i++)
        shk__store(&ids[i], shk__image_ids_word(record, i));
    if (ids_size % 8)
        shk__store(&ids[i],
                   shk__image_ids_word(record, i) & ~(~UINT64_C(0) << 8 * (ids_size % 8)));
    shk__store(&change->revision, j->revision + 1);
}

/* From just after the commit on. */
static void finish(const shk_store *store, const struct shk_journal_shm *j)
{
    struct shk_ledger_shm *ledger = shk__ledger(store);
    if (j->new_word) {
        uint32_t slot = shk__entry_slot(j->new_word);
        bool fresh = slot == j->high_water;
        shk__store(&ledger->head, j->head + !fresh);
        shk__store(&ledger->high_water, j->high_water + fresh);
    }
    /* A delete's ids stand in the old slot alone, until its retirement begins. */
    uint32_t old_slot = shk__entry_slot(j->old_word);
    bool retiring = j->old_word && shk__load(&shk__slot(store, old_slot)->generation) == j->retired;
    if (!shk__journal_is_silent(j->kind)) {
        if (j->new_word || !retiring)
            announce(store, j, j->new_word ? shk__entry_slot(j->new_word) : old_slot);
        shk__store(&shk__changes(store)->revision, j->revision + 1);
    }
    shk__store(shk__journal_count(store, j->kind), j->records + (uint64_t)shk__journal_growth(j));
    if (j->old_word) {
        shk__slot_retire_locked(store, old_slot, j->retired);
        shk__store(shk__queue_at(store, j->tail), old_slot);
        shk__store(&ledger->tail, j->tail + 1);
    }
    shk__store(&shk__journal(store)->kind, SHK_CHANGE_NONE);
}

/* The commit never came. Overflow counts may have been raised; they stay. */
static void undo(const shk_store *store, const struct shk_journal_shm *j)
{
    struct shk_ledger_shm *ledger = shk__ledger(store);
    if (j->new_word) {
        uint32_t slot = shk__entry_slot(j->new_word);
        shk__slot_retire_locked(store, slot, j->generation + 1);
        if (slot != j->high_water)
            shk__store(shk__queue_at(store, j->head), slot);
    }
    shk__store(&ledger->head, j->head);
    shk__store(&ledger->high_water, j->high_water);
    shk__store(&shk__journal(store)->kind, SHK_CHANGE_NONE);
}

/* Before the commit, so that the hint is never too late. */
static void note_expiry(const shk_store *store, uint64_t expires)
{
    uint64_t *earliest = &shk__ledger(store)->earliest;
    uint64_t seen = shk__load(earliest);
    if (seen == 0 || expires < seen)
        shk__store(earliest, expires);
}

int shk__journal_commit_locked(const shk_store *store, uint64_t kind,
                               const struct shk__query *query, const struct shk__place *place,
                               const uint64_t *image)
{
    const struct shk_ledger_shm *ledger = shk__ledger(store);
    struct shk_journal_shm j = {
        .kind = kind,
        .target = place->target,
        .old_word = place->word,
        .head = shk__load(&ledger->head),
        .tail = shk__load(&ledger->tail),
        .high_water = shk__load(&ledger->high_water),
        .revision = shk__load(&shk__changes(store)->revision),
        .records = shk__load(shk__journal_count(store, kind)),
    };
    uint32_t slot = 0;
    if (image) {
        int rc = take_slot(store, &j, &slot);
        if (rc < 0)
            return rc;
        j.generation = (shk__load(&shk__slot(store, slot)->generation) | 1) + 1;
        if (j.generation == 0) /* damage brought it to the end; 0 means never used */
            j.generation = 2;
        j.new_word = shk__entry(slot, j.generation, query->tag);
    }
    if (j.old_word) {
        uint64_t generation = shk__load(&shk__slot(store, shk__entry_slot(j.old_word))->generation);
        j.retired = generation + 1;
        if (generation % 2 || (uint16_t)generation != shk__entry_generation(j.old_word))
            return shk__fail(SHK_E_CORRUPT, "slot %u has generation %llu, its entry says %u",
                             shk__entry_slot(j.old_word), (unsigned long long)generation,
                             shk__entry_generation(j.old_word));
    }
    struct shk_journal_shm *journal = shk__journal(store);
    shk__store_words((uint64_t *)journal + 1, (uint64_t *)&j + 1,
                     offsetof(struct shk_journal_shm, previous) / 8 - 1);
    shk__store(&journal->kind, j.kind);

    if (image && shk__image_flags(image) & SHK_FLAG_EXPIRES)
        note_expiry(store, shk__image_times(store, image)[1]);
    if (image)
        shk__slot_publish_locked(store, slot, j.generation, image);
    if (!j.old_word)
        shk__index_overflow_locked(store, query, place->passed, +1);
    shk__store(shk__entry_at(store, j.target), j.new_word); /* the commit */
    if (!j.new_word)
        shk__index_overflow_locked(store, query, place->passed, -1);
    finish(store, &j);
    return 0;
}

int shk__journal_load(const shk_store *store, struct shk_journal_shm *out)
{
    const struct shk__geometry *g = &store->geometry;
    const struct shk_journal_shm *shared = shk__journal(store);
    struct shk_journal_shm j = {.kind = shk__load(&shared->kind)};
    if (j.kind == SHK_CHANGE_NONE) {
        *out = j;
        return 0;
    }
    shk__load_words((uint64_t *)&j + 1, (const uint64_t *)shared + 1,
                    offsetof(struct shk_journal_shm, previous) / 8 - 1);
    uint64_t queued = j.tail - j.head;
    bool good = j.kind < SHK_CHANGE_COUNT && j.target < (uint64_t)g->buckets * SHK_WAYS &&
                (j.old_word || j.new_word) && queued <= g->slots && j.high_water <= g->slots &&
                j.records <= g->capacity;
    if (good && j.old_word)
        good = shk__entry_slot(j.old_word) < g->slots && j.retired % 2 == 1 &&
               (uint16_t)(j.retired - 1) == shk__entry_generation(j.old_word);
    if (good && j.new_word) {
        uint32_t slot = shk__entry_slot(j.new_word);
        good = slot < g->slots && j.new_word != j.old_word && j.generation % 2 == 0 &&
               (uint16_t)j.generation == shk__entry_generation(j.new_word) &&
               (slot == j.high_water || queued > 0) && slot != shk__entry_slot(j.old_word);
    }
    if (!good)
        return shk__fail(SHK_E_CORRUPT, "the journal holds a %llu on entry %llu that nobody can "
                                        "have begun",
                         (unsigned long long)j.kind, (unsigned long long)j.target);
    *out = j;
    return 1;
}

int shk__journal_recover_locked(const shk_store *store)
{
    struct shk_journal_shm j;
    int rc = shk__journal_load(store, &j);
    if (rc <= 0)
        return rc;
    uint64_t word = shk__load(shk__entry_at(store, j.target));
    if (word == j.new_word)
        finish(store, &j);
    else if (word == j.old_word)
        undo(store, &j);
    else
        return shk__fail(SHK_E_CORRUPT,
                         "entry %llu is %#llx, neither what the journalled operation found (%#llx) "
                         "nor what it meant to leave (%#llx)",
                         (unsigned long long)j.target, (unsigned long long)word,
                         (unsigned long long)j.old_word, (unsigned long long)j.new_word);
    uint64_t *recoveries = &shk__stats(store)->recoveries;
    shk__store(recoveries, shk__load(recoveries) + 1);
    return 1;
}

/* ------------------------------------------------------------------ pulse -- */

struct shk__pulse shk__pulse(const shk_store *store)
{
    const struct shk_journal_shm *journal = shk__journal(store);
    const struct shk_ledger_shm *ledger = shk__ledger(store);
    return (struct shk__pulse){
        .kind = shk__load(&journal->kind),
        .revision = shk__load(&shk__changes(store)->revision),
        .begun = {shk__load(&journal->head), shk__load(&journal->tail),
                  shk__load(&journal->high_water)},
        .done = {shk__load(&ledger->head), shk__load(&ledger->tail),
                 shk__load(&ledger->high_water)},
        .owner = shk__load(&shk__lock_word(store)->word),
    };
}

bool shk__pulse_is(const shk_store *store, const struct shk__pulse *before)
{
    struct shk__pulse now = shk__pulse(store);
    return now.kind == before->kind && now.revision == before->revision &&
           memcmp(now.begun, before->begun, sizeof now.begun) == 0 &&
           memcmp(now.done, before->done, sizeof now.done) == 0 && now.owner == before->owner;
}

void shk__quiet_pause(int tries)
{
    struct timespec t = shk__timespec(SHK_MILLISECOND << (tries < 6 ? tries : 6));
    nanosleep(&t, NULL);
}
