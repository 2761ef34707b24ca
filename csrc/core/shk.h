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
 * Sizes are bytes, times nanoseconds: durations monotonic, dates since the epoch.
 */
#ifndef SHK_H
#define SHK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ipc.h>
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
    X(BUSY, 5016, "the store kept changing while it was checked")

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

/* Which segment: by name if name.size > 0 (key is then ignored), else by key.
 * owner: whose name it is; for creation always the caller's effective uid. */
struct shk_address {
    struct shk_bytes name;
    uid_t owner;
    key_t key;
};

/* What to create. Zero id_size, key_size: the defaults. mode: 0600, or 0640 for
 * readers of the group; anything else is refused. */
struct shk_shape {
    uint64_t capacity; /* pairs, 1 to SHK_CAPACITY_MAX */
    uint32_t id_size;
    uint32_t key_size;
    mode_t mode;
};

/* How to open. */
struct shk_access {
    bool readonly;
    const uid_t *trust; /* uids beside oneself and root who may own or have created it */
    size_t trust_count;
    uint64_t open_timeout; /* wait this long for a creator that has not published yet */
    uint64_t lock_timeout; /* wait this long for the writers' lock */
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
SHK_API int shk_store_from_id(int id, const struct shk_access *access, shk_store **out);
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
    uint64_t expires; /* 0: never */
};

/* The whole record. key_out must hold key_length bytes: give shk_store_key_size. */
SHK_API int shk_store_record(const shk_store *store, struct shk_bytes client,
                             struct shk_bytes server, struct shk_record *out, void *key_out,
                             size_t capacity);
/* The key of a valid, unexpired pair; REVOKED or EXPIRED otherwise. INVALID if
 * the key is longer than capacity. key_out is written only on success. */
SHK_API int shk_store_get_key(const shk_store *store, struct shk_bytes client,
                              struct shk_bytes server, void *key_out, size_t capacity,
                              size_t *length);

#define SHK_KEY_ID_NEXT (-1)
/* key_id: SHK_KEY_ID_NEXT draws from the store's counter; an explicit id (0 to
 * INT32_MAX) moves the counter beyond it. */
struct shk_put {
    struct shk_bytes key;
    int32_t key_id;
    int32_t status;
    uint64_t ttl; /* 0: never expires */
};
/* Inserts or replaces. key_id_out may be NULL. */
SHK_API int shk_store_put(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                          const struct shk_put *what, int32_t *key_id_out);
/* A new key under the next key id; ttl is counted anew only by put, so expires
 * stays. new_key.size == 0: random bytes of the old length. REVOKED and EXPIRED
 * pairs are refused: put brings them back. out and key_out describe the new record. */
SHK_API int shk_store_rotate(shk_store *store, struct shk_bytes client, struct shk_bytes server,
                             struct shk_bytes new_key, struct shk_record *out, void *key_out,
                             size_t capacity);
/* Marks the pair revoked; a pair revoked already stays as it is. */
SHK_API int shk_store_revoke(shk_store *store, struct shk_bytes client, struct shk_bytes server);
SHK_API int shk_store_delete(shk_store *store, struct shk_bytes client, struct shk_bytes server);

struct shk_info {
    int id;              /* of the segment */
    int semaphore_id;    /* of the set that tells who is alive */
    key_t key;
    uint64_t segment_size;
    uint64_t capacity;
    uint32_t id_size;
    uint32_t key_size;
    uint32_t record_size; /* of one slot */
    bool readonly;
    unsigned char store_id[16];
    uid_t owner;
    char name[SHK_NAME_MAX + 1]; /* "" if made by key */
    uint64_t created;
};
SHK_API void shk_store_info(const shk_store *store, struct shk_info *out);

struct shk_stats {
    uint64_t records;       /* pairs, expired and revoked ones too */
    uint64_t revision;      /* commits since creation */
    uint64_t slots_touched; /* high-water mark */
    uint64_t takeovers;     /* locks taken from the dead */
    uint64_t recoveries;    /* operations of the dead finished or undone */
    int32_t last_key_id;
};
SHK_API int shk_store_stats(const shk_store *store, struct shk_stats *out);
/* The lock timeout of this handle; atomic. */
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
    X(queue, "the free queue and the high-water mark are within bounds")

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

/* ------------------------------------------------------ the host's tables -- */

/* Two ways to read the tables of the caller's IPC namespace, with the same result.
 * Neither needs a permission on what is listed. The kernel's is IPC_INFO and
 * {SHM,SEM,MSG}_STAT_ANY, -ENOSYS before Linux 4.17; the other /proc/sysvipc and
 * /proc/sys/kernel. */
enum shk_source { SHK_SOURCE_KERNEL, SHK_SOURCE_PROC };

struct shk_semset_info {
    int id;
    key_t key;
    unsigned count;
    mode_t mode; /* permission bits */
    uid_t uid, cuid;
    gid_t gid, cgid;
    time_t operation_time, change_time; /* seconds since the epoch; 0: never */
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
