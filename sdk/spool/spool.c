/* The spool's segment files; see spool.h.
 *
 *     FOLDER/spool.lock               one process at a time (flock)
 *     FOLDER/<first number, 16 hex digits>.spool
 *         "xylem spool 1\n"  owner length(2) crc(4) owner
 *         record ...:  crc(4) length(4) number(8) synced(8) state(1) bytes     little-endian; crc over length .. synced, bytes
 *
 * `state` is LIVE or DONE and changes in place, so that what is done needs no room on a full disk. `synced` is how many
 * bytes of the file were known to be on disk when the record was written. It tells a torn tail from damage: behind a
 * record that cannot be read, another one that saw bytes of it synced means that it had been taken for good.
 *
 * Fsync points: a file before the next one is begun; a new file and then its folder before the first record goes into it;
 * the folder after each removal, so that files vanish in order; and xy_spool_sync. */
#include "sdk/spool/spool.h"

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

bool xy_spool_entry_add(struct xy_spool *s, const struct xy_spool_entry *entry)
{
    size_t used = s->head + s->count;
    if (used == s->cap && s->head > s->cap / 2) {
        memmove(s->entries, s->entries + s->head, s->count * sizeof *s->entries);
        s->head = 0;
    } else if (used == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        struct xy_spool_entry *grown = realloc(s->entries, cap * sizeof *grown);
        if (!grown)
            return false;
        s->entries = grown;
        s->cap = cap;
    }
    s->entries[s->head + s->count++] = *entry;
    if (!entry->done) {
        s->pending++;
        s->bytes += entry->len + XY_SPOOL_OVERHEAD;
    }
    return true;
}

static struct xy_spool_entry *entry_of(const struct xy_spool *s, uint64_t number)
{
    xy_assert(number >= s->first && number < xy_spool_end(s));
    return &s->entries[s->head + (size_t)(number - s->first)];
}

/* The one that holds `number`: the last whose first is not above it. */
static struct xy_spool_segment *segment_of(const struct xy_spool *s, uint64_t number)
{
    size_t at = s->segments_count;
    while (at > 0 && s->segments[at - 1].first > number)
        at--;
    xy_assert(at > 0);
    return &s->segments[at - 1];
}

int xy_spool_segment_open(struct xy_spool *s, struct xy_spool_segment *segment)
{
    char name[XY_SPOOL_NAME_SIZE];
    if (segment->file < 0) {
        xy_spool_name(name, segment->first);
        segment->file = openat(s->folder, name, O_RDWR | O_CLOEXEC);
    }
    return segment->file;
}

void xy_spool_name(char out[XY_SPOOL_NAME_SIZE], uint64_t first)
{
    snprintf(out, XY_SPOOL_NAME_SIZE, "%016" PRIx64 ".spool", first);
}

bool xy_spool_segment_add(struct xy_spool *s, uint64_t first)
{
    struct xy_spool_segment *grown = realloc(s->segments, (s->segments_count + 1) * sizeof *grown);
    if (!grown)
        return false;
    s->segments = grown;
    s->segments[s->segments_count++] = (struct xy_spool_segment){ .first = first, .file = -1 };
    return true;
}

/* --- removing what is done --- */

static bool remove_oldest(struct xy_spool *s)
{
    char name[XY_SPOOL_NAME_SIZE];
    struct xy_spool_segment *oldest = &s->segments[0];
    xy_spool_name(name, oldest->first);
    if (unlinkat(s->folder, name, 0) != 0 || fsync(s->folder) != 0)
        return false;
    if (oldest->file >= 0)
        close(oldest->file);
    s->segments_count--;
    memmove(s->segments, s->segments + 1, s->segments_count * sizeof *s->segments);
    return true;
}

/* Behind what is done; the newest file stays. */
void xy_spool_advance(struct xy_spool *s)
{
    while (s->count > 0 && s->entries[s->head].done) {
        s->head++;
        s->count--;
        s->first++;
    }
    if (s->count == 0)
        s->head = 0;
    while (s->segments_count > 1 && s->segments[1].first <= s->first && remove_oldest(s))
        continue;
}

