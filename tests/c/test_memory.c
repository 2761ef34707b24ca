/* test_memory.c: stores in memory of the caller's: who makes them, what shape they have, and
 * that no bytes of a header lead outside. Kills are in ../crash/making.c.
 */
#include "store_fixture.h"

#include <sys/mman.h>
#include <sys/sem.h>

#define CAPACITY 20u

static const struct shk_shape shape = {.capacity = CAPACITY};

static size_t size_of(const struct shk_shape *wanted)
{
    size_t size;
    CHECK_CODE(shk_store_size(wanted, &size), 0);
    return size;
}

static unsigned char *mapping(size_t size)
{
    unsigned char *map =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(map != MAP_FAILED);
    return map;
}

static shk_store *make(void *map, size_t size)
{
    shk_store *store;
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, map, size, &shape, &store_writing, &store), 0);
    test_keep_set(store->info.semaphore_id);
    return store;
}

/* ------------------------------------------------------------------ makers -- */

static void one_creator_wins(void)
{
    const size_t size = size_of(&shape);
    for (int round = 0; round < 50; round++) {
        unsigned char *map = mapping(size), *shared = mapping(4096);
        uint32_t *gate = (uint32_t *)shared, *won = gate + 1, *there = gate + 2;
        pid_t children[4];
        for (int i = 0; i < 4; i++) {
            children[i] = test_fork();
            if (children[i] == 0) {
                shk_store *store;
                while (shk__load(gate) == 0)
                    shk__pause();
                int rc = shk_store_in_memory(SHK_CREATE, map, size, &shape, &store_writing, &store);
                CHECK(rc == 0 || rc == -EEXIST);
                __atomic_fetch_add(rc == 0 ? won : there, 1, __ATOMIC_ACQ_REL);
                exit(0);
            }
        }
        shk__store(gate, 1);
        for (int i = 0; i < 4; i++)
            test_join(children[i]);
        CHECK_EQUAL(*won, 1);
        CHECK_EQUAL(*there, 3);
        shk_store *store;
        CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size, NULL, &store_writing, &store), 0);
        CHECK_SOUND(store);
        store_end(store);
        CHECK(munmap(map, size) == 0 && munmap(shared, 4096) == 0);
    }
}

/* Makers of different shapes, at once: there is the store of one of them. */
static void a_shape_is_one_makers(void)
{
    const size_t size = 200000;
    for (int round = 0; round < 50; round++) {
        unsigned char *map = mapping(size), *gate = mapping(4096);
        const struct shk_shape shapes[] = {{.capacity = 10, .id_size = 20, .key_size = 30},
                                           {.capacity = 30, .id_size = 10, .key_size = 20}};
        pid_t children[2];
        for (int i = 0; i < 2; i++) {
            children[i] = test_fork();
            if (children[i] == 0) {
                shk_store *store;
                while (shk__load(gate) == 0)
                    shk__pause();
                int rc = shk_store_in_memory(SHK_OPEN_OR_CREATE, map, size, &shapes[i],
                                             &store_writing, &store);
                CHECK(rc == 0 || rc == SHK_E_INCOMPATIBLE);
                exit(0);
            }
        }
        shk__store(gate, 1);
        test_join(children[0]);
        test_join(children[1]);
        shk_store *store;
        CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size, NULL, &store_writing, &store), 0);
        CHECK(store->info.capacity + store->info.key_size == (store->info.id_size == 20 ? 40 : 50));
        store_end(store);
        CHECK(munmap(map, size) == 0 && munmap(gate, 4096) == 0);
    }
}

static void arguments(void)
{
    const size_t size = size_of(&shape);
    unsigned char *map = mapping(size);
    struct shk_shape wanted = shape;
    shk_store *store, *other;
    wanted.mode = 0666;
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, map, size, &wanted, &store_writing, &store),
               SHK_E_INVALID);
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, map, size, &shape, &store_reading, &store),
               SHK_E_INVALID);
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, map + 4, size - 4, &shape, &store_writing, &store),
               SHK_E_INVALID);
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, map, size - 1, &shape, &store_writing, &store),
               SHK_E_INVALID);
    CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size, NULL, &store_writing, &store), -ENOENT);
    CHECK_EQUAL(map[0] | map[16], 0);
    store = make(map, size);
    CHECK_EQUAL(store->info.id, -1);
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, map, size, &shape, &store_writing, &other), -EEXIST);
    CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size - 1, NULL, &store_writing, &other),
               SHK_E_INCOMPATIBLE);
    unsigned char stranger[16] = {1};
    struct shk_access access = store_writing;
    access.store_id = stranger;
    CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size, NULL, &access, &other), SHK_E_REMOVED);
    access.store_id = store->info.store_id;
    CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size, NULL, &access, &other), 0);
    shk_store_close(other);
    store_end(store);
    CHECK(munmap(map, size) == 0);
}

/* ------------------------------------------------------------------ memory -- */

