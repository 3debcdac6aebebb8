/* What an account may still have. See quota.h; called by create, publish, subscribe and delete, and when a node comes into
 * memory. */
#include "broker/pubsub/quota/quota.h"

#include <stdlib.h>

#include "broker/config.h"
#include "core/base/assert.h"

#define CREATION_WAITING_MAX 1024u

/* Requests for one name that wait until nodes are counted. */
struct creation {
    struct request **waiting;
    size_t count, cap;
    struct xy_str name;
    char text[];
};

static const struct config_limits *limits_of(const struct pubsub *pubsub)
{
    return &pubsub->shard->config->limits;
}

/* --- beginning and end ------------------------------------------------------------------------------------------------ */

bool quota_init(struct pubsub *pubsub)
{
    struct shard *shard = pubsub->shard;
    struct quota *quota = calloc(1, sizeof(*quota));
    if (quota == NULL)
        return false;
    pubsub->quota = quota;
    quota->slice_cost = QUOTA_SLICE_COST;
    quota->book = shard->index == 0 ? book_new(shard_count(shard), pubsub->hash_seed)
                                    : book_ref(shard_group_get(shard->group, 0)->pubsub->quota->book);
    quota->creations = xy_table_new(pubsub->hash_seed);
    if (quota->book == NULL || quota->creations == NULL)
        return false;
    quota_configured(pubsub);
    return true;
}

static void creation_free(struct creation *creation)
{
    free(creation->waiting);
    free(creation);
}

void quota_free(struct pubsub *pubsub)
{
    struct quota *quota = pubsub->quota;
    size_t position = 0;
    if (quota == NULL)
        return;
    for (struct creation *creation;
         quota->creations != NULL && (creation = xy_table_next(quota->creations, &position, NULL)) != NULL;) {
        for (size_t i = 0; i < creation->count; i++) {
            struct xy_arena *arena = creation->waiting[i]->stanza.arena;
            xy_arena_pool_give(pubsub->shard->arenas, &arena);
        }
        creation_free(creation);
    }
    xy_table_free(&quota->creations);
    shard_timer_cancel(pubsub->shard, &quota->timer);
    book_unref(&quota->book);
    free(quota);
    pubsub->quota = NULL;
}

void quota_configured(struct pubsub *pubsub)
{
    const struct config_limits *limits = limits_of(pubsub);
    struct quota *quota = pubsub->quota;
    if (limits->items_per_account != CONFIG_UNLIMITED || limits->bytes_per_account != CONFIG_UNLIMITED)
        quota->wanted |= QUOTA_NODES | QUOTA_ITEMS;
    if (limits->subscriptions_per_account != CONFIG_UNLIMITED)
        quota->wanted |= QUOTA_NODES | QUOTA_SUBSCRIPTIONS;
    if (quota_is_counting(pubsub))
        count_soon(pubsub);
}

bool quota_is_counting(const struct pubsub *pubsub)
{
    return pubsub->quota->wanted != pubsub->quota->counted;
}

/* --- making a node, which waits until nodes are counted ----------------------------------------------------------------- */

static void on_wanted(struct shard *shard, void *payload)
{
    (void)payload;
    if (shard->pubsub != NULL)
        count_begin(shard->pubsub, QUOTA_NODES);
}

static void ask_all(struct pubsub *pubsub)
{
    struct shard *shard = pubsub->shard;
    for (unsigned i = 0; !pubsub->quota->asked && i < shard_count(shard); i++)
        shard_mail(shard, i, on_wanted, NULL, 0);
    pubsub->quota->asked = true;
}

/* false: memory is short, or too many wait already. */
static bool wait_behind(struct creation *creation, struct request **request)
{
    if (creation->count == creation->cap) {
        size_t cap = creation->cap ? creation->cap * 2 : 8;
        struct request **grown =
            cap <= CREATION_WAITING_MAX ? realloc(creation->waiting, cap * sizeof(*grown)) : NULL;
        if (grown == NULL)
            return false;
        creation->waiting = grown;
        creation->cap = cap;
    }
    creation->waiting[creation->count++] = *request;
    *request = NULL;
    return true;
}

