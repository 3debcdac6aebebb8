/* The bytes of a segment: headers, frames, and finding the way from one frame to the next; see segment.h. */
#include "broker/store/segment.h"

#include <errno.h>
#include <unistd.h>

#include "broker/store/bigendian.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

enum { MAGIC_BYTES = 8, HEADER_CRC_AT = 32, FRAME_HEADER = 40, FRAME_CRC_AT = 32, ENTRY_HEADER = 12 };
enum { ALIGN = 8, WINDOW = 1 << 20 };
#define FRAME_MAGIC 0x58796c42u

static const char magic[MAGIC_BYTES] = { 'X', 'y', 'l', 'e', 'm', 'L', 'o', 'g' };

/* --- a file's own header ----------------------------------------------------------------------------------------- */

void segment_header(char out[SEGMENT_HEADER_BYTES], uint64_t id, uint64_t first)
{
    memset(out, 0, SEGMENT_HEADER_BYTES);
    memcpy(out, magic, MAGIC_BYTES);
    be32_put(out + 8, SEGMENT_VERSION);
    be64_put(out + 16, id);
    be64_put(out + 24, first);
    be32_put(out + HEADER_CRC_AT, xy_crc32c(0, out, HEADER_CRC_AT));
}

enum segment_status segment_open(int fd, uint64_t *id, uint64_t *first)
{
    char header[HEADER_CRC_AT + 4];
    ssize_t len = pread(fd, header, sizeof(header), 0);
    if (len < 0)
        return SEGMENT_UNREADABLE;
    if (len < (ssize_t)sizeof(header) || memcmp(header, magic, MAGIC_BYTES) != 0 ||
        be32_get(header + HEADER_CRC_AT) != xy_crc32c(0, header, HEADER_CRC_AT))
        return SEGMENT_DAMAGED;
    *id = be64_get(header + 16);
    *first = be64_get(header + 24);
    return be32_get(header + 8) <= SEGMENT_VERSION ? SEGMENT_OK : SEGMENT_NEWER;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

bool segment_write(int fd, const char *data, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t done = pwrite(fd, data, len, (off_t)at);
        if (done <= 0) {
            errno = done == 0 ? EIO : errno;
            return false;
        }
        data += done;
        at += (uint64_t)done;
        len -= (size_t)done;
    }
    return true;
}

void frame_entry(struct xy_buf *frame, uint64_t position, struct xy_str entry)
{
    static const char room[FRAME_HEADER];
    char header[ENTRY_HEADER];
    if (frame->len == 0)
        xy_buf_add(frame, room, sizeof(room));
    be64_put(header, position);
    be32_put(header + 8, (uint32_t)entry.len);
    xy_buf_add(frame, header, sizeof(header));
    xy_buf_str(frame, entry);
}

static uint32_t frame_crc(const char *frame, size_t entries_len)
{
    return xy_crc32c(xy_crc32c(0, frame, FRAME_CRC_AT), frame + FRAME_HEADER, entries_len);
}

void frame_seal(struct xy_buf *frame, uint64_t id, uint64_t first, uint64_t last)
{
    while (frame->len % ALIGN != 0 && !xy_buf_failed(frame))
        xy_buf_char(frame, '\0');
    if (xy_buf_failed(frame))
        return;
    xy_assert(frame->len > FRAME_HEADER && frame->len - FRAME_HEADER <= UINT32_MAX);
    be32_put(frame->data, FRAME_MAGIC);
    be32_put(frame->data + 4, (uint32_t)(frame->len - FRAME_HEADER));
    be64_put(frame->data + 8, id);
    be64_put(frame->data + 16, first);
    be64_put(frame->data + 24, last);
    be32_put(frame->data + FRAME_CRC_AT, frame_crc(frame->data, frame->len - FRAME_HEADER));
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

/* `len` bytes of the file at `at`; NULL: they are beyond the end, or it failed. */
static const char *look(struct frame_walk *walk, uint64_t at, size_t len)
{
    if (len > walk->end || at > walk->end - len || walk->failed)
        return NULL;
    if (at >= walk->window_at && at + len <= walk->window_at + walk->window.len)
        return walk->window.data + (at - walk->window_at);
    size_t want = len > WINDOW ? len : WINDOW;
    if (want > walk->end - at)
        want = (size_t)(walk->end - at);
    xy_buf_reset(&walk->window);
    char *room = xy_buf_reserve(&walk->window, want);
    ssize_t got = room != NULL ? pread(walk->fd, room, want, (off_t)at) : -1;
    walk->failed = got < 0;
    walk->window_at = at;
    walk->window.len = got > 0 ? (size_t)got : 0;
    return walk->window.len >= len ? walk->window.data : NULL;
}

/* The header of a frame, if one begins there and ends within the file. */
static const char *header_at(struct frame_walk *walk, uint64_t at)
{
    const char *header = look(walk, at, FRAME_HEADER);
    if (header == NULL || be32_get(header) != FRAME_MAGIC || be64_get(header + 8) != walk->id)
        return NULL;
    uint64_t len = be32_get(header + 4);
    return len % ALIGN == 0 && len <= walk->end - at - FRAME_HEADER ? header : NULL;
}

static bool frame_at(struct frame_walk *walk, uint64_t at, struct frame *out)
{
    const char *header = header_at(walk, at);
    if (header == NULL)
        return false;
    size_t len = be32_get(header + 4);
    const char *frame = look(walk, at, FRAME_HEADER + len);
    if (frame == NULL || be32_get(frame + FRAME_CRC_AT) != frame_crc(frame, len))
        return false;
    *out = (struct frame){ be64_get(frame + 16), be64_get(frame + 24), xy_str_n(frame + FRAME_HEADER, len) };
    return true;
}

bool frame_next(struct frame_walk *walk, struct frame *out)
{
    if (!frame_at(walk, walk->at, out))
        return false;
    walk->at += FRAME_HEADER + out->entries.len;
    return true;
}

void frame_skip(struct frame_walk *walk, uint64_t position)
{
    const char *header;
    while ((header = header_at(walk, walk->at)) != NULL && be64_get(header + 24) < position)
        walk->at += FRAME_HEADER + be32_get(header + 4);
}

bool frame_follows(struct frame_walk *walk, uint64_t *last)
{
    struct frame frame;
    bool found = false;
    for (uint64_t at = walk->at + ALIGN; look(walk, at, FRAME_HEADER) != NULL; at += ALIGN) {
        if (!frame_at(walk, at, &frame))
            continue;
        found = true;
        *last = frame.last;
        at += FRAME_HEADER + frame.entries.len - ALIGN;
    }
    return found;
}

bool frame_take(struct xy_str *rest, uint64_t *position, struct xy_str *entry)
{
    if (rest->len < ENTRY_HEADER)
        return false;
    size_t len = be32_get(rest->data + 8);
    xy_assert(len <= rest->len - ENTRY_HEADER); /* the frame's CRC was right */
    *position = be64_get(rest->data);
    *entry = xy_str_n(rest->data + ENTRY_HEADER, len);
    rest->data += ENTRY_HEADER + len;
    rest->len -= ENTRY_HEADER + len;
    return true;
}
