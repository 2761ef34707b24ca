/* test_segment.c: segments, words and tables as a C program uses them. */
#include "test.h"

#include <sys/msg.h>

static int make(size_t size, int flags)
{
    int id;
    CHECK_CODE(shk_segment_create(IPC_PRIVATE, size, 0600, flags, &id), 0);
    return test_keep_segment(id);
}

static void *attach(int id, int flags)
{
    void *address;
    CHECK_CODE(shk_segment_attach(id, NULL, flags, &address), 0);
    return address;
}

static uint64_t count_attached(int id)
{
    struct shk_segment_info info;
    CHECK_CODE(shk_segment_stat(id, &info), 0);
    return info.attached;
}

static void check_detail(const char *part)
{
    if (!strstr(shk_error_detail(), part))
        FAIL("\"%s\" does not say \"%s\"", shk_error_detail(), part);
}

/* -- segments ------------------------------------------------------------------------ */

static void each_attachment_is_counted(void)
{
    int id = make(5000, 0);
    char *writable = attach(id, 0), *readable = attach(id, SHM_RDONLY), *third = attach(id, 0);
    CHECK(writable != readable && readable != third);
    CHECK_EQUAL(count_attached(id), 3);
    writable[4999] = 'x';
    CHECK(readable[4999] == 'x');
    CHECK_CODE(shk_segment_detach(writable), 0);
    CHECK_EQUAL(count_attached(id), 2);
    CHECK_CODE(shk_segment_detach(writable), -EINVAL);
    CHECK(readable[4999] == 'x');
    CHECK_CODE(shk_segment_detach(readable), 0);
    CHECK_CODE(shk_segment_detach(third), 0);
    CHECK_EQUAL(count_attached(id), 0);
}

static void map_tells_the_state_after_it(void)
{
    int id = make(5000, 0);
    struct shk_segment_info info = {.id = -1};
    void *address = NULL, *taken = attach(id, 0);
    CHECK_CODE(shk_segment_map(id, taken, 0, &info, &address), -EINVAL);
    check_detail("SHM_REMAP");
    CHECK_CODE(shk_segment_map(id, (char *)taken + 1, 0, &info, &address), -EINVAL);
    check_detail("SHM_RND");
    CHECK(address == NULL && info.id == -1);
    CHECK_CODE(shk_segment_map(id, NULL, SHM_RDONLY, &info, &address), 0);
    CHECK(address && info.id == id && info.size == 5000);
    CHECK_EQUAL(info.attached, 2);
    CHECK_CODE(shk_segment_remove(id), 0);
    CHECK_CODE(shk_segment_detach(address), 0);
    CHECK_CODE(shk_segment_detach(taken), 0);
    CHECK_CODE(shk_segment_map(id, NULL, 0, &info, &address), -ENOENT);
    CHECK_EQUAL(info.attached, 2); /* as before */
}

static void kinds_of_huge_pages_that_are_not(void)
{
    int id = -1;
    /* 8 kB: no architecture has huge pages of that size. */
    int code = shk_segment_create(IPC_PRIVATE, 1, 0600, SHM_HUGETLB | 13 << SHK_HUGE_SHIFT, &id);
    CHECK_CODE(code, -EINVAL);
    check_detail("this kernel has no huge pages of 8 kB");
    CHECK(id == -1);
}

static void locked_memory_shows(void)
{
    int id = make(4096, 0);
    struct shk_segment_info info;
    int locked = shk_segment_lock(id);
    if (locked < 0)
        SKIP("this user may lock no memory");
    CHECK_CODE(shk_segment_stat(id, &info), 0);
    CHECK(info.mode & SHM_LOCKED);
    CHECK_CODE(shk_segment_unlock(id), 0);
    CHECK_CODE(shk_segment_stat(id, &info), 0);
    CHECK(!(info.mode & SHM_LOCKED));
    CHECK_CODE(shk_segment_remove(id), 0);
    CHECK_CODE(shk_segment_lock(id), -ENOENT);
    CHECK_CODE(shk_segment_unlock(id), -ENOENT);
}

/* -- words --------------------------------------------------------------------------- */

#define ROUNDS 20000
#define THREADS 4

