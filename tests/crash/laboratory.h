/* laboratory.h: what a segment has to be like, whenever its writer was killed.
 *
 * A stage is where it lies: the place of the store, and of the one it is copied to. For each
 * number of effects that an operation can have had, the laboratory knows what readers see and
 * which keys are in memory. An image is examined:
 *   - a fresh read-only handle sees one of those states, and none that lies before what an
 *     earlier image has shown; verify() through it is clean, journal and all;
 *   - a fresh writable handle recovers: verify() clean, the state as the reader saw it, no key
 *     in memory that this state does not have, and the next writes work.
 */
#ifndef LABORATORY_H
#define LABORATORY_H

#include "medium.h"

struct stage {
    struct site sites[2]; /* [1]: there may be none */
};
/* Of a store and its target (may be NULL): the stage they are, and one like it. */
struct stage stage_of(const shk_store *store, const shk_store *target);
struct stage stage_like(const struct stage *other);
void stage_free(struct stage *stage);
static inline size_t stage_size(const struct stage *stage)
{
    return stage->sites[0].size + stage->sites[1].size;
}
void stage_load(const struct stage *stage, const unsigned char *image);
void stage_save(const struct stage *stage, unsigned char *image);
bool stage_is(const struct stage *stage, const unsigned char *image);

#define STEPS_MAX 16u

/* What all clients look like to a reader. */
struct view {
    bool moved;
    char lines[CLIENTS][160];
};

struct laboratory {
    const struct operation *operation;
    struct stage stage;
    const unsigned char *base;
    struct view views[STEPS_MAX + 1];
    bool has_key[STEPS_MAX + 1][KEYS];
};
/* Runs 0 to all steps of the operation on base, in the stage. */
void laboratory_open(struct laboratory *lab, const struct operation *operation,
                     const struct stage *stage, const unsigned char *base);
/* What is on the stage now. *state: what the images before it have shown, and now this one.
 * exactly: it must be that. */
void laboratory_examine(const struct laboratory *lab, unsigned *state, bool exactly);
/* The operation has returned: nothing is left to be done. */
void laboratory_examine_end(const struct laboratory *lab, const unsigned char *image);

#endif
