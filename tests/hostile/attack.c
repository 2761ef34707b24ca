/* attack.c: a hostile process. It may store anything anywhere in the segment, at any time.
 *
 * An aim is one idea of what to change, in a few words, mostly of the right kind: bytes that
 * are wrong in the first check they meet get no further. A strike carries out an aim once,
 * or flips its words to and fro, so that what was checked is another thing when it is used.
 * Every so often the segment is healed, for a store that is corrupt all over shows little.
 */
#include "attack.h"

#include <stddef.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <time.h>

#include "arena.h"

#define WORDS_MAX 40u
#define FLIPS_MAX 20000u
#define LOCK_AT 1024u
#define JOURNAL_AT 1088u
#define LEDGER_AT 1216u
#define CHANGES_AT 1280u
#define AT(part, type, field) ((part) + offsetof(struct type, field))

static unsigned char *base; /* of this process's mapping */
static uint32_t living[SHK_WRITERS_MAX], living_count;

struct word {
    size_t at;
    unsigned width;
    uint64_t value, before;
};
static struct strike {
    const char *aim;
    unsigned count;
    struct word words[WORDS_MAX];
} strike;

/* --------------------------------------------------------------- the bytes -- */

static uint64_t look(size_t at, unsigned width)
{
    return width == 8   ? shk__load((uint64_t *)(void *)(base + at))
           : width == 4 ? shk__load((uint32_t *)(void *)(base + at))
                        : shk__load(base + at);
}

static void put(size_t at, unsigned width, uint64_t value)
{
    if (width == 8)
        shk__store((uint64_t *)(void *)(base + at), value);
    else if (width == 4)
        shk__store((uint32_t *)(void *)(base + at), (uint32_t)value);
    else
        shk__store(base + at, (unsigned char)value);
}

static void aim_at(size_t at, unsigned width, uint64_t value)
{
    if (strike.count < WORDS_MAX && at + width <= arena->geometry.total_size)
        strike.words[strike.count++] = (struct word){at, width, value, look(at, width)};
}

static uint64_t healthy(size_t at)
{
    uint64_t word;
    memcpy(&word, arena->image + at, sizeof word);
    return word;
}

/* Each part alike, however large: most of the bytes are the ring's. */
static size_t any_place(uint32_t alignment)
{
    const struct shk__geometry *g = &arena->geometry;
    const size_t ends[] = {0, LOCK_AT, g->ring_offset, g->buckets_offset, g->queue_offset,
                           g->records_offset, g->total_size};
    uint32_t part = below(sizeof ends / sizeof *ends - 1);
    return ends[part] + (size_t)below((uint32_t)(ends[part + 1] - ends[part]) / alignment) * alignment;
}

static size_t entry_at(uint32_t target)
{
    return arena->geometry.buckets_offset + target / SHK_WAYS * sizeof(struct shk_bucket_shm) + 8 +
           target % SHK_WAYS * 8;
}

static size_t slot_at(uint32_t number)
{
    return arena->geometry.records_offset + (size_t)number * arena->geometry.record_size;
}

static uint32_t any_target(void)
{
    return below(arena->geometry.buckets * SHK_WAYS);
}

/* An entry that stands, if a few looks find one. */
static uint32_t used_target(void)
{
    uint32_t target = any_target();
    for (int i = 0; i < 32 && look(entry_at(target), 8) == 0; i++)
        target = any_target();
    return target;
}

static uint64_t an_address(void)
{
    unsigned char *page = one_in(2) ? arena->trap : arena->witness;
    return (uint64_t)(uintptr_t)page + below(4) * 8;
}

/* Numbers near a limit, and what means something elsewhere. */
static uint64_t any_value(void)
{
    switch (below(9)) {
    case 0:
        return below(16);
    case 1:
        return UINT64_MAX - below(16);
    case 2:
        return UINT64_C(1) << below(64);
    case 3:
        return shk__entry(below(arena->geometry.slots + 2), below(16), (uint16_t)below(4));
    case 4:
        return (uint64_t)arena->decoys.sets[below(DECOYS)] + below(2);
    case 5:
        return an_address();
    case 6:
        return healthy(any_place(8));
    case 7:
        return arena->geometry.slots + below(4) - 2;
    default:
        return chance();
    }
}

/* -------------------------------------------------------------------- aims -- */

static void anything(void)
{
    for (unsigned i = 1 + below(8); i > 0; i--)
        aim_at(any_place(4), one_in(2) ? 4 : 8, any_value());
}

