/* Which claim each stanza sent to a session settles, as numbers that fit a record (SessionOut.runs): sessions write it,
 * the owner of the account reads it when the session is resumed after a restart, and the client's h says how far it got.
 *
 * A run is stanzas in a row whose claims have consecutive numbers: count and kind, then what the kind needs. */
#pragma once

#include "core/base/buf.h"

enum out_kind {
    OUT_NOTHING, /* stanzas that settle nothing */
    OUT_MAILBOX, /* entries of the account's mailbox, from `first` */
    OUT_EVENT,   /* items owed to subscription `number` of node `node` in its `era`, from seq `first` */
    OUT_ANSWER,  /* answers to requests of the client, from number `first` */
    OUT_KINDS
};

struct out_run {
    enum out_kind kind;
    uint64_t count;
    uint64_t node;        /* OUT_EVENT, as the next */
    uint32_t number, era; /* era: struct claim_key */
    uint64_t first;
};

/* Appends one stanza's claim, to the newest run (*last, zero at first) where it continues it. `runs` is an array of
 * uint64_t; a failure is latched there. */
void outmap_add(struct xy_buf *runs, struct out_run *last, const struct out_run *claim);
void outmap_end(struct xy_buf *runs, struct out_run *last);

/* Takes the next run off; false: none is left, or what is left is damaged. */
bool outmap_next(const uint64_t **runs, size_t *count, struct out_run *out);
