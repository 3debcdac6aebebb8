/* Answers that are in the outbox and nowhere else: the store had no room for them, they are large, or the session has no
 * record at all. One that says that a message was refused must reach the client before the h that covers the message, or
 * the client takes for stored what is not. So
 *
 * - an <a/> does not overtake the answers to what it covers;
 * - what a crash would remember (proof.c) ends before the oldest answer that did not arrive;
 * - <resumed/>, which goes ahead of everything, covers only what is before it. The client sends the rest again. As long as
 *   the session lives we know what that was, and do not handle it twice: its answers are sent again. */
#include <stdlib.h>

#include "broker/session/session_internal.h"
#include "core/base/assert.h"

#define HELD_BEGUN_FIRST 16u

/* --- the oldest ---------------------------------------------------------------------------------------------------- */

struct oldest {
    bool unsent_only;
    uint64_t number; /* 0: none */
};

static void find_oldest(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct oldest *oldest = ctx;
    if ((entry->aux & XY_SM_UNCOUNTED) || (oldest->unsent_only && sent) ||
        (entry_kind(entry) != ENTRY_HELD && !(oldest->unsent_only && entry_kind(entry) == ENTRY_ANSWER)))
        return;
    if (oldest->number == 0 || entry_seq(entry) < oldest->number)
        oldest->number = entry_seq(entry);
}

/* May be less than was told: a client that read that h has read, and acknowledged by resuming, the answers before it. */
static uint64_t before(uint64_t number, uint64_t h)
{
    return number != 0 && number - 1 < h ? number - 1 : h;
}

uint64_t held_limit(struct session *session)
{
    struct session_sm *sm = session->sm;
    struct session_held *held = &sm->held;
    struct oldest oldest = { .number = held->first };
    if (held->count > 0 && held->first == 0)
        xy_sm_queue_each(&session->queue, find_oldest, &oldest);
    held->first = oldest.number;
    return before(held->first, sm->counters.in_h);
}

uint64_t held_unsent_limit(struct session *session, uint64_t h)
{
    struct session_sm *sm = session->sm;
    struct oldest oldest = { .unsent_only = true };
    if (session->queue.sent != session->queue.tail && (sm->held.count > 0 || sm->proof.answers_pending > 0))
        xy_sm_queue_each(&session->queue, find_oldest, &oldest);
    return before(oldest.number, h);
}

/* --- come and go --------------------------------------------------------------------------------------------------- */

static struct session_seen *begun_slot(const struct session_held *held, uint64_t number)
{
    return &held->begun[number % held->begun_cap];
}

static bool begun_grow(struct session_held *held, uint64_t floor)
{
    struct session_held larger = { .begun_cap = 2 * held->begun_cap };
    larger.begun = calloc(larger.begun_cap, sizeof(*larger.begun));
    if (larger.begun == NULL)
        return false;
    for (uint32_t i = 0; i < held->begun_cap; i++) {
        if (held->begun[i].number > floor)
            *begun_slot(&larger, held->begun[i].number) = held->begun[i];
    }
    free(held->begun);
    held->begun = larger.begun;
    held->begun_cap = larger.begun_cap;
    return true;
}

/* Over what cannot come again any more; where something still can, in more room. */
static void note_begun(struct session *session, const struct session_inbound *inbound)
{
    struct session_held *held = &session->sm->held;
    if (held->begun == NULL)
        return;
    struct session_seen *slot = begun_slot(held, inbound->number);
    if (slot->number != 0 && slot->number != inbound->number) {
        uint64_t floor = held_limit(session);
        while (slot->number > floor && held->begun_cap < XY_SM_WINDOW && begun_grow(held, floor))
            slot = begun_slot(held, inbound->number);
    }
    *slot = (struct session_seen){ inbound->number, inbound->what };
}

static void count(struct session_held *held, uint64_t number)
{
    held->count++;
    if (held->count == 1 || (held->first != 0 && number < held->first))
        held->first = number;
}

void held_pushed(struct session *session, const struct session_inbound *inbound)
{
    struct session_held *held = &session->sm->held;
    count(held, inbound->number);
    if (session->sm->resumable && held->begun == NULL) {
        held->begun = calloc(HELD_BEGUN_FIRST, sizeof(*held->begun)); /* NULL: numbers have to do */
        held->begun_cap = HELD_BEGUN_FIRST;
    }
    note_begun(session, inbound);
}

static void adopt(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct session_held *held = ctx;
    uint64_t number = entry_seq(entry);
    (void)sent;
    if ((entry->aux & XY_SM_UNCOUNTED) || entry_kind(entry) != ENTRY_ANSWER)
        return;
    entry->aux = 0; /* as any other, if its request was told to be handled */
    if (number <= held->told)
        return;
    entry->aux = (uint64_t)ENTRY_HELD << ENTRY_KIND_SHIFT | number;
    count(held, number);
}

void held_adopt(struct session *session)
{
    xy_sm_queue_each(&session->queue, adopt, &session->sm->held);
    session->sm->proof.answers_pending = 0;
}

void held_arrived(struct session_sm *sm, uint64_t number)
{
    struct session_held *held = &sm->held;
    xy_assert(held->count > 0);
    held->count--;
    if (number == held->first)
        held->first = 0;                                         /* looked up when it is asked for */
    if (held->count == 0 && sm->counters.in_tail >= held->again) /* else some come again, to be recognised */
        held_free(held);
}

void held_free(struct session_held *held)
{
    free(held->begun);
    held->begun = NULL;
}

/* --- again --------------------------------------------------------------------------------------------------------- */

uint64_t held_resume(struct session_sm *sm, uint64_t h)
{
    sm->held.told = sm->held.resumed = h;
    if (h < sm->counters.in_tail) {
        sm->held.again = sm->counters.in_tail;
        sm->counters.in_h = h;
        xy_sm_in_forget(&sm->counters);
    }
    return h;
}

bool held_seen(struct session *session, const struct session_inbound *inbound)
{
    struct session_held *held = &session->sm->held;
    const struct session_seen *slot = held->begun ? begun_slot(held, inbound->number) : NULL;
    bool again = inbound->number <= held->again &&
                 (slot == NULL || slot->number != inbound->number || slot->what == inbound->what);
    note_begun(session, inbound);
    if (held->count == 0 && inbound->number >= held->again)
        held_free(held);
    return again;
}
