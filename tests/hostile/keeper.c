/* keeper.c: between two attacks the store is repaired as it is, and must work; then it is
 * put back to how it was, and must work. */
#include <sys/sem.h>
#include <sys/shm.h>

#include "call.h"
#include "victim.h"

#define ATTACK_TIME (30 * SHK_MILLISECOND)
#define ROUNDS_A_STORE 8u /* then one of other sizes */

static unsigned char *bytes; /* of the store, or NULL */

static void check_works(const char *when, bool whole)
{
    shk_store *store;
    struct shk_report report;
    int rc = shk_store_from_id(arena->segment, &writing, &store);
    if (rc != 0)
        fail("%s the store can't be opened: %d (%s: %s)", when, rc, shk_error_message(rc),
             shk_error_detail());
    if (!whole) {
        struct shk_repair_report repaired;
        rc = CALL("repair", shk_store_repair(store, &repaired));
        if (rc != 0)
            fail("%s repair is %d (%s: %s)", when, rc, shk_error_message(rc), shk_error_detail());
    }
    CHECK(CALL("verify", shk_store_verify(store, &report)) == 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        if (report.faults[i])
            fail("%s %s: %llu faults, the first at %llu", when, shk_check_name((enum shk_check)i),
                 (unsigned long long)report.faults[i], (unsigned long long)report.first[i]);
    unsigned char *key = key_room();
    size_t length;
    struct shk_put what = {.key = {"k", 1}, .key_id = 5};
    uint64_t count;
    CHECK(whole || CALL("clear", shk_store_clear(store, &count)) == 0);
    CHECK(CALL("put", shk_store_put(store, client_of(0), SERVER, &what, NULL)) == 0);
    CHECK(CALL("get_key", shk_store_get_key(store, client_of(0), SERVER, key, arena->key_size,
                                            &length)) == 0);
    key_check(key, length);
    CHECK(length == 1 && key[0] == 'k');
    shk_store_close(store);
}

static bool still_there(void)
{
    struct shmid_ds segment;
    struct semid_ds set;
    union semun {
        struct semid_ds *buf;
    } about = {&set};
    return bytes && shmctl(arena->segment, IPC_STAT, &segment) == 0 &&
           !(segment.shm_perm.mode & SHM_DEST) && semctl(arena->set, 0, IPC_STAT, about) == 0;
}

static void put_back(void)
{
    memcpy(bytes, arena->image, arena->geometry.total_size);
}

/* Header and lock as they were; the rest as the attack left it. */
static void repair_what_is_left(void)
{
    struct shk_header_shm *header = (void *)bytes;
    memcpy(bytes, arena->image, sizeof *header);
    memset(bytes + sizeof *header, 0, sizeof(struct shk_lock_shm));
    check_works("after an attack and a repair", false);
}

/* Pairs of every kind, so that every attack finds something. */
static void fill(shk_store *store)
{
    unsigned char key[1024] = "0123456789";
    for (unsigned i = 0; i < arena->capacity * 3 / 4; i++) {
        struct shk_put what = {.key = {key, 1 + below(arena->key_size)},
                               .key_id = SHK_KEY_ID_NEXT,
                               .ttl = i % 4 == 3 ? 3600 * SHK_SECOND : 0};
        struct shk_rotation how = {.grace = 3600 * SHK_SECOND};
        CHECK(shk_store_put(store, client_of(i), SERVER, &what, NULL) == 0);
        if (i % 5 == 1)
            (void)shk_store_rotate(store, client_of(i), SERVER, &how, NULL, NULL, 0);
        if (i % 7 == 2)
            CHECK(shk_store_revoke(store, client_of(i), SERVER) == 0);
        if (i % 3 == 2)
            CHECK(shk_store_delete(store, client_of(i - 1), SERVER) == 0);
    }
}

static void make_anew(void)
{
    static const struct {
        uint32_t capacity, id_size, key_size;
    } shapes[] = {{8, 12, 16}, {60, 12, 128}, {40, 9, 33}, {24, 31, 700}, {300, 12, 32}};
    unsigned which = below(sizeof shapes / sizeof *shapes);
    if (bytes)
        (void)shmdt(bytes);
    arena_clean(false);
    arena->capacity = shapes[which].capacity;
    arena->id_size = shapes[which].id_size;
    arena->key_size = shapes[which].key_size;
    struct shk_address address = {.name = shk_text(arena->name), .owner = geteuid()};
    struct shk_shape shape = {.capacity = arena->capacity,
                              .id_size = arena->id_size,
                              .key_size = arena->key_size,
                              .mode = 0600};
    struct shk_info info;
    shk_store *store;
    int rc = shk_store_open(SHK_CREATE, &address, &shape, &writing, &store);
    if (rc != 0)
        fail("the store can't be made: %d (%s: %s)", rc, shk_error_message(rc), shk_error_detail());
    fill(store);
    shk_store_info(store, &info);
    arena->segment = info.id;
    arena->set = info.semaphore_id;
    arena->key = info.key;
    CHECK(shk__geometry_compute(arena->capacity, arena->id_size, arena->key_size,
                                &arena->geometry) == 0);
    CHECK(arena->geometry.total_size <= sizeof arena->image);
    shk_store_close(store);
    bytes = shmat(info.id, NULL, 0);
    CHECK(bytes != (void *)-1);
    memcpy(arena->image, bytes, arena->geometry.total_size);
}

static void prepare(void)
{
    bool there = still_there();
    if (there)
        repair_what_is_left();
    if (!there || arena->round % ROUNDS_A_STORE == 0)
        make_anew();
    put_back();
    check_works("undisturbed", true);
    put_back();
}

static void await_all(void)
{
    const uint32_t turn = shk__load(&arena->turn);
    for (enum role each = 0; each < ROLES; each++)
        while (each != KEEPER && shk__load(&arena->finished[each]) != turn) {
            struct timespec t = shk__timespec(SHK_MILLISECOND / 5);
            nanosleep(&t, NULL);
        }
}

void keeper_run(uint64_t duration, uint32_t round, bool only)
{
    const uint64_t end = shk__monotonic() + duration;
    for (uint32_t turn = 0; shk__monotonic() < end; turn += PHASES) {
        arena->round = round;
        shk__store(&arena->turn, turn);
        chance_restart();
        prepare();
        CHECK(decoys_are_untouched());
        shk__store(&arena->turn, turn + OPEN);
        await_all();
        shk__store(&arena->turn, turn + ATTACK);
        struct timespec t = shk__timespec(ATTACK_TIME);
        nanosleep(&t, NULL);
        shk__store(&arena->ended, turn + ATTACK);
        await_all();
        arena->rounds++;
        round += !only;
    }
    prepare();
    CHECK(decoys_are_untouched());
    shk__store(&arena->stop, 1);
}
