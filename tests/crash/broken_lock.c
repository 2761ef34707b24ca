/* broken_lock.c: lock.c under other names, with another test of death. */
#include "broken_lock.h"

#include <signal.h>
#include <sys/sem.h>

static int look_at_pid(const struct shk__set *set, uint32_t token)
{
    int pid = semctl(set->id, (int)token, GETPID);
    return pid <= 0 || kill(pid, 0) < 0;
}

/* Nothing was claimed, so nothing is given back; the end of the process returns its own. */
static void keep(const struct shk__set *set, uint32_t token)
{
    (void)set;
    (void)token;
}

void broken_thread_on_wait(int (*hook)(void *context), void *context);
void broken_lock_close(struct shk__lock *lock);
int broken_hook_run(void);
bool broken_lock_clear_nobody(struct shk__lock *lock);

#define shk_thread_on_wait broken_thread_on_wait
#define shk__hook_run broken_hook_run
#define shk__lock_clear_nobody broken_lock_clear_nobody
#define shk__lock_open broken_lock_open
#define shk__lock_close broken_lock_close
#define shk__lock_acquire broken_lock_acquire
#define shk__lock_release broken_lock_release
#define shk__set_claim look_at_pid
#define shk__set_release keep
#include "lock.c"
