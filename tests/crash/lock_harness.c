/* lock_harness.c: kills writers at random and watches that the lock has one owner.
 *
 *     main -- new PID and IPC namespace -- controller, PID 1
 *                                            +-- new PID namespace -- writer, PID 1
 *                                            +-- new PID namespace -- writer, PID 1 ...
 *
 * Each writer is PID 1 of a PID namespace of its own, as the containers of one pod are:
 * all have the same pid and thread id, and none sees another. They loop acquire, critical
 * section, release; the controller kills one after another and replaces it.
 *
 * An overlap of two owners is seen by either of them in any of three ways: the mark that
 * an owner leaves in `inside`, a plain increment that somebody else changed, a pair of
 * counters that differ although nobody died. Mark and counters outlive a killed owner, so
 * one that acquired from the dead accepts them if the mark's writer was condemned.
 *
 * Nothing stays behind, whoever is killed: the controller dies with main, all writers with
 * their controller, and segment and set with the IPC namespace.
 *
 * Exit: 0 the lock held, 1 it did not, 2 bad arguments or a failed call, 77 not root.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "broken_lock.h"
#include "clock.h"
#include "lock.h"

#define WRITERS_MAX 64u
#define PATIENCE (5 * SHK_SECOND) /* a writer without progress for so long is stuck */
#define KILLS_BETWEEN_CALMS 20u   /* in a calm nobody is killed and everybody must progress */

enum phase { STARTING, WAITING, INSIDE, OUTSIDE };

/* The place of a writer. Its current writer alone stores here, but for `incarnation`.
 * Counts go on when the writer is replaced. */
struct place {
    uint32_t incarnation; /* unique, never 0; 0 from just before the kill on */
    uint32_t phase;
    int64_t failure;        /* what acquire reported */
    uint64_t waiting_since; /* monotonic */
    uint64_t longest_wait;
    uint64_t acquisitions;
    uint64_t takeovers;
    uint64_t overlaps;
} __attribute__((aligned(64)));

struct arena {
    uint32_t word __attribute__((aligned(64)));
    pthread_mutex_t mutex __attribute__((aligned(64)));
    uint32_t inside __attribute__((aligned(64))); /* the owner's incarnation */
    uint64_t first, second; /* incremented by a load and a store, one after the other */
    struct place places[WRITERS_MAX];
};

static struct arena *arena;
static struct shk__set set;
static struct {
    unsigned long kills, writers, seed;
    const char *lock;
} options = {.kills = 2000, .writers = 4, .lock = "token"};

static _Noreturn __attribute__((format(printf, 2, 3))) void
quit(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    exit(status);
}

/* xorshift64*, Vigna 2014; its state is never 0. */
static uint64_t random_state;

static void random_start(uint64_t seed)
{
    random_state = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15) | 1;
}

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (random_state * UINT64_C(0x2545F4914F6CDD1D) >> 33) % limit;
}

static void pause_for(uint64_t duration)
{
    struct timespec t = shk__timespec(duration);
    nanosleep(&t, NULL);
}

/* ----------------------------------------------------------------- locks -- */

struct lock_kind {
    const char *name;
    int (*open)(struct shk__lock *lock, uint32_t *word, const uint64_t *progress,
                const struct shk__set *set);
    int (*acquire)(struct shk__lock *lock, uint64_t timeout);
    void (*release)(struct shk__lock *lock);
};

static int robust_open(struct shk__lock *lock, uint32_t *word, const uint64_t *progress,
                       const struct shk__set *unused)
{
    *lock = (struct shk__lock){.word = word, .progress = progress, .set = *unused};
    return 0;
}

static int robust_acquire(struct shk__lock *lock, uint64_t timeout)
{
    (void)lock;
    struct timespec until = shk__timespec(shk__clock(CLOCK_REALTIME) + timeout);
    int rc = pthread_mutex_timedlock(&arena->mutex, &until);
    if (rc != EOWNERDEAD)
        return rc == ETIMEDOUT ? SHK_E_TIMEOUT : -rc;
    pthread_mutex_consistent(&arena->mutex);
    return SHK__FROM_THE_DEAD;
}

