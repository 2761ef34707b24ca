/* life.c: how a store is made and found.
 *
 *   shmget (EXCL) -> birthmark -> set -> fill -> CAS(MAKING -> LIVE)
 *                                              \ CAS(MAKING -> DEAD) by an opener
 *                                                that has waited out its time
 *
 * One of the two CAS wins. Whoever loses cleans up its own and starts over, so
 * nobody ever has to judge whether a creator is alive. Remains are removed by
 * segment id, never by key: the key may already name a successor.
 *
 * A process opens once, with cold caches, so that an open takes as long as the lines and pages
 * of code that it runs are many. Functions of an open and of a get are therefore marked hot, by
 * which the linker puts them side by side.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <unistd.h>

#include "clock.h"
#include "collapse.h"
#include "error.h"
#include "handle.h"
#include "host.h"
#include "realm.h"
#include "removal.h"

#define POLL (SHK_MILLISECOND / 2)
#define START_OVER 1 /* the segment under the key was not, or is no longer, a store */
#define ROUNDS_MAX 1000
#define HEADER_SIZE sizeof(struct shk_header_shm)

static void doze(void)
{
    struct timespec t = shk__timespec(POLL);
    nanosleep(&t, NULL);
}

/* ------------------------------------------------------------ candidates -- */

/* A segment that is attached but not yet known to be a usable store. */
struct candidate {
    struct shk_segment_info info;
    struct shk_header_shm *header;
    bool readonly;
};

static bool is_trusted(uid_t uid, const struct shk_address *address,
                       const struct shk_access *access)
{
    if (uid == 0 || uid == geteuid())
        return true;
    if (address && address->name.size > 0 && uid == address->owner)
        return true;
    for (size_t i = 0; i < access->trust_count; i++)
        if (uid == access->trust[i])
            return true;
    return false;
}

/* "0 (root), 1000 and 1001", and so on while there is room. */
__attribute__((cold)) static void describe_trusted(const struct shk_address *address,
                                                   const struct shk_access *access, char *out,
                                                   size_t room)
{
    uid_t uids[16];
    size_t count = 0, at;
    const size_t most = sizeof uids / sizeof *uids;
    if (geteuid() != 0)
        uids[count++] = geteuid();
    if (address && address->name.size > 0 && address->owner != 0 && address->owner != geteuid())
        uids[count++] = address->owner;
    for (size_t i = 0; i < access->trust_count && count < most; i++) {
        for (at = 0; at < count && uids[at] != access->trust[i]; at++)
            ;
        if (at == count && access->trust[i] != 0)
            uids[count++] = access->trust[i];
    }
    size_t used = (size_t)snprintf(out, room, "0 (root)");
    for (at = 0; at < count; at++) {
        bool last = at + 1 == count && count < most;
        if (room - used < sizeof " and 4294967295, ...") {
            snprintf(out + used, room - used, ", ...");
            return;
        }
        used += (size_t)snprintf(out + used, room - used, "%s%u", last ? " and " : ", ", uids[at]);
    }
}

static int check_security(const struct shk_segment_info *info, const struct shk_address *address,
                          const struct shk_access *access)
{
    if (is_trusted(info->uid, address, access) &&
        (info->cuid == info->uid || is_trusted(info->cuid, address, access)) &&
        !(info->mode & 0027))
        return 0;
    char uids[96];
    describe_trusted(address, access, uids, sizeof uids);
    return shk__fail(SHK_E_INSECURE,
                     "segment %d (key 0x%x) is owned by uid %u, was created by uid %u and has mode "
                     "%04o; accepted are owners and creators with uid %s, and modes that let nobody "
                     "else write and at most the group read: 0600 or 0640",
                     info->id, (unsigned)info->key, info->uid, info->cuid, info->mode & 0777, uids);
}

/* The segment went away: START_OVER; otherwise the error stands. */
static int vanished(int rc)
{
    return rc == -ENOENT ? START_OVER : rc;
}

__attribute__((hot)) static int check_segment(const struct shk_segment_info *info,
                                              const struct shk_address *address,
                                              const struct shk_access *access)
{
    if (info->mode & SHM_DEST)
        return shk__fail(-ENOENT, "segment %d is marked for removal", info->id);
    int rc = check_security(info, address, access);
    if (rc == 0 && info->size < HEADER_SIZE)
        rc = shk__fail(SHK_E_INCOMPATIBLE,
                       "segment %d (key 0x%x) has %zu bytes, a store at least %zu: it is something "
                       "else's",
                       info->id, (unsigned)info->key, info->size, HEADER_SIZE);
    return rc;
}

