/* making.c: the two ends of a store's life. */
#include "making.h"

#include "operations.h"
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

struct life {
    key_t key;                /* of a store to be made */
    shk_store *store;         /* to be destroyed */
    unsigned char *map;       /* NULL: not found yet */
    unsigned char *last;
    size_t size;
    struct images *images;    /* NULL: count them until */
    size_t seen, stop_after;
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
    } else if (memcmp(life->map, life->last, life->size) == 0)
        return false;
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
    return shk_store_open(SHK_CREATE, &address, &shape, &store_writing, &store);
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
    CHECK_SOUND(store);
    CHECK_CODE(put(store, "a", "key"), 0);
    CHECK_CODE(get(store, "a", "key"), 0);
    CHECK_SOUND(store);
    CHECK_CODE(shk_store_destroy(store), 0);
    shk_store_close(store);
    return complete;
}

size_t step_creation(size_t kills_every, size_t *killed)
{
    shk_store *model = store_make(CAPACITY, 0, 0);
    size_t size = model->geometry.total_size, points = 0, steps = 0;
    unsigned char *last = malloc(size);
    bool done = false, was_complete = false;
    CHECK(last);
    store_end(model);
    (void)kills_every;
    for (size_t point = 1; !done; point++) {
        struct life life = {.last = last, .size = size, .stop_after = point};
        int sets = sets_in_use();
        CHECK_CODE(shk_random_key(&life.key), 0);
        memset(last, 0, size);
        pid_t pid = stepping_start(ready_to_create, create, &life);
        steps = stepping_run(pid, look_for_change, &life, &done);
        if (done)
            stepping_finish(pid);
        else
            stepping_kill(pid);
        bool complete = examine_creation(&life);
        if (was_complete && !complete)
            FAIL("create: a complete store was incomplete again, at point %zu", point);
        was_complete = complete;
        CHECK(shmdt(life.map) == 0);
        CHECK(shmget(life.key, 0, 0) < 0);
        CHECK_EQUAL(sets_in_use(), sets);
        points += !done;
        *killed += !done;
        test_kept->count -= 3; /* they are gone; there may be many */
    }
    CHECK(was_complete && points > 10);
    printf("%-25s %6zu instructions, %4zu images, %zu kills\n", "create", steps, points, points);
    free(last);
    return points;
}

/* ------------------------------------------------------------- destruction -- */

static void ready_to_destroy(void *context)
{
    struct life *life = context;
    int id = life->store->info.id;
    CHECK_CODE(shk_store_from_id(id, &store_writing, &life->store), 0);
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

/* An image in a segment of its own, whose set is gone. */
static void examine_destruction(const unsigned char *image, size_t size, bool *was_removed)
{
    const struct shk_header_shm *header = (const struct shk_header_shm *)image;
    bool removed = header->state == SHK_STATE_REMOVED;
    int id = test_keep_segment(shmget(IPC_PRIVATE, size, 0600));
    unsigned char *map = shmat(id, NULL, 0);
    shk_store *store;
    CHECK(map != (void *)-1);
    memcpy(map, image, size);
    if (*was_removed && !removed)
        FAIL("destroy: a removed store lives again");
    *was_removed = removed;
    if (removed) {
        CHECK_CODE(shk_store_from_id(id, &store_reading, &store), SHK_E_REMOVED);
        CHECK_CODE(shk_store_from_id(id, &store_writing, &store), -ENOENT);
        check_wiped(map, size);
        CHECK_CODE(shk_store_from_id(id, &store_reading, &store), -ENOENT);
    } else {
        CHECK_CODE(shk_store_from_id(id, &store_reading, &store), 0);
        CHECK_CODE(get(store, "c0", KEY("bystander")), 0);
        CHECK_SOUND(store);
        shk_store_close(store);
    }
    CHECK(shmdt(map) == 0);
    (void)shmctl(id, IPC_RMID, NULL);
    test_kept->count--;
}

static shk_store *make_doomed(void)
{
    shk_store *store = store_make(CAPACITY, 0, 0);
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
    int id = store->info.id;
    struct shmid_ds segment;
    if (shk__header(store)->state == SHK_STATE_LIVE) {
        CHECK_CODE(put(store, "next", "next"), 0);
        CHECK_SOUND(store);
        CHECK_CODE(shk_store_destroy(store), 0);
    } else {
        int rc = shk_store_from_id(id, &store_writing, &again);
        CHECK(rc == -ENOENT);
        CHECK_CODE(put(store, "next", "next"), SHK_E_REMOVED);
    }
    check_wiped(life->map, life->size);
    CHECK(shmctl(id, IPC_STAT, &segment) < 0 || segment.shm_perm.mode & SHM_DEST);
    shk_store_close(store);
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
    shk_store_close(life.store);
    bool was_removed = false;
    for (size_t i = 0; i < images.count; i++)
        examine_destruction(images.bytes + i * size, size, &was_removed);
    CHECK(was_removed && images.count > 100);
    CHECK_EQUAL(sets_in_use(), sets);
    for (size_t point = 1; kills_every && point <= images.count; point += kills_every) {
        size_t ignored;
        life = (struct life){.last = last, .size = size, .stop_after = point};
        bool done = destroy_once(&life, &ignored);
        if (done)
            shk_store_close(life.store);
        else
            examine_doomed(&life);
        CHECK_EQUAL(sets_in_use(), sets);
        kills += !done;
        test_kept->count -= 2;
    }
    *killed += kills;
    printf("%-25s %6zu instructions, %4zu images, %zu kills\n", "destroy", steps, images.count, kills);
    free(images.bytes);
    free(last);
    return images.count;
}
