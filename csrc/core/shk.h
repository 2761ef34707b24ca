/* shk.h: keyed records in System V shared memory.
 *
 * Caveats first.
 *  - Linux, 64-bit, little-endian.
 *  - Whoever may write the segment may change any key in it. A read-only handle
 *    is a boundary between different users only, never between two processes of
 *    one user.
 *  - A process that leaves its IPC namespace or its semaphore-undo list
 *    (unshare, setns) while it holds a writable handle loses mutual exclusion.
 *  - A handle may be used by many threads at once. shk_store_close is the
 *    exception: no other call on the handle may be running or follow.
 *  - After fork the child may use an inherited handle; so may the parent.
 *
 * Every function returns 0 or a count on success, -errno for a failed system
 * call, or a negative SHK_E_ code. Out-parameters are untouched on failure.
 * shk_error_detail() then describes the failure: the call, the value, the limit.
 * A pair that is not there, revoked or expired says it by the code alone, its detail is "".
 * Pointers must not be NULL unless it is said that they may.
 * Sizes are bytes, times nanoseconds: durations monotonic, dates since the epoch.
 *
 * With -std=c11 instead of gnu11, define _DEFAULT_SOURCE before the first #include.
 */
#ifndef SHK_H
#define SHK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHK_API __attribute__((visibility("default")))
#else
#define SHK_API
#endif

/* Of this header; the number grows with each release: 1,000,000 * major + 1,000 * minor + patch. */
#define SHK_VERSION "0.1.0"
#define SHK_VERSION_NUMBER 1000
/* The SHK_VERSION of the library that the program runs with. Static storage. */
SHK_API const char *shk_version(void);

#define SHK_MILLISECOND UINT64_C(1000000)
#define SHK_SECOND UINT64_C(1000000000)
#define SHK_FOREVER UINT64_MAX /* as a timeout */

/* ---------------------------------------------------------------- errors -- */

/* One list: code, number, default message. */
#define SHK_CODES(X)                                                                               \
    X(INVALID, 5001, "invalid argument")                                                           \
    X(ABSENT, 5002, "no such pair")                                                                \
    X(REVOKED, 5003, "the key of this pair is revoked")                                            \
    X(EXPIRED, 5004, "the key of this pair has expired")                                           \
    X(EXISTS, 5005, "the pair is there already")                                                   \
    X(CONFLICT, 5006, "the pair has another key id than expected")                                 \
    X(FULL, 5007, "the store is full")                                                             \
    X(EXHAUSTED, 5008, "the store has used its last key id")                                       \
    X(REMOVED, 5009, "the store was removed")                                                      \
    X(CORRUPT, 5010, "the store is corrupt")                                                       \
    X(INCOMPATIBLE, 5011, "the segment is not a store that this build can use")                    \
    X(INSECURE, 5012, "the segment's owner or mode is not acceptable")                             \
    X(READONLY, 5013, "the store was opened read-only")                                            \
    X(TOO_MANY_WRITERS, 5014, "every writer token is taken")                                       \
    X(TIMEOUT, 5015, "timed out")                                                                  \
    X(BUSY, 5016, "the store kept changing while it was looked at")                                \
    X(MOVED, 5017, "the store moved to another one")                                               \
    X(CHANGES_LOST, 5018, "changes were overwritten before they were read")

enum shk_code {
#define SHK_CODE_ENUM(name, number, message) SHK_E_##name = -(number),
    SHK_CODES(SHK_CODE_ENUM)
#undef SHK_CODE_ENUM
};

/* The message of a code (of strerror for -errno). Static storage. */
SHK_API const char *shk_error_message(int code);
/* What the calling thread's last failed call said; "" if nothing. Thread-local. */
SHK_API const char *shk_error_detail(void);

/* ------------------------------------------------------------------ keys -- */

/* ftok(3): 8 bits of proj, 8 of the device, 16 of the inode. Different files
 * collide often; prefer shk_named_key. proj is 1 to 255. */
SHK_API int shk_ftok(const char *path, int proj, key_t *key);
/* A positive 31-bit key from (owner, name); name is 1 to SHK_NAME_MAX bytes
 * without NUL. The same on every host and in every release. */
SHK_API int shk_named_key(const void *name, size_t size, uid_t owner, key_t *key);
/* A positive 31-bit key from getrandom(2); not checked for being free. */
SHK_API int shk_random_key(key_t *key);

#define SHK_NAME_MAX 255u

/* -------------------------------------------------------------- segments -- */

struct shk_segment_info {
    int id;
    key_t key;
    size_t size;
    mode_t mode; /* permission bits and SHM_DEST, SHM_LOCKED */
    uid_t uid, cuid;
    gid_t gid, cgid;
    pid_t creator_pid, last_pid; /* 0 where unknown in this PID namespace */
    uint64_t attached;
    time_t attach_time, detach_time, change_time; /* seconds since the epoch; 0: never */
};

/* Kinds of huge pages, as flags beside SHM_HUGETLB; without any: the default kind. */
#define SHK_HUGE_SHIFT 26
#define SHK_HUGE_2M (21 << SHK_HUGE_SHIFT)
#define SHK_HUGE_1G (30 << SHK_HUGE_SHIFT)

