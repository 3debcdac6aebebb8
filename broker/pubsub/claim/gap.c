/* Telling a subscriber what was given up. See gap.h.
 *
 * A gap is sent under the number of the last item that is missing, before any item behind it, by a claim that is new to
 * its session; so an acknowledgement of that number or a later one covers it. What is given up while one is under way is
 * told when that one is acknowledged. */
#include "broker/pubsub/claim/acked.h"
#include "broker/pubsub/node/node.h"

#include "core/base/assert.h"

static const char *const reasons[] = { [GAP_BYTES] = "max_backlog_bytes", [GAP_AGE] = "max_backlog_age" };

void gap_add(struct subscription *subscription, uint64_t first, uint64_t last, enum gap_reason reason)
{
    struct gap *gap = &subscription->claim.gap;
    xy_assert(first > 0 && first <= last);
    if (gap->last == 0 || first < gap->first)
        gap->first = first;
    if (last > gap->last)
        gap->last = last;
    gap->reason = (uint8_t)reason;
    gap->attempts = 0;
    record_cursor_moved(subscription->subscriber->node, subscription);
    if (gap->told == 0)
        claim_restart(subscription);
}

bool gap_send(struct subscription *subscription)
{
    struct node *node = subscription->subscriber->node;
    struct claim *claim = &subscription->claim;
    struct gap *gap = &claim->gap;
    if (gap->last == 0 || gap->told != 0)
        return true;
    struct event *event =
        event_for_gap(node, xy_str(subscription->subid), gap->first, gap->last, reasons[gap->reason]);
    if (event == NULL)
        return false;
    gap->told = gap->last;
    gap->behind = claim->acked != NULL ? claim->acked->window.sendings : 0;
    gap->attempts += gap->attempts < UINT32_MAX;
    delivery_one(node->pubsub->shard, claim->session, claim->index, claim->run, event, gap->attempts, false);
    return true;
}

void gap_stalled(struct subscription *subscription, uint64_t unsent)
{
    struct gap *gap = &subscription->claim.gap;
    if (unsent <= gap->told)
        gap->told = 0;
}

void gap_acked(struct subscription *subscription, uint64_t seq)
{
    struct gap *gap = &subscription->claim.gap;
    if (gap->told == 0 || seq < gap->told)
        return;
    bool more = gap->last > gap->told;
    gap->first = more ? gap->told + 1 : 0;
    gap->last = more ? gap->last : 0;
    gap->told = 0;
    record_cursor_moved(subscription->subscriber->node, subscription);
    if (more)
        claim_restart(subscription);
}

bool gap_settled(struct subscription *subscription, uint64_t seq, bool cumulative)
{
    uint64_t told = subscription->claim.gap.told;
    if (told == 0 || (cumulative ? seq < told : seq != told))
        return false;
    gap_acked(subscription, seq);
    return true;
}

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

void gap_lost(struct subscription *subscription)
{
    subscription->claim.gap.told = 0;
}
