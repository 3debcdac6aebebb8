/* Items that expire, and when to look at which node. See expiry.h; called by publish, configure, load, and by timers. */
#include "broker/pubsub/node/expiry.h"
#include "broker/pubsub/node/resident.h"

#include "broker/log.h"
#include "broker/pubsub/node/retention.h"
#include "core/base/assert.h"

#define SECOND_US    1000000ull
#define SLACK_US_MIN SECOND_US /* a row moves at least that far … */
#define SLACK_US_MAX                                                                                         \
    (3600 * SECOND_US) /* … and, item_expire / SLACK_PART, at most that far beyond what is due */
#define SLACK_PART  16u
#define WAIT_US_MAX (3600 * SECOND_US) /* of a timer: the wall clock may be set meanwhile */
#define SWEEP_PAGE  16u                /* rows of one turn: their nodes may have to be loaded */

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t expire_us(const struct node *node)
{
    uint64_t expire_s = node->config.item_expire_s;
    return expire_s > UINT64_MAX / SECOND_US ? UINT64_MAX : expire_s * SECOND_US;
}

bool expiry_passed(const struct node *node, uint64_t time_us, uint64_t now_us)
{
    return plus(time_us, expire_us(node)) <= now_us;
}

bool expiry_over(const struct node *node, const struct item *item, uint64_t now_us)
{
    return expiry_passed(node, item->time_us, now_us);
}

/* --- the rows ------------------------------------------------------------------------------------------------------- */

static void be64(char out[8], uint64_t value)
{
    for (size_t i = 0; i < 8; i++)
        out[i] = (char)(unsigned char)(value >> (8 * (7 - i)));
}

static uint64_t from_be64(const char *bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++)
        value = value << 8 | (unsigned char)bytes[i];
    return value;
}

/* A timer for a wall time. */
static void timer_at(struct shard *shard, struct shard_timer *timer, uint64_t wall_us)
{
    uint64_t now_us = xy_wall_us(shard->env);
    uint64_t wait_us = wall_us > now_us ? wall_us - now_us : 1; /* not within the same turn */
    uint64_t due_us = xy_now_us(shard->env) + (wait_us < WAIT_US_MAX ? wait_us : WAIT_US_MAX);
    if (!shard_timer_is_set(timer) || timer->due_us > due_us)
        shard_timer_set(shard, timer, due_us);
}

static void row_write(struct pubsub *pubsub, uint64_t number, struct xy_str name, uint64_t was_s,
                      uint64_t due_s)
{
    Xylem__Store__V1__NodeLook look = XYLEM__STORE__V1__NODE_LOOK__INIT;
    look.node = number;
    look.name = (char *)(uintptr_t)name.data;
    look.was_s = was_s;
    look.due_s = due_s;
    (void)store_append_lazy(pubsub->shard->store, RECORD_NODE_LOOK, &look.base);
}

static void row_move(struct node *node, uint64_t due_s)
{
    struct pubsub *pubsub = node->pubsub;
    if (due_s == node->look_s)
        return;
    row_write(pubsub, node->number, node->name, node->look_s, due_s);
    node->look_s = due_s;
    if (due_s != 0)
        timer_at(pubsub->shard, &pubsub->sweep, due_s * SECOND_US);
}

/* Which second a node loaded from the store is known under. */
void expiry_load(struct node *node)
{
    char key[16];
    struct xy_str value;
    be64(key, UINT64_MAX);
    memcpy(key + 8, node->key, sizeof(node->key));
    xy_arena_reset(node->pubsub->arena);
    if (store_get(node->pubsub->shard->store, STORE_EXPIRY, xy_str_n(key, sizeof(key)), node->pubsub->arena,
                  &value) &&
        value.len == 8)
        node->look_s = from_be64(value.data);
}

/* --- one node -------------------------------------------------------------------------------------------------------- */

static uint64_t items_due_us(const struct node *node)
{
    const struct item *oldest = index_oldest(&node->items);
    return oldest != NULL ? plus(oldest->time_us, expire_us(node)) : UINT64_MAX;
}

/* When the store must remember to look at the node at the latest. */
static uint64_t due_us(const struct node *node)
{
    uint64_t items_us = items_due_us(node);
    uint64_t backlog_us =
        node->config.overflow != OVERFLOW_REJECT && node->items.live > 0 ? backlog_due_us(node) : UINT64_MAX;
    return items_us < backlog_us ? items_us : backlog_us;
}

static void expire(struct node *node, uint64_t now_us)
{
    struct evicted evicted;
    evicted.removed_count = evicted.unretained_count = 0;
    for (struct item *oldest; (oldest = index_oldest(&node->items)) != NULL;)
        if (!expiry_over(node, oldest, now_us) || !retention_evict(node, oldest, &evicted))
            break;
    record_items_expired(node, &evicted);
}

