/* test_lock_races.c: what others do between two steps of a waiter, where chance seldom puts it.
 *
 * lock.c is compiled into this program, its calls on a token diverted, so that a test may act
 * before each of them: between the waiter's look at the word and its claim of the owner's
 * token, between the claim and the CAS, between the CAS and giving the token back; and when
 * a handle's new token has become known to its other threads, which is lock.c's one store of
 * 32 bits.
 */
#include "atomic.h"
#include "tokens.h"

static int diverted_claim(const struct shk__set *set, uint32_t token);
static void diverted_release(const struct shk__set *set, uint32_t token);
static void diverted_store(uint32_t *to, uint32_t value);
static inline void store_64(uint64_t *to, uint64_t value)
{
    shk__store(to, value);
}

#define shk__set_claim diverted_claim
#define shk__set_release diverted_release
#undef shk__store
#define shk__store(to, value)                                                                      \
    _Generic(*(to), uint32_t: diverted_store, uint64_t: store_64)((to), (value))
#include "lock.c"
#undef shk__set_claim
#undef shk__set_release

#include "lock_fixture.h"

/* What happens at each of these steps; run once. */
static void (*before_claim)(void), (*after_claim)(void), (*before_release)(void);
static void (*after_store)(void);
static unsigned claims;

static void run_once(void (**action)(void))
{
    void (*run)(void) = *action;
    *action = NULL;
    if (run)
        run();
}

static int diverted_claim(const struct shk__set *of, uint32_t token)
{
    claims++;
    run_once(&before_claim);
    int rc = shk__set_claim(of, token);
    if (rc == 1)
        run_once(&after_claim);
    return rc;
}

static void diverted_release(const struct shk__set *of, uint32_t token)
{
    run_once(&before_release);
    shk__set_release(of, token);
}

static void diverted_store(uint32_t *to, uint32_t value)
{
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
    run_once(&after_store);
}

/* A handle with a token, so that its next claim is that of an owner's token. */
static struct shk__lock open_lock_with_token(void)
{
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    shk__lock_release(&lock);
    return lock;
}

static pid_t first_owner;

/* The owner gives back the lock and then its token, which the waiter can claim now. */
static void let_owner_finish(void)
{
    test_step(&arena->go);
    test_join(first_owner);
}

/* The same, and then another writer, alive, owns the lock under its own token. */
static void pass_lock_on(void)
{
    let_owner_finish();
    test_step(&arena->ready);
    test_await(&arena->owned, 2);
}

static void word_that_moved_on_is_not_taken(void)
{
    set_up();
    struct shk__lock lock = open_lock_with_token();
    pid_t second = test_fork();
    if (second == 0) {
        struct shk__lock theirs = open_lock_with_token();
        test_step(&arena->done);
        test_await(&arena->ready, 1);
        CHECK_CODE(shk__lock_acquire(&theirs, LONG), SHK__FREE);
        test_step(&arena->owned);
        sleep_for_ever();
    }
    test_await(&arena->done, 1);
    first_owner = start_owner();
    uint32_t token = owner();
    before_claim = pass_lock_on;
    CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    CHECK(owner() != UINT32_MAX && owner() != token);
    CHECK_EQUAL(taken(), 2);
    test_kill(second);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
}

static void word_that_came_free_is_taken_as_free(void)
{
    set_up();
    struct shk__lock lock = open_lock_with_token();
    first_owner = start_owner();
    before_claim = let_owner_finish;
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
    CHECK_EQUAL(taken(), 1);
}

static void set_bit(void)
{
    uint32_t seen = shk__load(&arena->word);
    CHECK(shk__cas32(&arena->word, &seen, seen | SHK_LOCK_WAITERS));
}

/* Or a waiter would report a living owner at its deadline, though the owner is dead. */
static void bit_of_another_waiter_does_not_hide_the_death(void)
{
    set_up();
    struct shk__lock lock = open_lock_with_token();
    (void)leave_dead_owner();
    CHECK_EQUAL(arena->word & SHK_LOCK_WAITERS, 0);
    before_claim = set_bit;
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FROM_THE_DEAD);
}

static uint32_t dead_token;

static void check_word_moved(void)
{
    CHECK(owner() != dead_token);
}

/* Whoever claims a token that the word names owns the lock. */
static void dead_token_is_given_back_after_the_word_moved(void)
{
    set_up();
    struct shk__lock lock = open_lock_with_token();
    dead_token = leave_dead_owner();
    before_release = check_word_moved;
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
    CHECK(before_release == NULL);
    CHECK_EQUAL(taken(), 1);
}

static struct shk__lock shared_lock;

static void *acquire_in_thread(void *lock)
{
    CHECK_CODE(shk__lock_acquire(lock, 0), SHK__FREE);
    return NULL;
}

static void let_another_thread_acquire(void)
{
    test_join_thread(test_thread(acquire_in_thread, &shared_lock));
}

/* The claimer must not take its own handle's other thread for its dead predecessor. */
static void token_of_another_thread_is_not_inherited(void)
{
    set_up();
    shared_lock = open_lock();
    after_store = let_another_thread_acquire;
    CHECK_CODE(shk__lock_acquire(&shared_lock, SHORT), SHK_E_TIMEOUT);
    CHECK(after_store == NULL);
}

static void die(void)
{
    (void)kill(getpid(), SIGKILL);
}

static void heir_that_dies_is_inherited_from(void)
{
    for (int late = 0; late < 2; late++) {
        set_up();
        (void)leave_dead_owner();
        pid_t heir = test_fork();
        if (heir == 0) {
            struct shk__lock lock = open_lock();
            lock.seat->token_plus_one = 1 + (owner() + 1) % SHK_WRITERS_MAX;
            CHECK_CODE(shk__set_claim(&set, lock.seat->token_plus_one - 1), 1);
            *(late ? &before_release : &after_claim) = die;
            (void)shk__lock_acquire(&lock, LONG);
            exit(1);
        }
        int status = test_wait(heir);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        CHECK_EQUAL(taken(), 0);
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
        CHECK_EQUAL(taken(), 1);
    }
}

/* Neither the end of a nap nor an interrupted one decides when the owner is tested: where
 * the timer ends each nap of 2 ms, tests come at 2, 6, 14, 30, 62, 112 ms and so on. */
static void tests_of_the_owner_go_by_the_clock(void)
{
    set_up();
    struct shk__lock lock = open_lock_with_token();
    (void)start_owner();
    start_timer(250);
    claims = 0;
    CHECK_CODE(shk__lock_acquire(&lock, 12 * SHORT), SHK_E_TIMEOUT);
    CHECK(arena->ticks > 0);
    if (claims < 5)
        FAIL("the owner was tested only %u times in 600 ms", claims);
}

static const struct test tests[] = {
    TEST(word_that_moved_on_is_not_taken),
    TEST(word_that_came_free_is_taken_as_free),
    TEST(bit_of_another_waiter_does_not_hide_the_death),
    TEST(dead_token_is_given_back_after_the_word_moved),
    TEST(token_of_another_thread_is_not_inherited),
    TEST(heir_that_dies_is_inherited_from),
    TEST(tests_of_the_owner_go_by_the_clock),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