/* Where a store faults, the process ends. */
static void readers_store_nothing(void)
{
    const size_t size = size_of(&shape);
    unsigned char *map = mapping(size);
    shk_store *store = make(map, size), *reader;
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK(mprotect(map, size, PROT_READ) == 0);
    CHECK_CODE(shk_store_in_memory(SHK_OPEN, map, size, NULL, &store_reading, &reader), 0);
    CHECK_CODE(get(reader, "a", "key"), 0);
    CHECK_CODE(get(reader, "b", "key"), SHK_E_ABSENT);
    CHECK_SOUND(reader);
    uint64_t revision;
    CHECK_CODE(shk_store_wait(reader, 1, SHK_MILLISECOND, NULL, &revision), 0);
    shk_store_close(reader);
    CHECK(mprotect(map, size, PROT_READ | PROT_WRITE) == 0);
    store_end(store);
    CHECK(munmap(map, size) == 0);
}

static bool is_dumped(const void *address)
{
    char line[512], wanted[32];
    bool found = false, dumped = true;
    FILE *maps = fopen("/proc/self/smaps", "re");
    CHECK(maps);
    (void)snprintf(wanted, sizeof wanted, "%zx-", (size_t)address);
    while (fgets(line, sizeof line, maps)) {
        if (strchr(line, '-') && strncmp(line, wanted, strlen(wanted)) == 0)
            found = true;
        else if (found && strncmp(line, "VmFlags:", 8) == 0) {
            dumped = strstr(line, " dd") == NULL;
            break;
        }
    }
    (void)fclose(maps);
    CHECK(found);
    return dumped;
}

static void keys_stay_out_of_dumps(void)
{
    const size_t size = (size_of(&shape) + 4095) / 4096 * 4096;
    unsigned char *map = mapping(size);
    CHECK(is_dumped(map));
    shk_store *store = make(map, size);
    CHECK(!is_dumped(map));
    store_end(store);
    CHECK(munmap(map, size) == 0);
}

/* On the heap, exactly as large as the store: AddressSanitizer knows its end. */
static void forged_headers(void)
{
    const size_t size = size_of(&shape);
    unsigned char *memory = aligned_alloc(64, size), *good = malloc(size);
    CHECK(memory && good);
    memset(memory, 0, size);
    chance_start();
    shk_store *store = make(memory, size);
    for (unsigned i = 0; i < CAPACITY; i++)
        CHECK_CODE(put(store, numbered(i), "key"), 0);
    const int own = store->info.semaphore_id;
    int stranger = test_keep_set(semget(IPC_PRIVATE, SHK_WRITERS_MAX + SHK_IDENTITY, 0600));
    shk_store_close(store);
    memcpy(good, memory, size);
    const struct shk_access hasty = {.lock_timeout = SHK_MILLISECOND};
    const uint64_t numbers[] = {0, 1, UINT32_MAX, INT32_MAX, UINT64_MAX, SHK_STATE_LIVE,
                                SHK_STATE_MOVED, SHK_STATE_MAKING, (uint64_t)stranger + 1};
    unsigned opened = 0;
    for (unsigned round = 0; round < 3000; round++) {
        memcpy(memory, good, size);
        for (unsigned i = chance_below(3) + 1; i > 0; i--) {
            size_t at = chance_below(2) ? chance_below(16) * 8 : chance_below(SHK_FIXED_SIZE / 8) * 8;
            uint64_t value = numbers[chance_below(sizeof numbers / sizeof *numbers)];
            if (chance_below(3) == 0)
                value ^= *(uint64_t *)(memory + at);
            memcpy(memory + at, &value, chance_below(2) ? 8 : 4);
        }
        shk_store *forged;
        struct shk_report report;
        bool reads = chance_below(2);
        enum shk_intent intent = reads ? SHK_OPEN : SHK_OPEN_OR_CREATE;
        struct shk_access access = hasty;
        access.readonly = reads;
        if (shk_store_in_memory(intent, memory, size, &shape, &access, &forged) != 0)
            continue;
        opened++;
        char key[200];
        size_t length;
        (void)shk_store_get_key(forged, text("c1"), SERVER, key, sizeof key, &length);
        (void)shk_store_verify(forged, &report);
        if (!reads)
            (void)put(forged, "c2", "new");
        int made = forged->info.semaphore_id;
        shk_store_close(forged);
        if (!reads && made != own && made != stranger && made >= 0)
            (void)semctl(made, 0, IPC_RMID);
    }
    CHECK(opened > 500);
    CHECK(semctl(own, 0, GETVAL) >= 0);
    CHECK_EQUAL(semctl(stranger, 0, GETVAL), 0);
    memcpy(memory, good, size);
    CHECK_CODE(shk_store_in_memory(SHK_OPEN, memory, size, NULL, &store_writing, &store), 0);
    CHECK_CODE(put(store, "c2", "new"), 0);
    store_end(store);
    free(memory);
    free(good);
}

static const struct test tests[] = {
    TEST(one_creator_wins),      TEST(a_shape_is_one_makers),  TEST(arguments),
    TEST(readers_store_nothing), TEST(keys_stay_out_of_dumps), TEST(forged_headers),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
