/* At-least-once subscriptions: one cursor each, at most one session at a time, pages from the store until caught up, then
 * live. broker/delivery/delivery.h shows the conversation with the session; docs/protocol.md what users see.
 *
 * A subscription that has not acknowledged an item still has it (DESIGN: claims): the cursor moves only by
 * acknowledgement, and sending always starts behind the cursor when the session changes. */
#include "broker/pubsub/node.h"

#include "broker/log.h"
#include "core/base/assert.h"

static struct node *node_of(const struct subscription *subscription)
{
    return subscription->subscriber->node;
}

static struct claim_key key_of(const struct subscription *subscription)
{
    const struct node *node = node_of(subscription);
    return (struct claim_key){ node->number, subscription->number, node->pubsub->shard->index };
}

static void set_state(struct subscription *subscription, enum claim_state state)
{
    struct claim *claim = &subscription->claim;
    if (claim->state == CLAIM_LIVE || state == CLAIM_LIVE)
        routes_changed(node_of(subscription), &claim->session);
    claim->state = state;
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

static void new_run(struct claim *claim)
{
    claim->run++;
    if (claim->run == 0)
        claim->run = 1;
}

static struct item *owed(const struct node *node, uint64_t after)
{
    struct item *item = index_after(&node->items, after);
    return item != NULL && item->seq <= node->delivered_seq ? item : NULL;
}

static void note_damage(struct node *node, struct item *item)
{
    if (item->damaged)
        return;
    item->damaged = true;
    node->pubsub->stats.damaged++;
    log_error(node->pubsub->shard->log, "stored item is damaged: those who are owed it get a gap",
              LOG_STR("node", node->name), LOG_NUM("seq", item->seq));
}

/* false: not now, it stays owed. A damaged item is sent as a gap under its number, and acknowledged like it. */
static bool send_one(struct subscription *subscription, struct item *item, bool page_end)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    uint32_t attempt = item->seq <= claim->sent_max ? claim->attempts : 1;
    struct event *event;
    enum item_read verdict = event_of_entry(node, item, attempt > 1 || item->event == NULL, &event);
    if (verdict == ITEM_READ_DAMAGED) {
        note_damage(node, item);
        event = event_for_gap(node, xy_str(subscription->subid), item->seq, item->seq, "damaged");
    }
    if (event == NULL)
        return false;
    claim->sent = item->seq;
    node->pubsub->stats.redelivered += attempt > 1;
    delivery_one(node->pubsub->shard, claim->session, claim->index, claim->run, event, attempt, page_end);
    if (item->seq > claim->sent_max)
        claim->sent_max = item->seq;
    return true;
}

static void on_unblocked(struct shard *shard, struct shard_timer *timer);

/* What comes next could not be sent: the run pauses in front of it, because whatever is sent behind it and acknowledged
 * would end it too. */
static void block(struct subscription *subscription)
{
    struct shard *shard = node_of(subscription)->pubsub->shard;
    struct claim *claim = &subscription->claim;
    set_state(subscription, CLAIM_BLOCKED);
    claim->timer.fn = on_unblocked;
    shard_timer_set(shard, &claim->timer, xy_now_us(shard->env) + BLOCKED_US);
}

/* Sends the next page. Having sent all there is, the subscription is live: mail keeps its order, so what is published
 * next arrives behind this page. */
static void pump(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    size_t bytes = 0;
    struct item *item = owed(node, claim->sent);
    for (size_t count = 1; item != NULL; count++) {
        struct item *next = owed(node, item->seq);
        bytes += item->bytes;
        bool page_end = next != NULL && (count == PAGE_ITEMS_MAX || bytes >= PAGE_BYTES_MAX);
        if (!send_one(subscription, item, page_end)) {
            log_warning(node->pubsub->shard->log, "owed item cannot be read now: memory is short",
                        LOG_STR("node", node->name), LOG_STR("jid", subscription->jid),
                        LOG_NUM("seq", item->seq));
            block(subscription);
            return;
        }
        if (page_end) {
            set_state(subscription, CLAIM_WAITING);
            return;
        }
        item = next;
    }
    claim->sent = node->delivered_seq > claim->sent ? node->delivered_seq : claim->sent;
    set_state(subscription, CLAIM_LIVE);
}

static void on_unblocked(struct shard *shard, struct shard_timer *timer)
{
    struct claim *claim = xy_container_of(timer, struct claim, timer);
    (void)shard;
    xy_assert(claim->state == CLAIM_BLOCKED);
    pump(xy_container_of(claim, struct subscription, claim));
}

void durable_unroute(struct node *node, unsigned shard)
{
    size_t position = 0;
    for (struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;) {
        if (s->claim.state != CLAIM_LIVE || s->claim.session.shard != shard)
            continue;
        s->claim.sent = node->delivered_seq;
        block(s);
    }
}

