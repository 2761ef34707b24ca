/* making.c: the two ends of a store's life. */
#include "making.h"

#include "medium.h"
#include "realm.h"
#include "stepping.h"

static const struct shk_access impatient = {.lock_timeout = 10 * SHK_SECOND};
static const struct shk_access impatient_reader = {.readonly = true};

/* Of this IPC namespace. */
static int sets_in_use(void)
{
    struct seminfo about;
    CHECK(semctl(0, 0, SEM_INFO, &about) >= 0);
    return about.semusz;
}

/* What a store's set is like, as far as its maker has come: found, and initialised. */
static int set_made(const unsigned char *map)
{
    int id = shk__set_find(((const struct shk_header_shm *)map)->store_id);
    return id < 0 ? 0 : 1 + (semctl(id, SHK_WRITERS_MAX, GETVAL) > 0);
}

struct life {
    key_t key;                /* of a store to be made */
    shk_store *store;         /* to be destroyed */
    unsigned char *map;       /* NULL: not found yet */
    unsigned char *last;
    size_t size;
    struct images *images;    /* NULL: count them until */
    size_t seen, stop_after;
    int set_made;             /* of the last image, in memory */
};

static bool look_for_change(void *context)
{
    struct life *life = context;
    if (!life->map) {
        int id = shmget(life->key, 0, 0);
        if (id < 0)
            return false;
        life->map = shmat(test_keep_segment(id), NULL, 0);
        CHECK(life->map != (void *)-1);
    } else if (memcmp(life->map, life->last, life->size) == 0 &&
               (!medium_is_memory || set_made(life->map) == life->set_made))
        return false;
    life->set_made = set_made(life->map);
    memcpy(life->last, life->map, life->size);
    life->seen++;
    if (life->images)
        images_keep(life->images, life->last);
    return life->seen == life->stop_after;
}

/* ---------------------------------------------------------------- creation -- */

static const struct shk_shape shape = {.capacity = CAPACITY, .mode = 0600};

static void ready_to_create(void *context)
{
    (void)context;
}

static int create(void *context)
{
    const struct life *life = context;
    struct shk_address address = {.key = life->key};
    shk_store *store;
    return medium_is_memory
               ? shk_store_in_memory(SHK_OPEN_OR_CREATE, life->map, life->size, &shape,
                                     &store_writing, &store)
               : shk_store_open(SHK_CREATE, &address, &shape, &store_writing, &store);
}

/* It works, and is destroyed: its set goes. */
static void check_made(shk_store *store)
{
    CHECK_SOUND(store);
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_CODE(get(store, "a", "key"), 0);
    CHECK_SOUND(store);
    CHECK_CODE(shk_store_destroy(store), 0);
    shk_store_close(store);
}

