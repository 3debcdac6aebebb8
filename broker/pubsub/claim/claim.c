/* Which session holds an at-least-once subscription: attaching, moving to a better one, letting go, losing it, and what
 * sessions say about it (broker/delivery/delivery.h shows the conversation). How items are sent and settled is up to
 * claim->ops. Called when sessions or subscriptions change.
 *
 * A subscription that has not acknowledged an item still has it (DESIGN: claims): nothing here ends what is owed, and
 * sending always starts anew when the session changes. */
#include "broker/pubsub/node/node.h"
#include "broker/pubsub/node/resident.h"
#include "broker/pubsub/claim/sent.h"

#include "broker/log.h"
#include "broker/pubsub/claim/acked.h"
#include "core/base/assert.h"

static struct node *node_of(const struct subscription *subscription)
{
    return subscription->subscriber->node;
}

static struct shard *shard_of(const struct subscription *subscription)
{
    return node_of(subscription)->pubsub->shard;
}

static struct claim_key key_of(const struct subscription *subscription)
{
    const struct node *node = node_of(subscription);
    return (struct claim_key){ node->number, subscription->number, node->pubsub->shard->index,
                               subscription->era };
}

void claim_set_state(struct subscription *subscription, enum claim_state state)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    bool routed = claim_routed(claim), live = claim->state == CLAIM_LIVE || state == CLAIM_LIVE;
    if (claim->state == CLAIM_LIVE && claim->sent < node->delivered_seq)
        claim->sent = node->delivered_seq;
    claim->state = state;
    if (live || routed != claim_routed(claim))
        routes_changed(node, &claim->session);
    if (state == CLAIM_OPEN && !xy_list_linked(&claim->open))
        xy_list_append(&node->open, &claim->open);
    if (state != CLAIM_OPEN && xy_list_linked(&claim->open))
        xy_list_remove(&claim->open);
}

static void new_run(struct claim *claim)
{
    claim->run++;
    if (claim->run == 0)
        claim->run = 1;
}

/* Single items need no order: a gap goes first, and its acknowledgement ends nothing else. */
static void send(struct subscription *subscription)
{
    if (subscription->claim.ops->sm_only || gap_send(subscription))
        subscription->claim.ops->send(subscription);
    else
        claim_block(subscription);
}

void claim_published(struct node *node)
{
    xy_list_each (link, &node->open) {
        struct claim *claim = xy_container_of(link, struct claim, open);
        send(xy_container_of(claim, struct subscription, claim));
    }
}

/* --- waiting a while ----------------------------------------------------------------------------------------------- */

static void on_unblocked(struct shard *shard, struct shard_timer *timer)
{
    struct claim *claim = xy_container_of(timer, struct claim, timer);
    (void)shard;
    xy_assert(claim->state == CLAIM_BLOCKED);
    send(xy_container_of(claim, struct subscription, claim));
}

void claim_block(struct subscription *subscription)
{
    struct shard *shard = shard_of(subscription);
    struct claim *claim = &subscription->claim;
    claim_set_state(subscription, CLAIM_BLOCKED);
    claim->timer.fn = on_unblocked;
    shard_timer_set(shard, &claim->timer, xy_now_us(shard->env) + BLOCKED_US);
}

