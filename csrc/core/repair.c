/* repair.c: the records are the truth, everything else follows from them.
 *
 * Between two records of one pair the one that the index names counts, for an entry is
 * what commits, else the newer one. Readers go on all the while: nothing that they could find is hidden from
 * them in between, and overflow counts are lowered last.
 */
#include "repair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "previous.h"

/* So many slots in a row that were never used: none behind them was either. */
#define UNUSED_RUN 1024u

const char *shk_drop_name(enum shk_drop drop)
{
    static const char *const names[] = {
#define SHK_DROP_NAME(name, text) #name,
        SHK_DROPS(SHK_DROP_NAME)
#undef SHK_DROP_NAME
    };
    return drop < SHK_DROP_COUNT ? names[drop] : NULL;
}

const char *shk_drop_text(enum shk_drop drop)
{
    static const char *const texts[] = {
#define SHK_DROP_TEXT(name, text) text,
        SHK_DROPS(SHK_DROP_TEXT)
#undef SHK_DROP_TEXT
    };
    return drop < SHK_DROP_COUNT ? texts[drop] : NULL;
}

/* What became of a slot. */
enum fate {
    UNDECIDED,
    KEPT,     /* an entry names it, and rightly */
    RESTORED, /* the same, but the entry is new */
    DROPPED,  /* its record is reported already */
};

struct repair {
    const shk_store *store;
    struct shk_repair_report report;
    unsigned char *fates; /* per slot */
    uint32_t *needed;   /* per bucket: entries that passed it */
    uint64_t *words;    /* a private image */
    uint32_t slots;     /* those that were ever used */
    uint32_t current;   /* slot of the record being looked at */
    uint64_t kept, pairs, previous;
    uint64_t earliest, last_key_id;
};

static void drop(struct repair *r, enum shk_drop why, uint64_t where)
{
    if (r->report.dropped[why]++ == 0)
        r->report.first[why] = where;
}

static bool stands(const struct repair *r, uint32_t number)
{
    return r->fates[number] == KEPT || r->fates[number] == RESTORED;
}

static struct shk_slot_shm *slot_of(const struct repair *r, uint32_t number)
{
    return shk__slot(r->store, number);
}

/* ---------------------------------------------------------------- looking -- */

/* The slot's record, if it holds a sound one, becomes the private image. */
static bool load_sound(struct repair *r, uint32_t number)
{
    const struct shk__geometry *g = &r->store->geometry;
    shk__load_words(r->words, (const uint64_t *)slot_of(r, number), g->record_size / 8);
    return r->words[0] != 0 && r->words[0] % 2 == 0 && shk__image_is_sound(r->store, r->words);
}

static uint32_t distance(const shk_store *store, uint32_t home, uint32_t bucket)
{
    return bucket >= home ? bucket - home : bucket + store->geometry.buckets - home;
}

/* The entry names a sound record that belongs there, and no other entry does. */
static bool is_right(struct repair *r, uint64_t target, uint64_t entry, struct shk__query *query)
{
    const shk_store *store = r->store;
    uint32_t number = shk__entry_slot(entry);
    if (number >= store->geometry.slots || stands(r, number) || !load_sound(r, number) ||
        (uint16_t)r->words[0] != shk__entry_generation(entry))
        return false;
    shk__query_of_image(store, r->words, query);
    return query->tag == shk__entry_tag(entry) &&
           distance(store, query->home, (uint32_t)(target / SHK_WAYS)) < store->geometry.probe_limit;
}

/* Each entry that stands, and the bucket counts that let a search reach it. */
static void check_entries(struct repair *r)
{
    const shk_store *store = r->store;
    const uint64_t entries = (uint64_t)store->geometry.buckets * SHK_WAYS;
    for (uint64_t target = 0; target < entries; target++) {
        struct shk__query query;
        uint64_t *at = shk__entry_at(store, target), entry = shk__load(at);
        if (entry == 0)
            continue;
        if (!is_right(r, target, entry, &query)) {
            drop(r, SHK_DROP_entry, target);
            shk__store(at, 0);
            continue;
        }
        uint32_t number = shk__entry_slot(entry), bucket = query.home;
        r->fates[number] = KEPT;
        r->kept++;
        if (number >= r->slots)
            r->slots = number + 1;
        for (; bucket != target / SHK_WAYS; bucket = shk__next_bucket(store, bucket))
            if (shk__load(&shk__bucket(store, bucket)->overflow) < ++r->needed[bucket])
                shk__store(&shk__bucket(store, bucket)->overflow, r->needed[bucket]);
    }
}

