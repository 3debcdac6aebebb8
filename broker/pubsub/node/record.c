/* Records about nodes: every durable change of broker/pubsub is appended here. Cursor moves and items that the last
 * subscriber acknowledged are gathered and appended once per node and turn, lazily: nobody waits for them. */
#include "broker/config.h"
#include "broker/pubsub/node/node.h"
#include "broker/pubsub/node/retention.h"
#include "broker/shard/stats.h"

#include "core/base/assert.h"

static char *text(struct xy_str s)
{
    xy_assert(s.data != NULL && s.data[s.len] == '\0');
    return (char *)(uintptr_t)s.data;
}

static void append(struct node *node, enum store_record type, const ProtobufCMessage *record)
{
    node->ticket = node->firm_ticket = store_append(node->pubsub->shard->store, type, record);
}

void record_publish(struct node *node, enum store_record type, const ProtobufCMessage *record)
{
    const struct shard *shard = node->pubsub->shard;
    if (node->config.durability == DURABILITY_ASYNC)
        node->ticket =
            store_append_within(shard->store, type, record, shard->config->store.async_flush_ms * 1000);
    else
        append(node, type, record);
}

void record_node(struct node *node)
{
    Xylem__Store__V1__NodePut put = XYLEM__STORE__V1__NODE_PUT__INIT;
    put.node = node->number;
    put.name = text(node->name);
    put.epoch = node->epoch;
    put.creator = text(node->creator);
    put.created_us = node->created_us;
    xy_arena_reset(node->pubsub->arena);
    put.n_config = options_pack(node_options, &node->config, node->pubsub->arena, &put.config);
    append(node, RECORD_NODE_PUT, &put.base);
}

void record_node_remove(struct node *node)
{
    Xylem__Store__V1__NodeRemove remove = XYLEM__STORE__V1__NODE_REMOVE__INIT;
    remove.node = node->number;
    remove.name = text(node->name);
    append(node, RECORD_NODE_REMOVE, &remove.base);
}

void record_purge(struct node *node, uint64_t seq)
{
    if (node_is_memory(node))
        return;
    Xylem__Store__V1__NodePurge purge = XYLEM__STORE__V1__NODE_PURGE__INIT;
    purge.node = node->number;
    purge.seq = seq;
    append(node, RECORD_NODE_PURGE, &purge.base);
}

void record_affiliation(struct node *node, struct xy_str bare, enum affiliation affiliation)
{
    Xylem__Store__V1__AffiliationPut put = XYLEM__STORE__V1__AFFILIATION_PUT__INIT;
    xy_arena_reset(node->pubsub->arena);
    put.node = node->number;
    put.jid = text(xy_arena_str(node->pubsub->arena, bare));
    put.affiliation = (char *)(uintptr_t)affiliation_name(affiliation);
    append(node, RECORD_AFFILIATION_PUT, &put.base);
}

void record_subscription(struct node *node, const struct subscription *subscription)
{
    Xylem__Store__V1__SubscriptionPut put = XYLEM__STORE__V1__SUBSCRIPTION_PUT__INIT;
    put.node = node->number;
    put.number = subscription->number;
    put.node_name = text(node->name);
    put.jid = text(subscription->jid);
    put.subid = (char *)(uintptr_t)subscription->subid;
    put.start_seq = subscription->start_seq;
    put.born = subscription->born;
    put.era = subscription->era;
    put.state = (char *)(uintptr_t) "subscribed";
    xy_arena_reset(node->pubsub->arena);
    put.n_options =
        options_pack(subscription_options, &subscription->options, node->pubsub->arena, &put.options);
    append(node, RECORD_SUBSCRIPTION_PUT, &put.base);
}

void record_subscription_remove(struct node *node, const struct subscription *subscription)
{
    Xylem__Store__V1__SubscriptionRemove remove = XYLEM__STORE__V1__SUBSCRIPTION_REMOVE__INIT;
    remove.node = node->number;
    remove.number = subscription->number;
    remove.jid = text(subscription->jid);
    append(node, RECORD_SUBSCRIPTION_REMOVE, &remove.base);
}

