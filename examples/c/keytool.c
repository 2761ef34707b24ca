/* keytool: session keys in shared memory, from the shell. An example of shk.h.
 *
 *     make && ./build/keytool create gateway 1000
 *     head -c 32 /dev/urandom | ./build/keytool put gateway client-1 server-1 --ttl 3600
 *     ./build/keytool get gateway client-1 server-1 --hex
 *     ./build/keytool watch gateway
 *
 * Where to read what: opening.c finds a store by name, key or id, or in a file; pairs.c reads and writes
 * one pair, with conditions and graces; whole.c goes through all of them, checks, repairs
 * and moves a store; follow.c waits for changes and goes along when a store moves;
 * secret.c keeps keys out of core dumps, argument lists and freed memory.
 *
 * Exit status: 0; 1 it failed; 2 the command line is wrong; 3 the pair is not as asked for:
 * absent, revoked, expired, there already, or under another key id.
 */
#include "keytool.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct {
    const char *name, *arguments;
    int count; /* of the arguments */
    command *run;
    const char *about;
} commands[] = {
    {"create", "STORE", 1, command_create, "--capacity N; --id-size, --key-size, --group"},
    {"put", "STORE CLIENT SERVER", 3, command_put,
     "the key from standard input, each byte of it, or --key-file; --ttl, --key-id, --if-absent, "
     "--if-key-id"},
    {"get", "STORE CLIENT SERVER", 3, command_get, "--hex or --raw; --key-id"},
    {"show", "STORE CLIENT SERVER", 3, command_show, "all but the key"},
    {"rotate", "STORE CLIENT SERVER", 3, command_rotate,
     "a random key, or --key-file; --grace, --if-key-id"},
    {"revoke", "STORE CLIENT SERVER", 3, command_revoke, ""},
    {"touch", "STORE CLIENT SERVER", 3, command_touch, "--ttl counts anew; without, for ever"},
    {"delete", "STORE CLIENT SERVER", 3, command_delete, ""},
    {"list", "STORE", 1, command_list, "CLIENT SERVER KEY-ID LENGTH STATUS; --at-once"},
    {"classic", "STORE", 1, command_classic, "the slots, seen as classic records"},
    {"watch", "STORE", 1, command_watch,
     "REVISION KIND CLIENT SERVER; --since, --count, --timeout"},
    {"serve", "STORE", 1, command_serve, "answers lines CLIENT SERVER [KEY-ID]; --hex"},
    {"stats", "STORE", 1, command_stats, ""},
    {"verify", "STORE", 1, command_verify, "recovers first, but with --readonly"},
    {"repair", "STORE", 1, command_repair, ""},
    {"purge", "STORE", 1, command_purge, "wipes what has expired"},
    {"move", "STORE LARGER-STORE", 2, command_move, ""},
    {"destroy", "STORE", 1, command_destroy, ""},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

int complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("keytool: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    return FAILED;
}

static int usage(FILE *to, int status)
{
    (void)fprintf(to, "keytool (libshmkey %s)\n"
                      "STORE is a name, key:NUMBER, id:NUMBER or file:PATH; --owner UID: another's "
                      "name\n",
                  shk_version());
    for (int i = 0; i < COMMANDS; i++)
        (void)fprintf(to, "  keytool %s %s\n%s%s%s", commands[i].name, commands[i].arguments,
                      *commands[i].about ? "      " : "", commands[i].about,
                      *commands[i].about ? "\n" : "");
    return status;
}

/* ------------------------------------------------------------ command line -- */

/* 0 to limit, or complains and exits. */
static uint64_t number(const char *option, const char *text, uint64_t limit)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    if (errno || end == text || *end || strchr(text, '-') || value > limit) {
        (void)complain("--%s %s: a number from 0 to %llu is needed", option, text,
                       (unsigned long long)limit);
        exit(MISUSED);
    }
    return value;
}

/* Seconds, with a fraction or without, in nanoseconds; none that is 0. */
static uint64_t seconds(const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 1e-9 && value < 9e9)) {
        (void)complain("--%s %s: a number of seconds above 0 is needed", option, text);
        exit(MISUSED);
    }
    return (uint64_t)(value * 1e9);
}