/* A new segment (IPC_CREAT | IPC_EXCL), or with IPC_PRIVATE always a new one.
 * flags: SHM_HUGETLB (with SHK_HUGE_2M or SHK_HUGE_1G), SHM_NORESERVE: touching memory
 * that is not there is then SIGBUS (huge pages) or wakes the OOM killer. The detail of
 * EINVAL, ENOSPC, ENOMEM and EPERM names the limit (SHMMAX, SHMALL, SHMMNI, the pool of
 * huge pages) and its value. */
SHK_API int shk_segment_create(key_t key, size_t size, mode_t mode, int flags, int *id);
/* The id of an existing segment; -ENOENT if there is none. */
SHK_API int shk_segment_find(key_t key, int *id);
/* flags: SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC. The mapping is kept out of
 * core dumps (MADV_DONTDUMP). address NULL: the kernel's choice. SHM_REMAP replaces
 * whatever the process has mapped in the range, another attachment too. */
SHK_API int shk_segment_attach(int id, void *address, int flags, void **out);
/* The same, with the state right after it. */
SHK_API int shk_segment_map(int id, void *address, int flags, struct shk_segment_info *info,
                            void **out);
SHK_API int shk_segment_detach(void *address);
/* IPC_RMID: the segment lives on, marked SHM_DEST, until its last detach. */
SHK_API int shk_segment_remove(int id);
SHK_API int shk_segment_stat(int id, struct shk_segment_info *out);
/* IPC_SET. mode: the low 9 bits. */
SHK_API int shk_segment_set(int id, uid_t uid, gid_t gid, mode_t mode);
/* SHM_LOCK: its pages, those touched later too, are never swapped out. Huge pages
 * never are, so for them both do nothing. -ENOMEM: RLIMIT_MEMLOCK. */
SHK_API int shk_segment_lock(int id);
SHK_API int shk_segment_unlock(int id);

/* Within what an id means one thing: a boot and an IPC namespace. Zeros: unknown. */
struct shk_realm {
    unsigned char boot[16];
    uint64_t ipc_namespace;
};
SHK_API void shk_realm_here(struct shk_realm *out);
/* 1 where kernel.shm_rmid_forced is set in this IPC namespace: then a segment goes with its
 * last attachment, and its contents with it. 0 where not; -errno: not known. */
SHK_API int shk_rmid_forced(void);

/* ----------------------------------------------------------------- words -- */

/* Integers that processes change together: width bytes (4 or 8), aligned to their
 * width, sequentially consistent, modulo 2 to the power of their bits. Values of
 * width 4 are zero-extended. */
SHK_API uint64_t shk_word_load(const void *word, unsigned width);
SHK_API void shk_word_store(void *word, unsigned width, uint64_t value);
/* Returns the sum. */
SHK_API uint64_t shk_word_add(void *word, unsigned width, uint64_t value);
/* Returns the old value. */
SHK_API uint64_t shk_word_exchange(void *word, unsigned width, uint64_t value);
/* True: *word was *expected and is desired now; else *expected is what it was. */
SHK_API bool shk_word_compare_exchange(void *word, unsigned width, uint64_t *expected,
                                       uint64_t desired);
/* Sleeps while *word (of width 4) equals expected: 0 once it does not. TIMEOUT: the
 * deadline has passed (CLOCK_MONOTONIC; UINT64_MAX: none). -EAGAIN: a signal came, or
 * a quarter of a second has passed; call again. So a signal that came right before the
 * sleep is not overlooked, nor a change by a process that died before it could notify.
 * The mapping may be read-only. */
SHK_API int shk_word_wait(const void *word, uint32_t expected, uint64_t deadline);
/* Wakes up to count sleepers, in any process; returns how many. */
SHK_API int shk_word_notify(void *word, int count);

/* ---------------------------------------------------------------- stores -- */

#define SHK_ID_SIZE_DEFAULT 12u /* with the closing NUL, as in the classic record */
#define SHK_ID_SIZE_MIN 2u
#define SHK_ID_SIZE_MAX 256u
#define SHK_KEY_SIZE_DEFAULT 128u
#define SHK_KEY_SIZE_MAX 65536u
#define SHK_CAPACITY_MAX 0xFFFFFF00u /* slot numbers are 32 bits wide */
#define SHK_WRITERS_MAX 1024u        /* writable handles with a token, on one host */

typedef struct shk_store shk_store;

struct shk_bytes {
    const void *data;
    size_t size;
};

/* The bytes of a NUL-terminated text, without the NUL. */
static inline struct shk_bytes shk_text(const char *text)
{
    struct shk_bytes bytes = {text, strlen(text)};
    return bytes;
}

/* Two ids; together they name a record. Each has 1 to id_size - 1 bytes, no NUL. */
struct shk_pair {
    struct shk_bytes client, server;
};

/* Which segment: by name if name.size > 0 (key is then ignored), else by key.
 * owner: whose name it is. It must be set, to geteuid() for one's own, and creating takes
 * no other: left at 0 it is root's. key: IPC_PRIVATE makes a store that is found by id alone. */
struct shk_address {
    struct shk_bytes name;
    uid_t owner;
    key_t key;
    uint64_t device, inode; /* of the file whose key it is, by shk_file_address; 0: of none */
};
/* The address of the store that belongs to an existing file: the key of shk_ftok, and which file
 * it is. The store keeps that, so where another file has the same key, opening is INCOMPATIBLE
 * and creating -EEXIST, but no store is shared. The owner is left as it was. */
