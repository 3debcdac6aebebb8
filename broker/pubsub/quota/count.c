/* Counting what was there: one pass over the nodes of this shard in the order of their rows, a slice of it per turn. A node
 * in memory says what it has; of one that is not the rows are read, which nobody changes meanwhile. What could not be read
 * for lack of memory is read again later, so a pass that ends has counted everything. Called by quota.c and by a timer. */
#include "broker/pubsub/quota/quota.h"

#include "broker/log.h"
#include "broker/store/record.h"
#include "core/base/assert.h"

#define PAGE_MAX       256u
#define SCAN_COST      16u   /* asking for a page is as dear as so many rows … */
#define ROW_BYTES      1024u /* … and a row as so many bytes */
#define PAUSE_US       1000u
#define PAUSE_RETRY_US (100u * 1000) /* memory is short, or a node is being loaded */

/* What became of a row, or of a slice. */
enum counted {
    COUNTED,
    COUNT_MORE,  /* the slice is over: go on with the same row */
    COUNT_LATER, /* the same, after a while */
};

static uint64_t integer(struct xy_str bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.len; i++)
        value = value << 8 | (unsigned char)bytes.data[i];
    return value;
}

/* node number(8), then a number of `len` bytes */
static struct xy_str row_key(char key[16], uint64_t node, uint64_t number, size_t len)
{
    for (size_t i = 0; i < 8; i++)
        key[i] = (char)(unsigned char)(node >> (8 * (7 - i)));
    for (size_t i = 0; i < len; i++)
        key[8 + i] = (char)(unsigned char)(number >> (8 * (len - 1 - i)));
    return xy_str_n(key, 8 + len);
}

bool count_reached(const struct pubsub *pubsub, unsigned kind, struct xy_str name)
{
    const struct quota *quota = pubsub->quota;
    if (quota->counted & kind)
        return true;
    return (quota->pass & kind) &&
           store_key_compare(STORE_NODES, name, xy_str_n(quota->from, quota->from_len)) < 0;
}

/* --- one node ---------------------------------------------------------------------------------------------------------- */

struct slice {
    struct pubsub *pubsub;
    struct xy_arena *arena; /* of one page about a node */
    size_t cost;
};

/* A page of what is stored about the node, from `number` on. false: memory is short. */
static bool read_page(struct slice *slice, enum store_table table, size_t number_len, uint64_t number,
                      struct store_entry *rows, size_t *count, bool *more)
{
    char prefix[16], from[16];
    uint64_t node = slice->pubsub->quota->begun.number;
    xy_arena_reset(slice->arena);
    *count = store_scan(slice->pubsub->shard->store, table, row_key(prefix, node, 0, 0),
                        row_key(from, node, number, number_len), slice->arena, rows, PAGE_MAX, more);
    slice->cost += SCAN_COST + *count;
    for (size_t i = 0; i < *count; i++)
        slice->cost += rows[i].value.len / ROW_BYTES;
    return !xy_arena_failed(slice->arena);
}

/* As load.c takes it: what cannot be read is not retained. false: memory is short. */
static bool count_item(struct slice *slice, const struct store_entry *row)
{
    struct quota *quota = slice->pubsub->quota;
    if (row->value.len < 1 || row->value.data[0] != 'r')
        return true;
    struct xy_str packed = xy_str_n(row->value.data + 1, row->value.len - 1);
    const Xylem__Store__V1__ItemPut *put =
        (const void *)record_unpack(&xylem__store__v1__item_put__descriptor, packed, slice->arena);
    if (put != NULL && put->seq == quota->begun.items_from) {
        quota->begun.items++;
        quota->begun.bytes += put->item.len;
    }
    return put != NULL || !xy_arena_failed(slice->arena);
}

static enum counted count_items(struct slice *slice)
{
    struct quota *quota = slice->pubsub->quota;
    struct store_entry rows[PAGE_MAX];
    size_t count;
    for (bool more = true; more;) {
        if (slice->cost >= quota->slice_cost)
            return COUNT_MORE;
        if (!read_page(slice, STORE_ITEMS, 8, quota->begun.items_from, rows, &count, &more))
            return COUNT_LATER;
        for (size_t i = 0; i < count; i++) {
            quota->begun.items_from = integer(xy_str_n(rows[i].key.data + 8, rows[i].key.len - 8));
            if (!count_item(slice, &rows[i]))
                return COUNT_LATER;
            quota->begun.items_from++;
        }
        more = more && count > 0;
    }
    quota->begun.items_done = true;
    return COUNTED;
}

