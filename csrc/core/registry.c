/* registry.c: a short list in pages that fork wipes. */
#include "registry.h"
#include "shk.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

#define TOKENS 2047

struct registry {
    pthread_mutex_t mutex; /* all zeros is an unlocked mutex, in glibc and in musl */
    uint64_t tokens[TOKENS]; /* set : 32 | token + 1 : 32; 0 is free */
};

/* Published once by CAS, never freed. A program may hold several copies of this library
 * (libshmkey.so beside pyshmkey), each of which would take the others' tokens for what an
 * exec left. So they share the pointer: a unique symbol is bound, by glibc, to the first
 * copy's, even below RTLD_LOCAL. The number is that of the struct's layout. */
extern SHK_API struct registry *shk__registry_1;
__asm__(".pushsection .bss\n"
        ".balign 8\n"
        ".globl shk__registry_1\n"
        ".type shk__registry_1, %gnu_unique_object\n"
        ".size shk__registry_1, 8\n"
        "shk__registry_1: .zero 8\n"
        ".popsection");

void *shk__wiped_pages_new(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    if (madvise(pages, size, MADV_WIPEONFORK) < 0) {
        munmap(pages, size);
        return NULL;
    }
    return pages;
}

void shk__wiped_pages_free(void *pages, size_t size)
{
    munmap(pages, size);
}

static struct registry *get(void)
{
    struct registry *seen = __atomic_load_n(&shk__registry_1, __ATOMIC_ACQUIRE);
    if (seen)
        return seen;
    struct registry *made = shk__wiped_pages_new(sizeof *made);
    if (!made)
        return NULL;
    if (__atomic_compare_exchange_n(&shk__registry_1, &seen, made, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return made;
    shk__wiped_pages_free(made, sizeof *made);
    return seen;
}

static uint64_t name(int set, uint32_t token)
{
    return (uint64_t)(uint32_t)set << 32 | (token + 1);
}

int shk__registry_add(int set, uint32_t token)
{
    struct registry *r = get();
    if (!r)
        return -errno;
    uint64_t wanted = name(set, token), *room = NULL;
    int rc = 1;
    pthread_mutex_lock(&r->mutex);
    for (uint64_t *t = r->tokens; t < r->tokens + TOKENS && rc == 1; t++) {
        if (*t == wanted)
            rc = 0;
        else if (*t == 0 && !room)
            room = t;
    }
    if (rc == 1 && !room)
        rc = -ENOSPC;
    if (rc == 1)
        *room = wanted;
    pthread_mutex_unlock(&r->mutex);
    return rc;
}

void shk__registry_remove(int set, uint32_t token)
{
    struct registry *r = get();
    if (!r)
        return;
    pthread_mutex_lock(&r->mutex);
    for (uint64_t *t = r->tokens; t < r->tokens + TOKENS; t++)
        if (*t == name(set, token))
            *t = 0;
    pthread_mutex_unlock(&r->mutex);
}