static struct creation *creation_new(struct quota *quota, struct xy_str name)
{
    struct creation *creation = calloc(1, sizeof(*creation) + name.len);
    if (creation == NULL)
        return NULL;
    memcpy(creation->text, name.data, name.len);
    creation->name = xy_str_n(creation->text, name.len);
    if (xy_table_put(quota->creations, creation->name, creation, NULL))
        return creation;
    free(creation);
    return NULL;
}

bool quota_ready(struct call *call)
{
    struct quota *quota = call->pubsub->quota;
    if (limits_of(call->pubsub)->nodes_per_account == CONFIG_UNLIMITED || book_nodes_counted(quota->book))
        return true;
    struct creation *creation = creation_new(quota, call->name);
    if (creation != NULL && wait_behind(creation, call->request)) {
        ask_all(call->pubsub);
        return false;
    }
    if (creation != NULL) {
        (void)xy_table_remove(quota->creations, creation->name);
        creation_free(creation);
    }
    call_no_room(call);
    return false;
}

bool quota_wait(struct call *call)
{
    struct creation *creation = xy_table_get(call->pubsub->quota->creations, call->name);
    if (creation == NULL)
        return false;
    if (!wait_behind(creation, call->request))
        call_no_room(call);
    return true;
}

void creations_go_on(struct pubsub *pubsub)
{
    struct quota *quota = pubsub->quota;
    size_t position = 0;
    for (struct creation *creation; (creation = xy_table_next(quota->creations, &position, NULL)) != NULL;) {
        (void)xy_table_remove(quota->creations, creation->name);
        for (size_t i = 0; i < creation->count; i++)
            call_dispatch(pubsub->shard, &creation->waiting[i]);
        creation_free(creation);
    }
}

/* --- items -------------------------------------------------------------------------------------------------------------- */

/* Called by the index: what is retained became more or less, perhaps in the midst of a publish. */
static void charge_changed(void *ctx)
{
    struct node *node = ctx;
    if (!node->charge.reserved)
        quota_settle(node);
}

static void charge_from(struct node *node, struct quota_account *account, const struct quota_sum *charged)
{
    node->charge.account = account;
    node->charge.items = charged->items;
    node->charge.bytes = charged->bytes;
    node->items.changed = charge_changed;
    quota_settle(node);
}

void charge_items(struct node *node, struct quota_account *account)
{
    node->charge.counted |= QUOTA_ITEMS;
    charge_from(node, account, &(struct quota_sum){ 0 });
}

bool quota_reserve(struct node *node, uint64_t items, uint64_t bytes)
{
    struct node_charge *charge = &node->charge;
    const struct config_limits *limits = limits_of(node->pubsub);
    if (charge->account == NULL)
        return true;
    xy_assert(!charge->reserved);
    uint64_t more_items = items > charge->items ? items - charge->items : 0;
    uint64_t more_bytes = bytes > charge->bytes ? bytes - charge->bytes : 0;
    if (!account_take(charge->account, more_items, limits->items_per_account, more_bytes,
                      limits->bytes_per_account))
        return false;
    charge->items += more_items;
    charge->bytes += more_bytes;
    charge->reserved = true;
    return true;
}

void quota_settle(struct node *node)
{
    struct node_charge *charge = &node->charge;
    const struct item_index *items = &node->items;
    charge->reserved = false;
    if (charge->account == NULL)
        return;
    account_change(charge->account, charge->items, items->retained_count, charge->bytes,
                   items->retained_bytes);
    charge->items = items->retained_count;
    charge->bytes = items->retained_bytes;
}

/* --- nodes -------------------------------------------------------------------------------------------------------------- */

