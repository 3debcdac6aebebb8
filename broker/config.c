/* From a configuration file to struct config: defaults, checks, messages. What keys there are is
 * config_keys.c's, how a file is written config_syntax.c's. Called by main at start, by --check-config and on
 * reload. */
#include "broker/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/config_keys.h"
#include "broker/config_syntax.h"
#include "broker/shard/env_system.h"
#include "core/base/assert.h"
#include "core/jid.h"

#define KEYS_MAX        64u
#define KEY_BYTES_MAX   64u /* longest path the edit distance looks at */
#define LOCAL_USERS_MAX 256u

struct loading {
    const char *name;
    struct config *config;
    struct xy_buf *errors;
    unsigned set_on[KEYS_MAX]; /* the line that set each key, 0: not set */
    unsigned faults;
};

static void fault(struct loading *loading, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void fault(struct loading *loading, unsigned line, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (line > 0)
        xy_buf_printf(loading->errors, "%s:%u: %s\n", loading->name, line, text);
    else
        xy_buf_printf(loading->errors, "%s: %s\n", loading->name, text);
    loading->faults++;
}

static void *member(struct config *config, const struct config_key *key)
{
    return (char *)config + key->offset;
}

/* ---- the key that was meant ---- */

/* Levenshtein distance with one row; strings beyond KEY_BYTES_MAX are cut, they are no typing errors of ours.
 */
static unsigned edit_distance(struct xy_str a, struct xy_str b)
{
    unsigned row[KEY_BYTES_MAX + 1];
    size_t a_len = a.len < KEY_BYTES_MAX ? a.len : KEY_BYTES_MAX;
    size_t b_len = b.len < KEY_BYTES_MAX ? b.len : KEY_BYTES_MAX;
    for (size_t i = 0; i <= b_len; i++)
        row[i] = (unsigned)i;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned change = diagonal + (a.data[i - 1] != b.data[j - 1]);
            unsigned edit = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = change < edit ? change : edit;
        }
    }
    return row[b_len];
}

/* A key given at the wrong level (`level` instead of `log.level`) is nearer than its letters say. */
static unsigned key_distance(struct xy_str given, const char *path)
{
    const char *dot = strchr(path, '.');
    unsigned whole = edit_distance(given, xy_str(path));
    unsigned last = dot ? edit_distance(given, xy_str(dot + 1)) + 1 : whole;
    return last < whole ? last : whole;
}

static struct xy_str nearest_key(struct xy_str given)
{
    struct xy_str nearest = XY_STR_NONE;
    unsigned best = UINT32_MAX;
    for (size_t i = 0; i < config_keys_count; i++) {
        unsigned distance = key_distance(given, config_keys[i].path);
        if (distance < best) {
            best = distance;
            nearest = xy_str(config_keys[i].path);
        }
    }
    return nearest;
}

/* For an object: `lisen { … }` means `listen`, not a key that happens to be spelt like that. */
static struct xy_str nearest_section(struct xy_str given)
{
    struct xy_str nearest = XY_STR_NONE;
    unsigned best = UINT32_MAX;
    for (size_t i = 0; i < config_keys_count; i++) {
        const char *path = config_keys[i].path, *dot = strchr(path, '.');
        struct xy_str section = dot ? xy_str_n(path, (size_t)(dot - path)) : XY_STR_NONE;
        unsigned distance = dot ? edit_distance(given, section) : UINT32_MAX;
        if (distance < best) {
            best = distance;
            nearest = section;
        }
    }
    return nearest;
}

/* ---- values ---- */

struct suffix {
    const char *name;
    uint64_t factor;
};