void claim_unroute(struct node *node, unsigned shard)
{
    size_t position = 0;
    for (struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        if (s->claim.state == CLAIM_LIVE && s->claim.session.shard == shard)
            claim_block(s);
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
    return (reached->sm || !subscription->claim.ops->sm_only) && subscription_reaches(subscription, reached);
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

static unsigned flags_of(const struct subscription *subscription)
{
    const struct claim_ops *ops = subscription->claim.ops;
    return ops == &acked_ops && subscription->options.ack == ACK_RECEIPT ? CLAIM_RECEIPTS : ops->flags;
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
    claim->flags = flags_of(subscription);
    delivery_attach(shard_of(subscription), claim->session, key_of(subscription), claim->flags,
                    xy_str(subscription->subid));
}

/* The session holds the claim no longer. What it was sent and did not acknowledge is owed again. */
static void lose(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    shard_timer_cancel(shard_of(subscription), &claim->timer);
    claim_set_state(subscription, CLAIM_DETACHED);
    claim->ops->lost(subscription);
    gap_lost(subscription);
    claim->session = SESSION_NONE;
}

/* Lets go of a session that is still there. */
static void let_go(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_ATTACHING) /* else its answer will find the claim elsewhere */
        delivery_detach(shard_of(subscription), claim->session, claim->index);
    lose(subscription);
}

static void move(struct subscription *subscription)
{
    let_go(subscription);
    attach(subscription);
}

void claim_restart(struct subscription *subscription)
{
    const struct claim *claim = &subscription->claim;
    if (claim->state == CLAIM_DETACHED || claim->state == CLAIM_ATTACHING)
        return;
    if (claim->ops->sm_only)
        move(subscription);
    else if (claim->state == CLAIM_OPEN)
        send(subscription); /* else with what is sent next: single items need no order */
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
    struct shard *shard = shard_of(subscription);
    struct claim *claim = &subscription->claim;
    if (claim->state == CLAIM_ATTACHING) {
        move(subscription);
        return;
    }
    shard_timer_cancel(shard, &claim->timer);
    claim_set_state(subscription, CLAIM_LEAVING);
    if (!claim->ops->in_flight(subscription)) {
        move(subscription);
        return;
    }
    claim->timer.fn = on_left;
    shard_timer_set(shard, &claim->timer, xy_now_us(shard->env) + LEAVING_US_MAX);
}

static void stay(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_LEAVING)
        return;
    shard_timer_cancel(shard_of(subscription), &claim->timer);
    new_run(claim);
    send(subscription);
}

void claim_settled(struct subscription *subscription)
{
    const struct claim *claim = &subscription->claim;
    if (claim->state == CLAIM_LEAVING && !claim->ops->in_flight(subscription))
        move(subscription);
    else if (claim->state == CLAIM_OPEN)
        send(subscription);
}

