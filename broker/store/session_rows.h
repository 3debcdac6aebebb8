/* Which rows of STORE_SESSION_IN are still of use, so that a checkpoint leaves out those that are not and sweeps those it
 * wrote before. A session writes one row per stanza, and a moment later one that covers them all: few ever reach the
 * tables. Called by checkpoint.c, on its thread. */
#pragma once

#include "broker/store/backend.h"
#include "broker/store/memtable.h"

/* The sessions as a checkpoint sees them: what it is about to write, then what the tables hold. */
struct session_rows {
    const struct memtable *const *mems;
    size_t mems_count;
    struct store *store;         /* whose tables they are */
    struct store_reader *reader; /* not begun; NULL: every row is of use */
    bool looked;                 /* the rest is about `id` */
    char id[STORE_SESSION_ID_BYTES];
    bool ended; /* it is known to be over */
    bool known; /* there is a record of it */
    uint64_t handled, answered;
};

/* A row that is about to be written. */
bool session_rows_needed(struct session_rows *rows, struct xy_str key, struct xy_str value);

/* Looks at up to `count_max` rows of the tables from *from on, and says which are without use: the keys live for the
 * call. *from: where to go on next time. false: that were the last, or they cannot be read now. */
bool session_rows_sweep(struct session_rows *rows, struct xy_buf *from, size_t count_max,
                        void (*useless)(void *ctx, struct xy_str key), void *ctx);
