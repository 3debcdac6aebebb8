/* The commands on accounts of a stopped broker, by a table of verbs. An import is all or nothing: every line is checked
 * and every key derived before the first record is written. Called by main through users.h. */
#include "broker/router/users.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "broker/router/accounts_internal.h"
#include "broker/shard/env_system.h"

#define THREADS_MAX 64u
#define IMPORT_MAX  10000000u /* users in one file */
#define FLUSH_EVERY 500u      /* records per log entry, about */
#define LIST_PAGE   256u

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct user {
    struct xy_str bare, password; /* in the command's arena, NUL-terminated */
    size_t line;                  /* of the import; 0: none */
    uint64_t created_us;          /* of the account that is changed; 0: new */
    uint8_t salts[ACCOUNTS_KEYS][XY_SCRAM_SALT_DEFAULT];
    struct xy_scram_keys keys[ACCOUNTS_KEYS];
    bool derived;
};

struct users {
    const struct config *config;
    const struct xy_env *env;
    FILE *in, *out, *err;
    struct xy_arena *arena;
    struct xy_str domain; /* the first, prepared */
    struct store *store;
    struct store_shard *shard;
    struct user *list;
    size_t count, cap;
    bool failed; /* of the store, and said */
};

/* --- store -------------------------------------------------------------------------------------------------------- */