static const struct suffix size_suffixes[] = {
    { "", 1 },
    { "b", 1 },
    { "k", 1000 },
    { "kb", UINT64_C(1) << 10 },
    { "m", 1000000 },
    { "mb", UINT64_C(1) << 20 },
    { "g", 1000000000 },
    { "gb", UINT64_C(1) << 30 },
    { "t", UINT64_C(1000000000000) },
    { "tb", UINT64_C(1) << 40 },
    { NULL, 0 },
};
static const struct suffix time_suffixes[] = {
    { "", 1000 },     { "ms", 1 },       { "s", 1000 },      { "min", 60000 },
    { "h", 3600000 }, { "d", 86400000 }, { "w", 604800000 }, { NULL, 0 },
};
static const struct suffix no_suffix[] = { { "", 1 }, { NULL, 0 } };

static bool is_ascii_word(struct xy_str s, const char *word)
{
    if (s.len != strlen(word))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.data[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (c != word[i])
            return false;
    }
    return true;
}

/* Digits and one of the suffixes, upper or lower case; false also when it does not fit 64 bits. */
static bool parse_number(struct xy_str text, const struct suffix *suffixes, uint64_t *out)
{
    size_t digits = 0;
    uint64_t number;
    while (digits < text.len && text.data[digits] >= '0' && text.data[digits] <= '9')
        digits++;
    if (!xy_str_u64(xy_str_n(text.data, digits), &number))
        return false;
    struct xy_str rest = xy_str_n(text.data + digits, text.len - digits);
    for (; suffixes->name; suffixes++) {
        if (is_ascii_word(rest, suffixes->name))
            return !__builtin_mul_overflow(number, suffixes->factor, out);
    }
    return false;
}

/* A number as a file would say it, with the largest suffix that divides it. */
static const char *show_number(char out[32], uint64_t number, enum config_type type)
{
    static const struct suffix sizes[] = { { "gb", UINT64_C(1) << 30 },
                                           { "mb", UINT64_C(1) << 20 },
                                           { "kb", 1 << 10 } };
    static const struct suffix times[] = { { "d", 86400000 }, { "h", 3600000 }, { "s", 1000 }, { "ms", 1 } };
    const struct suffix *suffixes = type == CONFIG_SIZE ? sizes : times;
    size_t count = type == CONFIG_SIZE ? 3 : type == CONFIG_TIME ? 4 : 0;
    for (size_t i = 0; i < count; i++) {
        if (number >= suffixes[i].factor && number % suffixes[i].factor == 0) {
            (void)snprintf(out, 32, "%llu%s", (unsigned long long)(number / suffixes[i].factor),
                           suffixes[i].name);
            return out;
        }
    }
    (void)snprintf(out, 32, "%llu", (unsigned long long)number);
    return out;
}

static void number_fault(struct loading *loading, const struct config_key *key,
                         const struct config_value *value)
{
    static const char *const nouns[] = {
        [CONFIG_COUNT] = "a number",
        [CONFIG_SIZE] = "a size such as 256kb",
        [CONFIG_TIME] = "a time such as 10s, 250ms or 5min",
    };
    char low[32], high[64] = "", number[32];
    if (key->max != UINT64_MAX)
        (void)snprintf(high, sizeof high, " to %s", show_number(number, key->max, key->type));
    fault(loading, value->line, "%s = \"%.*s\": must be %s, from %s%s%s%s", key->path, XY_ARG(value->text),
          nouns[key->type], show_number(low, key->min, key->type), key->max == UINT64_MAX ? " up" : high,
          key->words ? ", or " : "", key->words ? key->words[0] : "");
}

static void set_number(struct loading *loading, const struct config_key *key,
                       const struct config_value *value)
{
    const struct suffix *suffixes = key->type == CONFIG_SIZE   ? size_suffixes
                                    : key->type == CONFIG_TIME ? time_suffixes
                                                               : no_suffix;
    uint64_t *out = member(loading->config, key);
    uint64_t number;
    if (key->words && is_ascii_word(value->text, key->words[0]))
        *out = key->special;
    else if (parse_number(value->text, suffixes, &number) && number >= key->min && number <= key->max)
        *out = number;
    else
        number_fault(loading, key, value);
}

