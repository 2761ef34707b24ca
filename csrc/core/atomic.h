/* atomic.h: every access to a word that two processes share.
 *
 * Loads acquire and stores release, always; no fences. On x86-64 both are plain
 * moves, on AArch64 ldar and stlr, and ThreadSanitizer understands them (it does
 * not understand fences). The argument for weak memory needs both everywhere:
 * a reader that saw one word of a recycled slot must also see the odd generation
 * that was stored before it.
 */
#ifndef SHK_ATOMIC_H
#define SHK_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHK__LIKELY(condition) __builtin_expect((condition), 1)
#define SHK__ALWAYS_INLINE inline __attribute__((always_inline))

#define shk__load(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define shk__store(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#define shk__exchange(pointer, value) __atomic_exchange_n((pointer), (value), __ATOMIC_ACQ_REL)

static inline bool shk__cas32(uint32_t *word, uint32_t *seen, uint32_t desired)
{
    return __atomic_compare_exchange_n(word, seen, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

static inline bool shk__cas64(uint64_t *word, uint64_t *seen, uint64_t desired)
{
    return __atomic_compare_exchange_n(word, seen, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

/* Copies whole words out of shared memory. Compilers neither join nor unroll atomic
 * accesses, so this loop takes four words a round, and the next one two. */
static inline void shk__load_words(uint64_t *to, const uint64_t *from, size_t words)
{
    for (const uint64_t *end = from + (words & ~(size_t)3); from < end; from += 4, to += 4) {
        to[0] = shk__load(&from[0]);
        to[1] = shk__load(&from[1]);
        to[2] = shk__load(&from[2]);
        to[3] = shk__load(&from[3]);
    }
    for (const uint64_t *end = from + (words & 3); from < end; from++, to++)
        *to = shk__load(from);
}

/* Copies whole words into shared memory, in rising order. */
static inline void shk__store_words(uint64_t *to, const uint64_t *from, size_t words)
{
    for (const uint64_t *end = from + (words & ~(size_t)1); from < end; from += 2, to += 2) {
        shk__store(&to[0], from[0]);
        shk__store(&to[1], from[1]);
    }
    if (words & 1)
        shk__store(to, *from);
}

static inline void shk__pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
