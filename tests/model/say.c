/* The payloads of XEP-0060 requests, one function each. See say.h. */
#include "tests/model/say.h"

#include <inttypes.h>

#include "core/base/assert.h"
#include "core/base/buf.h"
#include "core/namespaces.h"
#include "tests/model/model.h"

#define FORM(type)                                                                                           \
    "<x xmlns='" NS_DATA_FORM "' type='submit'><field var='FORM_TYPE'><value>" type "</value></field>"

static void field(struct xy_buf *out, const char *name, const char *value)
{
    xy_buf_printf(out, "<field var='%s'><value>%s</value></field>", name, value);
}

static void field_number(struct xy_buf *out, const char *name, int value)
{
    xy_buf_printf(out, "<field var='%s'><value>%d</value></field>", name, value);
}

static void field_of_node(struct xy_buf *out, int which, int value)
{
    static const char *const models[] = { "publishers", "subscribers", "open" };
    static const char *const durabilities[] = { "sync", "async", "memory" };
    if (which == MODEL_FIELD_MAX && value == 0)
        field(out, "pubsub#max_items", "max");
    else if (which == MODEL_FIELD_MAX)
        field_number(out, "pubsub#max_items", value);
    else if (which == MODEL_FIELD_ACCESS)
        field(out, "pubsub#access_model", value == 1 ? "whitelist" : "open");
    else if (which == MODEL_FIELD_PUBLISH)
        field(out, "pubsub#publish_model", models[value]);
    else if (which == MODEL_FIELD_BYTES && value == 0)
        field(out, "{urn:xylem:node:0}max_bytes", "max");
    else if (which == MODEL_FIELD_BYTES)
        field_number(out, "{urn:xylem:node:0}max_bytes", value);
    else if (which == MODEL_FIELD_DURABILITY)
        field(out, "{urn:xylem:node:0}durability", durabilities[value]);
    else if (which == MODEL_FIELD_WINDOW)
        field_number(out, "{urn:xylem:node:0}dedup_window", value);
    else if (which == MODEL_FIELD_OVERFLOW)
        field(out, "{urn:xylem:node:0}overflow", value == 1 ? "reject" : "drop-oldest");
    else if (which == MODEL_FIELD_FULL)
        field(out, "pubsub#publish_node_full", value == 1 ? "reject" : "retract-oldest");
    else
        field(out, "pubsub#persist_items", value != 0 ? "1" : "0");
}

static void write_create(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<create node='n%d'/><configure>" FORM(NS_PUBSUB_NODE_CONFIG), a[1]);
    field_of_node(out, MODEL_FIELD_MAX, a[2]);
    field_of_node(out, MODEL_FIELD_ACCESS, a[3]);
    field_of_node(out, MODEL_FIELD_PUBLISH, a[4]);
    xy_buf_lit(out, "</x></configure>");
}

static void write_configure(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<configure node='n%d'>" FORM(NS_PUBSUB_NODE_CONFIG), a[1]);
    field_of_node(out, a[2], a[3]);
    xy_buf_lit(out, "</x></configure>");
}

static void write_delete(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<delete node='n%d'/>", a[1]);
}

static void write_purge(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<purge node='n%d'/>", a[1]);
}

static void write_publish(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<publish node='n%d' xmlns:d='" NS_XYLEM_DELIVERY "'", a[1]);
    if (a[4] == 1)
        xy_buf_printf(out, " d:publish-id='stream:%d'", a[5]);
    else if (a[4] == 2)
        xy_buf_printf(out, " d:publish-id='whole-%d'", a[5]);
    xy_buf_char(out, '>');
    for (unsigned k = 0; k <= (unsigned)a[6]; k++)
        xy_buf_printf(out, "<item id='i%u'><e xmlns='urn:e'>t%u</e></item>", model_item_id(a, k),
                      model_item_token(a, k));
    xy_buf_lit(out, "</publish>");
}

static void write_retract(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<retract node='n%d'", a[1]);
    if (a[3] < 2)
        xy_buf_printf(out, " notify='%d'", a[3]);
    xy_buf_printf(out, "><item id='i%d'/></retract>", a[2]);
}

static void write_jid(struct xy_buf *out, const struct peer *peer, bool bare)
{
    xy_buf_printf(out, " jid='a%u@" RIG_DOMAIN, peer->account);
    if (!bare)
        xy_buf_printf(out, "/r%u", peer->slot);
    xy_buf_char(out, '\'');
}

static void write_bound(struct xy_buf *out, const char *name, unsigned value)
{
    if (value == 0)
        field(out, name, "max");
    else
        field_number(out, name, (int)value);
}

