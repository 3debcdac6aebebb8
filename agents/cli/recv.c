/* xylem recv: files into a folder. What comes is written to a hidden file beside its goal, checked, fsynced and renamed,
 * so that a name in the folder always means a whole file. Accepts files announced by `xylem send`, and plain XEP-0047
 * streams of other programs, which are stored under the stream's id. An existing file is never replaced. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <xylem/bytestream.h>

#include "agents/cli/cli.h"
#include "agents/cli/transfer.h"
#include "core/base/encoding.h"
#include "core/base/list.h"
#include "core/bytestream/sha256.h"
#include "sdk/drivers/system.h"
#include "sdk/src/fragment.h"

#define FILES_MAX      32u /* announced, coming or just done */
#define NAME_TRIES_MAX 1000u

enum step { ANNOUNCED, COMING, STORED, FAILED };

struct incoming {
    struct xy_list link;
    struct receiving *owner;
    enum step step;
    char peer[3100], sid[300], name[TRANSFER_NAME_MAX + 20], hidden[64];
    bool announced; /* size and hash are known */
    uint64_t size, got;
    unsigned char expected[XY_SHA256_BYTES];
    struct xy_sha256 hash;
    int file;
    struct xylem_bytestream *stream; /* while it comes */
    struct transfer_progress progress;
};

struct receiving {
    struct cli *cli;
    int folder;
    struct xy_list files;
    unsigned count, stored;
    bool once, told;
};

static struct incoming *find(struct receiving *r, const char *peer, const char *sid)
{
    xy_list_each (entry, &r->files) {
        struct incoming *f = xy_container_of(entry, struct incoming, link);
        if (strcmp(f->peer, peer) == 0 && strcmp(f->sid, sid) == 0)
            return f;
    }
    return NULL;
}

static void drop(struct incoming *f)
{
    struct receiving *r = f->owner;
    if (f->file >= 0) {
        close(f->file);
        unlinkat(r->folder, f->hidden, 0);
    }
    xy_list_remove(&f->link);
    r->count--;
    free(f);
}

/* The oldest that nobody works on makes room. */
static bool make_room(struct receiving *r)
{
    xy_list_each (entry, &r->files) {
        struct incoming *f = xy_container_of(entry, struct incoming, link);
        if (r->count < FILES_MAX)
            break;
        if (f->step != COMING)
            drop(f);
    }
    return r->count < FILES_MAX;
}

/* Only the last part of a path, no hidden files, nothing that a terminal would act on. */
static void safe_name(char *out, size_t size, const char *name)
{
    const char *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    size_t len = 0;
    for (; *name && len + 1 < size && len < TRANSFER_NAME_MAX; name++) {
        unsigned char c = (unsigned char)*name;
        bool plain = c > 0x20 && c != 0x7f && c != '\\' && !(len == 0 && c == '.');
        out[len] = plain || (c == ' ' && len > 0) ? (char)c : '_';
        len++;
    }
    out[len] = '\0';
    if (len == 0)
        snprintf(out, size, "file");
}

static struct incoming *announce(struct receiving *r, const char *peer, const char *sid, const char *name)
{
    struct incoming *f = strlen(peer) < sizeof f->peer && strlen(sid) < sizeof f->sid && make_room(r)
                             ? calloc(1, sizeof *f)
                             : NULL;
    if (!f)
        return NULL;
    f->owner = r;
    f->file = -1;
    snprintf(f->peer, sizeof f->peer, "%s", peer);
    snprintf(f->sid, sizeof f->sid, "%s", sid);
    safe_name(f->name, TRANSFER_NAME_MAX, name);
    xy_list_append(&r->files, &f->link);
    r->count++;
    return f;
}

/* --- the announcement, and the question at the end --- */

static const char *text_attr(struct xy_arena *arena, const struct xy_elem *e, const char *name)
{
    struct xy_str value = xy_elem_attr(e, name);
    return xy_str_present(value) ? xy_arena_str(arena, value).data : "";
}

static const char *take_offer(struct receiving *r, const struct xylem_stanza *stanza, struct xy_arena *arena,
                              const struct xy_elem *offer)
{
    const char *sid = text_attr(arena, offer, "sid"), *name = text_attr(arena, offer, "name");
    struct xy_str sha = xy_elem_attr(offer, "sha256");
    uint64_t size;
    unsigned char digest[XY_SHA256_BYTES];
    if (!*sid || !*name || !xy_str_u64(xy_elem_attr(offer, "size"), &size) || sha.len != 2 * sizeof digest ||
        !xy_hex_decode(digest, sha))
        return "bad-request";
    if (find(r, stanza->from, sid))
        return "conflict";
    struct incoming *f = announce(r, stanza->from, sid, name);
    if (!f)
        return "resource-constraint";
    f->announced = true;
    f->size = size;
    memcpy(f->expected, digest, sizeof digest);
    return NULL;
}

