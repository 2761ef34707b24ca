/* secret.c: key bytes come by read(2) and go by write(2): the buffers of stdio would keep
 * copies that nobody wipes. */
#include "keytool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

struct secret *secret_new(void)
{
    void *pages = mmap(NULL, sizeof(struct secret), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        (void)complain("no memory for a key: %s", strerror(errno));
        return NULL;
    }
    (void)madvise(pages, sizeof(struct secret), MADV_DONTDUMP);
    return pages;
}

void secret_free(struct secret *secret)
{
    if (!secret)
        return;
    explicit_bzero(secret, sizeof *secret);
    (void)munmap(secret, sizeof *secret);
}

/* One byte more than fits tells a longer key from one that fits. */
static int read_all(struct secret *secret, int fd, const char *path)
{
    for (;;) {
        unsigned char beyond;
        bool full = secret->size == sizeof secret->bytes;
        ssize_t got = read(fd, full ? &beyond : secret->bytes + secret->size,
                           full ? 1 : sizeof secret->bytes - secret->size);
        if (got == 0)
            return 0;
        if (got < 0 && errno != EINTR)
            return complain("%s: %s", path, strerror(errno));
        if (got > 0 && full) {
            explicit_bzero(&beyond, 1);
            return complain("%s: more than %u bytes, which no store takes as a key", path,
                            SHK_KEY_SIZE_MAX);
        }
        if (got > 0)
            secret->size += (size_t)got;
    }
}

int secret_read(struct secret *secret, const char *path)
{
    if (!path)
        return read_all(secret, STDIN_FILENO, "standard input");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return complain("%s: %s", path, strerror(errno));
    int rc = read_all(secret, fd, path);
    (void)close(fd);
    return rc;
}

static int write_all(const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t put = write(STDOUT_FILENO, bytes, size);
        if (put < 0 && errno != EINTR)
            return complain("standard output: %s", strerror(errno));
        if (put > 0) {
            bytes += put;
            size -= (size_t)put;
        }
    }
    return 0;
}

int secret_print(const struct secret *secret, bool hex)
{
    static const char digits[] = "0123456789abcdef";
    if (fflush(stdout) != 0)
        return complain("standard output: %s", strerror(errno));
    if (!hex)
        return write_all(secret->bytes, secret->size);
    unsigned char text[512];
    int rc = 0;
    for (size_t from = 0; from < secret->size && rc == 0;) {
        size_t length = 0;
        for (; from < secret->size && length < sizeof text; from++) {
            text[length++] = (unsigned char)digits[secret->bytes[from] >> 4];
            text[length++] = (unsigned char)digits[secret->bytes[from] & 15];
        }
        rc = write_all(text, length);
    }
    explicit_bzero(text, sizeof text);
    return rc ? rc : write_all((const unsigned char *)"\n", 1);
}
