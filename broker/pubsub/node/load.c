/* Nodes from the store, page by page. See load.h. What cannot be read for lack of memory makes the whole node fail: a node
 * that lacks something would lose what it owes. */
#include "broker/pubsub/node/load.h"

#include <stdlib.h>

#include "broker/log.h"
#include "broker/pubsub/claim/acked.h"
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/node/retention.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/store/record.h"
#include "core/base/assert.h"

#define PAGE_MAX 256u

struct load {
    struct node *node;
    size_t phase;
    struct xy_buf from;     /* key to go on with; empty: the phase begins */
    struct xy_arena *arena; /* of the page */
    struct xy_arena_pool *pool;
    bool failed; /* memory is short */
    /* items: how many are owed each follows from the cursors, counted in one pass over both */
    uint64_t *cursor; /* of durable subscriptions, ascending */
    size_t count;
    size_t passed;      /* those below the item at hand */
    struct xy_buf rows; /* of struct row, by seq */
    size_t rows_passed;
    struct xy_buf lost;
    uint64_t now_us;
    struct evicted expired;
    struct quota_sum stored;   /* retained, as its rows say */
    struct quota_sum expiring; /* of that what is in `expired`, … */
    struct quota_sum gone;     /* … and what was recorded as expired */
};

static uint64_t integer(struct xy_str bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.len; i++)
        value = value << 8 | (unsigned char)bytes.data[i];
    return value;
}

static struct xy_str node_key(const struct node *node)
{
    return xy_str_n((const char *)node->key, sizeof(node->key));
}

/* A row that keeps a record. NULL: memory is short, which fails the load, or it is damaged, which the log says. */
static const void *record_in(struct load *load, const ProtobufCMessageDescriptor *descriptor,
                             struct xy_str value)
{
    const void *record = value.len > 0 ? record_unpack(descriptor, value, load->arena) : NULL;
    if (record == NULL && xy_arena_failed(load->arena))
        load->failed = true;
    else if (record == NULL)
        log_error(load->node->pubsub->shard->log, "stored record is damaged",
                  LOG_STR("node", load->node->name), LOG_STR("kind", xy_str(descriptor->short_name)));
    return record;
}

/* --- parts --------------------------------------------------------------------------------------------------------- */

static void load_affiliation(struct load *load, struct xy_str key, struct xy_str value)
{
    struct node *node = load->node;
    enum affiliation affiliation;
    if (key.len <= sizeof(node->key) || !affiliation_parse(value, &affiliation))
        return;
    struct xy_str jid = xy_str_n(key.data + sizeof(node->key), key.len - sizeof(node->key));
    load->failed |= !node_set_affiliation(node, jid, affiliation);
}

static void load_subscription(struct load *load, struct xy_str key, struct xy_str value)
{
    struct node *node = load->node;
    (void)key;
    const Xylem__Store__V1__SubscriptionPut *put =
        record_in(load, &xylem__store__v1__subscription_put__descriptor, value);
    struct subscription_options options;
    struct xy_jid jid = xy_jid_canonical(put != NULL ? xy_str(put->jid) : XY_STR(""));
    if (!xy_jid_present(jid))
        return;
    if (!options_init(subscription_options, &options)) {
        load->failed = true;
        return;
    }
    options_unpack(subscription_options, &options, put->options, put->n_options);
    struct subscription *subscription = node_add_subscription(node, jid, put->number, &options);
    if (subscription == NULL) {
        options_free(subscription_options, &options);
        load->failed = true;
        return;
    }
    subscription->active = true;
    subscription->start_seq = put->start_seq;
    subscription->born = put->born;
    subscription->era = put->era;
    subscription->claim.cursor = put->start_seq;
    size_t len = strlen(put->subid);
    len = len < SUBID_LEN ? len : SUBID_LEN;
    memcpy(subscription->subid, put->subid, len);
    node->durable_count += subscription_durable(subscription);
}

