/* Subscriptions: made anew in each new session, with their options, and ended. What they bring is receive.c's, and what is
 * acknowledged settle.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"
#include "sdk/src/position.h"

enum xylem_status xy_subs_init(struct xylem_client *c, char *error, size_t error_size)
{
    uint64_t seed;
    xy_random(c->env, &seed, sizeof seed);
    xy_list_init(&c->subs);
    xy_list_init(&c->loose);
    if (error && error_size)
        snprintf(error, error_size, "out of memory");
    c->positions = xy_positions_open(c->config.o.state_dir, seed, error, error_size);
    return c->positions ? XYLEM_OK : XYLEM_STORAGE;
}

/* --- subscribing --- */

static void sub_free(struct xylem_sub *sub)
{
    xy_list_remove(&sub->link);
    free(sub->node);
    free(sub->position);
    free(sub->options);
    free(sub->subid);
    free(sub);
}

static void free_messages(struct xylem_client *c, struct xy_list *list)
{
    xy_list_each (entry, list) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        struct xy_hold *hold = msg->hold;
        xy_msg_free(msg);
        xy_hold_unref(c, hold);
    }
}

void xy_subs_free(struct xylem_client *c)
{
    size_t at = 0;
    struct xy_position *position;
    if (!c->subs.next)
        return; /* never got that far */
    while (c->positions && (position = xy_position_next(c->positions, &at)))
        free_messages(c, &position->pending);
    free_messages(c, &c->loose);
    for (size_t i = 0; i < c->releases_count; i++)
        xy_hold_unref(c, c->releases[i]);
    xy_list_each (entry, &c->subs)
        sub_free(xy_container_of(entry, struct xylem_sub, link));
    free(c->releases);
    c->releases = NULL;
    xy_buf_free(&c->verdicts);
    xy_positions_close(&c->positions);
}

static void remember_subid(struct xylem_sub *sub, const struct xy_stanza *answer)
{
    const struct xy_elem *e = answer ? xy_elem_child(answer->elem, "pubsub", NS_PUBSUB) : NULL;
    e = e ? xy_elem_child(e, "subscription", NS_PUBSUB) : NULL;
    struct xy_str subid = e ? xy_elem_attr(e, "subid") : XY_STR_NONE;
    char *copy = subid.len > 0 ? strndup(subid.data, subid.len) : NULL;
    if (!copy)
        return;
    free(sub->subid);
    sub->subid = copy;
}

static void subscribed(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    struct xylem_sub *sub = owner;
    sub->waiting = false;
    if (sub->cancelled && sub->orphan) {
        sub_free(sub);
        return;
    }
    struct xylem_result result = { .status = reply->status,
                                   .text = reply->text,
                                   .condition = reply->condition };
    if (reply->status == XYLEM_DISCONNECTED)
        return; /* asked again in the next session */
    if (reply->status == XYLEM_OK)
        remember_subid(sub, reply->stanza);
    if (sub->on_subscribed && !sub->cancelled)
        sub->on_subscribed(c, &result, sub->ctx);
}

/* Subscription and options in one request (XEP-0060 6.3.7); asking again for one that exists changes nothing. */
static void write_subscribe(struct xy_buf *out, const struct xylem_sub *sub, struct xy_str jid)
{
    xy_buf_lit(out, "<pubsub xmlns='" NS_PUBSUB "'><subscribe");
    xy_xml_attr(out, "node", xy_str(sub->node));
    xy_xml_attr(out, "jid", jid);
    xy_buf_lit(out, "/>");
    if (sub->options) {
        xy_buf_lit(out,
                   "<options><x xmlns='" NS_DATA_FORM "' type='submit'><field var='FORM_TYPE' type='hidden'>"
                   "<value>" NS_PUBSUB_SUBSCRIBE_OPTIONS "</value></field>");
        xy_buf_str(out, xy_str(sub->options));
        xy_buf_lit(out, "</x></options>");
    }
    xy_buf_lit(out, "</pubsub>");
}

static void ask_subscribe(struct xylem_client *c, struct xylem_sub *sub)
{
    struct xy_buf out = { 0 };
    write_subscribe(&out, sub, xy_jid_full(c->full));
    struct xy_request_spec spec = {
        .flags = XY_REQUEST_SET | XY_REQUEST_SERVICE,
        .payload = xy_buf_view(&out),
        .on_reply = subscribed,
        .owner = sub,
        .timeout_ms = c->config.o.reply_timeout_ms,
    };
    if (!xy_buf_failed(&out) && xy_request(c, &spec) == XYLEM_OK)
        sub->waiting = true;
    xy_buf_free(&out);
}

void xy_subs_online(struct xylem_client *c)
{
    xy_list_each (entry, &c->subs) {
        struct xylem_sub *sub = xy_container_of(entry, struct xylem_sub, link);
        if (!sub->waiting && !sub->cancelled)
            ask_subscribe(c, sub);
    }
}

static bool session_stands(const struct xylem_client *c)
{
    return c->state == XYLEM_STATE_ONLINE;
}

