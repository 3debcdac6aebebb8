/* Publishing: items become XEP-0060 requests under a publish-id that stays the same however often they are sent, so that
 * the broker recognises what it has already ({urn:xylem:delivery:0}publish-id, docs/protocol.md). The queue of unanswered
 * publishes is bounded; what does not fit is refused at once, and on_room says when to go on. */
#include <stdlib.h>
#include <string.h>

#include "core/base/encoding.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include <xylem/proto.h>

#define NS_XYLEM_DATA "urn:xylem:data:0"

/* Per node, how many publishes this client has made: the N of publish-id. */
struct publish_number {
    uint64_t last;
    char node[];
};

/* What a publish in the queue costs, and whom to tell. */
struct publish {
    size_t bytes;
    xylem_done_fn *done;
    void *ctx;
};

static struct publish_number *number_of(struct xylem_client *c, const char *node)
{
    struct publish_number *number = xy_table_get(c->publish_numbers, xy_str(node));
    if (number)
        return number;
    size_t len = strlen(node);
    number = calloc(1, sizeof *number + len + 1);
    if (!number)
        return NULL;
    memcpy(number->node, node, len + 1);
    if (!xy_table_put(c->publish_numbers, xy_str_n(number->node, len), number, NULL)) {
        free(number);
        return NULL;
    }
    return number;
}

void xy_publish_free(struct xylem_client *c)
{
    if (!c->publish_numbers)
        return;
    size_t position = 0;
    struct publish_number *number;
    while ((number = xy_table_next(c->publish_numbers, &position, NULL)))
        free(number);
    xy_table_free(&c->publish_numbers);
}

bool xy_publish_idle(const struct xylem_client *c)
{
    return c->stats.queued == 0 && xy_spooling_pending(c) == 0;
}

static bool has_room(const struct xylem_client *c, size_t bytes)
{
    if (c->spooling)
        return xy_spooling_has_room(c, bytes);
    return c->stats.queued < c->config.o.queue_items_max &&
           (c->stats.queued_bytes + bytes <= c->config.o.queue_bytes_max || c->stats.queued == 0);
}

void xy_publish_tick(struct xylem_client *c)
{
    uint64_t half = (c->spooling ? c->config.o.spool_bytes_max : c->config.o.queue_bytes_max) / 2;
    if (!c->full_said || c->stats.queued > c->config.o.queue_items_max / 2 ||
        c->stats.queued_bytes + xy_spooling_bytes(c) > half)
        return;
    c->full_said = false;
    if (c->config.o.on_room)
        c->config.o.on_room(c, c->config.o.ctx);
}

/* <pubsub><publish><item id=''/></publish></pubsub> in a result: the id the service chose. */
const char *xy_publish_item_id(const struct xy_stanza *stanza)
{
    if (!stanza || stanza->type != XY_RESULT)
        return NULL;
    const struct xy_elem *e = xy_elem_child(stanza->elem, "pubsub", NS_PUBSUB);
    e = e ? xy_elem_child(e, "publish", NULL) : NULL;
    e = e ? xy_elem_child(e, "item", NULL) : NULL;
    struct xy_str id = e ? xy_elem_attr(e, "id") : XY_STR_NONE;
    return xy_str_present(id) ? xy_arena_str(stanza->arena, id).data : NULL;
}

static void answered(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    struct publish *p = owner;
    xy_assert(c->stats.queued > 0 && c->stats.queued_bytes >= p->bytes);
    c->stats.queued--;
    c->stats.queued_bytes -= p->bytes;
    if (reply->status == XYLEM_OK)
        c->stats.acknowledged++;
    else
        c->stats.refused++;
    struct xylem_result result = { .status = reply->status,
                                   .text = reply->text,
                                   .condition = reply->condition,
                                   .item_id = xy_publish_item_id(reply->stanza) };
    if (p->done)
        p->done(c, &result, p->ctx);
    free(p);
}

