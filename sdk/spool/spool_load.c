/* Opening a spool: the segments a former run left, read record by record. A torn tail of the newest one was never taken for
 * good and is cut off; anything else that cannot be read is damage and refused, with the file's name. See spool.c for the
 * format. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/base/encoding.h"
#include "sdk/spool/file.h"
#include "sdk/spool/spool_internal.h"

#define MISSING_MAX (1u << 20) /* numbers of files that somebody moved away */

struct record {
    uint64_t number, synced;
    uint32_t len;
    char state;
};

/* One record at data[at..len): false if it is torn or corrupt. */
static bool record_read(const char *data, size_t len, size_t at, struct record *out)
{
    if (len - at < XY_SPOOL_RECORD_HEAD)
        return false;
    const char *head = data + at;
    *out = (struct record){ .number = xy_get_le(head + 8, 8),
                            .synced = xy_get_le(head + 16, 8),
                            .len = (uint32_t)xy_get_le(head + 4, 4),
                            .state = head[24] };
    if (out->len == 0 || out->len > XY_SPOOL_RECORD_MAX || out->len > len - at - XY_SPOOL_RECORD_HEAD ||
        out->synced > at || (out->state != XY_SPOOL_STATE_LIVE && out->state != XY_SPOOL_STATE_DONE))
        return false;
    uint32_t crc = xy_crc32c(0, head + 4, 20);
    return xy_crc32c(crc, head + XY_SPOOL_RECORD_HEAD, out->len) == xy_get_le(head, 4);
}

/* Whether bytes from `bad` on were on disk when something behind them was written. */
static bool was_synced(const char *data, size_t len, size_t bad)
{
    struct record record;
    for (size_t at = bad + 1; at + XY_SPOOL_RECORD_HEAD < len; at++)
        if (record_read(data, len, at, &record) && record.synced > bad)
            return true;
    return false;
}

/* Length of the header, 0 if it cannot be read; *owner is a view. */
static size_t header_read(const char *data, size_t len, struct xy_str *owner)
{
    size_t fixed = XY_SPOOL_MAGIC_LEN + XY_SPOOL_OWNER_HEAD;
    if (len < fixed || memcmp(data, XY_SPOOL_MAGIC, XY_SPOOL_MAGIC_LEN) != 0)
        return 0;
    size_t owner_len = (size_t)xy_get_le(data + XY_SPOOL_MAGIC_LEN, 2);
    *owner = xy_str_n(data + fixed, owner_len);
    if (owner_len > len - fixed ||
        xy_crc32c(0, owner->data, owner->len) != xy_get_le(data + XY_SPOOL_MAGIC_LEN + 2, 4))
        return 0;
    return fixed + owner_len;
}

enum verdict { GOOD, TORN, DAMAGED, FOREIGN, UNREADABLE };

/* Files that were moved away after damage: their records count as done. */
static bool skip_missing(struct xy_spool *s, uint64_t first)
{
    struct xy_spool_entry missing = { .done = true };
    if (first < xy_spool_end(s) || first - xy_spool_end(s) > MISSING_MAX)
        return false;
    while (xy_spool_end(s) < first)
        if (!xy_spool_entry_add(s, &missing))
            return false;
    xy_spool_advance(s);
    return true;
}

/* *at: where the first bad record begins, or the end. */
static enum verdict read_records(struct xy_spool *s, const char *data, size_t len, size_t *at)
{
    struct record record;
    while (*at < len) {
        if (!record_read(data, len, *at, &record) || record.number != xy_spool_end(s))
            return was_synced(data, len, *at) ? DAMAGED : TORN;
        struct xy_spool_entry entry = { .at = *at + XY_SPOOL_RECORD_HEAD,
                                        .len = record.len,
                                        .done = record.state == XY_SPOOL_STATE_DONE };
        if (!xy_spool_entry_add(s, &entry))
            return UNREADABLE;
        *at += XY_SPOOL_RECORD_HEAD + record.len;
    }
    return GOOD;
}

static enum verdict read_segment(struct xy_spool *s, struct xy_spool_segment *segment, bool newest,
                                 size_t *at)
{
    struct stat info;
    struct xy_str owner;
    *at = 0;
    if (xy_spool_segment_open(s, segment) < 0 || fstat(segment->file, &info) != 0)
        return UNREADABLE;
    size_t len = (size_t)info.st_size;
    char *data = malloc(len ? len : 1);
    enum verdict verdict = UNREADABLE;
    if (data && xy_file_read(segment->file, data, len, 0)) {
        *at = header_read(data, len, &owner);
        if (*at == 0)
            verdict = was_synced(data, len, 0) ? DAMAGED : TORN;
        else if (!xy_str_eq(owner, s->owner))
            verdict = FOREIGN;
        else
            verdict = read_records(s, data, len, at);
    }
    free(data);
    segment->size = segment->synced = *at;
    return verdict == TORN && !newest ? DAMAGED : verdict;
}