static void robust_release(struct shk__lock *lock)
{
    (void)lock;
    pthread_mutex_unlock(&arena->mutex);
}

static void robust_initialise(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&arena->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static const struct lock_kind kinds[] = {
    {"token", shk__lock_open, shk__lock_acquire, shk__lock_release},
    {"broken", broken_lock_open, broken_lock_acquire, broken_lock_release},
    {"robust", robust_open, robust_acquire, robust_release},
};

static const struct lock_kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

/* --------------------------------------------------------------- writers -- */

static bool is_condemned(uint32_t incarnation)
{
    const struct place *place = &arena->places[(incarnation - 1) % options.writers];
    return shk__load(&place->incarnation) != incarnation;
}

/* Long enough to be killed in, and now and then asleep there. */
static void work(void)
{
    for (uint64_t i = random_below(1000); i > 0; i--)
        shk__pause();
    if (random_below(128) == 0)
        pause_for(random_below(SHK_MILLISECOND));
}

/* Returns the number of signs that another owner is here too. */
static unsigned critical_section(struct place *place, uint32_t me, bool from_the_dead)
{
    unsigned signs = 0;
    shk__store(&place->phase, INSIDE);
    uint32_t mark = shk__exchange(&arena->inside, me);
    if (mark != 0 && !(from_the_dead && is_condemned(mark)))
        signs++;
    uint64_t count = shk__load(&arena->first);
    if (shk__load(&arena->second) != count && !from_the_dead)
        signs++;
    work();
    if (shk__load(&arena->first) != count)
        signs++;
    shk__store(&arena->first, count + 1);
    work();
    if (shk__load(&arena->first) != count + 1)
        signs++;
    shk__store(&arena->second, count + 1);
    shk__store(&place->acquisitions, place->acquisitions + 1);
    if (shk__exchange(&arena->inside, 0) != me)
        signs++;
    shk__store(&place->phase, OUTSIDE);
    return signs;
}

static _Noreturn void write_forever(struct place *place, uint32_t me)
{
    const struct lock_kind *kind = find_kind(options.lock);
    struct shk__lock lock;
    int rc = kind->open(&lock, &arena->word, &arena->first, &set);
    while (rc >= 0) {
        uint64_t start = shk__monotonic();
        shk__store(&place->waiting_since, start);
        shk__store(&place->phase, WAITING);
        rc = kind->acquire(&lock, PATIENCE);
        if (rc < 0)
            break;
        uint64_t waited = shk__monotonic() - start;
        if (waited > place->longest_wait)
            shk__store(&place->longest_wait, waited);
        if (rc == SHK__FROM_THE_DEAD)
            shk__store(&place->takeovers, place->takeovers + 1);
        if (critical_section(place, me, rc == SHK__FROM_THE_DEAD) > 0)
            shk__store(&place->overlaps, place->overlaps + 1);
        kind->release(&lock);
        for (uint64_t i = random_below(500); i > 0; i--)
            shk__pause();
    }
    shk__store(&place->failure, rc);
    _exit(1);
}

/* ------------------------------------------------------------ controller -- */

static int own_namespace; /* the controller's PID namespace */
static pid_t pids[WRITERS_MAX];
static uint32_t incarnations;
static struct {
    unsigned long kills, kills_inside, stuck, crashed;
    int64_t failure; /* the last one */
    uint64_t longest_wait;
} seen;

/* fork, and not a raw clone: it tells libc its new thread id and the kernel its robust list. */
static pid_t fork_into_namespace(void)
{
    if (unshare(CLONE_NEWPID) < 0)
        quit(2, "unshare(CLONE_NEWPID): %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        quit(2, "fork: %s", strerror(errno));
    /* Or the next child would join that namespace too. */
    if (pid > 0 && setns(own_namespace, CLONE_NEWPID) < 0)
        quit(2, "setns(CLONE_NEWPID): %s", strerror(errno));
    return pid;
}

static void spawn(unsigned long i)
{
    struct place *place = &arena->places[i];
    uint32_t me = (uint32_t)(incarnations++ * options.writers + i + 1);
    shk__store(&place->phase, STARTING);
    shk__store(&place->incarnation, me);
    pids[i] = fork_into_namespace();
    if (pids[i] == 0) {
        random_start(options.seed + me);
        write_forever(place, me);
    }
}

/* What a writer left, now that nobody stores there. */
static void bury(unsigned long i, int status)
{
    struct place *place = &arena->places[i];
    if (place->failure == SHK_E_TIMEOUT)
        seen.stuck++;
    else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        seen.crashed++;
    if (place->failure != 0)
        seen.failure = place->failure;
    place->failure = 0;
    uint64_t waited = place->phase == WAITING ? shk__monotonic() - place->waiting_since : 0;
    uint64_t longest = waited > place->longest_wait ? waited : place->longest_wait;
    if (longest > seen.longest_wait)
        seen.longest_wait = longest;
}

static void kill_one(unsigned long i)
{
    struct place *place = &arena->places[i];
    int status;
    shk__store(&place->incarnation, 0);
    kill(pids[i], SIGKILL);
    while (waitpid(pids[i], &status, 0) < 0)
        continue;
    bury(i, status);
    seen.kills++;
    seen.kills_inside += place->phase == INSIDE;
}

static void end_all(void)
{
    for (unsigned long i = 0; i < options.writers; i++) {
        kill(pids[i], SIGKILL);
        (void)waitpid(pids[i], NULL, 0);
    }
}

/* Waits until every writer has acquired once more. STUCK and FAILED: one did not, or
 * ended of itself. */
enum calm { CALM, STUCK, FAILED };
static enum calm calm(void)
{
    uint64_t before[WRITERS_MAX];
    uint64_t deadline = shk__monotonic() + PATIENCE;
    for (unsigned long i = 0; i < options.writers; i++)
        before[i] = shk__load(&arena->places[i].acquisitions);
    for (unsigned long i = 0; i < options.writers;) {
        int status;
        if (waitpid(pids[i], &status, WNOHANG) > 0) {
            bury(i, status);
            spawn(i);
            return FAILED;
        }
        if (shk__load(&arena->places[i].acquisitions) != before[i]) {
            i++;
        } else if (shk__monotonic() > deadline) {
            seen.stuck++;
            return STUCK;
        } else {
            pause_for(SHK_MILLISECOND / 4);
        }
    }
    return CALM;
}

static int report(void)
{
    uint64_t acquisitions = 0, takeovers = 0, overlaps = 0;
    for (unsigned long i = 0; i < options.writers; i++) {
        acquisitions += arena->places[i].acquisitions;
        takeovers += arena->places[i].takeovers;
        overlaps += arena->places[i].overlaps;
    }
    /* A killed owner may have incremented without counting itself, never the reverse. */
    uint64_t lost = acquisitions > arena->first ? acquisitions - arena->first : 0;
    bool held = overlaps == 0 && lost == 0 && seen.stuck == 0 && seen.crashed == 0 &&
                seen.kills >= options.kills && takeovers > 0;
    if (seen.failure != 0)
        printf("the last writer that failed: %s\n", shk_error_message((int)seen.failure));
    printf("{\"lock\": \"%s\", \"seed\": %lu, \"writers\": %lu, \"kills\": %lu, "
           "\"kills_inside\": %lu, \"takeovers\": %llu, \"acquisitions\": %llu, "
           "\"two_owners\": %llu, \"lost_updates\": %llu, \"longest_wait_ms\": %.1f, "
           "\"stuck\": %lu, \"crashed\": %lu, \"held\": %s}\n",
           options.lock, options.seed, options.writers, seen.kills, seen.kills_inside,
           (unsigned long long)takeovers, (unsigned long long)acquisitions,
           (unsigned long long)overlaps, (unsigned long long)lost,
           (double)seen.longest_wait / 1e6, seen.stuck, seen.crashed, held ? "true" : "false");
    return held ? 0 : 1;
}

static void make_arena(void)
{
    uint8_t store_id[16];
    int id = shmget(IPC_PRIVATE, sizeof *arena, 0600), set_id;
    arena = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
    if (arena == (void *)-1)
        quit(2, "a segment of %zu bytes: %s", sizeof *arena, strerror(errno));
    if (getrandom(store_id, sizeof store_id, 0) != sizeof store_id)
        quit(2, "getrandom: %s", strerror(errno));
    int rc = shk__set_create_keyed(store_id, 0600, &set_id);
    if (rc == 0) {
        shk__set_describe(&set, set_id, store_id, -1);
        rc = shk__set_initialise(&set);
    }
    if (rc < 0)
        quit(2, "%s: %s", shk_error_message(rc), shk_error_detail());
    robust_initialise();
}

static enum calm replace_mutex(void)
{
    end_all();
    robust_initialise();
    arena->inside = 0;
    arena->second = arena->first;
    for (unsigned long i = 0; i < options.writers; i++) {
        arena->places[i].failure = 0;
        spawn(i);
    }
    return CALM;
}

static int control(void)
{
    own_namespace = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (own_namespace < 0)
        quit(2, "/proc/self/ns/pid: %s", strerror(errno));
    make_arena();
    random_start(options.seed);
    for (unsigned long i = 0; i < options.writers; i++)
        spawn(i);
    for (;;) {
        enum calm state = calm();
        /* After some overlaps the robust mutex is unusable for ever: count on with a new one. */
        if (state == FAILED && strcmp(options.lock, "robust") == 0)
            state = replace_mutex();
        if (state != CALM || seen.kills >= options.kills)
            break;
        for (unsigned i = 0; i < KILLS_BETWEEN_CALMS && seen.kills < options.kills; i++) {
            /* Often at once, so that heirs are killed while they take over. */
            if (random_below(4) != 0)
                pause_for(random_below(4 * SHK_MILLISECOND));
            unsigned long victim = (unsigned long)random_below(options.writers);
            kill_one(victim);
            spawn(victim);
        }
    }
    end_all();
    return report();
}

/* ------------------------------------------------------------------ main -- */

static unsigned long parse(const char *text, unsigned long low, unsigned long high)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < low || value > high)
        quit(2, "%s is not a number from %lu to %lu", text, low, high);
    return value;
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {{"kills", required_argument, NULL, 'k'},
                                          {"writers", required_argument, NULL, 'w'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"lock", required_argument, NULL, 'l'},
                                          {0}};
    options.seed = (unsigned long)shk__clock(CLOCK_REALTIME) % 1000000;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) >= 0;)
        switch (c) {
        case 'k':
            options.kills = parse(optarg, 1, 100000000);
            break;
        case 'w':
            options.writers = parse(optarg, 2, WRITERS_MAX);
            break;
        case 's':
            options.seed = parse(optarg, 0, UINT32_MAX);
            break;
        case 'l':
            options.lock = optarg;
            if (!find_kind(optarg))
                quit(2, "--lock is %s; it must be token, broken or robust", optarg);
            break;
        default:
            quit(2, "usage: %s [--kills N] [--writers N] [--seed N] [--lock token|broken|robust]",
                 argv[0]);
        }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    printf("seed %lu: %lu kills among %lu writers, lock %s\n", options.seed, options.kills,
           options.writers, options.lock);
    (void)fflush(stdout);

    int alive[2]; /* only main has the writing end */
    if (pipe(alive) < 0)
        quit(2, "pipe: %s", strerror(errno));
    if (unshare(CLONE_NEWPID | CLONE_NEWIPC) < 0)
        quit(errno == EPERM ? 77 : 2,
             "unshare(CLONE_NEWPID | CLONE_NEWIPC): %s; it needs root (CAP_SYS_ADMIN), for each "
             "writer gets a PID namespace of its own",
             strerror(errno));
    pid_t controller = fork();
    if (controller < 0)
        quit(2, "fork: %s", strerror(errno));
    if (controller == 0) {
        close(alive[1]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct pollfd main_end = {.fd = alive[0], .events = POLLIN};
        return poll(&main_end, 1, 0) == 0 ? control() : 2;
    }
    int status;
    while (waitpid(controller, &status, 0) < 0)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}
