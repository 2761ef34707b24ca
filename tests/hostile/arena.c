/* arena.c: turns, chance, decoys, and what has to be removed. */
#include "arena.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <time.h>

struct arena *arena;
enum role role;

#define WITNESS 0x5A

void fail(const char *format, ...)
{
    static const char *const names[] = {"reader", "writer", "opener", "keeper", "hostile 0",
                                        "hostile 1"};
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "%s: %s\n", names[role], text);
    _exit(1);
}

static unsigned char *pages(size_t size, int protection, int flags)
{
    void *made = mmap(NULL, size, protection, flags | MAP_ANONYMOUS, -1, 0);
    CHECK(made != MAP_FAILED);
    return made;
}

void arena_make(uint64_t seed)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    arena = (struct arena *)pages(sizeof *arena, PROT_READ | PROT_WRITE, MAP_SHARED);
    arena->seed = seed;
    (void)snprintf(arena->name, sizeof arena->name, "attacked-%d", (int)getpid());
    arena->segment = arena->set = -1;
    arena->trap = pages(page, PROT_NONE, MAP_PRIVATE);
    arena->witness = pages(page, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    memset(arena->witness, WITNESS, page);
}

/* ------------------------------------------------------------------- turns -- */

static void doze(void)
{
    struct timespec t = shk__timespec(SHK_MILLISECOND / 5);
    nanosleep(&t, NULL);
}

bool arena_await(enum phase phase)
{
    uint32_t turn;
    while ((turn = shk__load(&arena->turn)) % PHASES != phase ||
           shk__load(&arena->finished[role]) == turn) {
        if (shk__load(&arena->stop))
            return false;
        doze();
    }
    return true;
}

void arena_finish(void)
{
    for (size_t i = 0; i < (size_t)sysconf(_SC_PAGESIZE); i++)
        CHECK(arena->witness[i] == WITNESS);
    shk__store(&arena->finished[role], shk__load(&arena->turn));
}

/* ------------------------------------------------------------------ chance -- */

static uint64_t chance_state;

void chance_restart(void)
{
    chance_state = arena->seed * UINT64_C(0x9E3779B97F4A7C15) + arena->round * UINT64_C(64) + (unsigned)role;
}

uint64_t chance(void) /* splitmix64 */
{
    uint64_t z = chance_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* ------------------------------------------------------------------ decoys -- */

union semun { /* semctl(2): the caller defines it */
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

static unsigned short decoy_value(unsigned set, unsigned at)
{
    return (unsigned short)(set == 1 ? 0 : set == 0 ? at % 3 : 7);
}

/* As large as a token set, of small values and of zeros; and one of two semaphores. */
void decoys_make(void)
{
    static const unsigned counts[DECOYS] = {DECOY_VALUES, DECOY_VALUES, 2};
    struct decoys *d = &arena->decoys;
    d->segment = d->queue = d->sets[0] = d->sets[1] = d->sets[2] = -1;
    for (unsigned i = 0; i < DECOYS; i++) {
        unsigned short values[DECOY_VALUES];
        d->counts[i] = counts[i];
        d->sets[i] = semget(IPC_PRIVATE, (int)counts[i], 0600);
        for (unsigned at = 0; at < counts[i]; at++)
            values[at] = decoy_value(i, at);
        CHECK(d->sets[i] >= 0 &&
              semctl(d->sets[i], 0, SETALL, (union semun){.array = values}) == 0);
    }
    d->segment = shmget(IPC_PRIVATE, 4096, 0600);
    d->queue = msgget(IPC_PRIVATE, 0600);
    CHECK(d->segment >= 0 && d->queue >= 0);
}

static bool set_is_untouched(unsigned number)
{
    const int id = arena->decoys.sets[number];
    unsigned short values[DECOY_VALUES];
    struct semid_ds about;
    if (semctl(id, 0, IPC_STAT, (union semun){.buf = &about}) != 0 || about.sem_otime != 0 ||
        semctl(id, 0, GETALL, (union semun){.array = values}) != 0)
        return false;
    for (unsigned at = 0; at < arena->decoys.counts[number]; at++)
        if (values[at] != decoy_value(number, at))
            return false;
    return true;
}

bool decoys_are_untouched(void)
{
    const struct decoys *d = &arena->decoys;
    struct shmid_ds segment;
    struct msqid_ds queue;
    for (unsigned i = 0; i < DECOYS; i++)
        if (!set_is_untouched(i)) {
            (void)fprintf(stderr, "semaphore set %d of somebody else was touched\n", d->sets[i]);
            return false;
        }
    if (shmctl(d->segment, IPC_STAT, &segment) != 0 || segment.shm_atime != 0 ||
        msgctl(d->queue, IPC_STAT, &queue) != 0 || queue.msg_stime != 0 || queue.msg_rtime != 0) {
        (void)fprintf(stderr, "somebody else's segment or queue was touched\n");
        return false;
    }
    return true;
}

void arena_clean(bool all)
{
    struct decoys *d = &arena->decoys;
    uint32_t count = shk__load(&arena->made_count);
    for (uint32_t i = 0; i < count && i < MADE_MAX; i++)
        (void)(arena->made[i].is_set ? semctl(arena->made[i].id, 0, IPC_RMID)
                                     : shmctl(arena->made[i].id, IPC_RMID, NULL));
    shk__store(&arena->made_count, 0);
    if (!all)
        return;
    for (unsigned i = 0; i < DECOYS; i++)
        (void)semctl(d->sets[i], 0, IPC_RMID);
    (void)shmctl(d->segment, IPC_RMID, NULL);
    (void)msgctl(d->queue, IPC_RMID, NULL);
}