/* Checks before attaching, and again after: an id can't be reused while attached. */
static int attach(int id, bool readonly, const struct shk_address *address,
                  const struct shk_access *access, struct candidate *out)
{
    struct candidate c = {.readonly = readonly};
    void *base = NULL;
    int rc = shk_segment_stat(id, &c.info);
    if (rc == 0)
        rc = check_segment(&c.info, address, access);
    if (rc == 0)
        rc = shk__collapse_map(id, c.info.size, readonly ? SHM_RDONLY : 0, &c.info, &base);
    if (rc == 0)
        rc = check_segment(&c.info, address, access);
    if (rc < 0) {
        if (base)
            shk_segment_detach(base);
        return vanished(rc);
    }
    c.header = base;
    *out = c;
    return 0;
}

/* Removes the set that a condemned header names, by id or by store id alone, and then
 * the segment: while that is there, whoever comes next can find both. */
static void remove_remains(const struct candidate *c)
{
    uint32_t set_plus_one = (uint32_t)shk__load(&c->header->set);
    int set_id = set_plus_one ? (int)(set_plus_one - 1) : shk__set_find(c->header->store_id);
    if (set_id >= 0 && shk__set_may_be_of(set_id, c->info.cuid)) {
        struct shk__set set;
        shk__set_describe(&set, set_id, c->header->store_id, c->info.id);
        shk__set_remove(&set);
    }
    (void)shk_segment_remove(c->info.id);
}

/* A segment without the birthmark is left alone, unless it can only be what a
 * creator killed right after shmget leaves: ours, of exactly this size, untouched. */
static bool may_condemn(const struct candidate *c, const struct shk__geometry *wanted)
{
    static const struct shk_header_shm untouched;
    bool pristine = wanted && c->info.size == wanted->total_size && c->info.cuid == geteuid() &&
                    memcmp(c->header, &untouched, sizeof untouched) == 0;
    /* The birthmark last: its creator may be storing it right now. */
    return pristine || shk__load(&c->header->birthmark) == SHK_BIRTHMARK;
}

/* Waits for LIVE until the deadline. 0, START_OVER or an error. */
static int await_published(const struct candidate *c, const struct shk__geometry *wanted,
                           uint64_t deadline)
{
    uint64_t state;
    for (;;) {
        state = shk__load(&c->header->state);
        if (state != SHK_STATE_MAKING)
            break;
        if (shk__monotonic() < deadline) {
            doze();
            continue;
        }
        if (c->readonly)
            return shk__fail(SHK_E_TIMEOUT,
                             "store %d (key 0x%x) is still being made by pid %d; if that process "
                             "is dead, open it for writing or create it anew",
                             c->info.id, (unsigned)c->info.key, c->info.creator_pid);
        if (!may_condemn(c, wanted))
            return shk__fail(SHK_E_INCOMPATIBLE,
                             "segment %d (key 0x%x, %zu bytes) starts with zeros: it is something "
                             "else's, or a store whose creator (pid %d) has not begun",
                             c->info.id, (unsigned)c->info.key, c->info.size,
                             c->info.creator_pid);
        if (shk__cas64(&c->header->state, &state, SHK_STATE_DEAD))
            state = SHK_STATE_DEAD;
    }
    if (state == SHK_STATE_LIVE || state == SHK_STATE_MOVED) /* calls will say where to */
        return 0;
    if (state == SHK_STATE_DEAD) {
        if (c->readonly)
            return shk__fail(SHK_E_REMOVED, "store %d was condemned unfinished", c->info.id);
        remove_remains(c);
        return START_OVER;
    }
    if (state == SHK_STATE_REMOVED) /* a caller that may write has to finish it */
        return shk__fail(SHK_E_REMOVED, "store %d was destroyed", c->info.id);
    return shk__fail(SHK_E_INCOMPATIBLE,
                     "segment %d (key 0x%x) does not hold a store: it starts with other bytes",
                     c->info.id, (unsigned)c->info.key);
}