static void *add_many(void *memory)
{
    uint64_t *words = memory;
    for (int i = 0; i < ROUNDS; i++) {
        shk_word_add(&words[0], 8, 3);
        shk_word_add(&words[1], 4, UINT64_MAX); /* minus 1 */
        uint64_t seen = shk_word_load(&words[2], 8);
        while (!shk_word_compare_exchange(&words[2], 8, &seen, seen + 1))
            continue;
    }
    return NULL;
}

static void steps_of_threads_all_count(void)
{
    uint64_t *words = test_segment(4096, NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = test_thread(add_many, words);
    for (int i = 0; i < THREADS; i++)
        test_join_thread(threads[i]);
    CHECK_EQUAL(shk_word_load(&words[0], 8), 3 * THREADS * ROUNDS);
    CHECK_EQUAL((int32_t)shk_word_load(&words[1], 4), -THREADS * ROUNDS);
    CHECK_EQUAL(shk_word_load((char *)&words[1] + 4, 4), 0); /* the neighbour */
    CHECK_EQUAL(shk_word_load(&words[2], 8), THREADS * ROUNDS);
}

static void each_step_of_each_width(void)
{
    char *memory = test_segment(4096, NULL);
    for (unsigned width = 4; width <= 8; width += 4) {
        char *word = memory + width;
        uint64_t high = width == 4 ? UINT32_MAX : UINT64_MAX, seen = 1;
        shk_word_store(word, width, high);
        CHECK(shk_word_load(word, width) == high);
        CHECK(shk_word_add(word, width, 2) == 1);
        CHECK(shk_word_exchange(word, width, 7) == 1);
        CHECK(!shk_word_compare_exchange(word, width, &seen, 8));
        CHECK(seen == 7 && shk_word_load(word, width) == 7);
        CHECK(shk_word_compare_exchange(word, width, &seen, 0));
        CHECK(shk_word_load(word, width) == 0);
    }
    for (int i = 0; i < 16; i++)
        CHECK(memory[i] == 0);
}

static uint64_t now(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void waiting_ends(void)
{
    uint32_t *word = test_segment(4096, NULL);
    shk_word_store(word, 4, 5);
    CHECK_CODE(shk_word_wait(word, 4, UINT64_MAX), 0);
    uint64_t start = now(), deadline = start + 20000000;
    int code;
    while ((code = shk_word_wait(word, 5, deadline)) == -EAGAIN)
        continue;
    CHECK_CODE(code, SHK_E_TIMEOUT);
    CHECK(now() >= deadline);
    CHECK_CODE(shk_word_wait(word, 5, UINT64_MAX), -EAGAIN); /* a nap, then the caller's turn */
    CHECK(now() - start < 5000000000u);

    uint32_t *step = &word[1];
    pid_t sleeper = test_fork();
    if (sleeper == 0) {
        test_step(step);
        while ((code = shk_word_wait(word, 5, UINT64_MAX)) == -EAGAIN)
            continue;
        CHECK_CODE(code, 0);
        exit(0);
    }
    test_await(step, 1);
    shk_word_store(word, 4, 6);
    CHECK(shk_word_notify(word, INT32_MAX) <= 1);
    test_join(sleeper);
    CHECK_CODE(shk_word_notify(word, 1), 0);
}

/* -- tables -------------------------------------------------------------------------- */

static void make_some(void)
{
    for (size_t size = 1; size < 20000; size += 3000)
        (void)make(size, 0);
    CHECK_CODE(shk_segment_remove(make(1, 0)), 0); /* a hole */
    (void)make(1, 0);
    for (int count = 1; count < 5; count++)
        (void)test_keep_set(semget(IPC_PRIVATE, count, 0600));
}

static bool is_same_segment(const struct shk_segment_info *a, const struct shk_segment_info *b)
{
    return a->id == b->id && a->key == b->key && a->size == b->size && a->mode == b->mode &&
           a->uid == b->uid && a->gid == b->gid && a->cuid == b->cuid && a->cgid == b->cgid &&
           a->creator_pid == b->creator_pid && a->last_pid == b->last_pid &&
           a->attached == b->attached && a->attach_time == b->attach_time &&
           a->detach_time == b->detach_time && a->change_time == b->change_time;
}

static void both_sources_give_the_same_segments(void)
{
    struct shk_segment_info *kernel, *proc;
    size_t count, proc_count;
    make_some();
    CHECK_CODE(shk_segments_list(SHK_SOURCE_KERNEL, &kernel, &count), 0);
    CHECK_CODE(shk_segments_list(SHK_SOURCE_PROC, &proc, &proc_count), 0);
    CHECK(count >= 8 && count == proc_count);
    for (size_t i = 0; i < count; i++)
        CHECK(is_same_segment(&kernel[i], &proc[i]));
    shk_rows_free(kernel);
    shk_rows_free(proc);
}

static void both_sources_give_the_same_sets(void)
{
    struct shk_semset_info *kernel, *proc;
    size_t count, proc_count;
    make_some();
    CHECK_CODE(shk_semsets_list(SHK_SOURCE_KERNEL, &kernel, &count), 0);
    CHECK_CODE(shk_semsets_list(SHK_SOURCE_PROC, &proc, &proc_count), 0);
    CHECK(count >= 4 && count == proc_count);
    for (size_t i = 0; i < count; i++) {
        const struct shk_semset_info *a = &kernel[i], *b = &proc[i];
        CHECK(a->id == b->id && a->key == b->key && a->count == b->count && a->mode == b->mode);
        CHECK(a->uid == b->uid && a->gid == b->gid && a->cuid == b->cuid && a->cgid == b->cgid);
        CHECK(a->operation_time == b->operation_time && a->change_time == b->change_time);
    }
    shk_rows_free(kernel);
    shk_rows_free(proc);
}

static void queues_are_listed(void)
{
    int id = msgget(IPC_PRIVATE, 0600);
    CHECK(id >= 0);
    struct {
        long type;
        char text[10];
    } message = {1, "123456789"};
    CHECK(msgsnd(id, &message, sizeof message.text, 0) == 0);
    for (int source = SHK_SOURCE_KERNEL; source <= SHK_SOURCE_PROC; source++) {
        struct shk_msgqueue_info *rows, *row = NULL;
        size_t count;
        CHECK_CODE(shk_msgqueues_list((enum shk_source)source, &rows, &count), 0);
        for (size_t i = 0; i < count; i++)
            row = rows[i].id == id ? &rows[i] : row;
        CHECK(row && row->messages == 1 && row->bytes == 10 && row->bytes_max >= 10);
        CHECK_EQUAL(row->last_send_pid, getpid());
        shk_rows_free(rows);
    }
    CHECK(msgctl(id, IPC_RMID, NULL) == 0);
}

static void both_sources_count_the_same(void)
{
    struct shk_usage kernel, proc;
    struct shk_limits kernel_limits, proc_limits;
    make_some();
    CHECK_CODE(shk_usage_read(SHK_SOURCE_KERNEL, &kernel), 0);
    CHECK_CODE(shk_usage_read(SHK_SOURCE_PROC, &proc), 0);
    CHECK(memcmp(&kernel, &proc, sizeof proc) == 0);
    CHECK(kernel.segments >= 8 && kernel.semaphores >= 10);
    CHECK_CODE(shk_limits_read(SHK_SOURCE_KERNEL, &kernel_limits), 0);
    CHECK_CODE(shk_limits_read(SHK_SOURCE_PROC, &proc_limits), 0);
    CHECK(memcmp(&kernel_limits, &proc_limits, sizeof proc_limits) == 0);
    CHECK(kernel_limits.semvmx == 32767 && kernel_limits.shmmax > 0);
}

static const struct test tests[] = {
    TEST(each_attachment_is_counted),
    TEST(map_tells_the_state_after_it),
    TEST(kinds_of_huge_pages_that_are_not),
    TEST(locked_memory_shows),
    TEST(steps_of_threads_all_count),
    TEST(each_step_of_each_width),
    TEST(waiting_ends),
    TEST(both_sources_give_the_same_segments),
    TEST(both_sources_give_the_same_sets),
    TEST(queues_are_listed),
    TEST(both_sources_count_the_same),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