SHK_API int shk_file_address(const char *path, int proj, struct shk_address *out);

/* Whether a store's pages are kept out of swap (SHM_LOCK): from before its first key is
 * written, and those that are not there yet too, without bringing them in. The lock counts
 * the whole segment against RLIMIT_MEMLOCK of the user, unless CAP_IPC_LOCK is had.
 * TRY: where it is refused there is a store all the same; shk_store_memory_locked tells,
 * and shk_store_lock_memory says why. REQUIRE: then -ENOMEM or -EPERM, and no store. */
enum shk_memory_lock { SHK_MEMORY_LOCK_TRY, SHK_MEMORY_LOCK_REQUIRE, SHK_MEMORY_LOCK_OFF };

/* What to create. Zero id_size, key_size: the defaults. mode: 0600, or 0640 for
 * readers of the group; anything else is refused. memory_lock is done to an existing store
 * too that SHK_OPEN_OR_CREATE finds; where it is required and refused, that one stays. */
struct shk_shape {
    uint64_t capacity; /* pairs, 1 to SHK_CAPACITY_MAX */
    uint32_t id_size;
    uint32_t key_size;
    mode_t mode;
    enum shk_memory_lock memory_lock;
};

#define SHK_OPEN_TIMEOUT_DEFAULT (2 * SHK_SECOND)
#define SHK_LOCK_TIMEOUT_DEFAULT (5 * SHK_SECOND)

/* How to open. Set the two timeouts, to the defaults above where nothing else is wanted:
 * left at 0, a store in the making is condemned at once, and a write that meets another
 * is a TIMEOUT. */
struct shk_access {
    bool readonly;
    const uid_t *trust; /* uids beside oneself and root who may own or have created it */
    size_t trust_count;
    uint64_t open_timeout; /* wait this long for a creator that has not published yet */
    uint64_t lock_timeout; /* wait this long for the writers' lock; the dead don't hold it */
    const unsigned char *store_id; /* NULL, or 16 bytes: REMOVED if it is another store */
};

/* SHK_CREATE needs shape; SHK_OPEN ignores it; SHK_OPEN_OR_CREATE refuses an
 * existing store of another capacity, id_size or key_size: INCOMPATIBLE.
 * -EEXIST, -ENOENT: as shmget. An unpublished store of one's own whose creator
 * takes longer than open_timeout is condemned, removed and (creating) replaced;
 * a read-only SHK_OPEN, which may store nothing, reports TIMEOUT. */
enum shk_intent { SHK_OPEN, SHK_CREATE, SHK_OPEN_OR_CREATE };
SHK_API int shk_store_open(enum shk_intent intent, const struct shk_address *address,
                           const struct shk_shape *shape, const struct shk_access *access,
                           shk_store **out);
/* By the segment's id, as in info.id; -ENOENT if it is gone. */
SHK_API int shk_store_from_id(int id, const struct shk_access *access, shk_store **out);
/* In memory of the caller's: an anonymous shared mapping, a mapped file, POSIX shared memory.
 * The caller keeps it mapped until the handle is closed, and vouches for who may write it: owner
 * and mode are not checked. base: a multiple of 8. Memory that is zero up to its end holds a new
 * store, by SHK_CREATE and SHK_OPEN_OR_CREATE; SHK_OPEN finds none there: -ENOENT. Any number of
 * processes may create at once, and each goes on with what another, being dead, had begun.
 * In shape, 0 stands for what the store there has and, for a new one, the largest capacity that
 * fits, the default sizes, and mode 0600, which is the semaphores'; NULL for all of these.
 * SHK_OPEN, too, refuses a store of another shape: INCOMPATIBLE.
 *
 * info.id is -1. The semaphores have a meaning in the IPC namespace and the boot they were made
 * in: elsewhere in the same boot a handle that may write is INCOMPATIBLE, while readers work
 * anywhere; after a reboot the first opener's namespace takes the store over. INSECURE: somebody
 * else than this user, the owner or root has made the semaphores that would be next. A boot is
 * known by its boot_id: where a container has one of its own, don't share the memory with it.
 * shk_store_destroy wipes the store and removes the semaphores, which otherwise stay until the
 * next boot, whatever becomes of the memory. Then the memory is REMOVED to every opener until
 * the caller zeroes it, which must not be before all handles are closed.
 *
 * The journal covers processes that are killed, not a kernel that crashes and leaves a file's
 * pages half written; to write the file out is the caller's (msync). Access beyond the end of a
 * file that was cut off is SIGBUS. The pages are kept out of core dumps where madvise can. */
SHK_API int shk_store_in_memory(enum shk_intent intent, void *base, size_t size,
                                const struct shk_shape *shape, const struct shk_access *access,
                                shk_store **out);
/* The bytes that a store of this shape takes. */
SHK_API int shk_store_size(const struct shk_shape *shape, size_t *out);
/* Whether swap is kept from seeing the store, at this moment. INVALID in memory of the
 * caller's, as below. */
SHK_API int shk_store_memory_locked(const shk_store *store, bool *out);
/* Keeps it from doing so, for all processes. -ENOMEM, -EPERM: RLIMIT_MEMLOCK, whose value and
 * what is needed are in the detail; -EPERM also for all but owner, creator and CAP_IPC_LOCK. */
