/* Requests to the service, as XEP-0060 and docs/protocol.md have them: who may do what, what it changes, what is
 * answered. */
#include <stdio.h>
#include <string.h>

#include "core/base/assert.h"
#include "tests/model/model.h"

struct ask {
    struct model *model;
    const struct op *op;
    struct model_node *node;
    unsigned number, slot, account;
    struct model_answer *answer;
};

static void fail(struct ask *ask, enum xy_condition condition)
{
    ask->answer->condition = condition;
}

static void done(struct ask *ask, bool records)
{
    ask->answer->result = true;
    ask->answer->records = records;
}

/* --- items --------------------------------------------------------------------------------------------------------- */

bool model_owes(const struct model_node *node, const struct model_sub *sub, unsigned item)
{
    if (!sub->there || !sub->durable || sub->cursor >= node->items[item].seq || sub->never[item])
        return false;
    return !sub->one_by_one || sub->one[item].state != ONE_SETTLED;
}

/* Kept, or owed to somebody. */
static bool exists(const struct model_node *node, unsigned item)
{
    if (node->items[item].retained)
        return true;
    for (unsigned s = 0; s < MODEL_SUBS; s++)
        if (model_owes(node, &node->subs[s], item))
            return true;
    return false;
}

void model_collect(struct model_node *node)
{
    for (unsigned i = 0; i < node->items_count; i++)
        if (!node->items[i].gone && !exists(node, i))
            node->items[i].gone = true;
}

static struct model_item *find(struct model_node *node, unsigned id)
{
    for (unsigned i = 0; i < node->items_count; i++)
        if (node->items[i].retained && node->items[i].id == id)
            return &node->items[i];
    return NULL;
}

static unsigned retained(const struct model_node *node)
{
    unsigned count = 0;
    for (unsigned i = 0; i < node->items_count; i++)
        count += node->items[i].retained;
    return count;
}

static void remove_item(struct model_item *item)
{
    item->retained = false;
    item->gone = true;
}

static unsigned retained_bytes(const struct model_node *node)
{
    unsigned bytes = 0;
    for (unsigned i = 0; i < node->items_count; i++)
        bytes += node->items[i].retained ? node->items[i].bytes : 0;
    return bytes;
}

/* The oldest leave until there is room for one of `bytes` more; `count` 0: for what is there. */
static void make_room(struct model_node *node, unsigned count, unsigned bytes)
{
    for (unsigned i = 0; i < node->items_count; i++) {
        bool many = node->max_items > 0 && retained(node) + count > node->max_items;
        bool large = node->max_bytes > 0 && retained_bytes(node) + bytes > node->max_bytes;
        if (!many && !large && node->persist)
            break;
        node->items[i].retained = false;
    }
    model_collect(node);
}

/* --- who may ------------------------------------------------------------------------------------------------------- */

static int affiliation(const struct ask *ask)
{
    return ask->node->affiliation[ask->account];
}

static bool may_read(const struct model_node *node, int is)
{
    return is != MODEL_OUTCAST && is != MODEL_PUBLISH_ONLY && (!node->whitelist || is != MODEL_NONE);
}

static bool is_subscribed(const struct model_node *node, unsigned account)
{
    for (unsigned s = 0; s < MODEL_SUBS; s++)
        if (node->subs[s].there && s % MODEL_ACCOUNTS == account)
            return true;
    return false;
}

static bool may_publish(const struct ask *ask)
{
    int is = affiliation(ask);
    if (is == MODEL_OWNER || is == MODEL_PUBLISHER || is == MODEL_PUBLISH_ONLY)
        return true;
    if (is == MODEL_OUTCAST)
        return false;
    return ask->node->publish_model == PUBLISH_OPEN ||
           (ask->node->publish_model == PUBLISH_SUBSCRIBERS && is_subscribed(ask->node, ask->account));
}

/* --- nodes --------------------------------------------------------------------------------------------------------- */

static void create(struct ask *ask)
{
    struct model_node *node = ask->node;
    uint64_t epoch = node->epoch != 0 ? node->epoch : node->last_epoch;
    unsigned life = node->life;
    memset(node, 0, sizeof(*node));
    node->life = life + 1;
    for (unsigned s = 0; s < MODEL_SUBS; s++)
        node->subs[s].holder = -1;
    node->there = node->persist = true;
    node->last_epoch = epoch;
    node->max_items = 20;
    node->next_seq = 1;
    node->affiliation[ask->account] = MODEL_OWNER;
}

