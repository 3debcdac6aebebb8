/* What one row of each table must look like, as a table of these. A row that keeps a record is applied again: its own key
 * must come out, and what it brings to other tables must be there. Numbers must belong to nodes, subscriptions and
 * accounts that exist. Called by check.c for every row. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/store/bigendian.h"
#include "broker/store/check_internal.h"
#include "broker/store/record.h"
#include "broker/store/seal.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"
#include "core/namespaces.h"
#include "xylem/store/v1/records.pb-c.h"

enum { NODE_BYTES = 8, NUMBER_BYTES = 4, SUBSCRIPTION_BYTES = NODE_BYTES + NUMBER_BYTES };

typedef unsigned long long ull;

/* --- looking into other tables ------------------------------------------------------------------------------------ */

static bool look(struct checker *c, enum store_table table, struct xy_str key, struct xy_str *value)
{
    xy_arena_reset(c->looked);
    return store_get(c->shard, table, key, c->looked, value);
}

static bool look_u64(struct checker *c, enum store_table table, struct xy_str key, uint64_t *number)
{
    struct xy_str value;
    if (!look(c, table, key, &value) || value.len != 8)
        return false;
    *number = be64_get(value.data);
    return true;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left, right;
    memcpy(&left, a, sizeof(left));
    memcpy(&right, b, sizeof(right));
    return (left > right) - (left < right);
}

/* Keys that begin with a node's number; rows of one node lie together, so it is looked up once. */
static bool node_known(struct checker *c, struct xy_str key)
{
    xy_assert(key.len >= NODE_BYTES);
    uint64_t node = be64_get(key.data);
    if (c->node == node)
        return c->node_known;
    c->node = node;
    c->node_seq = 0;
    c->node_known = c->nodes.len > 0 && bsearch(&node, c->nodes.data, c->nodes.len / sizeof(node),
                                                sizeof(node), by_value) != NULL;
    (void)look_u64(c, STORE_NODE_SEQ, xy_str_n(key.data, NODE_BYTES), &c->node_seq);
    return c->node_known;
}

/* --- rows that are a record --------------------------------------------------------------------------------------- */

struct again {
    struct checker *c;
    enum store_table table;
    struct xy_str key;
    const char *what; /* what the row is, for prose */
    bool found;       /* its own key came out */
};

static void again_put(void *ctx, enum store_table table, struct xy_str key, struct xy_str head,
                      struct xy_str body, bool fresh)
{
    struct again *again = ctx;
    struct xy_str value;
    uint64_t number;
    (void)head, (void)fresh;
    if (table == again->table) {
        again->found |= xy_str_eq(key, again->key);
    } else if (table == STORE_SUBS_BY_JID) {
        if (!look(again->c, table, key, &value))
            check_problem(again->c, "%s: it is not listed under its subscriber in subs_by_jid", again->what);
        else if (!xy_str_eq(value, body))
            check_problem(again->c, "%s: subs_by_jid lists it under another node's name", again->what);
    } else if (table == STORE_NODE_SEQ || table == STORE_MAILBOX_SEQ) {
        if (!look_u64(again->c, table, key, &number) || number < be64_get(body.data))
            check_problem(again->c, "%s: its number is above the last one given out (%s)", again->what,
                          store_table_name(table));
    }
}

static void again_del(void *ctx, enum store_table table, struct xy_str key)
{
    (void)ctx, (void)table, (void)key;
}

static void again_del_range(void *ctx, enum store_table table, struct xy_str from, struct xy_str to)
{
    (void)ctx, (void)table, (void)from, (void)to;
}

static void again_head(void *ctx, enum store_table table, struct xy_str key, char head)
{
    (void)ctx, (void)table, (void)key, (void)head;
}

/* The message of a row, NULL and a problem if it is none or belongs under another key. */
static const void *record_of(struct checker *c, enum store_table table, enum store_record type,
                             struct xy_str key, struct xy_str packed, const char *what)
{
    struct again again = { .c = c, .table = table, .key = key, .what = what };
    struct apply_sink sink = { &again, again_put, again_del, again_del_range, again_head };
    xy_arena_reset(c->row);
    ProtobufCMessage *message = record_unpack(apply_descriptor(type), packed, c->row);
    if (message == NULL) {
        check_problem(c, "%s: its record cannot be read", what);
        return NULL;
    }
    apply_record(type, message, packed, &sink);
    if (again.found)
        return message;
    check_problem(c, "%s: its record belongs under another key", what);
    return NULL;
}