static bool is_untouched(const struct repair *r, uint32_t number)
{
    const uint64_t *words = (const uint64_t *)slot_of(r, number);
    uint64_t seen = 0;
    for (size_t i = 0; i < r->store->geometry.record_size / 8; i++)
        seen |= shk__load(&words[i]);
    return seen == 0;
}

/* The slots that were ever used, wherever the mark says they end. */
static void find_slots(struct repair *r)
{
    const uint32_t all = r->store->geometry.slots;
    uint64_t mark = shk__load(&shk__ledger(r->store)->high_water);
    if (mark > all)
        mark = all;
    if (mark > r->slots)
        r->slots = (uint32_t)mark;
    for (uint32_t number = r->slots; number < all && number - r->slots < UNUSED_RUN; number++)
        if (!is_untouched(r, number))
            r->slots = number + 1;
}

/* --------------------------------------------------------------- restoring -- */

/* Takes the entry away that was seen to name the slot: it is freed with all that nobody keeps. */
static void forget(struct repair *r, enum shk_drop why, const struct shk__query *query,
                   uint64_t target, uint32_t number)
{
    uint32_t bucket = query->home;
    shk__store(shk__entry_at(r->store, target), 0);
    drop(r, why, number);
    r->fates[number] = DROPPED;
    r->kept--;
    for (; bucket != target / SHK_WAYS; bucket = shk__next_bucket(r->store, bucket))
        r->needed[bucket]--;
}

/* The private image is newer than the slot's record. */
static bool is_newer_than(const struct repair *r, uint32_t number)
{
    struct shk_record here, there;
    uint32_t flags;
    shk__image_describe(r->store, r->words, &here);
    shk__slot_describe_locked(r->store, number, &there, &flags);
    return here.updated != there.updated ? here.updated > there.updated
                                         : here.key_id > there.key_id;
}

/* Two entries of one pair, this one naming the slot: a search finds one of them only. */
static void drop_twin(struct repair *r, uint64_t target, uint32_t number,
                      const struct shk__query *query)
{
    struct shk__place place;
    if (shk__index_find_locked(r->store, query, &place) < 0 || place.target == target ||
        !place.word)
        return;
    uint32_t other = shk__entry_slot(place.word);
    if (is_newer_than(r, other))
        forget(r, SHK_DROP_twin, query, place.target, other);
    else
        forget(r, SHK_DROP_twin, query, target, number);
}

static void drop_twins(struct repair *r)
{
    for (uint32_t number = 0; number < r->slots; number++) {
        struct shk__query query;
        struct shk__place place;
        if (!stands(r, number) || !load_sound(r, number))
            continue;
        shk__query_of_image(r->store, r->words, &query);
        /* Its own entry need not be the one that a search finds. */
        for (uint32_t probe = 0, bucket = query.home; probe < r->store->geometry.probe_limit;
             probe++, bucket = shk__next_bucket(r->store, bucket)) {
            for (unsigned way = 0; way < SHK_WAYS; way++) {
                place.target = (uint64_t)bucket * SHK_WAYS + way;
                if (shk__entry_slot(shk__load(shk__entry_at(r->store, place.target))) == number)
                    drop_twin(r, place.target, number, &query);
            }
            if (shk__load(&shk__bucket(r->store, bucket)->overflow) == 0)
                break;
        }
    }
}

/* A sound record that no entry names gets one. */
static void restore(struct repair *r, uint32_t number)
{
    const shk_store *store = r->store;
    struct shk__query query;
    struct shk__place place;
    shk__query_of_image(store, r->words, &query);
    int rc = shk__index_find_locked(store, &query, &place);
    if (rc == 0 && place.word && r->fates[shk__entry_slot(place.word)] == RESTORED &&
        is_newer_than(r, shk__entry_slot(place.word))) {
        forget(r, SHK_DROP_twin, &query, place.target, shk__entry_slot(place.word));
        place.word = 0;
    }
    if (rc < 0 || place.word) {
        drop(r, rc < 0 ? SHK_DROP_excess : SHK_DROP_twin, number);
        r->fates[number] = DROPPED;
        return;
    }
    shk__index_overflow_locked(store, &query, place.passed, +1);
    for (uint32_t bucket = query.home; bucket != place.target / SHK_WAYS;
         bucket = shk__next_bucket(store, bucket))
        r->needed[bucket]++;
    shk__store(shk__entry_at(store, place.target), shk__entry(number, r->words[0], query.tag));
    r->fates[number] = RESTORED;
    r->kept++;
}

