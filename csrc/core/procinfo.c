/* procinfo.c: the same tables out of /proc/sysvipc, and the limits out of /proc/sys/kernel. */
#include "sysinfo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/msg.h>
#include <unistd.h>

#include "error.h"

#define SEMVMX 32767 /* of every kernel; no file tells */
#define SHMMIN 1

/* Called with each line but the first: 0, or the code to end with. */
typedef int (*line_reader)(const char *line, void *context);

static int for_lines(const char *path, line_reader reader, void *context)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return shk__fail(-errno, "fopen(%s)", path);
    char line[512];
    int rc = 0;
    bool titles = true;
    while (rc == 0 && fgets(line, sizeof line, file)) {
        if (!titles)
            rc = reader(line, context);
        titles = false;
    }
    if (rc == 0 && ferror(file))
        rc = shk__fail(-EIO, "fgets(%s)", path);
    fclose(file);
    return rc;
}

static int fail_to_parse(const char *line)
{
    return shk__fail(-EPROTO, "/proc/sysvipc has a line that is not understood: %.200s", line);
}

static int fail_for_memory(size_t rows)
{
    return shk__fail(-ENOMEM, "a table of %zu rows", rows);
}

/* The titles of the columns stand in the first line of each file. */
static int read_segment(const char *line, struct shk_segment_info *out, unsigned long long *rss,
                        unsigned long long *swap)
{
    unsigned long long size, attached;
    long long attach_time, detach_time, change_time;
    struct shk_segment_info row = {0};
    if (sscanf(line, "%d %d %o %llu %d %d %llu %u %u %u %u %lld %lld %lld %llu %llu", &row.key,
               &row.id, &row.mode, &size, &row.creator_pid, &row.last_pid, &attached, &row.uid,
               &row.gid, &row.cuid, &row.cgid, &attach_time, &detach_time, &change_time, rss,
               swap) != 16)
        return fail_to_parse(line);
    row.size = size;
    row.attached = attached;
    row.attach_time = attach_time;
    row.detach_time = detach_time;
    row.change_time = change_time;
    *out = row;
    return 0;
}

static int read_set(const char *line, struct shk_semset_info *out)
{
    long long operation_time, change_time;
    struct shk_semset_info row = {0};
    if (sscanf(line, "%d %d %o %u %u %u %u %u %lld %lld", &row.key, &row.id, &row.mode,
               &row.count, &row.uid, &row.gid, &row.cuid, &row.cgid, &operation_time,
               &change_time) != 10)
        return fail_to_parse(line);
    row.operation_time = operation_time;
    row.change_time = change_time;
    *out = row;
    return 0;
}

static int read_queue(const char *line, struct shk_msgqueue_info *out)
{
    unsigned long long bytes, messages;
    long long send_time, receive_time, change_time;
    struct shk_msgqueue_info row = {.bytes_max = 0};
    if (sscanf(line, "%d %d %o %llu %llu %d %d %u %u %u %u %lld %lld %lld", &row.key, &row.id,
               &row.mode, &bytes, &messages, &row.last_send_pid, &row.last_receive_pid, &row.uid, &row.gid,
               &row.cuid, &row.cgid, &send_time, &receive_time, &change_time) != 14)
        return fail_to_parse(line);
    row.bytes = bytes;
    row.messages = messages;
    row.send_time = send_time;
    row.receive_time = receive_time;
    row.change_time = change_time;
    *out = row;
    return 0;
}

/* -- lists --------------------------------------------------------------------------- */

static int add_segment(const char *line, void *to)
{
    unsigned long long rss, swap;
    struct shk_segment_info *row = shk__rows_add(to);
    return row ? read_segment(line, row, &rss, &swap)
               : fail_for_memory(((struct shk__rows *)to)->count);
}

static int add_set(const char *line, void *to)
{
    struct shk_semset_info *row = shk__rows_add(to);
    return row ? read_set(line, row) : fail_for_memory(((struct shk__rows *)to)->count);
}