static bool parser_ready(struct checker *c)
{
    static const struct xy_xml_options options = { .stanza_bytes_max = STORE_RECORD_BYTES_MAX };
    static const char header[] = "<stream xmlns='" NS_CLIENT "'>";
    struct xy_xml_event event;
    if (c->parser != NULL)
        return true;
    c->parser = xy_xml_new(&options);
    if (c->parser == NULL)
        return false;
    xy_xml_feed(c->parser, header, sizeof(header) - 1);
    xy_xml_next(c->parser, &event);
    bool open = event.kind == XY_XML_OPEN;
    if (event.arena != NULL)
        xy_arena_free(&event.arena);
    if (open)
        xy_xml_next(c->parser, &event); /* everything is consumed */
    return open;
}

/* One element and nothing else. */
static void check_xml(struct checker *c, struct xy_str xml, const char *name, const char *what)
{
    struct xy_xml_event event;
    unsigned elements = 0;
    if (!parser_ready(c)) {
        check_problem(c, "%s: out of memory", what);
        return;
    }
    xy_xml_feed(c->parser, xml.data, xml.len);
    for (;;) {
        xy_xml_next(c->parser, &event);
        if (event.kind != XY_XML_ELEMENT)
            break;
        elements += xy_str_is(event.elem->name, name) ? 1 : 2;
        xy_arena_free(&event.arena);
    }
    if (event.kind != XY_XML_MORE || elements != 1) {
        check_problem(c, "%s: what it holds is not one <%s/>", what, name);
        xy_xml_free(&c->parser);
    }
}

/* --- one function per table --------------------------------------------------------------------------------------- */

static void row_node(struct checker *c, struct xy_str key, struct xy_str value)
{
    char what[512];
    (void)snprintf(what, sizeof(what), "nodes: '%.*s'", XY_ARG(key));
    const Xylem__Store__V1__NodePut *node = record_of(c, STORE_NODES, RECORD_NODE_PUT, key, value, what);
    uint64_t numbers = UINT64_MAX;
    if (node == NULL)
        return;
    (void)recovery_meta(c->store, META_NUMBERS, &numbers);
    if (node->node >= numbers)
        check_problem(c, "%s: its number %llu was not given out yet", what, (ull)node->node);
    xy_buf_add(&c->nodes, &node->node, sizeof(node->node));
}

static void row_account(struct checker *c, struct xy_str key, struct xy_str value)
{
    char what[512];
    (void)snprintf(what, sizeof(what), "accounts: '%.*s'", XY_ARG(key));
    (void)record_of(c, STORE_ACCOUNTS, RECORD_ACCOUNT_PUT, key, value, what);
}

/* The administrator of the local socket has a mailbox and no account until it is given a password. */
static bool account_known(struct checker *c, struct xy_str jid)
{
    struct xy_str value;
    return look(c, STORE_ACCOUNTS, jid, &value) || xy_str_starts(jid, XY_STR("admin@"));
}

static void row_mail(struct checker *c, struct xy_str key, struct xy_str value)
{
    char what[512];
    struct xy_str jid = xy_str_n(key.data, key.len > 9 ? key.len - 9 : 0);
    (void)snprintf(what, sizeof(what), "mailbox: message %llu of '%.*s'",
                   key.len > 9 ? (ull)be64_get(key.data + key.len - 8) : 0, XY_ARG(jid));
    const Xylem__Store__V1__MailboxAdd *mail =
        record_of(c, STORE_MAILBOX, RECORD_MAILBOX_ADD, key, value, what);
    if (mail == NULL)
        return;
    check_xml(c, xy_str_n((const char *)mail->stanza.data, mail->stanza.len), "message", what);
    if (!account_known(c, xy_str(mail->jid)))
        check_problem(c, "%s: there is no such account", what);
}