static void place_row(struct node *node, uint64_t now_us)
{
    uint64_t due = due_us(node), slack_us = expire_us(node) / SLACK_PART;
    if (node->look_s != 0 && node->look_s * SECOND_US > now_us && node->look_s <= due / SECOND_US + 1)
        return; /* it comes in time, and moves then */
    slack_us = slack_us < SLACK_US_MIN ? SLACK_US_MIN : slack_us > SLACK_US_MAX ? SLACK_US_MAX : slack_us;
    if (due != UINT64_MAX && due < now_us + slack_us && node->look_s != 0)
        due = now_us + slack_us;
    row_move(node, due != UINT64_MAX ? due / SECOND_US + 1 : 0);
}

void expiry_look(struct node *node)
{
    uint64_t now_us = xy_wall_us(node->pubsub->shard->env);
    expire(node, now_us);
    uint64_t items_us = items_due_us(node);
    if (items_us != UINT64_MAX)
        timer_at(node->pubsub->shard, &node->expiry, items_us);
    place_row(node, now_us);
}

void expiry_published(struct node *node)
{
    uint64_t now_us = xy_wall_us(node->pubsub->shard->env);
    bool known = node->look_s != 0 && (node->config.item_expire_s == OPTION_COUNT_MAX ||
                                       node->look_s * SECOND_US <= plus(now_us, expire_us(node)) + SECOND_US);
    bool nothing = node->config.item_expire_s == OPTION_COUNT_MAX && node->durable_count == 0;
    if (nothing || (known && (items_due_us(node) == UINT64_MAX || shard_timer_is_set(&node->expiry))))
        return;
    expiry_look(node);
}

void expiry_forget(struct node *node)
{
    row_move(node, 0);
}

static void on_expiry(struct shard *shard, struct shard_timer *timer)
{
    (void)shard;
    expiry_look(xy_container_of(timer, struct node, expiry));
}

void expiry_init(struct node *node)
{
    node->expiry.fn = on_expiry;
}

/* --- nodes that are due, in memory or not ------------------------------------------------------------------------------ */

static void visit(struct pubsub *pubsub, uint64_t due_s, uint64_t number, struct xy_str name)
{
    struct node *node;
    enum resident resident = resident_find(pubsub, name, &node);
    if (node != NULL && node->number == number && node->look_s == due_s) {
        expiry_look(node);
        return;
    }
    if (resident == RESIDENT_ABSENT ||
        resident == RESIDENT_HERE) /* else it is looked at when it was loaded */
        row_write(pubsub, number, name, due_s, node != NULL && node->number == number ? node->look_s : 0);
}

/* A page of rows; returns the second of the first that is not due yet, UINT64_MAX: there is none, 0: go on. */
static uint64_t sweep_page(struct pubsub *pubsub, struct xy_arena *arena, uint64_t now_s)
{
    struct shard *shard = pubsub->shard;
    struct store_entry rows[SWEEP_PAGE];
    bool more = false;
    struct xy_str from = pubsub->sweep_from.len > 0 ? xy_buf_view(&pubsub->sweep_from) : XY_STR("");
    size_t count = store_scan(shard->store, STORE_EXPIRY, XY_STR(""), from, arena, rows, SWEEP_PAGE, &more);
    for (size_t i = 0; i < count; i++) {
        uint64_t due_s = rows[i].key.len == 16 ? from_be64(rows[i].key.data) : UINT64_MAX;
        if (due_s > now_s)
            return due_s;
        struct xy_str name = xy_arena_str(arena, rows[i].value); /* ends in NUL */
        if (name.data != NULL && shard_owner(shard, name) == shard->index)
            visit(pubsub, due_s, from_be64(rows[i].key.data + 8), name);
    }
    xy_buf_reset(&pubsub->sweep_from);
    if (count == 0 || !more)
        return UINT64_MAX;
    xy_buf_str(&pubsub->sweep_from, rows[count - 1].key);
    xy_buf_char(&pubsub->sweep_from, '\0');
    return 0;
}

static void on_sweep(struct shard *shard, struct shard_timer *timer)
{
    struct pubsub *pubsub = shard->pubsub;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    uint64_t now_s = xy_wall_us(shard->env) / SECOND_US;
    uint64_t next_s = arena != NULL ? sweep_page(pubsub, arena, now_s) : now_s + 1;
    if (arena != NULL)
        xy_arena_pool_give(shard->arenas, &arena);
    if (next_s != 0)
        xy_buf_reset(&pubsub->sweep_from);
    if (next_s != UINT64_MAX)
        timer_at(shard, timer, next_s * SECOND_US);
}

void expiry_start(struct pubsub *pubsub)
{
    pubsub->sweep.fn = on_sweep;
    timer_at(pubsub->shard, &pubsub->sweep, 0);
}

void expiry_stop(struct pubsub *pubsub)
{
    shard_timer_cancel(pubsub->shard, &pubsub->sweep);
    xy_buf_free(&pubsub->sweep_from);
}
