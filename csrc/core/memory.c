/* memory.c: how a store is made and found in memory that is the caller's.
 *
 * Such memory can't be removed and made anew, as a segment can (life.c), so a maker can't be
 * condemned: it might live, and store into the next attempt. Instead every maker helps every
 * other, and the dead ones too:
 *
 *   each word of the header goes from 0 to its value once, by CAS     settle()
 *   whoever comes later takes what is there
 *   the semaphore set is the same for all                              shk__realm_enter
 *   CAS(state: MAKING -> LIVE)
 *
 * Of what may differ from one maker to another, each word is decided by the first: the layout
 * (of which another build then knows), the shape, in one word, the random numbers, the owner,
 * the date. The rest follows from these. So wherever a maker is killed or stopped, the next
 * one goes on, nobody waits for anybody, and a late store of a slow one finds its word taken.
 *
 * All else that a new store consists of is zeros, and those are the caller's promise. To zero
 * the memory of a store that was destroyed is the same promise once more: handles of that one
 * could not tell the next from theirs, and must be gone. So no opener does it by itself.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "handle.h"
#include "realm.h"
#include "removal.h"

#define POLL (SHK_MILLISECOND / 2)
#define WORD sizeof(uint64_t)
#define MAKINGS_MAX 4 /* one is enough, where all keep to the rules */

typedef uint64_t __attribute__((may_alias)) word_t;

struct opening {
    enum shk_intent intent;
    struct shk_header_shm *header;
    size_t size;
    struct shk_shape shape;
    const struct shk_access *access;
};

/* ------------------------------------------------------------------ shapes -- */

static uint64_t pack(uint64_t capacity, uint32_t id_size, uint32_t key_size)
{
    return capacity | (uint64_t)id_size << 32 | (uint64_t)key_size << 44;
}
_Static_assert(SHK_CAPACITY_MAX <= UINT32_MAX && SHK_ID_SIZE_MAX < 1 << 12 &&
                   SHK_KEY_SIZE_MAX < 1 << 20, "they fit one word");

static int compute(const struct shk_shape *shape, struct shk__geometry *out)
{
    return shk__geometry_compute(shape->capacity,
                                 shape->id_size ? shape->id_size : SHK_ID_SIZE_DEFAULT,
                                 shape->key_size ? shape->key_size : SHK_KEY_SIZE_DEFAULT, out);
}

int shk_store_size(const struct shk_shape *shape, size_t *out)
{
    struct shk__geometry geometry;
    int rc = compute(shape, &geometry);
    if (rc == 0)
        *out = geometry.total_size;
    return rc;
}

/* The geometry that a new store would have; capacity 0: the largest that fits. */
static int fit(const struct opening *o, struct shk__geometry *out)
{
    struct shk_shape shape = o->shape;
    struct shk__geometry geometry;
    uint64_t low = shape.capacity ? shape.capacity : 1;
    uint64_t high = shape.capacity ? shape.capacity : SHK_CAPACITY_MAX;
    shape.capacity = low;
    int rc = compute(&shape, &geometry);
    if (rc == 0 && geometry.total_size > o->size)
        rc = shk__fail(SHK_E_INVALID,
                       "the memory has %zu bytes; a store of capacity %llu, id_size %u, key_size "
                       "%u takes %llu",
                       o->size, (unsigned long long)low, geometry.id_size, geometry.key_size,
                       (unsigned long long)geometry.total_size);
    while (rc == 0 && low < high) { /* low fits */
        shape.capacity = low + (high - low + 1) / 2;
        rc = compute(&shape, &geometry);
        if (geometry.total_size <= o->size)
            low = shape.capacity;
        else
            high = shape.capacity - 1;
    }
    shape.capacity = low;
    return rc < 0 ? rc : compute(&shape, out);
}

/* ------------------------------------------------------------------ making -- */

/* Zero stays open to whoever has a value. */
static void settle(void *at, const void *value)
{
    uint64_t seen = 0, wanted;
    memcpy(&wanted, value, sizeof wanted);
    (void)shk__cas64((word_t *)at, &seen, wanted);
}

/* A maker has been here. */
static bool is_begun(const struct shk_header_shm *header)
{
    return shk__load(&header->layout_version) != 0;
}

/* Its fixed parts are zero. What follows them is not looked at: it may be gigabytes. */
static bool is_untouched(const struct opening *o)
{
    const uint64_t *words = (const uint64_t *)o->header;
    uint64_t seen = 0;
    for (size_t i = 0; i < SHK_FIXED_SIZE / WORD; i++)
        seen |= shk__load(&words[i]);
    return seen == 0;
}

