/* The position file; see position_log.h.
 *
 *     "xylem positions 2\n"
 *     record ...:  crc(4) key length(2) epoch length(2) floor(8) ranges(4) key epoch (first(8) last(8)) ...
 *
 * in little-endian; the crc covers all behind it. Format 1, without ranges, is read and rewritten. Fsync points: each sync fsyncs the file; a rewrite fsyncs the new file before
 * the rename and the folder after it, so that a crash leaves the old or the new one, never less. */
#include "sdk/spool/position_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/base/buf.h"
#include "core/base/encoding.h"
#include "sdk/spool/file.h"

#define MAGIC     "xylem positions 2\n"
#define MAGIC_1   "xylem positions 1\n"
#define MAGIC_LEN (sizeof MAGIC - 1)
#define HEADER    20u
#define HEADER_1  16u
#define RANGE     16u

struct xy_position_log {
    int folder, lock, file;
    struct xy_buf pending;
    uint64_t size;
    size_t records; /* in the file, old ones too */
    size_t pending_records;
    bool outdated; /* of format 1 */
};

struct record {
    struct xy_str key, epoch;
    uint64_t floor;
    size_t ranges;
    const char *spans;
};

/* One record at data[0..len): its length, or 0 if it is torn or corrupt. */
static size_t record_read(const char *data, size_t len, size_t header, struct record *out)
{
    if (len < header)
        return 0;
    size_t key_len = (size_t)xy_get_le(data + 4, 2), epoch_len = (size_t)xy_get_le(data + 6, 2);
    out->ranges = header == HEADER ? (size_t)xy_get_le(data + 16, 4) : 0;
    if (key_len == 0 || key_len > XY_POSITION_KEY_MAX || epoch_len > XY_POSITION_EPOCH_MAX ||
        out->ranges > XY_RANGES_MAX)
        return 0;
    size_t total = header + key_len + epoch_len + out->ranges * RANGE;
    if (total > len || xy_get_le(data, 4) != xy_crc32c(0, data + 4, total - 4))
        return 0;
    out->floor = xy_get_le(data + 8, 8);
    out->key = xy_str_n(data + header, key_len);
    out->epoch = xy_str_n(data + header + key_len, epoch_len);
    out->spans = data + header + key_len + epoch_len;
    return total;
}

/* false: memory is short, or the ranges are none. */
static bool record_ranges(const struct record *record, struct xy_ranges *out)
{
    xy_ranges_clear(out);
    if (!xy_ranges_reserve(out, XY_RANGES_MAX + 2))
        return false;
    xy_ranges_fill(out, record->floor);
    for (size_t i = 0; i < record->ranges; i++) {
        uint64_t first = xy_get_le(record->spans + i * RANGE, 8),
                 last = xy_get_le(record->spans + i * RANGE + 8, 8);
        if (first == 0 || first > last)
            return false;
        xy_ranges_add(out, first, last);
    }
    return true;
}

static bool load(struct xy_position_log *log, xy_position_fn *fn, void *ctx)
{
    struct stat info;
    if (fstat(log->file, &info) != 0)
        return false;
    size_t len = (size_t)info.st_size;
    char *data = malloc(len ? len : 1);
    if (!data || pread(log->file, data, len, 0) != (ssize_t)len) {
        free(data);
        return false;
    }
    bool ok = true;
    log->outdated = len >= MAGIC_LEN && memcmp(data, MAGIC_1, MAGIC_LEN) == 0;
    if (len >= MAGIC_LEN && !log->outdated && memcmp(data, MAGIC, MAGIC_LEN) != 0) {
        errno = EILSEQ;
        ok = false;
    }
    size_t at = MAGIC_LEN, step;
    struct xy_ranges handled = { 0 };
    struct record record;
    while (ok && at < len &&
           (step = record_read(data + at, len - at, log->outdated ? HEADER_1 : HEADER, &record))) {
        ok = record_ranges(&record, &handled);
        if (ok)
            fn(record.key, record.epoch, &handled, ctx);
        log->records++;
        at += step;
    }
    xy_ranges_free(&handled);
    free(data);
    log->size = at;
    if (!ok || (len < MAGIC_LEN && !xy_file_write(log->file, MAGIC, MAGIC_LEN, 0)))
        return false;
    return ftruncate(log->file, (off_t)at) == 0 && fsync(log->file) == 0;
}

