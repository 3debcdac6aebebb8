/* Retrieving items: all, the newest, by id, or by pages (XEP-0059). XEP-0060 6.5; called through the table of pubsub.c.
 * Items come oldest first. An answer is bounded; what did not fit is said by result set management. */
#include "broker/pubsub/call.h"
#include "broker/pubsub/node/expiry.h"

#include "core/base/assert.h"
#include "core/xml/parser.h"

#define ANSWER_ITEMS_MAX 10000u
#define ANSWER_BYTES_MAX (1u << 20) /* well below an outbox (limits.outbox) */

/* --- stored bytes back to a tree --------------------------------------------------------------------------------- */

/* Stored items are written in the namespace of events; here they appear in that of answers. */
struct xy_elem *item_parse(struct pubsub *pubsub, struct xy_arena *arena, struct xy_str bytes)
{
    struct xy_xml_parser *parser = pubsub->parser;
    struct xy_xml_event event;
    struct xy_elem *item = NULL;
    struct xy_buf document = { 0 };
    xy_buf_lit(&document, "<s xmlns='" NS_PUBSUB_EVENT "'>");
    xy_buf_str(&document, bytes);
    xy_xml_restart(parser, false);
    for (size_t at = 0; item == NULL && at < document.len && !xy_buf_failed(&document);) {
        size_t len = document.len - at < 32768 ? document.len - at : 32768;
        xy_xml_feed(parser, document.data + at, len);
        at += len;
        do {
            xy_xml_next(parser, &event);
            if (event.kind == XY_XML_ELEMENT)
                item = xy_elem_copy(arena, event.elem);
            if (event.arena != NULL)
                xy_arena_pool_give(pubsub->shard->arenas, &event.arena);
        } while (event.kind != XY_XML_MORE && event.kind != XY_XML_ERROR && event.kind != XY_XML_CLOSE);
        if (event.kind == XY_XML_ERROR)
            break;
    }
    xy_buf_free(&document);
    if (item != NULL)
        item->ns = XY_STR(NS_PUBSUB);
    return item;
}

static bool add_item(struct call *call, struct xy_elem *items, const struct item *entry)
{
    struct xy_str bytes;
    xy_arena_reset(call->pubsub->arena);
    if (node_read_item(call->node, entry->seq, call->pubsub->arena, &bytes) != ITEM_READ)
        return false;
    struct xy_elem *item = item_parse(call->pubsub, call->arena, bytes);
    if (item != NULL)
        xy_elem_append(items, item);
    return item != NULL;
}

/* --- which items ----------------------------------------------------------------------------------------------------- */

struct selection {
    const struct item **entries;
    size_t count;
    bool rsm;           /* asked for */
    bool cut;           /* more than fits: say so */
    size_t first_index; /* of the first entry among all */
    size_t total;
};

/* All retained ones, oldest first, in the call's arena. */
static const struct item **all_items(struct call *call, size_t *count)
{
    const struct item_index *index = &call->node->items;
    const struct item **all = xy_arena_alloc(call->arena, (index->retained_count + 1) * sizeof(*all));
    uint64_t now_us = xy_wall_us(call->shard->env);
    *count = 0;
    for (const struct xy_list *link = index->retained.next; all != NULL && link != &index->retained;
         link = link->next) {
        all[*count] = xy_container_of(link, const struct item, retained_link);
        *count += !expiry_over(call->node, all[*count], now_us);
    }
    return all;
}

static bool find(const struct item **all, size_t count, struct xy_str id, size_t *at)
{
    for (size_t i = 0; i < count; i++) {
        if (xy_str_eq(item_id(all[i]), id)) {
            *at = i;
            return true;
        }
    }
    return false;
}

static bool fail_bad(struct call *call, const char *text)
{
    call_fail(call, XY_BAD_REQUEST, NULL, text);
    return false;
}

static bool read_max(struct call *call, const struct xy_elem *set, uint64_t *max)
{
    struct xy_str text = xy_elem_child_text(set, "max", call->arena);
    *max = ANSWER_ITEMS_MAX;
    return !xy_str_present(text) || xy_str_u64(xy_str_trim(text), max) ||
           fail_bad(call, "<max/> is a number");
}

