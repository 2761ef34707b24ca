/* test_threads.c: threads on ONE mapping, for ThreadSanitizer, which is blind across
 * two attachments of one segment. Writers keep an invariant that readers check. */
#include "test.h"

enum { PAIRS = 16, WRITERS = 3, READERS = 3, ROUNDS = 20000 };

static shk_store *store;
static uint32_t writers_left = WRITERS;

static struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

/* A key of 16 to 128 bytes that are all the same: a torn one has two kinds. */
static void check_key(const unsigned char *key, size_t length)
{
    CHECK(length == 16 + key[0] % 113u);
    for (size_t i = 1; i < length; i++)
        CHECK(key[i] == key[0]);
}

static void *write_keys(void *argument)
{
    uint32_t random = (uint32_t)(uintptr_t)argument;
    char client[12], key[128];
    struct shk_record record;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1664525 + 1013904223;
        (void)snprintf(client, sizeof client, "c%u", (random >> 8) % PAIRS);
        unsigned what = random >> 28;
        memset(key, (int)(random & 0xFF), sizeof key);
        struct shk_bytes bytes = {key, 16 + (random & 0xFF) % 113u};
        struct shk_put put = {.key = bytes, .key_id = SHK_KEY_ID_NEXT};
        int rc;
        if (what < 2)
            rc = shk_store_delete(store, text(client), text("s"));
        else if (what < 4)
            rc = shk_store_rotate(store, text(client), text("s"), &(struct shk_rotation){.new_key = bytes}, &record,
                                  key, sizeof key);
        else if (what < 5)
            rc = shk_store_revoke(store, text(client), text("s"));
        else
            rc = shk_store_put(store, text(client), text("s"), &put, NULL);
        CHECK(rc == 0 || rc == SHK_E_ABSENT || rc == SHK_E_REVOKED);
    }
    __atomic_fetch_sub(&writers_left, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static void *read_keys(void *argument)
{
    uint32_t random = (uint32_t)(uintptr_t)argument;
    unsigned char key[128];
    char client[12];
    size_t length;
    while (__atomic_load_n(&writers_left, __ATOMIC_ACQUIRE)) {
        random = random * 1664525 + 1013904223;
        (void)snprintf(client, sizeof client, "c%u", (random >> 8) % PAIRS);
        int rc = shk_store_get_key(store, text(client), text("s"), key, sizeof key, &length);
        CHECK(rc == 0 || rc == SHK_E_ABSENT || rc == SHK_E_REVOKED);
        if (rc == 0)
            check_key(key, length);
    }
    return NULL;
}

static void threads_share_a_handle(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {.capacity = PAIRS, .mode = 0600};
    struct shk_access access = {.lock_timeout = 60000000000};
    struct shk_info info;
    struct shk_report report;
    pthread_t threads[WRITERS + READERS];
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access, &store), 0);
    shk_store_info(store, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    for (int i = 0; i < WRITERS + READERS; i++)
        threads[i] = test_thread(i < WRITERS ? write_keys : read_keys,
                                 (void *)(uintptr_t)(7919u * (unsigned)(i + 1)));
    for (int i = 0; i < WRITERS + READERS; i++)
        test_join_thread(threads[i]);
    CHECK_CODE(shk_store_verify(store, &report), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        CHECK_EQUAL(report.faults[i], 0);
    CHECK_CODE(shk_store_destroy(store), 0);
    shk_store_close(store);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(threads_share_a_handle)};
    return TEST_MAIN(argc, argv, tests);
}
