/* What subscribers see: <event/> elements serialised once, shared by all who get them. XEP-0060 7.1.2 and the
 * notifications of section 8. Called by publish, retract, manage and for redelivery. */
#include "broker/pubsub/node/node.h"

#include "core/namespaces.h"
#include "core/xml/writer.h"

static void open_items(struct node *node, struct xy_buf *out)
{
    xy_buf_lit(out, "<event xmlns='" NS_PUBSUB_EVENT "'><items");
    xy_xml_attr(out, "node", node->name);
    xy_buf_char(out, '>');
}

static void close_items(struct xy_buf *out)
{
    xy_buf_lit(out, "</items></event>");
}

static struct event *make(struct node *node, struct xy_str body, uint64_t seq)
{
    struct event *event = event_new(node->pubsub->service_escaped, body, seq, node->epoch);
    if (event != NULL)
        event->headline = node->config.notification_type != NODE_NOTIFY_NORMAL;
    return event;
}

/* What is in the buffer as an event; NULL when memory is short. */
static struct event *seal(struct node *node, struct xy_buf *body, uint64_t seq)
{
    return xy_buf_failed(body) ? NULL : make(node, xy_buf_view(body), seq);
}

static struct xy_buf *scratch(struct node *node)
{
    struct xy_buf *out = &node->pubsub->scratch;
    xy_buf_reset(out);
    return out;
}

struct event *event_for_item(struct node *node, uint64_t seq, struct xy_str item)
{
    struct xy_buf *out = scratch(node);
    open_items(node, out);
    xy_buf_str(out, item);
    close_items(out);
    return seal(node, out, seq);
}

struct event *event_for_id(struct node *node, uint64_t seq, struct xy_str id, struct xy_str publisher)
{
    struct xy_buf *out = scratch(node);
    open_items(node, out);
    if (xy_str_present(id)) {
        xy_buf_lit(out, "<item");
        xy_xml_attr(out, "id", id);
        xy_xml_attr(out, "publisher", publisher);
        xy_buf_lit(out, "/>");
    }
    close_items(out);
    return seal(node, out, seq);
}

struct event *event_for_retract(struct node *node, struct xy_str id)
{
    struct xy_buf *out = scratch(node);
    open_items(node, out);
    xy_buf_lit(out, "<retract");
    xy_xml_attr(out, "id", id);
    xy_buf_lit(out, "/>");
    close_items(out);
    return seal(node, out, 0);
}

struct event *event_for_unlock(struct node *node, struct xy_str id)
{
    struct xy_buf *out = scratch(node);
    open_items(node, out);
    xy_buf_lit(out, "<unlock xmlns='" NS_PUBSUB_QUEUEING "'");
    xy_xml_attr(out, "id", id);
    xy_buf_lit(out, "/>");
    close_items(out);
    return seal(node, out, 0);
}

struct event *event_for_elem(struct node *node, const struct xy_elem *child)
{
    struct xy_buf *out = scratch(node);
    xy_buf_lit(out, "<event xmlns='" NS_PUBSUB_EVENT "'>");
    xy_xml_write(out, child, XY_STR(NS_PUBSUB_EVENT));
    xy_buf_lit(out, "</event>");
    return seal(node, out, 0);
}

struct event *event_for_gap(struct node *node, struct xy_str subid, uint64_t first, uint64_t last,
                            const char *reason)
{
    struct xy_buf *out = scratch(node);
    xy_buf_lit(out, "<gap xmlns='" NS_XYLEM_DELIVERY "'");
    xy_xml_attr(out, "node", node->name);
    xy_xml_attr(out, "subid", subid);
    xy_buf_printf(out, " epoch='%016llx' first='%llu' last='%llu'", (unsigned long long)node->epoch,
                  (unsigned long long)first, (unsigned long long)last);
    xy_xml_attr(out, "reason", xy_str(reason));
    xy_buf_lit(out, "/>");
    return seal(node, out, last);
}

static enum item_read read_entry(struct node *node, const struct item *item, struct event **out)
{
    struct xy_str stored;
    xy_arena_reset(node->pubsub->arena);
    enum item_read verdict = node_read_item(node, item->seq, node->pubsub->arena, &stored);
    if (verdict == ITEM_READ)
        *out = event_for_item(node, item->seq, stored);
    return verdict;
}

enum item_read event_of_entry(struct node *node, struct item *item, bool delay, struct event **out)
{
    enum item_read verdict = ITEM_READ;
    *out = NULL;
    if (item->event != NULL && !delay)
        *out = event_ref(item->event);
    else if (item->event != NULL)
        *out = make(node, event_body(item->event), item->seq);
    else if (!node->config.deliver_payloads)
        *out = event_for_id(node, item->seq, item_id(item), item_publisher(item));
    else
        verdict = read_entry(node, item, out);
    if (verdict == ITEM_READ && *out == NULL)
        return ITEM_READ_NO_MEMORY;
    if (*out != NULL && delay)
        (*out)->delay_us = item->time_us;
    return verdict;
}
