/* check.c: every invariant of a store, by name. The list is SHK_CHECKS in shk.h.
 *
 * The check works on whatever a killed writer left: a slot that the journal names
 * may be half-filled or half-wiped, and the counts may be those before or after.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "previous.h"

const char *shk_check_name(enum shk_check check)
{
    static const char *const names[] = {
#define SHK_CHECK_NAME(name, text) #name,
        SHK_CHECKS(SHK_CHECK_NAME)
#undef SHK_CHECK_NAME
    };
    return check < SHK_CHECK_COUNT ? names[check] : NULL;
}

const char *shk_check_text(enum shk_check check)
{
    static const char *const texts[] = {
#define SHK_CHECK_TEXT(name, text) text,
        SHK_CHECKS(SHK_CHECK_TEXT)
#undef SHK_CHECK_TEXT
    };
    return check < SHK_CHECK_COUNT ? texts[check] : NULL;
}

/* Where a slot was met, by bits: INDEXED or QUEUED, once. A journaled one may be both,
 * for the queue's head moves on only after the commit. */
enum { INDEXED = 1, QUEUED = 2, JOURNALED = 4 };

struct walk {
    const shk_store *store;
    struct shk_report report;
    struct shk_journal_shm journal; /* kind 0: none, or one that makes no sense */
    uint64_t high_water;
    uint64_t previous;       /* entries of previous keys */
    unsigned char *slots;    /* per slot: the bits above */
    uint32_t *needed;        /* per bucket: entries that passed it */
};

static void fault(struct walk *walk, enum shk_check check, uint64_t where)
{
    if (walk->report.faults[check]++ == 0)
        walk->report.first[check] = where;
}

static bool is_zero(const uint64_t *words, size_t from, size_t to)
{
    uint64_t seen = 0;
    for (size_t i = from; i < to; i++)
        seen |= shk__load(&words[i]);
    return seen == 0;
}

static void meet(struct walk *walk, uint32_t slot, unsigned char as)
{
    const uint32_t slots = walk->store->geometry.slots;
    if (slot >= slots ||
        walk->slots[slot] & (walk->slots[slot] & JOURNALED ? as : INDEXED | QUEUED)) {
        fault(walk, SHK_CHECK_slot_partition, slot);
        return;
    }
    walk->slots[slot] |= as;
    if (walk->slots[slot] == INDEXED)
        walk->report.records++;
    else if (walk->slots[slot] == QUEUED)
        walk->report.free_slots++;
}

static void check_journal(struct walk *walk)
{
    const shk_store *store = walk->store;
    if (shk__journal_load(store, &walk->journal) < 0) {
        fault(walk, SHK_CHECK_journal, 0);
        walk->journal.kind = SHK_CHANGE_NONE;
        return;
    }
    const struct shk_journal_shm *j = &walk->journal;
    if (j->kind == SHK_CHANGE_NONE)
        return;
    uint64_t word = shk__load(shk__entry_at(store, j->target));
    if (word != j->old_word && word != j->new_word)
        fault(walk, SHK_CHECK_journal, j->target);
    const uint64_t words[] = {j->old_word, j->new_word};
    for (int i = 0; i < 2; i++) {
        if (words[i]) {
            walk->slots[shk__entry_slot(words[i])] |= JOURNALED;
            walk->report.journaled++;
        }
    }
}

static void check_fields(struct walk *walk, uint32_t number, const uint64_t *words)
{
    if (!shk__image_is_sound(walk->store, words))
        fault(walk, SHK_CHECK_record_fields, number);
    else if (!shk__image_is_padded(walk->store, words))
        fault(walk, SHK_CHECK_free_bytes_zero, number);
}

