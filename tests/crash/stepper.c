/* stepper.c: a kill at every instruction that changed a store.
 *
 * Each operation runs under PTRACE_SINGLESTEP. After each instruction its segment is compared
 * with what it was before; each new image is what a SIGKILL there would leave. It goes to the
 * laboratory, in a segment of its own: what a reader sees, recovery, verify(), the next write.
 *   --every N   steps the recovery of every Nth image too: a recovery may be killed as well
 *   --kills N   kills for real, at every Nth of all these points, and examines the very segment
 *   --only NAME one operation
 *   --medium memory  in mappings instead of segments (medium.h)
 * It prints the points, all of which were examined; exit 1 at the first that is wrong.
 */
#define TEST_SECONDS 7200 /* it is one long test */
#include "laboratory.h"
#include "making.h"
#include "stepping.h"

static size_t every = 16, kills_every; /* 0: none */
static const char *only;
static size_t points, crossed, killed;

/* --------------------------------------------------------------- one process -- */

struct run {
    const struct operation *operation; /* NULL: only the recovery */
    const struct stage *stage;
    unsigned char *last;
    struct images *images; /* NULL: count them until */
    size_t seen, stop_after;
    shk_store *store, *target; /* of the child */
};

/* A handle with its token, and without the recovery that a write would begin with. */
static shk_store *take_seat(const struct site *site)
{
    shk_store *store;
    CHECK_CODE(site_open(site, &store_writing, &store), 0);
    CHECK(shk__lock_acquire(&store->lock, SHK_SECOND) >= 0);
    shk__lock_release(&store->lock);
    return store;
}

static void ready(void *context)
{
    struct run *run = context;
    const struct site *sites = run->stage->sites;
    run->store = take_seat(&sites[0]);
    run->target = sites[1].size ? take_seat(&sites[1]) : NULL;
}

static int work(void *context)
{
    struct run *run = context;
    if (!run->operation) {
        int rc = recover(run->store);
        return rc == SHK_E_MOVED ? 0 : rc;
    }
    return run->operation->run(run->store, run->target, run->operation->steps);
}

static bool look_for_change(void *context)
{
    struct run *run = context;
    if (stage_is(run->stage, run->last))
        return false;
    stage_save(run->stage, run->last);
    run->seen++;
    if (run->images)
        images_keep(run->images, run->last);
    return run->seen == run->stop_after;
}

/* Nobody holds it: its owner's death was noticed. */
static void free_lock(const struct stage *stage)
{
    for (int i = 0; i < 2; i++)
        if (stage->sites[i].size)
            ((struct shk_lock_shm *)(stage->sites[i].map + 1024))->word = 0;
}

/* Runs what `run` says on what `start` holds; true if it came to its end. */
static bool step(struct run *run, const unsigned char *start, size_t *steps)
{
    bool done;
    stage_load(run->stage, start);
    free_lock(run->stage);
    run->seen = 0;
    pid_t pid = stepping_start(ready, work, run);
    stage_save(run->stage, run->last);
    *steps = stepping_run(pid, look_for_change, run, &done);
    if (done)
        stepping_finish(pid);
    else
        stepping_kill(pid);
    return done;
}

/* ------------------------------------------------------------- one operation -- */

/* The points that `model` has passed once more, each by SIGKILL, in the store itself. state: what
 * it must be in, exactly or at least. */
static size_t kill_at(const struct laboratory *lab, const struct run *model,
                      const unsigned char *start, unsigned state, bool exactly)
{
    struct laboratory here = *lab;
    size_t done = 0;
    here.stage = *model->stage;
    for (size_t point = 1; kills_every && point <= model->seen; point += kills_every) {
        struct run run = *model;
        unsigned found = state;
        size_t steps;
        run.images = NULL;
        run.stop_after = point;
        if (step(&run, start, &steps))
            break; /* a clock was read that did not change */
        laboratory_examine(&here, &found, exactly);
        done++;
    }
    killed += done;
    return done;
}

/* From one image: each image of its recovery. Real kills in them. */
static size_t cross(const struct laboratory *lab, const struct stage *stage, unsigned char *last,
                    const unsigned char *image, unsigned state)
{
    struct images images = {.size = stage_size(stage)};
    struct run run = {.stage = stage, .last = last, .images = &images};
    size_t steps;
    CHECK(step(&run, image, &steps));
    for (size_t i = 0; i < images.count; i++) {
        stage_load(&lab->stage, images.bytes + i * images.size);
        free_lock(&lab->stage);
        laboratory_examine(lab, &state, true);
    }
    crossed += images.count;
    free(images.bytes);
    return kill_at(lab, &run, image, state, true);
}

static void step_operation(const struct operation *operation)
{
    shk_store *store = site_make_store();
    shk_store *target = operation->moves ? site_make_store() : NULL;
    prepare_bystanders(store);
    operation->prepare(store);
    struct stage stage = stage_of(store, target), mirror = stage_like(&stage);
    struct images images = {.size = stage_size(&stage)};
    unsigned char *base = malloc(images.size), *last = malloc(images.size);
    CHECK(base && last);
    stage_save(&stage, base);
    static struct laboratory lab;
    laboratory_open(&lab, operation, &mirror, base);

    struct run run = {.operation = operation, .stage = &stage, .last = last, .images = &images};
    unsigned state = 0, *states = NULL;
    size_t steps;
    CHECK(step(&run, base, &steps));
    states = calloc(images.count + 1, sizeof *states);
    CHECK(states && images.count > 10);
    for (size_t i = 0; i < images.count; i++) {
        stage_load(&mirror, images.bytes + i * images.size);
        free_lock(&mirror);
        laboratory_examine(&lab, &state, false);
        states[i] = state;
    }
    laboratory_examine_end(&lab, images.bytes + (images.count - 1) * images.size);
    points += images.count;
    printf("%-25s %6zu instructions, %4zu images", operation->name, steps, images.count);
    size_t kills = kill_at(&lab, &run, base, 0, false);
    for (size_t i = 0; i < images.count; i += every)
        kills += cross(&lab, &stage, last, images.bytes + i * images.size, states[i]);
    printf(", %4zu kills\n", kills);
    (void)fflush(stdout);

    free(images.bytes);
    free(states);
    free(base);
    free(last);
    (void)shk_store_destroy(store);
    if (target)
        (void)shk_store_destroy(target);
    shk_store_close(store);
    shk_store_close(target);
    stage_free(&mirror);
    stage_free(&stage);
}

static void every_instruction(void)
{
    for (size_t i = 0; i < operations_count; i++)
        if (!only || strcmp(only, operations[i].name) == 0)
            step_operation(&operations[i]);
    if (!only || strcmp(only, "create") == 0)
        points += step_creation(kills_every, &killed);
    if (!only || strcmp(only, "destroy") == 0)
        points += step_destruction(kills_every, &killed);
    if (medium_is_memory && (!only || strcmp(only, "take over") == 0))
        points += step_takeover(&killed);
    printf("%zu points of operations, all of them; %zu of recoveries, from every %zu. point; "
           "%zu real kills\n",
           points, crossed, every, killed);
    (void)fflush(stdout);
    CHECK(only || points >= 1500);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(every_instruction)};
    cpu_set_t one; /* a step is two switches between two processes */
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--every") == 0)
            every = (size_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--kills") == 0)
            kills_every = (size_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--medium") == 0)
            medium_is_memory = strcmp(argv[i + 1], "memory") == 0;
        else
            FAIL("%s is none of --every, --kills, --only, --medium", argv[i]);
    }
    return TEST_MAIN(1, argv, tests);
}