enum quota_verdict quota_add_node(struct node *node)
{
    struct pubsub *pubsub = node->pubsub;
    struct quota_account *account;
    if (!count_reached(pubsub, QUOTA_NODES, node->name))
        return QUOTA_TAKEN;
    enum quota_verdict verdict =
        book_add_node(pubsub->quota->book, node->creator, limits_of(pubsub)->nodes_per_account, &account);
    if (verdict != QUOTA_TAKEN)
        return verdict;
    node->charge.counted = QUOTA_NODES;
    if (count_reached(pubsub, QUOTA_ITEMS, node->name))
        charge_items(node, account);
    if (count_reached(pubsub, QUOTA_SUBSCRIPTIONS, node->name))
        node->charge.counted |= QUOTA_SUBSCRIPTIONS;
    return QUOTA_TAKEN;
}

static void stop_charging(struct node *node)
{
    struct node_charge *charge = &node->charge;
    if (charge->account != NULL)
        account_change(charge->account, charge->items, 0, charge->bytes, 0);
    node->items.changed = NULL;
    *charge = (struct node_charge){ 0 };
}

void quota_drop_node(struct node *node)
{
    struct quota *quota = node->pubsub->quota;
    bool begun = quota->begun.number == node->number;
    bool counted = (node->charge.counted & QUOTA_NODES) || begun;
    size_t position = 0;
    for (const struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        quota_drop_subscription(node, s->subscriber->bare, s->number);
    stop_charging(node);
    if (begun)
        quota->begun.number = 0;
    if (counted && node->creator.len > 0)
        book_drop_node(quota->book, node->creator);
}

/* What the rows of a node that is being counted said so far need not be so any more. */
static void count_anew(const struct node *node)
{
    struct quota *quota = node->pubsub->quota;
    if (quota->begun.number != node->number)
        return;
    quota->begun.items = quota->begun.bytes = quota->begun.items_from = 0;
    quota->begun.items_done = false;
}

void quota_loaded(struct node *node, const struct quota_sum *stored)
{
    struct quota *quota = node->pubsub->quota;
    struct node_charge *charge = &node->charge;
    static const unsigned kinds[] = { QUOTA_NODES, QUOTA_ITEMS, QUOTA_SUBSCRIPTIONS };
    count_anew(node);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (count_reached(node->pubsub, kinds[i], node->name))
            charge->counted |= kinds[i];
    if (!(charge->counted & QUOTA_ITEMS) || node->creator.len == 0)
        return;
    struct quota_account *account = book_find(quota->book, node->creator);
    xy_assert(account != NULL);
    charge_from(node, account, stored);
}

void quota_not_loaded(struct node *node, const struct quota_sum *gone)
{
    count_anew(node);
    if (!count_reached(node->pubsub, QUOTA_ITEMS, node->name) || node->creator.len == 0)
        return;
    struct quota_account *account = book_find(node->pubsub->quota->book, node->creator);
    xy_assert(account != NULL);
    account_change(account, gone->items, 0, gone->bytes, 0);
}

/* --- subscriptions -------------------------------------------------------------------------------------------------------- */

static bool is_charged(const struct node *node, uint32_t number)
{
    const struct quota *quota = node->pubsub->quota;
    return (node->charge.counted & QUOTA_SUBSCRIPTIONS) ||
           (quota->begun.number == node->number && number < quota->begun.subscriptions_from);
}

enum quota_verdict quota_add_subscription(struct node *node, struct xy_str bare)
{
    struct pubsub *pubsub = node->pubsub;
    return is_charged(node, node->next_number)
               ? book_add_subscription(pubsub->quota->book, bare,
                                       limits_of(pubsub)->subscriptions_per_account)
               : QUOTA_TAKEN;
}

void quota_drop_subscription(struct node *node, struct xy_str bare, uint32_t number)
{
    if (is_charged(node, number))
        book_drop_subscription(node->pubsub->quota->book, bare);
}