/* Its pair's record names it, or the write that added or drops it is under way. */
static void check_previous(struct walk *walk, uint64_t target, const struct shk__query *query)
{
    const shk_store *store = walk->store;
    walk->previous++;
    const uint64_t *named = shk__journal(store)->previous;
    if (shk__previous_is_named_locked(store, query) <= 0 &&
        shk__load(&named[0]) != target + 1 && shk__load(&named[1]) != target + 1)
        fault(walk, SHK_CHECK_previous, target);
}

static void check_entry(struct walk *walk, uint32_t bucket, uint64_t target, uint64_t entry,
                        uint64_t *words)
{
    const shk_store *store = walk->store;
    const struct shk__geometry *g = &store->geometry;
    uint32_t number = shk__entry_slot(entry);
    meet(walk, number, INDEXED);
    if (number >= g->slots)
        return;
    shk__load_words(words, (const uint64_t *)shk__slot(store, number), g->record_size / 8);
    if (words[0] == 0 || words[0] % 2 || (uint16_t)words[0] != shk__entry_generation(entry)) {
        fault(walk, SHK_CHECK_generation, number);
        return;
    }
    check_fields(walk, number, words);

    struct shk__query query;
    struct shk__place place;
    shk__query_of_image(store, words, &query);
    if (query.role)
        check_previous(walk, target, &query);
    uint32_t passed = bucket >= query.home ? bucket - query.home : bucket + g->buckets - query.home;
    if (query.tag != shk__entry_tag(entry) || passed >= g->probe_limit) {
        fault(walk, SHK_CHECK_placement, number);
        return;
    }
    for (uint32_t at = query.home; passed > 0; passed--, at = shk__next_bucket(store, at))
        walk->needed[at]++;
    /* A search for its ids must end here: not before, at a twin. */
    if (shk__index_find_locked(store, &query, &place) == 0 && place.word && place.target != target)
        fault(walk, SHK_CHECK_unique_pairs, number);
}

/* The count of one sort of entries, as the ledger or an operation under way has it. */
static void check_count(struct walk *walk, uint64_t kind, uint64_t entries)
{
    const struct shk_journal_shm *j = &walk->journal;
    const uint64_t *count = shk__journal_count(walk->store, kind);
    uint64_t ledger = shk__load(count), expected = ledger;
    if (j->kind && shk__journal_count(walk->store, j->kind) == count) {
        uint64_t after = j->records + (uint64_t)shk__journal_growth(j);
        bool committed = shk__load(shk__entry_at(walk->store, j->target)) == j->new_word;
        expected = committed ? after : j->records;
        if (ledger != j->records && ledger != after)
            fault(walk, SHK_CHECK_count, ledger);
    }
    if (entries != expected)
        fault(walk, SHK_CHECK_count, entries);
}

static void check_index(struct walk *walk, uint64_t *words)
{
    const struct shk__geometry *g = &walk->store->geometry;
    uint64_t entries = 0;
    for (uint32_t b = 0; b < g->buckets; b++) {
        const struct shk_bucket_shm *bucket = shk__bucket(walk->store, b);
        for (unsigned way = 0; way < SHK_WAYS; way++) {
            uint64_t entry = shk__load(&bucket->entries[way]);
            if (!entry)
                continue;
            entries++;
            uint64_t target = (uint64_t)b * SHK_WAYS + way;
            /* The old slot of a journalled operation may be half-wiped only after
             * its commit, when no entry names it; the new one only before. */
            check_entry(walk, b, target, entry, words);
        }
    }
    for (uint32_t b = 0; b < g->buckets; b++)
        if (shk__load(&shk__bucket(walk->store, b)->overflow) < walk->needed[b])
            fault(walk, SHK_CHECK_overflow, b);

    check_count(walk, SHK_CHANGE_KEEP, walk->previous);
    check_count(walk, SHK_CHANGE_INSERT, entries - walk->previous);
    if (entries > g->capacity)
        fault(walk, SHK_CHECK_count, entries);
}

