/* test_memory_lock.c: a store is locked in memory before it can hold a key, or not at all.
 *
 * This program's shmctl stands before the kernel's: it sees each SHM_LOCK at its moment, and
 * refuses it where a test says so.
 */
#include "store_fixture.h"

#include <sys/syscall.h>

static struct {
    unsigned calls;
    bool published; /* at one of them */
    int refusal;    /* errno */
} locking;

int shmctl(int id, int command, struct shmid_ds *status)
{
    if (command == SHM_LOCK) {
        const struct shk_header_shm *header = shmat(id, NULL, SHM_RDONLY);
        CHECK(header != (void *)-1);
        locking.calls++;
        locking.published |= header->state != SHK_STATE_MAKING;
        CHECK(shmdt(header) == 0);
        if (locking.refusal) {
            errno = locking.refusal;
            return -1;
        }
    }
    return (int)syscall(SYS_shmctl, id, command, status);
}

static int open_store(enum shk_intent intent, key_t key, enum shk_memory_lock how, shk_store **out)
{
    struct shk_address address = {.key = key};
    struct shk_shape shape = {.capacity = 10, .mode = 0600, .memory_lock = how};
    return shk_store_open(intent, &address, &shape, &store_writing, out);
}

static bool is_locked(const shk_store *store)
{
    bool locked;
    CHECK_CODE(shk_store_memory_locked(store, &locked), 0);
    return locked;
}

static key_t new_key(void)
{
    key_t key;
    CHECK_CODE(shk_random_key(&key), 0);
    return key;
}

static unsigned count_ids(void)
{
    struct shm_info segments;
    struct seminfo sets;
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&segments) >= 0);
    CHECK(semctl(0, 0, SEM_INFO, &sets) >= 0);
    return (unsigned)segments.used_ids + (unsigned)sets.semusz;
}

static void it_is_locked_before_it_is_published(void)
{
    const enum shk_memory_lock all[] = {SHK_MEMORY_LOCK_TRY, SHK_MEMORY_LOCK_REQUIRE,
                                        SHK_MEMORY_LOCK_OFF};
    for (unsigned i = 0; i < 3; i++) {
        shk_store *store;
        locking.calls = 0;
        CHECK_CODE(open_store(SHK_CREATE, IPC_PRIVATE, all[i], &store), 0);
        CHECK_EQUAL(locking.calls, all[i] != SHK_MEMORY_LOCK_OFF);
        CHECK_EQUAL(is_locked(store), all[i] != SHK_MEMORY_LOCK_OFF);
        CHECK(!locking.published);
        store_end(store);
    }
}

static void refused_it_is_there_or_not(void)
{
    const int errors[] = {ENOMEM, EPERM};
    unsigned before = count_ids();
    key_t key = new_key();
    for (unsigned i = 0; i < 2; i++) {
        shk_store *store;
        locking.refusal = errors[i];
        CHECK_CODE(open_store(SHK_CREATE, key, SHK_MEMORY_LOCK_REQUIRE, &store), -errors[i]);
        CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, key, SHK_MEMORY_LOCK_REQUIRE, &store),
                   -errors[i]);
        CHECK(strstr(shk_error_detail(), "SHM_LOCK"));
        CHECK_EQUAL(count_ids(), before);
        CHECK_CODE(open_store(SHK_CREATE, key, SHK_MEMORY_LOCK_TRY, &store), 0);
        CHECK(!is_locked(store));
        CHECK_CODE(put(store, "c", "a key"), 0);
        CHECK_CODE(shk_store_lock_memory(store), -errors[i]);
        locking.refusal = 0;
        CHECK_CODE(shk_store_lock_memory(store), 0);
        CHECK(is_locked(store));
        store_end(store);
    }
}

static void one_that_is_there_is_locked_too(void)
{
    key_t key = new_key();
    shk_store *store, *other;
    CHECK_CODE(open_store(SHK_CREATE, key, SHK_MEMORY_LOCK_OFF, &store), 0);
    CHECK_CODE(put(store, "c", "a key"), 0);

    CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, key, SHK_MEMORY_LOCK_OFF, &other), 0);
    CHECK(!is_locked(store));
    shk_store_close(other);

    locking.refusal = ENOMEM;
    CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, key, SHK_MEMORY_LOCK_TRY, &other), 0);
    CHECK(!is_locked(store));
    shk_store_close(other);
    CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, key, SHK_MEMORY_LOCK_REQUIRE, &other), -ENOMEM);
    CHECK_CODE(get(store, "c", "a key"), 0);

    locking.refusal = 0;
    CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, key, SHK_MEMORY_LOCK_REQUIRE, &other), 0);
    CHECK(is_locked(store));
    shk_store_close(other);
    store_end(store);
}

static void other_values_are_refused(void)
{
    shk_store *store;
    CHECK_CODE(open_store(SHK_CREATE, IPC_PRIVATE, (enum shk_memory_lock)3, &store),
               SHK_E_INVALID);
}

static const struct test tests[] = {
    TEST(it_is_locked_before_it_is_published),
    TEST(refused_it_is_there_or_not),
    TEST(one_that_is_there_is_locked_too),
    TEST(other_values_are_refused),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