static void set_bool(struct loading *loading, const struct config_key *key, const struct config_value *value)
{
    static const char *const yes[] = { "true", "yes", "on" }, *const no[] = { "false", "no", "off" };
    bool *out = member(loading->config, key);
    for (size_t i = 0; i < 3; i++) {
        if (is_ascii_word(value->text, yes[i]) || is_ascii_word(value->text, no[i])) {
            *out = is_ascii_word(value->text, yes[i]);
            return;
        }
    }
    fault(loading, value->line, "%s = \"%.*s\": must be true or false", key->path, XY_ARG(value->text));
}

static void set_word(struct loading *loading, const struct config_key *key, const struct config_value *value)
{
    char allowed[128] = "";
    size_t len = 0;
    for (size_t i = 0; key->words[i]; i++) {
        if (is_ascii_word(value->text, key->words[i])) {
            *(uint64_t *)member(loading->config, key) = i;
            return;
        }
        len +=
            (size_t)snprintf(allowed + len, sizeof allowed - len, "%s%s", i > 0 ? ", " : "", key->words[i]);
        xy_assert(len < sizeof allowed);
    }
    fault(loading, value->line, "%s = \"%.*s\": must be one of %s", key->path, XY_ARG(value->text), allowed);
}

static void set_tls_library(struct loading *loading, const struct config_key *key,
                            const struct config_value *value)
{
    char present[64] = "";
    const struct xy_tls_library *library;
    for (size_t i = 0; (library = xy_tls_library_at(i)) != NULL; i++) {
        const char *name = xy_tls_library_name(library);
        if (is_ascii_word(value->text, name)) {
            *(const struct xy_tls_library **)member(loading->config, key) = library;
            return;
        }
        size_t len = strlen(present);
        (void)snprintf(present + len, sizeof present - len, "%s%s", i > 0 ? ", " : "", name);
    }
    fault(loading, value->line, "%s = \"%.*s\": must be one of those that this build has: %s", key->path,
          XY_ARG(value->text), present);
}

/* A numeric address and a port; names would need a resolver at every start. */
static bool is_address(struct xy_str text)
{
    char host[64];
    unsigned char binary[16];
    const char *colon = memrchr(text.data, ':', text.len);
    uint32_t port;
    if (!colon)
        return false;
    size_t len = (size_t)(colon - text.data);
    if (!xy_str_u32(xy_str_n(colon + 1, text.len - len - 1), &port) || port > 65535 || len >= sizeof host)
        return false;
    bool v6 = len > 2 && text.data[0] == '[' && text.data[len - 1] == ']';
    size_t host_len = v6 ? len - 2 : len;
    memcpy(host, text.data + (v6 ? 1 : 0), host_len);
    host[host_len] = '\0';
    return inet_pton(v6 ? AF_INET6 : AF_INET, host, binary) == 1;
}

static bool is_account(struct xy_str text)
{
    struct xy_jid jid = { 0 };
    struct xy_arena *arena = xy_arena_new();
    bool ok = arena && xy_jid_parse(arena, text, &jid) && jid.local_len > 0 && xy_jid_is_bare(jid);
    xy_arena_free(&arena);
    return ok;
}

static bool is_domain(struct xy_str text)
{
    struct xy_str prepared;
    struct xy_arena *arena = xy_arena_new();
    bool ok = arena && xy_jid_prep_domain(arena, text, &prepared);
    xy_arena_free(&arena);
    return ok;
}

static bool check_element(struct loading *loading, const struct config_key *key,
                          const struct config_value *value)
{
    const char *wanted = NULL;
    if (key->type == CONFIG_ADDRESSES && !is_address(value->text))
        wanted = "ADDRESS:PORT, such as \"127.0.0.1:5222\" or \"[::]:5222\"";
    else if (key->type == CONFIG_JIDS && !is_account(value->text))
        wanted = "an account such as \"ops@example.org\"";
    else if (key->type == CONFIG_DOMAINS && !is_domain(value->text))
        wanted = "a domain such as \"example.org\"";
    if (wanted)
        fault(loading, value->line, "%s = \"%.*s\": must be %s", key->path, XY_ARG(value->text), wanted);
    return !wanted;
}