static void load_cursor(struct load *load, struct xy_str key, struct xy_str value)
{
    struct node *node = load->node;
    if (key.len != sizeof(node->key) + 4 || (value.len != 8 && value.len != 8 + STORE_GAP_BYTES))
        return;
    struct subscription *subscription = node_subscription(node, (uint32_t)integer(xy_str_n(key.data + 8, 4)));
    if (subscription == NULL)
        return;
    subscription->claim.cursor = integer(xy_str_n(value.data, 8));
    if (value.len > 8 && subscription_durable(subscription)) /* else it is of a time when it was owed items */
        gap_restore(subscription, integer(xy_str_n(value.data + 8, 8)), integer(xy_str_n(value.data + 16, 8)),
                    (uint8_t)value.data[24]);
}

/* --- items acknowledged one by one --------------------------------------------------------------------------------- */

/* An item that a cursor has passed and that is not settled. */
struct row {
    uint64_t seq;
    uint32_t number; /* of the subscription */
    struct store_claim claim;
};

static void load_claim(struct load *load, struct xy_str key, struct xy_str value)
{
    struct node *node = load->node;
    struct row row = { 0 };
    if (key.len != sizeof(node->key) + 12 || !store_claim_value(value, &row.claim))
        return;
    row.number = (uint32_t)integer(xy_str_n(key.data + 8, 4));
    row.seq = integer(xy_str_n(key.data + 12, 8));
    const struct subscription *subscription = node_subscription(node, row.number);
    if (subscription != NULL && subscription_durable(subscription) &&
        subscription->options.ack != ACK_STREAM && row.seq <= subscription->claim.cursor)
        xy_buf_add(&load->rows, &row, sizeof(row));
}

static struct row *row_at(const struct load *load, size_t index)
{
    return (struct row *)(void *)load->rows.data + index;
}

static size_t rows_count(const struct load *load)
{
    return load->rows.len / sizeof(struct row);
}

static int by_seq(const void *a, const void *b)
{
    const struct row *left = a, *right = b;
    return (left->seq > right->seq) - (left->seq < right->seq);
}

static void claims_end(struct load *load)
{
    load->failed |= xy_buf_failed(&load->rows);
    if (!load->failed && load->rows.len > 0)
        qsort(load->rows.data, rows_count(load), sizeof(struct row), by_seq);
}

/* How many subscriptions are owed this item though their cursor has passed it. Asked in the order of seq. */
static uint32_t rows_about(struct load *load, uint64_t seq)
{
    uint32_t about = 0;
    for (; load->rows_passed < rows_count(load); load->rows_passed++) {
        const struct row *row = row_at(load, load->rows_passed);
        if (row->seq > seq)
            break;
        about += row->seq == seq;
    }
    return about;
}

/* After claim_restore. false: memory is short. */
static bool restore_rows(struct load *load)
{
    for (size_t i = 0; i < rows_count(load); i++) {
        const struct row *row = row_at(load, i);
        if (!acked_restore(node_subscription(load->node, row->number), row->seq, &row->claim))
            return false;
    }
    return true;
}

/* --- items --------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void items_begin(struct load *load)
{
    struct node *node = load->node;
    load->now_us = xy_wall_us(node->pubsub->shard->env);
    load->cursor = malloc((node->durable_count + 1) * sizeof(uint64_t));
    if (load->cursor == NULL) {
        load->failed = true;
        return;
    }
    size_t at = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &at)) != NULL;)
        if (subscription_durable(s))
            load->cursor[load->count++] = s->claim.cursor;
    xy_assert(load->count == node->durable_count);
    qsort(load->cursor, load->count, sizeof(uint64_t), by_value);
}

static void tell_expired(struct load *load)
{
    struct evicted *expired = &load->expired;
    record_items_expired(load->node, expired);
    expired->removed_count = expired->unretained_count = 0;
    load->gone.items += load->expiring.items;
    load->gone.bytes += load->expiring.bytes;
    load->expiring = (struct quota_sum){ 0 };
}

/* Expired while nobody looked: it does not come back, unless it is owed. */
static void load_expired(struct load *load, uint64_t seq, size_t bytes, bool owed)
{
    struct evicted *expired = &load->expired;
    load->expiring.items++;
    load->expiring.bytes += bytes;
    if (owed)
        expired->unretained[expired->unretained_count++] = seq;
    else
        expired->removed[expired->removed_count++] = seq;
    if (expired->unretained_count == EVICTED_MAX || expired->removed_count == EVICTED_MAX)
        tell_expired(load);
}