/* Text travels as it is; anything XML cannot carry goes in base64. */
static bool is_xml_text(struct xy_str s)
{
    if (!xy_str_utf8(s))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char byte = (unsigned char)s.data[i];
        if (byte < 0x20 && byte != '\t' && byte != '\n')
            return false; /* CR too: parsing would change it */
    }
    return true;
}

static void write_data(struct xy_buf *out, const struct xylem_item *item, struct xy_str data)
{
    bool typed = item->payload == XYLEM_TYPED;
    xy_buf_printf(out, "<%s xmlns='%s'", typed ? "typed" : "data", typed ? NS_XYLEM_TYPED : NS_XYLEM_DATA);
    xy_xml_attr(out, "type", xy_str(item->type ? item->type : "text/plain"));
    if (!typed && is_xml_text(data)) {
        xy_buf_char(out, '>');
        xy_xml_escape(out, data);
    } else {
        xy_buf_str(out, xy_str(typed ? ">" : " encoding='base64'>"));
        xy_base64_encode(out, data);
    }
    xy_buf_str(out, xy_str(typed ? "</typed>" : "</data>"));
}

static enum xylem_status write_payload(struct xy_buf *out, const struct xylem_item *item)
{
    struct xy_str data = xy_str_n(item->data ? item->data : "", item->len);
    if (item->payload == XYLEM_XML) {
        struct xy_arena *arena;
        struct xy_elem *elem = xy_fragment_parse(data, &arena);
        if (!elem)
            return XYLEM_INVALID;
        xy_xml_write(out, elem, XY_STR(NS_PUBSUB));
        xy_arena_free(&arena);
    } else if (item->data) {
        write_data(out, item, data);
    }
    return XYLEM_OK;
}

static enum xylem_status remember(struct xylem_client *c, struct xy_str record, bool retract,
                                  xylem_done_fn *done, void *ctx)
{
    struct publish *p = malloc(sizeof *p);
    if (!p)
        return XYLEM_NO_MEMORY;
    *p = (struct publish){ .bytes = record.len, .done = done, .ctx = ctx };
    struct xy_request_spec spec = {
        .flags =
            XY_REQUEST_SET | XY_REQUEST_SERVICE | XY_REQUEST_PUBLISH | (retract ? XY_REQUEST_RETRACT : 0),
        .payload = record,
        .on_reply = answered,
        .owner = p,
    };
    enum xylem_status status = xy_request(c, &spec);
    if (status == XYLEM_OK) {
        c->stats.queued++;
        c->stats.queued_bytes += p->bytes;
    } else {
        free(p);
    }
    return status;
}

static void write_headers(struct xy_buf *out, const struct xylem_item *item)
{
    if (item->headers_count == 0)
        return;
    xy_buf_lit(out, "<headers xmlns='" NS_SHIM "'>");
    for (size_t i = 0; i < item->headers_count; i++) {
        xy_buf_lit(out, "<header");
        xy_xml_attr(out, "name", xy_str(item->headers[i].name));
        xy_buf_char(out, '>');
        xy_xml_escape(out, xy_str(item->headers[i].value));
        xy_buf_lit(out, "</header>");
    }
    xy_buf_lit(out, "</headers>");
}

/* Hands the finished request over, to the spool or to the queue in memory. */
static enum xylem_status enqueue(struct xylem_client *c, struct xy_buf *out, bool retract,
                                 xylem_done_fn *done, void *ctx)
{
    enum xylem_status status = XYLEM_NO_MEMORY;
    if (!xy_buf_failed(out))
        status = c->spooling ? xy_spooling_add(c, xy_buf_view(out), done, ctx)
                             : remember(c, xy_buf_view(out), retract, done, ctx);
    if (status == XYLEM_OK)
        c->stats.published++;
    xy_buf_free(out);
    return status;
}

static enum xylem_status refuse(struct xylem_client *c, enum xylem_status status, const char *why)
{
    xy_client_error(c, "%s", why);
    return status;
}