static void set_list(struct loading *loading, const struct config_key *key, const struct config_entry *entry)
{
    struct config_list *list = member(loading->config, key);
    *list = (struct config_list){ 0 };
    if (entry->count == 0)
        return;
    list->items = xy_arena_alloc(loading->config->arena, entry->count * sizeof *list->items);
    for (size_t i = 0; list->items && i < entry->count; i++) {
        if (check_element(loading, key, &entry->values[i]))
            list->items[list->count++] = xy_arena_str(loading->config->arena, entry->values[i].text);
    }
}

static bool is_list(enum config_type type)
{
    return type == CONFIG_DOMAINS || type == CONFIG_ADDRESSES || type == CONFIG_JIDS;
}

static void set_value(struct loading *loading, const struct config_key *key, const struct config_entry *entry)
{
    if (is_list(key->type)) {
        set_list(loading, key, entry);
        return;
    }
    xy_assert(entry->count == 1 && key->type != CONFIG_LOCAL_USERS);
    const struct config_value *value = entry->values;
    if (key->type == CONFIG_STRING)
        *(struct xy_str *)member(loading->config, key) = xy_arena_str(loading->config->arena, value->text);
    else if (key->type == CONFIG_BOOL)
        set_bool(loading, key, value);
    else if (key->type == CONFIG_WORD)
        set_word(loading, key, value);
    else if (key->type == CONFIG_TLS_LIBRARY)
        set_tls_library(loading, key, value);
    else
        set_number(loading, key, value);
}

/* ---- entries of the file ---- */

static const char *const kind_names[] = {
    [CONFIG_SCALAR] = "a value", [CONFIG_ARRAY] = "an array", [CONFIG_OBJECT] = "an object"
};

/* One mapping of the local_users object. */
static void add_local_user(struct loading *loading, struct xy_str uid_text, const struct config_entry *entry)
{
    struct config *config = loading->config;
    uint32_t uid;
    if (!xy_str_u32(uid_text, &uid)) {
        fault(loading, entry->line, "auth.local_users: \"%.*s\" is not a numeric user id", XY_ARG(uid_text));
        return;
    }
    if (entry->kind != CONFIG_SCALAR || !is_account(entry->values[0].text)) {
        fault(loading, entry->line, "auth.local_users.%u: must be an account such as \"ops@example.org\"",
              uid);
        return;
    }
    for (size_t i = 0; i < config->auth.local_users_count; i++) {
        if (config->auth.local_users[i].uid == uid) {
            fault(loading, entry->line, "auth.local_users.%u is set twice", uid);
            return;
        }
    }
    if (config->auth.local_users_count == LOCAL_USERS_MAX) {
        fault(loading, entry->line, "auth.local_users: at most %u users", LOCAL_USERS_MAX);
        return;
    }
    if (!config->auth.local_users)
        config->auth.local_users =
            xy_arena_alloc(config->arena, LOCAL_USERS_MAX * sizeof *config->auth.local_users);
    if (config->auth.local_users)
        config->auth.local_users[config->auth.local_users_count++] =
            (struct config_local_user){ .uid = uid,
                                        .jid = xy_arena_str(config->arena, entry->values[0].text) };
}

/* Is `path` an object that holds keys (`log`), so that opening it is fine? */
static bool is_section(struct xy_str path)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const char *key = config_keys[i].path;
        if (strlen(key) > path.len && memcmp(key, path.data, path.len) == 0 && key[path.len] == '.')
            return true;
    }
    return false;
}

