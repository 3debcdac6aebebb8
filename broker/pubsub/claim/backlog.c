/* Who is owed too much, found by what is due and never by looking at all. See backlog.h; called by claim.c, publish.c
 * and when nodes come and go. */
#include "broker/pubsub/node/node.h"

#include "broker/config.h"
#include "broker/log.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"

#define SETTLE_US      (1000ull * 1000) /* after a bound was exceeded: others may follow, and commits */
#define LOOKS_MAX      64u              /* subscriptions looked at in one turn */
#define SKIP_ITEMS_MAX 4096u            /* of one subscription in one turn */
#define TIMER_US_MAX   (3600ull * 1000 * 1000) /* the wall clock may be set meanwhile */

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t age_us_max(const struct subscription *subscription)
{
    uint64_t age_s = subscription->options.max_backlog_age_s;
    return age_s > UINT64_MAX / 1000000 ? UINT64_MAX : age_s * 1000000;
}

static uint64_t bytes_max(const struct subscription *subscription)
{
    uint64_t service = subscription->subscriber->node->pubsub->shard->config->limits.backlog_bytes;
    uint64_t own = subscription->options.max_backlog_bytes;
    return own < service ? own : service;
}

static struct node *node_of(const struct subscription *subscription)
{
    return subscription->subscriber->node;
}

static bool fewer_bytes(const void *left, const void *right)
{
    const struct subscription *a = left, *b = right;
    return a->backlog.bytes < b->backlog.bytes;
}

static bool sooner(const void *left, const void *right)
{
    const struct subscription *a = left, *b = right;
    return a->backlog.time_us < b->backlog.time_us;
}

/* Room is reserved with the subscription, so it gets in. */
static void place_in(struct xy_heap *heap, struct subscription *subscription, bool there)
{
    bool in = there || xy_heap_push(heap, subscription);
    xy_assert(in);
    xy_heap_moved(heap, subscription);
}

/* How far the count of what was published may go from an item on. */
static uint64_t bytes_ahead(const struct subscription *subscription, uint64_t seq)
{
    const struct backlog_place *at = &subscription->backlog;
    return plus(bytes_max(subscription), seq < at->caught_up ? at->missing : 0);
}

/* Where it stands now: nothing owed means that the next item may be the first. */
static void place(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    struct backlog_place *at = &subscription->backlog;
    const struct item *item = index_owed(&node->items, subscription->claim.cursor, subscription->born);
    const struct item *oldest =
        index_owed(&node->items, subscription->claim.ops->floor(subscription), subscription->born);
    uint64_t bytes = item != NULL ? item->before_bytes : node->items.added_bytes;
    uint64_t time_us = oldest != NULL ? oldest->time_us : xy_wall_us(node->pubsub->shard->env);
    at->bytes = plus(bytes, bytes_ahead(subscription, subscription->claim.cursor));
    at->time_us = plus(time_us, age_us_max(subscription));
    place_in(&node->backlog.by_bytes, subscription, at->in_bytes != 0);
    place_in(&node->backlog.by_time, subscription, at->in_time != 0);
}

static bool exceeds(const struct subscription *subscription, uint64_t bytes, uint64_t now_us)
{
    return subscription->backlog.bytes < bytes || subscription->backlog.time_us < now_us;
}

/* The subscription to look at, if any is due. */
static struct subscription *due(const struct node *node, uint64_t bytes, uint64_t now_us)
{
    struct subscription *first = xy_heap_least(&node->backlog.by_bytes);
    if (first != NULL && exceeds(first, bytes, 0))
        return first;
    first = xy_heap_least(&node->backlog.by_time);
    return first != NULL && exceeds(first, 0, now_us) ? first : NULL;
}

/* --- skipping ------------------------------------------------------------------------------------------------------ */

static bool owed(const struct subscription *subscription, const struct item *item)
{
    const struct claim *claim = &subscription->claim;
    return item->seq > claim->cursor ||
           (claim->ops->owes != NULL && claim->ops->owes(subscription, item->seq));
}

/* Is this, the oldest item owed, one too many? What a cursor has passed is few, and counts by its age alone. */
static bool beyond(const struct node *node, const struct subscription *subscription, const struct item *item,
                   uint64_t now_us)
{
    bool passed = item->seq <= subscription->claim.cursor;
    return (!passed &&
            plus(item->before_bytes, bytes_ahead(subscription, item->seq)) < node->items.added_bytes) ||
           plus(item->time_us, age_us_max(subscription)) < now_us;
}

/* What is committed and too much is given up. */
static void skip(struct node *node, struct subscription *subscription, uint64_t now_us)
{
    uint64_t first = 0, last = 0, count = 0;
    unsigned looks = 0;
    enum gap_reason reason = subscription->backlog.bytes < node->items.added_bytes ? GAP_BYTES : GAP_AGE;
    uint64_t from =
        reason == GAP_BYTES ? subscription->claim.cursor : subscription->claim.ops->floor(subscription);
    const struct item *item = index_owed(&node->items, from, subscription->born);
    while (item != NULL && item->seq <= node->delivered_seq && looks++ < SKIP_ITEMS_MAX &&
           beyond(node, subscription, item, now_us)) {
        if (owed(subscription, item)) {
            first = first != 0 ? first : item->seq;
            last = item->seq;
            count++;
        }
        item = index_owed(&node->items, item->seq, subscription->born);
    }
    if (count == 0)
        return;
    log_warning(node->pubsub->shard->log, "backlog exceeded: subscription skips", LOG_STR("node", node->name),
                LOG_STR("jid", subscription->jid), LOG_NUM("first", first), LOG_NUM("last", last));
    subscription->claim.skipped += count;
    stat_add(node->pubsub->shard, items_skipped, count);
    claim_skip(subscription, first, last);
    gap_add(subscription, first, last, reason);
    claim_settled(
        subscription); /* what was out has made room, also while an older gap waits for its acknowledgement */
}

