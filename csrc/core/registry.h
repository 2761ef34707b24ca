/* registry.h: the tokens that this program image holds or tries to take.
 *
 * It keeps the threads of one process from taking one token twice, and tells what
 * the kernel can't: undo survives exec, the image's memory does not: a token whose last operation
 * was our own pid's but which is not listed here was taken by the image before
 * the exec. A token is listed before it is taken and until after it was given
 * back. The list lives in memory that fork wipes, so a child, made by fork or
 * by a raw clone, lists nothing, and finds the list's mutex free.
 */
#ifndef SHK_REGISTRY_H
#define SHK_REGISTRY_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed private pages that a forked child finds zeroed again; NULL and errno. */
void *shk__wiped_pages_new(size_t size);
void shk__wiped_pages_free(void *pages, size_t size);

/* 1: added. 0: it was listed already. -ENOSPC: the list is full (2,047 tokens). */
int shk__registry_add(int set, uint32_t token);
void shk__registry_remove(int set, uint32_t token);

#endif