/* Two keys may name one member (domain, domains): then only one of them may be given. */
static bool set_before(struct loading *loading, size_t index, unsigned line)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        if (loading->set_on[i] == 0 || config_keys[i].offset != config_keys[index].offset)
            continue;
        if (i == index)
            fault(loading, line, "%s is set twice, first on line %u", config_keys[i].path,
                  loading->set_on[i]);
        else
            fault(loading, line, "%s cannot stand beside %s on line %u", config_keys[index].path,
                  config_keys[i].path, loading->set_on[i]);
        return true;
    }
    return false;
}

static void on_key(struct loading *loading, size_t index, const struct config_entry *entry)
{
    const struct config_key *key = &config_keys[index];
    if (set_before(loading, index, entry->line))
        return;
    loading->set_on[index] = entry->line;
    bool fits = key->type == CONFIG_LOCAL_USERS
                    ? entry->kind == CONFIG_OBJECT
                    : entry->kind == CONFIG_SCALAR || (entry->kind == CONFIG_ARRAY && is_list(key->type));
    if (!fits)
        fault(loading, entry->line, "%s: must be %s, not %s", key->path,
              key->type == CONFIG_LOCAL_USERS ? "an object of uid = account"
              : is_list(key->type)            ? "a string or an array of strings"
                                              : "a single value",
              kind_names[entry->kind]);
    else if (key->type != CONFIG_LOCAL_USERS)
        set_value(loading, key, entry);
}

static void on_entry(void *ctx, const struct config_entry *entry)
{
    static const struct xy_str users = { "auth.local_users.", sizeof "auth.local_users." - 1 };
    struct loading *loading = ctx;
    if (xy_str_starts(entry->path, users)) {
        add_local_user(loading, xy_str_n(entry->path.data + users.len, entry->path.len - users.len), entry);
        return;
    }
    for (size_t i = 0; i < config_keys_count; i++) {
        if (xy_str_is(entry->path, config_keys[i].path)) {
            on_key(loading, i, entry);
            return;
        }
    }
    if (!is_section(entry->path))
        fault(loading, entry->line, "unknown key \"%.*s\"; the nearest is \"%.*s\"", XY_ARG(entry->path),
              XY_ARG(entry->kind == CONFIG_OBJECT ? nearest_section(entry->path) : nearest_key(entry->path)));
    else if (entry->kind != CONFIG_OBJECT)
        fault(loading, entry->line, "%.*s: must be an object, as in %.*s { … }", XY_ARG(entry->path),
              XY_ARG(entry->path));
}

/* ---- the whole ---- */

static void set_defaults(struct loading *loading)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        if (!config_keys[i].fallback)
            continue;
        struct config_value value = { .text = xy_str(config_keys[i].fallback) };
        struct config_entry entry = { .path = xy_str(config_keys[i].path), .values = &value, .count = 1 };
        set_value(loading, &config_keys[i], &entry);
    }
    xy_assert(loading->faults == 0);
}

static unsigned line_of(const struct loading *loading, const char *path)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        if (strcmp(config_keys[i].path, path) == 0)
            return loading->set_on[i];
    }
    xy_assert(!"a key of the table");
    return 0;
}

/* The address of publish-subscribe: given, or below the first domain. */
static void finish_service(struct loading *loading)
{
    struct config *config = loading->config;
    struct xy_str *service = &config->pubsub.service;
    unsigned line = line_of(loading, "pubsub.service");
    if (!xy_str_present(*service) && config->domains.count > 0)
        *service = xy_arena_printf(config->arena, "pubsub.%.*s", XY_ARG(config->domains.items[0]));
    if (xy_str_present(*service) && !is_domain(*service))
        fault(loading, line, "pubsub.service = \"%.*s\": must be a domain such as \"pubsub.example.org\"",
              XY_ARG(*service));
    for (size_t i = 0; i < config->domains.count; i++) {
        if (xy_str_eq(config->domains.items[i], *service))
            fault(loading, line,
                  "pubsub.service = \"%.*s\": is one of the domains; it needs a name of its own",
                  XY_ARG(*service));
    }
}