/* Without a byte of it: it may be somebody's key. */
static int fail_foreign(void)
{
    return shk__fail(SHK_E_INCOMPATIBLE,
                     "the memory does not hold a store, and is not zeroed for a new one");
}

/* It is of this build, as far as it is begun. */
static int check_begun(const struct opening *o)
{
    struct shk_header_shm seen = {.layout_version = shk__load(&o->header->layout_version),
                                  .byte_order = shk__load(&o->header->byte_order)};
    struct shk__geometry unused;
    uint64_t birthmark = shk__load(&o->header->birthmark);
    if (birthmark != 0 && birthmark != SHK_BIRTHMARK)
        return fail_foreign();
    if (seen.layout_version != SHK_LAYOUT_VERSION || seen.byte_order != SHK_BYTE_ORDER)
        return shk__geometry_read(&seen, o->size, &unused); /* says what differs */
    return 0;
}

/* Layout, birthmark and shape: what tells the next maker whether and how to go on. */
static int begin(const struct opening *o, struct shk__geometry *out)
{
    struct shk_header_shm *h = o->header;
    struct shk_header_shm mine = {.layout_version = SHK_LAYOUT_VERSION,
                                  .byte_order = SHK_BYTE_ORDER,
                                  .birthmark = SHK_BIRTHMARK};
    struct shk__geometry g;
    int rc = fit(o, &g);
    if (rc < 0)
        return rc;
    /* Another may begin just now, so the state of things is asked for once more. */
    if (!is_begun(h) && !is_untouched(o) && !is_begun(h))
        return fail_foreign();
    settle(&h->layout_version, &mine.layout_version);
    if ((rc = check_begun(o)) < 0)
        return rc;
    settle(&h->birthmark, &mine.birthmark);
    mine.shape = pack(g.capacity, g.id_size, g.key_size);
    settle(&h->shape, &mine.shape);
    uint64_t shape = shk__load(&h->shape);
    rc = shk__geometry_compute((uint32_t)shape, (uint32_t)(shape >> 32) & 0xFFF,
                               (uint32_t)(shape >> 44), out);
    if (rc < 0)
        return shk__fail(SHK_E_CORRUPT, "the header says that a store of the shape %#llx is being "
                                        "made, which none can have",
                         (unsigned long long)shape);
    if (out->total_size > o->size)
        return shk__fail(SHK_E_INCOMPATIBLE,
                         "the memory has %zu bytes; the store that is being made in it takes %llu",
                         o->size, (unsigned long long)out->total_size);
    return 0;
}

/* 0 (LIVE, or past it), or an error. *published: by this call. */
static int make(const struct opening *o, bool *published)
{
    struct shk_header_shm *h = o->header;
    struct shk_header_shm mine = {0};
    struct shk__geometry g;
    int rc = begin(o, &g);
    if (rc < 0)
        return rc;
    mine.layout_hash = g.layout_hash;
    mine.capacity = g.capacity;
    mine.id_size = g.id_size;
    mine.key_size = g.key_size;
    mine.total_size = g.total_size;
    mine.owner = geteuid();
    mine.mode = o->shape.mode ? o->shape.mode : 0600;
    mine.created = shk__realtime();
    if (getrandom(mine.store_id, sizeof mine.store_id, 0) != sizeof mine.store_id ||
        getrandom(mine.hash_key, sizeof mine.hash_key, 0) != sizeof mine.hash_key)
        return shk__fail(-errno, "getrandom");
    for (size_t at = offsetof(struct shk_header_shm, layout_hash);
         at < offsetof(struct shk_header_shm, name_size); at += WORD)
        settle((char *)h + at, (char *)&mine + at);
    uint64_t realm, state = SHK_STATE_MAKING;
    int set_id;
    rc = shk__realm_enter(h, &realm, &set_id);
    if (rc == 0)
        *published = shk__cas64(&h->state, &state, SHK_STATE_LIVE);
    return rc;
}

/* ----------------------------------------------------------------- opening -- */

static void keep_out_of_dumps(const struct opening *o)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)o->header;
    uintptr_t first = (base + page - 1) / page * page, last = (base + o->size) / page * page;
    if (first < last)
        (void)madvise((void *)first, last - first, MADV_DONTDUMP); /* best effort, as documented */
}