static void load_kept(struct load *load, const Xylem__Store__V1__ItemPut *put, bool retained,
                      uint32_t pending)
{
    struct node *node = load->node;
    struct item_traits traits = { .urgency = (int)put->queue_urgency - 1,
                                  .group = xy_str(put->queue_group),
                                  .not_before_us = put->queue_not_before_us,
                                  .expires_us = put->queue_expires_us };
    const struct item *item = node_add_item(node, put->seq, xy_str(put->id), xy_str(put->publisher),
                                            (uint32_t)put->item.len, put->time_us, retained, pending);
    load->failed |= item == NULL;
    if (item != NULL && node->queue != NULL)
        load->failed |= !queue_item_added(node->queue, item, &traits);
}

/* Nobody knows what it was; those who are owed it get a gap. */
static void load_damaged(struct load *load, uint64_t seq, size_t bytes, uint32_t pending)
{
    if (pending > 0 && !load->failed)
        load->failed |= node_add_item(load->node, seq, XY_STR(""), XY_STR(""), (uint32_t)bytes, load->now_us,
                                      false, pending) == NULL;
}

static void load_item(struct load *load, struct xy_str key, struct xy_str value)
{
    struct node *node = load->node;
    if (key.len != sizeof(node->key) + 8 || value.len < 1)
        return;
    uint64_t seq = integer(xy_str_n(key.data + sizeof(node->key), 8));
    const Xylem__Store__V1__ItemPut *put =
        record_in(load, &xylem__store__v1__item_put__descriptor, xy_str_n(value.data + 1, value.len - 1));
    while (load->passed < load->count && load->cursor[load->passed] < seq)
        load->passed++;
    uint32_t pending = (uint32_t)load->passed + rows_about(load, seq);
    if (seq >= node->next_seq)
        node->next_seq = seq + 1;
    if (put == NULL || put->seq != seq) {
        load_damaged(load, seq, value.len, pending);
        return;
    }
    bool retained = value.data[0] == 'r';
    bool expired = retained && expiry_passed(node, put->time_us, load->now_us);
    if (retained) {
        load->stored.items++;
        load->stored.bytes += put->item.len;
    }
    if (expired) {
        load_expired(load, seq, put->item.len, pending > 0);
        retained = false;
    }
    if (retained) { /* an overwritten item cannot still be retained; be safe against a store that says so */
        struct item *same = index_find_id(&node->items, xy_str(put->id));
        if (same != NULL)
            (void)index_unretain(&node->items, same);
    }
    if (expired && pending == 0)
        ; /* recorded already */
    else if (!retained && pending == 0)
        xy_buf_add(&load->lost, &seq, sizeof(seq)); /* its last acknowledgement beat its removal */
    else
        load_kept(load, put, retained, pending);
}

/* --- what younger subscriptions are not owed ------------------------------------------------------------------------- */

/* Began so late that items it has not passed may have been superseded before? */
static bool is_young(const struct subscription *subscription)
{
    return subscription_durable(subscription) && subscription->claim.cursor + 1 < subscription->born;
}

/* When an item was superseded is not stored. It was by the next one of its id that is there, or before; where none is, and
 * it is not among the oldest, which leave for other reasons, by some item that is gone. So this says too late rather than
 * too early, and nobody loses anything. false: memory is short. */
