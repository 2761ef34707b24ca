/* test.h: what the C tests share: checks, processes, and a promise to leave nothing behind.
 *
 *     static void key_is_kept(void) { CHECK(...); CHECK_CODE(shk_..., SHK_E_FULL); }
 *     static const struct test tests[] = {TEST(key_is_kept), ...};
 *     int main(int argc, char **argv) { return TEST_MAIN(argc, argv, tests); }
 *
 * Each test runs in a process of its own, so it may crash, hang, change its uid or its
 * namespaces. When it ends, in whatever way, all its children are killed and whatever
 * was named to test_keep_* is removed; where it may (root), the program has an IPC
 * namespace of its own besides. Arguments name the tests to run: all, without any.
 * Exit: 0 all passed (SKIP says why one could not run), 1 some failed, 77 all skipped.
 */
#ifndef TEST_H
#define TEST_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shk.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define TEST_TSAN 1
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "atexit_sleep_ms=0"; /* by default each process takes a second to exit */
}
#else
#define TEST_TSAN 0
#endif

#ifndef TEST_SECONDS
#ifndef TEST_SECONDS
#define TEST_SECONDS 120 /* a test that takes longer hangs */
#endif
#endif
#define TEST_SKIPPED 77

struct test {
    const char *name;
    void (*run)(void);
};
#define TEST(function) {#function, function}
#define TEST_MAIN(argc, argv, tests)                                                               \
    test_main((argc), (argv), (tests), sizeof(tests) / sizeof *(tests))

/* ---------------------------------------------------------------- checks -- */

/* One for all files of a program. */
#define TEST_COMMON __attribute__((weak))

TEST_COMMON bool test_is_grouped; /* this process belongs to a test's process group */

/* Ends the whole test: others would wait for this process's next step. */
static _Noreturn inline __attribute__((format(printf, 3, 4))) void
test_fail(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, text);
    if (test_is_grouped)
        (void)kill(0, SIGKILL);
    _exit(1);
}

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) ((condition) ? (void)0 : FAIL("not so: %s (errno %d)", #condition, errno))
#define CHECK_EQUAL(actual, expected)                                                              \
    do {                                                                                           \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected);                \
        if (actual_ != expected_)                                                                  \
            FAIL("%s is %lld, not %lld (%s)", #actual, actual_, expected_, #expected);             \
    } while (0)
/* For what returns 0, a count, -errno or an SHK_E_ code. */
#define CHECK_CODE(call, expected)                                                                 \
    do {                                                                                           \
        int actual_ = (call), expected_ = (expected);                                              \
        if (actual_ != expected_)                                                                  \
            FAIL("%s is %d (%s: %s), not %d (%s)", #call, actual_,                                 \
                 actual_ < 0 ? shk_error_message(actual_) : "success", shk_error_detail(),         \
                 expected_, #expected);                                                            \
    } while (0)
/* Only in the test's own process, not in its children. */
#define SKIP(reason) (fprintf(stderr, "skipped: %s\n", (reason)), exit(TEST_SKIPPED))

/* ----------------------------------------------------------- ids to remove -- */

#define TEST_KEPT_MAX 4096u
struct test_kept {
    uint32_t count;
    struct {
        enum test_kind { TEST_SEGMENT, TEST_SET, TEST_QUEUE } kind;
        int id;
    } ids[TEST_KEPT_MAX];
};
TEST_COMMON struct test_kept *test_kept; /* shared with every child */

/* Memory that later children share, zeroed. */
static inline void *test_shared(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    return pages;
}

static inline int test_keep(enum test_kind kind, int id)
{
    uint32_t place = __atomic_fetch_add(&test_kept->count, 1, __ATOMIC_ACQ_REL);
    CHECK(place < TEST_KEPT_MAX);
    test_kept->ids[place].kind = kind;
    test_kept->ids[place].id = id;
    return id;
}

/* Removes the segment, set or queue when the test ends, if it still exists. Returns id. */
static inline int test_keep_segment(int id)
{
    return test_keep(TEST_SEGMENT, id);
}

static inline int test_keep_set(int id)
{
    return test_keep(TEST_SET, id);
}

static inline int test_keep_queue(int id)
{
    return test_keep(TEST_QUEUE, id);
}

static inline void test_remove_kept(void)
{
    uint32_t count = test_kept->count < TEST_KEPT_MAX ? test_kept->count : TEST_KEPT_MAX;
    for (uint32_t i = 0; i < count; i++)
        (void)(test_kept->ids[i].kind == TEST_SET     ? semctl(test_kept->ids[i].id, 0, IPC_RMID)
               : test_kept->ids[i].kind == TEST_QUEUE ? msgctl(test_kept->ids[i].id, IPC_RMID, NULL)
                                                      : shmctl(test_kept->ids[i].id, IPC_RMID, NULL));
    test_kept->count = 0;
}

/* A private segment that goes with its last process. Its id serves as long as one has it. */
static inline void *test_segment(size_t size, int *id_out)
{
    int id = shmget(IPC_PRIVATE, size, 0600);
    CHECK(id >= 0);
    void *address = shmat(test_keep_segment(id), NULL, 0);
    CHECK(address != (void *)-1);
    CHECK(shmctl(id, IPC_RMID, NULL) == 0);
    if (id_out)
        *id_out = id;
    return address;
}

/* -------------------------------------------------------------- processes -- */

/* A child that dies with the thread that made it. End it by exit(). */
static inline pid_t test_fork(void)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

static inline int test_wait(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, __WALL) < 0)
        CHECK(errno == EINTR);
    return status;
}

/* The child must succeed. */
#define test_join(pid)                                                                             \
    do {                                                                                           \
        int status_ = test_wait(pid);                                                              \
        if (!WIFEXITED(status_) || WEXITSTATUS(status_) != 0)                                      \
            FAIL("child %s ended with wait status %#x", #pid, (unsigned)status_);                  \
    } while (0)

static inline void test_kill(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    (void)test_wait(pid);
}

static inline void test_stop(pid_t pid)
{
    int status;
    CHECK(kill(pid, SIGSTOP) == 0);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
}

static inline void test_sleep(unsigned milliseconds)
{
    struct timespec t = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&t, &t) < 0)
        CHECK(errno == EINTR);
}