SHK_API int shk_store_lock_memory(const shk_store *store);
/* Detaches and gives the writer's token back. NULL is allowed. */
SHK_API void shk_store_close(shk_store *store);
/* Wipes every record and removes the segment and its semaphores. Other handles
 * get REMOVED from then on. The handle must still be closed. */
SHK_API int shk_store_destroy(shk_store *store);

#define SHK_VALID 0
#define SHK_REVOKED 1

struct shk_record {
    int32_t status;
    int32_t key_id;
    uint32_t key_length;
    uint64_t updated; /* CLOCK_REALTIME */
    uint64_t expires; /* CLOCK_REALTIME; 0: never */
};

/* Reading. Stores nothing, waits for nobody. Bytes after a key in key_out stay as they are;
 * wiping them when they are no longer needed is the caller's (explicit_bzero). key_out needs room for the key:
 * info.key_size bytes suffice; INVALID where it is longer than capacity. An expired
 * record reads as EXPIRED until it is reclaimed and as ABSENT from then on. */

/* The whole record, whatever its status; key_out NULL: all but the key. */
SHK_API int shk_store_record(const shk_store *store, struct shk_bytes client,
                             struct shk_bytes server, struct shk_record *out, void *key_out,
                             size_t capacity);
/* The key of a valid, unexpired pair; REVOKED or EXPIRED otherwise. */
SHK_API int shk_store_get_key(const shk_store *store, struct shk_bytes client,
                              struct shk_bytes server, void *key_out, size_t capacity,
                              size_t *length);
/* The pair's key with this id: the current one, or the one before it within the grace
 * that its rotation gave; ABSENT otherwise. */
SHK_API int shk_store_get_key_by_id(const shk_store *store, struct shk_bytes client,
                                    struct shk_bytes server, int32_t key_id, void *key_out,
                                    size_t capacity, size_t *length);
/* count lookups at once, each as shk_store_get_key: the number of keys found. Key i goes
 * to keys_out + i * stride, its length to lengths[i]; results[i] is 0, ABSENT, REVOKED or
 * EXPIRED. Any other result ends the call and is returned. */
SHK_API int shk_store_get_many(const shk_store *store, const struct shk_pair *pairs, size_t count,
                               void *keys_out, size_t stride, uint32_t *lengths, int *results);
/* The same without arrays, for any number of pairs: the call asks for some, and answers them while
 * it asks for others, in their order. A function's negative result ends the call and is returned;
 * so does INVALID, of the pair that was asked for last. */
struct shk_lookups {
    void *context;
    /* 1: a pair, whose ids are copied at once; 0: there are no more. Below 0 it may have closed
     * the store, which is not looked at again. */
    int (*next)(void *context, struct shk_pair *out);
    /* Where a key of `length` bytes goes, at once; NULL ends the call: -ENOMEM. */
    void *(*found)(void *context, size_t length);
    /* Instead of found: ABSENT, REVOKED or EXPIRED. */
    int (*missing)(void *context, int result);
};
SHK_API int shk_store_get_each(const shk_store *store, const struct shk_lookups *lookups);

/* Writing. Each call takes effect by one store at one moment, and has wiped the bytes of
 * whatever key it replaced or deleted when it returns. */

#define SHK_KEY_ID_NEXT (-1)
enum shk_condition {
    SHK_ALWAYS,
    SHK_IF_ABSENT, /* EXISTS if the pair is there, whatever its status; expired is absent */
    SHK_IF_KEY_ID, /* CONFLICT if the pair is absent or has another key id than if_key_id */
};
struct shk_put {
    struct shk_bytes key; /* 1 to key_size bytes */
    int32_t key_id;  /* SHK_KEY_ID_NEXT draws from the store's counter; an explicit id
                      * (0 to INT32_MAX) moves the counter beyond it */
    int32_t status;
    uint64_t ttl;     /* from now on; 0: see expires */
    uint64_t expires; /* CLOCK_REALTIME, if ttl is 0; 0: never */
    uint64_t updated; /* CLOCK_REALTIME; 0: now */
    enum shk_condition condition;
    int32_t if_key_id;
};
/* Inserts or replaces. FULL: no room even after every expired record was reclaimed.
 * key_id_out may be NULL. */
SHK_API int shk_store_put(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                          const struct shk_put *what, int32_t *key_id_out);

struct shk_item {
    struct shk_pair pair;
    struct shk_put what; /* condition: SHK_ALWAYS */
    int32_t key_id;      /* out */
};
/* count puts under one lock. Where an item is invalid or the store has no room for all,
 * none is written. A process killed meanwhile leaves the first of them written. */
SHK_API int shk_store_put_many(shk_store *store, struct shk_item *items, size_t count);
/* What an import does about pairs that are there already, whatever their status; expired
 * ones are absent. */
enum shk_present {
    SHK_PRESENT_REFUSE, /* EXISTS, and nothing is written */
    SHK_PRESENT_KEEP,   /* they stay as they are */
    SHK_PRESENT_REPLACE,
};
/* put_many for records that were kept elsewhere: *written (may be NULL) is how many were
 * written, and key ids from the counter are from then on beyond last_key_id (0 or more). */