void xy_spool_done(struct xy_spool *s, uint64_t number)
{
    struct xy_spool_entry *entry = entry_of(s, number);
    struct xy_spool_segment *segment = segment_of(s, number);
    const char state = XY_SPOOL_STATE_DONE;
    xy_assert(!entry->done && s->pending > 0);
    entry->done = true;
    entry->tag = NULL;
    s->pending--;
    s->bytes -= entry->len + XY_SPOOL_OVERHEAD;
    if (xy_spool_segment_open(s, segment) < 0 ||
        !xy_file_write(segment->file, &state, 1, entry->at - XY_SPOOL_STATE_BACK))
        s->failed = true; /* it will come again: the broker knows it by its publish-id */
    segment->dirty = true;
    s->unsynced++;
    xy_spool_advance(s);
}

/* --- adding --- */

/* Takes back what a failed write may have left. */
static enum xy_spool_status write_failed(struct xy_spool *s, const struct xy_spool_segment *newest)
{
    bool room = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    if (ftruncate(newest->file, (off_t)newest->size) == 0 && room)
        return XY_SPOOL_FULL;
    s->failed = true;
    return XY_SPOOL_FAILED;
}

static void write_header(struct xy_buf *out, struct xy_str owner)
{
    char head[XY_SPOOL_OWNER_HEAD];
    xy_assert(owner.data != NULL || owner.len == 0);
    xy_put_le(head, owner.len, 2);
    xy_put_le(head + 2, xy_crc32c(0, owner.data ? owner.data : "", owner.len), 4);
    xy_buf_lit(out, XY_SPOOL_MAGIC);
    xy_buf_add(out, head, sizeof head);
    xy_buf_str(out, owner);
}