/* One core stays free for the commit thread and the kernel: a loop on each would be in their way, and two loops that talk to
 * each other from different cores wake each other up all the time. */
static uint64_t automatic_shards(void)
{
    unsigned cores = env_system_cores();
    return cores < 3 ? 1 : cores > CONFIG_SHARDS_MAX ? CONFIG_SHARDS_MAX : cores - 1;
}

/* What `auto` means on this machine, what follows from other keys, and what only makes sense together. */
static void finish(struct loading *loading)
{
    struct config *config = loading->config;
    if (config->shards == 0)
        config->shards = automatic_shards();
    if (config->limits.memory == 0) {
        long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGE_SIZE);
        config->limits.memory =
            pages > 0 && page_bytes > 0 ? (uint64_t)pages / 2 * (uint64_t)page_bytes : UINT64_C(1) << 30;
    }
    if (config->limits.node_memory == 0)
        config->limits.node_memory = config->limits.memory / 4;
    if (config->domains.count == 0 && loading->faults == 0)
        fault(loading, line_of(loading, "domains") + line_of(loading, "domain"),
              "at least one domain is needed");
    finish_service(loading);
    if (!config->tls.library)
        config->tls.library = xy_tls_library_at(0);
    if (config->data_dir.len == 0)
        fault(loading, line_of(loading, "data_dir"), "data_dir must not be empty");
    if (xy_str_present(config->tls.certificate) != xy_str_present(config->tls.key))
        fault(loading, line_of(loading, "tls.certificate") + line_of(loading, "tls.key"),
              "tls.certificate and tls.key are needed together");
}

bool config_parse(const char *name, struct xy_str text, struct config **out, struct xy_buf *errors)
{
    xy_assert(config_keys_count <= KEYS_MAX);
    *out = NULL;
    struct config *config = calloc(1, sizeof *config);
    if (config)
        config->arena = xy_arena_new();
    if (!config || !config->arena) {
        config_free(&config);
        xy_buf_printf(errors, "%s: out of memory\n", name);
        return false;
    }
    struct loading loading = { .name = name, .config = config, .errors = errors };
    set_defaults(&loading);
    const struct config_reader reader = {
        .name = name, .arena = config->arena, .errors = errors, .entry = on_entry, .ctx = &loading
    };
    bool ok = config_read(&reader, text);
    if (ok)
        finish(&loading);
    if (ok && xy_arena_failed(config->arena))
        fault(&loading, 0, "out of memory");
    if (!ok || loading.faults > 0)
        config_free(&config);
    *out = config;
    return config != NULL;
}

static bool read_file(const char *path, struct xy_buf *text, struct xy_buf *errors)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
        xy_buf_printf(errors, "%s: cannot be read: %s\n", path, strerror(fd < 0 ? errno : EISDIR));
        if (fd >= 0)
            close(fd);
        return false;
    }
    ssize_t got = 1;
    while (got > 0 && text->len <= CONFIG_FILE_MAX) {
        char *room = xy_buf_reserve(text, 4096);
        got = room ? read(fd, room, 4096) : -1;
        if (got > 0)
            text->len += (size_t)got;
    }
    int error = errno;
    close(fd);
    if (got < 0)
        xy_buf_printf(errors, "%s: cannot be read: %s\n", path, strerror(error));
    else if (text->len > CONFIG_FILE_MAX)
        xy_buf_printf(errors, "%s: larger than %u bytes\n", path, CONFIG_FILE_MAX);
    return got == 0 && text->len <= CONFIG_FILE_MAX;
}

bool config_load(const char *path, struct config **out, struct xy_buf *errors)
{
    struct xy_buf text = { 0 };
    *out = NULL;
    bool ok = read_file(path, &text, errors) && config_parse(path, xy_buf_view(&text), out, errors);
    xy_buf_free(&text);
    return ok;
}

void config_free(struct config **config)
{
    if (!*config)
        return;
    xy_arena_free(&(*config)->arena);
    free(*config);
    *config = NULL;
}