static void addresses(void)
{
    for (unsigned i = 1 + below(WORDS_MAX); i > 0; i--)
        aim_at(any_place(8), 8, an_address());
}

static void entries(void)
{
    uint32_t target = used_target(), other = used_target();
    uint64_t entry = look(entry_at(target), 8), twin = look(entry_at(other), 8);
    switch (below(7)) {
    case 0: /* a slot beyond the last */
        aim_at(entry_at(target), 8, (entry & UINT32_MAX) |
               ((uint64_t)arena->geometry.slots + 1 + (one_in(2) ? below(4) : below(UINT32_MAX / 2))) << 32);
        return;
    case 1: /* the last number there is */
        aim_at(entry_at(target), 8, entry | UINT64_C(0xFFFFFFFF) << 32);
        return;
    case 2: /* another generation */
        aim_at(entry_at(target), 8, entry ^ (uint64_t)(1 + below(0xFFFF)) << 16);
        return;
    case 3: /* swapped */
        aim_at(entry_at(target), 8, twin);
        aim_at(entry_at(other), 8, entry);
        return;
    case 4: /* twice */
        aim_at(entry_at(any_target()), 8, entry);
        return;
    case 5: /* another slot under the same tag */
        aim_at(entry_at(target), 8, (entry & UINT32_MAX) | (uint64_t)(1 + below(arena->geometry.slots)) << 32);
        return;
    default:
        aim_at(entry_at(target), 8, one_in(2) ? 0 : any_value());
    }
}

static void overflows(void)
{
    static const uint64_t counts[] = {0, 1, UINT64_MAX};
    for (unsigned i = 1 + below(8); i > 0; i--) {
        size_t at = arena->geometry.buckets_offset +
                    below(arena->geometry.buckets) * sizeof(struct shk_bucket_shm);
        aim_at(at, 8, one_in(4) ? any_value() : counts[below(3)]);
    }
}

static void generations(void)
{
    size_t at = slot_at(below(arena->geometry.slots));
    uint64_t generation = look(at, 8);
    const uint64_t values[] = {generation + 1, generation + 2, generation - 1, 0, UINT64_MAX,
                               UINT64_MAX - 1, generation ^ UINT64_C(0x10000), any_value()};
    aim_at(at, 8, values[below(8)]);
}

static void fields(void)
{
    const struct shk__geometry *g = &arena->geometry;
    const uint32_t lengths[] = {0, g->key_size, g->key_size + 1, g->record_size, SHK_KEY_SIZE_MAX,
                                UINT32_MAX, INT32_MAX, (uint32_t)-(int32_t)g->key_offset};
    size_t at = slot_at(below(g->slots));
    switch (below(6)) {
    case 0:
    case 1:
        aim_at(at + 8, 4, lengths[below(8)]);
        return;
    case 2:
        aim_at(at + 12, 4, one_in(2) ? below(SHK_FLAGS_ALL + 1) : (uint32_t)any_value());
        return;
    case 3:
        aim_at(at + SHK_STATUS_OFFSET, 4, one_in(2) ? below(3) : (uint32_t)any_value());
        return;
    case 4: /* ids that never end, or are empty */
        for (uint32_t i = 0, fill = one_in(2) ? 'x' : 0; i < 2 * g->id_size && i < WORDS_MAX; i++)
            aim_at(at + SHK_IDS_OFFSET + i, 1, fill);
        return;
    default:
        aim_at(at + g->key_id_offset, 4, (uint32_t)any_value());
    }
}

/* A record that repair will take for a sound one is changed in two places at once. */
static void records(void)
{
    size_t at = slot_at(below(arena->geometry.slots));
    aim_at(at, 8, look(at, 8) | one_in(2));
    aim_at(at + 8, 4, one_in(2) ? 0 : UINT32_MAX - below(256));
    aim_at(at + arena->geometry.record_size - 8, 8, UINT64_MAX);
}

/* A copy of a record in another slot: the same pair or one that never was, with an entry or
 * without. Repair has to choose. */
static void twins(void)
{
    const struct shk__geometry *g = &arena->geometry;
    uint32_t target = used_target(), to = below(g->slots);
    uint64_t entry = look(entry_at(target), 8), generation = (look(slot_at(to), 8) | 1) + 1;
    size_t from = slot_at(shk__entry_slot(entry) % g->slots);
    for (size_t i = 1; i < g->record_size / 8 && i < WORDS_MAX - 4; i++)
        aim_at(slot_at(to) + 8 * i, 8, look(from + 8 * i, 8));
    if (one_in(2))
        aim_at(slot_at(to) + SHK_IDS_OFFSET, 1, 'a' + below(26));
    if (one_in(3))
        aim_at(slot_at(to) + 12, 4, 1u << below(5));
    if (one_in(2))
        aim_at(entry_at(target / SHK_WAYS * SHK_WAYS + below(SHK_WAYS)), 8,
               shk__entry(to, generation, shk__entry_tag(entry)));
    aim_at(slot_at(to), 8, generation);
}