static void on_create(struct ask *ask)
{
    const int *a = ask->op->args;
    if (ask->node->there) {
        fail(ask, XY_CONFLICT);
        return;
    }
    create(ask);
    ask->node->max_items = (unsigned)a[2];
    ask->node->whitelist = a[3] != 0;
    ask->node->publish_model = a[4];
    done(ask, true);
}

/* Who may not read any more is subscribed no more, and is told so. */
static void drop_subscriptions(struct ask *ask)
{
    struct model_node *node = ask->node;
    for (unsigned s = 0; s < MODEL_SUBS; s++) {
        unsigned account = s % MODEL_ACCOUNTS;
        if (!node->subs[s].there || may_read(node, node->affiliation[account]))
            continue;
        for (unsigned slot = account; slot < MODEL_SESSIONS; slot += MODEL_ACCOUNTS)
            model_told(ask->model, slot, ask->number, 's');
        model_sub_end(ask->model, node, s);
    }
}

static bool somebody_is_owed(const struct model_node *node)
{
    for (unsigned s = 0; s < MODEL_SUBS; s++)
        if (node->subs[s].there && node->subs[s].durable)
            return true;
    return false;
}

/* Items in memory and items on disk do not mix. */
static bool durability_may_change(struct ask *ask, int value)
{
    struct model_node *node = ask->node;
    bool holds = false;
    if (value == MODEL_MEMORY && node->window_s > 0) {
        fail(ask, XY_NOT_ACCEPTABLE);
        return false;
    }
    if ((value == MODEL_MEMORY) == (node->durability == MODEL_MEMORY))
        return true;
    for (unsigned i = 0; i < node->items_count; i++)
        holds |= !node->items[i].gone;
    if (holds || somebody_is_owed(node)) {
        fail(ask, XY_CONFLICT);
        return false;
    }
    ask->model->full |= node->vague;
    node->life++;
    node->last_epoch = node->epoch != 0 ? node->epoch : node->last_epoch;
    node->epoch = 0;
    return true;
}

static void on_configure(struct ask *ask)
{
    struct model_node *node = ask->node;
    int value = ask->op->args[3];
    switch (ask->op->args[2]) {
    case MODEL_FIELD_MAX:
        node->max_items = (unsigned)value;
        break;
    case MODEL_FIELD_ACCESS:
        node->whitelist = value == 1;
        break;
    case MODEL_FIELD_PUBLISH:
        node->publish_model = value;
        break;
    case MODEL_FIELD_DURABILITY:
        if (!durability_may_change(ask, value))
            return;
        node->durability = value;
        break;
    case MODEL_FIELD_WINDOW:
        if (value > 0 && node->durability == MODEL_MEMORY) {
            fail(ask, XY_NOT_ACCEPTABLE);
            return;
        }
        node->window_s = (unsigned)value;
        break;
    case MODEL_FIELD_BYTES:
        node->max_bytes = (unsigned)value;
        break;
    case MODEL_FIELD_OVERFLOW:
        node->rejects = value == 1;
        break;
    case MODEL_FIELD_FULL:
        node->full_rejects = value == 1;
        break;
    default:
        node->persist = value != 0;
        break;
    }
    make_room(node, 0, 0);
    drop_subscriptions(ask);
    done(ask, true);
}

static void on_delete(struct ask *ask)
{
    model_notice(ask->model, ask->number, 'd', 0);
    ask->node->there = false;
    for (unsigned s = 0; s < MODEL_SUBS; s++)
        model_sub_end(ask->model, ask->node, s);
    done(ask, true);
}

static void on_purge(struct ask *ask)
{
    if (!ask->node->persist) {
        fail(ask, XY_FEATURE_NOT_IMPLEMENTED);
        return;
    }
    for (unsigned i = 0; i < ask->node->items_count; i++)
        remove_item(&ask->node->items[i]);
    model_notice(ask->model, ask->number, 'p', 0);
    done(ask, ask->node->durability != MODEL_MEMORY);
}

static void on_affiliate(struct ask *ask)
{
    struct model_node *node = ask->node;
    int *is = &node->affiliation[ask->op->args[2]], owners = 0;
    for (unsigned i = 0; i < MODEL_ACCOUNTS; i++)
        owners += node->affiliation[i] == MODEL_OWNER;
    if (*is == MODEL_OWNER && ask->op->args[3] != MODEL_OWNER && owners == 1) {
        fail(ask, XY_NOT_ACCEPTABLE);
        return;
    }
    bool changed = *is != ask->op->args[3];
    *is = ask->op->args[3];
    drop_subscriptions(ask);
    done(ask, changed);
}