void claim_sessions_changed(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    if (claim->ops == NULL)
        return;
    claim->refused = SESSION_NONE;
    if (claim->state == CLAIM_DETACHED) {
        attach(subscription);
        return;
    }
    const struct reached *holder = current(subscription);
    if (holder == NULL || !may_hold(subscription, holder) || !subscription->options.deliver) {
        /* A session that ended has given its claims back before we hear of it here; this one is still there but takes
         * no more events: unavailable, of negative priority (a bare JID's), or without XEP-0198. */
        move(subscription);
        return;
    }
    if (best(subscription) == holder)
        stay(subscription);
    else if (claim->state != CLAIM_LEAVING)
        leave(subscription);
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

static uint64_t before(const struct item *item, uint64_t otherwise)
{
    return item != NULL ? item->seq - 1 : otherwise;
}

uint64_t claim_start_seq(const struct node *node, const struct start *start)
{
    uint64_t newest = node->next_seq - 1;
    switch (start->kind) {
    case START_ALL:
        return 0;
    case START_LAST:
        return before(index_newest(&node->items), newest);
    case START_SEQ:
        return start->value - 1 < newest ? start->value - 1 : newest;
    case START_TIME:
        return before(index_since(&node->items, start->value), newest);
    case START_NEW:
        break;
    }
    return newest;
}

/* What only others are owed is either older than all that is retained, or superseded (index.h). */
uint64_t claim_first_seq(const struct node *node, const struct start *start)
{
    uint64_t seq = claim_start_seq(node, start);
    uint64_t oldest = before(index_oldest(&node->items), node->next_seq - 1);
    return seq > oldest ? seq : oldest;
}

static const struct claim_ops *ops_for(const struct subscription_options *options)
{
    return options->ack == ACK_STREAM ? &durable_ops : &acked_ops;
}

bool claim_prepare(struct subscription *subscription, const struct subscription_options *options)
{
    struct claim *claim = &subscription->claim;
    if (options->mode != MODE_AT_LEAST_ONCE || ops_for(options) != &acked_ops || claim->acked != NULL ||
        node_of(subscription)->queue != NULL)
        return true;
    claim->acked = acked_new(subscription, node_of(subscription)->pubsub->hash_seed);
    return claim->acked != NULL;
}

void claim_free(struct subscription *subscription)
{
    shard_timer_cancel(shard_of(subscription), &subscription->claim.timer);
    acked_free(&subscription->claim.acked);
}

static void begin(struct subscription *subscription, uint64_t cursor, uint64_t sent_max, uint32_t attempts)
{
    struct claim *claim = &subscription->claim;
    xy_assert(claim->ops == NULL && claim->state == CLAIM_DETACHED);
    *claim = (struct claim){ .ops = ops_for(&subscription->options),
                             .acked = claim->acked,
                             .cursor = cursor,
                             .sent = cursor,
                             .sent_max = sent_max,
                             .attempts = attempts,
                             .gap = claim->gap };
    xy_assert(claim->ops != &acked_ops || claim->acked != NULL);
    if (claim->ops->begin != NULL)
        claim->ops->begin(subscription);
    backlog_begin(subscription);
}

void claim_begin(struct subscription *subscription, uint64_t cursor)
{
    struct node *node = node_of(subscription);
    xy_assert(cursor < node->next_seq);
    subscription->born = node->next_seq;
    index_owe(&node->items, cursor, UINT64_MAX, subscription->born);
    node->durable_count++;
    begin(subscription, cursor, cursor, 1);
    backlog_begin_before(subscription);
}

/* Whoever was sent something before the restart may have got it: it counts as a redelivery. After a while without memory
 * it is known better. */
void claim_restore(struct subscription *subscription)
{
    uint64_t newest = node_of(subscription)->delivered_seq, cursor = subscription->claim.cursor, sent_max;
    if (!sent_recall(subscription, &sent_max))
        sent_max = newest;
    begin(subscription, cursor < newest ? cursor : newest, sent_max, 2);
}

/* Another way to acknowledge: what was settled above the oldest item that is not comes again, because a cursor cannot
 * tell it apart. */
static void convert(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    uint64_t floor = claim->ops->floor(subscription), sent = claim->sent;
    subscription->era++;
    claim->ops->rewind(subscription, floor);
    gap_rewound(subscription, floor);
    (void)claim_record(subscription, false);
    claim->ops = ops_for(&subscription->options);
    claim->cursor = claim->sent = floor;
    claim->sent_max = sent > claim->sent_max ? sent : claim->sent_max;
    if (claim->attempts == 1)
        claim->attempts = 2;
    if (claim->ops->begin != NULL)
        claim->ops->begin(subscription);
}

void claim_configured(struct subscription *subscription)
{
    struct claim *claim = &subscription->claim;
    bool other = claim->ops != ops_for(&subscription->options);
    if (claim->state != CLAIM_DETACHED && (other || claim->flags != flags_of(subscription)))
        let_go(subscription);
    if (other)
        convert(subscription);
    if (claim->ops->configured != NULL)
        claim->ops->configured(subscription);
    if (other)
        backlog_begin_before(subscription);
    else
        backlog_begin(subscription);
    claim_settled(subscription); /* more may be out than before */
}

/* Above this nothing was sent to anybody, as far as is known. */
static uint64_t sent_up_to(const struct subscription *subscription)
{
    const struct claim *claim = &subscription->claim;
    uint64_t sent = claim->state == CLAIM_LIVE ? node_of(subscription)->delivered_seq : claim->sent;
    return claim->ops->sm_only && claim->sent_max > sent ? claim->sent_max : sent;
}

/* What is under way counts as well: its acknowledgement would end what was asked for again. */
bool claim_rewind(struct subscription *subscription, uint64_t seq)
{
    struct claim *claim = &subscription->claim;
    if (seq >= sent_up_to(subscription))
        return false;
    if (claim->state != CLAIM_DETACHED)
        let_go(subscription);
    if (claim->sent > claim->sent_max)
        claim->sent_max = claim->sent;
    if (claim->attempts == 1)
        claim->attempts = 2;
    subscription->era++;
    claim->ops->rewind(subscription, seq);
    gap_rewound(subscription, seq);
    backlog_begin_before(subscription);
    return true;
}

void claim_end(struct subscription *subscription)
{
    struct node *node = node_of(subscription);
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_DETACHED)
        let_go(subscription);
    claim->ops->forget(subscription);
    claim->ops = NULL;
    subscription->era++;
    claim->gap = (struct gap){ 0 };
    if (!subscription_durable(subscription))
        return;
    backlog_end(subscription);
    xy_assert(node->durable_count > 0);
    node->durable_count--;
}

void claim_skip(struct subscription *subscription, uint64_t first, uint64_t last)
{
    subscription->claim.ops->skip(subscription, first, last);
}

bool claim_record(struct subscription *subscription, bool lazy)
{
    const struct claim *claim = &subscription->claim;
    if (claim->ops != NULL && claim->ops->record != NULL)
        return claim->ops->record(subscription, lazy);
    record_cursor(node_of(subscription), subscription);
    return true;
}

/* --- what is sent -------------------------------------------------------------------------------------------------- */

