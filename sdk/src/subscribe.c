/* Subscriptions and their items: subscribing in each new session, recognising what came twice, and acknowledging to the
 * broker only what the application has handled.
 *
 * A durable item carries (epoch, seq) (docs/protocol.md, delivery). Its position remembers up to which seq everything was
 * handled, and which items the application still has. So one that comes again is one of three: handled (dropped), still
 * with the application (its acknowledgement now also covers the new copy), or new. At the end of each turn what was
 * handled goes to disk first, and only then counts for XEP-0198's h. */
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

/* --- messages --- */

static void msg_free(struct xylem_msg *msg)
{
    xy_list_remove(&msg->link);
    if (msg->counted)
        msg->client->inflight--;
    free(msg);
}

/* The hold is given back once positions are on disk: see xy_subs_flush. Room for it was made when it was taken. */
static void release_later(struct xylem_client *c, struct xy_hold *hold)
{
    xy_assert(c->releases_count < c->releases_cap);
    c->releases[c->releases_count++] = hold;
}

static bool reserve_release(struct xylem_client *c)
{
    size_t wanted = c->releases_count + c->holds + 1;
    if (wanted <= c->releases_cap)
        return true;
    size_t cap = c->releases_cap ? c->releases_cap * 2 : 64;
    struct xy_hold **grown = realloc(c->releases, cap * sizeof(struct xy_hold *));
    if (!grown)
        return false;
    c->releases = grown;
    c->releases_cap = cap;
    return true;
}

static void msg_done(struct xylem_client *c, struct xylem_msg *msg)
{
    c->holds--;
    release_later(c, msg->hold);
    msg_free(msg);
}

/* Everything at the front that was acknowledged is handled. */
static void advance(struct xylem_client *c, struct xy_position *position)
{
    while (!xy_list_empty(&position->pending)) {
        struct xylem_msg *msg = xy_container_of(position->pending.next, struct xylem_msg, link);
        if (!msg->acked)
            break;
        xy_assert(msg->seq > position->handled);
        position->handled = msg->seq;
        xy_position_moved(c->positions, position);
        msg_done(c, msg);
    }
}

static void acknowledge(struct xylem_client *c, struct xylem_msg *msg)
{
    xy_assert(!msg->acked);
    msg->acked = true;
    if (msg->counted) {
        msg->counted = false;
        c->inflight--;
    }
    if (msg->position)
        advance(c, msg->position);
    else
        msg_done(c, msg);
}

enum xylem_status xylem_ack(struct xylem_msg **msg)
{
    struct xylem_msg *m = *msg;
    *msg = NULL;
    if (!m || m->acked)
        return XYLEM_INVALID;
    struct xylem_client *c = m->client;
    acknowledge(c, m);
    xy_client_wake(c);
    return XYLEM_OK;
}

void xy_subs_flush(struct xylem_client *c)
{
    if (c->releases_count == 0)
        return;
    if (!xy_positions_sync(c->positions)) {
        xy_client_error(c, "state_dir %s cannot be written: nothing more is acknowledged",
                        c->config.o.state_dir);
        for (size_t i = 0; i < c->releases_count; i++)
            c->releases[i]->generation = 0; /* never counts */
        size_t count = c->releases_count;
        c->releases_count = 0;
        for (size_t i = 0; i < count; i++)
            xy_hold_unref(c, c->releases[i]);
        if (c->state != XYLEM_STATE_STOPPED)
            xy_client_give_up(c, XYLEM_STORAGE);
        return;
    }
    for (size_t i = 0; i < c->releases_count; i++)
        xy_hold_unref(c, c->releases[i]);
    c->releases_count = 0;
}

bool xy_subs_full(const struct xylem_client *c)
{
    return c->inflight >= c->config.o.max_inflight;
}

static void show(struct xylem_client *c, struct xylem_msg *msg)
{
    struct xylem_sub *sub = msg->sub;
    c->stats.received++;
    if (sub->manual_ack) {
        msg->counted = true;
        c->inflight++;
        sub->on_message(sub, msg, sub->ctx);
        return;
    }
    sub->on_message(sub, msg, sub->ctx);
    acknowledge(c, msg);
}

/* --- events --- */

struct stamp { /* <delivery xmlns='urn:xylem:delivery:0'/> */
    bool present;
    struct xy_str epoch, subid;
    uint64_t seq;
    uint32_t attempt;
};

static struct stamp read_stamp(const struct xy_stanza *stanza)
{
    struct stamp stamp = { .attempt = 1 };
    const struct xy_elem *e = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    if (!e)
        return stamp;
    stamp.epoch = xy_elem_attr(e, "epoch");
    stamp.subid = xy_elem_attr(e, "subid");
    xy_str_u32(xy_elem_attr(e, "attempt"), &stamp.attempt);
    stamp.present = xy_str_u64(xy_elem_attr(e, "seq"), &stamp.seq) && stamp.seq > 0 && stamp.epoch.len > 0 &&
                    stamp.epoch.len <= XY_POSITION_EPOCH_MAX;
    return stamp;
}