/* One that cannot be read is none, as load.c takes it. false: memory is short. */
static bool count_subscription(struct slice *slice, struct xy_str value)
{
    const Xylem__Store__V1__SubscriptionPut *put =
        (const void *)record_unpack(&xylem__store__v1__subscription_put__descriptor, value, slice->arena);
    struct xy_jid jid = xy_jid_canonical(put != NULL ? xy_str(put->jid) : XY_STR(""));
    if (!xy_jid_present(jid))
        return put != NULL || !xy_arena_failed(slice->arena);
    return book_add_subscription(slice->pubsub->quota->book, xy_jid_bare(jid), UINT64_MAX) == QUOTA_TAKEN;
}

static enum counted count_subscriptions(struct slice *slice)
{
    struct quota *quota = slice->pubsub->quota;
    struct store_entry rows[PAGE_MAX];
    size_t count;
    for (bool more = true; more;) {
        if (slice->cost >= quota->slice_cost)
            return COUNT_MORE;
        if (!read_page(slice, STORE_SUBSCRIPTIONS, 4, quota->begun.subscriptions_from, rows, &count, &more))
            return COUNT_LATER;
        for (size_t i = 0; i < count; i++) {
            if (!count_subscription(slice, rows[i].value))
                return COUNT_LATER;
            quota->begun.subscriptions_from = integer(xy_str_n(rows[i].key.data + 8, 4)) + 1;
        }
        more = more && count > 0;
    }
    return COUNTED;
}

/* Of a node in memory: all that the rows did not bring, or none. false: memory is short. */
static bool add_subscriptions(struct node *node)
{
    struct quota *quota = node->pubsub->quota;
    uint64_t from = quota->begun.subscriptions_from;
    size_t position = 0;
    const struct subscription *s;
    while ((s = node_next_subscription(node, &position)) != NULL)
        if (s->number >= from &&
            book_add_subscription(quota->book, s->subscriber->bare, UINT64_MAX) != QUOTA_TAKEN)
            break;
    if (s == NULL)
        return true;
    position = 0;
    for (const struct subscription *added; (added = node_next_subscription(node, &position)) != s;)
        if (added->number >= from)
            book_drop_subscription(quota->book, added->subscriber->bare);
    return false;
}

static bool begin_node(struct quota *quota, const Xylem__Store__V1__NodePut *put)
{
    struct xy_str creator = xy_str(put->creator);
    struct quota_account *account = NULL;
    if (creator.len > 0 && (quota->pass & QUOTA_NODES) &&
        book_add_node(quota->book, creator, UINT64_MAX, &account) != QUOTA_TAKEN)
        return false;
    if (creator.len > 0 && account == NULL)
        account = book_find(quota->book, creator);
    memset(&quota->begun, 0, sizeof(quota->begun));
    quota->begun.number = put->node;
    quota->begun.account = account;
    return true;
}

static enum counted count_resident(struct node *node)
{
    struct quota *quota = node->pubsub->quota;
    if ((quota->pass & QUOTA_SUBSCRIPTIONS) && !add_subscriptions(node))
        return COUNT_LATER;
    if ((quota->pass & QUOTA_ITEMS) && quota->begun.account != NULL)
        charge_items(node, quota->begun.account);
    node->charge.counted |= quota->pass;
    return COUNTED;
}

static enum counted count_stored(struct slice *slice)
{
    struct quota *quota = slice->pubsub->quota;
    enum counted counted = COUNTED;
    if ((quota->pass & QUOTA_ITEMS) && quota->begun.account != NULL && !quota->begun.items_done)
        counted = count_items(slice);
    if (counted == COUNTED && (quota->pass & QUOTA_SUBSCRIPTIONS))
        counted = count_subscriptions(slice);
    if (counted == COUNTED && quota->begun.account != NULL)
        account_change(quota->begun.account, 0, quota->begun.items, 0, quota->begun.bytes);
    return counted;
}

static enum counted count_node(struct slice *slice, const Xylem__Store__V1__NodePut *put)
{
    struct quota *quota = slice->pubsub->quota;
    if (xy_table_get(slice->pubsub->loading, xy_str(put->name)) != NULL)
        return COUNT_LATER;
    if (quota->begun.number != put->node && !begin_node(quota, put))
        return COUNT_LATER;
    struct node *node = node_by_number(slice->pubsub, put->node);
    enum counted counted = node != NULL ? count_resident(node) : count_stored(slice);
    if (counted == COUNTED)
        quota->begun.number = 0;
    return counted;
}

/* --- the pass ------------------------------------------------------------------------------------------------------------ */