void record_cursor(struct node *node, const struct subscription *subscription)
{
    Xylem__Store__V1__CursorMove move = XYLEM__STORE__V1__CURSOR_MOVE__INIT;
    uint32_t number = subscription->number, reason = subscription->claim.gap.reason;
    uint64_t seq = subscription->claim.cursor, first = subscription->claim.gap.first,
             last = subscription->claim.gap.last;
    move.node = node->number;
    move.n_number = move.n_seq = 1;
    move.number = &number;
    move.seq = &seq;
    if (last != 0)
        move.n_gap_first = move.n_gap_last = move.n_gap_reason = 1;
    move.gap_first = &first;
    move.gap_last = &last;
    move.gap_reason = &reason;
    append(node, RECORD_CURSOR_MOVE, &move.base);
}

void record_items_removed(struct node *node, uint64_t *seqs, size_t count)
{
    Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    remove.node = node->number;
    remove.n_seq = count;
    remove.seq = seqs;
    if (count > 0 && !node_is_memory(node))
        append(node, RECORD_ITEM_REMOVE, &remove.base);
}

static Xylem__Store__V1__ItemRemove removal(const struct node *node, struct evicted *evicted)
{
    Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
    remove.node = node->number;
    remove.n_seq = evicted->removed_count;
    remove.seq = evicted->removed;
    return remove;
}

static Xylem__Store__V1__ItemUnretain release(const struct node *node, struct evicted *evicted)
{
    Xylem__Store__V1__ItemUnretain unretain = XYLEM__STORE__V1__ITEM_UNRETAIN__INIT;
    unretain.node = node->number;
    unretain.n_seq = evicted->unretained_count;
    unretain.seq = evicted->unretained;
    return unretain;
}

void record_evicted(struct node *node, struct evicted *evicted)
{
    Xylem__Store__V1__ItemRemove remove = removal(node, evicted);
    Xylem__Store__V1__ItemUnretain unretain = release(node, evicted);
    if (node_is_memory(node))
        return;
    if (remove.n_seq > 0)
        record_publish(node, RECORD_ITEM_REMOVE, &remove.base);
    if (unretain.n_seq > 0)
        record_publish(node, RECORD_ITEM_UNRETAIN, &unretain.base);
}

/* --- what can wait ------------------------------------------------------------------------------------------------- */

void record_items_expired(struct node *node, struct evicted *evicted)
{
    Xylem__Store__V1__ItemRemove remove = removal(node, evicted);
    Xylem__Store__V1__ItemUnretain unretain = release(node, evicted);
    stat_add(node->pubsub->shard, items_expired, remove.n_seq + unretain.n_seq);
    if (node_is_memory(node))
        return;
    if (remove.n_seq > 0)
        (void)store_append_lazy(node->pubsub->shard->store, RECORD_ITEM_REMOVE, &remove.base);
    if (unretain.n_seq > 0)
        (void)store_append_lazy(node->pubsub->shard->store, RECORD_ITEM_UNRETAIN, &unretain.base);
}

#define FREED_MAX 4096u /* items per record */

/* Room for `count` positions; gaps only where somebody has one. false: memory is short. */
static bool move_reserve(Xylem__Store__V1__CursorMove *move, struct xy_arena *arena, size_t count, bool gaps)
{
    move->number = xy_arena_alloc(arena, count * sizeof(*move->number));
    move->seq = xy_arena_alloc(arena, count * sizeof(*move->seq));
    if (gaps) {
        move->gap_first = xy_arena_alloc(arena, count * sizeof(*move->gap_first));
        move->gap_last = xy_arena_alloc(arena, count * sizeof(*move->gap_last));
        move->gap_reason = xy_arena_alloc(arena, count * sizeof(*move->gap_reason));
    }
    return !xy_arena_failed(arena);
}

static void move_add(Xylem__Store__V1__CursorMove *move, const struct subscription *subscription, bool gaps)
{
    const struct claim *claim = &subscription->claim;
    move->number[move->n_number++] = subscription->number;
    move->seq[move->n_seq++] = claim->cursor;
    if (!gaps)
        return;
    move->gap_first[move->n_gap_first++] = claim->gap.first;
    move->gap_last[move->n_gap_last++] = claim->gap.last;
    move->gap_reason[move->n_gap_reason++] = claim->gap.reason;
}

