/* Nodes from the store: a node is read when it is first asked for, with its affiliations, subscriptions, cursors and the
 * index of its items; bodies stay in the store. Called by node_get. */
#include "broker/pubsub/expiry.h"
#include "broker/pubsub/queue.h"
#include "broker/pubsub/retention.h"

#include <stdlib.h>

#include "broker/log.h"
#include "broker/pubsub/acked.h"
#include "broker/store/record.h"
#include "core/base/assert.h"

#define PAGE_MAX 256u

/* Pages through everything under a prefix. The value's memory lives until `each` returns. */
static void scan(struct pubsub *pubsub, enum store_table table, struct xy_str prefix,
                 void (*each)(void *ctx, struct xy_str key, struct xy_str value), void *ctx)
{
    struct store_entry entries[PAGE_MAX];
    struct xy_arena *arena = xy_arena_pool_take(pubsub->shard->arenas);
    struct xy_buf from = { 0 };
    bool more = arena != NULL;
    xy_buf_str(&from, prefix);
    while (more && !xy_buf_failed(&from)) {
        size_t count = store_scan(pubsub->shard->store, table, prefix, xy_buf_view(&from), arena, entries,
                                  PAGE_MAX, &more);
        for (size_t i = 0; i < count; i++)
            each(ctx, entries[i].key, entries[i].value);
        if (count == 0)
            break;
        xy_buf_reset(&from);
        xy_buf_str(&from, entries[count - 1].key);
        xy_buf_char(&from, '\0');
        xy_arena_reset(arena);
    }
    xy_buf_free(&from);
    if (arena != NULL)
        xy_arena_pool_give(pubsub->shard->arenas, &arena);
}

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

/* --- parts --------------------------------------------------------------------------------------------------------- */

static void load_affiliation(void *ctx, struct xy_str key, struct xy_str value)
{
    struct node *node = ctx;
    enum affiliation affiliation;
    if (key.len > sizeof(node->key) && affiliation_parse(value, &affiliation))
        (void)node_set_affiliation(node, xy_str_n(key.data + sizeof(node->key), key.len - sizeof(node->key)),
                                   affiliation);
}

static void load_subscription(void *ctx, struct xy_str key, struct xy_str value)
{
    struct node *node = ctx;
    (void)key;
    Xylem__Store__V1__SubscriptionPut *put =
        xylem__store__v1__subscription_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    if (put == NULL)
        return;
    struct subscription_options options;
    struct xy_jid jid = xy_jid_canonical(xy_str(put->jid));
    if (xy_jid_present(jid) && options_init(subscription_options, &options)) {
        options_unpack(subscription_options, &options, put->options, put->n_options);
        struct subscription *subscription = node_add_subscription(node, jid, put->number, &options);
        if (subscription != NULL) {
            subscription->active = true;
            subscription->start_seq = put->start_seq;
            subscription->claim.cursor = put->start_seq;
            size_t len = strlen(put->subid);
            len = len < SUBID_LEN ? len : SUBID_LEN;
            memcpy(subscription->subid, put->subid, len);
            node->durable_count += subscription_durable(subscription);
        } else {
            options_free(subscription_options, &options);
        }
    }
    xylem__store__v1__subscription_put__free_unpacked(put, NULL);
}

static void load_cursor(void *ctx, struct xy_str key, struct xy_str value)
{
    struct node *node = ctx;
    if (key.len != sizeof(node->key) + 4 || (value.len != 8 && value.len != 8 + STORE_GAP_BYTES))
        return;
    struct subscription *subscription = node_subscription(node, (uint32_t)integer(xy_str_n(key.data + 8, 4)));
    if (subscription == NULL)
        return;
    subscription->claim.cursor = integer(xy_str_n(value.data, 8));
    if (value.len > 8)
        gap_restore(subscription, integer(xy_str_n(value.data + 8, 8)), integer(xy_str_n(value.data + 16, 8)),
                    (uint8_t)value.data[24]);
}

/* Items that a cursor has passed and that are not settled. */
struct row {
    uint64_t seq;
    uint32_t number; /* of the subscription */
    struct store_claim claim;
};

struct rows {
    struct node *node;
    struct xy_buf found; /* of struct row */
};

