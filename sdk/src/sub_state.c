/* How a durable subscription stands at the broker, asked by its subscriber (docs/protocol.md 1.9). */
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "core/xml/writer.h"
#include "sdk/src/client.h"

struct state_call {
    xylem_sub_state_fn *fn;
    void *ctx;
};

static const char *text_of(struct xy_arena *arena, const struct xy_elem *e, const char *name)
{
    struct xy_str value = xy_elem_attr(e, name);
    const char *text = xy_str_present(value) ? xy_arena_str(arena, value).data : NULL;
    return text ? text : "";
}

static uint64_t number_of(const struct xy_elem *e, const char *name)
{
    uint64_t value = 0;
    xy_str_u64(xy_elem_attr(e, name), &value);
    return value;
}

static void read_state(struct xy_arena *arena, const struct xy_elem *node, const struct xy_elem *e,
                       struct xylem_sub_state *out)
{
    *out = (struct xylem_sub_state){
        .state = text_of(arena, e, "state"),
        .session = text_of(arena, e, "session"),
        .newest = number_of(node, "newest"),
        .acknowledged = number_of(e, "acknowledged"),
        .depth = number_of(e, "depth"),
        .bytes = number_of(e, "bytes"),
        .oldest_age_s = number_of(e, "oldest-age"),
        .in_flight = number_of(e, "in-flight"),
        .delayed = number_of(e, "delayed"),
        .parked = number_of(e, "parked"),
        .redeliveries = number_of(e, "redeliveries"),
        .dead_lettered = number_of(e, "dead-lettered"),
        .skipped = number_of(e, "skipped"),
    };
}

static void answered(struct xylem_client *c, const struct xy_reply *reply, void *owner)
{
    struct state_call *call = owner;
    struct xylem_sub_state state;
    struct xylem_result result = { .status = reply->status,
                                   .text = reply->text,
                                   .condition = reply->condition };
    const struct xy_stanza *answer = reply->status == XYLEM_OK ? reply->stanza : NULL;
    const struct xy_elem *node =
        answer ? xy_elem_child(answer->elem, "subscription-state", NS_XYLEM_DELIVERY) : NULL;
    const struct xy_elem *e = node ? xy_elem_child(node, "subscription", NS_XYLEM_DELIVERY) : NULL;
    if (answer && !e) {
        result.status = XYLEM_NOT_FOUND;
        result.text = "the broker has no such subscription";
    }
    if (e)
        read_state(answer->arena, node, e, &state);
    call->fn(c, &result, e ? &state : NULL, call->ctx);
    free(call);
}

enum xylem_status xylem_sub_ask_state(struct xylem_sub *sub, xylem_sub_state_fn *fn, void *ctx)
{
    struct xylem_client *c = sub->client;
    if (!sub->durable || !sub->subid) {
        xy_client_error(c, "state: only of a durable subscription that the broker has confirmed");
        return XYLEM_WRONG_STATE;
    }
    struct state_call *call = malloc(sizeof *call);
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "<subscription-state xmlns='" NS_XYLEM_DELIVERY "'");
    xy_xml_attr(&out, "node", xy_str(sub->node));
    xy_xml_attr(&out, "subid", xy_str(sub->subid));
    xy_buf_lit(&out, "/>");
    enum xylem_status status = XYLEM_NO_MEMORY;
    if (call && !xy_buf_failed(&out)) {
        *call = (struct state_call){ .fn = fn, .ctx = ctx };
        struct xy_request_spec spec = {
            .flags = XY_REQUEST_SERVICE | XY_REQUEST_OWNED,
            .payload = xy_buf_view(&out),
            .on_reply = answered,
            .owner = call,
            .timeout_ms = c->config.o.reply_timeout_ms,
        };
        status = xy_request(c, &spec);
    }
    if (status != XYLEM_OK)
        free(call);
    xy_buf_free(&out);
    return status;
}
