/* One file of the segment log, as bytes: how it is written and how it is read again. log_segments.c keeps the files, this
 * knows what is in them.
 *
 *   a block of 4096     magic (8) | version (4) | 0 (4) | id (8) | position of the first entry (8) | CRC-32C (4) | 0 …
 *   frames, end to end  magic (4) | bytes of entries (4) | id (8) | first, last position (8 + 8) | CRC-32C (4) | 0 (4)
 *                       entries: position (8) | length (4) | bytes; then zeros up to a multiple of 8
 *
 * A frame is one commit, whole or not at all: its CRC covers header and entries. The id is random and new each time a
 * file is used, so what an earlier use left behind a frame never passes for one that follows it. A frame is written and
 * synced before the next one begins; so after one that cannot be read there is nothing of the same id, unless it was
 * on disk once: that tells damage from a commit that a crash tore. Integers are big-endian. */
#pragma once

#include "core/base/buf.h"

#define SEGMENT_VERSION      1u
#define SEGMENT_HEADER_BYTES 4096u

void segment_header(char out[SEGMENT_HEADER_BYTES], uint64_t id, uint64_t first);
enum segment_status { SEGMENT_OK, SEGMENT_NEWER, SEGMENT_DAMAGED, SEGMENT_UNREADABLE };
enum segment_status segment_open(int fd, uint64_t *id, uint64_t *first);

bool segment_write(int fd, const char *data, size_t len, uint64_t at); /* false: errno says why */

/* A frame is built in an empty buffer, whose failure is checked once, and sealed when the file it goes to is known. */
void frame_entry(struct xy_buf *frame, uint64_t position, struct xy_str entry);
void frame_seal(struct xy_buf *frame, uint64_t id, uint64_t first, uint64_t last);

/* From frame to frame. Zero it, set the first four, free the window. */
struct frame_walk {
    int fd;
    uint64_t id;
    uint64_t at;  /* of the frame that comes next */
    uint64_t end; /* of what may be read */
    bool failed;  /* the file cannot be read, or memory is short */
    struct xy_buf window;
    uint64_t window_at;
};
struct frame {
    uint64_t first, last;
    struct xy_str entries; /* lives until the next call */
};
/* false: there is no whole frame at walk->at, or it failed. */
bool frame_next(struct frame_walk *walk, struct frame *out);
/* Looks only at headers for the first frame that ends at or after `position`. */
void frame_skip(struct frame_walk *walk, uint64_t position);
/* Is there a frame anywhere behind walk->at, where none is? *last: the last position in any of them. */
bool frame_follows(struct frame_walk *walk, uint64_t *last);
/* Takes the first entry off *rest; false: none is left. */
bool frame_take(struct xy_str *rest, uint64_t *position, struct xy_str *entry);