static void note_damage(struct node *node, struct item *item)
{
    if (item->damaged)
        return;
    item->damaged = true;
    node->pubsub->stats.damaged++;
    log_error(node->pubsub->shard->log, "stored item is damaged: those who are owed it get a gap",
              LOG_STR("node", node->name), LOG_NUM("seq", item->seq));
}

struct event *claim_event(struct subscription *subscription, struct item *item, bool again)
{
    struct node *node = node_of(subscription);
    struct event *event;
    enum item_read verdict = event_of_entry(node, item, again || item->event == NULL, &event);
    if (verdict == ITEM_READ_DAMAGED) {
        note_damage(node, item);
        event = event_for_gap(node, xy_str(subscription->subid), item->seq, item->seq, "damaged");
    }
    if (event == NULL)
        log_warning(node->pubsub->shard->log, "owed item cannot be read now: memory is short",
                    LOG_STR("node", node->name), LOG_STR("jid", subscription->jid),
                    LOG_NUM("seq", item->seq));
    return event;
}

/* --- what sessions say --------------------------------------------------------------------------------------------- */

static struct subscription *find(struct shard *shard, struct claim_key key)
{
    struct node *node = shard->pubsub != NULL ? node_by_number(shard->pubsub, key.node) : NULL;
    struct subscription *subscription = node != NULL ? node_subscription(node, key.subscription) : NULL;
    return subscription != NULL && subscription->claim.ops != NULL ? subscription : NULL;
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
    new_run(claim);
    claim->ops->attached(subscription);
    send(subscription);
}

/* Where single items are acknowledged, that they were received says nothing, of a gap neither. What was received before all
 * of it was owed anew must not cut that short: the session, or what is on disk of it, may not have heard of it yet. */
static void received(struct subscription *subscription, struct claim_key key, uint64_t seq)
{
    if (key.era != subscription->era)
        return;
    if (subscription->claim.ops->sm_only)
        gap_acked(subscription, seq);
    subscription->claim.ops->received(subscription, seq);
}

static void on_acked(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    (void)session; /* whoever says so: it was received */
    struct subscription *subscription = find(shard, key);
    if (subscription != NULL)
        received(subscription, key, seq);
}

/* What claim the news of a run is about; NULL: of one that is over. */
static struct subscription *find_run(struct shard *shard, struct claim_key key, struct session_ref session,
                                     uint16_t run)
{
    struct subscription *subscription = find(shard, key);
    bool current_run = subscription != NULL && holds(subscription, session) && subscription->claim.run == run;
    return current_run ? subscription : NULL;
}

static void on_stalled(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                       uint64_t unsent)
{
    struct subscription *subscription = find_run(shard, key, session, run);
    if (subscription == NULL)
        return;
    struct claim *claim = &subscription->claim;
    if (claim->state == CLAIM_ATTACHING || claim->state == CLAIM_STALLED)
        return;
    if (claim->state != CLAIM_LEAVING) {
        shard_timer_cancel(shard, &claim->timer);
        claim_set_state(subscription, CLAIM_STALLED);
    }
    claim->ops->stalled(subscription, unsent);
    gap_stalled(subscription, unsent);
    claim_settled(subscription);
}

static void on_ready(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run)
{
    struct subscription *subscription = find_run(shard, key, session, run);
    if (subscription == NULL)
        return;
    struct claim *claim = &subscription->claim;
    if (claim->state != CLAIM_WAITING && claim->state != CLAIM_STALLED)
        return;
    if (claim->state == CLAIM_STALLED)
        new_run(claim);
    send(subscription);
}

static void on_released(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t acked)
{
    struct subscription *subscription = find(shard, key);
    if (subscription == NULL)
        return;
    received(subscription, key, acked);
    if (!holds(subscription, session))
        return;
    lose(subscription);
    subscription->claim.refused = session; /* news of its end may be behind this */
    attach(subscription);
}

static void on_received_before(struct shard *shard, struct xy_str name, struct claim_key key, uint64_t seq)
{
    struct node *node;
    enum resident resident =
        shard->pubsub != NULL ? resident_find(shard->pubsub, name, &node) : RESIDENT_ABSENT;
    if (resident == RESIDENT_HERE)
        on_acked(shard, key, SESSION_NONE, seq);
    else if (resident == RESIDENT_LOADING)
        resident_note(shard->pubsub, name, key, seq);
}

const struct delivery_owner claim_owner = {
    .attached = on_attached,
    .acked = on_acked,
    .stalled = on_stalled,
    .ready = on_ready,
    .released = on_released,
    .received_before = on_received_before,
};