static void row_mail_seq(struct checker *c, struct xy_str key, struct xy_str value)
{
    if (value.len != 8)
        check_problem(c, "mailbox_seq: '%.*s': it is no number", XY_ARG(key));
    if (!account_known(c, key))
        check_problem(c, "mailbox_seq: '%.*s': there is no such account", XY_ARG(key));
}

static void row_node_seq(struct checker *c, struct xy_str key, struct xy_str value)
{
    if (key.len != NODE_BYTES || value.len != 8)
        check_problem(c, "node_seq: a row of %zu and %zu bytes is none", key.len, value.len);
    else if (!node_known(c, key))
        check_problem(c, "node_seq: there is no node with the number %llu", (ull)be64_get(key.data));
}

static void row_item(struct checker *c, struct xy_str key, struct xy_str value)
{
    char what[128];
    if (key.len != NODE_BYTES + 8 || value.len < 1 || (value.data[0] != 'r' && value.data[0] != 'o')) {
        check_problem(c, "items: a row of %zu and %zu bytes is none", key.len, value.len);
        return;
    }
    (void)snprintf(what, sizeof(what), "items: item %llu of node %llu", (ull)be64_get(key.data + 8),
                   (ull)be64_get(key.data));
    if (!node_known(c, key))
        check_problem(c, "%s: there is no such node", what);
    const Xylem__Store__V1__ItemPut *item =
        record_of(c, STORE_ITEMS, RECORD_ITEM_PUT, key, xy_str_n(value.data + 1, value.len - 1), what);
    if (item != NULL)
        check_xml(c, xy_str_n((const char *)item->item.data, item->item.len), "item", what);
}

static void row_subscription(struct checker *c, struct xy_str key, struct xy_str value)
{
    char what[128];
    struct xy_str stored;
    if (key.len != SUBSCRIPTION_BYTES) {
        check_problem(c, "subscriptions: a key of %zu bytes is none", key.len);
        return;
    }
    (void)snprintf(what, sizeof(what), "subscriptions: number %u of node %llu",
                   be32_get(key.data + NODE_BYTES), (ull)be64_get(key.data));
    if (!node_known(c, key))
        check_problem(c, "%s: there is no such node", what);
    const Xylem__Store__V1__SubscriptionPut *sub =
        record_of(c, STORE_SUBSCRIPTIONS, RECORD_SUBSCRIPTION_PUT, key, value, what);
    if (sub != NULL && !look(c, STORE_NODES, xy_str(sub->node_name), &stored))
        check_problem(c, "%s: there is no node of the name it has", what);
}

static bool subscription_known(struct checker *c, struct xy_str key)
{
    struct xy_str value;
    return look(c, STORE_SUBSCRIPTIONS, key, &value);
}

static void row_sub_by_jid(struct checker *c, struct xy_str key, struct xy_str value)
{
    (void)value;
    if (key.len < SUBSCRIPTION_BYTES + 1) {
        check_problem(c, "subs_by_jid: a key of %zu bytes is none", key.len);
        return;
    }
    struct xy_str numbers = xy_str_n(key.data + key.len - SUBSCRIPTION_BYTES, SUBSCRIPTION_BYTES);
    struct xy_str jid = xy_str_n(key.data, key.len - SUBSCRIPTION_BYTES - 1);
    if (!subscription_known(c, numbers))
        check_problem(c, "subs_by_jid: '%.*s' has no subscription %u to node %llu", XY_ARG(jid),
                      be32_get(numbers.data + NODE_BYTES), (ull)be64_get(numbers.data));
}

/* Rows under a subscription's key. */
static bool below_subscription(struct checker *c, const char *table, struct xy_str key)
{
    if (key.len != SUBSCRIPTION_BYTES) {
        check_problem(c, "%s: a key of %zu bytes is none", table, key.len);
        return false;
    }
    if (subscription_known(c, key))
        return true;
    check_problem(c, "%s: node %llu has no subscription with the number %u", table, (ull)be64_get(key.data),
                  be32_get(key.data + NODE_BYTES));
    return false;
}