/* --- publishing ---------------------------------------------------------------------------------------------------- */

enum once { ONCE_NEW, ONCE_SEEN, ONCE_OLD };

/* Of a stream, what is far behind the newest is refused, whether or not it was seen: nobody remembers so many. */
static enum once seen(const struct ask *ask)
{
    const int *a = ask->op->args;
    uint64_t number = (uint64_t)a[5], newest = 0;
    bool known = false;
    for (unsigned i = 0; a[4] != 0 && i < ask->node->once_count; i++) {
        const struct model_once *once = &ask->node->once[i];
        if (once->publisher != ask->account || once->whole != (a[4] == 2))
            continue;
        known |= once->number == number;
        newest = !once->whole && once->number > newest ? once->number : newest;
    }
    if (newest > number && newest - number > 256)
        return ONCE_OLD;
    return known ? ONCE_SEEN : ONCE_NEW;
}

static void remember(struct ask *ask)
{
    const int *a = ask->op->args;
    bool stored = ask->answer->kept;
    if (a[4] == 0)
        return;
    for (unsigned i = 0; stored && a[4] == 1 && i < ask->node->once_count;
         i++) /* a stream is stored as a whole */
        if (ask->node->once[i].publisher == ask->account && !ask->node->once[i].whole)
            ask->node->once[i].stored = true;
    if (ask->node->once_count == MODEL_ONCE) {
        ask->model->full = true;
        return;
    }
    ask->node->once[ask->node->once_count++] = (struct model_once){
        .publisher = ask->account, .whole = a[4] == 2, .stored = stored, .number = (uint64_t)a[5]
    };
}

/* In the window of its id, an item was published already; and of one request each id is published once. */
static bool is_repeated(const struct ask *ask, unsigned k)
{
    unsigned id = model_item_id(ask->op->args, k);
    if (ask->node->window_s == 0)
        return false;
    for (unsigned i = 0; i < k; i++)
        if (model_item_id(ask->op->args, i) == id)
            return true;
    return ask->node->id_until_us[id] > ask->model->now_us;
}

/* Of <item/> as subscribers get it. */
static unsigned bytes_of(const struct ask *ask, unsigned k)
{
    return (unsigned)snprintf(
        NULL, 0, "<item id='i%u' publisher='a%u@example.org'><e xmlns='urn:e'>t%u</e></item>",
        model_item_id(ask->op->args, k), ask->account, model_item_token(ask->op->args, k));
}

/* true: refused, because nothing may leave for it, or because it is too large by itself. */
static bool overflows(struct ask *ask)
{
    struct model_node *node = ask->node;
    unsigned fresh = 0, bytes = 0, largest = 0, leaving = 0;
    for (unsigned k = 0; k <= (unsigned)ask->op->args[6]; k++) {
        if (is_repeated(ask, k))
            continue;
        const struct model_item *same = find(node, model_item_id(ask->op->args, k));
        fresh += same == NULL;
        leaving += same != NULL ? same->bytes : 0;
        bytes += bytes_of(ask, k);
        largest = bytes_of(ask, k) > largest ? bytes_of(ask, k) : largest;
    }
    if (largest > 0 && model_backlog_refuses(ask->model, node, bytes)) {
        fail(ask, XY_RESOURCE_CONSTRAINT);
        return true;
    }
    if (!node->persist)
        return false;
    bool many = node->max_items > 0 && fresh > 0 && retained(node) + fresh > node->max_items;
    bool large =
        node->max_bytes > 0 && bytes > leaving && retained_bytes(node) + bytes - leaving > node->max_bytes;
    if (node->max_bytes > 0 && largest > node->max_bytes)
        fail(ask, XY_NOT_ACCEPTABLE);
    else if ((many && (node->rejects || node->full_rejects)) || (large && node->rejects))
        fail(ask, XY_CONFLICT);
    else
        return false;
    return true;
}