static void restore_all(struct repair *r)
{
    for (uint32_t number = 0; number < r->slots; number++)
        if (r->fates[number] == UNDECIDED && load_sound(r, number))
            restore(r, number);
}

/* ---------------------------------------------------------------- dropping -- */

static bool is_orphan(const struct repair *r, const struct shk__query *query)
{
    return query->role && shk__previous_is_named_locked(r->store, query) <= 0;
}

static bool is_restored_previous(const struct repair *r, const struct shk__query *query)
{
    return query->role && r->fates[r->current] == RESTORED;
}

static bool is_restored(const struct repair *r, const struct shk__query *query)
{
    (void)query;
    return r->fates[r->current] == RESTORED;
}

static bool is_previous(const struct repair *r, const struct shk__query *query)
{
    (void)r;
    return query->role != 0;
}

static bool is_any(const struct repair *r, const struct shk__query *query)
{
    (void)r;
    (void)query;
    return true;
}

/* Forgets what stands and is chosen, from the last slot on, until no more than `limit` stand. */
static void forget_some(struct repair *r, enum shk_drop why, uint64_t limit,
                        bool (*is_chosen)(const struct repair *, const struct shk__query *))
{
    for (uint32_t number = r->slots; number-- > 0 && r->kept > limit;) {
        struct shk__query query;
        struct shk__place place;
        if (!stands(r, number) || !load_sound(r, number))
            continue;
        r->current = number;
        shk__query_of_image(r->store, r->words, &query);
        if (is_chosen(r, &query) && shk__index_find_locked(r->store, &query, &place) == 0 &&
            place.word)
            forget(r, why, &query, place.target, shk__entry_slot(place.word));
    }
}

/* What the store has no room for: first what the index had lost, then previous keys. */
static void drop_excess(struct repair *r)
{
    const uint64_t capacity = r->store->geometry.capacity;
    forget_some(r, SHK_DROP_excess, capacity, is_restored_previous);
    forget_some(r, SHK_DROP_excess, capacity, is_restored);
    forget_some(r, SHK_DROP_excess, capacity, is_previous);
    forget_some(r, SHK_DROP_excess, capacity, is_any);
}

/* ---------------------------------------------------------------- rebuilding -- */

static void count_record(struct repair *r)
{
    struct shk_record about;
    shk__image_describe(r->store, r->words, &about);
    if (shk__image_flags(r->words) & SHK_FLAGS_IS_PREVIOUS)
        r->previous++;
    else
        r->pairs++;
    if (about.expires && (r->earliest == 0 || about.expires < r->earliest))
        r->earliest = about.expires;
    if ((uint64_t)about.key_id > r->last_key_id)
        r->last_key_id = (uint64_t)about.key_id;
}

/* Zeroes what a record does not use; the rest stands. */
static void pad(struct repair *r, uint32_t number)
{
    uint64_t *slot = (uint64_t *)slot_of(r, number);
    if (shk__image_is_padded(r->store, r->words))
        return;
    shk__image_pad(r->store, r->words);
    for (size_t i = 1; i < r->store->geometry.record_size / 8; i++)
        if (shk__load(&slot[i]) != r->words[i])
            shk__store(&slot[i], r->words[i]);
}

static void rebuild_slots(struct repair *r)
{
    const shk_store *store = r->store;
    struct shk_ledger_shm *ledger = shk__ledger(store);
    uint64_t tail = 0, last = shk__load(&ledger->last_key_id);
    for (uint32_t number = 0; number < r->slots; number++) {
        uint64_t generation = shk__load(&slot_of(r, number)->generation);
        bool sound = load_sound(r, number);
        if (stands(r, number) && sound) { /* still: a foreign process may write meanwhile */
            r->report.kept++;
            r->report.restored += r->fates[number] == RESTORED;
            count_record(r);
            pad(r, number);
            continue;
        }
        if (generation != 0 && generation % 2 == 0 && !sound)
            drop(r, SHK_DROP_damaged, number);
        /* The upper half of the numbers is reached by damage only, and its end is near. */
        shk__slot_retire_locked(store, number, (generation | 1) & (UINT64_MAX >> 1));
        shk__store(shk__queue_at(store, tail++), number);
    }
    if (r->slots < store->geometry.slots) { /* an undone insert may have used the next one */
        uint64_t *words = (uint64_t *)slot_of(r, r->slots);
        for (size_t i = 1; i < store->geometry.record_size / 8; i++)
            if (shk__load(&words[i]))
                shk__store(&words[i], 0);
    }
    shk__store(&ledger->head, 0);
    shk__store(&ledger->tail, tail);
    shk__store(&ledger->high_water, r->slots);
    shk__store(&ledger->records, r->pairs);
    shk__store(&ledger->previous, r->previous);
    shk__store(&ledger->hand, 0);
    shk__store(&ledger->earliest, r->earliest);
    if (last > INT32_MAX || last < r->last_key_id)
        shk__store(&ledger->last_key_id, r->last_key_id);
}