/* Steps by which processes and threads wait for each other: raised by one, awaited by others. */
static inline void test_step(uint32_t *step)
{
    __atomic_fetch_add(step, 1, __ATOMIC_ACQ_REL);
}

static inline void test_await(const uint32_t *step, uint32_t value)
{
    while (__atomic_load_n(step, __ATOMIC_ACQUIRE) < value)
        test_sleep(1);
}

static inline pthread_t test_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

static inline void test_join_thread(pthread_t thread)
{
    CHECK(pthread_join(thread, NULL) == 0);
}

/* ------------------------------------------------------------------- main -- */

/* Waits for the test's process, kills its process group and reaps all of it. */
static inline int test_watch(pid_t pid, const sigset_t *awaited)
{
    struct timespec left = {.tv_sec = TEST_SECONDS};
    int status = -1;
    int signal_number = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        signal_number = sigtimedwait(awaited, NULL, &left);
        if (signal_number != SIGCHLD) {
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, &status, 0);
            break;
        }
    }
    (void)kill(-pid, SIGKILL);
    while (waitpid(-pid, NULL, __WALL) > 0)
        continue;
    test_remove_kept();
    if (signal_number > 0 && signal_number != SIGCHLD)
        exit(128 + signal_number);
    if (signal_number < 0)
        (void)fprintf(stderr, "it hung for %d s\n", TEST_SECONDS);
    return status;
}

static inline bool test_is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc == 1;
}

static inline int test_main(int argc, char **argv, const struct test *tests, size_t count)
{
    unsigned passed = 0, failed = 0, skipped = 0;
    sigset_t awaited, before;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGINT);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGHUP);
    CHECK(sigprocmask(SIG_BLOCK, &awaited, &before) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0); /* grandchildren are reaped too */
    (void)unshare(CLONE_NEWIPC);
    test_kept = test_shared(sizeof *test_kept);

    for (size_t i = 0; i < count; i++) {
        if (!test_is_wanted(tests[i].name, argc, argv))
            continue;
        pid_t pid = test_fork();
        if (pid == 0) {
            CHECK(setpgid(0, 0) == 0);
            test_is_grouped = true;
            CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
            tests[i].run();
            exit(0);
        }
        (void)setpgid(pid, pid); /* whichever of the two is first */
        int status = test_watch(pid, &awaited);
        bool is_skipped = WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIPPED;
        bool is_passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (!is_skipped && !is_passed)
            (void)fprintf(stderr, "FAILED %s (wait status %#x)\n", tests[i].name, (unsigned)status);
        passed += is_passed;
        skipped += is_skipped;
        failed += !is_passed && !is_skipped;
    }
    if (passed + skipped + failed == 0)
        FAIL("no test has such a name");
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed > 0 ? 1 : passed == 0 ? TEST_SKIPPED : 0;
}

#endif
