/* Four bytes behind every value in the tables: the CRC-32C of key and value, because LMDB has no checksums and a row may
 * lie there for years. They are added where the tables are written and taken off where they are read; memory tables, the
 * log and everybody outside this folder know nothing of them. STORE_META goes without.
 *
 * A row whose seal does not match is damaged. It stays where it is and is told (store_options.damaged, figures,
 * --check-store). What holds the store together (nodes, subscriptions, cursors, sequence numbers …) is refused: the
 * store fails rather than go on with less than it had. What somebody stored (items, messages, accounts …) is
 * quarantined: its reader gets SEAL_DAMAGED, which is no value of any table, and treats it as unreadable. */
#pragma once

#include "broker/store/internal.h"

#define SEAL_BYTES   4u
#define SEAL_DAMAGED XY_STR("\xff")

static inline bool seal_damaged(struct xy_str value)
{
    return xy_str_eq(value, SEAL_DAMAGED);
}

/* Puts a row into tables, sealed. `room` is scratch memory of the caller's. */
enum store_io seal_put(struct store_tables *tables, struct xy_buf *room, enum store_table table,
                       struct xy_str key, struct xy_str value);
/* Takes the seal off what was read. */
void seal_open(struct store *store, enum store_table table, struct xy_str key, struct xy_str *value);

/* Seals the rows of a store of a format before 2, a bounded transaction at a time, each of which says how far it came.
 * false: prose in *error, and the next start goes on from there. */
bool seal_upgrade(struct store *store, struct xy_buf *error);