static const char *answer_done(struct receiving *r, const struct xylem_stanza *stanza, struct xy_arena *arena,
                               const struct xy_elem *done)
{
    struct incoming *f = find(r, stanza->from, text_attr(arena, done, "sid"));
    if (!f || f->step == ANNOUNCED || f->step == COMING)
        return f ? "unexpected-request" : "item-not-found";
    bool stored = f->step == STORED;
    drop(f);
    r->told = true;
    return stored ? NULL : "not-acceptable";
}

static bool on_request(struct xylem_client *client, const struct xylem_stanza *stanza, void *ctx)
{
    struct receiving *r = ctx;
    struct xy_arena *arena;
    struct xy_elem *iq = xy_fragment_parse(xy_str_n(stanza->xml, stanza->len), &arena);
    const struct xy_elem *payload = iq ? xy_elem_first(iq) : NULL;
    const char *refusal = "bad-request";
    if (payload && strcmp(stanza->type, "set") == 0)
        refusal = xy_str_is(payload->name, "offer") ? take_offer(r, stanza, arena, payload)
                                                    : answer_done(r, stanza, arena, payload);
    xylem_reply(client, stanza->from, stanza->id, NULL, refusal, NULL);
    xy_arena_free(&arena);
    return true;
}

/* --- the bytes --- */

static bool on_data(struct xylem_bytestream *stream, const void *data, size_t len, void *ctx)
{
    struct incoming *f = ctx;
    const char *at = data;
    size_t left = len;
    while (left > 0 && f->file >= 0) {
        ssize_t n = write(f->file, at, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || (f->announced && f->got + len > f->size)) {
            cli_error("%s: %s", f->name, n <= 0 ? strerror(errno) : "more bytes came than were announced");
            xylem_bytestream_abort(stream);
            return true;
        }
        at += n;
        left -= (size_t)n;
    }
    xy_sha256_add(&f->hash, data, len);
    f->got += len;
    transfer_show(&f->progress, f->got);
    return true;
}

/* NAME, or NAME.1, NAME.2 … if it is taken. */
static bool give_name(struct incoming *f)
{
    int folder = f->owner->folder;
    char name[sizeof f->name];
    snprintf(name, sizeof name, "%s", f->name);
    for (unsigned i = 1; i < NAME_TRIES_MAX; i++) {
        if (linkat(folder, f->hidden, folder, name, 0) == 0) {
            unlinkat(folder, f->hidden, 0);
            snprintf(f->name, sizeof f->name, "%s", name);
            return fsync(folder) == 0;
        }
        if (errno != EEXIST)
            return false;
        snprintf(name, sizeof name, "%.*s.%u", (int)TRANSFER_NAME_MAX, f->name, i);
    }
    return false;
}

static bool store(struct incoming *f, const char **why)
{
    unsigned char digest[XY_SHA256_BYTES];
    xy_sha256_end(&f->hash, digest);
    *why = "it is shorter than announced";
    if (f->announced && f->got != f->size)
        return false;
    *why = "its hash is not the announced one";
    if (f->announced && memcmp(digest, f->expected, sizeof digest) != 0)
        return false;
    bool ok = fsync(f->file) == 0 && give_name(f);
    *why = strerror(errno);
    return ok;
}

static void on_closed(struct xylem_bytestream *stream, const struct xylem_bytestream_end *end, void *ctx)
{
    (void)stream;
    struct incoming *f = ctx;
    struct receiving *r = f->owner;
    const char *why = end->text;
    f->stream = NULL;
    double seconds = transfer_end(&f->progress);
    bool stored = end->status == XYLEM_OK && f->file >= 0 && store(f, &why);
    if (stored) {
        printf("%s\n", f->name);
        fflush(stdout);
        fprintf(stderr, "received %s from %s: %llu bytes in %.2f s, %.1f MiB/s%s\n", f->name, f->peer,
                (unsigned long long)f->got, seconds, seconds > 0 ? (double)f->got / seconds / 1048576 : 0,
                f->announced ? ", hash verified" : "");
        close(f->file);
        f->file = -1;
        r->stored++;
    } else {
        cli_error("%s from %s was thrown away: %s", f->name, f->peer, why);
        if (f->file >= 0) {
            close(f->file);
            unlinkat(r->folder, f->hidden, 0);
            f->file = -1;
        }
    }
    f->step = stored ? STORED : FAILED;
    if (!f->announced) { /* nobody will ask */
        r->told = true;
        drop(f);
    }
}

