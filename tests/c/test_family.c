/* test_family.c: semaphore sets and message queues, as a C program uses them. */
#include "test.h"

#include "shk.h"

#define MILLISECOND UINT64_C(1000000)

static uint64_t in(uint64_t milliseconds)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + milliseconds * MILLISECOND;
}

static int new_set(const unsigned short *values, unsigned count)
{
    int id;
    CHECK_CODE(shk_semset_create(IPC_PRIVATE, count, 0600, &id), 0);
    if (values)
        CHECK_CODE(shk_semset_initialise(id, values), 0);
    return test_keep_set(id);
}

static int operate(int id, int index, int change, int flags, uint64_t deadline)
{
    struct sembuf operation = {(unsigned short)index, (short)change, (short)flags};
    return shk_semset_operate(id, &operation, 1, deadline);
}

static int new_queue(void)
{
    int id;
    CHECK_CODE(shk_msgqueue_create(IPC_PRIVATE, 0600, &id), 0);
    return test_keep_queue(id);
}

static int send_text(int id, long type, const char *text, uint64_t deadline)
{
    char room[sizeof(struct shk_message) + 64];
    struct shk_message *message = (void *)room;
    message->type = type;
    strcpy(message->bytes, text);
    return shk_msgqueue_send(id, message, strlen(text), deadline);
}

static void on_signal(int number)
{
    (void)number;
}

/* A handler that interrupts calls, and a child that brings the signal after a while. */
static pid_t alarm_in(unsigned milliseconds)
{
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    pid_t parent = getpid(), child = test_fork();
    if (child == 0) {
        test_sleep(milliseconds);
        exit(kill(parent, SIGUSR1));
    }
    return child;
}

static void a_set_is_initialised_once_something_was_done(void)
{
    unsigned short values[3] = {0, 5, 32767}, found[3];
    struct shk_semset_info info;
    int id = new_set(NULL, 3);
    CHECK_CODE(shk_semset_stat(id, &info), 0);
    CHECK_EQUAL(info.operation_time, 0);
    CHECK_EQUAL(info.count, 3);
    CHECK_CODE(shk_semset_await(id, SHK_NOW), SHK_E_TIMEOUT);
    uint64_t deadline = in(50);
    CHECK_CODE(shk_semset_await(id, deadline), SHK_E_TIMEOUT);
    CHECK(in(0) >= deadline);
    CHECK(strstr(shk_error_detail(), "never initialised"));
    CHECK_CODE(shk_semset_initialise(id, values), 0);
    CHECK_CODE(shk_semset_await(id, SHK_NOW), 0);
    CHECK_CODE(shk_semset_values(id, found), 0);
    CHECK(memcmp(values, found, sizeof values) == 0);
}

static void a_deadline_ends_a_wait(void)
{
    int id = new_set((unsigned short[]){1}, 1);
    uint64_t deadline = in(50);
    CHECK_CODE(operate(id, 0, -2, 0, SHK_NOW), SHK_E_TIMEOUT);
    CHECK_CODE(operate(id, 0, -2, 0, deadline), SHK_E_TIMEOUT);
    CHECK(in(0) >= deadline);
    CHECK_CODE(operate(id, 0, -1, 0, deadline), 0); /* what needs no waiting needs no time */
}

static void a_signal_interrupts_every_wait(void)
{
    char room[sizeof(struct shk_message) + 8];
    struct shk_message *message = (void *)room;
    size_t size;
    uint64_t deadlines[2] = {SHK_NEVER, in(60000)};
    for (int i = 0; i < 2; i++) {
        pid_t child = alarm_in(100);
        CHECK_CODE(operate(new_set((unsigned short[]){0}, 1), 0, -1, 0, deadlines[i]), -EINTR);
        test_join(child);
        child = alarm_in(100);
        CHECK_CODE(shk_msgqueue_receive(new_queue(), message, 8, 0, 0, deadlines[i], &size), -EINTR);
        test_join(child);
    }
    pid_t child = alarm_in(50);
    CHECK_CODE(shk_semset_await(new_set(NULL, 1), deadlines[1]), -EINTR);
    test_join(child);
}

static void what_the_dead_held_comes_back(void)
{
    int id = new_set((unsigned short[]){3, 0}, 2), value;
    pid_t child = test_fork();
    if (child == 0) {
        struct sembuf both[2] = {{0, -2, SEM_UNDO}, {1, 1, 0}};
        CHECK_CODE(shk_semset_operate(id, both, 2, SHK_NEVER), 0);
        for (;;)
            (void)pause();
    }
    CHECK_CODE(operate(id, 1, -1, 0, SHK_NEVER), 0);
    CHECK_CODE(shk_semset_ask(id, 0, GETVAL, &value), 0);
    CHECK_EQUAL(value, 1);
    test_kill(child);
    CHECK_CODE(operate(id, 0, -3, 0, in(10000)), 0);
}

