/* Moving what is in a node to another one, for its owner: dead letters back into their queue, or a queue elsewhere
 * (docs/protocol.md 9.9). Each item is published there in the sender's name, durably and once, and then leaves here; a few
 * are on their way at a time, so that no turn is long. One at a time per node; called through the table of pubsub.c. */
#include "broker/pubsub/call.h"
#include "broker/pubsub/queue/queue.h"

#include "core/base/assert.h"

#define MOVE_FLIGHT_MAX 32u   /* items of one move on their way */
#define MOVE_LOOK_MAX   1024u /* items looked at in one turn */
#define MOVE_RETRY_US   100000u

struct move { /* in the request's arena */
    struct move *next;
    struct request *request;
    struct shard_timer timer;
    uint64_t node;
    struct xy_str to;
    struct xy_jid account;
    uint64_t cursor, last, left, count;
    uint32_t flight;
    bool refused;
    bool granted; /* an administrator asked */
};

static void advance(struct shard *shard, struct move *move);

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    advance(shard, xy_container_of(timer, struct move, timer));
}

/* --- one item ------------------------------------------------------------------------------------------------------ */

/* While it is on its way nobody else gets it. false: it stays, a consumer has it or memory is short. */
static bool hold(struct queue *queue, uint64_t seq)
{
    struct queue_entry *entry = queue_entry_of(queue, seq);
    if (entry == NULL || entry->state == QUEUE_LOCKED || entry->state == QUEUE_PENDING)
        return false;
    if (entry->state == QUEUE_PARKED && !xy_list_linked(&entry->held_link))
        return false; /* on its way to the dead letters */
    if (entry->state != QUEUE_PARKED) {
        entry->reviving = true;
        queue_park(queue->engine, entry, queue_now_us(queue));
    }
    queue_hide(queue->engine, entry);
    return true;
}

static void let_go(struct queue *queue, uint64_t seq)
{
    struct queue_entry *entry = queue_find(queue->engine, seq);
    if (entry == NULL)
        return;
    if (entry->reviving)
        queue_revive(queue->engine, entry, queue_now_us(queue));
    else
        queue_park(queue->engine, entry, queue_now_us(queue));
    entry->reviving = false;
    queue_touch(queue);
}

static struct move *find(const struct pubsub *pubsub, uint64_t node)
{
    struct move *move = pubsub->moves;
    while (move != NULL && move->node != node)
        move = move->next;
    return move;
}

static void on_moved(struct shard *shard, uint64_t number, uint64_t seq, bool moved)
{
    struct move *move = find(shard->pubsub, number);
    struct node *node = node_by_number(shard->pubsub, number);
    struct item *item = node != NULL ? index_find(&node->items, seq) : NULL;
    xy_assert(move != NULL && move->flight > 0);
    move->flight--;
    if (moved) {
        move->count++;
        if (item != NULL) {
            index_remove(&node->items, item);
            record_items_removed(node, &seq, 1);
        }
    } else {
        move->refused = true;
        if (item != NULL && node->queue != NULL)
            let_go(node->queue, seq);
    }
    if (!shard_timer_is_set(&move->timer))
        shard_timer_set(shard, &move->timer, xy_now_us(shard->env)); /* once for all that came home */
}

/* --- the whole ----------------------------------------------------------------------------------------------------- */

static void finish(struct shard *shard, struct move *move, const struct node *node)
{
    struct pubsub *pubsub = shard->pubsub;
    struct request *request = move->request;
    struct xy_arena *arena = request->stanza.arena;
    for (struct move **at = &pubsub->moves; *at != NULL; at = &(*at)->next) {
        if (*at == move) {
            *at = move->next;
            break;
        }
    }
    shard_timer_cancel(shard, &move->timer);
    uint64_t ticket = node != NULL ? node->ticket : pubsub->deleted_ticket;
    if (move->refused) {
        struct xy_str text =
            xy_arena_printf(arena, "the other node refuses what comes; %llu items were moved before",
                            (unsigned long long)move->count);
        struct xy_error error = xy_error_make(
            XY_NOT_ALLOWED, text.data != NULL ? text.data : "the other node refuses what comes");
        request_fail_after(shard, &request, &error, ticket);
        return;
    }
    struct xy_elem *result = xy_stanza_result(arena, &request->stanza);
    struct xy_elem *elem = xy_elem_add(arena, result, "move", NS_XYLEM_DELIVERY);
    xy_elem_set(arena, elem, "node", xy_elem_attr(xy_elem_first(request->stanza.elem), "node"));
    xy_elem_set(arena, elem, "to", move->to);
    xy_elem_set(arena, elem, "count", xy_arena_printf(arena, "%llu", (unsigned long long)move->count));
    request_reply(shard, &request, result, ticket);
}