enum xylem_status xylem_subscribe(struct xylem_client *c, const char *node,
                                  const struct xylem_sub_options *options, struct xylem_sub **out)
{
    if (out)
        *out = NULL;
    struct xylem_sub_options o = { 0 };
    memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    if (!node || !*node || !o.on_message) {
        xy_client_error(c, "subscribe: a node and on_message are needed");
        return XYLEM_INVALID;
    }
    char *fields;
    enum xylem_status status = xy_sub_fields(c, &o, &fields);
    if (status != XYLEM_OK)
        return status;
    struct xylem_sub *sub = calloc(1, sizeof *sub);
    if (!sub) {
        free(fields);
        return XYLEM_NO_MEMORY;
    }
    *sub = (struct xylem_sub){
        .client = c,
        .node = strdup(node),
        .options = fields,
        .position = o.position ? strdup(o.position) : NULL,
        .durable = o.durable || o.queue_requests > 0,
        .manual_ack = o.manual_ack,
        .ack = o.queue_requests > 0 ? XYLEM_ACK_EXPLICITLY : o.ack,
        .on_message = o.on_message,
        .on_subscribed = o.on_subscribed,
        .ctx = o.ctx,
    };
    xy_list_append(&c->subs, &sub->link);
    if (!sub->node || (o.position && !sub->position)) {
        sub_free(sub);
        return XYLEM_NO_MEMORY;
    }
    if (session_stands(c))
        ask_subscribe(c, sub);
    if (out)
        *out = sub;
    return XYLEM_OK;
}

/* --- cancelling --- */

static void forget_positions(struct xylem_client *c, const char *node)
{
    struct xy_buf part = { 0 };
    xy_buf_printf(&part, "%s\n%.*s\n%s\n", c->service, XY_ARG(xy_jid_full(c->full)), node);
    size_t at = 0;
    struct xy_position *position;
    while ((position = xy_position_next(c->positions, &at)))
        if (xy_str_starts(xy_str_n(position->key, position->key_len), xy_buf_view(&part)))
            xy_position_forget(c->positions, position);
    xy_buf_free(&part);
    if (!xy_positions_sync(c->positions))
        xy_client_error(c, "state_dir cannot be written");
}

static void unsubscribed(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    struct xylem_sub *sub = owner;
    struct xylem_result result = { .status = reply->status,
                                   .text = reply->text,
                                   .condition = reply->condition };
    xylem_done_fn *done = sub->on_cancelled;
    void *ctx = sub->cancel_ctx;
    if (reply->status == XYLEM_OK)
        forget_positions(c, sub->node);
    if (sub->waiting)
        sub->orphan = true; /* the answer to its subscribe frees it */
    else
        sub_free(sub);
    if (done)
        done(c, &result, ctx);
}

static void disown_messages(struct xylem_client *c, struct xylem_sub *sub)
{
    size_t at = 0;
    struct xy_position *position;
    xy_list_each (entry, &c->loose) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        if (msg->sub == sub)
            msg->sub = NULL;
    }
    while ((position = xy_position_next(c->positions, &at))) {
        xy_list_each (held, &position->pending) {
            struct xylem_msg *msg = xy_container_of(held, struct xylem_msg, link);
            if (msg->sub == sub)
                msg->sub = NULL;
        }
    }
}

enum xylem_status xylem_sub_cancel(struct xylem_sub **handle, bool forget, xylem_done_fn *done, void *ctx)
{
    struct xylem_sub *sub = *handle;
    *handle = NULL;
    if (!sub)
        return XYLEM_OK;
    struct xylem_client *c = sub->client;
    sub->cancelled = true;
    disown_messages(c, sub);
    bool known = xy_jid_present(c->full); /* before the first login the broker has not heard of it */
    if ((sub->durable && !forget) || !known) {
        if (sub->waiting)
            sub->orphan = true;
        else
            sub_free(sub);
        return forget && !known ? XYLEM_WRONG_STATE : XYLEM_OK;
    }
    sub->on_cancelled = done;
    sub->cancel_ctx = ctx;
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "<pubsub xmlns='" NS_PUBSUB "'><unsubscribe");
    xy_xml_attr(&out, "node", xy_str(sub->node));
    xy_xml_attr(&out, "jid", xy_jid_full(c->full));
    xy_buf_lit(&out, "/></pubsub>");
    struct xy_request_spec spec = {
        .flags = XY_REQUEST_SET | XY_REQUEST_SERVICE,
        .payload = xy_buf_view(&out),
        .on_reply = unsubscribed,
        .owner = sub,
        .timeout_ms = c->config.o.reply_timeout_ms,
    };
    enum xylem_status status = xy_buf_failed(&out) ? XYLEM_NO_MEMORY : xy_request(c, &spec);
    xy_buf_free(&out);
    return status;
}

/* --- once more --- */

enum xylem_status xylem_sub_replay(struct xylem_sub *sub, const char *start, xylem_done_fn *done, void *ctx)
{
    struct xylem_client *c = sub->client;
    if (!sub->durable || !start || !*start) {
        xy_client_error(c, "replay: a durable subscription and a start are needed");
        return XYLEM_INVALID;
    }
    if (!session_stands(c)) {
        xy_client_error(c, "replay: only while online");
        return XYLEM_WRONG_STATE;
    }
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "<replay xmlns='" NS_XYLEM_DELIVERY "'");
    xy_xml_attr(&out, "node", xy_str(sub->node));
    xy_xml_attr(&out, "subid", sub->subid ? xy_str(sub->subid) : XY_STR_NONE);
    xy_xml_attr(&out, "start", xy_str(start));
    xy_buf_lit(&out, "/>");
    struct xy_request_spec spec = {
        .flags = XY_REQUEST_SET | XY_REQUEST_SERVICE,
        .payload = xy_buf_view(&out),
        .done = done,
        .ctx = ctx,
        .timeout_ms = c->config.o.reply_timeout_ms,
    };
    enum xylem_status status = xy_buf_failed(&out) ? XYLEM_NO_MEMORY : xy_request(c, &spec);
    xy_buf_free(&out);
    if (status == XYLEM_OK)
        forget_positions(c, sub->node); /* before the first item comes, whatever the answer will be */
    return status;
}