/* Records that nothing leads to any more. */
static void losses(void)
{
    uint32_t bucket = below(arena->geometry.buckets);
    for (uint32_t way = 0; way < SHK_WAYS; way++)
        aim_at(entry_at(bucket * SHK_WAYS + way), 8, 0);
}

static void times(void)
{
    const uint64_t values[] = {0, 1, shk__realtime(), UINT64_MAX, any_value()};
    size_t at = slot_at(below(arena->geometry.slots));
    aim_at(at + arena->geometry.times_offset + below(2) * 8, 8, values[below(5)]);
    aim_at(at + 12, 4, SHK_FLAG_EXPIRES * below(2));
}

/* Plausible but for a word or two, so that recovery acts on it. */
static void journals(void)
{
    const struct shk__geometry *g = &arena->geometry;
    struct shk_journal_shm j = {.kind = 1 + below(SHK_CHANGE_COUNT - 1),
                                .target = used_target(),
                                .head = look(AT(LEDGER_AT, shk_ledger_shm, head), 8),
                                .tail = look(AT(LEDGER_AT, shk_ledger_shm, tail), 8),
                                .high_water = g->slots - below(3),
                                .revision = look(AT(CHANGES_AT, shk_changes_shm, revision), 8),
                                .records = below((uint32_t)g->capacity + 2)};
    uint64_t entry = look(entry_at((uint32_t)j.target), 8);
    uint32_t fresh = below(g->slots);
    j.generation = (look(slot_at(fresh), 8) | 1) + 1;
    j.old_word = one_in(4) ? 0 : entry;
    j.retired = (j.old_word >> 16 & 0xFFFF) + 1;
    j.new_word = one_in(3) ? 0 : shk__entry(fresh, j.generation, shk__entry_tag(entry));
    if (one_in(3))
        aim_at(entry_at((uint32_t)j.target), 8, j.new_word); /* as if committed */
    uint64_t *words = (uint64_t *)&j;
    const uint64_t absurd_targets[] = {(uint64_t)g->buckets * SHK_WAYS, UINT64_MAX, UINT32_MAX,
                                       (uint64_t)g->buckets * SHK_WAYS + below(1u << 20),
                                       any_value()};
    const uint64_t absurd_words[] = {shk__entry(g->slots, 2, 0), shk__entry(0xFFFFFFFE, 2, 0),
                                     UINT64_MAX, any_value()};
    switch (below(6)) {
    case 0:
        j.target = absurd_targets[below(5)];
        break;
    case 1:
        words[2 + below(2)] = absurd_words[below(4)];
        break;
    case 2:
        words[1 + below(10)] = any_value();
        break;
    case 3:
        j.kind = one_in(2) ? SHK_CHANGE_REPAIR : any_value();
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < SHK_VARIANTS; i++)
        j.previous[i] = one_in(3) ? 1 + (one_in(2) ? any_target() : any_value()) : 0;
    for (size_t i = 1; i < offsetof(struct shk_journal_shm, reserved) / 8; i++)
        aim_at(JOURNAL_AT + i * 8, 8, words[i]);
    aim_at(JOURNAL_AT, 8, j.kind);
}

static void locks(void)
{
    uint32_t token = below(SHK_WRITERS_MAX) + 1;
    if (one_in(2) && living_count)
        token = living[below(living_count)] + 1;
    const uint32_t words[] = {token, 0, SHK_LOCK_WAITERS, SHK_WRITERS_MAX + 1, 0x7FFFFFFF,
                              (uint32_t)any_value()};
    aim_at(LOCK_AT, 4, words[below(6)] | (one_in(2) ? SHK_LOCK_WAITERS : 0));
}

static void semaphore_ids(void)
{
    const uint32_t ids[] = {0, UINT32_MAX, INT32_MAX, UINT32_C(0x80000000), 1,
                            (uint32_t)arena->decoys.sets[0] + 1, (uint32_t)arena->decoys.sets[1] + 1,
                            (uint32_t)arena->decoys.sets[2] + 1, (uint32_t)arena->decoys.segment + 1};
    aim_at(AT(0, shk_header_shm, set), 4, ids[below(9)]);
    if (one_in(4))
        aim_at(AT(0, shk_header_shm, store_id) + below(4) * 4, 4, any_value());
}