/* What the crash left half written goes; a file without a header was only just begun. */
static bool cut_tail(struct xy_spool *s, struct xy_spool_segment *segment, size_t at)
{
    char name[XY_SPOOL_NAME_SIZE];
    if (at > 0)
        return ftruncate(segment->file, (off_t)at) == 0 && fsync(segment->file) == 0;
    xy_spool_name(name, segment->first);
    close(segment->file);
    s->segments_count--;
    return unlinkat(s->folder, name, 0) == 0 && fsync(s->folder) == 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = ((const struct xy_spool_segment *)a)->first;
    uint64_t right = ((const struct xy_spool_segment *)b)->first;
    return (left > right) - (left < right);
}

static bool list_segments(struct xy_spool *s)
{
    int copy = openat(s->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    const struct dirent *entry;
    bool ok = dir != NULL;
    while (ok && (entry = readdir(dir))) {
        unsigned char number[8];
        struct xy_str name = xy_str(entry->d_name);
        if (name.len != XY_SPOOL_NAME_SIZE - 2 || strcmp(name.data + 16, ".spool") != 0 ||
            !xy_hex_decode(number, xy_str_n(name.data, 16)))
            continue;
        uint64_t first = 0;
        for (unsigned i = 0; i < sizeof number; i++)
            first = first << 8 | number[i];
        ok = xy_spool_segment_add(s, first);
    }
    if (dir)
        closedir(dir);
    else if (copy >= 0)
        close(copy);
    if (s->segments_count > 0)
        qsort(s->segments, s->segments_count, sizeof *s->segments, by_number);
    return ok;
}

static void explain(char *error, size_t size, const char *folder, const struct xy_spool_segment *segment,
                    enum verdict verdict, size_t at)
{
    char name[XY_SPOOL_NAME_SIZE];
    xy_spool_name(name, segment->first);
    if (verdict == FOREIGN)
        snprintf(error, size, "spool_dir %s holds publishes of another account: use a folder of its own",
                 folder);
    else if (verdict == DAMAGED)
        snprintf(
            error, size,
            "spool_dir %s: %s is damaged at byte %zu, where publishes had been stored; move the file away "
            "to go on without them",
            folder, name, at);
    else
        snprintf(error, size, "spool_dir %s: %s cannot be read: %s", folder, name, strerror(errno));
}

static bool load(struct xy_spool *s, const char *folder, char *error, size_t size)
{
    if (!list_segments(s)) {
        snprintf(error, size, "spool_dir %s cannot be read: %s", folder, strerror(errno));
        return false;
    }
    s->first = s->segments_count ? s->segments[0].first : 1;
    size_t at = 0;
    for (size_t i = 0; i < s->segments_count; i++) {
        struct xy_spool_segment *segment = &s->segments[i];
        bool newest = i + 1 == s->segments_count;
        enum verdict verdict =
            skip_missing(s, segment->first) ? read_segment(s, segment, newest, &at) : DAMAGED;
        if (verdict == TORN && cut_tail(s, segment, at))
            break; /* it was the newest */
        if (verdict != GOOD) {
            explain(error, size, folder, segment, verdict == TORN ? UNREADABLE : verdict, at);
            return false;
        }
    }
    if (s->segments_count == 0 && xy_spool_segment_begin(s) != XY_SPOOL_OK) {
        snprintf(error, size, "spool_dir %s cannot be written: %s", folder, strerror(errno));
        return false;
    }
    xy_spool_advance(s);
    s->floor = s->first;
    return true;
}

struct xy_spool *xy_spool_open(const struct xy_spool_options *options, char *error, size_t error_size)
{
    struct xy_spool *s = calloc(1, sizeof *s);
    const char *what;
    snprintf(error, error_size, "out of memory");
    if (!s)
        return NULL;
    s->folder = s->lock = -1;
    s->bytes_max = options->bytes_max;
    s->segment_bytes = options->segment_bytes ? options->segment_bytes : XY_SPOOL_SEGMENT_BYTES;
    char *owner = strndup(options->owner.data ? options->owner.data : "", options->owner.len);
    s->owner = xy_str(owner);
    bool ok = owner != NULL;
    if (ok && !xy_folder_open(options->folder, "spool.lock", &s->folder, &s->lock, &what)) {
        snprintf(error, error_size, "spool_dir %s %s: %s", options->folder, what, strerror(errno));
        ok = false;
    }
    if (!ok || !load(s, options->folder, error, error_size))
        xy_spool_close(&s);
    return s;
}

void xy_spool_close(struct xy_spool **spool)
{
    struct xy_spool *s = *spool;
    if (!s)
        return;
    for (size_t i = 0; i < s->segments_count; i++)
        if (s->segments[i].file >= 0)
            close(s->segments[i].file);
    if (s->lock >= 0)
        close(s->lock);
    if (s->folder >= 0)
        close(s->folder);
    free(s->segments);
    free(s->entries);
    free((void *)(uintptr_t)s->owner.data);
    xy_buf_free(&s->scratch);
    free(s);
    *spool = NULL;
}