/* A number above the last one given out would swallow items that are still to come. */
static void given_out(struct checker *c, const char *table, struct xy_str subscription, uint64_t seq)
{
    (void)node_known(c, subscription);
    if (seq > c->node_seq)
        check_problem(c, "%s: subscription %u is at item %llu of node %llu, which has had %llu", table,
                      be32_get(subscription.data + NODE_BYTES), (ull)seq, (ull)be64_get(subscription.data),
                      (ull)c->node_seq);
}

static void row_cursor(struct checker *c, struct xy_str key, struct xy_str value)
{
    bool gap = value.len == 8 + STORE_GAP_BYTES;
    if (value.len != 8 && !gap)
        check_problem(c, "cursors: a value of %zu bytes is none", value.len);
    if (!below_subscription(c, "cursors", key) || (value.len != 8 && !gap))
        return;
    given_out(c, "cursors", key, be64_get(value.data));
    if (gap && be64_get(value.data + 8) > be64_get(value.data + 16))
        check_problem(c, "cursors: node %llu, subscription %u: the gap ends before it begins",
                      (ull)be64_get(key.data), be32_get(key.data + NODE_BYTES));
    if (gap)
        given_out(c, "cursors", key, be64_get(value.data + 16));
}

static void row_claims(struct checker *c, struct xy_str key, struct xy_str value)
{
    struct store_claim claim;
    struct xy_str subscription = xy_str_n(key.data, SUBSCRIPTION_BYTES);
    if (key.len != SUBSCRIPTION_BYTES + 8 || !store_claim_value(value, &claim))
        check_problem(c, "claims: a row of %zu and %zu bytes is none", key.len, value.len);
    else if (below_subscription(c, "claims", subscription))
        given_out(c, "claims", subscription, be64_get(key.data + SUBSCRIPTION_BYTES));
}

static void row_affiliation(struct checker *c, struct xy_str key, struct xy_str value)
{
    static const char *const known[] = { "owner", "publisher", "publish-only", "member", "outcast" };
    bool valid = false;
    if (key.len <= NODE_BYTES) {
        check_problem(c, "affiliations: a key of %zu bytes is none", key.len);
        return;
    }
    struct xy_str jid = xy_str_n(key.data + NODE_BYTES, key.len - NODE_BYTES);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        valid |= xy_str_is(value, known[i]);
    if (!valid)
        check_problem(c, "affiliations: '%.*s' with node %llu: '%.*s' is none", XY_ARG(jid),
                      (ull)be64_get(key.data), XY_ARG(value));
    if (!node_known(c, key))
        check_problem(c, "affiliations: '%.*s': there is no node with the number %llu", XY_ARG(jid),
                      (ull)be64_get(key.data));
}

static void row_dedup(struct checker *c, struct xy_str key, struct xy_str value)
{
    uint64_t number, time_us;
    struct xy_str seen;
    if (key.len <= NODE_BYTES || !store_dedup_value(value, &number, &time_us, &seen))
        check_problem(c, "dedup: a row of %zu and %zu bytes is none", key.len, value.len);
    else if (!node_known(c, key))
        check_problem(c, "dedup: there is no node with the number %llu", (ull)be64_get(key.data));
}

static void row_meta(struct checker *c, struct xy_str key, struct xy_str value)
{
    if (value.len != 8)
        check_problem(c, "meta: '%.*s' is no number", XY_ARG(key));
}

/* The end of an item is on disk before that of its state, which nobody waits for: a row may be left of an item that has
 * gone, and goes when the node is loaded. */
static void row_queue(struct checker *c, struct xy_str key, struct xy_str value)
{
    uint32_t attempts;
    bool parked;
    uint64_t not_before_us;
    if (key.len != NODE_BYTES + 8 || !store_queue_value(value, &attempts, &parked, &not_before_us))
        check_problem(c, "queue: a row of %zu and %zu bytes is none", key.len, value.len);
    else if (!node_known(c, key))
        check_problem(c, "queue: there is no node with the number %llu", (ull)be64_get(key.data));
    else if (be64_get(key.data + 8) > c->node_seq)
        check_problem(c, "queue: node %llu never had an item %llu", (ull)be64_get(key.data),
                      (ull)be64_get(key.data + 8));
}