static int check_identity(const struct shk_header_shm *header, const struct shk_address *address)
{
    if (address && address->inode && !header->inode)
        return shk__fail(SHK_E_INCOMPATIBLE,
                         "the key 0x%x of the file with inode %llu on device %llu leads to a store "
                         "that was made for no file: open it by its bare key or its name",
                         (unsigned)address->key, (unsigned long long)address->inode,
                         (unsigned long long)address->device);
    if (address && address->inode &&
        (header->device != address->device || header->inode != address->inode))
        return shk__fail(SHK_E_INCOMPATIBLE,
                         "the key 0x%x of the file with inode %llu on device %llu leads to a store "
                         "that was made for inode %llu on device %llu: two files share one key; "
                         "use another file or proj, or a name",
                         (unsigned)address->key, (unsigned long long)address->inode,
                         (unsigned long long)address->device, (unsigned long long)header->inode,
                         (unsigned long long)header->device);
    if (!address || address->name.size == 0)
        return 0;
    if (header->name_size == address->name.size && header->owner == address->owner &&
        memcmp(header->name, address->name.data, address->name.size) == 0)
        return 0;
    return shk__fail(SHK_E_INCOMPATIBLE,
                     "the name '%.*s' of uid %u leads to the store '%.*s' of uid %u: two names share "
                     "one key; choose another name",
                     (int)address->name.size, (const char *)address->name.data, address->owner,
                     (int)header->name_size, (const char *)header->name, header->owner);
}

/* The handle of a published store; takes over the attachment on success. */
__attribute__((hot)) static int make_handle(const struct candidate *c,
                                            const struct shk_address *address,
                                            const struct shk_access *access, shk_store **out)
{
    struct shk_header_shm header; /* validated, and used, only as a copy */
    struct shk__memory memory = {c->header, c->info.size, c->info.id, c->info.key, c->readonly};
    struct shk__geometry geometry;
    shk__header_copy(c->header, &header);
    int rc = shk__geometry_read(&header, c->info.size, &geometry);
    if (rc == 0)
        rc = check_identity(&header, address);
    if (rc == 0 && access->store_id && memcmp(access->store_id, header.store_id, 16) != 0)
        rc = shk__fail(SHK_E_REMOVED, "segment %d holds another store now: the one meant is gone",
                       c->info.id);
    const int set_id = (int)((uint32_t)header.set - 1);
    if (rc == 0 && !c->readonly && !shk__set_may_be_of(set_id, c->info.cuid))
        rc = shk__fail(SHK_E_CORRUPT,
                       "the header names semaphore set %d, which another user created than uid %u, "
                       "who created segment %d",
                       set_id, c->info.cuid, c->info.id);
    return rc < 0 ? rc : shk__handle_make(&memory, &header, &geometry, set_id, access, out);
}

/* 0, START_OVER or an error. `wanted` is what a creator wants, else NULL. */
__attribute__((hot)) static int open_segment(int id, const struct shk_address *address,
                                             const struct shk_access *access,
                                             const struct shk__geometry *wanted, shk_store **out)
{
    struct candidate c;
    int rc = attach(id, access->readonly, address, access, &c);
    if (rc != 0)
        return rc;
    rc = await_published(&c, wanted, shk__monotonic() + access->open_timeout);
    bool removed = rc == SHK_E_REMOVED && !c.readonly;
    if (rc == 0 || removed) {
        shk_store *store;
        rc = make_handle(&c, address, access, &store);
        if (rc == 0 && removed) { /* whoever destroyed it may have died half-way */
            shk__removal_finish(store);
            shk_store_close(store);
            return START_OVER;
        }
        if (rc == 0) {
            *out = store;
            return 0;
        }
    }
    shk_segment_detach(c.header);
    return rc;
}

/* --------------------------------------------------------------- creation -- */