static void load_claim(void *ctx, struct xy_str key, struct xy_str value)
{
    struct rows *rows = ctx;
    struct row row = { 0 };
    if (key.len != sizeof(rows->node->key) + 12 || !store_claim_value(value, &row.claim))
        return;
    row.number = (uint32_t)integer(xy_str_n(key.data + 8, 4));
    row.seq = integer(xy_str_n(key.data + 12, 8));
    const struct subscription *subscription = node_subscription(rows->node, row.number);
    if (subscription != NULL && subscription_durable(subscription) &&
        subscription->options.ack != ACK_STREAM && row.seq <= subscription->claim.cursor)
        xy_buf_add(&rows->found, &row, sizeof(row));
}

static struct row *row_at(const struct rows *rows, size_t index)
{
    return (struct row *)(void *)rows->found.data + index;
}

static size_t rows_count(const struct rows *rows)
{
    return rows->found.len / sizeof(struct row);
}

static int by_seq(const void *a, const void *b)
{
    const struct row *left = a, *right = b;
    return (left->seq > right->seq) - (left->seq < right->seq);
}

struct cursors {
    struct node *node;
    uint64_t *cursor; /* of durable subscriptions, ascending */
    size_t count;
    size_t passed; /* those below the item at hand */
    const struct rows *rows;
    size_t rows_passed;
    struct xy_buf lost;
    uint64_t now_us;
    struct evicted expired;
};

/* Expired while nobody looked: it does not come back, unless it is owed. */
static void load_expired(struct cursors *cursors, uint64_t seq, bool owed)
{
    struct evicted *expired = &cursors->expired;
    if (owed)
        expired->unretained[expired->unretained_count++] = seq;
    else
        expired->removed[expired->removed_count++] = seq;
    if (expired->unretained_count < EVICTED_MAX && expired->removed_count < EVICTED_MAX)
        return;
    record_items_expired(cursors->node, expired);
    expired->removed_count = expired->unretained_count = 0;
}

static void load_kept(struct node *node, const Xylem__Store__V1__ItemPut *put, bool retained,
                      uint32_t pending)
{
    struct item_traits traits = { .urgency = (int)put->queue_urgency - 1,
                                  .group = xy_str(put->queue_group),
                                  .not_before_us = put->queue_not_before_us,
                                  .expires_us = put->queue_expires_us };
    const struct item *item = node_add_item(node, put->seq, xy_str(put->id), xy_str(put->publisher),
                                            (uint32_t)put->item.len, put->time_us, retained, pending);
    if (item != NULL && node->queue != NULL)
        (void)queue_item_added(node->queue, item, &traits); /* memory is short: it goes as a plain one */
}

/* How many subscriptions are owed this item though their cursor has passed it. Asked in the order of seq. */
static uint32_t rows_about(struct cursors *cursors, uint64_t seq)
{
    uint32_t about = 0;
    for (; cursors->rows_passed < rows_count(cursors->rows); cursors->rows_passed++) {
        const struct row *row = row_at(cursors->rows, cursors->rows_passed);
        if (row->seq > seq)
            break;
        about += row->seq == seq;
    }
    return about;
}

static void load_item(void *ctx, struct xy_str key, struct xy_str value)
{
    struct cursors *cursors = ctx;
    struct node *node = cursors->node;
    (void)key;
    if (value.len < 2)
        return;
    bool retained = value.data[0] == 'r';
    Xylem__Store__V1__ItemPut *put =
        xylem__store__v1__item_put__unpack(NULL, value.len - 1, (const uint8_t *)value.data + 1);
    if (put == NULL)
        return;
    while (cursors->passed < cursors->count && cursors->cursor[cursors->passed] < put->seq)
        cursors->passed++;
    uint32_t pending = (uint32_t)cursors->passed + rows_about(cursors, put->seq);
    bool expired = retained && expiry_passed(node, put->time_us, cursors->now_us);
    if (expired) {
        load_expired(cursors, put->seq, pending > 0);
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
        xy_buf_add(&cursors->lost, &put->seq,
                   sizeof(put->seq)); /* its last acknowledgement beat its removal */
    else
        load_kept(node, put, retained, pending);
    if (put->seq >= node->next_seq)
        node->next_seq = put->seq + 1;
    xylem__store__v1__item_put__free_unpacked(put, NULL);
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Items after subscriptions: how many are owed an item follows from the cursors and rows, counted in one pass over all. */
static void load_items(struct node *node, const struct rows *rows)
{
    struct cursors cursors = { .node = node, .rows = rows, .now_us = xy_wall_us(node->pubsub->shard->env) };
    cursors.cursor = malloc((node->durable_count + 1) * sizeof(uint64_t));
    if (cursors.cursor == NULL)
        return;
    size_t at = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &at)) != NULL;)
        if (subscription_durable(s))
            cursors.cursor[cursors.count++] = s->claim.cursor;
    xy_assert(cursors.count == node->durable_count);
    qsort(cursors.cursor, cursors.count, sizeof(uint64_t), by_value);
    scan(node->pubsub, STORE_ITEMS, node_key(node), load_item, &cursors);
    for (size_t i = 0; i < cursors.lost.len; i += sizeof(uint64_t)) {
        uint64_t seq;
        memcpy(&seq, cursors.lost.data + i, sizeof(seq));
        record_item_freed(node, seq);
    }
    record_items_expired(node, &cursors.expired);
    xy_buf_free(&cursors.lost);
    free(cursors.cursor);
}