SHK_API int shk_store_import(shk_store *store, struct shk_item *items, size_t count,
                             enum shk_present present, int32_t last_key_id, uint64_t *written);
/* INVALID: what put_many, and get_many and delete_many, would refuse of this store. */
SHK_API int shk_store_check_item(const shk_store *store, const struct shk_item *item);
SHK_API int shk_store_check_pair(const shk_store *store, const struct shk_pair *pair);

struct shk_rotation {
    struct shk_bytes new_key; /* size 0: random bytes of the old length */
    bool conditional;         /* CONFLICT if the key id is another than if_key_id */
    int32_t if_key_id;
    uint64_t grace; /* for so long shk_store_get_key_by_id still finds the old key; 0: wiped */
};
/* A new key under the next key id; expires stays. One previous key is kept at most, as a
 * record that takes room like any other (FULL); the next put, rotation,
 * revocation or deletion wipes it.
 * REVOKED and EXPIRED pairs are refused: put brings them back. out and key_out describe
 * the new record, and may be NULL. */
SHK_API int shk_store_rotate(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                             const struct shk_rotation *how, struct shk_record *out, void *key_out,
                             size_t capacity);
/* Marks the pair revoked; a pair revoked already stays as it is. */
SHK_API int shk_store_revoke(shk_store *store, struct shk_bytes client, struct shk_bytes server);
/* Counts the time to live anew; 0: never expires. REVOKED and EXPIRED pairs are refused. */
SHK_API int shk_store_touch(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                            uint64_t ttl);
/* Deletes the pair, whatever its status. */
SHK_API int shk_store_delete(shk_store *store, struct shk_bytes client, struct shk_bytes server);
/* Deletes and tells what was there; out, and then key_out, may be NULL. An expired pair is
 * deleted too, and reported EXPIRED. */
SHK_API int shk_store_pop(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                          struct shk_record *out, void *key_out, size_t capacity);
/* count deletes under one lock; pairs that are absent are passed over. deleted may be NULL. */
SHK_API int shk_store_delete_many(shk_store *store, const struct shk_pair *pairs, size_t count,
                                  uint64_t *deleted);
/* Deletes every pair. deleted may be NULL. */
SHK_API int shk_store_clear(shk_store *store, uint64_t *deleted);
/* Wipes and frees every expired record, which inserts otherwise do by and by. Lets other
 * writers in between. purged may be NULL. */
SHK_API int shk_store_purge_expired(shk_store *store, uint64_t *purged);

/* Iteration beside writers: a pair that is there throughout comes exactly once, none comes
 * twice; expired ones don't come. A cursor belongs to one thread, and is closed before its
 * store is. */
typedef struct shk_cursor shk_cursor;
SHK_API int shk_cursor_open(const shk_store *store, shk_cursor **out);
/* 1 and the next pair, whose ids stay until the next call; 0 at the end; or an error. */
SHK_API int shk_cursor_next(shk_cursor *cursor, struct shk_pair *out);
/* NULL is allowed. */
SHK_API void shk_cursor_close(shk_cursor *cursor);

/* All unexpired records as they were at one moment, in private memory that holds keys: a
 * writable handle holds the writers' lock meanwhile, a read-only one copies until nothing
 * changed while it did, or reports BUSY. It stays when the store is closed. */
typedef struct shk_snapshot shk_snapshot;
SHK_API int shk_store_snapshot(shk_store *store, shk_snapshot **out);
SHK_API size_t shk_snapshot_count(const shk_snapshot *snapshot);
/* number < count. The pointers stay until the snapshot is freed. */
SHK_API void shk_snapshot_record(const shk_snapshot *snapshot, size_t number, struct shk_pair *pair,
                                 struct shk_record *record, const void **key);
/* count slots of info.record_size bytes, laid out as in the segment. */
SHK_API const void *shk_snapshot_data(const shk_snapshot *snapshot);
/* Wipes it. NULL is allowed. */
SHK_API void shk_snapshot_free(shk_snapshot *snapshot);

/* Changes. The revision counts commits; the store remembers the last SHK_RING of them.
 * To follow a store: take the revision, read what you need, then wait with the revision as
 * `since`, ask for the changes after it, and go on from the last one's revision. */
#define SHK_RING 1024u
enum shk_change_kind {
    SHK_CHANGE_INSERT = 1,
    SHK_CHANGE_OVERWRITE,
    SHK_CHANGE_ROTATE,
    SHK_CHANGE_REVOKE,
    SHK_CHANGE_TOUCH,
    SHK_CHANGE_DELETE,
    SHK_CHANGE_EXPIRE, /* an expired record was reclaimed */
};
struct shk_change {
    uint64_t revision; /* after it */
    enum shk_change_kind kind;
    uint32_t client_size, server_size;
    char client[SHK_ID_SIZE_MAX], server[SHK_ID_SIZE_MAX]; /* NUL-terminated */
};
SHK_API int shk_store_revision(const shk_store *store, uint64_t *out);
/* Sleeps until the revision is another than `since`, and tells it; it is still `since` where
 * the timeout passed. -ECANCELED: *stop (may be NULL) is not 0; set it by an atomic store,
 * then call shk_store_wake; a signal handler need only set it. A change is seen at once, in rare cases (a writer killed right after its
 * commit) after 100 ms. The hook of shk_thread_on_wait runs after each nap. */
