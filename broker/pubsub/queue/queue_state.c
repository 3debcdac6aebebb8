/* What an owner sees of a queue, and parked items made ready again: docs/protocol.md 9.9. Called through the table of
 * pubsub.c. */
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/state.h"

#include "core/time.h"

#define REDRIVE_PAGE 256u /* items in one turn */

/* --- figures ------------------------------------------------------------------------------------------------------- */

static void set_number(struct xy_arena *arena, struct xy_elem *elem, const char *name, uint64_t value)
{
    xy_elem_set(arena, elem, name, xy_arena_printf(arena, "%llu", (unsigned long long)value));
}

static const struct reached *session_of(const struct subscription *consumer)
{
    const struct subscriber *subscriber = consumer->subscriber;
    for (size_t i = 0; consumer->claim.state != CLAIM_DETACHED && i < subscriber->reached_count; i++)
        if (session_ref_eq(subscriber->reached[i].session, consumer->claim.session))
            return &subscriber->reached[i];
    return NULL;
}

/* Why nothing flows, or that it does. */
static const char *state_of(const struct subscription *consumer)
{
    const struct queue_consumer *dispatch = &consumer->worker->consumer;
    if (!consumer->options.deliver)
        return "paused";
    if (consumer->claim.state == CLAIM_DETACHED || consumer->claim.state == CLAIM_ATTACHING)
        return "absent";
    if (dispatch->held_count >= dispatch->capacity)
        return "full";
    return consumer->claim.state == CLAIM_STALLED ? "stalled" : "receiving";
}

static bool is_consumer(const struct subscription *subscription)
{
    return subscription->worker != NULL;
}

static void add_consumer(struct xy_arena *arena, struct xy_elem *parent, const struct subscription *consumer)
{
    struct xy_elem *elem = xy_elem_add(arena, parent, "consumer", NULL);
    const struct reached *session = session_of(consumer);
    xy_elem_set(arena, elem, "jid", xy_arena_str(arena, consumer->jid));
    xy_elem_set(arena, elem, "subid", xy_arena_str(arena, xy_str(consumer->subid)));
    if (session != NULL)
        xy_elem_set(arena, elem, "session",
                    xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(consumer->subscriber->bare),
                                    XY_ARG(session->resource)));
    set_number(arena, elem, "queue-requests", consumer->options.queue_requests);
    set_number(arena, elem, "in-flight", consumer->worker->consumer.held_count);
    xy_elem_set(arena, elem, "state", xy_str(state_of(consumer)));
}

static void add_age(struct xy_arena *arena, struct xy_elem *state, const struct node *node)
{
    const struct item *oldest = index_oldest(&node->items);
    uint64_t now_us = xy_wall_us(node->pubsub->shard->env);
    char stamp[XY_TIME_LEN];
    if (oldest == NULL)
        return;
    xy_time_format(oldest->time_us, stamp);
    xy_elem_set(arena, state, "oldest", xy_arena_str(arena, xy_str(stamp)));
    set_number(arena, state, "oldest-age",
               now_us > oldest->time_us ? (now_us - oldest->time_us) / 1000000 : 0);
}

static void add_figures(struct xy_arena *arena, struct xy_elem *state, const struct queue *queue)
{
    const struct node *node = queue->node;
    static const struct {
        const char *name;
        enum queue_state state;
    } counted[] = { { "in-flight", QUEUE_LOCKED },
                    { "delayed", QUEUE_DELAYED },
                    { "blocked", QUEUE_BLOCKED },
                    { "parked", QUEUE_PARKED } };
    uint64_t ready = node->items.live;
    for (size_t i = 0; i < sizeof(counted) / sizeof(*counted); i++)
        ready -= queue_count(queue->engine, counted[i].state);
    set_number(arena, state, "depth", node->items.live);
    set_number(arena, state, "bytes", node->items.retained_bytes);
    set_number(arena, state, "ready", ready);
    for (size_t i = 0; i < sizeof(counted) / sizeof(*counted); i++)
        set_number(arena, state, counted[i].name, queue_count(queue->engine, counted[i].state));
    add_age(arena, state, node);
    set_number(arena, state, "redeliveries", queue->figures.redelivered);
    set_number(arena, state, "acknowledged", queue->figures.acknowledged);
    set_number(arena, state, "timed-out", queue->figures.timed_out);
    set_number(arena, state, "dead-lettered", queue->figures.dead_lettered);
    set_number(arena, state, "expired", queue->figures.expired);
    set_number(arena, state, "dropped", queue->figures.dropped);
    set_number(arena, state, "consumers", node->subscriptions_count);
}

