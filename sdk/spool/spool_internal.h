/* What spool.c (adding, done, reading) and spool_load.c (opening what a former run left) share: the state in memory, and
 * the numbers of the file format that spool.c describes. */
#pragma once

#include "sdk/spool/spool.h"

#define XY_SPOOL_MAGIC       "xylem spool 1\n"
#define XY_SPOOL_MAGIC_LEN   (sizeof XY_SPOOL_MAGIC - 1)
#define XY_SPOOL_OWNER_HEAD  6u
#define XY_SPOOL_RECORD_HEAD 25u
#define XY_SPOOL_STATE_BACK  1u /* the state is the byte before a record's bytes */
#define XY_SPOOL_STATE_LIVE  'L'
#define XY_SPOOL_STATE_DONE  'D'
#define XY_SPOOL_NAME_SIZE   24u

struct xy_spool_entry {
    void *tag;
    uint64_t at; /* of its bytes in the segment */
    uint32_t len;
    bool done;
};

struct xy_spool_segment {
    uint64_t first; /* number of its first record */
    uint64_t size, synced;
    int file; /* -1: not opened yet */
    bool dirty;
};

struct xy_spool {
    int folder, lock;
    struct xy_str owner;
    uint64_t bytes_max, segment_bytes;
    struct xy_spool_segment *segments; /* oldest first; never empty once open */
    size_t segments_count;
    struct xy_spool_entry *entries; /* from `head`, `count` of them: numbers first, first + 1 ... */
    size_t head, count, cap;
    uint64_t first, floor;
    uint64_t pending, bytes;
    unsigned unsynced;
    bool failed;
    struct xy_buf scratch;
};

bool xy_spool_entry_add(struct xy_spool *spool, const struct xy_spool_entry *entry);
void xy_spool_advance(struct xy_spool *spool);
void xy_spool_name(char out[XY_SPOOL_NAME_SIZE], uint64_t first);
bool xy_spool_segment_add(struct xy_spool *spool, uint64_t first);
int xy_spool_segment_open(struct xy_spool *spool, struct xy_spool_segment *segment); /* -1: it cannot be */
enum xy_spool_status xy_spool_segment_begin(struct xy_spool *spool);