SHK_API int shk_store_wait(const shk_store *store, uint64_t since, uint64_t timeout,
                           const uint32_t *stop, uint64_t *out);
/* Wakes whoever waits for changes, in all processes; those with nothing new sleep on. */
SHK_API void shk_store_wake(const shk_store *store);
/* The changes after revision `since`, oldest first: how many were stored in out, at most
 * room. CHANGES_LOST where the oldest of them is not remembered any more. INVALID: since is
 * beyond the present. */
SHK_API int shk_store_changes(const shk_store *store, uint64_t since, struct shk_change *out,
                              size_t room);

/* How a store grows: copies every unexpired record, with key ids, times and previous keys,
 * to the empty store `target`, names it in this store's header and wipes this store, whose
 * handles all get MOVED from then on. One moment for all: writers wait, readers go on until
 * then. Killed before it: this store is as it was, and the target half filled. copied may
 * be NULL. */
SHK_API int shk_store_copy_to(shk_store *store, shk_store *target, uint64_t *copied);
/* Where the records of a store that moved are now. ABSENT: it did not move. */
struct shk_successor {
    int id; /* -1: in memory of the caller's */
    unsigned char store_id[16];
    key_t key;
    uid_t owner;
    char name[SHK_NAME_MAX + 1];
};
SHK_API int shk_store_successor(const shk_store *store, struct shk_successor *out);

/* Where the classic record begins in a slot: int status; char client[id_size];
 * char server[id_size]; int key_id; unsigned char key[key_size]. At the default sizes that
 * is { int; char[12]; char[12]; int; unsigned char[128]; }, 160 bytes. Before it stand the
 * generation, a uint64_t, and the key's length, a uint32_t. */
#define SHK_GENERATION_OFFSET 0u
#define SHK_KEY_LENGTH_OFFSET 8u
#define SHK_STATUS_OFFSET 16u
#define SHK_IDS_OFFSET 20u

/* The slots themselves, for views: info.record_size bytes each, up to the high-water mark.
 * Writers change them at any time, and a slot may be free (generation odd or 0) or half
 * written: a copy is to be checked as the library does, or taken as a hint. */
SHK_API int shk_store_slots(const shk_store *store, const void **slots, uint64_t *count);

struct shk_info {
    int id;              /* of the segment; -1: in memory of the caller's */
    int semaphore_id;    /* of the set that tells who is alive; -1: that is elsewhere */
    key_t key;
    uint64_t segment_size;
    uint64_t capacity;
    uint32_t id_size;
    uint32_t key_size;
    uint32_t record_size; /* of one slot */
    uint32_t key_id_offset, key_offset, times_offset; /* in a slot, beside those above */
    bool readonly;
    unsigned char store_id[16];
    uid_t owner;
    char name[SHK_NAME_MAX + 1]; /* "" if made by key */
    uint64_t created;
};
SHK_API void shk_store_info(const shk_store *store, struct shk_info *out);

struct shk_stats {
    uint64_t records;       /* pairs, revoked ones and unreclaimed expired ones too */
    uint64_t previous_keys; /* kept for the grace of a rotation */
    uint64_t revision;      /* commits since creation */
    uint64_t slots_touched; /* high-water mark */
    uint64_t reclaimed;     /* expired records and previous keys that were wiped and freed */
    uint64_t takeovers;     /* locks taken from the dead */
    uint64_t recoveries;    /* operations of the dead finished or undone */
    int32_t last_key_id;
};
SHK_API int shk_store_stats(const shk_store *store, struct shk_stats *out);
/* The lock timeout of this handle; atomic. Writers that do nothing but write go by turns of
 * up to 10 ms, as they would else spend most of their time handing the lock over; one that
 * writes now and then waits for a write or two. */
SHK_API void shk_store_set_lock_timeout(shk_store *store, uint64_t timeout);
SHK_API uint64_t shk_store_lock_timeout(const shk_store *store);
/* For language bindings. The hook runs on the calling thread, never under the lock,
 * before a call of this thread first sleeps for the lock and after each nap of 2 to
 * 50 ms, which a signal ends early; non-zero makes that call fail with -EINTR, the
 * store unchanged. NULL: none, and signals are waited through. Thread-local. */
SHK_API void shk_thread_on_wait(int (*hook)(void *context), void *context);

/* The checks of shk_store_verify: name, what holds. */
#define SHK_CHECKS(X)                                                                              \
    X(journal, "the journal is empty or describes a state that recovery can finish")               \
    X(slot_partition, "each slot is in exactly one of index, free queue and journal")              \
    X(generation, "indexed slots have the even generation of their entry, free ones an odd one")   \
    X(placement, "each record hashes to the place where its entry stands")                         \
    X(record_fields, "ids are terminated and padded, lengths within bounds, status known")         \
    X(unique_pairs, "no pair is indexed twice")                                                    \
    X(overflow, "each overflow count is at least the number of entries that passed by")            \
    X(free_bytes_zero, "free slots and the unused tails of records are zero")                      \
    X(count, "the record count is the number of entries")                                          \
    X(queue, "the free queue and the high-water mark are within bounds")                           \
    X(previous, "each previous key belongs to a pair that names it, or to the journal")

