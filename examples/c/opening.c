/* opening.c: finding a store by name, by key, by the id of its segment, or in a file. */
#include "keytool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether the text is the prefix and a number of 32 bits. */
static bool is_number(const char *text, const char *prefix, int *out)
{
    size_t length = strlen(prefix);
    char *end;
    if (strncmp(text, prefix, length) != 0 || text[length] < '0' || text[length] > '9')
        return false;
    errno = 0;
    unsigned long number = strtoul(text + length, &end, 0);
    *out = (int)number;
    return errno == 0 && *end == 0 && number <= UINT32_MAX;
}

/* The file's size; one that is created is given what the shape takes: zeros, and no blocks yet. */
static int size_of(int file, const struct shk_shape *shape, enum use use, size_t *out)
{
    struct stat about;
    size_t wanted = 0;
    int rc = use == CREATING ? shk_store_size(shape, &wanted) : 0;
    if (rc < 0)
        return rc;
    if (fstat(file, &about) != 0)
        return -errno;
    if ((size_t)about.st_size < wanted && ftruncate(file, (off_t)wanted) != 0)
        return -errno;
    *out = (size_t)about.st_size < wanted ? wanted : (size_t)about.st_size;
    return 0;
}

/* The mapping stays until this process ends. */
static int open_file(const char *path, const struct shk_shape *shape, enum use use,
                     const struct shk_access *access, shk_store **out)
{
    int mode = (use == READING ? O_RDONLY : O_RDWR) | (use == CREATING ? O_CREAT : 0) | O_CLOEXEC;
    int file = open(path, mode, 0600);
    size_t size = 0;
    if (file < 0)
        return complain("%s: %s", path, strerror(errno));
    int rc = size_of(file, shape, use, &size);
    void *base = MAP_FAILED;
    if (rc == 0)
        base = mmap(NULL, size, use == READING ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED,
                    file, 0);
    if (rc == 0 && base == MAP_FAILED)
        rc = complain("%s: mmap of %zu bytes: %s", path, size, strerror(errno));
    (void)close(file);
    return rc ? rc
              : shk_store_in_memory(use == CREATING ? SHK_CREATE : SHK_OPEN, base, size,
                                    use == CREATING ? shape : NULL, access, out);
}

int open_store(const struct request *request, const char *store, enum use use, shk_store **out)
{
    struct shk_access access = {.readonly = use == READING,
                                .open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                .lock_timeout = SHK_LOCK_TIMEOUT_DEFAULT};
    struct shk_shape shape = {.capacity = request->capacity,
                              .id_size = request->id_size,
                              .key_size = request->key_size,
                              .mode = request->group ? 0640 : 0600};
    /* The owner is always set: a name belongs to a user, and 0 is root. */
    struct shk_address address = {.owner = request->owner};
    int number;
    if (strncmp(store, "file:", 5) == 0)
        return open_file(store + 5, &shape, use, &access, out);
    if (is_number(store, "id:", &number)) {
        if (use == CREATING)
            return complain("%s: the kernel chooses the id; create a name, or key:NUMBER", store);
        return shk_store_from_id(number, &access, out);
    }
    if (is_number(store, "key:", &number))
        address.key = number; /* 0, IPC_PRIVATE, makes one that is found by its id alone */
    else
        address.name = shk_text(store);
    return shk_store_open(use == CREATING ? SHK_CREATE : SHK_OPEN, &address, &shape, &access, out);
}

int open_successor(shk_store **store)
{
    struct shk_successor next;
    struct shk_info info;
    shk_store *opened;
    int rc = shk_store_successor(*store, &next);
    if (rc < 0)
        return rc;
    if (next.id < 0)
        return complain("the store moved to a file or other memory, which nothing here names");
    shk_store_info(*store, &info);
    /* By the id, and only if it is still that very store: ids are used again. */
    struct shk_access access = {.readonly = info.readonly,
                                .trust = &info.owner,
                                .trust_count = 1,
                                .open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                .lock_timeout = shk_store_lock_timeout(*store),
                                .store_id = next.store_id};
    rc = shk_store_from_id(next.id, &access, &opened);
    if (rc == 0) {
        shk_store_close(*store);
        *store = opened;
    }
    return rc;
}