static int make_handle(const struct opening *o, bool removed, shk_store **out)
{
    struct shk_header_shm header; /* validated, and used, only as a copy */
    struct shk__memory memory = {o->header, o->size, -1, 0, o->access->readonly};
    struct shk__geometry geometry;
    uint64_t realm = 0;
    shk__header_copy(o->header, &header);
    if (header.layout_version == SHK_LAYOUT_VERSION && header.total_size > o->size)
        return shk__fail(SHK_E_INCOMPATIBLE,
                         "the memory has %zu bytes, and the store in it %llu: map all of it", o->size,
                         (unsigned long long)header.total_size);
    int rc = shk__geometry_read(&header, o->size, &geometry);
    const unsigned char *meant = o->access->store_id;
    if (rc == 0 && meant && memcmp(meant, header.store_id, sizeof header.store_id) != 0)
        rc = shk__fail(SHK_E_REMOVED, "the memory holds another store than the one that is meant");
    int set_id = shk__realm_set(o->header);
    if (rc == 0 && !memory.readonly && !removed)
        rc = shk__realm_enter(o->header, &realm, &set_id);
    if (rc == 0)
        rc = shk__handle_make(&memory, &header, &geometry, set_id, o->access, out);
    if (rc == 0)
        (*out)->realm = realm;
    return rc;
}

/* Whoever destroyed it may have died half-way. */
static int fail_removed(const struct opening *o)
{
    shk_store *store;
    if (!o->access->readonly && make_handle(o, true, &store) == 0) {
        shk__removal_finish(store);
        shk_store_close(store);
    }
    return shk__fail(SHK_E_REMOVED, "the store in memory was destroyed; once nobody has it open any "
                                    "more, zero the memory, and it can hold a new one");
}

static int open_published(const struct opening *o, bool made, shk_store **out)
{
    shk_store *store;
    if (o->intent == SHK_CREATE && !made)
        return shk__fail(-EEXIST, "there is a store in the memory");
    int rc = make_handle(o, false, &store);
    if (rc < 0)
        return rc;
    rc = shk__handle_check_shape(&store->info, o->shape.capacity, o->shape.id_size,
                                 o->shape.key_size);
    if (rc < 0) {
        shk_store_close(store);
        return rc;
    }
    keep_out_of_dumps(o);
    *out = store;
    return 0;
}

static int await_made(const struct opening *o, uint64_t deadline)
{
    if (!is_begun(o->header)) {
        if (is_untouched(o))
            return shk__fail(-ENOENT, "the memory is zeroed: nobody has made a store in it yet");
        if (!is_begun(o->header))
            return fail_foreign();
    }
    int rc = check_begun(o);
    if (rc < 0)
        return rc;
    if (shk__monotonic() >= deadline)
        return shk__fail(SHK_E_TIMEOUT, "the store in memory is still being made; if its maker is "
                                        "dead, create it for writing, which goes on from there");
    struct timespec t = shk__timespec(POLL);
    nanosleep(&t, NULL);
    return 0;
}

static int open_or_make(const struct opening *o, shk_store **out)
{
    const uint64_t deadline = shk__monotonic() + o->access->open_timeout;
    bool made = false;
    for (int makings = 0; makings < MAKINGS_MAX;) {
        uint64_t state = shk__load(&o->header->state);
        if (state == SHK_STATE_LIVE || state == SHK_STATE_MOVED) /* calls will say where to */
            return open_published(o, made, out);
        if (state == SHK_STATE_REMOVED)
            return fail_removed(o);
        if (state != SHK_STATE_MAKING)
            return fail_foreign();
        makings += o->intent != SHK_OPEN;
        int rc = o->intent == SHK_OPEN ? await_made(o, deadline) : make(o, &made);
        if (rc < 0)
            return rc;
    }
    return shk__fail(SHK_E_CORRUPT, "the state of the store in memory goes back to 0 again and again");
}

int shk_store_in_memory(enum shk_intent intent, void *base, size_t size,
                        const struct shk_shape *shape, const struct shk_access *access,
                        shk_store **out)
{
    struct opening o = {.intent = intent, .header = base, .size = size, .access = access};
    if (shape)
        o.shape = *shape;
    if (intent != SHK_OPEN && access->readonly)
        return shk__fail(SHK_E_INVALID, "a store can't be created read-only");
    if (o.shape.mode != 0 && o.shape.mode != 0600 && o.shape.mode != 0640)
        return shk__fail(SHK_E_INVALID, "mode is %04o; it must be 0600 or 0640", o.shape.mode);
    if ((uintptr_t)base % WORD != 0)
        return shk__fail(SHK_E_INVALID,
                         "the memory begins %zu bytes after a multiple of 8; it must begin at one",
                         (size_t)((uintptr_t)base % WORD));
    if (size < SHK_FIXED_SIZE)
        return shk__fail(SHK_E_INVALID, "the memory has %zu bytes; a store takes at least %u", size,
                         SHK_FIXED_SIZE);
    return open_or_make(&o, out);
}
