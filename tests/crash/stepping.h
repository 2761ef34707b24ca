/* stepping.h: one process, an instruction at a time.
 *
 * A child gets ready, then works under PTRACE_SINGLESTEP. After each instruction the parent is
 * asked whether to stop there; the child is then as if a signal had come between the two.
 */
#ifndef STEPPING_H
#define STEPPING_H

#include "test.h"

/* The child, stopped between ready() and work(). It ends with exit code 1 if work fails. */
pid_t stepping_start(void (*ready)(void *context), int (*work)(void *context), void *context);

/* Steps until each() says true or the work is done: then *done, and the child stops once more.
 * The instructions. */
size_t stepping_run(pid_t pid, bool (*each)(void *context), void *context, bool *done);

/* Lets it go to its end, which must be a success. */
void stepping_finish(pid_t pid);
/* SIGKILL, right where it is. */
void stepping_kill(pid_t pid);

/* Images, each of `size` bytes. */
struct images {
    unsigned char *bytes;
    size_t count, room, size;
};
void images_keep(struct images *images, const unsigned char *image);

#endif