static enum xylem_status may_publish(struct xylem_client *c, size_t bytes)
{
    if (c->stopping)
        return refuse(c, XYLEM_STOPPED, "the client is being stopped");
    if (has_room(c, bytes))
        return XYLEM_OK;
    c->full_said = true;
    return refuse(
        c, XYLEM_FULL,
        c->spooling
            ? "the spool is full: wait for on_room, or raise spool_bytes_max"
            : "the publish queue is full: wait for on_room, or raise queue_items_max or queue_bytes_max");
}

enum xylem_status xylem_publish(struct xylem_client *c, const struct xylem_item *item, xylem_done_fn *done,
                                void *ctx)
{
    if (!item->node || !*item->node || (item->payload == XYLEM_TYPED && !item->type))
        return refuse(c, XYLEM_INVALID, "publish: a node is needed, and a type for typed payloads");
    enum xylem_status status = may_publish(c, item->len);
    if (status != XYLEM_OK)
        return status;
    struct publish_number *number = number_of(c, item->node);
    if (!number)
        return XYLEM_NO_MEMORY;
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "<pubsub xmlns='" NS_PUBSUB "'><publish");
    xy_xml_attr(&out, "node", xy_str(item->node));
    xy_buf_printf(&out, " xmlns:d='" NS_XYLEM_DELIVERY "' d:publish-id='%s:%llu'><item", c->id_prefix,
                  (unsigned long long)number->last + 1);
    xy_xml_attr(&out, "id", xy_str(item->id));
    xy_buf_char(&out, '>');
    status = write_payload(&out, item);
    if (status != XYLEM_OK) {
        xy_buf_free(&out);
        return refuse(c, status, "publish: the payload is not one well-formed XML element");
    }
    write_headers(&out, item);
    xy_buf_lit(&out, "</item></publish></pubsub>");
    status = enqueue(c, &out, false, done, ctx);
    if (status == XYLEM_OK)
        number->last++;
    return status;
}

enum xylem_status xylem_retract(struct xylem_client *c, const char *node, const char *id, xylem_done_fn *done,
                                void *ctx)
{
    if (!node || !*node || !id || !*id)
        return refuse(c, XYLEM_INVALID, "retract: a node and an item id are needed");
    enum xylem_status status = may_publish(c, 0);
    if (status != XYLEM_OK)
        return status;
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "<pubsub xmlns='" NS_PUBSUB "'><retract");
    xy_xml_attr(&out, "node", xy_str(node));
    xy_buf_lit(&out, " notify='true'><item");
    xy_xml_attr(&out, "id", xy_str(id));
    xy_buf_lit(&out, "/></retract></pubsub>");
    return enqueue(c, &out, true, done, ctx);
}

enum xylem_status xylem_node_create(struct xylem_client *c, const char *node, xylem_done_fn *done, void *ctx)
{
    if (!node || !*node)
        return refuse(c, XYLEM_INVALID, "create: a node is needed");
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "<pubsub xmlns='" NS_PUBSUB "'><create");
    xy_xml_attr(&out, "node", xy_str(node));
    xy_buf_lit(&out, "/></pubsub>");
    struct xy_request_spec spec = {
        .flags = XY_REQUEST_SET | XY_REQUEST_SERVICE,
        .payload = xy_buf_view(&out),
        .done = done,
        .ctx = ctx,
        .timeout_ms = c->config.o.reply_timeout_ms,
    };
    enum xylem_status status = xy_buf_failed(&out) ? XYLEM_NO_MEMORY : xy_request(c, &spec);
    xy_buf_free(&out);
    return status;
}

enum xylem_status xylem_publish_proto(struct xylem_client *c, const char *node, const char *item_id_wanted,
                                      const ProtobufCMessage *message, xylem_done_fn *done, void *ctx)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(len ? len : 1);
    if (!packed)
        return XYLEM_NO_MEMORY;
    protobuf_c_message_pack(message, packed);
    struct xylem_item item = {
        .node = node,
        .id = item_id_wanted,
        .payload = XYLEM_TYPED,
        .type = message->descriptor->name,
        .data = packed,
        .len = len,
    };
    enum xylem_status status = xylem_publish(c, &item, done, ctx);
    free(packed);
    return status;
}