/* --- which session ------------------------------------------------------------------------------------------------- */

static const struct reached *current(const struct subscription *subscription)
{
    const struct subscriber *subscriber = subscription->subscriber;
    for (size_t i = 0; i < subscriber->reached_count; i++)
        if (session_ref_eq(subscriber->reached[i].session, subscription->claim.session))
            return &subscriber->reached[i];
    return NULL;
}

static bool may_hold(const struct subscription *subscription, const struct reached *reached)
{
    return reached->sm && subscription_reaches(subscription, reached);
}

/* They come most suitable first. */
static const struct reached *best(const struct subscription *subscription)
{
    const struct subscriber *subscriber = subscription->subscriber;
    for (size_t i = 0; i < subscriber->reached_count; i++) {
        const struct reached *reached = &subscriber->reached[i];
        if (may_hold(subscription, reached) && !session_ref_eq(reached->session, subscription->claim.refused))
            return reached;
    }
    return NULL;
}

static void attach(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    xy_assert(claim->state == CLAIM_DETACHED);
    const struct reached *chosen = best(subscription);
    if (chosen == NULL || !subscription->active || !subscription->options.deliver)
        return;
    claim->session = chosen->session;
    claim->state = CLAIM_ATTACHING;
    delivery_attach(node_of(subscription)->pubsub->shard, claim->session, key_of(subscription),
                    xy_str(subscription->subid));
}

/* Sent in this session and not acknowledged. */
static bool in_flight(const struct subscription *subscription)
{
    const struct claim *claim = &subscription->claim;
    const struct item *item = index_after(&node_of(subscription)->items, claim->cursor);
    return item != NULL && item->seq <= claim->sent;
}

/* The session holds the claim no longer. What it was sent and did not acknowledge is owed again. */
static void lose(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    uint64_t sent = claim->state == CLAIM_LIVE ? node_of(subscription)->delivered_seq : claim->sent;
    claim->sent = sent;
    bool again = in_flight(subscription);
    shard_timer_cancel(node_of(subscription)->pubsub->shard, &claim->timer);
    set_state(subscription, CLAIM_DETACHED);
    if (sent > claim->sent_max)
        claim->sent_max = sent;
    if (again && claim->attempts < UINT32_MAX)
        claim->attempts++;
    claim->session = SESSION_NONE;
    claim->sent = claim->cursor;
}

/* Lets go of a session that is still there. */
static void let_go(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_ATTACHING) /* else its answer will find the claim elsewhere */
        delivery_detach(node_of(subscription)->pubsub->shard, claim->session, claim->index);
    lose(subscription);
}

static void move(struct subscription *subscription)
{
    let_go(subscription);
    attach(subscription);
}

static void on_left(struct shard *shard, struct shard_timer *timer)
{
    struct claim *claim = xy_container_of(timer, struct claim, timer);
    (void)shard;
    xy_assert(claim->state == CLAIM_LEAVING);
    move(xy_container_of(claim, struct subscription, claim));
}

/* A better session is there. What this one was sent it may still acknowledge, so that nothing is sent twice. */
static void leave(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    struct shard *shard = node->pubsub->shard;
    if (claim->state == CLAIM_LIVE)
        claim->sent = node->delivered_seq;
    if (claim->state == CLAIM_ATTACHING || !in_flight(subscription)) {
        move(subscription);
        return;
    }
    shard_timer_cancel(shard, &claim->timer);
    set_state(subscription, CLAIM_LEAVING);
    claim->timer.fn = on_left;
    shard_timer_set(shard, &claim->timer, xy_now_us(shard->env) + LEAVING_US_MAX);
}

static void stay(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_LEAVING)
        return;
    shard_timer_cancel(node_of(subscription)->pubsub->shard, &claim->timer);
    new_run(claim);
    pump(subscription);
}

void durable_sessions_changed(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (!subscription_durable(subscription))
        return;
    claim->refused = SESSION_NONE;
    if (claim->state == CLAIM_DETACHED) {
        attach(subscription);
        return;
    }
    const struct reached *holder = current(subscription);
    if (holder == NULL || !may_hold(subscription, holder) || !subscription->options.deliver) {
        /* A session that ended has given its claims back before we hear of it here; this one is still there but takes
         * no more events: unavailable, of negative priority, or without XEP-0198. */
        move(subscription);
        return;
    }
    if (best(subscription) == holder)
        stay(subscription);
    else if (claim->state != CLAIM_LEAVING)
        leave(subscription);
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

uint64_t durable_start_seq(const struct node *node, const struct start *start)
{
    uint64_t newest = node->next_seq - 1;
    const struct item *item = NULL;
    switch (start->kind) {
    case START_ALL:
        return 0;
    case START_LAST:
        item = index_newest(&node->items);
        return item != NULL ? item->seq - 1 : newest;
    case START_SEQ:
        return start->value - 1 < newest ? start->value - 1 : newest;
    case START_TIME:
        for (item = index_after(&node->items, 0); item != NULL; item = index_after(&node->items, item->seq))
            if (item->time_us >= start->value)
                return item->seq - 1;
        return newest;
    case START_NEW:
        break;
    }
    return newest;
}

void durable_begin(struct subscription *subscription, uint64_t cursor)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    xy_assert(claim->state == CLAIM_DETACHED);
    xy_assert(cursor < node->next_seq);
    *claim = (struct claim){ .cursor = cursor, .sent = cursor, .sent_max = cursor, .attempts = 1 };
    index_owe(&node->items, cursor);
    node->durable_count++;
    backlog_begin(subscription);
}

