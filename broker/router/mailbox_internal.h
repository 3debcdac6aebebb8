/* What the files mailbox*.c share: appending, and the array of entries that sessions hold. Private to broker/router. */
#pragma once

#include "broker/router/address_internal.h"

/* --- mailbox.c ---------------------------------------------------------------------------------------------------- */
uint64_t mailbox_append(struct address *address, const struct xy_bytes *stanza); /* whatever the quota says */

struct xy_str mailbox_key(struct xy_arena *arena, struct xy_str bare, uint64_t seq); /* of an entry */

/* --- mailbox_flight.c: the entries that sessions hold ---------------------------------------------------------------- */
struct flight *flight_find(const struct mailbox *mailbox, uint64_t seq); /* NULL: not in flight */
/* In its place by number; NULL: no memory. It has no holder yet. */
struct flight *flight_insert(struct mailbox *mailbox, uint64_t seq, size_t bytes);
bool flight_room(const struct mailbox *mailbox);    /* one more may be handed over */
bool flight_waiting(const struct mailbox *mailbox); /* some entry was given back */
void flight_release(struct flight *flight, struct session_ref session);
void flights_compact(struct mailbox *mailbox); /* settled ones leave */