/* --- when ------------------------------------------------------------------------------------------------------------ */

static void arm(struct node *node, bool soon)
{
    struct shard *shard = node->pubsub->shard;
    const struct subscription *first = xy_heap_least(&node->backlog.by_time);
    uint64_t now_us = xy_wall_us(shard->env), wait_us = SETTLE_US;
    if (first == NULL || node->config.overflow == OVERFLOW_REJECT)
        return; /* then publishing looks */
    if (!soon) {
        wait_us = first->backlog.time_us >= now_us ? first->backlog.time_us - now_us + 1 : SETTLE_US;
        wait_us = wait_us < TIMER_US_MAX ? wait_us : TIMER_US_MAX;
    }
    uint64_t due_us = xy_now_us(shard->env) + wait_us;
    if (!shard_timer_is_set(&node->backlog.timer) || node->backlog.timer.due_us > due_us)
        shard_timer_set(shard, &node->backlog.timer, due_us);
}

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    struct node *node = xy_container_of(timer, struct node, backlog.timer);
    uint64_t now_us = xy_wall_us(shard->env), bytes = node->items.added_bytes;
    if (node->config.overflow == OVERFLOW_REJECT)
        return; /* since the timer was set */
    struct subscription *subscription = due(node, bytes, now_us);
    for (unsigned looks = 0; subscription != NULL && looks < LOOKS_MAX; looks++) {
        place(subscription);
        if (exceeds(subscription, bytes, now_us)) {
            skip(node, subscription, now_us);
            place(subscription);
            if (exceeds(subscription, bytes, now_us))
                break; /* not committed yet, or much: goes on later */
        }
        subscription = due(node, bytes, now_us);
    }
    arm(node, subscription != NULL);
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

void backlog_init(struct node *node)
{
    node->backlog.by_bytes = XY_HEAP(struct subscription, backlog.in_bytes, fewer_bytes);
    node->backlog.by_time = XY_HEAP(struct subscription, backlog.in_time, sooner);
    node->backlog.timer.fn = on_timer;
}

bool backlog_reserve(struct node *node, size_t subscriptions)
{
    return xy_heap_reserve(&node->backlog.by_bytes, subscriptions) &&
           xy_heap_reserve(&node->backlog.by_time, subscriptions);
}

void backlog_begin(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    place(subscription);
    arm(node, exceeds(subscription, node->items.added_bytes, xy_wall_us(node->pubsub->shard->env)));
}

void backlog_begin_before(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    uint64_t cursor = subscription->claim.cursor, owed_bytes = 0;
    const struct item *first = index_owed(&node->items, cursor, subscription->born);
    for (const struct item *item = first; item != NULL;
         item = index_owed(&node->items, item->seq, subscription->born))
        owed_bytes += item->bytes;
    uint64_t published = first != NULL ? node->items.added_bytes - first->before_bytes : 0;
    xy_assert(published >= owed_bytes);
    subscription->backlog.missing = published - owed_bytes;
    subscription->backlog.caught_up = node->next_seq - 1;
    backlog_begin(subscription);
}

void backlog_end(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    xy_heap_remove(&node->backlog.by_bytes, subscription);
    xy_heap_remove(&node->backlog.by_time, subscription);
}

void backlog_published(struct node *node)
{
    const struct subscription *first = xy_heap_least(&node->backlog.by_bytes);
    if (first != NULL && exceeds(first, node->items.added_bytes, 0))
        arm(node, true);
}

void backlog_configured(struct node *node)
{
    arm(node, true);
}

bool backlog_full(struct node *node, uint64_t bytes)
{
    uint64_t now_us = xy_wall_us(node->pubsub->shard->env), coming = plus(node->items.added_bytes, bytes);
    for (struct subscription *s; (s = due(node, coming, now_us)) != NULL;) {
        place(s);
        if (exceeds(s, coming, now_us))
            return true;
    }
    return false;
}

bool backlog_waits(const struct node *node)
{
    uint64_t now_us = xy_wall_us(node->pubsub->shard->env);
    return shard_timer_is_set(&node->backlog.timer) && due(node, node->items.added_bytes, now_us) != NULL;
}

uint64_t backlog_due_us(const struct node *node)
{
    const struct subscription *first = xy_heap_least(&node->backlog.by_time);
    return first != NULL ? first->backlog.time_us : UINT64_MAX;
}

void backlog_stop(struct node *node)
{
    shard_timer_cancel(node->pubsub->shard, &node->backlog.timer);
}

void backlog_free(struct node *node)
{
    backlog_stop(node);
    xy_heap_free(&node->backlog.by_bytes);
    xy_heap_free(&node->backlog.by_time);
}