static void row_session(struct checker *c, struct xy_str key, struct xy_str value)
{
    const Xylem__Store__V1__SessionPut *session =
        record_of(c, STORE_SESSIONS, RECORD_SESSION_PUT, key, value, "sessions: one of them");
    if (session != NULL && session->presence.len > 0)
        check_xml(c, xy_str_n((const char *)session->presence.data, session->presence.len), "presence",
                  "sessions: one of them");
}

/* Rows of sessions that are gone may still be there: checkpoints take them away. */
static void row_session_in(struct checker *c, struct xy_str key, struct xy_str value)
{
    struct store_session_in in;
    bool out = key.len == STORE_SESSION_ID_BYTES + 8 &&
               be64_get(key.data + STORE_SESSION_ID_BYTES) == STORE_SESSION_OUT;
    if (out)
        (void)record_of(c, STORE_SESSION_IN, RECORD_SESSION_OUT, key, value, "session_in: what was sent");
    else if (!store_session_in(key, value, &in))
        check_problem(c, "session_in: a row of %zu and %zu bytes is none", key.len, value.len);
}

/* When to look at a node is said twice, by time and by node. */
static void row_expiry(struct checker *c, struct xy_str key, struct xy_str value)
{
    char other[2 * NODE_BYTES];
    struct xy_str found;
    if (key.len != sizeof(other)) {
        check_problem(c, "expiry: a key of %zu bytes is none", key.len);
        return;
    }
    uint64_t second = be64_get(key.data);
    bool by_node = second == UINT64_MAX;
    struct xy_str node = xy_str_n(key.data + NODE_BYTES, NODE_BYTES);
    if (!node_known(c, node))
        check_problem(c, "expiry: there is no node with the number %llu", (ull)be64_get(node.data));
    if (by_node && value.len != 8) {
        check_problem(c, "expiry: a value of %zu bytes is none", value.len);
        return;
    }
    be64_put(other, by_node ? be64_get(value.data) : UINT64_MAX);
    memcpy(other + NODE_BYTES, node.data, NODE_BYTES);
    bool there = look(c, STORE_EXPIRY, xy_str_n(other, sizeof(other)), &found);
    if (!there || (!by_node && (found.len != 8 || be64_get(found.data) != second)))
        check_problem(c, "expiry: node %llu has one of its two rows only", (ull)be64_get(node.data));
}

static void (*const row_checks[STORE_TABLE_COUNT])(struct checker *c, struct xy_str key,
                                                   struct xy_str value) = {
    [STORE_META] = row_meta,
    [STORE_ACCOUNTS] = row_account,
    [STORE_MAILBOX] = row_mail,
    [STORE_MAILBOX_SEQ] = row_mail_seq,
    [STORE_NODES] = row_node,
    [STORE_NODE_SEQ] = row_node_seq,
    [STORE_ITEMS] = row_item,
    [STORE_SUBSCRIPTIONS] = row_subscription,
    [STORE_SUBS_BY_JID] = row_sub_by_jid,
    [STORE_CURSORS] = row_cursor,
    [STORE_AFFILIATIONS] = row_affiliation,
    [STORE_DEDUP] = row_dedup,
    [STORE_SESSIONS] = row_session,
    [STORE_SESSION_IN] = row_session_in,
    [STORE_CLAIMS] = row_claims,
    [STORE_QUEUE] = row_queue,
    [STORE_EXPIRY] = row_expiry,
};

/* Its key in hexadecimal: with the row goes what it would be called. */
static void damaged_row(struct checker *c, enum store_table table, struct xy_str key)
{
    char name[2 * STORE_KEY_MAX + 1];
    xy_hex_encode(name, key.data, key.len);
    name[2 * key.len] = '\0';
    check_problem(c, "%s: row %s: its checksum does not match: the disk or memory damaged it",
                  store_table_name(table), name);
}

void check_row(struct checker *c, enum store_table table, struct xy_str key, struct xy_str value)
{
    if (seal_damaged(value))
        damaged_row(c, table, key);
    else if (row_checks[table] != NULL)
        row_checks[table](c, key, value);
}