static int fill_header(const struct candidate *c, const struct shk__geometry *g,
                       const struct shk_address *address, mode_t mode)
{
    struct shk_header_shm *h = c->header;
    shk__store(&h->birthmark, SHK_BIRTHMARK);
    int set_id, rc;
    do {
        if (getrandom(h->store_id, sizeof h->store_id, 0) != sizeof h->store_id ||
            getrandom(h->hash_key, sizeof h->hash_key, 0) != sizeof h->hash_key)
            return shk__fail(-errno, "getrandom");
        /* Whoever condemned us may have gone, and would not find a set made now. */
        if (shk__load(&h->state) != SHK_STATE_MAKING)
            return START_OVER;
        rc = shk__set_create_keyed(h->store_id, mode, &set_id);
    } while (rc == -EEXIST);
    if (rc < 0)
        return rc;
    h->realm = shk__realm_here();
    shk__store(&h->set, shk__set_word(h->realm, set_id));
    struct shk__set set;
    shk__set_describe(&set, set_id, h->store_id, c->info.id);
    rc = shk__set_initialise(&set);
    if (rc == 0)
        rc = shk__set_test_undo(&set);
    if (rc < 0)
        return rc;
    h->layout_version = SHK_LAYOUT_VERSION;
    h->byte_order = SHK_BYTE_ORDER;
    h->layout_hash = g->layout_hash;
    h->capacity = g->capacity;
    h->id_size = g->id_size;
    h->key_size = g->key_size;
    h->total_size = g->total_size;
    h->owner = geteuid();
    h->mode = mode;
    h->created = shk__realtime();
    h->name_size = (uint32_t)address->name.size;
    h->device = address->device;
    h->inode = address->inode;
    if (h->name_size)
        memcpy(h->name, address->name.data, h->name_size);
    return 0;
}

static int lock_memory(int id, enum shk_memory_lock how)
{
    int rc = how == SHK_MEMORY_LOCK_OFF ? 0 : shk_segment_lock(id);
    return how == SHK_MEMORY_LOCK_REQUIRE ? rc : 0;
}

/* 0, -EEXIST, START_OVER (condemned meanwhile) or an error. */
static int create_segment(key_t key, const struct shk_address *address,
                          const struct shk__geometry *g, const struct shk_shape *shape,
                          const struct shk_access *access, shk_store **out)
{
    struct candidate c = {.readonly = false};
    int id;
    void *base;
    int rc = shk_segment_create(key, g->total_size, shape->mode, 0, &id);
    if (rc < 0)
        return rc;
    rc = lock_memory(id, shape->memory_lock);
    if (rc == 0)
        rc = shk__collapse_map(id, g->total_size, 0, &c.info, &base);
    if (rc < 0) {
        shk_segment_remove(id);
        return vanished(rc); /* removed by somebody: no store of ours was there yet */
    }
    c.header = base;
    c.info.id = id;
    shk_store *store = NULL;
    rc = fill_header(&c, g, address, shape->mode);
    if (rc == 0)
        rc = shk_segment_stat(id, &c.info);
    if (rc == 0)
        rc = make_handle(&c, address, access, &store);
    /* The handle first: a published store belongs to everybody and can't be taken back. */
    uint64_t state = SHK_STATE_MAKING;
    if (!shk__cas64(&c.header->state, &state, rc == 0 ? SHK_STATE_LIVE : SHK_STATE_DEAD))
        rc = START_OVER; /* an opener has condemned it, and a failure of ours was its doing */
    else if (rc == 0) {
        *out = store;
        return 0;
    }
    remove_remains(&c);
    if (store)
        shk_store_close(store);
    else
        shk_segment_detach(c.header);
    return rc;
}

/* ----------------------------------------------------------------- public -- */

/* -EEXIST, with what is known of the segment that is there. */
static int exists(key_t key, int rc)
{
    char why[400] = "a store";
    if (rc < 0)
        snprintf(why, sizeof why, "%s", shk_error_detail());
    return shk__fail(-EEXIST, "shmget(key=0x%x, IPC_CREAT | IPC_EXCL): there is %s", (unsigned)key,
                     why);
}

/* What is under the key now. 0, START_OVER or an error. */
static int open_existing(enum shk_intent intent, key_t key, const struct shk_address *address,
                         const struct shk_shape *shape, const struct shk_access *access,
                         const struct shk__geometry *wanted, shk_store **out)
{
    int id;
    int rc = shk_segment_find(key, &id);
    if (rc < 0)
        return rc == -ENOENT && wanted ? START_OVER : rc;
    shk_store *store = NULL;
    rc = open_segment(id, address, access, wanted, &store);
    if (rc == START_OVER)
        return rc;
    if (intent == SHK_CREATE)
        rc = exists(key, rc);
    else if (rc == 0 && intent == SHK_OPEN_OR_CREATE)
        rc = shk__handle_check_shape(&store->info, wanted->capacity, wanted->id_size,
                                     wanted->key_size);
    if (rc == 0 && intent == SHK_OPEN_OR_CREATE)
        rc = lock_memory(id, shape->memory_lock);
    if (rc == 0)
        *out = store;
    else
        shk_store_close(store);
    return rc;
}

