/* arena.h: what the processes of a run share beside the store under attack.
 *
 *   keeper   makes the store whole, and proves it     PREPARE
 *   victims  open their handles, undisturbed          OPEN
 *   all      the hostile ones change, the victims call ATTACK, until the keeper ends it
 *
 * A round is these three phases. `turn` counts phases; each process says which one it has
 * finished. The supervisor never touches the store: it watches, and cleans up.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "atomic.h"
#include "clock.h"
#include "layout.h"
#include "lock.h"

enum role { READER, WRITER, OPENER, KEEPER, HOSTILE, ROLES = HOSTILE + 2 };
#define HOSTILES (ROLES - HOSTILE)
enum phase { PREPARE, OPEN, ATTACK, PHASES };

#define STORE_MAX (1u << 18) /* bytes of the largest store */
#define LOG_SIZE 64u
#define MADE_MAX (1u << 15)
#define DECOYS 3u
#define DECOY_VALUES (SHK_WRITERS_MAX + SHK_IDENTITY)

/* One word that a hostile process stored. */
struct change {
    const char *aim, *mode;
    uint64_t at, value, before;
    unsigned width;
};

struct arena {
    uint64_t seed;
    char name[32]; /* of the store under attack */
    uint32_t turn, stop;
    uint32_t round; /* chance follows from it */
    uint64_t rounds; /* done so far */
    uint32_t ended; /* the turn whose attack is over */
    uint32_t finished[ROLES]; /* the turn that each has finished */

    /* The store of this round, as it is when nobody attacks it. */
    int segment, set;
    key_t key;
    uint32_t capacity, id_size, key_size;
    struct shk__geometry geometry;
    unsigned char image[STORE_MAX];

    /* Whoever's value becomes an address reads or writes one of these pages. */
    unsigned char *trap;    /* nobody may touch it */
    unsigned char *witness; /* its bytes must stay; private to each process */

    struct decoys {
        int sets[DECOYS], segment, queue;
        unsigned counts[DECOYS];
    } decoys;

    /* Segments and sets that the library made, to be removed. */
    uint32_t made_count;
    struct made {
        bool is_set;
        int id;
    } made[MADE_MAX];

    /* What each process is doing, for the watchdog. */
    struct {
        const char *call; /* NULL: nothing that must end */
        uint64_t since;
        uint64_t calls, answers[4]; /* fine, a miss or a refusal, corrupt, timeout */
    } doing[ROLES];
    struct {
        uint64_t changes, strikes;
        struct change last[LOG_SIZE];
    } hostile[HOSTILES];
};

extern struct arena *arena;
extern enum role role; /* of this process */

/* Before the first fork. */
void arena_make(uint64_t seed);

/* Waits for the next phase; false: the run is over. */
bool arena_await(enum phase phase);
void arena_finish(void);
static inline bool arena_attacked(void)
{
    return shk__load(&arena->ended) != shk__load(&arena->turn);
}

/* Chance that follows from the seed, the round and the process alone. */
void chance_restart(void);
uint64_t chance(void);
static inline uint32_t below(uint32_t limit)
{
    return (uint32_t)((chance() >> 32) * limit >> 32);
}
static inline bool one_in(uint32_t count)
{
    return below(count) == 0;
}

/* Ends the process, which ends the run. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define CHECK(condition) ((condition) ? (void)0 : fail("not so: %s (%s:%d)", #condition, __FILE__, __LINE__))

void decoys_make(void);
/* Says what changed, if anything. */
bool decoys_are_untouched(void);
/* Removes all that was made since the last time, and (all) the decoys. */
void arena_clean(bool all);

#endif