static void check_queue(struct walk *walk)
{
    const shk_store *store = walk->store;
    const struct shk_ledger_shm *ledger = shk__ledger(store);
    uint64_t head = shk__load(&ledger->head), tail = shk__load(&ledger->tail);
    walk->high_water = shk__load(&ledger->high_water);
    if (tail - head > store->geometry.slots || walk->high_water > store->geometry.slots) {
        fault(walk, SHK_CHECK_queue, head);
        walk->high_water = 0;
        return;
    }
    for (uint64_t at = head; at != tail; at++) {
        uint32_t slot = shk__load(shk__queue_at(store, at));
        if (slot >= walk->high_water && !(slot < store->geometry.slots && walk->slots[slot] & JOURNALED))
            fault(walk, SHK_CHECK_queue, slot);
        meet(walk, slot, QUEUED);
    }
}

static void check_slots(struct walk *walk)
{
    const struct shk__geometry *g = &walk->store->geometry;
    for (uint32_t slot = 0; slot < g->slots; slot++) {
        unsigned char met = walk->slots[slot];
        if (slot < walk->high_water ? met == 0 : (met & ~JOURNALED) && !(met & JOURNALED))
            fault(walk, SHK_CHECK_slot_partition, slot);
        /* Never touch what lies above the mark but for the one slot that an undone
         * insert may have used: those pages do not exist yet. */
        if (met & (INDEXED | JOURNALED) || slot > walk->high_water)
            continue;
        const uint64_t *words = (const uint64_t *)shk__slot(walk->store, slot);
        uint64_t generation = shk__load(&words[0]);
        if (generation != 0 && generation % 2 == 0)
            fault(walk, SHK_CHECK_generation, slot);
        if (!is_zero(words, 1, g->record_size / 8))
            fault(walk, SHK_CHECK_free_bytes_zero, slot);
    }
}

static int check(const shk_store *store, struct shk_report *out)
{
    const struct shk__geometry *g = &store->geometry;
    struct walk walk = {.store = store,
                        .slots = calloc(g->slots, 1),
                        .needed = calloc(g->buckets, sizeof *walk.needed)};
    struct shk__image image = {0};
    int rc = walk.slots && walk.needed ? shk__image_open(store, &image)
                                       : shk__fail(-ENOMEM, "verify of %u slots", g->slots);
    if (rc == 0) {
        check_journal(&walk);
        check_index(&walk, image.words);
        check_queue(&walk);
        check_slots(&walk);
        shk__image_close(store, &image);
        *out = walk.report;
    }
    free(walk.slots);
    free(walk.needed);
    return rc;
}

static uint64_t count_faults(const struct shk_report *report)
{
    uint64_t sum = 0;
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        sum += report->faults[i];
    return sum;
}

/* Without the lock a fault counts only if nothing moved while it was looked for. */
static int check_unlocked(const shk_store *store, struct shk_report *out)
{
    for (int i = 0; i < SHK__QUIET_TRIES; i++) {
        struct shk__pulse before = shk__pulse(store);
        struct shk_report report;
        int rc = check(store, &report);
        if (rc < 0)
            return rc;
        if (shk__pulse_is(store, &before) || count_faults(&report) == 0) {
            *out = report;
            return 0;
        }
        shk__quiet_pause(i);
    }
    return shk__fail(SHK_E_BUSY,
                     "writers changed %s during each of %d checks: verify through a "
                     "writable handle, which holds them up",
                     store->title, SHK__QUIET_TRIES);
}

int shk_store_verify(shk_store *store, struct shk_report *out)
{
    int rc = shk__store_check_live(store);
    if (rc == SHK_E_CORRUPT || (rc < 0 && store->info.readonly))
        return rc;
    if (store->info.readonly)
        return check_unlocked(store, out);
    rc = shk__store_begin(store);
    if (rc == SHK_E_CORRUPT) /* a journal or a lock that can't be recovered is a finding */
        return check_unlocked(store, out);
    if (rc < 0)
        return rc;
    rc = check(store, out);
    shk__store_end(store);
    return rc;
}