static void geometries(void)
{
    static const struct {
        size_t at;
        unsigned width;
    } places[] = {{AT(0, shk_header_shm, birthmark), 8},      {AT(0, shk_header_shm, layout_version), 4},
                  {AT(0, shk_header_shm, byte_order), 4},     {AT(0, shk_header_shm, layout_hash), 8},
                  {AT(0, shk_header_shm, capacity), 8},       {AT(0, shk_header_shm, id_size), 4},
                  {AT(0, shk_header_shm, key_size), 4},       {AT(0, shk_header_shm, total_size), 8},
                  {AT(0, shk_header_shm, name_size), 4},      {AT(0, shk_header_shm, owner), 4},
                  {AT(0, shk_header_shm, realm), 8},          {AT(0, shk_header_shm, hash_key), 8},
                  {AT(0, shk_header_shm, mode), 4},           {AT(0, shk_header_shm, shape), 8},
                  {AT(0, shk_header_shm, set) + 4, 4}};
    if (one_in(3)) { /* a header that fits together, of another store */
        struct shk__geometry other;
        uint64_t capacity = one_in(2) ? arena->capacity + 1 + below(64) : any_value();
        uint32_t key_size = one_in(2) ? arena->key_size : 1 + below(1024);
        if (shk__geometry_compute(capacity, arena->id_size, key_size, &other) == 0) {
            aim_at(AT(0, shk_header_shm, capacity), 8, other.capacity);
            aim_at(AT(0, shk_header_shm, key_size), 4, other.key_size);
            aim_at(AT(0, shk_header_shm, total_size), 8, other.total_size);
            aim_at(AT(0, shk_header_shm, layout_hash), 8, other.layout_hash);
            return;
        }
    }
    for (unsigned i = 1 + below(3); i > 0; i--) {
        unsigned which = below(sizeof places / sizeof *places);
        uint64_t now = look(places[which].at, places[which].width);
        aim_at(places[which].at, places[which].width, one_in(2) ? any_value() : now + below(5) - 2);
    }
}

static void states(void)
{
    const uint64_t values[] = {SHK_STATE_MAKING, SHK_STATE_DEAD, SHK_STATE_REMOVED, SHK_STATE_MOVED,
                               any_value()};
    aim_at(AT(0, shk_header_shm, state), 8, values[below(5)]);
}

static void successors(void)
{
    const size_t at = offsetof(struct shk_header_shm, successor);
    aim_at(AT(at, shk_successor_shm, id), 4, (uint32_t)any_value());
    aim_at(AT(at, shk_successor_shm, name_size), 4, one_in(2) ? below(300) : (uint32_t)any_value());
    for (unsigned i = 0; i < 16; i++)
        aim_at(AT(at, shk_successor_shm, name) + (one_in(2) ? i : below(256)), 1, 'x');
    aim_at(AT(0, shk_header_shm, state), 8, SHK_STATE_MOVED);
}

static void ledgers(void)
{
    const uint64_t slots = arena->geometry.slots;
    unsigned which = below(sizeof(struct shk_ledger_shm) / 8);
    uint64_t now = look(LEDGER_AT + which * 8, 8);
    const uint64_t values[] = {0, now + 1, now - 1, slots, slots + 1, slots - 1, UINT64_MAX,
                               INT32_MAX, any_value()};
    aim_at(LEDGER_AT + which * 8, 8, values[below(9)]);
}

static void queues(void)
{
    const uint32_t slots = arena->geometry.slots;
    const uint32_t values[] = {slots, slots + 1, UINT32_MAX, below(slots), 0, (uint32_t)any_value()};
    for (unsigned i = 1 + below(8); i > 0; i--)
        aim_at(arena->geometry.queue_offset + below(slots) * 4u, 4, values[below(6)]);
}

static void rings(void)
{
    uint64_t revision = look(AT(CHANGES_AT, shk_changes_shm, revision), 8);
    size_t at = arena->geometry.ring_offset +
                (revision - below(4)) % SHK_RING * arena->geometry.ring_size;
    aim_at(at, 8, one_in(2) ? revision - below(4) : any_value());
    aim_at(at + 8, 8, one_in(2) ? below(SHK_CHANGE_COUNT + 2) : any_value());
    for (uint32_t i = 0; i < 2 * arena->id_size && i < 24; i += 4)
        aim_at(at + 16 + i, 4, 0x78787878);
}