static struct xylem_sub *find_sub(struct xylem_client *c, struct xy_str node, bool durable)
{
    struct xylem_sub *other = NULL;
    xy_list_each (entry, &c->subs) {
        struct xylem_sub *sub = xy_container_of(entry, struct xylem_sub, link);
        if (!xy_str_is(node, sub->node))
            continue;
        if (sub->durable == durable)
            return sub;
        other = sub;
    }
    return durable ? NULL : other;
}

static struct xy_position *position_of(struct xylem_client *c, struct xy_str node, struct xy_str subid)
{
    struct xy_buf key = { 0 };
    xy_buf_printf(&key, "%s\n%.*s\n%.*s\n%.*s", c->service, XY_ARG(xy_jid_full(c->full)), XY_ARG(node),
                  XY_ARG(subid));
    struct xy_position *position =
        xy_buf_failed(&key) ? NULL : xy_position_get(c->positions, xy_buf_view(&key));
    xy_buf_free(&key);
    return position;
}

/* The node was made anew, or the store restored: its numbers start over. What the application still has of the old one
 * is acknowledged without a position. */
static void begin_epoch(struct xylem_client *c, struct xy_position *position, struct xy_str epoch)
{
    if (xy_str_is(epoch, position->epoch))
        return;
    xy_list_each (entry, &position->pending) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        xy_list_remove(entry);
        msg->position = NULL;
        xy_list_append(&c->loose, entry);
        if (msg->acked)
            msg_done(c, msg);
    }
    memcpy(position->epoch, epoch.data, epoch.len);
    position->epoch[epoch.len] = '\0';
    position->handled = 0;
}

/* true: it came before, and the new copy is taken care of. */
static bool is_duplicate(struct xylem_client *c, struct xy_position *position, uint64_t seq,
                         struct xy_hold *hold)
{
    if (seq <= position->handled) {
        c->stats.duplicates++;
        return true;
    }
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left its list */
    xy_list_each (entry, &position->pending) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        if (msg->seq != seq)
            continue;
        /* The old copy's session is over, so its number is void: from now on the message speaks for this one. The old
         * stanza stays for the view; both go when the application is done. */
        c->stats.duplicates++;
        if (msg->hold->generation != hold->generation) {
            msg->hold->number = hold->number;
            msg->hold->generation = hold->generation;
            hold->generation = 0;
        }
        return true;
    }
    return false;
}

static struct xylem_msg *make_msg(struct xylem_client *c, struct xylem_sub *sub, struct xy_hold *hold)
{
    struct xylem_msg *msg = reserve_release(c) ? calloc(1, sizeof *msg) : NULL;
    if (!msg)
        return NULL;
    *msg = (struct xylem_msg){ .client = c, .sub = sub, .hold = hold, .attempt = 1 };
    hold->refs++;
    c->holds++;
    xy_list_append(&c->loose, &msg->link);
    return msg;
}

static void place(struct xylem_msg *msg, struct xy_position *position, const struct stamp *stamp)
{
    msg->position = position;
    msg->seq = stamp->seq;
    msg->attempt = stamp->attempt;
    struct xy_list *before = &position->pending;
    while (before->prev != &position->pending &&
           xy_container_of(before->prev, struct xylem_msg, link)->seq > stamp->seq)
        before = before->prev;
    xy_list_remove(&msg->link);
    xy_list_append(before, &msg->link);
}

static void no_memory(struct xylem_client *c)
{
    /* Not counted as handled, and the stream ends: the broker gives it again. */
    xy_client_error(c, "out of memory");
    xy_client_give_up(c, XYLEM_NO_MEMORY);
}

static void durable_event(struct xylem_client *c, struct xylem_sub *sub, struct xy_hold *hold,
                          struct xy_str node, const struct stamp *stamp, struct xy_elem *item,
                          enum xylem_event kind)
{
    struct xy_position *position = position_of(c, node, stamp->subid);
    if (!position) {
        hold->generation = 0;
        no_memory(c);
        return;
    }
    begin_epoch(c, position, stamp->epoch);
    if (is_duplicate(c, position, stamp->seq, hold) || sub->cancelled)
        return;
    struct xylem_msg *msg = make_msg(c, sub, hold);
    if (!msg) {
        hold->generation = 0;
        no_memory(c);
        return;
    }
    msg->elem = item;
    msg->event = kind;
    place(msg, position, stamp);
    show(c, msg);
}