static enum counted count_row(struct slice *slice, struct xy_arena *arena, const struct store_entry *row)
{
    const struct shard *shard = slice->pubsub->shard;
    const Xylem__Store__V1__NodePut *put =
        (const void *)record_unpack(&xylem__store__v1__node_put__descriptor, row->value, arena);
    if (put == NULL && xy_arena_failed(arena))
        return COUNT_LATER;
    if (put == NULL)
        log_error(shard->log, "stored node unreadable: not counted for its creator",
                  LOG_STR("node", row->key));
    if (put == NULL || shard_owner(shard, xy_str(put->name)) != shard->index)
        return COUNTED;
    return count_node(slice, put);
}

static void go_on_with(struct quota *quota, struct xy_str key, bool behind)
{
    xy_assert(key.len < sizeof(quota->from));
    memcpy(quota->from, key.data, key.len);
    quota->from_len = key.len;
    if (behind)
        quota->from[quota->from_len++] = '\0';
}

/* A page of nodes. COUNTED: it was the last. */
static enum counted count_page(struct slice *slice, struct xy_arena *arena)
{
    struct quota *quota = slice->pubsub->quota;
    struct store_entry rows[PAGE_MAX];
    bool more = false;
    size_t count = store_scan(slice->pubsub->shard->store, STORE_NODES, XY_STR(""),
                              xy_str_n(quota->from, quota->from_len), arena, rows, PAGE_MAX, &more);
    if (xy_arena_failed(arena))
        return COUNT_LATER;
    slice->cost += SCAN_COST;
    for (size_t i = 0; i < count; i++) {
        enum counted counted =
            slice->cost++ < quota->slice_cost ? count_row(slice, arena, &rows[i]) : COUNT_MORE;
        go_on_with(quota, rows[i].key, counted == COUNTED);
        if (counted != COUNTED)
            return counted;
    }
    return more && count > 0 ? COUNT_MORE : COUNTED;
}

static enum counted count_slice(struct pubsub *pubsub)
{
    struct xy_arena_pool *pool = pubsub->shard->arenas;
    struct xy_arena *arena = xy_arena_pool_take(pool);
    struct slice slice = { .pubsub = pubsub, .arena = xy_arena_pool_take(pool) };
    enum counted counted = arena != NULL && slice.arena != NULL ? COUNT_MORE : COUNT_LATER;
    while (counted == COUNT_MORE && slice.cost < pubsub->quota->slice_cost) {
        xy_arena_reset(arena);
        counted = count_page(&slice, arena);
    }
    if (arena != NULL)
        xy_arena_pool_give(pool, &arena);
    if (slice.arena != NULL)
        xy_arena_pool_give(pool, &slice.arena);
    return counted;
}

static void on_all_counted(struct shard *shard, void *payload)
{
    (void)payload;
    if (shard->pubsub != NULL)
        creations_go_on(shard->pubsub);
}

static void end_pass(struct pubsub *pubsub)
{
    struct shard *shard = pubsub->shard;
    struct quota *quota = pubsub->quota;
    unsigned pass = quota->pass;
    quota->counted |= pass;
    quota->pass = 0;
    quota->from_len = 0;
    if (pass != QUOTA_NODES)
        log_info(shard->log, "counted what accounts have", LOG_NUM("shard", shard->index));
    if ((pass & QUOTA_NODES) && book_shard_counted(quota->book))
        for (unsigned i = 0; i < shard_count(shard); i++)
            shard_mail(shard, i, on_all_counted, NULL, 0);
}

static void go_on(struct pubsub *pubsub)
{
    struct quota *quota = pubsub->quota;
    if (quota->pass == 0)
        quota->pass = quota->wanted & ~quota->counted;
    if (quota->pass == 0)
        return;
    enum counted counted = count_slice(pubsub);
    if (counted == COUNTED)
        end_pass(pubsub);
    if (quota->wanted != quota->counted)
        shard_timer_set(pubsub->shard, &quota->timer,
                        xy_now_us(pubsub->shard->env) + (counted == COUNT_LATER ? PAUSE_RETRY_US : PAUSE_US));
}

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    (void)timer;
    go_on(shard->pubsub);
}

void count_soon(struct pubsub *pubsub)
{
    struct quota *quota = pubsub->quota;
    quota->timer.fn = on_timer;
    if (!shard_timer_is_set(&quota->timer))
        shard_timer_set(pubsub->shard, &quota->timer, xy_now_us(pubsub->shard->env));
}

void count_begin(struct pubsub *pubsub, unsigned kinds)
{
    struct quota *quota = pubsub->quota;
    quota->timer.fn = on_timer;
    quota->wanted |= kinds;
    if (quota->pass == 0)
        go_on(pubsub);
}
