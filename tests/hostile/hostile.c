/* hostile.c: hostile processes write into a store's segment, at random and with aim, beside
 * readers, writers and openers of the library under AddressSanitizer.
 *
 *   hostile [--seconds n] [--seed n] [--round n] [--bound n]
 *
 * No victim may crash, access what is not its own, wait longer than `bound` seconds in one
 * call or get an answer that only its own fault or the system's could explain; nobody else's
 * semaphores, segments and queues may be touched. A failure names the seed and the round:
 * --seed with --round repeats that round, as far as the kernel's timing allows.
 * Exit: 0 nothing found, 1 a fault, 2 usage.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "arena.h"
#include "attack.h"
#include "victim.h"

void __sanitizer_print_stack_trace(void);
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0:handle_abort=1:exitcode=99";
}

static const char *const names[ROLES] = {"reader", "writer", "opener", "keeper", "hostile 0",
                                         "hostile 1"};
static pid_t pids[ROLES];
static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* ------------------------------------------------------------------ report -- */

static void tell_changes(void)
{
    for (unsigned i = 0; i < HOSTILES; i++) {
        const uint64_t count = arena->hostile[i].changes;
        for (uint64_t at = count > 16 ? count - 16 : 0; at < count; at++) {
            const struct change *c = &arena->hostile[i].last[at % LOG_SIZE];
            (void)fprintf(stderr, "  %s, change %llu: %s, %u bytes at %llu: %#llx, before %#llx (%s)\n",
                          names[HOSTILE + i], (unsigned long long)at, c->aim, c->width,
                          (unsigned long long)c->at, (unsigned long long)c->value,
                          (unsigned long long)c->before, c->mode);
        }
    }
}

static void tell_failure(enum role who, const char *how)
{
    const char *call = arena->doing[who].call;
    const struct shk__geometry *g = &arena->geometry;
    (void)fprintf(stderr,
                  "FAILED: %s %s, in %s; --seed %llu --round %u\n"
                  "  capacity %u, id_size %u, key_size %u; ring %llu, buckets %llu, queue %llu, "
                  "records %llu, size %llu\n",
                  names[who], how, call ? call : "no call", (unsigned long long)arena->seed,
                  arena->round, arena->capacity, arena->id_size, arena->key_size,
                  (unsigned long long)g->ring_offset, (unsigned long long)g->buckets_offset,
                  (unsigned long long)g->queue_offset, (unsigned long long)g->records_offset,
                  (unsigned long long)g->total_size);
    tell_changes();
}

static void tell_success(double seconds)
{
    printf("{\"seed\": %llu, \"seconds\": %.0f, \"rounds\": %llu, \"changes\": %llu",
           (unsigned long long)arena->seed, seconds, (unsigned long long)arena->rounds,
           (unsigned long long)(arena->hostile[0].changes + arena->hostile[1].changes));
    for (enum role r = 0; r < KEEPER; r++)
        printf(", \"%s\": {\"calls\": %llu, \"fine\": %llu, \"refused\": %llu, \"corrupt\": %llu, "
               "\"timeout\": %llu}",
               names[r], (unsigned long long)arena->doing[r].calls,
               (unsigned long long)arena->doing[r].answers[0],
               (unsigned long long)arena->doing[r].answers[1],
               (unsigned long long)arena->doing[r].answers[2],
               (unsigned long long)arena->doing[r].answers[3]);
    printf("}\n");
}

/* --------------------------------------------------------------- processes -- */

/* What a stuck victim is asked to do. */
static void show_stack(int number)
{
    (void)number;
    (void)fprintf(stderr, "%s hangs in %s:\n", names[role],
                  arena->doing[role].call ? arena->doing[role].call : "no call");
    __sanitizer_print_stack_trace();
    _exit(98);
}

static void start(enum role who, uint64_t duration, uint32_t round, bool only)
{
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        pids[who] = pid;
        return;
    }
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGUSR1, show_stack);
    role = who;
    if (who == KEEPER)
        keeper_run(duration, round, only);
    else if (who >= HOSTILE)
        attack_run();
    else
        victim_run();
    exit(0);
}

static bool has_failed(enum role who, int status)
{
    char how[64];
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    if (WIFSIGNALED(status))
        (void)snprintf(how, sizeof how, "was killed by signal %d", WTERMSIG(status));
    else
        (void)snprintf(how, sizeof how, "ended with exit code %d", WEXITSTATUS(status));
    tell_failure(who, how);
    return true;
}

/* True: something was found. */
static bool reap(void)
{
    int status;
    for (enum role who = 0; who < ROLES; who++)
        if (pids[who] && waitpid(pids[who], &status, WNOHANG) == pids[who]) {
            pids[who] = 0;
            if (has_failed(who, status))
                return true;
        }
    return false;
}

static bool somebody_hangs(uint64_t bound)
{
    uint64_t now = shk__monotonic();
    for (enum role who = 0; who < ROLES; who++) {
        const char *call = shk__load(&arena->doing[who].call);
        uint64_t since = shk__load(&arena->doing[who].since);
        if (!call || !pids[who] || now < since || now - since < bound)
            continue;
        tell_failure(who, "hangs");
        (void)kill(pids[who], SIGUSR1);
        sleep(2);
        return true;
    }
    return false;
}

static bool watch_over(uint64_t bound)
{
    for (bool running = true; running;) {
        struct timespec t = shk__timespec(10 * SHK_MILLISECOND);
        nanosleep(&t, NULL);
        if (interrupted || reap() || somebody_hangs(bound))
            return true;
        running = false;
        for (enum role who = 0; who < ROLES; who++)
            running |= pids[who] != 0;
    }
    return !decoys_are_untouched();
}

static void end_all(void)
{
    for (enum role who = 0; who < ROLES; who++)
        if (pids[who])
            (void)kill(pids[who], SIGKILL);
    for (enum role who = 0; who < ROLES; who++)
        if (pids[who])
            (void)waitpid(pids[who], NULL, 0);
}

static uint64_t number_after(char **argument)
{
    char *end = NULL;
    uint64_t value = argument[1] ? strtoull(argument[1], &end, 0) : 0;
    if (!end || *end || end == argument[1]) {
        (void)fprintf(stderr, "%s takes a number\n", argument[0]);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    uint64_t seconds = 30, seed, round = 0, bound = 30;
    bool only = false;
    CHECK(getrandom(&seed, sizeof seed, 0) == sizeof seed);
    seed %= 1000000;
    for (int i = 1; i < argc; i += 2) {
        uint64_t value = number_after(argv + i);
        if (strcmp(argv[i], "--seconds") == 0)
            seconds = value;
        else if (strcmp(argv[i], "--seed") == 0)
            seed = value;
        else if (strcmp(argv[i], "--bound") == 0)
            bound = value;
        else if (strcmp(argv[i], "--round") == 0) {
            round = value;
            only = true;
        } else {
            (void)fprintf(stderr, "usage: hostile [--seconds n] [--seed n] [--round n] [--bound n]\n");
            return 2;
        }
    }
    (void)unshare(CLONE_NEWIPC); /* root alone may */
    arena_make(seed);
    decoys_make();
    (void)signal(SIGINT, interrupt);
    (void)signal(SIGTERM, interrupt);
    uint64_t began = shk__monotonic();
    for (enum role who = 0; who < ROLES; who++)
        start(who, seconds * SHK_SECOND, (uint32_t)round, only);
    bool found = watch_over(bound * SHK_SECOND);
    end_all();
    arena_clean(true);
    if (!found)
        tell_success((double)(shk__monotonic() - began) / 1e9);
    return found;
}
