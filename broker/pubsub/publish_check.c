/* What can be wrong with a publish request: rights, preconditions, items, payloads, ids. XEP-0060 7.1.3 and 7.1.5; also
 * creates the node on the way where there is none (7.1.4). Called by publish.c. */
#include "broker/pubsub/publish.h"

#include "broker/config.h"
#include "broker/pubsub/node/headers.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/node/retention.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/shard/stats.h"
#include "core/xml/writer.h"

/* --- may they? ----------------------------------------------------------------------------------------------------- */

static bool is_subscriber(const struct call *call)
{
    return node_subscriber(call->node, call->who) != NULL;
}

static bool may_publish(const struct call *call)
{
    if ((*call->request)->granted)
        return true;
    switch (call_affiliation(call)) {
    case AFFILIATION_OWNER:
    case AFFILIATION_PUBLISHER:
    case AFFILIATION_PUBLISH_ONLY:
        return true;
    case AFFILIATION_OUTCAST:
        return false;
    case AFFILIATION_MEMBER:
    case AFFILIATION_NONE:
        break;
    }
    switch ((enum publish_model)call->node->config.publish_model) {
    case PUBLISH_BY_ALL:
        return true;
    case PUBLISH_BY_SUBSCRIBERS:
        return is_subscriber(call);
    case PUBLISH_BY_PUBLISHERS:
        break;
    }
    return false;
}

/* --- publish-options and auto-creation ------------------------------------------------------------------------------- */

static bool read_publish_options(struct call *call, struct xy_form *form)
{
    const struct xy_elem *options = xy_elem_next_is(call->action, "publish-options", NS_PUBSUB);
    bool cancelled;
    *form = (struct xy_form){ 0 };
    return options == NULL || call_form(call, options, NS_PUBSUB_PUBLISH_OPTIONS, form, &cancelled);
}

/* Every field is a precondition on the node as it is (7.1.5). */
static bool preconditions_met(struct call *call, const struct xy_form *form)
{
    for (const struct xy_form_field *field = form->fields; field != NULL; field = field->next) {
        const struct option *option = option_find(node_options, field->var);
        bool met = option != NULL && field->values_count == 1 &&
                   option_is(option, &call->node->config, xy_str_trim(field->values[0]));
        if (met)
            continue;
        struct xy_str shown = xy_str_n(field->var.data, field->var.len < 128 ? field->var.len : 128);
        struct xy_str text =
            xy_arena_printf(call->arena, "the node's %.*s is not what was asked for", XY_ARG(shown));
        call_fail(call, XY_CONFLICT, "precondition-not-met",
                  text.data != NULL && xy_str_utf8(text) ? text.data : "the node is configured otherwise");
        return false;
    }
    return true;
}

/* false: refused, or it waits until nodes are counted. */
static bool create_on_publish(struct call *call, const struct xy_form *form)
{
    struct node_config config;
    if (call->name.len > NODE_NAME_MAX) {
        call_fail(call, XY_NOT_ACCEPTABLE, NULL, "the name of a node may have 1023 bytes at most");
        return false;
    }
    if (!options_init(node_options, &config)) {
        call_no_room(call);
        return false;
    }
    if (call_read_config(call, &config, form) && quota_ready(call))
        return create_with(call, &config) != NULL;
    options_free(node_options, &config);
    return false;
}

/* --- the items ----------------------------------------------------------------------------------------------------- */

static bool fail_payload(struct call *call, const char *app, const char *text)
{
    call_fail(call, XY_BAD_REQUEST, app, text);
    return false;
}

static bool check_payload(struct call *call, const struct xy_elem *item)
{
    const struct node_config *config = &call->node->config;
    const struct xy_elem *payload, *headers;
    if (!item_parts(item, &payload, &headers))
        return fail_payload(call, "invalid-payload",
                            "an item has exactly one payload element, and behind it <headers/> at most");
    if (payload == NULL && xy_str_trim(xy_elem_text(item, call->arena)).len > 0)
        return fail_payload(call, "invalid-payload", "a payload is an element; wrap text in one");
    if (payload == NULL && config->deliver_payloads)
        return fail_payload(call, "payload-required",
                            "this node carries payloads: put one element into <item/>");
    if (payload != NULL && config->type.len > 0 && !xy_str_eq(payload->ns, config->type))
        return fail_payload(call, "invalid-payload", "the payload is not of the node's type (pubsub#type)");
    if (xy_elem_attr(item, "id").len > ITEM_ID_MAX) {
        call_fail(call, XY_NOT_ACCEPTABLE, NULL, "an item id may have 1023 bytes at most");
        return false;
    }
    return true;
}