static void on_committed(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void on_failed(void *ctx, const char *why)
{
    struct users *users = ctx;
    users->failed = true;
    (void)fprintf(users->err, "xylemd: the store failed: %s\n", why);
}

static bool users_open(struct users *users)
{
    struct xy_buf error = { 0 };
    const struct config *config = users->config;
    struct store_options options = {
        .data_dir = config->data_dir.data,
        .shards = 1,
        .env = users->env,
        .threads = true,
        .log = (enum store_log_kind)config->store.log,
        .log_bytes_max = config->store.log_max,
        .checkpoint_bytes = config->store.checkpoint_bytes,
        .checkpoint_records = config->store.checkpoint_records,
        .map_bytes = config->store.map_size,
        .committed = on_committed,
        .failed = on_failed,
        .ctx = users,
    };
    users->store = store_open(&options, &error);
    if (!users->store)
        (void)fprintf(users->err, "xylemd: %.*s\n", XY_ARG(xy_buf_view(&error)));
    else
        users->shard = store_shard(users->store, 0);
    xy_buf_free(&error);
    return users->store != NULL;
}

/* NULL: none. */
static Xylem__Store__V1__AccountPut *account_read(struct users *users, struct xy_str bare)
{
    struct xy_str value;
    struct xy_arena *arena = xy_arena_new();
    Xylem__Store__V1__AccountPut *put = NULL;
    if (arena && store_get(users->shard, STORE_ACCOUNTS, bare, arena, &value))
        put = xylem__store__v1__account_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    xy_arena_free(&arena);
    return put;
}

static bool account_there(struct users *users, struct xy_str bare)
{
    Xylem__Store__V1__AccountPut *put = account_read(users, bare);
    account_record_free(put);
    return put != NULL;
}

/* --- names and passwords ------------------------------------------------------------------------------------------ */

static void complain(struct users *users, size_t line, struct xy_str what, const char *why)
{
    if (line > 0)
        (void)fprintf(users->err, "xylemd: line %zu: %.*s: %s\n", line, XY_ARG(what), why);
    else
        (void)fprintf(users->err, "xylemd: %.*s: %s\n", XY_ARG(what), why);
}

static bool is_local(struct users *users, struct xy_str domain)
{
    for (size_t i = 0; i < users->config->domains.count; i++) {
        struct xy_str prepared;
        if (xy_jid_prep_domain(users->arena, users->config->domains.items[i], &prepared) &&
            xy_str_eq(prepared, domain))
            return true;
    }
    return false;
}

/* NAME or NAME@DOMAIN; complains. */
static bool name_read(struct users *users, struct xy_str text, size_t line, struct xy_str *bare)
{
    struct xy_jid jid;
    bool whole = text.len > 0 && memchr(text.data, '@', text.len);
    bool ok = whole ? xy_jid_parse(users->arena, text, &jid)
                    : text.len > 0 && xy_jid_make(users->arena, text, users->domain, XY_STR_NONE, &jid);
    if (!ok || jid.local_len == 0 || !xy_jid_is_bare(jid)) {
        complain(users, line, text, "not a user's name: a localpart, or NAME@DOMAIN");
        return false;
    }
    if (!is_local(users, xy_jid_domain(jid))) {
        complain(users, line, text, "this broker does not serve that domain");
        return false;
    }
    *bare = xy_arena_str(users->arena, xy_jid_bare(jid));
    return bare->data != NULL;
}

static struct user *user_add(struct users *users, struct xy_str bare, struct xy_str password, size_t line)
{
    if (users->count == users->cap) {
        size_t cap = users->cap ? users->cap * 2 : 16;
        struct user *grown = cap <= IMPORT_MAX ? realloc(users->list, cap * sizeof(*grown)) : NULL;
        if (!grown) {
            complain(users, line, bare, "too many users at once");
            return NULL;
        }
        users->list = grown;
        users->cap = cap;
    }
    struct user *user = &users->list[users->count++];
    *user = (struct user){ .bare = bare, .password = xy_arena_str(users->arena, password), .line = line };
    xy_random(users->env, user->salts, sizeof(user->salts));
    return user->password.data ? user : NULL;
}

/* One line without its end. false: there is none. */
static bool line_read(FILE *in, char **line, size_t *cap, struct xy_str *out)
{
    ssize_t len = getline(line, cap, in);
    if (len < 0)
        return false;
    if (len > 0 && (*line)[len - 1] == '\n')
        len--;
    if (len > 0 && (*line)[len - 1] == '\r')
        len--;
    *out = xy_str_n(*line, (size_t)len);
    return true;
}

static void line_free(char *line, size_t cap)
{
    if (line)
        explicit_bzero(line, cap);
    free(line);
}

/* --- keys, on all cores ------------------------------------------------------------------------------------------- */

struct derivation {
    struct users *users;
    atomic_size_t next;
};

static void *derive(void *ctx)
{
    struct derivation *derivation = ctx;
    size_t i;
    while ((i = atomic_fetch_add(&derivation->next, 1)) < derivation->users->count) {
        struct user *user = &derivation->users->list[i];
        user->derived = account_keys_derive(user->password, user->salts, user->keys);
    }
    return NULL;
}

/* false: some password is not allowed, and said. */
static bool derive_all(struct users *users)
{
    struct derivation derivation = { .users = users };
    pthread_t threads[THREADS_MAX];
    unsigned cores = env_system_cores(), count = cores < THREADS_MAX ? cores : THREADS_MAX, started = 0;
    while (users->count > 1 && started + 1 < count &&
           pthread_create(&threads[started], NULL, derive, &derivation) == 0)
        started++;
    derive(&derivation);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    bool all = true;
    for (size_t i = 0; i < users->count; i++) {
        if (users->list[i].derived)
            continue;
        complain(users, users->list[i].line, users->list[i].bare,
                 "the password is empty, too long or has characters that are not allowed");
        all = false;
    }
    return all;
}

static void write_all(struct users *users)
{
    for (size_t i = 0; i < users->count; i++) {
        const struct user *user = &users->list[i];
        uint64_t created_us = user->created_us ? user->created_us : xy_wall_us(users->env);
        account_append(users->shard, user->bare, user->keys, ACCOUNTS_KEYS, created_us);
        if (i % FLUSH_EVERY == 0)
            (void)store_flush(users->shard);
    }
    (void)store_flush(users->shard);
}

/* --- verbs -------------------------------------------------------------------------------------------------------- */

static int set_one(struct users *users, char **argv, bool must_exist)
{
    struct xy_str bare, password;
    char *line = NULL;
    size_t cap = 0;
    if (!name_read(users, xy_str(argv[1]), 0, &bare))
        return EXIT_FAILED;
    Xylem__Store__V1__AccountPut *put = account_read(users, bare);
    bool exists = put != NULL;
    uint64_t created_us = put ? put->created_us : 0;
    account_record_free(put);
    if (exists != must_exist) {
        complain(users, 0, bare, exists ? "the account exists already" : "there is no such account");
        return EXIT_FAILED;
    }
    bool ok = line_read(users->in, &line, &cap, &password);
    if (!ok)
        complain(users, 0, bare, "no password: it is read as one line from standard input");
    struct user *user = ok ? user_add(users, bare, password, 0) : NULL;
    line_free(line, cap);
    if (!user)
        return EXIT_FAILED;
    user->created_us = created_us;
    if (!derive_all(users))
        return EXIT_FAILED;
    write_all(users);
    return EXIT_OK;
}

static int run_add(struct users *users, int argc, char **argv)
{
    (void)argc;
    return set_one(users, argv, false);
}

static int run_passwd(struct users *users, int argc, char **argv)
{
    (void)argc;
    return set_one(users, argv, true);
}

static bool import_line(struct users *users, struct xy_table *seen, struct xy_str text, size_t line)
{
    struct xy_str bare;
    const char *colon = memchr(text.data, ':', text.len);
    if (!colon) {
        complain(users, line, XY_STR("malformed"), "NAME:PASSWORD is expected");
        return false;
    }
    size_t name_len = (size_t)(colon - text.data);
    if (!name_read(users, xy_str_n(text.data, name_len), line, &bare))
        return false;
    if (xy_table_get(seen, bare)) {
        complain(users, line, bare, "twice in this file");
        return false;
    }
    if (account_there(users, bare)) {
        complain(users, line, bare, "the account exists already");
        return false;
    }
    return xy_table_put(seen, bare, users, NULL) &&
           user_add(users, bare, xy_str_n(colon + 1, text.len - name_len - 1), line) != NULL;
}

static bool import_read(struct users *users, FILE *file)
{
    struct xy_table *seen = xy_table_new(xy_now_us(users->env));
    struct xy_str text;
    char *line = NULL;
    size_t cap = 0;
    bool ok = seen != NULL;
    for (size_t number = 1; seen && line_read(file, &line, &cap, &text); number++)
        if (text.len > 0 && !import_line(users, seen, text, number))
            ok = false; /* go on: all faults at once */
    line_free(line, cap);
    xy_table_free(&seen);
    return ok;
}

static int run_import(struct users *users, int argc, char **argv)
{
    bool standard = argc < 2 || strcmp(argv[1], "-") == 0;
    FILE *file = standard ? users->in : fopen(argv[1], "r");
    if (!file) {
        (void)fprintf(users->err, "xylemd: %s: %s\n", argv[1], strerror(errno));
        return EXIT_FAILED;
    }
    bool ok = import_read(users, file);
    if (!standard)
        (void)fclose(file);
    if (!ok || !derive_all(users)) {
        (void)fprintf(users->err, "xylemd: nothing was imported\n");
        return EXIT_FAILED;
    }
    write_all(users);
    (void)fprintf(users->out, "imported %zu users\n", users->count);
    return EXIT_OK;
}

static int run_list(struct users *users, int argc, char **argv)
{
    struct store_entry entries[LIST_PAGE];
    struct xy_buf from = { 0 };
    bool more = true;
    (void)argc;
    (void)argv;
    while (more) {
        struct xy_arena *arena = xy_arena_new();
        size_t count = arena ? store_scan(users->shard, STORE_ACCOUNTS, XY_STR(""), xy_buf_view(&from), arena,
                                          entries, LIST_PAGE, &more)
                             : 0;
        for (size_t i = 0; i < count; i++) {
            Xylem__Store__V1__AccountPut *put = xylem__store__v1__account_put__unpack(
                NULL, entries[i].value.len, (const uint8_t *)entries[i].value.data);
            if (put)
                (void)fprintf(users->out, "%s\n", put->jid);
            account_record_free(put);
        }
        xy_buf_reset(&from);
        if (count > 0) {
            xy_buf_str(&from, entries[count - 1].key);
            xy_buf_char(&from, '\0');
        }
        more = more && count > 0;
        xy_arena_free(&arena);
    }
    xy_buf_free(&from);
    return EXIT_OK;
}

static int run_remove(struct users *users, int argc, char **argv)
{
    int code = EXIT_OK;
    for (int i = 1; i < argc; i++) {
        struct xy_str bare;
        if (!name_read(users, xy_str(argv[i]), 0, &bare)) {
            code = EXIT_FAILED;
        } else if (!account_there(users, bare)) {
            complain(users, 0, bare, "there is no such account");
            code = EXIT_FAILED;
        } else {
            Xylem__Store__V1__AccountRemove record = XYLEM__STORE__V1__ACCOUNT_REMOVE__INIT;
            record.jid = (char *)(uintptr_t)bare.data;
            (void)store_append(users->shard, RECORD_ACCOUNT_REMOVE, &record.base);
            (void)store_flush(users->shard);
        }
    }
    return code;
}

static const struct verb {
    const char *name;
    int (*run)(struct users *users, int argc, char **argv);
    int args_min, args_max;
    const char *usage;
} verbs[] = {
    { "add", run_add, 1, 1, "add NAME          (the password is one line of standard input)" },
    { "import", run_import, 0, 1, "import [FILE]     (lines NAME:PASSWORD)" },
    { "list", run_list, 0, 0, "list" },
    { "passwd", run_passwd, 1, 1, "passwd NAME       (the password is one line of standard input)" },
    { "remove", run_remove, 1, 1 << 20, "remove NAME..." },
};

static const struct verb *verb_find(int argc, char **argv)
{
    for (size_t i = 0; argc > 0 && i < sizeof(verbs) / sizeof(*verbs); i++)
        if (strcmp(argv[0], verbs[i].name) == 0 && argc - 1 >= verbs[i].args_min &&
            argc - 1 <= verbs[i].args_max)
            return &verbs[i];
    return NULL;
}

int users_command(const struct config *config, const struct xy_env *env, int argc, char **argv, FILE *in,
                  FILE *out, FILE *err)
{
    const struct verb *verb = verb_find(argc, argv);
    if (!verb) {
        (void)fprintf(err, "usage: xylemd --config FILE --users VERB\n");
        for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
            (void)fprintf(err, "  %s\n", verbs[i].usage);
        return EXIT_USAGE;
    }
    struct users users = {
        .config = config, .env = env, .in = in, .out = out, .err = err, .arena = xy_arena_new()
    };
    int code = EXIT_FAILED;
    if (users.arena && xy_jid_prep_domain(users.arena, config->domains.items[0], &users.domain) &&
        users_open(&users)) {
        code = verb->run(&users, argc, argv);
        store_close(&users.store);
        if (users.failed)
            code = EXIT_FAILED;
    }
    if (users.list)
        explicit_bzero(users.list, users.count * sizeof(*users.list));
    free(users.list);
    xy_arena_free(&users.arena);
    return code;
}
