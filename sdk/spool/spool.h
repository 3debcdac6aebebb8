/* Records that must survive this process, in order, until somebody says they are done: the disk behind publishes that the
 * broker has not confirmed. Append-only segment files in a folder of one process; see spool.c for their format.
 * sdk/src/spooling.c calls it; this file knows nothing of XMPP.
 *
 * Records have consecutive numbers. `done` may be said out of order; what is done is not given again after a restart,
 * except what was said since the last xy_spool_sync, if power was lost. A segment file is removed when everything in it and
 * before it is done. No threads; every call that writes may block for the disk. */
#pragma once

#include "core/base/buf.h"

#define XY_SPOOL_SEGMENT_BYTES (4u << 20)  /* a new file is begun beyond this */
#define XY_SPOOL_RECORD_MAX    (64u << 20) /* bytes of one record; bigger lengths in a file are damage */
#define XY_SPOOL_OVERHEAD      64u         /* charged per record beside its bytes: header, mark, memory */

enum xy_spool_status {
    XY_SPOOL_OK,
    XY_SPOOL_FULL,   /* bytes_max is reached, or the disk is full: nothing was taken */
    XY_SPOOL_FAILED, /* the disk failed: nothing was taken, and nothing more will be until it is opened anew */
    XY_SPOOL_NO_MEMORY,
};

struct xy_spool;

struct xy_spool_options {
    const char *folder;
    struct xy_str owner;    /* whose records these are: a folder of another one is refused */
    uint64_t bytes_max;     /* of records that are not done, with overhead */
    uint64_t segment_bytes; /* 0: XY_SPOOL_SEGMENT_BYTES */
};

/* NULL: `error` says why, also when records are damaged that had been taken for good. */
struct xy_spool *xy_spool_open(const struct xy_spool_options *options, char *error, size_t error_size);
void xy_spool_close(struct xy_spool **spool);

/* Written to the file when it returns XY_SPOOL_OK, so it survives the process; xy_spool_sync makes it survive power loss.
 * `tag` is the caller's; records of a former run have none. */
enum xy_spool_status xy_spool_add(struct xy_spool *spool, struct xy_str data, void *tag, uint64_t *number);
/* Everything added and done so far is on disk. false: the disk failed, as XY_SPOOL_FAILED. */
bool xy_spool_sync(struct xy_spool *spool);
void xy_spool_done(struct xy_spool *spool, uint64_t number); /* a record that is not done */
/* The record's bytes replace what is in `out`. false: it cannot be read, or memory is short. */
bool xy_spool_read(struct xy_spool *spool, uint64_t number, struct xy_buf *out);

uint64_t xy_spool_first(const struct xy_spool *spool); /* oldest not done; == end when there is none */
uint64_t xy_spool_end(const struct xy_spool *spool);   /* the next record's number */
/* The oldest that would be given again after a loss of power: xy_spool_first once everything is synced. */
uint64_t xy_spool_floor(const struct xy_spool *spool);
bool xy_spool_is_done(const struct xy_spool *spool, uint64_t number); /* first <= number < end */
void *xy_spool_tag(const struct xy_spool *spool, uint64_t number);    /* first <= number < end */
void xy_spool_set_tag(struct xy_spool *spool, uint64_t number, void *tag);

uint64_t xy_spool_pending(const struct xy_spool *spool); /* records not done */
uint64_t xy_spool_bytes(const struct xy_spool *spool);   /* of those, with overhead */
bool xy_spool_has_room(const struct xy_spool *spool, size_t len);
unsigned xy_spool_unsynced(const struct xy_spool *spool); /* records and marks not synced yet */
bool xy_spool_failed(const struct xy_spool *spool);
