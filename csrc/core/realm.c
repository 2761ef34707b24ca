/* realm.c: entering a realm. */
#include "realm.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "host.h"

#define TRIES 4 /* it changes once, where all keep to the rules */

static uint32_t boot_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

int shk__realm_set(const struct shk_header_shm *header)
{
    uint64_t set = shk__load(&header->set), here = shk__realm_here();
    bool known = here != 0 && shk__load(&header->realm) == here && boot_of(set) == boot_of(here);
    return known ? (int)((uint32_t)set - 1) : -1;
}

static int take_realm(struct shk_header_shm *header, uint64_t here)
{
    uint64_t realm = shk__load(&header->realm);
    for (int tries = 0; tries < TRIES; tries++) {
        if (realm == here)
            return 0;
        if (realm != 0 && boot_of(realm) == boot_of(here))
            return shk__fail(SHK_E_INCOMPATIBLE,
                             "the store in memory lives in IPC namespace %u and this thread is in "
                             "%u, where its semaphores mean nothing: write to it there; read-only "
                             "it can be opened anywhere, and copied to a new store",
                             (uint32_t)realm, (uint32_t)here);
        if (shk__cas64(&header->realm, &realm, here))
            return 0;
    }
    return shk__fail(SHK_E_CORRUPT, "the realm of the store in memory changes again and again");
}

/* Whoever may read the memory knows the key and the constants of the next set, and could make
 * it first, to free the tokens of the living. */
static int check_creator(int id, uid_t owner)
{
    struct shk_semset_info about;
    int rc = shk_semset_stat(id, &about);
    if (rc < 0 || about.cuid == geteuid() || about.cuid == owner || about.cuid == 0)
        return rc;
    return shk__fail(SHK_E_INSECURE,
                     "semaphore set %d (key 0x%x), which the store in memory would use from now on, "
                     "was created by uid %u; accepted are this user, the store's owner (uid %u) and "
                     "root: remove it (ipcrm -s %d)",
                     id, (unsigned)about.key, about.cuid, owner, id);
}

/* The set, and the CAS that names it. Whoever comes late finds another named, made by who was
 * as late and found ours gone; or ours. */
static int make_set(struct shk_header_shm *header, uint64_t here, uint64_t seen, int *set_id)
{
    uint64_t words[2];
    uint8_t store_id[sizeof words];
    struct shk__set set;
    shk__load_words(words, (const uint64_t *)(const void *)header->store_id, 2);
    memcpy(store_id, words, sizeof words);
    uint32_t mode = shk__load(&header->mode);
    if (mode != 0600 && mode != 0640)
        return shk__fail(SHK_E_CORRUPT, "the header says the semaphores have mode %04o", mode);
    uid_t owner = shk__load(&header->owner);
    if (owner == (uid_t)-1) /* "none" to the kernel */
        return shk__fail(SHK_E_CORRUPT, "the header says the store's owner is uid %u", owner);
    int rc = shk__set_join(store_id, (mode_t)mode, &set);
    if (rc == 0)
        rc = check_creator(set.id, owner);
    if (rc == 0 && geteuid() == 0 && owner != 0) /* root came first; its owner is to come in too */
        rc = shk_semset_set(set.id, owner, getegid(), (mode_t)mode);
    if (rc < 0)
        return rc;
    if (shk__cas64(&header->set, &seen, shk__set_word(here, set.id)))
        seen = shk__set_word(here, set.id);
    if (boot_of(seen) != boot_of(here) || (uint32_t)seen == 0)
        return shk__fail(SHK_E_CORRUPT, "the header's set became %#llx while it was made",
                         (unsigned long long)seen);
    if (seen != shk__set_word(here, set.id))
        shk__set_remove(&set);
    *set_id = (int)((uint32_t)seen - 1);
    return 0;
}

int shk__realm_enter(struct shk_header_shm *header, uint64_t *realm, int *set_id)
{
    uint64_t here = shk__realm_here();
    if (here == 0)
        return shk__fail(-ENOTSUP, "the boot and the IPC namespace are unknown, without which a "
                                   "living writer can't be told from a dead one: mount /proc, or "
                                   "open read-only");
    int rc = take_realm(header, here);
    uint64_t set = shk__load(&header->set);
    if (rc == 0 && boot_of(set) == boot_of(here) && (uint32_t)set != 0)
        *set_id = (int)((uint32_t)set - 1);
    else if (rc == 0)
        rc = make_set(header, here, set, set_id);
    if (rc == 0)
        *realm = here;
    return rc;
}

int shk__realm_left(const shk_store *store)
{
    return shk__fail(SHK_E_INCOMPATIBLE,
                     "%s was taken over from IPC namespace %u and another boot while this handle "
                     "was open: its writers have other semaphores now; open it anew",
                     store->title, (uint32_t)shk__load(&shk__header(store)->realm));
}
