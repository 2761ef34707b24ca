/* wipe.h: zeroing private memory that held a key, inline: a call costs more than the
 * few words of a usual key.
 *
 * The empty assembly claims to read the zeros, so no compiler drops their stores.
 */
#ifndef SHK_WIPE_H
#define SHK_WIPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whole cache lines of 64 bytes. */
static inline void shk__wipe_lines(void *at, size_t lines)
{
    for (unsigned char *line = at; lines > 0; lines--, line += 64) {
        memset(line, 0, 64);
        __asm__ volatile("" : : "r"(line) : "memory");
    }
}

#endif
