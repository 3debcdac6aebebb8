/* The position file; see position_log.h. Fsync points: each sync fsyncs the file; a rewrite fsyncs the new file before
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

#define MAGIC     "xylem positions 1\n"
#define MAGIC_LEN (sizeof MAGIC - 1)
#define HEADER    16u /* crc, key length, epoch length, seq: little-endian */

struct xy_position_log {
    int folder, lock, file;
    struct xy_buf pending;
    uint64_t size;
    size_t records; /* in the file, old ones too */
    size_t pending_records;
};

/* One record at data[0..len): its length, or 0 if it is torn or corrupt. */
static size_t record_read(const char *data, size_t len, struct xy_str *key, struct xy_str *epoch,
                          uint64_t *seq)
{
    if (len < HEADER)
        return 0;
    size_t key_len = (size_t)xy_get_le(data + 4, 2), epoch_len = (size_t)xy_get_le(data + 6, 2);
    size_t total = HEADER + key_len + epoch_len;
    if (key_len == 0 || key_len > XY_POSITION_KEY_MAX || epoch_len > XY_POSITION_EPOCH_MAX || total > len)
        return 0;
    if (xy_get_le(data, 4) != xy_crc32c(0, data + 4, total - 4))
        return 0;
    *seq = xy_get_le(data + 8, 8);
    *key = xy_str_n(data + HEADER, key_len);
    *epoch = xy_str_n(data + HEADER + key_len, epoch_len);
    return total;
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
    size_t at = MAGIC_LEN;
    if (len >= MAGIC_LEN && memcmp(data, MAGIC, MAGIC_LEN) != 0) {
        free(data);
        errno = EILSEQ;
        return false;
    }
    struct xy_str key, epoch;
    uint64_t seq;
    size_t step;
    while (at < len && (step = record_read(data + at, len - at, &key, &epoch, &seq))) {
        fn(key, epoch, seq, ctx);
        log->records++;
        at += step;
    }
    free(data);
    log->size = at;
    if (len < MAGIC_LEN && !xy_file_write(log->file, MAGIC, MAGIC_LEN, 0))
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

void xy_position_log_add(struct xy_position_log *log, struct xy_str key, struct xy_str epoch, uint64_t seq)
{
    xy_assert(key.len > 0 && key.len <= XY_POSITION_KEY_MAX);
    xy_assert(epoch.len <= XY_POSITION_EPOCH_MAX);
    char header[HEADER];
    xy_put_le(header + 4, key.len, 2);
    xy_put_le(header + 6, epoch.len, 2);
    xy_put_le(header + 8, seq, 8);
    uint32_t crc = xy_crc32c(0, header + 4, HEADER - 4);
    crc = xy_crc32c(crc, key.data, key.len);
    crc = xy_crc32c(crc, epoch.data, epoch.len);
    xy_put_le(header, crc, 4);
    xy_buf_add(&log->pending, header, HEADER);
    xy_buf_str(&log->pending, key);
    xy_buf_str(&log->pending, epoch);
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
    log->size = MAGIC_LEN + log->pending.len;
    log->records = log->pending_records;
    log->pending_records = 0;
    xy_buf_reset(&log->pending);
    return fsync(log->folder) == 0;
}