/* Changes that no commit can have left: whoever asks for them is told that they are lost. */
static void check_ring(const shk_store *store)
{
    uint64_t now = shk__load(&shk__changes(store)->revision);
    for (uint64_t place = 0; place < SHK_RING; place++) {
        struct shk_ring_shm *change = shk__ring_at(store, place);
        uint64_t revision = shk__load(&change->revision), kind = shk__load(&change->kind);
        if (revision && (revision > now || (revision - 1) % SHK_RING != place ||
                         kind < SHK_CHANGE_INSERT || kind > SHK_CHANGE_EXPIRE))
            shk__store(&change->revision, 0);
    }
}

static bool changed_records(const struct shk_repair_report *report)
{
    uint64_t changed = report->restored;
    for (int i = 0; i < SHK_DROP_COUNT; i++)
        changed |= report->dropped[i];
    return changed != 0;
}

static void rebuild(struct repair *r)
{
    const shk_store *store = r->store;
    shk__store(&shk__journal(store)->kind, SHK_CHANGE_REPAIR);
    for (unsigned variant = 0; variant < SHK_VARIANTS; variant++)
        shk__store(&shk__journal(store)->previous[variant], 0);
    check_entries(r);
    find_slots(r);
    drop_twins(r);
    restore_all(r);
    forget_some(r, SHK_DROP_orphan, 0, is_orphan);
    drop_excess(r);
    forget_some(r, SHK_DROP_orphan, 0, is_orphan); /* of pairs that were too many */
    rebuild_slots(r);
    check_ring(store);
    for (uint32_t bucket = 0; bucket < store->geometry.buckets; bucket++)
        if (shk__load(&shk__bucket(store, bucket)->overflow) != r->needed[bucket])
            shk__store(&shk__bucket(store, bucket)->overflow, r->needed[bucket]);
    /* The ring can't tell what happened: whoever asks it is told to read anew. */
    uint64_t *revision = &shk__changes(store)->revision;
    if (changed_records(&r->report))
        shk__store(revision, shk__load(revision) + SHK_RING + 1);
    shk__store(&shk__journal(store)->kind, SHK_CHANGE_NONE);
}

int shk__repair_locked(const shk_store *store, struct shk_repair_report *out)
{
    struct shk__image image;
    struct repair r = {.store = store, .report = *out};
    int rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    r.words = image.words;
    r.fates = calloc(store->geometry.slots, sizeof *r.fates);
    r.needed = calloc(store->geometry.buckets, sizeof *r.needed);
    if (r.fates && r.needed) {
        rebuild(&r);
        *out = r.report;
    } else
        rc = shk__fail(-ENOMEM, "repair of %u slots", store->geometry.slots);
    free(r.fates);
    free(r.needed);
    shk__image_close(store, &image);
    return rc;
}

int shk_store_repair(shk_store *store, struct shk_repair_report *out)
{
    struct shk_repair_report report = {0};
    if (store->info.readonly)
        return shk__fail(SHK_E_READONLY, "%s was opened read-only", store->title);
    int rc = shk__store_begin(store);
    if (rc == SHK_E_CORRUPT) { /* a journal or a lock word that can't be */
        rc = shk__store_begin_damaged(store);
        if (rc == 0 && shk__load(&shk__journal(store)->kind) != SHK_CHANGE_NONE)
            report = (struct shk_repair_report){.dropped = {[SHK_DROP_journal] = 1}};
    }
    if (rc < 0)
        return rc;
    rc = shk__repair_locked(store, &report);
    shk__store_end(store);
    if (rc == 0)
        *out = report;
    return rc;
}