enum shk_check {
#define SHK_CHECK_ENUM(name, text) SHK_CHECK_##name,
    SHK_CHECKS(SHK_CHECK_ENUM)
#undef SHK_CHECK_ENUM
        SHK_CHECK_COUNT
};
SHK_API const char *shk_check_name(enum shk_check check);
SHK_API const char *shk_check_text(enum shk_check check);

struct shk_report {
    uint64_t records, free_slots, journaled; /* slots of each kind, up to the high-water mark */
    uint64_t faults[SHK_CHECK_COUNT];
    uint64_t first[SHK_CHECK_COUNT]; /* slot or bucket of the first fault */
};
/* Checks every invariant. A writable handle holds the writers' lock meanwhile
 * (after recovery); a read-only one stores nothing, checks what it sees, and
 * reports BUSY where writers never paused. Faults found are no failure: 0. */
SHK_API int shk_store_verify(shk_store *store, struct shk_report *out);

/* What shk_store_repair gives up: name, why. */
#define SHK_DROPS(X)                                                                               \
    X(damaged, "a published slot whose fields no record can have")                                 \
    X(twin, "a record whose pair has another, newer one")                                          \
    X(orphan, "a previous key whose pair is gone or names another")                                \
    X(excess, "a record beyond the capacity")                                                      \
    X(journal, "an operation in the journal that nobody can have begun")                           \
    X(entry, "an index entry that names no record of its place")

enum shk_drop {
#define SHK_DROP_ENUM(name, text) SHK_DROP_##name,
    SHK_DROPS(SHK_DROP_ENUM)
#undef SHK_DROP_ENUM
        SHK_DROP_COUNT
};
SHK_API const char *shk_drop_name(enum shk_drop drop);
SHK_API const char *shk_drop_text(enum shk_drop drop);

struct shk_repair_report {
    uint64_t kept;     /* records that stand, previous keys included */
    uint64_t restored; /* of them those that the index had lost */
    uint64_t dropped[SHK_DROP_COUNT];
    uint64_t first[SHK_DROP_COUNT]; /* slot or entry of the first */
};
/* Rebuilds index, overflow counts, free queue and counts from the records, under the
 * writers' lock; afterwards shk_store_verify finds nothing. Keeps every valid record and
 * wipes what it drops. Readers go on meanwhile. If it is killed, the next writer starts it
 * again. */
SHK_API int shk_store_repair(shk_store *store, struct shk_repair_report *out);

/* ------------------------------------------------------------ semaphores -- */

/* Sets, as the kernel has them. A set is made by one call and given its values by another,
 * so an opener may come between the two. What tells it is sem_otime: 0 from semget on, set
 * by the first semop. So the creator stores the values (SETALL) and then performs an
 * operation, and an opener waits until sem_otime is no longer 0.
 *
 * -ENOENT: the set is gone, whether the kernel says EINVAL or EIDRM, and whether before the
 * call or while it waited. A deadline is a time of CLOCK_MONOTONIC, in nanoseconds. The calls
 * that wait end with -EINTR when a signal's handler has run, or may have: call again, with
 * the same deadline. */
#define SHK_NOW UINT64_C(0)  /* a deadline: not at all */
#define SHK_NEVER UINT64_MAX /* wait for ever */

#define SHK_SEMAPHORE_MAX 32767 /* SEMVMX, and SEMAEM for what undo adds up; fixed in the kernel */
#define SHK_SEMSET_MAX 65536u /* semaphores of a set; SEMMSL, which can be changed, is lower */

struct shk_semset_info {
    int id;
    key_t key;
    unsigned count;
    mode_t mode; /* permission bits */
    uid_t uid, cuid;
    gid_t gid, cgid;
    time_t operation_time, change_time; /* seconds since the epoch; 0: never */
};

/* A new set, all zero, not initialised. count: 1 or more. The detail of EINVAL and
 * ENOSPC names the limit (SEMMSL, SEMMNS, SEMMNI) and its value. */
SHK_API int shk_semset_create(key_t key, unsigned count, mode_t mode, int *id);
/* Only the creator: stores the values, then performs the operation that tells. */
SHK_API int shk_semset_initialise(int id, const unsigned short *values);
/* The id of an existing set. need: the permissions (of the 9 bits) without which -EACCES;
 * 0: none. */
SHK_API int shk_semset_find(key_t key, mode_t need, int *id);
/* Waits for the creator to initialise. SHK_E_TIMEOUT: it has not. */
SHK_API int shk_semset_await(int id, uint64_t deadline);

/* All the operations at once or none (semop); flags are 0 or SEM_UNDO. Waits until they
 * are possible, at most until the deadline: SHK_E_TIMEOUT, without a detail. IPC_NOWAIT
 * in the flags is this function's own. */
SHK_API int shk_semset_operate(int id, struct sembuf *operations, size_t count, uint64_t deadline);

/* A question about one semaphore: GETVAL, GETPID, GETNCNT or GETZCNT. */
SHK_API int shk_semset_ask(int id, unsigned index, int what, int *answer);
SHK_API int shk_semset_values(int id, unsigned short *values);
/* SETVAL and SETALL: every process forgets what it would have undone of these. */
SHK_API int shk_semset_set_value(int id, unsigned index, int value);
SHK_API int shk_semset_set_values(int id, const unsigned short *values);

