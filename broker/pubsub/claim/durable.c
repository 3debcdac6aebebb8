/* At-least-once subscriptions acknowledged by XEP-0198 (ack=stream): a cursor, pages from the store until caught up, then
 * live, all in the order of publishing. One implementer of struct claim_ops; which session holds is claim.c's affair.
 *
 * The cursor moves only by acknowledgement. */
#include "broker/pubsub/node/node.h"

#include "core/base/assert.h"

static struct node *node_of(const struct subscription *subscription)
{
    return subscription->subscriber->node;
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

static struct item *owed(const struct subscription *subscription, uint64_t after)
{
    const struct node *node = node_of(subscription);
    struct item *item = index_owed(&node->items, after, subscription->born);
    return item != NULL && item->seq <= node->delivered_seq && !gap_hides(subscription, item->seq) ? item
                                                                                                   : NULL;
}

/* false: not now, it stays owed. */
static bool send_one(struct subscription *subscription, struct item *item, bool page_end)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    uint32_t attempt = item->seq <= claim->sent_max ? claim->attempts : 1;
    struct event *event = claim_event(subscription, item, attempt > 1);
    if (event == NULL)
        return false;
    claim->sent = item->seq;
    node->pubsub->stats.redelivered += attempt > 1;
    claim->redelivered += attempt > 1;
    delivery_one(node->pubsub->shard, claim->session, claim->index, claim->run, event, attempt, page_end);
    if (item->seq > claim->sent_max)
        claim->sent_max = item->seq;
    return true;
}

struct page {
    size_t items, bytes;
};

/* Until nothing is left, or a gap has to be told first: then true. Else the state says why no more is sent now. */
static bool send_items(struct subscription *subscription, struct page *page)
{
    struct item *item = owed(subscription, subscription->claim.sent);
    while (item != NULL) {
        struct item *next = owed(subscription, item->seq);
        page->items++;
        page->bytes += item->bytes;
        bool page_end = next != NULL && (page->items >= PAGE_ITEMS_MAX || page->bytes >= PAGE_BYTES_MAX);
        if (!send_one(subscription, item, page_end)) {
            claim_block(subscription);
            return false;
        }
        if (page_end) {
            claim_set_state(subscription, CLAIM_WAITING);
            return false;
        }
        item = next;
    }
    return true;
}

/* A gap goes in its place: what is owed again in front of it (a replay) would be settled by its acknowledgement. */
static bool send_gap(struct subscription *subscription)
{
    if (gap_send(subscription))
        return true;
    claim_block(subscription);
    return false;
}

/* Sends the next page. Having sent all there is, the subscription is live: mail keeps its order, so what is published
 * next arrives behind this page. */
static void durable_send(struct subscription *subscription)
{
    const struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    struct page page = { 0 };
    if (!send_items(subscription, &page) || !send_gap(subscription) || !send_items(subscription, &page))
        return;
    if (gap_hides(subscription, UINT64_MAX)) {
        claim_set_state(subscription, CLAIM_WAITING); /* goes on when the gap before is acknowledged */
        return;
    }
    claim->sent = node->delivered_seq > claim->sent ? node->delivered_seq : claim->sent;
    claim_set_state(subscription, CLAIM_LIVE);
}

static void durable_attached(struct subscription *subscription)
{
    subscription->claim.sent = subscription->claim.cursor;
}

/* --- what comes back ----------------------------------------------------------------------------------------------- */

/* Sent in this session and not acknowledged. */
static bool durable_in_flight(const struct subscription *subscription)
{
    const struct claim *claim = &subscription->claim;
    const struct item *item = index_owed(&node_of(subscription)->items, claim->cursor, subscription->born);
    return item != NULL && item->seq <= claim->sent;
}

static void durable_lost(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (claim->sent > claim->sent_max)
        claim->sent_max = claim->sent;
    if (durable_in_flight(subscription) && claim->attempts < UINT32_MAX)
        claim->attempts++;
    claim->sent = claim->cursor;
}

static void durable_stalled(struct subscription *subscription, uint64_t unsent)
{
    struct claim *claim = &subscription->claim;
    uint64_t taken = unsent > 0 ? unsent - 1 : claim->cursor;
    claim->sent = taken > claim->cursor ? taken : claim->cursor;
    if (claim->attempts == 1 || claim->sent_max < claim->sent)
        claim->sent_max = claim->sent; /* at the first attempt nothing behind it was ever taken */
}

static void durable_received(struct subscription *subscription, uint64_t seq)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    if (seq <= claim->cursor || seq > node->delivered_seq)
        return; /* old news; the sessions are ours, but a wrong number must not end what is owed */
    index_pass(&node->items, claim->cursor, seq, subscription->born, record_item_freed, node);
    claim->cursor = seq;
    if (claim->sent < seq)
        claim->sent = seq;
    record_cursor_moved(node, subscription);
    claim_settled(subscription);
}

static void durable_skip(struct subscription *subscription, uint64_t first, uint64_t last)
{
    xy_assert(first > subscription->claim.cursor);
    durable_received(subscription, last);
}

static void durable_forget(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    index_pass(&node->items, subscription->claim.cursor, UINT64_MAX, subscription->born, record_item_freed,
               node);
}

static void durable_rewind(struct subscription *subscription, uint64_t seq)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    if (seq >= claim->cursor)
        return;
    index_owe(&node->items, seq, claim->cursor, subscription->born);
    claim->cursor = claim->sent = seq;
}

static uint64_t durable_floor(const struct subscription *subscription)
{
    return subscription->claim.cursor;
}

static void durable_figures(const struct subscription *subscription, struct claim_figures *out)
{
    const struct claim *claim = &subscription->claim;
    uint64_t sent = claim->state == CLAIM_LIVE ? node_of(subscription)->delivered_seq : claim->sent;
    out->above = claim->cursor;
    out->in_flight = index_count(&node_of(subscription)->items, claim->cursor, sent, subscription->born);
}

static bool durable_idle(const struct subscription *subscription)
{
    return !subscription->claim.moved;
}

const struct claim_ops durable_ops = {
    .sm_only = true,
    .lost = durable_lost,
    .attached = durable_attached,
    .send = durable_send,
    .stalled = durable_stalled,
    .received = durable_received,
    .in_flight = durable_in_flight,
    .skip = durable_skip,
    .idle = durable_idle,
    .forget = durable_forget,
    .rewind = durable_rewind,
    .floor = durable_floor,
    .figures = durable_figures,
};