static int check_creation(const struct shk_address *address, const struct shk_shape *shape,
                          const struct shk_access *access, struct shk__geometry *out)
{
    if (shape->mode != 0600 && shape->mode != 0640)
        return shk__fail(SHK_E_INVALID,
                         "mode is %04o; it must be 0600, or 0640 for readers of the group",
                         shape->mode);
    if ((unsigned)shape->memory_lock > SHK_MEMORY_LOCK_OFF)
        return shk__fail(SHK_E_INVALID, "memory_lock is %d; it must be %d (try), %d (require) or "
                                        "%d (off)",
                         (int)shape->memory_lock, SHK_MEMORY_LOCK_TRY, SHK_MEMORY_LOCK_REQUIRE,
                         SHK_MEMORY_LOCK_OFF);
    if (access->readonly)
        return shk__fail(SHK_E_INVALID, "a store can't be created read-only");
    if (address->name.size > 0 && address->owner != geteuid())
        return shk__fail(SHK_E_INVALID, "uid %u can't create a name of uid %u", geteuid(),
                         address->owner);
    return shk__geometry_compute(shape->capacity,
                                 shape->id_size ? shape->id_size : SHK_ID_SIZE_DEFAULT,
                                 shape->key_size ? shape->key_size : SHK_KEY_SIZE_DEFAULT, out);
}

int shk_store_open(enum shk_intent intent, const struct shk_address *address,
                   const struct shk_shape *shape, const struct shk_access *access, shk_store **out)
{
    struct shk__geometry geometry, *wanted = intent == SHK_OPEN ? NULL : &geometry;
    key_t key = address->key;
    int rc = wanted ? check_creation(address, shape, access, wanted) : 0;
    if (rc == 0 && address->name.size > 0)
        rc = shk_named_key(address->name.data, address->name.size, address->owner, &key);
    else if (rc == 0 && key == IPC_PRIVATE && intent != SHK_CREATE)
        rc = shk__fail(SHK_E_INVALID, "key 0 is IPC_PRIVATE: such a store is made by create and "
                                      "opened by its id");
    if (rc < 0)
        return rc;

    /* Each round means that somebody else created, condemned or removed meanwhile. */
    for (int round = 0; round < ROUNDS_MAX; round++) {
        if (wanted) {
            rc = create_segment(key, address, wanted, shape, access, out);
            if (rc == START_OVER)
                continue;
            if (rc != -EEXIST)
                return rc;
        }
        rc = open_existing(intent, key, address, shape, access, wanted, out);
        if (rc != START_OVER)
            return rc;
    }
    return shk__fail(SHK_E_TIMEOUT, "others made and removed the store with key 0x%x %d times",
                     (unsigned)key, ROUNDS_MAX);
}

__attribute__((hot)) int shk_store_from_id(int id, const struct shk_access *access, shk_store **out)
{
    int rc = open_segment(id, NULL, access, NULL, out);
    return rc == START_OVER ? shk__fail(-ENOENT, "segment %d is gone: removed, or never there", id)
                            : rc;
}

/* 0 for a store whose memory has an id by which to ask, or to lock it. */
static int check_lockable(const shk_store *store)
{
    if (!shk__is_in_memory(store))
        return shk__namespace_check(store);
    return shk__fail(SHK_E_INVALID, "the store is in memory of the caller's, which is locked, and "
                                    "asked about, by the caller (mlock)");
}

int shk_store_memory_locked(const shk_store *store, bool *out)
{
    struct shk_segment_info info;
    int rc = check_lockable(store);
    if (rc == 0)
        rc = shk_segment_stat(store->info.id, &info);
    if (rc == 0)
        *out = info.mode & SHM_LOCKED;
    return rc;
}

int shk_store_lock_memory(const shk_store *store)
{
    int rc = check_lockable(store);
    return rc < 0 ? rc : shk_segment_lock(store->info.id);
}
