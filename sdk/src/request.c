/* IQ requests of the client: ids, answers, timeouts, and what becomes of them when a session ends.
 *
 * A request waits until the client is online, is sent, and stays known until its answer comes. A resumed session
 * (XEP-0198) loses nothing, so nothing changes for it. In a new session publishes go back to waiting, in order, under
 * their old publish-ids; other requests end with XYLEM_DISCONNECTED, because only the caller knows whether repeating
 * them is right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

bool xy_requests_init(struct xylem_client *c)
{
    xy_list_init(&c->waiting);
    xy_list_init(&c->publishes);
    xy_list_init(&c->sent);
    xy_random_id(c->env, c->id_prefix);
    uint64_t seed;
    xy_random(c->env, &seed, sizeof seed);
    c->requests = xy_table_new(seed);
    c->publish_numbers = xy_table_new(seed);
    return c->requests && c->publish_numbers;
}

static void request_free(struct xylem_client *c, struct xy_request *r)
{
    xy_list_remove(&r->link);
    if (c->requests)
        xy_table_remove(c->requests, xy_str(r->id));
    xy_bytes_unref(&r->payload);
    free(r->to);
    free(r);
}

static void list_free(struct xylem_client *c, struct xy_list *list)
{
    if (!list->next)
        return;
    xy_list_each (entry, list) {
        struct xy_request *r = xy_container_of(entry, struct xy_request, link);
        if (r->flags & (XY_REQUEST_PUBLISH | XY_REQUEST_OWNED) && !(r->flags & XY_REQUEST_SPOOLED))
            free(r->owner);
        request_free(c, r);
    }
}

void xy_requests_free(struct xylem_client *c)
{
    list_free(c, &c->waiting);
    list_free(c, &c->publishes);
    list_free(c, &c->sent);
    xy_table_free(&c->requests);
}

static void publish_sent(struct xylem_client *c, const struct xy_request *r, int change)
{
    c->publishes_sent += r->flags & XY_REQUEST_PUBLISH ? (uint64_t)change : 0;
    c->retracts_sent += r->flags & XY_REQUEST_RETRACT ? (uint64_t)change : 0;
}

/* Takes the request out of the books, then tells whoever asked. */
static void finish(struct xylem_client *c, struct xy_request *r, bool was_sent, const struct xy_reply *reply)
{
    xy_assert(c->depth > 0);
    if (was_sent)
        publish_sent(c, r, -1);
    xy_reply_fn *on_reply = r->on_reply;
    xylem_done_fn *done = r->done;
    void *owner = r->owner, *ctx = r->ctx;
    request_free(c, r);
    if (on_reply) {
        on_reply(c, reply, owner);
    } else if (done) {
        struct xylem_stanza text = { 0 };
        if (reply->stanza)
            xy_stanza_text(c, reply->stanza, &text);
        struct xylem_result result = {
            .status = reply->status, .text = reply->text, .condition = reply->condition, .xml = text.xml
        };
        done(c, &result, ctx);
    }
}

static void finish_status(struct xylem_client *c, struct xy_request *r, bool was_sent,
                          enum xylem_status status)
{
    struct xy_reply reply = { .status = status, .text = xylem_status_text(status) };
    finish(c, r, was_sent, &reply);
}

enum xylem_status xy_request(struct xylem_client *c, const struct xy_request_spec *spec)
{
    struct xy_request *r = calloc(1, sizeof *r);
    if (!r)
        return XYLEM_NO_MEMORY;
    *r = (struct xy_request){ .flags = spec->flags,
                              .on_reply = spec->on_reply,
                              .owner = spec->owner,
                              .done = spec->done,
                              .ctx = spec->ctx };
    xy_list_init(&r->link);
    r->payload = xy_bytes_new(spec->payload);
    r->to = spec->to ? strdup(spec->to) : NULL;
    r->timeout_us = (uint64_t)spec->timeout_ms * 1000;
    r->deadline_us = r->timeout_us ? xy_client_now(c) + r->timeout_us : UINT64_MAX;
    /* The prefix is random, so that nobody can guess an id and answer in another's place. */
    snprintf(r->id, sizeof r->id, "%.16s-%llx", c->id_prefix, (unsigned long long)++c->id_next);
    if (!r->payload || (spec->to && !r->to) || !xy_table_put(c->requests, xy_str(r->id), r, NULL)) {
        request_free(c, r);
        return XYLEM_NO_MEMORY;
    }
    xy_list_append(r->flags & XY_REQUEST_PUBLISH ? &c->publishes : &c->waiting, &r->link);
    xy_client_wake(c);
    return XYLEM_OK;
}

static bool request_send(struct xylem_client *c, struct xy_request *r)
{
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<iq type='%s'", r->flags & XY_REQUEST_SET ? "set" : "get");
    xy_xml_attr(&out, "id", xy_str(r->id));
    xy_xml_attr(&out, "to", xy_str(r->flags & XY_REQUEST_SERVICE ? c->service : r->to));
    xy_buf_char(&out, '>');
    xy_buf_str(&out, xy_bytes_view(r->payload));
    xy_buf_lit(&out, "</iq>");
    struct xy_bytes *bytes = xy_buf_failed(&out) ? NULL : xy_bytes_new(xy_buf_view(&out));
    xy_buf_free(&out);
    if (!bytes || !xy_session_send(c, bytes, false))
        return false;
    xy_list_remove(&r->link);
    xy_list_append(&c->sent, &r->link);
    publish_sent(c, r, 1);
    return true;
}