void queue_totals(const struct pubsub *pubsub, struct pubsub_stats *out)
{
    uint64_t now_us = xy_wall_us(pubsub->shard->env);
    for (const struct xy_list *link = pubsub->queues.next; link != &pubsub->queues; link = link->next) {
        const struct queue *queue = xy_container_of(link, const struct queue, link);
        const struct item *oldest = index_oldest(&queue->node->items);
        uint64_t age_us = oldest != NULL && now_us > oldest->time_us ? now_us - oldest->time_us : 0;
        out->queues++;
        out->queue_depth += queue->node->items.live;
        out->queue_in_flight += queue_count(queue->engine, QUEUE_LOCKED);
        out->queue_delayed += queue_count(queue->engine, QUEUE_DELAYED);
        out->queue_blocked += queue_count(queue->engine, QUEUE_BLOCKED);
        out->queue_parked += queue_count(queue->engine, QUEUE_PARKED);
        if (age_us / 1000000 > out->queue_oldest_age)
            out->queue_oldest_age = age_us / 1000000;
    }
}

static bool no_queue(struct call *call)
{
    if (call->node->queue != NULL)
        return false;
    call_fail(call, XY_BAD_REQUEST, NULL, "this node is no queue");
    return true;
}

void queue_state_get(struct call *call)
{
    if (no_queue(call))
        return;
    struct xy_elem *result = xy_stanza_result(call->arena, &(*call->request)->stanza);
    struct xy_elem *state = xy_elem_add(call->arena, result, "queue-state", NS_XYLEM_DELIVERY);
    xy_elem_set(call->arena, state, "node", call->name);
    add_figures(call->arena, state, call->node->queue);
    if (!state_add_page(call, state, is_consumer, add_consumer))
        return;
    if (xy_arena_failed(call->arena))
        call_no_room(call);
    else
        call_reply(call, result);
}

/* --- parked items -------------------------------------------------------------------------------------------------- */

struct redrive { /* in the request's arena */
    struct request *request;
    uint64_t node;
    uint64_t left; /* at most so many more: what is parked again meanwhile is not done twice */
    uint64_t count;
};

static void finish(struct shard *shard, struct redrive *redrive, uint64_t ticket)
{
    struct xy_arena *arena = redrive->request->stanza.arena;
    const struct xy_elem *asked = xy_elem_first(redrive->request->stanza.elem);
    struct xy_elem *result = xy_stanza_result(arena, &redrive->request->stanza);
    struct xy_elem *elem = xy_elem_add(arena, result, "redrive", NS_XYLEM_DELIVERY);
    xy_elem_set(arena, elem, "node", xy_elem_attr(asked, "node"));
    set_number(arena, elem, "count", redrive->count);
    struct request *request = redrive->request;
    request_reply(shard, &request, result, ticket);
}

static void on_redrive(struct shard *shard, void *payload)
{
    struct redrive *redrive = *(struct redrive **)payload;
    struct node *node = node_by_number(shard->pubsub, redrive->node);
    struct queue *queue = node != NULL ? node->queue : NULL;
    struct queue_entry *entry = NULL;
    for (unsigned i = 0; i < REDRIVE_PAGE && redrive->left > 0 && queue != NULL &&
                         (entry = queue_parked(queue->engine)) != NULL;
         i++) {
        queue_leaves_no_more(queue, entry, index_find(&node->items, entry->seq));
        queue_redrive(queue->engine, entry, queue_now_us(queue));
        queue_dirty(queue, entry);
        redrive->count++;
        redrive->left--;
    }
    if (queue != NULL) {
        queue_record(queue, false);
        queue_touch(queue);
    }
    if (entry != NULL && redrive->left > 0)
        shard_mail(shard, shard->index, on_redrive, &redrive, sizeof(redrive));
    else
        finish(shard, redrive, node != NULL ? node->ticket : shard->pubsub->deleted_ticket);
}

/* `max`, or no bound. false: refused. */
static bool read_max(struct call *call, uint64_t *max)
{
    struct xy_str text = xy_elem_attr(call->action, "max");
    *max = UINT64_MAX;
    if (text.data == NULL || (xy_str_u64(xy_str_trim(text), max) && *max > 0))
        return true;
    call_fail(call, XY_BAD_REQUEST, NULL, "max is a number of items");
    return false;
}

void queue_redrive_items(struct call *call)
{
    uint64_t max;
    if (no_queue(call) || !read_max(call, &max))
        return;
    struct redrive *redrive = xy_arena_zalloc(call->arena, sizeof(*redrive));
    if (redrive == NULL) {
        call_no_room(call);
        return;
    }
    size_t parked = queue_count(call->node->queue->engine, QUEUE_PARKED);
    *redrive = (struct redrive){ .request = *call->request,
                                 .node = call->node->number,
                                 .left = parked < max ? parked : max };
    *call->request = NULL;
    on_redrive(call->shard, &redrive);
}