static bool fail_after(struct call *call)
{
    call_fail(call, XY_ITEM_NOT_FOUND, NULL, "the item named by <after/> is not here");
    return false;
}

/* Pages forward of what does not expire: whoever reads a long queue to its end looks at each item once. */
static bool is_forward(const struct call *call, const struct xy_elem *set)
{
    return call->node->config.item_expire_s == OPTION_COUNT_MAX &&
           xy_elem_child(set, "before", NS_RSM) == NULL;
}

static bool select_forward(struct call *call, const struct xy_elem *set, struct selection *selection)
{
    const struct item_index *index = &call->node->items;
    const struct xy_elem *after = xy_elem_child(set, "after", NS_RSM);
    const struct item *item = index_oldest(index);
    uint64_t max;
    if (!read_max(call, set, &max))
        return false;
    if (after != NULL && (item = index_find_id(index, xy_elem_text(after, call->arena))) == NULL)
        return fail_after(call);
    if (after != NULL)
        item = index_next_retained(index, item);
    selection->rsm = true;
    selection->total = index->retained_count;
    selection->first_index = item != NULL ? index_rank(index, item) : 0;
    max = max < ANSWER_ITEMS_MAX ? max : ANSWER_ITEMS_MAX;
    selection->entries = xy_arena_alloc(call->arena, (size_t)(max + 1) * sizeof(*selection->entries));
    for (; selection->entries != NULL && item != NULL && selection->count < max;
         item = index_next_retained(index, item))
        selection->entries[selection->count++] = item;
    return true;
}

/* XEP-0059: max, after, before. An id that is not here is item-not-found, whatever it looks like. */
static bool select_page(struct call *call, const struct xy_elem *set, struct selection *selection)
{
    size_t from = 0, to = selection->count, at;
    uint64_t max;
    const struct xy_elem *after = xy_elem_child(set, "after", NS_RSM),
                         *before = xy_elem_child(set, "before", NS_RSM);
    if (!read_max(call, set, &max))
        return false;
    if (after != NULL) {
        if (!find(selection->entries, selection->count, xy_elem_text(after, call->arena), &at))
            return fail_after(call);
        from = at + 1;
    }
    struct xy_str before_id = before != NULL ? xy_elem_text(before, call->arena) : XY_STR_NONE;
    if (before_id.len > 0) {
        if (!find(selection->entries, selection->count, before_id, &at)) {
            call_fail(call, XY_ITEM_NOT_FOUND, NULL, "the item named by <before/> is not here");
            return false;
        }
        to = at;
    }
    if (from > to)
        from = to;
    if (to - from > max) {
        if (before != NULL)
            from = to - (size_t)max;
        else
            to = from + (size_t)max;
    }
    selection->rsm = true;
    selection->first_index = from;
    selection->entries += from;
    selection->count = to - from;
    return true;
}

static bool select_ids(struct call *call, struct selection *selection)
{
    size_t count = 0, room = 0;
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e))
        room++;
    const struct item **entries = xy_arena_alloc(call->arena, (room + 1) * sizeof(*entries));
    for (const struct xy_elem *e = xy_elem_first(call->action); entries != NULL && e != NULL;
         e = xy_elem_next(e)) {
        if (!xy_elem_is(e, "item", NS_PUBSUB))
            continue;
        const struct item *entry = index_find_id(&call->node->items, xy_elem_attr(e, "id"));
        if (entry != NULL && !expiry_over(call->node, entry, xy_wall_us(call->shard->env)))
            entries[count++] = entry;
    }
    selection->entries = entries;
    selection->count = count;
    selection->total = call->node->items.retained_count;
    return true;
}

/* Without result set management the newest are the ones that count (6.5.4, 6.5.7). */
static bool select_newest(struct call *call, struct selection *selection)
{
    uint64_t max = ANSWER_ITEMS_MAX;
    struct xy_str max_text = xy_elem_attr(call->action, "max_items");
    if (xy_str_present(max_text) && !xy_str_u64(xy_str_trim(max_text), &max))
        return fail_bad(call, "max_items is a number");
    if (selection->count <= max)
        return true;
    size_t skip = selection->count - (size_t)max;
    selection->cut = !xy_str_present(max_text);
    selection->first_index = skip;
    selection->entries += skip;
    selection->count = (size_t)max;
    return true;
}