static bool mark_superseded(struct node *node)
{
    struct xy_table *ids = xy_table_new(node->pubsub->hash_seed);
    const struct item *oldest = index_oldest(&node->items);
    bool marked = ids != NULL;
    for (struct item *item = index_after(&node->items, 0); marked && item != NULL;
         item = index_after(&node->items, item->seq)) {
        void *former = NULL;
        marked = xy_table_put(ids, item_id(item), item, &former);
        if (former != NULL)
            ((struct item *)former)->superseded = item->seq;
        if (!item->retained && oldest != NULL && item->seq > oldest->seq)
            item->superseded = node->next_seq - 1;
    }
    xy_table_free(&ids);
    return marked;
}

static void take_back(struct load *load, const struct subscription *subscription)
{
    struct node *node = load->node;
    struct item *next;
    for (struct item *item = index_after(&node->items, subscription->claim.cursor);
         item != NULL && item->seq < subscription->born; item = next) {
        next = index_after(&node->items, item->seq);
        if (item_concerns(item, subscription->born))
            continue;
        xy_assert(item->pending > 0);
        item->pending--;
        if (item->pending > 0 || item->retained)
            continue;
        xy_buf_add(&load->lost, &item->seq, sizeof(item->seq));
        index_remove(&node->items, item);
    }
}

/* All cursors that stand in front of an item were counted. */
static void superseded_end(struct load *load)
{
    size_t position = 0;
    if (load->failed || load->node->items.live == load->node->items.retained_count)
        return; /* nothing was superseded */
    if (!mark_superseded(load->node)) {
        load->failed = true;
        return;
    }
    for (const struct subscription *s; (s = node_next_subscription(load->node, &position)) != NULL;)
        if (is_young(s))
            take_back(load, s);
}

static void items_end(struct load *load)
{
    superseded_end(load);
    for (size_t i = 0; i < load->lost.len; i += sizeof(uint64_t)) {
        uint64_t seq;
        memcpy(&seq, load->lost.data + i, sizeof(seq));
        record_item_freed(load->node, seq);
    }
    tell_expired(load);
}

static void load_queue_state(struct load *load, struct xy_str key, struct xy_str value)
{
    struct node *node = load->node;
    if (node->queue != NULL && key.len == sizeof(node->key) + 8)
        queue_restore_state(node->queue, integer(xy_str_n(key.data + 8, 8)), value);
}

static void queue_end(struct load *load)
{
    if (load->node->queue != NULL)
        queue_restored(load->node->queue);
}

/* In this order: cursors belong to subscriptions, what is owed of an item follows from the cursors. */
static const struct phase {
    enum store_table table;
    void (*begin)(struct load *load);
    void (*row)(struct load *load, struct xy_str key, struct xy_str value);
    void (*end)(struct load *load);
    bool items; /* nothing to read where items are in memory only */
} phases[] = {
    { STORE_AFFILIATIONS, NULL, load_affiliation, NULL, false },
    { STORE_SUBSCRIPTIONS, NULL, load_subscription, NULL, false },
    { STORE_CURSORS, NULL, load_cursor, NULL, false },
    { STORE_CLAIMS, NULL, load_claim, claims_end, true },
    { STORE_ITEMS, items_begin, load_item, items_end, true },
    { STORE_QUEUE, NULL, load_queue_state, queue_end, true },
};
#define PHASES (sizeof(phases) / sizeof(phases[0]))

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static void load_last_seq(struct node *node)
{
    struct xy_str value;
    xy_arena_reset(node->pubsub->arena);
    if (store_get(node->pubsub->shard->store, STORE_NODE_SEQ, node_key(node), node->pubsub->arena, &value))
        node->next_seq = integer(value) + 1;
}