struct xy_position_log *xy_position_log_open(const char *folder, xy_position_fn *fn, void *ctx, char *error,
                                             size_t error_size)
{
    struct xy_position_log *log = calloc(1, sizeof *log);
    if (!log)
        return NULL;
    log->folder = log->lock = log->file = -1;
    const char *what;
    if (xy_folder_open(folder, "lock", &log->folder, &log->lock, &what)) {
        log->file = openat(log->folder, "positions", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (log->file >= 0 && load(log, fn, ctx) && fsync(log->folder) == 0)
            return log;
        what = "holds a positions file that cannot be read";
    }
    if (error && error_size)
        snprintf(error, error_size, "state_dir %s %s: %s", folder, what, strerror(errno));
    xy_position_log_close(&log);
    return NULL;
}

void xy_position_log_close(struct xy_position_log **log)
{
    struct xy_position_log *l = *log;
    if (!l)
        return;
    int files[] = { l->file, l->lock, l->folder };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (files[i] >= 0)
            close(files[i]);
    xy_buf_free(&l->pending);
    free(l);
    *log = NULL;
}

void xy_position_log_add(struct xy_position_log *log, struct xy_str key, struct xy_str epoch,
                         const struct xy_ranges *handled)
{
    xy_assert(key.len > 0 && key.len <= XY_POSITION_KEY_MAX);
    xy_assert(epoch.len <= XY_POSITION_EPOCH_MAX);
    char header[HEADER] = { 0 }, span[RANGE];
    uint64_t floor = xy_ranges_floor(handled);
    size_t from = floor > 0 ? 1 : 0, at = log->pending.len;
    xy_put_le(header + 4, key.len, 2);
    xy_put_le(header + 6, epoch.len, 2);
    xy_put_le(header + 8, floor, 8);
    xy_put_le(header + 16, handled->count - from, 4);
    xy_buf_add(&log->pending, header, HEADER);
    xy_buf_str(&log->pending, key);
    xy_buf_str(&log->pending, epoch);
    for (size_t i = from; i < handled->count; i++) {
        xy_put_le(span, handled->list[i].first, 8);
        xy_put_le(span + 8, handled->list[i].last, 8);
        xy_buf_add(&log->pending, span, RANGE);
    }
    if (!xy_buf_failed(&log->pending))
        xy_put_le(log->pending.data + at, xy_crc32c(0, log->pending.data + at + 4, log->pending.len - at - 4),
                  4);
    log->pending_records++;
}

bool xy_position_log_sync(struct xy_position_log *log)
{
    if (log->pending.len == 0)
        return !xy_buf_failed(&log->pending);
    if (xy_buf_failed(&log->pending) ||
        !xy_file_write(log->file, log->pending.data, log->pending.len, log->size) ||
        fdatasync(log->file) != 0)
        return false;
    log->size += log->pending.len;
    log->records += log->pending_records;
    log->pending_records = 0;
    xy_buf_reset(&log->pending);
    return true;
}

bool xy_position_log_outdated(const struct xy_position_log *log)
{
    return log->outdated;
}

bool xy_position_log_wants_compaction(const struct xy_position_log *log, size_t live)
{
    return log->size > XY_POSITION_COMPACT_MIN && log->records > 4 * (live + 1);
}

bool xy_position_log_compact(struct xy_position_log *log)
{
    int fresh = openat(log->folder, "positions.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fresh < 0)
        return false;
    if (!xy_file_write(fresh, MAGIC, MAGIC_LEN, 0) ||
        !xy_file_write(fresh, log->pending.data, log->pending.len, MAGIC_LEN) || fsync(fresh) != 0 ||
        renameat(log->folder, "positions.new", log->folder, "positions") != 0) {
        close(fresh);
        return false;
    }
    close(log->file);
    log->file = fresh;
    log->outdated = false;
    log->size = MAGIC_LEN + log->pending.len;
    log->records = log->pending_records;
    log->pending_records = 0;
    xy_buf_reset(&log->pending);
    return fsync(log->folder) == 0;
}