void record_claim_state(struct node *node, const Xylem__Store__V1__ClaimState *record, bool lazy)
{
    if (lazy)
        node->claims_ticket =
            store_append_lazy(node->pubsub->shard->store, RECORD_CLAIM_STATE, &record->base);
    else
        append(node, RECORD_CLAIM_STATE, &record->base);
}

/* Those that have more to say than a cursor. Returns what could not be recorded now; it is tried again at the next move. */
static struct subscription *flush_states(struct node *node)
{
    struct subscription *failed = NULL, **at = &node->moved;
    while (*at != NULL) {
        struct subscription *subscription = *at;
        const struct claim_ops *ops = subscription->claim.ops;
        if (ops == NULL || ops->record == NULL) {
            at = &subscription->moved_next;
            continue;
        }
        *at = subscription->moved_next;
        subscription->claim.moved = !ops->record(subscription, true);
        if (!subscription->claim.moved)
            continue;
        subscription->moved_next = failed;
        failed = subscription;
    }
    return failed;
}

static void flush_plain(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    size_t count = 0;
    bool gaps = false;
    for (const struct subscription *s = node->moved; s != NULL; s = s->moved_next) {
        gaps |= s->claim.gap.last != 0;
        count++;
    }
    if (count == 0)
        return;
    xy_arena_reset(pubsub->arena);
    Xylem__Store__V1__CursorMove move = XYLEM__STORE__V1__CURSOR_MOVE__INIT;
    move.node = node->number;
    if (!move_reserve(&move, pubsub->arena, count, gaps))
        return; /* tried again at the next move: a cursor that lags only means redelivery */
    while (node->moved != NULL) {
        struct subscription *subscription = node->moved;
        node->moved = subscription->moved_next;
        subscription->claim.moved = false;
        move_add(&move, subscription, gaps);
    }
    (void)store_append_lazy(pubsub->shard->store, RECORD_CURSOR_MOVE, &move.base);
}

static void flush_cursors(struct node *node)
{
    struct subscription *failed = flush_states(node);
    flush_plain(node);
    while (failed != NULL) {
        struct subscription *next = failed->moved_next;
        failed->moved_next = node->moved;
        node->moved = failed;
        failed = next;
    }
}

static void flush_freed(struct node *node)
{
    size_t count = node->freed.len / sizeof(uint64_t);
    uint64_t *seqs = (uint64_t *)(void *)node->freed.data;
    for (size_t from = 0; from < count; from += FREED_MAX) {
        Xylem__Store__V1__ItemRemove remove = XYLEM__STORE__V1__ITEM_REMOVE__INIT;
        remove.node = node->number;
        remove.n_seq = count - from < FREED_MAX ? count - from : FREED_MAX;
        remove.seq = seqs + from;
        (void)store_append_lazy(node->pubsub->shard->store, RECORD_ITEM_REMOVE, &remove.base);
    }
    if (node->freed.cap > FREED_MAX * sizeof(uint64_t))
        xy_buf_free(&node->freed);
    else
        xy_buf_reset(&node->freed);
}

static void flush(struct shard *shard, void *payload)
{
    (void)payload;
    struct pubsub *pubsub = shard->pubsub;
    if (pubsub == NULL)
        return;
    pubsub->flush_queued = false;
    xy_list_each (link, &pubsub->dirty) {
        struct node *node = xy_container_of(link, struct node, dirty_link);
        flush_cursors(node);
        flush_freed(node);
        xy_list_remove(&node->dirty_link);
    }
}

static void mark(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    if (!xy_list_linked(&node->dirty_link))
        xy_list_append(&pubsub->dirty, &node->dirty_link);
    if (pubsub->flush_queued)
        return;
    /* mail to oneself comes after the mail that is being handled, so one record covers all of it */
    pubsub->flush_queued = true;
    shard_mail(pubsub->shard, pubsub->shard->index, flush, NULL, 0);
}

void record_item_freed(void *ctx, uint64_t seq)
{
    struct node *node = ctx;
    xy_buf_add(&node->freed, &seq, sizeof(seq));
    mark(node);
}

void record_cursor_moved(struct node *node, struct subscription *subscription)
{
    if (!subscription->claim.moved) {
        subscription->claim.moved = true;
        subscription->moved_next = node->moved;
        node->moved = subscription;
    }
    mark(node);
}