SHK_API int shk_semset_stat(int id, struct shk_semset_info *out);
/* IPC_SET. mode: the low 9 bits. */
SHK_API int shk_semset_set(int id, uid_t uid, gid_t gid, mode_t mode);
/* IPC_RMID: at once, and whoever waits gets -ENOENT. */
SHK_API int shk_semset_remove(int id);

/* -------------------------------------------------------- message queues -- */

/* A message is a type (1 or more) and bytes. -ENOENT, -EINTR and deadlines as above. The
 * kernel can wait for ever or not at all; to wait until a deadline is to ask again and again,
 * in naps that grow to 10 ms. */

/* As msgsnd(2) and msgrcv(2) take it: the type, then the bytes. */
struct shk_message {
    long type;
#ifdef __cplusplus
    char bytes[1]; /* and what follows: C++ has no flexible arrays */
#else
    char bytes[];
#endif
};

struct shk_msgqueue_info {
    int id;
    key_t key;
    mode_t mode; /* permission bits */
    uid_t uid, cuid;
    gid_t gid, cgid;
    uint64_t messages, bytes;
    uint64_t bytes_max; /* 0: unknown, for /proc tells it only of queues one may read */
    pid_t last_send_pid, last_receive_pid; /* 0: nobody yet, or another PID namespace */
    time_t send_time, receive_time, change_time; /* seconds since the epoch; 0: never */
};

/* The detail of ENOSPC names the limit (MSGMNI) and its value. */
SHK_API int shk_msgqueue_create(key_t key, mode_t mode, int *id);
/* need: the permissions (of the 9 bits) without which -EACCES; 0: none. */
SHK_API int shk_msgqueue_find(key_t key, mode_t need, int *id);

/* SHK_E_TIMEOUT, without a detail: the queue was full until the deadline. -EINVAL:
 * longer than MSGMAX. -EMSGSIZE: longer than this queue can ever hold, which the kernel
 * would wait for in vain; told only if the queue may be read. */
SHK_API int shk_msgqueue_send(int id, const struct shk_message *message, size_t size,
                              uint64_t deadline);
/* Which message: type 0 the first, > 0 the first of that type, < 0 the first of the
 * lowest type up to -type. flags: MSG_NOERROR cuts off what is beyond capacity;
 * MSG_EXCEPT takes the first whose type is another. Returns the size in *size.
 * SHK_E_TIMEOUT, without a detail: there was none. -E2BIG, without a detail: it is
 * longer than capacity, and stays. */
SHK_API int shk_msgqueue_receive(int id, struct shk_message *message, size_t capacity, long type,
                                 int flags, uint64_t deadline, size_t *size);
/* A copy of the index-th message; never waits. All of the capacity is read, so it must
 * be initialised. -ENOMSG: not so many there. -E2BIG, without a detail: longer than
 * capacity. -ENOSYS: this kernel has no MSG_COPY. */
SHK_API int shk_msgqueue_peek(int id, struct shk_message *message, size_t capacity,
                              unsigned index, size_t *size);

SHK_API int shk_msgqueue_stat(int id, struct shk_msgqueue_info *out);
/* IPC_SET. mode: the low 9 bits. More bytes_max than MSGMNB is for the privileged only. */
SHK_API int shk_msgqueue_set(int id, uid_t uid, gid_t gid, mode_t mode, uint64_t bytes_max);
/* IPC_RMID: at once, with its messages, and whoever waits gets -ENOENT. */
SHK_API int shk_msgqueue_remove(int id);

/* ------------------------------------------------------ the host's tables -- */

/* Two ways to read the tables of the caller's IPC namespace, with the same result.
 * Neither needs a permission on what is listed. The kernel's is IPC_INFO and
 * {SHM,SEM,MSG}_STAT_ANY, -ENOSYS before Linux 4.17; the other /proc/sysvipc and
 * /proc/sys/kernel. */
enum shk_source { SHK_SOURCE_KERNEL, SHK_SOURCE_PROC };

/* *rows: *count of them in the order of the kernel's table, for shk_rows_free. What
 * appears or goes meanwhile may be in it or not. */
SHK_API int shk_segments_list(enum shk_source source, struct shk_segment_info **rows,
                              size_t *count);
SHK_API int shk_semsets_list(enum shk_source source, struct shk_semset_info **rows, size_t *count);
SHK_API int shk_msgqueues_list(enum shk_source source, struct shk_msgqueue_info **rows,
                               size_t *count);
SHK_API void shk_rows_free(void *rows);

struct shk_limits {
    uint64_t shmmax, shmmin, shmmni, shmall; /* bytes, bytes, segments, pages */
    uint64_t msgmax, msgmnb, msgmni;         /* bytes, bytes, queues */
    uint64_t semmsl, semmns, semopm, semmni, semvmx;
};
SHK_API int shk_limits_read(enum shk_source source, struct shk_limits *out);

struct shk_usage {
    uint64_t segments, segment_pages, resident_pages, swapped_pages;
    uint64_t sets, semaphores;
    uint64_t queues, messages, message_bytes;
};
SHK_API int shk_usage_read(enum shk_source source, struct shk_usage *out);

#ifdef __cplusplus
}
#endif
#endif