enum xy_spool_status xy_spool_segment_begin(struct xy_spool *s)
{
    char name[XY_SPOOL_NAME_SIZE];
    uint64_t first = xy_spool_end(s);
    if (s->segments_count > 0 && !xy_spool_sync(s))
        return XY_SPOOL_FAILED;
    xy_buf_reset(&s->scratch);
    write_header(&s->scratch, s->owner);
    if (xy_buf_failed(&s->scratch) || !xy_spool_segment_add(s, first))
        return XY_SPOOL_NO_MEMORY;
    struct xy_spool_segment *newest = &s->segments[s->segments_count - 1];
    xy_spool_name(name, first);
    newest->file = openat(s->folder, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (newest->file >= 0 && xy_file_write(newest->file, s->scratch.data, s->scratch.len, 0) &&
        fsync(newest->file) == 0 && fsync(s->folder) == 0) {
        newest->size = newest->synced = s->scratch.len;
        xy_spool_advance(s); /* what is behind may be done already */
        return XY_SPOOL_OK;
    }
    enum xy_spool_status status = XY_SPOOL_FAILED;
    if (errno == ENOSPC || errno == EDQUOT)
        status = XY_SPOOL_FULL;
    else
        s->failed = true;
    if (newest->file >= 0) {
        close(newest->file);
        unlinkat(s->folder, name, 0);
    }
    s->segments_count--;
    return status;
}

static void write_record(struct xy_buf *out, struct xy_str data, uint64_t number, uint64_t synced)
{
    char header[XY_SPOOL_RECORD_HEAD];
    xy_put_le(header + 4, data.len, 4);
    xy_put_le(header + 8, number, 8);
    xy_put_le(header + 16, synced, 8);
    uint32_t crc = xy_crc32c(0, header + 4, 20);
    xy_put_le(header, xy_crc32c(crc, data.data, data.len), 4);
    header[24] = XY_SPOOL_STATE_LIVE;
    xy_buf_add(out, header, sizeof header);
    xy_buf_str(out, data);
}

bool xy_spool_has_room(const struct xy_spool *s, size_t len)
{
    return s->pending == 0 || s->bytes + len + XY_SPOOL_OVERHEAD <= s->bytes_max;
}

enum xy_spool_status xy_spool_add(struct xy_spool *s, struct xy_str data, void *tag, uint64_t *number)
{
    xy_assert(data.data != NULL && data.len > 0);
    if (s->failed)
        return XY_SPOOL_FAILED;
    if (data.len > XY_SPOOL_RECORD_MAX || !xy_spool_has_room(s, data.len))
        return XY_SPOOL_FULL;
    if (s->segments[s->segments_count - 1].size >= s->segment_bytes) {
        enum xy_spool_status status = xy_spool_segment_begin(s);
        if (status != XY_SPOOL_OK)
            return status;
    }
    struct xy_spool_segment *newest = &s->segments[s->segments_count - 1];
    if (xy_spool_segment_open(s, newest) < 0)
        return XY_SPOOL_FAILED;
    *number = xy_spool_end(s);
    xy_buf_reset(&s->scratch);
    write_record(&s->scratch, data, *number, newest->synced);
    struct xy_spool_entry entry = { .tag = tag,
                                    .at = newest->size + XY_SPOOL_RECORD_HEAD,
                                    .len = (uint32_t)data.len };
    if (xy_buf_failed(&s->scratch))
        return XY_SPOOL_NO_MEMORY;
    if (!xy_file_write(newest->file, s->scratch.data, s->scratch.len, newest->size))
        return write_failed(s, newest);
    if (!xy_spool_entry_add(s, &entry))
        return ftruncate(newest->file, (off_t)newest->size) == 0 ? XY_SPOOL_NO_MEMORY : XY_SPOOL_FAILED;
    newest->size += s->scratch.len;
    newest->dirty = true;
    s->unsynced++;
    return XY_SPOOL_OK;
}

bool xy_spool_sync(struct xy_spool *s)
{
    for (size_t i = 0; i < s->segments_count && !s->failed; i++) {
        struct xy_spool_segment *segment = &s->segments[i];
        if (!segment->dirty)
            continue;
        if (fdatasync(segment->file) != 0) {
            s->failed = true;
            break;
        }
        segment->dirty = false;
        segment->synced = segment->size;
    }
    if (s->failed)
        return false;
    s->unsynced = 0;
    s->floor = s->first;
    return true;
}

bool xy_spool_read(struct xy_spool *s, uint64_t number, struct xy_buf *out)
{
    const struct xy_spool_entry *entry = entry_of(s, number);
    struct xy_spool_segment *segment = segment_of(s, number);
    char header[XY_SPOOL_RECORD_HEAD];
    xy_buf_reset(out);
    char *room = xy_buf_reserve(out, entry->len);
    if (!room || xy_spool_segment_open(s, segment) < 0 ||
        !xy_file_read(segment->file, header, sizeof header, entry->at - sizeof header) ||
        !xy_file_read(segment->file, room, entry->len, entry->at))
        return false;
    uint32_t crc = xy_crc32c(0, header + 4, 20);
    if (xy_crc32c(crc, room, entry->len) != xy_get_le(header, 4))
        return false;
    out->len = entry->len;
    return true;
}

/* --- what there is --- */

uint64_t xy_spool_first(const struct xy_spool *s)
{
    return s->first;
}

uint64_t xy_spool_end(const struct xy_spool *s)
{
    return s->first + s->count;
}

uint64_t xy_spool_floor(const struct xy_spool *s)
{
    return s->floor;
}

bool xy_spool_is_done(const struct xy_spool *s, uint64_t number)
{
    return entry_of(s, number)->done;
}

void *xy_spool_tag(const struct xy_spool *s, uint64_t number)
{
    return entry_of(s, number)->tag;
}

void xy_spool_set_tag(struct xy_spool *s, uint64_t number, void *tag)
{
    entry_of(s, number)->tag = tag;
}

uint64_t xy_spool_pending(const struct xy_spool *s)
{
    return s->pending;
}

uint64_t xy_spool_bytes(const struct xy_spool *s)
{
    return s->bytes;
}

unsigned xy_spool_unsynced(const struct xy_spool *s)
{
    return s->unsynced;
}

bool xy_spool_failed(const struct xy_spool *s)
{
    return s->failed;
}