/* What the headers say, before anything changes; and no item is in the queue twice. */
bool publication_traits(struct call *call, struct publication *publication)
{
    const struct xy_elem *payload, *headers;
    if (call->node->queue == NULL || publication->count == 0)
        return true;
    publication->traits = xy_arena_alloc(call->arena, publication->count * sizeof(*publication->traits));
    for (size_t i = 0; publication->traits != NULL && i < publication->count; i++) {
        const char *why;
        (void)item_parts(publication->items[i], &payload, &headers);
        if (!item_traits_read(headers, call->arena, publication->now_us, &publication->traits[i], &why))
            return fail_payload(call, NULL, why);
    }
    if (publication->traits == NULL)
        call_no_room(call);
    return publication->traits != NULL;
}

bool publication_collides(struct call *call, const struct publication *publication)
{
    if (call->node->queue == NULL)
        return false;
    for (size_t i = 0; i < publication->count; i++) {
        struct xy_str id = xy_elem_attr(publication->items[i], "id");
        bool there = index_find_id(&call->node->items, id) != NULL;
        for (size_t j = 0; !there && j < i; j++)
            there = xy_str_eq(id, xy_elem_attr(publication->items[j], "id"));
        if (!there)
            continue;
        call_fail(call, XY_CONFLICT, NULL, "an item of that id is in the queue already");
        return true;
    }
    return false;
}

static bool collect_items(struct call *call, struct publication *publication)
{
    publication->items = xy_arena_zalloc(call->arena, PUBLISH_ITEMS_MAX * sizeof(*publication->items));
    if (publication->items == NULL) {
        call_no_room(call);
        return false;
    }
    for (struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        if (!xy_elem_is(e, "item", NS_PUBSUB))
            return fail_payload(call, NULL, "<publish/> contains <item/> elements only");
        if (publication->count == PUBLISH_ITEMS_MAX) {
            call_fail(call, XY_NOT_ALLOWED, "max-items-exceeded", "too many items in one request");
            return false;
        }
        publication->items[publication->count++] = e;
        if (!check_payload(call, e))
            return false;
    }
    const struct node_config *config = &call->node->config;
    bool notice = !config->deliver_payloads && !config->persist_items;
    if (publication->count == 0 && config->persist_items)
        return fail_payload(call, "item-required", "this node keeps items: publish at least one");
    if (publication->count == 0 && config->deliver_payloads)
        return fail_payload(call, "payload-required", "this node carries payloads: publish an item with one");
    if (publication->count > 0 && notice)
        return fail_payload(call, "item-forbidden", "this node only notifies: publish without items");
    if (config->persist_items && publication->count > retention_items_max(call->node)) {
        call_fail(call, XY_NOT_ALLOWED, "max-items-exceeded",
                  "more items than this node keeps (pubsub#max_items)");
        return false;
    }
    return true;
}

/* What the node will hold more, what it is all together, and the largest one. Items that overwrite take the place of the former. */
static void measure(const struct call *call, const struct publication *publication, uint64_t *fresh,
                    uint64_t *bytes, uint64_t *total, uint64_t *largest)
{
    uint64_t leaving = 0;
    *fresh = *largest = *total = 0;
    for (size_t i = 0; i < publication->count; i++) {
        const struct item *same =
            index_find_id(&call->node->items, xy_elem_attr(publication->items[i], "id"));
        *fresh += same == NULL;
        *total += publication->bytes[i].len;
        leaving += same != NULL ? same->bytes : 0;
        *largest = publication->bytes[i].len > *largest ? publication->bytes[i].len : *largest;
    }
    *bytes = *total > leaving ? *total - leaving : 0;
}

static bool fail_full(struct call *call, const char *text)
{
    stat_add(call->shard, publishes_refused_full, 1);
    call_fail(call, XY_CONFLICT, "node-full", text);
    return true;
}

/* Items that only take the place of others, and those that nobody keeps, need no more than there is. */
static bool takes_memory(const struct node *node, uint64_t fresh)
{
    if (node->durable_count > 0)
        return true;
    return node_retains(node) && fresh > 0 && !retention_over(node, fresh, 0);
}

