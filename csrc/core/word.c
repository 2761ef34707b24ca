/* word.c: integers that processes change together, for programs that share a segment.
 *
 * Sequentially consistent, unlike the store's own words (atomic.h): their users build
 * protocols of several words, and no order of ours may surprise them.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"

#define NAP (250 * SHK_MILLISECOND)

/* Expands an operation for each width; `pointer` is word with its type. */
#define AT_WIDTH(qualifier, operation)                                                             \
    if (width == 4) {                                                                              \
        qualifier uint32_t *pointer = word;                                                        \
        operation(uint32_t);                                                                       \
    } else {                                                                                       \
        qualifier uint64_t *pointer = word;                                                        \
        operation(uint64_t);                                                                       \
    }

uint64_t shk_word_load(const void *word, unsigned width)
{
#define LOAD(type) return __atomic_load_n(pointer, __ATOMIC_SEQ_CST)
    AT_WIDTH(const, LOAD)
}

void shk_word_store(void *word, unsigned width, uint64_t value)
{
#define STORE(type) __atomic_store_n(pointer, (type)value, __ATOMIC_SEQ_CST)
    AT_WIDTH(, STORE)
}

uint64_t shk_word_add(void *word, unsigned width, uint64_t value)
{
#define ADD(type) return __atomic_add_fetch(pointer, (type)value, __ATOMIC_SEQ_CST)
    AT_WIDTH(, ADD)
}

uint64_t shk_word_exchange(void *word, unsigned width, uint64_t value)
{
#define EXCHANGE(type) return __atomic_exchange_n(pointer, (type)value, __ATOMIC_SEQ_CST)
    AT_WIDTH(, EXCHANGE)
}

bool shk_word_compare_exchange(void *word, unsigned width, uint64_t *expected, uint64_t desired)
{
#define COMPARE_EXCHANGE(type)                                                                     \
    type seen = (type)*expected;                                                                   \
    bool done = __atomic_compare_exchange_n(pointer, &seen, (type)desired, false,                  \
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                   \
    *expected = seen;                                                                              \
    return done
    AT_WIDTH(, COMPARE_EXCHANGE)
}

/* Not the private futex: the sleepers of other processes sleep on the same page. */
int shk_word_wait(const void *word, uint32_t expected, uint64_t deadline)
{
    if (shk_word_load(word, 4) != expected)
        return 0;
    uint64_t now = shk__monotonic();
    if (now >= deadline)
        return shk__fail(SHK_E_TIMEOUT, "the word was %u all the time", expected);
    struct timespec nap = shk__timespec(deadline - now < NAP ? deadline - now : NAP);
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, &nap, NULL, 0) != 0 && errno != EAGAIN &&
        errno != ETIMEDOUT && errno != EINTR)
        return shk__fail(-errno, "futex(%p, FUTEX_WAIT, %u)", word, expected);
    return shk_word_load(word, 4) != expected ? 0 : shk__fail_plainly(-EAGAIN);
}

int shk_word_notify(void *word, int count)
{
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    return woken < 0 ? shk__fail(-errno, "futex(%p, FUTEX_WAKE, %d)", word, count) : (int)woken;
}