static void add_item(struct ask *ask, unsigned k)
{
    struct model_node *node = ask->node;
    bool kept = node->persist || somebody_is_owed(node);
    unsigned id = model_item_id(ask->op->args, k);
    struct model_item *same = node->persist ? find(node, id) : NULL;
    if (same != NULL)
        same->retained = false;
    if (node->persist)
        make_room(node, 1, bytes_of(ask, k));
    model_collect(node);
    node->items[node->items_count++] = (struct model_item){ .seq = kept ? node->next_seq++ : 0,
                                                            .id = id,
                                                            .token = model_item_token(ask->op->args, k),
                                                            .publisher = ask->account,
                                                            .time_us = ask->model->now_us,
                                                            .bytes = bytes_of(ask, k),
                                                            .retained = node->persist };
    model_published(ask->model, ask->number, node->items_count - 1, kept);
    if (!kept) /* seen by who was there, and by nobody else */
        node->items_count--;
    if (node->durability != MODEL_MEMORY)
        node->stored_seq = node->next_seq - 1;
    ask->answer->kept = kept && node->durability != MODEL_MEMORY;
    done(ask, (kept && node->durability != MODEL_MEMORY) || node->window_s > 0);
    ask->answer->early = node->durability == MODEL_ASYNC;
}

static void on_publish(struct ask *ask)
{
    unsigned count = (unsigned)ask->op->args[6] + 1;
    bool made = !ask->node->there;
    if (made)
        create(ask);
    if (!may_publish(ask)) {
        fail(ask, XY_FORBIDDEN);
        return;
    }
    if (ask->node->persist && ask->node->max_items > 0 && count > ask->node->max_items) {
        fail(ask, XY_NOT_ALLOWED);
        return;
    }
    enum once once = seen(ask);
    if (once == ONCE_SEEN)
        done(ask, false);
    if (once == ONCE_OLD)
        fail(ask, XY_NOT_ACCEPTABLE);
    if (once != ONCE_NEW || overflows(ask))
        return;
    if (ask->node->items_count + count > MODEL_ITEMS) {
        ask->model->full = true;
        return;
    }
    bool repeated[MODEL_MORE + 1], any = false;
    for (unsigned k = 0; k < count; k++) {
        repeated[k] = is_repeated(ask, k);
        any |= !repeated[k];
    }
    for (unsigned k = 0; k < count; k++) {
        if (repeated[k])
            continue;
        if (ask->node->window_s > 0)
            ask->node->id_until_us[model_item_id(ask->op->args, k)] =
                ask->model->now_us + ask->node->window_s * UINT64_C(1000000);
        add_item(ask, k);
    }
    if (!any) {
        done(ask, false);
        return;
    }
    remember(ask);
    ask->answer->records |= made;
}

static void on_retract(struct ask *ask)
{
    struct model_node *node = ask->node;
    struct model_item *item = find(node, (unsigned)ask->op->args[2]);
    int notify = ask->op->args[3];
    if (!node->persist) {
        fail(ask, XY_FEATURE_NOT_IMPLEMENTED);
        return;
    }
    if (item == NULL) {
        fail(ask, XY_ITEM_NOT_FOUND);
        return;
    }
    int is = affiliation(ask);
    if (is != MODEL_OWNER && (is == MODEL_OUTCAST || item->publisher != ask->account)) {
        fail(ask, XY_FORBIDDEN);
        return;
    }
    remove_item(item);
    if (notify != 0)
        model_notice(ask->model, ask->number, 'r', item->id);
    done(ask, node->durability != MODEL_MEMORY);
}

static void on_items(struct ask *ask)
{
    struct model_node *node = ask->node;
    unsigned max = (unsigned)ask->op->args[2], skip = 0;
    if (!may_read(node, affiliation(ask))) {
        fail(ask, affiliation(ask) == MODEL_NONE ? XY_NOT_ALLOWED : XY_FORBIDDEN);
        return;
    }
    if (!node->persist) {
        fail(ask, XY_FEATURE_NOT_IMPLEMENTED);
        return;
    }
    if (max > 0 && retained(node) > max)
        skip = retained(node) - max;
    for (unsigned i = 0; i < node->items_count; i++) {
        if (!node->items[i].retained)
            continue;
        if (skip > 0)
            skip--;
        else
            ask->answer->items[ask->answer->items_count++] = &node->items[i];
    }
    done(ask, false);
}

/* --- subscribing --------------------------------------------------------------------------------------------------- */