static bool queue_stays_full(struct call *call, uint64_t fresh, uint64_t total)
{
    if (queue_has_room(call->node->queue, fresh, total))
        return false;
    stat_add(call->shard, publishes_refused_full, 1);
    call_fail_type(call, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, NULL,
                   "the queue is full, and what could make room is with consumers or on its way to the dead "
                   "letters; try again later");
    return true;
}

bool publication_overflows(struct call *call, const struct publication *publication)
{
    const struct node *node = call->node;
    const struct node_config *config = &node->config;
    uint64_t fresh, bytes, total, largest, bytes_max = retention_bytes_max(node);
    bool reject = config->overflow == OVERFLOW_REJECT;
    measure(call, publication, &fresh, &bytes, &total, &largest);
    if (shard_memory_is_short(call->shard) && takes_memory(node, fresh)) {
        stat_add(call->shard, publishes_refused_memory, 1);
        call_fail_type(call, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, NULL,
                       "the service is short of memory for items that have to be kept; try again later");
        return true;
    }
    if (reject && backlog_full(call->node, total)) {
        stat_add(call->shard, publishes_refused_backlog, 1);
        call_fail_type(
            call, XY_RESOURCE_CONSTRAINT, XY_ERROR_WAIT, NULL,
            "a subscriber of this node is owed as much as it may be; try again when it has caught up");
        return true;
    }
    if (!node_retains(node))
        return false;
    if (largest > bytes_max) {
        call_fail(call, XY_NOT_ACCEPTABLE, "payload-too-big",
                  "the item alone is larger than all this node may hold (max_bytes)");
        return true;
    }
    if (node->queue != NULL && !reject)
        return queue_stays_full(call, fresh, total);
    if ((reject || config->node_full == FULL_REJECT) && fresh > 0 &&
        node->items.retained_count + fresh > retention_items_max(node))
        return fail_full(call, "the node holds as many items as it may; retract some first");
    if (reject && bytes > 0 && bytes_max != OPTION_COUNT_MAX &&
        node->items.retained_bytes + bytes > bytes_max)
        return fail_full(call,
                         "the node holds as many bytes as it may (max_bytes); retract some items first");
    return false;
}

/* --- the request ---------------------------------------------------------------------- */

static bool read_publish_id(struct call *call, struct publication *publication)
{
    publication->publish_id = xy_elem_attr_ns(call->action, "publish-id", NS_XYLEM_DELIVERY);
    if (publication->publish_id.len == 0)
        return true;
    if (publication->publish_id.len > PUBLISH_ID_MAX) {
        call_fail(call, XY_NOT_ACCEPTABLE, NULL, "a publish-id may have 1023 bytes at most");
        return false;
    }
    publication->dedup = store_dedup_parse(publication->publish_id);
    return true;
}

static size_t payload_bytes(struct call *call, const struct xy_elem *item)
{
    struct xy_buf *out = &call->pubsub->scratch;
    const struct xy_elem *payload = xy_elem_first(item);
    xy_buf_reset(out);
    if (payload != NULL)
        xy_xml_write(out, payload, XY_STR(NS_PUBSUB_EVENT));
    return out->len;
}

/* Measured only where the stanza as a whole does not prove it: most are far below. */
static bool payloads_fit(struct call *call, const struct publication *publication)
{
    uint64_t most = call->shard->config->limits.payload_size;
    if (call->node->config.max_payload_bytes < most)
        most = call->node->config.max_payload_bytes;
    if ((*call->request)->stanza.bytes > 0 && (*call->request)->stanza.bytes <= most)
        return true;
    for (size_t i = 0; i < publication->count; i++) {
        if (payload_bytes(call, publication->items[i]) <= most)
            continue;
        call_fail(call, XY_NOT_ACCEPTABLE, "payload-too-big", "the payload is larger than this node takes");
        return false;
    }
    return true;
}

bool publication_check(struct call *call, struct publication *publication)
{
    struct xy_form options;
    if (!read_publish_options(call, &options))
        return false;
    bool exists = call->node != NULL;
    if (!exists && !create_on_publish(call, &options))
        return false;
    if (exists && !may_publish(call)) {
        call_fail(call, XY_FORBIDDEN, NULL, "you may not publish to this node");
        return false;
    }
    return (!exists || preconditions_met(call, &options)) && collect_items(call, publication) &&
           payloads_fit(call, publication) && publication_traits(call, publication) &&
           read_publish_id(call, publication);
}