/* A publish waits for the retracts before it: if they had to be sent again, they would take away its item. */
void xy_requests_pump(struct xylem_client *c)
{
    xy_list_each (entry, &c->waiting)
        if (!request_send(c, xy_container_of(entry, struct xy_request, link)))
            return;
    xy_list_each (entry, &c->publishes) {
        struct xy_request *publish = xy_container_of(entry, struct xy_request, link);
        if (c->publishes_sent >= c->config.o.publish_window ||
            (c->retracts_sent > 0 && !(publish->flags & XY_REQUEST_RETRACT)) || !request_send(c, publish))
            return;
    }
}

bool xy_request_answer(struct xylem_client *c, const struct xy_stanza *stanza)
{
    struct xy_request *r = xy_table_get(c->requests, stanza->id);
    if (!r)
        return false;
    struct xy_reply reply = { .status = XYLEM_OK, .text = "", .stanza = stanza };
    char text[XY_CLIENT_ERROR_MAX];
    if (stanza->type == XY_ERROR) {
        struct xy_error error = xy_error_read(stanza);
        struct xy_str from = xy_jid_present(stanza->from) ? xy_jid_full(stanza->from) : XY_STR("the server");
        reply.status = xy_status_of_error(&error);
        reply.condition = xy_condition_name(error.condition);
        snprintf(text, sizeof text, "%.*s says %s%s%s%s%s", XY_ARG(from), reply.condition,
                 error.app ? " / " : "", error.app ? error.app : "", error.text ? ": " : "",
                 error.text ? error.text : "");
        reply.text = text;
        xy_client_error(c, "%s", text);
    }
    unsigned retract_again = XY_REQUEST_RETRACT | XY_REQUEST_AGAIN;
    if (reply.status == XYLEM_NOT_FOUND && (r->flags & retract_again) == retract_again)
        reply =
            (struct xy_reply){ .status = XYLEM_OK, .text = "", .stanza = stanza }; /* gone the first time */
    finish(c, r, true, &reply);
    return true;
}

void xy_requests_rebind(struct xylem_client *c)
{
    struct xy_list again;
    xy_list_init(&again);
    xy_list_each (entry, &c->sent) {
        struct xy_request *r = xy_container_of(entry, struct xy_request, link);
        if (!(r->flags & XY_REQUEST_PUBLISH))
            continue;
        xy_list_remove(&r->link);
        xy_list_append(&again, &r->link);
        publish_sent(c, r, -1);
        r->flags |= XY_REQUEST_AGAIN;
    }
    while (!xy_list_empty(&again)) { /* in front of what was never sent, in the old order */
        struct xy_list *last = again.prev;
        xy_list_remove(last);
        xy_list_prepend(&c->publishes, last);
    }
    while (!xy_list_empty(&c->sent))
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left its list */
        finish_status(c, xy_container_of(c->sent.next, struct xy_request, link), true, XYLEM_DISCONNECTED);
    xy_assert(c->publishes_sent == 0 && c->retracts_sent == 0);
}

void xy_requests_fail(struct xylem_client *c, enum xylem_status why)
{
    struct xy_list *lists[] = { &c->sent, &c->waiting, &c->publishes };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        /* Only what is there now: callbacks may ask anew. */
        struct xy_list now;
        xy_list_init(&now);
        while (!xy_list_empty(lists[i])) {
            struct xy_list *first = lists[i]->next;
            xy_list_remove(first);
            xy_list_append(&now, first);
        }
        while (!xy_list_empty(&now))
            finish_status(c, xy_container_of(now.next, struct xy_request, link), i == 0, why);
    }
}

uint64_t xy_requests_deadline_us(const struct xylem_client *c)
{
    uint64_t first = UINT64_MAX;
    const struct xy_list *lists[] = { &c->sent, &c->waiting };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        xy_list_each (entry, (struct xy_list *)(uintptr_t)lists[i]) {
            struct xy_request *r = xy_container_of(entry, struct xy_request, link);
            if (r->deadline_us < first)
                first = r->deadline_us;
        }
    return first;
}

static struct xy_request *first_due(struct xy_list *list, uint64_t now)
{
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is freed has left its list */
    xy_list_each (entry, list) {
        struct xy_request *r = xy_container_of(entry, struct xy_request, link);
        if (r->deadline_us <= now)
            return r;
    }
    return NULL;
}

void xy_requests_tick(struct xylem_client *c)
{
    uint64_t now = xy_client_now(c);
    struct xy_request *r;
    /* From the front each time: the callback may have changed the list. */
    while ((r = first_due(&c->sent, now)))
        finish_status(c, r, true, XYLEM_TIMEOUT);
    while ((r = first_due(&c->waiting, now)))
        finish_status(c, r, false, XYLEM_TIMEOUT);
}