static void revisions(void)
{
    unsigned which = below(4);
    uint64_t now = look(CHANGES_AT + which * 8, 8);
    const uint64_t values[] = {0, now - 1, now + 1, now + SHK_RING + 5, UINT64_MAX, any_value()};
    aim_at(CHANGES_AT + which * 8, 8, values[below(6)]);
}

static const struct aim {
    const char *name;
    void (*take)(void);
} aims[] = {{"anything", anything},       {"addresses", addresses},   {"entries", entries},
            {"overflows", overflows},     {"generations", generations}, {"fields", fields},
            {"records", records},         {"times", times},           {"journals", journals},
            {"locks", locks},             {"semaphore ids", semaphore_ids},
            {"geometries", geometries},   {"states", states},         {"successors", successors},
            {"ledgers", ledgers},         {"queues", queues},         {"rings", rings},
            {"revisions", revisions},     {"twins", twins},           {"losses", losses}};
#define AIMS (sizeof aims / sizeof *aims)

/* ----------------------------------------------------------------- strikes -- */

static void note(const char *mode)
{
    unsigned self = (unsigned)(role - HOSTILE);
    for (unsigned i = 0; i < strike.count; i++) {
        const struct word *w = &strike.words[i];
        uint64_t number = arena->hostile[self].changes++;
        arena->hostile[self].last[number % LOG_SIZE] =
            (struct change){strike.aim, mode, w->at, w->value, w->before, w->width};
    }
    arena->hostile[self].strikes++;
}

static void apply(bool back)
{
    for (unsigned i = 0; i < strike.count; i++)
        put(strike.words[i].at, strike.words[i].width,
            back ? strike.words[i].before : strike.words[i].value);
}

static void rest(uint32_t microseconds)
{
    struct timespec t = shk__timespec(UINT64_C(1000) * below(microseconds));
    nanosleep(&t, NULL);
}

/* But for the lock word: whoever holds it is to go on. */
static void heal(void)
{
    const size_t size = arena->geometry.total_size;
    for (size_t at = 0; at + 8 <= size; at += 8)
        if (at != LOCK_AT)
            put(at, 8, healthy(at));
}

static void strike_once(const struct aim *aim)
{
    strike.aim = aim->name;
    strike.count = 0;
    aim->take();
    /* A state that ends the store ends the round's fun: it is mostly taken back. */
    bool ends = aim->take == states || aim->take == successors;
    if (one_in(2)) {
        note("flips");
        uint32_t pause = one_in(2) ? 0 : below(64);
        for (uint32_t flips = below(FLIPS_MAX); flips > 0 && arena_attacked(); flips--) {
            apply(false);
            for (uint32_t i = 0; i < pause; i++)
                shk__pause();
            apply(true);
            for (uint32_t i = 0; i < pause; i++)
                shk__pause();
        }
        if (!ends && one_in(2))
            apply(false);
        return;
    }
    note("stands");
    apply(false);
    rest(200);
    if (one_in(2) || (ends && !one_in(8)))
        apply(true);
}

static void find_the_living(void)
{
    union semun {
        unsigned short *array;
    };
    unsigned short values[DECOY_VALUES];
    living_count = 0;
    if (semctl(arena->set, 0, GETALL, (union semun){.array = values}) != 0)
        return;
    for (uint32_t token = 0; token < SHK_WRITERS_MAX; token++)
        if (values[token])
            living[living_count++] = token;
}

void attack_run(void)
{
    while (arena_await(OPEN)) {
        void *mapping = shmat(arena->segment, NULL, 0);
        CHECK(mapping != (void *)-1);
        base = mapping;
        chance_restart();
        arena_finish();
        if (!arena_await(ATTACK))
            return;
        const struct aim *chosen[4];
        for (unsigned i = 0; i < 4; i++)
            chosen[i] = &aims[below(AIMS)];
        bool all = one_in(6);
        while (arena_attacked()) {
            if (living_count == 0 || one_in(64))
                find_the_living();
            for (unsigned burst = one_in(8) ? below(32) : 1; burst > 0 && arena_attacked(); burst--)
                strike_once(all ? &aims[below(AIMS)] : chosen[below(4)]);
            if (one_in(4))
                heal();
            if (one_in(3))
                rest(300);
        }
        CHECK(shmdt(mapping) == 0);
        arena_finish();
    }
}