static int parse(int argc, char **argv, struct request *request)
{
    enum { KEY_FILE, OWNER, TTL, GRACE, TIMEOUT, COUNT, CAPACITY, SINCE, ID_SIZE, KEY_SIZE, KEY_ID,
           IF_KEY_ID, IF_ABSENT, GROUP, READONLY, AT_ONCE, HEX, RAW, HELP };
    static const struct option options[] = {
        {"key-file", 1, NULL, KEY_FILE},   {"owner", 1, NULL, OWNER},
        {"ttl", 1, NULL, TTL},             {"grace", 1, NULL, GRACE},
        {"timeout", 1, NULL, TIMEOUT},     {"count", 1, NULL, COUNT},
        {"capacity", 1, NULL, CAPACITY},      {"since", 1, NULL, SINCE},
        {"id-size", 1, NULL, ID_SIZE},     {"key-size", 1, NULL, KEY_SIZE},
        {"key-id", 1, NULL, KEY_ID},       {"if-key-id", 1, NULL, IF_KEY_ID},
        {"if-absent", 0, NULL, IF_ABSENT}, {"group", 0, NULL, GROUP},
        {"readonly", 0, NULL, READONLY},   {"at-once", 0, NULL, AT_ONCE},
        {"hex", 0, NULL, HEX},             {"raw", 0, NULL, RAW},
        {"help", 0, NULL, HELP},           {NULL, 0, NULL, 0},
    };
    for (int option, which = 0;
         (option = getopt_long(argc, argv, "", options, &which)) != -1;) {
        const char *name = options[which].name;
        switch (option) {
        case KEY_FILE: request->key_file = optarg; break;
        case OWNER: request->owner = (uid_t)number(name, optarg, UINT32_MAX); break;
        case TTL: request->ttl = seconds(name, optarg); break;
        case GRACE: request->grace = seconds(name, optarg); break;
        case TIMEOUT: request->timeout = seconds(name, optarg); break;
        case COUNT: request->count = number(name, optarg, UINT64_MAX); break;
        case CAPACITY: request->capacity = number(name, optarg, UINT64_MAX); break;
        case SINCE:
            request->since = number(name, optarg, UINT64_MAX);
            request->since_given = true;
            break;
        case ID_SIZE: request->id_size = (uint32_t)number(name, optarg, UINT32_MAX); break;
        case KEY_SIZE: request->key_size = (uint32_t)number(name, optarg, UINT32_MAX); break;
        case KEY_ID: request->key_id = (int32_t)number(name, optarg, INT32_MAX); break;
        case IF_KEY_ID: request->if_key_id = (int32_t)number(name, optarg, INT32_MAX); break;
        case IF_ABSENT: request->if_absent = true; break;
        case GROUP: request->group = true; break;
        case READONLY: request->readonly = true; break;
        case AT_ONCE: request->at_once = true; break;
        case HEX: request->hex = true; break;
        case RAW: request->raw = true; break;
        case HELP: exit(usage(stdout, 0));
        default: return MISUSED; /* getopt_long has said why */
        }
    }
    return 0;
}

/* What a failed call means to whoever waits for this program. */
static int status_of(int rc)
{
    switch (rc) {
    case SHK_E_ABSENT:
    case SHK_E_REVOKED:
    case SHK_E_EXPIRED:
    case SHK_E_EXISTS:
    case SHK_E_CONFLICT:
        return PAIR_NOT_SO;
    default:
        return FAILED;
    }
}

int main(int argc, char **argv)
{
    struct request request = {
        .owner = geteuid(), .timeout = SHK_FOREVER, .key_id = -1, .if_key_id = -1};
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* keys pass through this process */
    if (parse(argc, argv, &request) != 0)
        return MISUSED;
    if (optind == argc)
        return usage(stderr, MISUSED);
    const char *name = argv[optind];
    request.words = argv + optind + 1;
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        if (argc - optind - 1 != commands[i].count) {
            (void)complain("it is: keytool %s %s", name, commands[i].arguments);
            return MISUSED;
        }
        int rc = commands[i].run(&request);
        if (rc < 0) { /* the library's message, and what it has to say to this very case */
            const char *detail = shk_error_detail();
            (void)complain("%s: %s%s%s", name, shk_error_message(rc), *detail ? ": " : "", detail);
            return status_of(rc);
        }
        if (fflush(stdout) != 0)
            return complain("standard output: %s", strerror(errno));
        return rc;
    }
    (void)complain("'%s' is no command; they are:", name);
    return usage(stderr, MISUSED);
}
