/* Is a store sound? For an operator, after a crash test and before a backup is trusted: every record of the log by its
 * checksum, every row of the tables by itself and against the other tables, in the state that a start would recover.
 *
 * Called by main for `xylemd --check-store`, on a store that nobody has open. Nothing is written, except that LMDB makes
 * tables that an older format does not have. A file whose pages are damaged may end the process that reads it: LMDB has
 * no checksums of its own. */
#pragma once

#include "broker/store/store.h"

struct store_check {
    /* One line of prose without an end of line: what is wrong, or at the end what was looked at. Must be set. */
    void (*say)(void *ctx, const char *line);
    void *ctx;
    uint64_t entries, records; /* found in the log */
    uint64_t rows;             /* in the tables and what the log adds to them */
    uint64_t problems;         /* also those for which there was no line */
};

/* true: sound. options->shards, threads and callbacks do not matter. */
bool store_check(const struct store_options *options, struct store_check *check);