static void load_queue_state(void *ctx, struct xy_str key, struct xy_str value)
{
    struct node *node = ctx;
    if (key.len == sizeof(node->key) + 8)
        queue_restore_state(node->queue, integer(xy_str_n(key.data + 8, 8)), value);
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static void load_last_seq(struct node *node)
{
    struct xy_str value;
    xy_arena_reset(node->pubsub->arena);
    if (store_get(node->pubsub->shard->store, STORE_NODE_SEQ, node_key(node), node->pubsub->arena, &value))
        node->next_seq = integer(value) + 1;
}

/* false: memory is short. */
static bool restore_rows(struct node *node, const struct rows *rows)
{
    for (size_t i = 0; i < rows_count(rows); i++) {
        const struct row *row = row_at(rows, i);
        if (!acked_restore(node_subscription(node, row->number), row->seq, &row->claim))
            return false;
    }
    return true;
}

static void settle(struct node *node)
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

struct node *node_load(struct pubsub *pubsub, struct xy_str name)
{
    struct xy_str value;
    if (name.len == 0 || name.len > NODE_NAME_MAX)
        return NULL;
    xy_arena_reset(pubsub->arena);
    if (!store_get(pubsub->shard->store, STORE_NODES, name, pubsub->arena, &value))
        return NULL;
    Xylem__Store__V1__NodePut *put =
        xylem__store__v1__node_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    if (put == NULL || !xy_str_eq(xy_str(put->name), name)) {
        log_error(pubsub->shard->log, "stored node unreadable", LOG_STR("node", name));
        if (put != NULL)
            xylem__store__v1__node_put__free_unpacked(put, NULL);
        return NULL;
    }
    struct node *node = node_new(pubsub, name, put->node, xy_str(put->creator));
    if (node != NULL)
        options_unpack(node_options, &node->config, put->config, put->n_config);
    if (node != NULL && node->config.queue && !queue_make(node)) {
        node_unlist(node);
        node_free(&node);
    }
    if (node != NULL) {
        node->epoch = put->epoch;
        node->created_us = put->created_us;
        load_last_seq(node);
        scan(pubsub, STORE_AFFILIATIONS, node_key(node), load_affiliation, node);
        scan(pubsub, STORE_SUBSCRIPTIONS, node_key(node), load_subscription, node);
        scan(pubsub, STORE_CURSORS, node_key(node), load_cursor, node);
        struct rows rows = { .node = node };
        scan(pubsub, STORE_CLAIMS, node_key(node), load_claim, &rows);
        if (rows.found.len > 0)
            qsort(rows.found.data, rows_count(&rows), sizeof(struct row), by_seq);
        if (node_is_memory(node))
            xy_random(pubsub->shard->env, &node->epoch, sizeof(node->epoch)); /* its items are gone */
        else
            load_items(node, &rows);
        if (node->queue != NULL) {
            scan(pubsub, STORE_QUEUE, node_key(node), load_queue_state, node);
            queue_restored(node->queue);
        }
        settle(node);
        bool complete = !xy_buf_failed(&rows.found) && restore_rows(node, &rows);
        xy_buf_free(&rows.found);
        expiry_load(node);
        expiry_look(node);
        if (!complete) { /* rather no node than one that takes for settled what is not */
            log_error(pubsub->shard->log, "node not loaded: memory is short", LOG_STR("node", name));
            node_unlist(node);
            node_free(&node);
        }
    }
    xylem__store__v1__node_put__free_unpacked(put, NULL);
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