static void on_subscribe(struct ask *ask)
{
    struct model_node *node = ask->node;
    const int *a = ask->op->args;
    struct model_sub *sub = &node->subs[model_sub_index(ask->slot, a[2] != 0)];
    int is = affiliation(ask);
    if (is == MODEL_OUTCAST || is == MODEL_PUBLISH_ONLY) {
        fail(ask, XY_FORBIDDEN);
        return;
    }
    if (!may_read(node, is)) {
        fail(ask, XY_NOT_ALLOWED);
        return;
    }
    bool durable = a[3] != 0, was = sub->durable;
    if (durable && node->durability == MODEL_MEMORY) {
        fail(ask, XY_BAD_REQUEST);
        return;
    }
    if (!sub->there)
        sub->subid = ask->model->subid;
    if (sub->durable && !durable) {
        uint64_t subid = sub->subid;
        int ack = sub->ack;
        model_sub_end(ask->model, node, model_sub_index(ask->slot, a[2] != 0));
        sub->subid = subid;
        sub->ack = ack;
    } else if (durable && !sub->durable) {
        model_sub_begin(node, sub, a[4], (uint64_t)a[5]);
        sub->first_hold = ask->model->holds;
    }
    if (a[6] > 0) /* else it stays as it is */
        sub->ack = a[6];
    sub->one_by_one = sub->ack > 0;
    sub->max_inflight = sub->ack == 2 ? 2 : 1000;
    sub->max_deliver = sub->ack == 3 ? 2 : 0;
    sub->wait_us = MODEL_WAIT_S * UINT64_C(1000000);
    sub->backoff_us = sub->ack == 3 ? 3000000 : 0;
    if (durable) {
        sub->max_bytes = a[7] == 1 ? MODEL_BACKLOG : 0;
        sub->max_age_us = a[7] == 2 ? MODEL_BACKLOG_S * UINT64_C(1000000) : 0;
    }
    sub->there = true;
    if (durable && !was)
        model_backlog_began(node, sub);
    if (was && durable && sub->one_by_one)
        model_one_configured(ask->model, node, sub);
    if (was && durable) /* it is looked at again: what it waited for may have been purged */
        model_settled(ask->model, ask->number, model_sub_index(ask->slot, a[2] != 0));
    ask->answer->sub = sub;
    done(ask, true);
}

static void on_settle(struct ask *ask)
{
    const int *a = ask->op->args;
    unsigned index = model_sub_index(ask->slot, a[2] != 0);
    struct model_sub *sub = &ask->node->subs[index];
    if (!sub->there || !sub->durable || !sub->one_by_one ||
        !model_one_say(ask->model, ask->node, sub, a[3], ask->model->seq, a[5])) {
        fail(ask, XY_ITEM_NOT_FOUND);
        return;
    }
    model_settled(ask->model, ask->number, index);
    done(ask, a[3] != VERB_WORKING);
}

static void on_unsubscribe(struct ask *ask)
{
    unsigned index = model_sub_index(ask->slot, ask->op->args[2] != 0);
    if (!ask->node->subs[index].there) {
        fail(ask, XY_UNEXPECTED_REQUEST);
        return;
    }
    model_sub_end(ask->model, ask->node, index);
    done(ask, true);
}

/* --- the request --------------------------------------------------------------------------------------------------- */

void model_request(struct model *model, const struct op *op, struct model_answer *answer)
{
    static const struct {
        void (*fn)(struct ask *ask);
        bool owner, makes; /* only an owner may; the node need not be there */
    } handlers[OP_KIND_COUNT] = {
        [OP_CREATE] = { on_create, false, true },        [OP_CONFIGURE] = { on_configure, true, false },
        [OP_DELETE] = { on_delete, true, false },        [OP_PURGE] = { on_purge, true, false },
        [OP_PUBLISH] = { on_publish, false, true },      [OP_RETRACT] = { on_retract, false, false },
        [OP_SUBSCRIBE] = { on_subscribe, false, false }, [OP_UNSUBSCRIBE] = { on_unsubscribe, false, false },
        [OP_AFFILIATE] = { on_affiliate, true, false },  [OP_ITEMS] = { on_items, false, false },
        [OP_SETTLE] = { on_settle, false, false },
    };
    struct ask ask = { .model = model, .op = op, .answer = answer };
    ask.slot = (unsigned)op->args[OP_SESSION];
    ask.account = model_account(ask.slot);
    ask.number = (unsigned)op->args[OP_NODE];
    ask.node = &model->nodes[ask.number];
    memset(answer, 0, sizeof(*answer));
    xy_assert(handlers[op->kind].fn != NULL);
    if (!ask.node->there && !handlers[op->kind].makes) {
        fail(&ask, XY_ITEM_NOT_FOUND);
        return;
    }
    if (handlers[op->kind].owner && ask.node->affiliation[ask.account] != MODEL_OWNER) {
        fail(&ask, XY_FORBIDDEN);
        return;
    }
    handlers[op->kind].fn(&ask);
    model_recheck(model);
}