/* What a creator left that was killed. True: a complete store. */
static bool examine_creation(const struct life *life)
{
    struct shk_address address = {.key = life->key};
    const struct shk_header_shm *header = (const struct shk_header_shm *)life->map;
    bool complete = header->state == SHK_STATE_LIVE;
    unsigned char store_id[16];
    struct shk_info info;
    shk_store *store;
    memcpy(store_id, header->store_id, sizeof store_id);
    int rc = shk_store_open(SHK_OPEN, &address, NULL, &impatient_reader, &store);
    CHECK_CODE(rc, complete ? 0 : SHK_E_TIMEOUT);
    if (complete) {
        CHECK_SOUND(store);
        shk_store_close(store);
    }
    CHECK_CODE(shk_store_open(SHK_OPEN_OR_CREATE, &address, &shape, &impatient, &store), 0);
    shk_store_info(store, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    CHECK((memcmp(info.store_id, store_id, sizeof store_id) == 0) == complete);
    check_made(store);
    return complete;
}

/* The same in memory, where no word that was stored is another afterwards. */
static bool examine_memory(const struct life *life)
{
    struct shk_header_shm *header = (struct shk_header_shm *)life->map;
    struct shk_header_shm before = *header;
    bool complete = before.state == SHK_STATE_LIVE;
    shk_store *store;
    int rc = shk_store_in_memory(SHK_OPEN, life->map, life->size, NULL, &impatient_reader, &store);
    CHECK_CODE(rc, complete ? 0 : before.layout_version ? SHK_E_TIMEOUT : -ENOENT);
    if (complete) {
        CHECK_SOUND(store);
        shk_store_close(store);
    }
    rc = shk_store_in_memory(SHK_OPEN_OR_CREATE, life->map, life->size, &shape, &impatient, &store);
    CHECK_CODE(rc, 0);
    test_keep_set(store->info.semaphore_id);
    for (size_t i = 0; i < sizeof before / 8; i++) {
        uint64_t word = ((uint64_t *)&before)[i];
        if (word != 0 && word != ((uint64_t *)header)[i])
            FAIL("create: word %zu of the header became another", i);
    }
    check_made(store);
    return complete;
}

/* A process on life->map until the point, or to its end: true. */
static bool live_once(struct life *life, int (*work)(void *), size_t *steps)
{
    bool done;
    life->seen = 0;
    pid_t pid = stepping_start(ready_to_create, work, life);
    *steps = stepping_run(pid, look_for_change, life, &done);
    if (done)
        stepping_finish(pid);
    else
        stepping_kill(pid);
    return done;
}

static bool never(void *context)
{
    (void)context;
    return false;
}

static unsigned tokens_taken(const shk_store *store)
{
    unsigned short values[SHK_WRITERS_MAX + SHK_IDENTITY];
    unsigned taken = 0;
    CHECK(semctl(store->info.semaphore_id, 0, GETALL, values) == 0);
    for (unsigned i = 0; i < SHK_WRITERS_MAX; i++)
        taken += values[i];
    return taken;
}

/* A process that is stopped at the point while this one does the whole of the same, and writes;
 * then it goes on to its end, and has changed nothing. False: it came to its end before. */
static bool overtake(struct life *life, int (*work)(void *))
{
    bool done;
    shk_store *store;
    life->seen = 0;
    pid_t pid = stepping_start(ready_to_create, work, life);
    stepping_run(pid, look_for_change, life, &done);
    if (done) {
        stepping_finish(pid);
        return false;
    }
    CHECK_CODE(shk_store_in_memory(SHK_OPEN_OR_CREATE, life->map, life->size, &shape,
                                   &store_writing, &store), 0);
    test_keep_set(store->info.semaphore_id);
    CHECK_CODE(put(store, "mine", "key"), 0);
    int sets = sets_in_use();
    memcpy(life->last, life->map, life->size);
    stepping_run(pid, never, life, &done);
    stepping_finish(pid);
    CHECK(memcmp(life->last, life->map, life->size) == 0);
    CHECK_EQUAL(sets_in_use(), sets);
    CHECK_EQUAL(tokens_taken(store), 1);
    check_made(store);
    return true;
}

size_t step_creation(size_t kills_every, size_t *killed)
{
    struct shk__geometry geometry;
    CHECK_CODE(shk__geometry_compute(CAPACITY, SHK_ID_SIZE_DEFAULT, SHK_KEY_SIZE_DEFAULT, &geometry),
               0);
    const size_t size = geometry.total_size;
    size_t points = 0, steps = 0;
    unsigned char *last = malloc(size);
    bool done = false, was_complete = false;
    CHECK(last);
    (void)kills_every;
    for (size_t point = 1; !done; point++) {
        struct life life = {.last = last, .size = size, .stop_after = point};
        struct site site = {0};
        int sets = sets_in_use();
        uint32_t kept = test_kept->count;
        CHECK_CODE(shk_random_key(&life.key), 0);
        memset(last, 0, size);
        if (medium_is_memory) {
            site = site_new(size);
            life.map = site.map;
        }
        done = live_once(&life, create, &steps);
        bool complete = medium_is_memory ? examine_memory(&life) : examine_creation(&life);
        if (was_complete && !complete)
            FAIL("create: a complete store was incomplete again, at point %zu", point);
        was_complete = complete;
        if (medium_is_memory)
            site_free(&site);
        else {
            CHECK(shmdt(life.map) == 0);
            CHECK(shmget(life.key, 0, 0) < 0);
        }
        CHECK_EQUAL(sets_in_use(), sets);
        points += !done;
        *killed += !done;
        test_kept->count = kept; /* they are gone; there may be many */
    }
    CHECK(was_complete && points > 10);
    for (size_t point = 1; medium_is_memory && point <= points; point++) {
        struct site site = site_new(size);
        struct life life = {.map = site.map, .last = last, .size = size, .stop_after = point};
        uint32_t kept = test_kept->count;
        memset(last, 0, size);
        CHECK(overtake(&life, create));
        site_free(&site);
        test_kept->count = kept;
    }
    printf("%-25s %6zu instructions, %4zu images, %zu kills\n", "create", steps, points, points);
    free(last);
    return points;
}

/* --------------------------------------------------------------- taking over -- */

static int take_over(void *context)
{
    const struct life *life = context;
    shk_store *store;
    return shk_store_in_memory(SHK_OPEN, life->map, life->size, NULL, &store_writing, &store);
}

/* What a reboot leaves: the bytes, of another boot, and no semaphores. */
static void reboot(shk_store *store)
{
    struct shk_header_shm *header = shk__header(store);
    header->realm ^= UINT64_C(1) << 63;
    header->set ^= UINT64_C(1) << 63;
    CHECK(semctl(store->info.semaphore_id, 0, IPC_RMID) == 0);
}

/* A store that was left at a reboot, and what happens to it. */
static bool take_over_once(size_t point, bool overtaken, size_t *steps)
{
    uint32_t kept = test_kept->count;
    int sets = sets_in_use();
    shk_store *store = site_make_store();
    struct site site = site_of(store);
    struct life life = {.map = site.map, .size = site.size, .stop_after = point,
                        .last = malloc(site.size)};
    CHECK(life.last);
    prepare_bystanders(store);
    reboot(store);
    shk_store_close(store);
    memcpy(life.last, life.map, life.size);
    bool done = overtaken ? !overtake(&life, take_over) : live_once(&life, take_over, steps);
    if (!overtaken) {
        CHECK_CODE(site_open(&site, &store_reading, &store), 0);
        CHECK_CODE(get(store, "c0", KEY("bystander")), 0);
        shk_store_close(store);
        CHECK_CODE(site_open(&site, &store_writing, &store), 0);
        test_keep_set(store->info.semaphore_id);
        CHECK_CODE(get(store, "c0", KEY("bystander")), 0);
        check_made(store);
    }
    CHECK_EQUAL(sets_in_use(), sets);
    site_free(&site);
    free(life.last);
    test_kept->count = kept;
    return done;
}

size_t step_takeover(size_t *killed)
{
    size_t points = 0, steps = 0;
    while (!take_over_once(points + 1, false, &steps))
        points++;
    for (size_t point = 1; point <= points; point++)
        CHECK(!take_over_once(point, true, &steps));
    CHECK(points >= 4); /* the realm, the set, its constants, its name */
    *killed += points;
    printf("%-25s %6zu instructions, %4zu images, %zu kills\n", "take over", steps, points, points);
    return points;
}

/* ------------------------------------------------------------- destruction -- */

static void ready_to_destroy(void *context)
{
    struct life *life = context;
    struct site site = {life->map, life->size, life->store->info.id, -1};
    CHECK_CODE(site_open(&site, &store_writing, &life->store), 0);
    CHECK_CODE(recover(life->store), 0);
}

static int destroy(void *context)
{
    const struct life *life = context;
    return shk_store_destroy(life->store);
}

static void check_wiped(const unsigned char *bytes, size_t size)
{
    if (memmem(bytes, size, "KEY-of", 6) || memmem(bytes, size, "bystander", 9))
        FAIL("destroy: a key is still in memory");
}

/* A removed store, opened for writing: what is left to be done is done. */
static int removed_code(void)
{
    return medium_is_memory ? SHK_E_REMOVED : -ENOENT;
}

/* An image in a place of its own, whose set is gone. */
static void examine_destruction(const unsigned char *image, size_t size, bool *was_removed)
{
    const struct shk_header_shm *header = (const struct shk_header_shm *)image;
    bool removed = header->state == SHK_STATE_REMOVED;
    uint32_t kept = test_kept->count;
    struct site site = site_new(size);
    shk_store *store;
    memcpy(site.map, image, size);
    if (*was_removed && !removed)
        FAIL("destroy: a removed store lives again");
    *was_removed = removed;
    if (removed) {
        CHECK_CODE(site_open(&site, &store_reading, &store), SHK_E_REMOVED);
        CHECK_CODE(site_open(&site, &store_writing, &store), removed_code());
        check_wiped(site.map, size);
        CHECK_CODE(site_open(&site, &store_reading, &store), removed_code());
    } else {
        CHECK_CODE(site_open(&site, &store_reading, &store), 0);
        CHECK_CODE(get(store, "c0", KEY("bystander")), 0);
        CHECK_SOUND(store);
        shk_store_close(store);
    }
    site_free(&site);
    test_kept->count = kept;
}

static shk_store *make_doomed(void)
{
    shk_store *store = site_make_store();
    prepare_bystanders(store);
    CHECK_CODE(put(store, "target", KEY("target-old")), 0);
    CHECK_CODE(rotate(store, "target", KEY("target-new"), HOUR), 0);
    return store;
}

/* One destroyer, stepped to its end or killed: true if it came to its end. */
static bool destroy_once(struct life *life, size_t *steps)
{
    bool done;
    life->store = make_doomed();
    struct shk_store *mine = life->store;
    life->map = mine->base;
    memcpy(life->last, life->map, life->size);
    life->seen = 0;
    pid_t pid = stepping_start(ready_to_destroy, destroy, life);
    memcpy(life->last, life->map, life->size);
    *steps = stepping_run(pid, look_for_change, life, &done);
    if (done)
        stepping_finish(pid);
    else
        stepping_kill(pid);
    return done;
}

/* The store itself, whose destroyer is dead. */
static void examine_doomed(struct life *life)
{
    shk_store *store = life->store, *again;
    struct site site = {life->map, life->size, store->info.id, -1};
    struct shmid_ds segment;
    if (shk__header(store)->state == SHK_STATE_LIVE) {
        CHECK_CODE(put(store, "next", "next"), 0);
        CHECK_SOUND(store);
        CHECK_CODE(shk_store_destroy(store), 0);
    } else {
        CHECK_CODE(site_open(&site, &store_writing, &again), removed_code());
        CHECK_CODE(put(store, "next", "next"), SHK_E_REMOVED);
    }
    check_wiped(life->map, life->size);
    CHECK(medium_is_memory || shmctl(site.id, IPC_STAT, &segment) < 0 ||
          segment.shm_perm.mode & SHM_DEST);
}

static void leave(struct life *life)
{
    struct site site = {life->map, life->size, -1, -1};
    shk_store_close(life->store);
    if (medium_is_memory)
        site_free(&site);
}

size_t step_destruction(size_t kills_every, size_t *killed)
{
    int sets = sets_in_use();
    shk_store *model = store_make(CAPACITY, 0, 0);
    size_t size = model->geometry.total_size, steps, kills = 0;
    store_end(model);
    struct images images = {.size = size};
    unsigned char *last = malloc(size);
    CHECK(last);
    struct life life = {.last = last, .size = size, .images = &images};
    CHECK(destroy_once(&life, &steps));
    check_wiped(life.map, size);
    leave(&life);
    bool was_removed = false;
    for (size_t i = 0; i < images.count; i++)
        examine_destruction(images.bytes + i * size, size, &was_removed);
    CHECK(was_removed && images.count > 100);
    CHECK_EQUAL(sets_in_use(), sets);
    for (size_t point = 1; kills_every && point <= images.count; point += kills_every) {
        size_t ignored;
        uint32_t kept = test_kept->count;
        life = (struct life){.last = last, .size = size, .stop_after = point};
        bool done = destroy_once(&life, &ignored);
        if (!done)
            examine_doomed(&life);
        leave(&life);
        CHECK_EQUAL(sets_in_use(), sets);
        kills += !done;
        test_kept->count = kept;
    }
    *killed += kills;
    printf("%-25s %6zu instructions, %4zu images, %zu kills\n", "destroy", steps, images.count, kills);
    free(images.bytes);
    free(last);
    return images.count;
}
