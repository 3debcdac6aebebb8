/* The counters of XEP-0198 stream management, for either role: what we handled, what the peer handled.
 *
 * The owner of a session (broker session, SDK client) embeds one struct xy_sm and keeps it across
 * resumptions. No allocation, no I/O. Stanzas that come in may be finished out of order (one waits for a
 * commit, the next does not); `h` is the largest n such that the first n are finished. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Inbound stanzas begun and not yet covered by h. When the window is full, stop reading from the peer. */
#define XY_SM_WINDOW 1024u

struct xy_sm {
    uint64_t in_h;    /* stanzas handled; its low 32 bits travel as h */
    uint64_t in_tail; /* stanzas begun */
    uint64_t out_acked;
    uint64_t out_sent; /* stanzas sent, counted since <enable/> or <enabled/> */
    uint64_t in_done[XY_SM_WINDOW / 64];
};

void xy_sm_init(struct xy_sm *sm); /* all counters zero, at <enable/> and <enabled/> */

static inline uint32_t xy_sm_h(const struct xy_sm *sm)
{
    return (uint32_t)sm->in_h;
}

static inline uint32_t xy_sm_send_count(const struct xy_sm *sm)
{
    return (uint32_t)sm->out_sent;
}

/* Sent and not yet acknowledged by the peer. */
static inline uint64_t xy_sm_unacked(const struct xy_sm *sm)
{
    return sm->out_sent - sm->out_acked;
}

/* Inbound: a stanza came; its number goes with it until it is handled. Not to be called when xy_sm_in_full.
 */
bool xy_sm_in_full(const struct xy_sm *sm);
uint64_t xy_sm_in_begin(struct xy_sm *sm);
/* The stanza is handled. true: h advanced. Each number exactly once. */
bool xy_sm_in_done(struct xy_sm *sm, uint64_t number);

/* Stanzas that were begun and are not covered by h are forgotten: their numbers are given to others. */
void xy_sm_in_forget(struct xy_sm *sm);

/* Outbound: one countable stanza was handed to the stream. xy_sm_queue_* do this for queued entries. */
static inline void xy_sm_out(struct xy_sm *sm)
{
    sm->out_sent++;
}

enum xy_sm_verdict {
    XY_SM_ACK_NEW,      /* *newly more stanzas are acknowledged (0: nothing new) */
    XY_SM_ACK_OLD,      /* lower than before: ignored (hostile input 55) */
    XY_SM_ACK_TOO_HIGH, /* more than was sent: xy_stream_fail_ack (XEP-0198 6) */
};

/* An h came from the peer, in <a/>, <resume/> or <resumed/>. Modulo 2^32 (XEP-0198 4). */
enum xy_sm_verdict xy_sm_ack(struct xy_sm *sm, uint32_t h, uint32_t *newly);

/* After a resumption, once its h was acknowledged: everything unacknowledged counts as not sent. */
void xy_sm_rewind(struct xy_sm *sm);