static bool select_items(struct call *call, struct selection *selection)
{
    const struct xy_elem *set = xy_elem_child(call->container, "set", NS_RSM);
    if (xy_elem_child(call->action, "item", NS_PUBSUB) != NULL)
        return select_ids(call, selection);
    if (set != NULL && is_forward(call, set))
        return select_forward(call, set, selection);
    selection->entries = all_items(call, &selection->count);
    selection->total = selection->count;
    return set != NULL ? select_page(call, set, selection) : select_newest(call, selection);
}

/* An answer of bounded size: of a page the beginning, else the end. */
static void bound(struct selection *selection)
{
    size_t bytes = 0, kept = 0;
    while (kept < selection->count) {
        const struct item *next = selection->entries[selection->rsm ? kept : selection->count - 1 - kept];
        bytes += next->bytes;
        if (bytes > ANSWER_BYTES_MAX && kept > 0)
            break;
        kept++;
    }
    size_t skip = selection->rsm ? 0 : selection->count - kept;
    selection->cut = selection->cut || kept < selection->count;
    selection->first_index += skip;
    selection->entries += skip;
    selection->count = kept;
}

/* --- the request ----------------------------------------------------------------------------------------------------- */

static bool check_subid(struct call *call)
{
    struct xy_str subid = xy_elem_attr(call->action, "subid");
    const struct subscriber *subscriber = node_subscriber(call->node, call->who);
    if (subid.len == 0 || subscriber == NULL)
        return true;
    for (const struct subscription *s = subscriber->subscriptions; s != NULL; s = s->next)
        if (xy_str_is(subid, s->subid))
            return true;
    call_fail(call, XY_NOT_ACCEPTABLE, "invalid-subid", "there is no subscription of that subid");
    return false;
}

static bool may_retrieve(struct call *call)
{
    enum affiliation affiliation = call_affiliation(call);
    if (node_may_read(call->node, affiliation) || router_is_admin(call->shard, (*call->request)->stanza.from))
        return check_subid(call);
    if (affiliation == AFFILIATION_NONE)
        call_fail(call, XY_NOT_ALLOWED, "closed-node", "this node is open to those on its whitelist only");
    else
        call_fail(call, XY_FORBIDDEN, NULL, "you may not read this node");
    return false;
}

static void add_rsm(struct call *call, struct xy_elem *pubsub, const struct selection *selection)
{
    struct xy_elem *set = xy_elem_add(call->arena, pubsub, "set", NS_RSM);
    if (selection->count > 0) {
        struct xy_elem *first = xy_elem_add(call->arena, set, "first", NS_RSM);
        xy_elem_set(call->arena, first, "index", xy_arena_printf(call->arena, "%zu", selection->first_index));
        xy_elem_add_text(call->arena, first, item_id(selection->entries[0]));
        xy_elem_add_text(call->arena, xy_elem_add(call->arena, set, "last", NS_RSM),
                         item_id(selection->entries[selection->count - 1]));
    }
    xy_elem_add_text(call->arena, xy_elem_add(call->arena, set, "count", NS_RSM),
                     xy_arena_printf(call->arena, "%zu", selection->total));
}

void items_get(struct call *call)
{
    struct selection selection = { 0 };
    if (!may_retrieve(call))
        return;
    if (!call->node->config.persist_items) {
        call_unsupported(call, "persistent-items", "this node keeps no items (pubsub#persist_items)");
        return;
    }
    if (!select_items(call, &selection))
        return;
    bound(&selection);
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *items = xy_elem_add(call->arena, pubsub, "items", NS_PUBSUB);
    xy_elem_set(call->arena, items, "node", call->name);
    for (size_t i = 0; i < selection.count; i++)
        (void)add_item(call, items,
                       selection.entries[i]); /* retracted while unread cannot be: same turn, same shard */
    if (selection.rsm || selection.cut)
        add_rsm(call, pubsub, &selection);
    if (xy_arena_failed(call->arena))
        call_no_room(call);
    else
        call_reply(call, result);
}