static void failures_leave_what_they_were_to_fill(void)
{
    int id = -7, answer = -7;
    size_t size = 77;
    struct shk_semset_info set = {.id = -7};
    struct shk_msgqueue_info queue = {.id = -7};
    struct shk_message message = {.type = -7};
    CHECK_CODE(shk_semset_create(IPC_PRIVATE, 0, 0600, &id), SHK_E_INVALID);
    CHECK_CODE(shk_semset_create(IPC_PRIVATE, SHK_SEMSET_MAX + 1, 0600, &id), SHK_E_INVALID);
    CHECK_CODE(shk_semset_find(IPC_PRIVATE, 0, &id), SHK_E_INVALID);
    CHECK_CODE(shk_msgqueue_find(IPC_PRIVATE, 0, &id), SHK_E_INVALID);
    CHECK_CODE(shk_semset_ask(INT32_MAX, 0, GETVAL, &answer), -ENOENT);
    CHECK_CODE(shk_semset_stat(INT32_MAX, &set), -ENOENT);
    CHECK_CODE(shk_semset_set(INT32_MAX, 0, 0, 0600), -ENOENT);
    CHECK_CODE(shk_semset_remove(INT32_MAX), -ENOENT);
    CHECK_CODE(shk_semset_operate(INT32_MAX, NULL, 0, SHK_NOW), SHK_E_INVALID);
    CHECK_CODE(operate(INT32_MAX, 0, 1, 0, SHK_NEVER), -ENOENT);
    CHECK_CODE(shk_msgqueue_stat(INT32_MAX, &queue), -ENOENT);
    CHECK_CODE(shk_msgqueue_set(INT32_MAX, 0, 0, 0600, 1), -ENOENT);
    CHECK_CODE(shk_msgqueue_remove(INT32_MAX), -ENOENT);
    CHECK_CODE(send_text(INT32_MAX, 1, "x", SHK_NEVER), -ENOENT);
    CHECK_CODE(shk_msgqueue_receive(INT32_MAX, &message, 0, 0, 0, SHK_NEVER, &size), -ENOENT);
    CHECK_CODE(shk_msgqueue_peek(INT32_MAX, &message, 0, 0, &size), -ENOENT);
    CHECK(id == -7 && answer == -7 && set.id == -7 && queue.id == -7 && message.type == -7);
    CHECK_EQUAL(size, 77);
}

static void messages_are_chosen_by_type(void)
{
    char room[sizeof(struct shk_message) + 8] = {0};
    struct shk_message *message = (void *)room;
    size_t size = 0;
    int id = new_queue();
    CHECK_CODE(send_text(id, 0, "x", SHK_NOW), SHK_E_INVALID);
    CHECK_CODE(send_text(id, 3, "three", SHK_NOW), 0);
    CHECK_CODE(send_text(id, 2, "two", SHK_NOW), 0);
    CHECK_CODE(shk_msgqueue_peek(id, message, 8, 1, &size), 0);
    CHECK(message->type == 2 && size == 3 && memcmp(message->bytes, "two", 3) == 0);
    CHECK_CODE(shk_msgqueue_peek(id, message, 8, 2, &size), -ENOMSG);
    CHECK_CODE(shk_msgqueue_peek(id, message, 4, 0, &size), -E2BIG);
    CHECK_CODE(shk_msgqueue_receive(id, message, 4, 0, 0, SHK_NOW, &size), -E2BIG);
    CHECK_CODE(shk_msgqueue_receive(id, message, 8, 3, MSG_EXCEPT, SHK_NOW, &size), 0);
    CHECK_EQUAL(message->type, 2);
    CHECK_CODE(shk_msgqueue_receive(id, message, 8, 2, 0, SHK_NOW, &size), SHK_E_TIMEOUT);
    CHECK_CODE(shk_msgqueue_receive(id, message, 4, -9, MSG_NOERROR, SHK_NOW, &size), 0);
    CHECK(message->type == 3 && size == 4 && memcmp(message->bytes, "thre", 4) == 0);
}

static void a_full_queue_is_waited_for_until_the_deadline(void)
{
    int id = new_queue();
    CHECK_CODE(shk_msgqueue_set(id, geteuid(), getegid(), 0600, 5), 0);
    CHECK_CODE(send_text(id, 1, "12345", SHK_NEVER), 0);
    uint64_t deadline = in(50);
    CHECK_CODE(send_text(id, 1, "1", SHK_NOW), SHK_E_TIMEOUT);
    CHECK_CODE(send_text(id, 1, "1", deadline), SHK_E_TIMEOUT);
    CHECK(in(0) >= deadline);
    CHECK_CODE(send_text(id, 1, "123456", SHK_NEVER), -EMSGSIZE);
}

static void removal_wakes_the_waiting(void)
{
    int set = new_set((unsigned short[]){0}, 1), queue = new_queue(), waiting = 0;
    pid_t one = test_fork();
    if (one == 0) {
        CHECK_CODE(operate(set, 0, -1, 0, SHK_NEVER), -ENOENT);
        exit(0);
    }
    pid_t other = test_fork();
    if (other == 0) {
        struct shk_message message;
        size_t size;
        CHECK_CODE(shk_msgqueue_receive(queue, &message, 0, 0, 0, SHK_NEVER, &size), -ENOENT);
        exit(0);
    }
    while (waiting == 0) {
        CHECK_CODE(shk_semset_ask(set, 0, GETNCNT, &waiting), 0);
        test_sleep(20);
    }
    CHECK_CODE(shk_semset_remove(set), 0);
    CHECK_CODE(shk_msgqueue_remove(queue), 0);
    test_join(one);
    test_join(other);
}

static const struct test tests[] = {
    TEST(a_set_is_initialised_once_something_was_done),
    TEST(a_deadline_ends_a_wait),
    TEST(a_signal_interrupts_every_wait),
    TEST(what_the_dead_held_comes_back),
    TEST(failures_leave_what_they_were_to_fill),
    TEST(messages_are_chosen_by_type),
    TEST(a_full_queue_is_waited_for_until_the_deadline),
    TEST(removal_wakes_the_waiting),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