static int add_queue(const char *line, void *to)
{
    struct shk_msgqueue_info *row = shk__rows_add(to);
    int rc = row ? read_queue(line, row) : fail_for_memory(((struct shk__rows *)to)->count);
    struct msqid_ds status; /* what the file leaves out */
    if (rc == 0 && msgctl(row->id, IPC_STAT, &status) == 0)
        row->bytes_max = status.msg_qbytes;
    return rc;
}

int shk__proc_segments(struct shk__rows *to)
{
    return for_lines("/proc/sysvipc/shm", add_segment, to);
}

int shk__proc_semsets(struct shk__rows *to)
{
    return for_lines("/proc/sysvipc/sem", add_set, to);
}

int shk__proc_msgqueues(struct shk__rows *to)
{
    return for_lines("/proc/sysvipc/msg", add_queue, to);
}

/* -- usage: sums of the columns ------------------------------------------------------ */

static int sum_segment(const char *line, void *context)
{
    struct shk_usage *sums = context;
    struct shk_segment_info row = {0};
    unsigned long long rss, swap;
    int rc = read_segment(line, &row, &rss, &swap);
    if (rc < 0)
        return rc;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    sums->segments++;
    sums->segment_pages += row.size / page + (row.size % page != 0);
    sums->resident_pages += rss / page;
    sums->swapped_pages += swap / page;
    return 0;
}

static int sum_set(const char *line, void *context)
{
    struct shk_usage *sums = context;
    struct shk_semset_info row = {0};
    int rc = read_set(line, &row);
    if (rc < 0)
        return rc;
    sums->sets++;
    sums->semaphores += row.count;
    return 0;
}

static int sum_queue(const char *line, void *context)
{
    struct shk_usage *sums = context;
    struct shk_msgqueue_info row = {0};
    int rc = read_queue(line, &row);
    if (rc < 0)
        return rc;
    sums->queues++;
    sums->messages += row.messages;
    sums->message_bytes += row.bytes;
    return 0;
}

int shk__proc_usage(struct shk_usage *out)
{
    struct shk_usage sums = {0};
    int rc;
    if ((rc = for_lines("/proc/sysvipc/shm", sum_segment, &sums)) < 0 ||
        (rc = for_lines("/proc/sysvipc/sem", sum_set, &sums)) < 0 ||
        (rc = for_lines("/proc/sysvipc/msg", sum_queue, &sums)) < 0)
        return rc;
    *out = sums;
    return 0;
}

/* -- limits -------------------------------------------------------------------------- */

/* The first `count` numbers of a file, at most 4. */
static int read_sysctl(const char *name, int count, uint64_t *out)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
    FILE *file = fopen(path, "re");
    if (!file)
        return shk__fail(-errno, "fopen(%s)", path);
    uint64_t numbers[4];
    int found = 0;
    while (found < count && fscanf(file, "%" SCNu64, &numbers[found]) == 1)
        found++;
    fclose(file);
    if (found < count)
        return shk__fail(-EPROTO, "%s holds %d numbers, not %d", path, found, count);
    memcpy(out, numbers, sizeof *out * (size_t)count);
    return 0;
}

int shk__proc_limits(struct shk_limits *out)
{
    struct shk_limits found = {.shmmin = SHMMIN, .semvmx = SEMVMX};
    uint64_t sem[4];
    const struct {
        const char *name;
        int count;
        uint64_t *to;
    } files[] = {
        {"shmmax", 1, &found.shmmax}, {"shmmni", 1, &found.shmmni}, {"shmall", 1, &found.shmall},
        {"msgmax", 1, &found.msgmax}, {"msgmnb", 1, &found.msgmnb}, {"msgmni", 1, &found.msgmni},
        {"sem", 4, sem},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int rc = read_sysctl(files[i].name, files[i].count, files[i].to);
        if (rc < 0)
            return rc;
    }
    found.semmsl = sem[0], found.semmns = sem[1], found.semopm = sem[2], found.semmni = sem[3];
    *out = found;
    return 0;
}