static void write_subscribe(struct xy_buf *out, const struct peer *peer, const int *a)
{
    static const char *const starts[] = { "new", "all", "last" };
    xy_buf_printf(out, "<subscribe node='n%d'", a[1]);
    write_jid(out, peer, a[2] != 0);
    xy_buf_lit(out, "/><options>" FORM(NS_PUBSUB_SUBSCRIBE_OPTIONS));
    field(out, "{urn:xylem:delivery:0}mode", a[3] != 0 ? "at-least-once" : "at-most-once");
    if (a[4] == MODEL_START_SEQ)
        xy_buf_printf(out, "<field var='{urn:xylem:delivery:0}start'><value>seq:%d</value></field>", a[5]);
    else
        field(out, "{urn:xylem:delivery:0}start", starts[a[4]]);
    if (a[3] != 0) {
        write_bound(out, "{urn:xylem:delivery:0}max_backlog_bytes", a[7] == 1 ? MODEL_BACKLOG : 0);
        write_bound(out, "{urn:xylem:delivery:0}max_backlog_age", a[7] == 2 ? MODEL_BACKLOG_S : 0);
    }
    if (a[6] > 0) {
        field(out, "{urn:xylem:delivery:0}ack", "explicit");
        field(out, "{urn:xylem:delivery:0}max_inflight", a[6] == 2 ? "2" : "1000");
        field(out, "{urn:xylem:delivery:0}max_deliver", a[6] == 3 ? "2" : "max");
        field(out, "{urn:xylem:delivery:0}backoff", a[6] == 3 ? "3" : "0");
        field_number(out, "{urn:xylem:delivery:0}ack_wait", (int)MODEL_WAIT_S);
    }
    xy_buf_lit(out, "</x></options>");
}

static void write_unsubscribe(struct xy_buf *out, const struct peer *peer, const int *a)
{
    xy_buf_printf(out, "<unsubscribe node='n%d'", a[1]);
    write_jid(out, peer, a[2] != 0);
    xy_buf_lit(out, "/>");
}

static void write_affiliate(struct xy_buf *out, const struct peer *peer, const int *a)
{
    static const char *const names[] = { "none", "outcast", "member", "publish-only", "publisher", "owner" };
    (void)peer;
    xy_buf_printf(out,
                  "<affiliations node='n%d'><affiliation jid='a%d@" RIG_DOMAIN
                  "' affiliation='%s'/></affiliations>",
                  a[1], a[2], names[a[3]]);
}

static void write_items(struct xy_buf *out, const struct peer *peer, const int *a)
{
    (void)peer;
    xy_buf_printf(out, "<items node='n%d'", a[1]);
    if (a[2] > 0)
        xy_buf_printf(out, " max_items='%d'", a[2]);
    xy_buf_lit(out, "/>");
}

void say_settle(struct peer *peer, const struct op *op, uint64_t epoch, uint64_t seq, uint64_t subid)
{
    static const char *const verbs[] = { "ack", "nack", "term", "working", "ack" };
    const int *a = op->args;
    struct xy_buf out = { 0 };
    xy_buf_printf(&out,
                  "<%s xmlns='" NS_XYLEM_DELIVERY "' node='n%d' epoch='%016" PRIx64 "' seq='%" PRIu64
                  "' subid='%016" PRIx64 "'",
                  verbs[a[3]], a[1], epoch, seq, subid);
    if (a[3] == VERB_CUMULATIVE)
        xy_buf_lit(&out, " cumulative='true'");
    if (a[3] == VERB_NACK && a[5] >= 0)
        xy_buf_printf(&out, " delay='%d'", a[5]);
    xy_buf_lit(&out, "/>");
    peer_ask(peer, "set", xy_buf_view(&out));
    xy_buf_free(&out);
}

void say_request(struct peer *peer, const struct op *op)
{
    static const struct {
        void (*write)(struct xy_buf *out, const struct peer *peer, const int *a);
        bool owner, get;
    } sayings[OP_KIND_COUNT] = {
        [OP_CREATE] = { write_create, false, false },
        [OP_CONFIGURE] = { write_configure, true, false },
        [OP_DELETE] = { write_delete, true, false },
        [OP_PURGE] = { write_purge, true, false },
        [OP_PUBLISH] = { write_publish, false, false },
        [OP_RETRACT] = { write_retract, false, false },
        [OP_SUBSCRIBE] = { write_subscribe, false, false },
        [OP_UNSUBSCRIBE] = { write_unsubscribe, false, false },
        [OP_AFFILIATE] = { write_affiliate, true, false },
        [OP_ITEMS] = { write_items, false, true },
    };
    struct xy_buf out = { 0 };
    xy_assert(sayings[op->kind].write != NULL);
    xy_buf_printf(&out, "<pubsub xmlns='%s'>", sayings[op->kind].owner ? NS_PUBSUB_OWNER : NS_PUBSUB);
    sayings[op->kind].write(&out, peer, op->args);
    xy_buf_lit(&out, "</pubsub>");
    peer_ask(peer, sayings[op->kind].get ? "get" : "set", xy_buf_view(&out));
    xy_buf_free(&out);
}