static const char *on_stream(struct xylem_bytestream *stream, struct xylem_bytestream_handlers *handlers,
                             void **stream_ctx, void *ctx)
{
    struct receiving *r = ctx;
    const char *peer = xylem_bytestream_peer(stream), *sid = xylem_bytestream_sid(stream);
    struct incoming *f = find(r, peer, sid);
    if (f && f->step != ANNOUNCED)
        return "not-acceptable";
    if (!f)
        f = announce(r, peer, sid, sid);
    if (!f)
        return "resource-constraint";
    char id[XY_ID_LEN + 1];
    xy_random_id(xy_env_system(), id);
    snprintf(f->hidden, sizeof f->hidden, ".%s.part", id);
    f->file = openat(r->folder, f->hidden, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (f->file >= 0)
        (void)flock(f->file, LOCK_EX | LOCK_NB); /* nobody else has it: see sweep */
    if (f->file < 0) {
        cli_error("%s cannot be written: %s", f->name, strerror(errno));
        drop(f);
        return "resource-constraint";
    }
    f->step = COMING;
    f->stream = stream;
    xy_sha256_start(&f->hash);
    transfer_begin(&f->progress, f->name, f->size);
    *handlers =
        (struct xylem_bytestream_handlers){ .size = sizeof *handlers, .data = on_data, .closed = on_closed };
    *stream_ctx = f;
    return NULL;
}

/* Of a hidden file's name: ".", the id, ".part". */
static bool is_hidden_name(const char *name)
{
    unsigned char id[XY_ID_LEN / 2];
    return name[0] == '.' && strlen(name) == 1 + XY_ID_LEN + strlen(".part") &&
           strcmp(name + 1 + XY_ID_LEN, ".part") == 0 && xy_hex_decode(id, xy_str_n(name + 1, XY_ID_LEN));
}

/* What a former recv left that was killed: whoever still writes one holds its lock. */
static void sweep(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (!is_hidden_name(entry->d_name))
            continue;
        int file = openat(folder, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0)
            unlinkat(folder, entry->d_name, 0);
        if (file >= 0)
            close(file);
    }
    if (dir)
        closedir(dir);
    else if (copy >= 0)
        close(copy);
}

/* Whoever is sending shall know at once. */
static void abort_all(struct receiving *r)
{
    xy_list_each (entry, &r->files) {
        struct incoming *f = xy_container_of(entry, struct incoming, link);
        if (f->stream)
            xylem_bytestream_abort(f->stream);
    }
}

static int receive(struct receiving *r, uint64_t timeout_s)
{
    uint64_t end_us = timeout_s ? xy_now_us(xy_env_system()) + timeout_s * 1000000 : UINT64_MAX;
    while (!(r->once && r->told)) {
        if (xy_now_us(xy_env_system()) >= end_us)
            return CLI_TIMED_OUT;
        if (cli_turn(r->cli, end_us == UINT64_MAX ? -1 : 500) != CLI_DONE)
            return r->cli->interrupted && !r->once ? CLI_DONE : CLI_FAILED;
    }
    return r->stored ? CLI_DONE : CLI_FAILED;
}

int cli_recv(struct cli *cli)
{
    struct receiving r = { .cli = cli, .once = cli->option[OPT_ONCE] != NULL };
    const char *into = cli->option[OPT_INTO] ? cli->option[OPT_INTO] : ".";
    const char *resource = cli->option[OPT_RESOURCE] ? cli->option[OPT_RESOURCE] : TRANSFER_RESOURCE;
    uint64_t timeout_s = 0;
    xy_list_init(&r.files);
    if (!cli_number(cli, OPT_TIMEOUT, 1u << 30, &timeout_s))
        return CLI_USAGE;
    r.folder = open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r.folder < 0) {
        cli_error("%s: %s", into, strerror(errno));
        return CLI_FAILED;
    }
    sweep(r.folder);
    int status = cli_client(cli, resource, XYLEM_RETRY_ONCE_ONLINE, NULL);
    if (status == CLI_DONE) {
        xylem_on_request(cli->client, "offer", NS_XYLEM_FILE, on_request, &r);
        xylem_on_request(cli->client, "done", NS_XYLEM_FILE, on_request, &r);
        xylem_bytestream_listen(cli->client, on_stream, &r);
        xylem_client_start(cli->client);
        while (status == CLI_DONE && xylem_client_state(cli->client) != XYLEM_STATE_ONLINE)
            status = cli_turn(cli, -1);
        if (status == CLI_DONE)
            fprintf(stderr, "receiving as %s into %s\n", xylem_client_jid(cli->client), into);
        if (status == CLI_DONE)
            status = receive(&r, timeout_s);
        abort_all(&r);
        cli_close(cli);
        xylem_client_free(cli->client);
        cli->client = NULL; /* before what its callbacks point at */
    }
    xy_list_each (entry, &r.files)
        drop(xy_container_of(entry, struct incoming, link));
    close(r.folder);
    return status;
}
