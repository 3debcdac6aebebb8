/* xylem send: one file to one client, in-band (XEP-0047). Announces name, size and hash, sends, and asks at the end
 * whether everything arrived. Memory does not grow with the file: one buffer, and the window of the bytestream. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xylem/bytestream.h>

#include "agents/cli/cli.h"
#include "agents/cli/transfer.h"
#include "core/base/encoding.h"
#include "core/bytestream/sha256.h"
#include "core/xml/writer.h"
#include "sdk/drivers/system.h"

#define CHUNK         (256u << 10)
#define BLOCK_DEFAULT 32768u /* in base64 well below the usual stanza limits */
#define BLOCK_MAX     65535u

struct sending {
    struct cli *cli;
    int file;
    const char *name;
    char to[3100];
    char sid[XY_ID_LEN + 1];
    uint64_t size, sent;
    char hash[2 * XY_SHA256_BYTES + 1];
    char chunk[CHUNK];
    size_t chunk_len, chunk_at;
    bool closing, over;
    enum xylem_status status;
    char text[300];
    struct transfer_progress progress;
};

static bool open_file(struct sending *s, const char *path)
{
    struct stat info;
    const char *slash = strrchr(path, '/');
    s->name = slash ? slash + 1 : path;
    s->file = open(path, O_RDONLY | O_CLOEXEC);
    if (s->file < 0 || fstat(s->file, &info) != 0) {
        cli_error("%s: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISREG(info.st_mode)) {
        cli_error("%s: not a regular file", path);
        return false;
    }
    s->size = (uint64_t)info.st_size;
    return true;
}

static bool hash_file(struct sending *s)
{
    struct xy_sha256 hash;
    unsigned char digest[XY_SHA256_BYTES];
    uint64_t total = 0;
    ssize_t n;
    xy_sha256_start(&hash);
    while ((n = read(s->file, s->chunk, sizeof s->chunk)) > 0) {
        xy_sha256_add(&hash, s->chunk, (size_t)n);
        total += (uint64_t)n;
    }
    if (n < 0 || lseek(s->file, 0, SEEK_SET) != 0) {
        cli_error("%s: %s", s->name, strerror(errno));
        return false;
    }
    xy_sha256_end(&hash, digest);
    xy_hex_encode(s->hash, digest, sizeof digest);
    s->size = total;
    return true;
}

static void give_up(struct sending *s, struct xylem_bytestream *stream, const char *text)
{
    snprintf(s->text, sizeof s->text, "%s", text);
    xylem_bytestream_abort(stream);
}

static void pump(struct xylem_bytestream *stream, void *ctx)
{
    struct sending *s = ctx;
    while (!s->closing) {
        if (s->chunk_at == s->chunk_len) {
            ssize_t n = read(s->file, s->chunk, sizeof s->chunk);
            if (n < 0) {
                give_up(s, stream, strerror(errno));
                return;
            }
            s->chunk_at = 0;
            s->chunk_len = (size_t)n;
            if (n == 0) {
                s->closing = true;
                xylem_bytestream_close(stream);
                return;
            }
        }
        size_t taken = xylem_bytestream_write(stream, s->chunk + s->chunk_at, s->chunk_len - s->chunk_at);
        if (taken == 0)
            break;
        s->chunk_at += taken;
        s->sent += taken;
    }
    transfer_show(&s->progress, s->sent);
}

static void on_closed(struct xylem_bytestream *stream, const struct xylem_bytestream_end *end, void *ctx)
{
    (void)stream;
    struct sending *s = ctx;
    s->over = true;
    s->status = end->status;
    if (s->status == XYLEM_OK && (!s->closing || s->sent != s->size)) {
        s->status = XYLEM_REFUSED;
        snprintf(s->text, sizeof s->text, "%s",
                 s->closing ? "the file changed while it was sent" : "the recipient ended the transfer");
    }
    if (s->status != XYLEM_OK && !s->text[0])
        snprintf(s->text, sizeof s->text, "%s", end->text);
}

static void write_file_element(struct xy_buf *out, const struct sending *s, bool offer)
{
    xy_buf_printf(out, "<%s xmlns='" NS_XYLEM_FILE "' sid='%s'", offer ? "offer" : "done", s->sid);
    if (offer) {
        xy_xml_attr(out, "name", xy_str(s->name));
        xy_buf_printf(out, " size='%llu' sha256='%s'", (unsigned long long)s->size, s->hash);
    }
    xy_buf_lit(out, "/>");
}

static enum xylem_status ask_recipient(struct sending *s, bool offer)
{
    struct xy_buf payload = { 0 };
    write_file_element(&payload, s, offer);
    enum xylem_status status = cli_ask(s->cli, s->to, true, &payload, NULL, NULL, true);
    xy_buf_free(&payload);
    return status;
}

static int transfer(struct sending *s, uint32_t block)
{
    const struct xylem_bytestream_handlers handlers = {
        .size = sizeof handlers, .opened = pump, .writable = pump, .closed = on_closed
    };
    struct xylem_bytestream *stream;
    transfer_begin(&s->progress, s->name, s->size);
    enum xylem_status status =
        xylem_bytestream_open(s->cli->client, s->to, s->sid, block, &handlers, s, &stream);
    if (status != XYLEM_OK) {
        cli_error("the bytestream cannot be opened: %s", xylem_status_text(status));
        return CLI_FAILED;
    }
    while (!s->over) {
        if (cli_turn(s->cli, -1) == CLI_DONE)
            continue;
        if (!s->over)
            xylem_bytestream_abort(stream); /* interrupted, or the connection is gone for good */
        return CLI_FAILED;
    }
    if (s->status == XYLEM_OK)
        return CLI_DONE;
    cli_error("%s was not sent: %s (%s)", s->name, xylem_status_text(s->status), s->text);
    return CLI_FAILED;
}

static int refused(const struct sending *s, enum xylem_status status)
{
    if (status == XYLEM_UNAVAILABLE || status == XYLEM_NOT_FOUND)
        cli_error("%s is not there: the recipient must run `xylem recv`, or be named with the resource that "
                  "receives",
                  s->to);
    else
        cli_error("%s refused the file: %s", s->to, xylem_client_error(s->cli->client));
    return CLI_FAILED;
}

static int send_file(struct sending *s, uint32_t block)
{
    enum xylem_status status = ask_recipient(s, true);
    bool plain = status == XYLEM_UNSUPPORTED; /* another program, which may know XEP-0047 all the same */
    if (status != XYLEM_OK && !plain)
        return refused(s, status);
    int result = transfer(s, block);
    double seconds = transfer_end(&s->progress);
    if (result != CLI_DONE)
        return result;
    if (!plain && ask_recipient(s, false) != XYLEM_OK) {
        cli_error("%s did not arrive whole: %s", s->name, xylem_client_error(s->cli->client));
        return CLI_FAILED;
    }
    fprintf(stderr, "sent %s to %s: %llu bytes in %.2f s, %.1f MiB/s%s\n", s->name, s->to,
            (unsigned long long)s->sent, seconds, seconds > 0 ? (double)s->sent / seconds / 1048576 : 0,
            plain ? "" : ", hash verified");
    return CLI_DONE;
}

int cli_send(struct cli *cli)
{
    static struct sending s; /* too large for the stack */
    uint64_t block = BLOCK_DEFAULT;
    if (!cli_number(cli, OPT_BLOCK, BLOCK_MAX, &block))
        return CLI_USAGE;
    s.cli = cli;
    const char *to = cli->argument[1];
    snprintf(s.to, sizeof s.to, "%s%s", to, strchr(to, '/') ? "" : "/" TRANSFER_RESOURCE);
    xy_random_id(xy_env_system(), s.sid);
    int status = CLI_FAILED;
    if (open_file(&s, cli->argument[0]) && hash_file(&s)) {
        status = cli_connect(cli, NULL);
        if (status == CLI_DONE)
            status = send_file(&s, (uint32_t)block);
    }
    if (s.file >= 0)
        close(s.file);
    return status;
}
