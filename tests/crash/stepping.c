/* stepping.c: ptrace(2). */
#include "stepping.h"

#include <sys/ptrace.h>

/* Both ends of the work are marked by SIGSTOP; signals in between are passed on. */
static int wait_for_stop(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, __WALL) == pid);
    if (!WIFSTOPPED(status))
        FAIL("the stepped child ended with wait status %#x", (unsigned)status);
    return WSTOPSIG(status);
}

pid_t stepping_start(void (*ready)(void *), int (*work)(void *), void *context)
{
    pid_t pid = test_fork();
    if (pid == 0) {
        ready(context);
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        CHECK(raise(SIGSTOP) == 0);
        int rc = work(context);
        (void)raise(SIGSTOP);
        _exit(rc < 0);
    }
    CHECK_EQUAL(wait_for_stop(pid), SIGSTOP);
    return pid;
}

size_t stepping_run(pid_t pid, bool (*each)(void *), void *context, bool *done)
{
    size_t steps = 0;
    long passed_on = 0;
    *done = false;
    for (;;) {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, passed_on) == 0);
        int signal_number = wait_for_stop(pid);
        steps++;
        *done = signal_number == SIGSTOP;
        if (each(context) || *done)
            return steps;
        passed_on = signal_number == SIGTRAP ? 0 : signal_number;
    }
}

void stepping_finish(pid_t pid)
{
    CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
    test_join(pid);
}

void stepping_kill(pid_t pid)
{
    test_kill(pid);
}

void images_keep(struct images *images, const unsigned char *image)
{
    if (images->count == images->room) {
        images->room = images->room ? 2 * images->room : 64;
        images->bytes = realloc(images->bytes, images->room * images->size);
        CHECK(images->bytes);
    }
    memcpy(images->bytes + images->count++ * images->size, image, images->size);
}
