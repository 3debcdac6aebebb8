/* Mailbox entries in flight: handed to sessions and not acknowledged, in the order of their numbers.
 *
 * At most MAILBOX_FLIGHT_MAX, so a sorted array is the simplest thing that is fast. */
#include <stdlib.h>

#include "broker/router/mailbox_internal.h"

/* Index of the first flight whose number is not below `seq`. */
static size_t lower_bound(const struct mailbox *mailbox, uint64_t seq)
{
    size_t low = 0, high = mailbox->flights_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (mailbox->flights[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct flight *flight_find(const struct mailbox *mailbox, uint64_t seq)
{
    size_t i = lower_bound(mailbox, seq);
    return i < mailbox->flights_count && mailbox->flights[i].seq == seq ? &mailbox->flights[i] : NULL;
}

struct flight *flight_insert(struct mailbox *mailbox, uint64_t seq, size_t bytes)
{
    if (mailbox->flights_count == mailbox->flights_cap) {
        size_t cap = mailbox->flights_cap ? mailbox->flights_cap * 2 : 8;
        struct flight *grown = realloc(mailbox->flights, cap * sizeof(*grown));
        if (!grown)
            return NULL;
        mailbox->flights = grown;
        mailbox->flights_cap = cap;
    }
    size_t i = lower_bound(mailbox, seq);
    memmove(&mailbox->flights[i + 1], &mailbox->flights[i],
            (mailbox->flights_count - i) * sizeof(struct flight));
    mailbox->flights[i] = (struct flight){ .seq = seq, .bytes = (uint32_t)bytes };
    mailbox->flights_count++;
    mailbox->flights_bytes += bytes;
    return &mailbox->flights[i];
}

bool flight_room(const struct mailbox *mailbox)
{
    return mailbox->flights_count == 0 ||
           (mailbox->flights_count < MAILBOX_FLIGHT_MAX && mailbox->flights_bytes < MAILBOX_FLIGHT_BYTES);
}

bool flight_waiting(const struct mailbox *mailbox)
{
    for (size_t i = 0; mailbox->returned && i < mailbox->flights_count; i++)
        if (mailbox->flights[i].holders_count == 0 && !mailbox->flights[i].settled)
            return true;
    return false;
}

void flight_release(struct flight *flight, struct session_ref session)
{
    for (uint8_t i = 0; i < flight->holders_count; i++) {
        if (!session_ref_eq(flight->holders[i], session))
            continue;
        flight->holders[i] = flight->holders[--flight->holders_count];
        return;
    }
}

void flights_compact(struct mailbox *mailbox)
{
    size_t kept = 0;
    for (size_t i = 0; i < mailbox->flights_count; i++) {
        if (mailbox->flights[i].settled)
            mailbox->flights_bytes -= mailbox->flights[i].bytes;
        else
            mailbox->flights[kept++] = mailbox->flights[i];
    }
    mailbox->flights_count = kept;
    if (kept == 0) {
        free(mailbox->flights);
        mailbox->flights = NULL;
        mailbox->flights_cap = 0;
    }
}