static void unclaimed(struct xylem_client *c, struct xy_hold *hold, struct xy_str node)
{
    hold->generation = 0; /* not handled: it stays at the broker */
    xy_client_error(
        c,
        "the broker keeps items of node '%.*s' for %s, and this client does not subscribe to it durably: "
        "subscribe to it as well, end that subscription, or use another resource",
        XY_ARG(node), xylem_client_jid(c));
    xy_client_give_up(c, XYLEM_UNCLAIMED);
}

static void one_change(struct xylem_client *c, struct xy_hold *hold, struct xy_str node, struct xy_elem *elem,
                       enum xylem_event kind)
{
    struct stamp stamp = read_stamp(&hold->stanza);
    struct xylem_sub *sub = find_sub(c, node, stamp.present);
    if (stamp.present && !sub) {
        unclaimed(c, hold, node);
    } else if (stamp.present) {
        durable_event(c, sub, hold, node, &stamp, elem, kind);
    } else if (sub && !sub->cancelled) {
        struct xylem_msg *msg = make_msg(c, sub, hold);
        if (!msg)
            return; /* at most once: as if it had never come */
        msg->elem = elem;
        msg->event = kind;
        show(c, msg);
    }
}

bool xy_subs_event(struct xylem_client *c, struct xy_hold *hold, const struct xy_elem *event)
{
    static const struct {
        const char *name;
        enum xylem_event kind;
    } whole[] = { { "purge", XYLEM_EVENT_PURGE }, { "delete", XYLEM_EVENT_DELETE } };
    struct xy_elem *first = xy_elem_first(event);
    if (!first)
        return false;
    struct xy_str node = xy_elem_attr(first, "node");
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        if (xy_elem_is(first, whole[i].name, NS_PUBSUB_EVENT)) {
            one_change(c, hold, node, first, whole[i].kind);
            return true;
        }
    }
    if (!xy_elem_is(first, "items", NS_PUBSUB_EVENT))
        return false; /* configuration, subscription, collection: for the application's stanza handler */
    /* The broker sends one item per event; other services may send several, without delivery stamps. */
    for (struct xy_elem *e = xy_elem_first(first); e && c->link && !c->doomed; e = xy_elem_next(e))
        one_change(c, hold, node, e,
                   xy_elem_is(e, "retract", NS_PUBSUB_EVENT) ? XYLEM_EVENT_RETRACT : XYLEM_EVENT_ITEM);
    return true;
}

/* --- subscribing --- */

static void sub_free(struct xylem_sub *sub)
{
    xy_list_remove(&sub->link);
    free(sub->node);
    free(sub->start);
    free(sub);
}

static void free_messages(struct xylem_client *c, struct xy_list *list)
{
    xy_list_each (entry, list) {
        struct xylem_msg *msg = xy_container_of(entry, struct xylem_msg, link);
        struct xy_hold *hold = msg->hold;
        msg_free(msg);
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
    xy_positions_close(&c->positions);
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
    if (sub->on_subscribed && !sub->cancelled)
        sub->on_subscribed(c, &result, sub->ctx);
}

static void write_field(struct xy_buf *out, const char *var, const char *value)
{
    xy_buf_lit(out, "<field");
    xy_xml_attr(out, "var", xy_str(var));
    xy_buf_lit(out, "><value>");
    xy_xml_escape(out, xy_str(value));
    xy_buf_lit(out, "</value></field>");
}

/* Subscription and options in one request (XEP-0060 6.3.7); asking again for one that exists changes nothing. */
static void write_subscribe(struct xy_buf *out, const struct xylem_sub *sub, struct xy_str jid)
{
    xy_buf_lit(out, "<pubsub xmlns='" NS_PUBSUB "'><subscribe");
    xy_xml_attr(out, "node", xy_str(sub->node));
    xy_xml_attr(out, "jid", jid);
    xy_buf_lit(out, "/>");
    if (sub->durable) {
        xy_buf_lit(out,
                   "<options><x xmlns='" NS_DATA_FORM "' type='submit'><field var='FORM_TYPE' type='hidden'>"
                   "<value>" NS_PUBSUB_SUBSCRIBE_OPTIONS "</value></field>");
        write_field(out, "{" NS_XYLEM_DELIVERY "}mode", "at-least-once");
        if (sub->start)
            write_field(out, "{" NS_XYLEM_DELIVERY "}start", sub->start);
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
    struct xylem_sub *sub = calloc(1, sizeof *sub);
    if (!sub)
        return XYLEM_NO_MEMORY;
    *sub = (struct xylem_sub){
        .client = c,
        .node = strdup(node),
        .start = o.start ? strdup(o.start) : NULL,
        .durable = o.durable,
        .manual_ack = o.manual_ack,
        .on_message = o.on_message,
        .on_subscribed = o.on_subscribed,
        .ctx = o.ctx,
    };
    xy_list_append(&c->subs, &sub->link);
    if (!sub->node || (o.start && !sub->start)) {
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
