/* Telling a subscriber what was given up. See gap.h.
 *
 * A gap is sent under the number of the last item that is missing, before any item behind it, by a claim that is new to
 * its session; so an acknowledgement of that number or a later one covers it. What is given up while one is under way is
 * told when that one is acknowledged: so it keeps its range and its number however often a session is told of it. */
#include "broker/pubsub/claim/acked.h"
#include "broker/pubsub/node/node.h"

#include "core/base/assert.h"

static const char *const reasons[] = { [GAP_BYTES] = "max_backlog_bytes", [GAP_AGE] = "max_backlog_age" };

static void widen(struct gap_range *range, uint64_t first, uint64_t last)
{
    if (range->last == 0 || first < range->first)
        range->first = first;
    if (last > range->last)
        range->last = last;
}

void gap_add(struct subscription *subscription, uint64_t first, uint64_t last, enum gap_reason reason)
{
    struct gap *gap = &subscription->claim.gap;
    struct gap_range all = { gap->first, gap->last };
    xy_assert(first > 0 && first <= last);
    widen(&all, first, last);
    if (gap->told.last != 0)
        widen(&gap->since, first, last);
    else if (all.last > gap->last)
        gap->attempts = 0; /* under another number it is another one */
    gap->first = all.first;
    gap->last = all.last;
    gap->reason = (uint8_t)reason;
    record_cursor_moved(subscription->subscriber->node, subscription);
    if (gap->told.last == 0)
        claim_restart(subscription);
    else if (subscription->claim.state == CLAIM_LIVE)
        claim_set_state(subscription, CLAIM_WAITING); /* what is published now is behind it */
}

/* --- telling ------------------------------------------------------------------------------------------------------- */

static bool waits(const struct gap *gap)
{
    return gap->told.last != 0 && gap->due_us != 0;
}

bool gap_send(struct subscription *subscription)
{
    struct node *node = subscription->subscriber->node;
    struct claim *claim = &subscription->claim;
    struct gap *gap = &claim->gap;
    if (gap->last == 0 || waits(gap))
        return true;
    struct gap_range range = gap->told.last != 0 ? gap->told : (struct gap_range){ gap->first, gap->last };
    struct event *event =
        event_for_gap(node, xy_str(subscription->subid), range.first, range.last, reasons[gap->reason]);
    if (event == NULL)
        return false;
    gap->told = range;
    gap->due_us = acked_deadline_us(subscription);
    gap->behind = claim->acked != NULL ? claim->acked->window.sendings : 0;
    gap->attempts += gap->attempts < UINT32_MAX;
    delivery_one(node->pubsub->shard, claim->session, claim->index, claim->run, event, gap->attempts, false);
    return true;
}

bool gap_hides(const struct subscription *subscription, uint64_t seq)
{
    const struct gap *gap = &subscription->claim.gap;
    if (gap->told.last == 0)
        return gap->last != 0 && seq > gap->last;
    return gap->since.last != 0 && seq > gap->since.first;
}

/* No session was told anything: the next one hears of all, under the number that it has by then. */
static void forget_told(struct gap *gap)
{
    if (gap->since.last > gap->told.last)
        gap->attempts = 0;
    gap->told = gap->since = (struct gap_range){ 0 };
    gap->due_us = 0;
}

void gap_stalled(struct subscription *subscription, uint64_t unsent)
{
    struct gap *gap = &subscription->claim.gap;
    if (unsent <= gap->told.last)
        forget_told(gap);
}

void gap_lost(struct subscription *subscription)
{
    forget_told(&subscription->claim.gap);
}

/* --- owed again ---------------------------------------------------------------------------------------------------- */

void gap_rewound(struct subscription *subscription, uint64_t seq)
{
    const struct item_index *items = &subscription->subscriber->node->items;
    struct gap *gap = &subscription->claim.gap;
    uint64_t last = gap->last;
    xy_assert(gap->told.last == 0);
    for (const struct item *item; gap->last > seq && gap->last >= gap->first; gap->last--)
        if ((item = index_find(items, gap->last)) == NULL || !item_concerns(item, subscription->born))
            break;
    if (gap->last < gap->first)
        gap->first = gap->last = 0;
    if (gap->last != last)
        gap->attempts = 0;
}

/* --- what the subscriber says -------------------------------------------------------------------------------------- */

/* Acknowledged by this number or a later one. If the session that holds the claim was not told, whoever received that
 * number was told as an earlier holder, perhaps before a restart, or got the items before they were given up: everything
 * is sent in order. */
static uint64_t number_of(const struct gap *gap)
{
    return gap->told.last != 0 ? gap->told.last : gap->last;
}

void gap_acked(struct subscription *subscription, uint64_t seq)
{
    struct gap *gap = &subscription->claim.gap;
    if (gap->last == 0 || seq < number_of(gap))
        return;
    gap->first = gap->since.first;
    gap->last = gap->since.last;
    forget_told(gap);
    gap->attempts = 0;
    record_cursor_moved(subscription->subscriber->node, subscription);
    if (gap->last != 0)
        claim_restart(subscription);
}

static bool means(const struct gap *gap, uint64_t seq)
{
    return gap->told.last != 0 && seq == gap->told.last;
}

bool gap_settled(struct subscription *subscription, uint64_t seq, bool cumulative)
{
    const struct gap *gap = &subscription->claim.gap;
    if (!means(gap, seq) && !(cumulative && gap->told.last != 0 && seq > gap->told.last))
        return false;
    gap_acked(subscription, seq);
    return true;
}

bool gap_returned(struct subscription *subscription, uint64_t seq, const uint64_t *delay_us)
{
    struct gap *gap = &subscription->claim.gap;
    if (!means(gap, seq))
        return false;
    uint64_t pause_us = delay_us != NULL ? *delay_us : acked_pause_us(subscription, gap->attempts);
    gap->due_us = pause_us > 0 ? xy_now_us(subscription->subscriber->node->pubsub->shard->env) + pause_us : 0;
    return true;
}

bool gap_extended(struct subscription *subscription, uint64_t seq)
{
    struct gap *gap = &subscription->claim.gap;
    if (!means(gap, seq))
        return false;
    gap->due_us = acked_deadline_us(subscription);
    return true;
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

uint64_t gap_due_us(const struct subscription *subscription)
{
    const struct gap *gap = &subscription->claim.gap;
    return waits(gap) ? gap->due_us : WINDOW_NEVER;
}

void gap_come_due(struct subscription *subscription, uint64_t now_us)
{
    if (gap_due_us(subscription) <= now_us)
        subscription->claim.gap.due_us = 0;
}

/* --- restart ------------------------------------------------------------------------------------------------------- */

void gap_restore(struct subscription *subscription, uint64_t first, uint64_t last, uint8_t reason)
{
    struct gap *gap = &subscription->claim.gap;
    *gap = (struct gap){ 0 };
    if (first == 0 || first > last)
        return;
    gap->first = first;
    gap->last = last;
    gap->reason = reason <= GAP_AGE ? reason : GAP_BYTES;
    gap->attempts = 1; /* it may have been told before the restart */
}
