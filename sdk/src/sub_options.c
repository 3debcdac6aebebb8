/* The options of a subscription as fields of its form (docs/protocol.md, 1.2 and 9.3), checked as far as this side can tell.
 * subscribe.c sends them with each subscribe. */
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include "sdk/src/position.h"

#define DELIVERY "{" NS_XYLEM_DELIVERY "}"

static void write_field(struct xy_buf *out, const char *var, const char *value)
{
    xy_buf_lit(out, "<field");
    xy_xml_attr(out, "var", xy_str(var));
    xy_buf_lit(out, "><value>");
    xy_xml_escape(out, xy_str(value));
    xy_buf_lit(out, "</value></field>");
}

static void write_text(struct xy_buf *out, const char *var, const char *value)
{
    if (value)
        write_field(out, var, value);
}

static void write_number(struct xy_buf *out, const char *var, uint64_t value)
{
    if (value == 0)
        return;
    struct xy_buf digits = { 0 };
    xy_buf_u64(&digits, value);
    xy_buf_char(&digits, '\0');
    if (xy_buf_failed(&digits))
        out->failed = true;
    else
        write_field(out, var, digits.data);
    xy_buf_free(&digits);
}

static enum xylem_status invalid(struct xylem_client *c, const char *why)
{
    xy_client_error(c, "subscribe: %s", why);
    return XYLEM_INVALID;
}

static bool is_position(const char *text)
{
    const char *space = strchr(text, ' ');
    size_t epoch_len = space ? (size_t)(space - text) : strlen(text);
    struct xy_ranges ranges = { 0 };
    bool ok = epoch_len > 0 && epoch_len <= XY_POSITION_EPOCH_MAX &&
              xy_ranges_read(&ranges, xy_str(space ? space + 1 : ""));
    xy_ranges_free(&ranges);
    return ok;
}

static enum xylem_status check(struct xylem_client *c, const struct xylem_sub_options *o)
{
    bool queue = o->queue_requests > 0;
    if ((unsigned)o->ack > XYLEM_ACK_EXPLICITLY)
        return invalid(c, "ack is none of enum xylem_ack_way");
    if (queue && (o->start || o->ack == XYLEM_ACK_BY_RECEIPT))
        return invalid(c, "a consumer of a queue has no start, and acknowledges explicitly");
    if (!queue && !o->durable && (o->ack != XYLEM_ACK_BY_STREAM || o->start || o->dead_letter || o->position))
        return invalid(c, "ack, start, dead_letter and position are for durable subscriptions");
    if (o->ack == XYLEM_ACK_BY_STREAM && !queue &&
        (o->ack_wait_s || o->max_deliver || o->backoff || o->dead_letter))
        return invalid(
            c, "ack_wait_s, max_deliver, backoff and dead_letter need receipts or explicit acknowledgement");
    if (o->position && !is_position(o->position))
        return invalid(c, "position is not what xylem_msgs_position gave");
    return XYLEM_OK;
}

static void write_durable(struct xy_buf *out, const struct xylem_client *c, const struct xylem_sub_options *o)
{
    static const char *const ways[] = { NULL, "receipt", "explicit" };
    uint64_t inflight = o->max_inflight;
    if (inflight == 0 && o->ack != XYLEM_ACK_BY_STREAM)
        inflight = c->config.o.max_inflight; /* more would wait unread, while their time runs */
    write_field(out, DELIVERY "mode", "at-least-once");
    write_text(out, DELIVERY "start", o->start);
    write_text(out, DELIVERY "ack", ways[o->ack]);
    write_number(out, DELIVERY "max_inflight", inflight);
    write_number(out, DELIVERY "ack_wait", o->ack_wait_s);
    write_number(out, DELIVERY "max_deliver", o->max_deliver);
    write_text(out, DELIVERY "backoff", o->backoff);
    write_text(out, DELIVERY "dead_letter", o->dead_letter);
    write_number(out, DELIVERY "max_backlog_bytes", o->max_backlog_bytes);
    write_number(out, DELIVERY "max_backlog_age", o->max_backlog_age_s);
}

enum xylem_status xy_sub_fields(struct xylem_client *c, const struct xylem_sub_options *o, char **out)
{
    *out = NULL;
    enum xylem_status status = check(c, o);
    if (status != XYLEM_OK)
        return status;
    struct xy_buf fields = { 0 };
    if (o->queue_requests > 0) {
        write_number(&fields, "pubsub#queue_requests", o->queue_requests);
        write_text(&fields, DELIVERY "on_unavailable", o->temporary ? "unsubscribe" : NULL);
    } else if (o->durable) {
        write_durable(&fields, c, o);
    } else {
        return XYLEM_OK;
    }
    xy_buf_char(&fields, '\0');
    *out = xy_buf_failed(&fields) ? NULL : strdup(fields.data);
    xy_buf_free(&fields);
    return *out ? XYLEM_OK : XYLEM_NO_MEMORY;
}