static void resume(struct node *node)
{
    node->delivered_seq = node->next_seq - 1;
    node->ticket = node->firm_ticket = store_ticket(node->pubsub->shard->store);
    size_t position = 0;
    for (struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        if (subscription_durable(s))
            claim_restore(s);
    position = 0;
    for (struct subscription *s;
         node->queue != NULL && (s = node_next_subscription(node, &position)) != NULL;)
        (void)queue_join(s); /* memory is short: it gets nothing until the node is loaded again */
    if (node_owners(node) == 0 && node->creator.len > 0)
        (void)node_set_affiliation(node, node->creator, AFFILIATION_OWNER);
    position = 0;
    for (struct subscriber *s; (s = xy_table_next(node->subscribers, &position, NULL)) != NULL;) {
        s->heard = true; /* whoever is there came after the restart: its presence is news to this node */
        routes_watch(s);
    }
}

static struct node *make(struct pubsub *pubsub, const Xylem__Store__V1__NodePut *put)
{
    struct node *node = node_make(pubsub, xy_str(put->name), put->node, xy_str(put->creator));
    if (node == NULL)
        return NULL;
    options_unpack(node_options, &node->config, put->config, put->n_config);
    node->epoch = put->epoch;
    node->created_us = put->created_us;
    if (node_is_memory(node)) /* its items are gone */
        xy_random(pubsub->shard->env, &node->epoch, sizeof(node->epoch));
    if (node->config.queue && !queue_make(node))
        node_free(&node);
    return node;
}

enum load_status load_begin(struct pubsub *pubsub, struct xy_str name, struct load **out)
{
    struct xy_str value;
    if (name.len == 0 || name.len > NODE_NAME_MAX)
        return LOAD_ABSENT;
    xy_arena_reset(pubsub->arena);
    if (!store_get(pubsub->shard->store, STORE_NODES, name, pubsub->arena, &value))
        return xy_arena_failed(pubsub->arena) ? LOAD_FAILED : LOAD_ABSENT;
    const Xylem__Store__V1__NodePut *put =
        (const void *)record_unpack(&xylem__store__v1__node_put__descriptor, value, pubsub->arena);
    if (put == NULL || !xy_str_eq(xy_str(put->name), name)) {
        log_error(pubsub->shard->log, "stored node unreadable", LOG_STR("node", name));
        return LOAD_FAILED;
    }
    struct load *load = calloc(1, sizeof(*load));
    if (load == NULL)
        return LOAD_FAILED;
    load->pool = pubsub->shard->arenas;
    load->arena = xy_arena_pool_take(load->pool);
    load->node = load->arena != NULL ? make(pubsub, put) : NULL;
    if (load->node == NULL) {
        load_abandon(&load);
        return LOAD_FAILED;
    }
    load_last_seq(load->node);
    *out = load;
    return LOAD_MORE;
}

/* *more: there is another page of this table. */
static void read_page(struct load *load, const struct phase *phase, bool *more)
{
    struct node *node = load->node;
    struct store_entry entries[PAGE_MAX];
    if (load->from.len == 0)
        xy_buf_str(&load->from, node_key(node));
    if (xy_buf_failed(&load->from)) {
        load->failed = true;
        return;
    }
    xy_arena_reset(load->arena);
    size_t count = store_scan(node->pubsub->shard->store, phase->table, node_key(node),
                              xy_buf_view(&load->from), load->arena, entries, PAGE_MAX, more);
    load->failed |= xy_arena_failed(load->arena);
    for (size_t i = 0; i < count && !load->failed; i++)
        phase->row(load, entries[i].key, entries[i].value);
    xy_buf_reset(&load->from);
    if (count > 0 && *more) {
        xy_buf_str(&load->from, entries[count - 1].key);
        xy_buf_char(&load->from, '\0');
    }
    *more = *more && count > 0;
}

static enum load_status short_of_memory(struct load *load)
{
    log_error(load->node->pubsub->shard->log, "node not loaded: memory is short",
              LOG_STR("node", load->node->name));
    return LOAD_FAILED;
}

enum load_status load_step(struct load *load)
{
    const struct phase *phase = &phases[load->phase];
    bool more = false, skipped = phase->items && node_is_memory(load->node);
    if (load->from.len == 0 && phase->begin != NULL && !skipped)
        phase->begin(load);
    if (!skipped && !load->failed)
        read_page(load, phase, &more);
    if (load->failed)
        return short_of_memory(load);
    if (more)
        return LOAD_MORE;
    if (phase->end != NULL && !skipped)
        phase->end(load);
    if (load->failed)
        return short_of_memory(load);
    return ++load->phase < PHASES ? LOAD_MORE : LOAD_DONE;
}

static void load_free(struct load **load_pointer)
{
    struct load *load = *load_pointer;
    *load_pointer = NULL;
    if (load->arena != NULL)
        xy_arena_pool_give(load->pool, &load->arena);
    xy_buf_free(&load->from);
    xy_buf_free(&load->lost);
    xy_buf_free(&load->rows);
    free(load->cursor);
    free(load);
}

void load_abandon(struct load **load)
{
    struct node *node = (*load)->node;
    struct quota_sum gone = (*load)->gone;
    load_free(load);
    if (node == NULL)
        return;
    quota_not_loaded(node, &gone);
    queue_stop(node->queue);
    backlog_stop(node);
    node->pubsub->stats.subscriptions -= node->subscriptions_count;
    xy_list_remove(&node->dirty_link);
    node_free(&node);
}

struct node *load_end(struct load **load)
{
    struct node *node = (*load)->node;
    xy_assert((*load)->phase == PHASES);
    resume(node);
    if (!restore_rows(*load)) { /* rather no node than one that takes for settled what is not */
        (void)short_of_memory(*load);
        load_abandon(load);
        return NULL;
    }
    quota_loaded(node, &(*load)->stored);
    load_free(load);
    expiry_load(node);
    return node;
}

/* --- single values ------------------------------------------------------------------------------------------------- */

enum item_read node_read_item(struct node *node, uint64_t seq, struct xy_arena *arena, struct xy_str *item)
{
    char key[16];
    struct xy_str value = XY_STR_NONE;
    if (node_is_memory(node)) {
        const struct item *kept = index_find(&node->items, seq);
        xy_assert(kept == NULL || kept->body != NULL);
        *item = kept != NULL ? xy_bytes_view(kept->body) : XY_STR_NONE;
        return kept != NULL ? ITEM_READ : ITEM_READ_DAMAGED;
    }
    memcpy(key, node->key, sizeof(node->key));
    for (size_t i = 0; i < 8; i++)
        key[8 + i] = (char)(unsigned char)(seq >> (8 * (7 - i)));
    bool there =
        store_get(node->pubsub->shard->store, STORE_ITEMS, xy_str_n(key, sizeof(key)), arena, &value);
    if (there && value.data != NULL && value.len > 1) {
        struct xy_str packed = xy_str_n(value.data + 1, value.len - 1);
        const Xylem__Store__V1__ItemPut *put =
            (const void *)record_unpack(&xylem__store__v1__item_put__descriptor, packed, arena);
        if (put != NULL && put->node == node->number && put->seq == seq) {
            *item = xy_str_n((const char *)put->item.data, put->item.len);
            return ITEM_READ;
        }
    }
    return xy_arena_failed(arena) ? ITEM_READ_NO_MEMORY : ITEM_READ_DAMAGED;
}

bool node_read_dedup(struct node *node, struct xy_str publisher, struct xy_str prefix, uint64_t *newest,
                     uint64_t *time_us, struct xy_str *seen)
{
    struct xy_buf key = { 0 };
    struct xy_str value;
    xy_arena_reset(node->pubsub->arena);
    xy_buf_str(&key, node_key(node));
    xy_buf_str(&key, publisher);
    xy_buf_char(&key, '\0');
    xy_buf_str(&key, prefix);
    bool found =
        !xy_buf_failed(&key) &&
        store_get(node->pubsub->shard->store, STORE_DEDUP, xy_buf_view(&key), node->pubsub->arena, &value) &&
        store_dedup_value(value, newest, time_us, seen);
    xy_buf_free(&key);
    return found;
}