void durable_end(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_DETACHED)
        let_go(subscription);
    index_pass(&node->items, claim->cursor, UINT64_MAX, record_item_freed, node);
    backlog_end(subscription);
    xy_assert(node->durable_count > 0);
    node->durable_count--;
}

/* --- what sessions say --------------------------------------------------------------------------------------------- */

static struct subscription *find(struct shard *shard, struct claim_key key)
{
    struct node *node = shard->pubsub != NULL ? node_by_number(shard->pubsub, key.node) : NULL;
    struct subscription *subscription = node != NULL ? node_subscription(node, key.subscription) : NULL;
    return subscription != NULL && subscription_durable(subscription) ? subscription : NULL;
}

static bool holds(const struct subscription *subscription, struct session_ref session)
{
    return subscription->claim.state != CLAIM_DETACHED &&
           session_ref_eq(subscription->claim.session, session);
}

static void on_attached(struct shard *shard, struct claim_key key, struct session_ref session, uint32_t index)
{
    struct subscription *subscription = find(shard, key);
    if (subscription == NULL || !holds(subscription, session) ||
        subscription->claim.state != CLAIM_ATTACHING) {
        delivery_detach(shard, session, index); /* it changed its mind, or ended, while we asked */
        return;
    }
    struct claim *claim = &subscription->claim;
    claim->index = index;
    claim->sent = claim->cursor;
    new_run(claim);
    pump(subscription);
}

static void settle(struct subscription *subscription, uint64_t seq)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    if (seq <= claim->cursor || seq > node->delivered_seq)
        return; /* old news; the sessions are ours, but a wrong number must not end what is owed */
    index_pass(&node->items, claim->cursor, seq, record_item_freed, node);
    claim->cursor = seq;
    if (claim->sent < seq)
        claim->sent = seq;
    record_cursor_moved(node, subscription);
    if (claim->state == CLAIM_LEAVING && !in_flight(subscription))
        move(subscription);
}

void durable_skip(struct subscription *subscription, uint64_t seq)
{
    settle(subscription, seq);
}

static void on_acked(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    (void)session; /* whoever says so: it was received */
    struct subscription *subscription = find(shard, key);
    if (subscription != NULL)
        settle(subscription, seq);
}

static void on_stalled(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                       uint64_t unsent)
{
    struct subscription *subscription = find(shard, key);
    if (subscription == NULL || !holds(subscription, session) || subscription->claim.run != run)
        return;
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_LIVE && claim->state != CLAIM_WAITING && claim->state != CLAIM_BLOCKED &&
        claim->state != CLAIM_LEAVING)
        return;
    bool leaving = claim->state == CLAIM_LEAVING;
    uint64_t taken = unsent > 0 ? unsent - 1 : claim->cursor;
    if (!leaving) {
        shard_timer_cancel(shard, &claim->timer);
        set_state(subscription, CLAIM_STALLED);
    }
    claim->sent = taken > claim->cursor ? taken : claim->cursor;
    if (claim->attempts == 1 || claim->sent_max < claim->sent)
        claim->sent_max =
            claim->sent; /* at the first attempt nothing behind it was ever taken: no redelivery */
    if (leaving && !in_flight(subscription))
        move(subscription);
}

static void on_ready(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run)
{
    struct subscription *subscription = find(shard, key);
    if (subscription == NULL || !holds(subscription, session) || subscription->claim.run != run)
        return;
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_WAITING && claim->state != CLAIM_STALLED)
        return;
    if (claim->state == CLAIM_STALLED)
        new_run(claim);
    pump(subscription);
}

static void on_released(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t acked)
{
    struct subscription *subscription = find(shard, key);
    if (subscription == NULL)
        return;
    settle(subscription, acked);
    if (!holds(subscription, session))
        return;
    lose(subscription);
    subscription->claim.refused = session; /* news of its end may be behind this */
    attach(subscription);
}

const struct delivery_owner durable_owner = {
    .attached = on_attached,
    .acked = on_acked,
    .stalled = on_stalled,
    .ready = on_ready,
    .released = on_released,
};