/* false: not now. */
static bool send(struct move *move, struct node *node, struct item *item)
{
    struct dead_letter letter = {
        .to = move->to, .account = move->account, .moved = on_moved, .granted = move->granted
    };
    if (node->queue != NULL && !hold(node->queue, item->seq))
        return true; /* it stays */
    if (deadletter_send(node, item, &letter)) {
        move->flight++;
        move->left--;
        return true;
    }
    if (node->queue != NULL)
        let_go(node->queue, item->seq);
    return false;
}

static void advance(struct shard *shard, struct move *move)
{
    struct node *node = node_by_number(shard->pubsub, move->node);
    struct item *item = NULL;
    for (unsigned i = 0; node != NULL && !move->refused && move->left > 0 && i < MOVE_LOOK_MAX; i++) {
        item = index_after(&node->items, move->cursor);
        if (item == NULL || item->seq > move->last || move->flight == MOVE_FLIGHT_MAX)
            break;
        bool skipped = item->damaged || !item->retained;
        if (!skipped && !send(move, node, item))
            break;
        move->cursor = item->seq;
    }
    bool more = node != NULL && !move->refused && move->left > 0 && item != NULL && item->seq <= move->last;
    if (move->flight == 0 && !more)
        finish(shard, move, node);
    else if (move->flight == 0 || (more && move->flight < MOVE_FLIGHT_MAX))
        shard_timer_set(shard, &move->timer, xy_now_us(shard->env) + MOVE_RETRY_US);
}

static bool check(struct call *call, uint64_t *max)
{
    struct xy_str to = xy_elem_attr(call->action, "to"), text = xy_elem_attr(call->action, "max");
    *max = UINT64_MAX;
    if (to.len == 0 || to.len > NODE_NAME_MAX)
        call_fail(call, XY_BAD_REQUEST, NULL, "say where to: to='…', the name of another node");
    else if (xy_str_eq(to, call->name))
        call_fail(call, XY_BAD_REQUEST, NULL,
                  "items cannot be moved to the node they are in; name another one");
    else if (text.data != NULL && (!xy_str_u64(xy_str_trim(text), max) || *max == 0))
        call_fail(call, XY_BAD_REQUEST, NULL, "max is a number of items");
    else if (find(call->pubsub, call->node->number) != NULL)
        call_fail(call, XY_CONFLICT, NULL, "items of this node are being moved already");
    else
        return true;
    return false;
}

void queue_move_items(struct call *call)
{
    uint64_t max;
    if (!check(call, &max))
        return;
    struct move *move = xy_arena_zalloc(call->arena, sizeof(*move));
    if (move == NULL) {
        call_no_room(call);
        return;
    }
    *move = (struct move){ .next = call->pubsub->moves,
                           .request = *call->request,
                           .timer.fn = on_timer,
                           .node = call->node->number,
                           .to = xy_elem_attr(call->action, "to"),
                           .account = xy_jid_canonical(call->who),
                           .last = call->node->delivered_seq,
                           .left = max,
                           .granted = router_is_admin(call->shard, (*call->request)->stanza.from) };
    call->pubsub->moves = move;
    *call->request = NULL;
    advance(call->shard, move);
}

bool queue_is_moving(const struct node *node)
{
    return find(node->pubsub, node->number) != NULL;
}

void queue_moves_free(struct pubsub *pubsub)
{
    while (pubsub->moves != NULL) {
        struct move *move = pubsub->moves;
        struct xy_arena *arena = move->request->stanza.arena;
        pubsub->moves = move->next;
        shard_timer_cancel(pubsub->shard, &move->timer);
        xy_arena_pool_give(pubsub->shard->arenas, &arena);
    }
}
