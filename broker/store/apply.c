/* Records to operations on tables: one short function per record type and the table that lists them. See apply.h for
 * the rules these functions keep, store.h for the keys and values. */
#include "broker/store/apply.h"

#include "broker/store/bigendian.h"
#include "broker/store/key.h"
#include "core/base/assert.h"
#include "xylem/store/v1/records.pb-c.h"

/* Each key is built in the caller's room and seen through the result. */
static struct xy_str key_of_name(struct key *key, const char *name)
{
    key->len = 0;
    key_name(key, xy_str(name), STORE_NAME_KEY_MAX);
    return key_view(key);
}

static struct xy_str key_of_node(struct key *key, uint64_t node)
{
    key->len = 0;
    key_u64(key, node);
    return key_view(key);
}

static struct xy_str key_of_item(struct key *key, uint64_t node, uint64_t seq)
{
    key_of_node(key, node);
    key_u64(key, seq);
    return key_view(key);
}

static struct xy_str key_of_subscription(struct key *key, uint64_t node, uint32_t number)
{
    key_of_node(key, node);
    key_u32(key, number);
    return key_view(key);
}

static struct xy_str key_of_mail(struct key *key, const char *jid, uint64_t seq)
{
    key_of_name(key, jid);
    key_byte(key, 0);
    key_u64(key, seq);
    return key_view(key);
}

/* Subscriptions are found by bare JID, whether the bare or a full one was subscribed. */
static struct xy_str key_of_subscriber(struct key *key, const char *jid, uint64_t node, uint32_t number)
{
    key->len = 0;
    key_name(key, xy_str_n(jid, strcspn(jid, "/")), STORE_NAME_KEY_MAX);
    key_byte(key, 0);
    key_u64(key, node);
    key_u32(key, number);
    return key_view(key);
}

static struct xy_str key_of_affiliation(struct key *key, uint64_t node, const char *jid)
{
    key_of_node(key, node);
    key_name(key, xy_str(jid), STORE_NAME_KEY_MAX);
    return key_view(key);
}

static void put(const struct apply_sink *sink, enum store_table table, struct xy_str key, struct xy_str value)
{
    sink->put(sink->ctx, table, key, XY_STR_NONE, value, false);
}

static void put_u64(const struct apply_sink *sink, enum store_table table, struct xy_str key, uint64_t value)
{
    char bytes[8];
    be64_put(bytes, value);
    put(sink, table, key, xy_str_n(bytes, sizeof(bytes)));
}

static void del(const struct apply_sink *sink, enum store_table table, struct xy_str key)
{
    sink->del(sink->ctx, table, key);
}

static void del_prefix(const struct apply_sink *sink, enum store_table table, struct xy_str prefix)
{
    struct key end;
    sink->del_range(sink->ctx, table, prefix, key_after_prefix(prefix, &end));
}

static void account_put(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    const Xylem__Store__V1__AccountPut *account = (const void *)message;
    struct key key;
    put(sink, STORE_ACCOUNTS, key_of_name(&key, account->jid), packed);
}

static void account_remove(const ProtobufCMessage *message, struct xy_str packed,
                           const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__AccountRemove *account = (const void *)message;
    struct key key;
    struct xy_str name = key_of_name(&key, account->jid);
    del(sink, STORE_ACCOUNTS, name);
    del(sink, STORE_MAILBOX_SEQ, name);
    key_byte(&key, 0);
    del_prefix(sink, STORE_MAILBOX, key_view(&key));
}

static void mailbox_add(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    const Xylem__Store__V1__MailboxAdd *mail = (const void *)message;
    struct key key;
    sink->put(sink->ctx, STORE_MAILBOX, key_of_mail(&key, mail->jid, mail->seq), XY_STR_NONE, packed, true);
    put_u64(sink, STORE_MAILBOX_SEQ, key_of_name(&key, mail->jid), mail->seq);
}

static void mailbox_remove(const ProtobufCMessage *message, struct xy_str packed,
                           const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__MailboxRemove *mail = (const void *)message;
    struct key key;
    for (size_t i = 0; i < mail->n_seq; i++)
        del(sink, STORE_MAILBOX, key_of_mail(&key, mail->jid, mail->seq[i]));
}

static void node_put(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    const Xylem__Store__V1__NodePut *node = (const void *)message;
    struct key key;
    put(sink, STORE_NODES, key_of_name(&key, node->name), packed);
}

static void node_remove(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__NodeRemove *node = (const void *)message;
    static const enum store_table ranges[] = { STORE_ITEMS,        STORE_SUBSCRIPTIONS, STORE_CURSORS,
                                               STORE_AFFILIATIONS, STORE_DEDUP,         STORE_CLAIMS,
                                               STORE_QUEUE };
    struct key key;
    del(sink, STORE_NODES, key_of_name(&key, node->name));
    del(sink, STORE_NODE_SEQ, key_of_node(&key, node->node));
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        del_prefix(sink, ranges[i], key_of_node(&key, node->node));
}

static void node_purge(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__NodePurge *node = (const void *)message;
    struct key from, to;
    key_of_node(&from, node->node);
    static const enum store_table ranges[] = { STORE_ITEMS, STORE_QUEUE };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (node->seq == UINT64_MAX)
            del_prefix(sink, ranges[i], key_view(&from));
        else
            sink->del_range(sink->ctx, ranges[i], key_view(&from),
                            key_of_item(&to, node->node, node->seq + 1));
    }
}

static void dedup_put(const Xylem__Store__V1__ItemPut *item, const struct apply_sink *sink)
{
    struct store_dedup id = store_dedup_parse(xy_str(item->publish_id));
    struct key key;
    char value[16 + STORE_DEDUP_SEEN_MAX];
    size_t seen_len =
        item->publish_seen.len < STORE_DEDUP_SEEN_MAX ? item->publish_seen.len : STORE_DEDUP_SEEN_MAX;
    if (id.number != STORE_DEDUP_WHOLE && item->publish_newest > id.number)
        id.number = item->publish_newest;
    key_of_node(&key, item->node);
    key_name(&key, xy_str(item->publisher), STORE_NAME_KEY_MAX);
    key_byte(&key, 0);
    key_name(&key, id.prefix, STORE_PUBLISH_ID_KEY_MAX);
    be64_put(value, id.number);
    be64_put(value + 8, item->time_us);
    if (seen_len > 0)
        memcpy(value + 16, item->publish_seen.data, seen_len);
    put(sink, STORE_DEDUP, key_view(&key), xy_str_n(value, 16 + seen_len));
}

static void item_put(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    const Xylem__Store__V1__ItemPut *item = (const void *)message;
    struct key key;
    sink->put(sink->ctx, STORE_ITEMS, key_of_item(&key, item->node, item->seq),
              item->retained ? XY_STR("r") : XY_STR("o"), packed, true);
    put_u64(sink, STORE_NODE_SEQ, key_of_node(&key, item->node), item->seq);
    if (item->publish_id[0] != '\0')
        dedup_put(item, sink);
    for (size_t i = 0; i < item->n_removed; i++)
        del(sink, STORE_ITEMS, key_of_item(&key, item->node, item->removed[i]));
}

static void item_remove(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__ItemRemove *item = (const void *)message;
    struct key key;
    for (size_t i = 0; i < item->n_seq; i++)
        del(sink, STORE_ITEMS, key_of_item(&key, item->node, item->seq[i]));
}

static void item_unretain(const ProtobufCMessage *message, struct xy_str packed,
                          const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__ItemUnretain *item = (const void *)message;
    struct key key;
    for (size_t i = 0; i < item->n_seq; i++)
        sink->head(sink->ctx, STORE_ITEMS, key_of_item(&key, item->node, item->seq[i]), 'o');
}

static void subscription_put(const ProtobufCMessage *message, struct xy_str packed,
                             const struct apply_sink *sink)
{
    const Xylem__Store__V1__SubscriptionPut *sub = (const void *)message;
    struct key key;
    put(sink, STORE_SUBSCRIPTIONS, key_of_subscription(&key, sub->node, sub->number), packed);
    put(sink, STORE_SUBS_BY_JID, key_of_subscriber(&key, sub->jid, sub->node, sub->number),
        xy_str(sub->node_name));
}

static void subscription_remove(const ProtobufCMessage *message, struct xy_str packed,
                                const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__SubscriptionRemove *sub = (const void *)message;
    struct key key;
    del(sink, STORE_SUBSCRIPTIONS, key_of_subscription(&key, sub->node, sub->number));
    del(sink, STORE_CURSORS, key_of_subscription(&key, sub->node, sub->number));
    del_prefix(sink, STORE_CLAIMS, key_of_subscription(&key, sub->node, sub->number));
    del(sink, STORE_SUBS_BY_JID, key_of_subscriber(&key, sub->jid, sub->node, sub->number));
}

struct position {
    uint64_t seq, gap_first, gap_last; /* gap_last 0: no gap */
    uint32_t gap_reason;
};

static void put_position(const struct apply_sink *sink, struct xy_str key, struct position position)
{
    char value[8 + STORE_GAP_BYTES];
    be64_put(value, position.seq);
    if (position.gap_last != 0) {
        be64_put(value + 8, position.gap_first);
        be64_put(value + 16, position.gap_last);
        value[24] = (char)(unsigned char)position.gap_reason;
    }
    put(sink, STORE_CURSORS, key, xy_str_n(value, position.gap_last != 0 ? sizeof(value) : 8));
}

static void cursor_move(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__CursorMove *cursor = (const void *)message;
    struct key key;
    size_t count = cursor->n_number < cursor->n_seq ? cursor->n_number : cursor->n_seq;
    bool gaps = cursor->n_gap_first >= count && cursor->n_gap_last >= count && cursor->n_gap_reason >= count;
    for (size_t i = 0; i < count; i++) {
        struct position position = { .seq = cursor->seq[i] };
        if (gaps)
            position = (struct position){ cursor->seq[i], cursor->gap_first[i], cursor->gap_last[i],
                                          cursor->gap_reason[i] };
        put_position(sink, key_of_subscription(&key, cursor->node, cursor->number[i]), position);
    }
}

static struct xy_str key_of_claim(struct key *key, uint64_t node, uint32_t number, uint64_t seq)
{
    key_of_subscription(key, node, number);
    key_u64(key, seq);
    return key_view(key);
}

static void claim_state(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__ClaimState *claim = (const void *)message;
    struct key key;
    size_t count = claim->n_seq;
    if (claim->n_attempts != count || claim->n_not_before_us != count || claim->n_parked != count)
        count = 0;
    put_position(sink, key_of_subscription(&key, claim->node, claim->number),
                 (struct position){ claim->cursor, claim->gap_first, claim->gap_last, claim->gap_reason });
    for (size_t i = 0; i < count; i++) {
        char value[STORE_CLAIM_BYTES];
        be32_put(value, claim->attempts[i]);
        be64_put(value + 4, claim->not_before_us[i]);
        value[12] = claim->parked[i] != 0;
        put(sink, STORE_CLAIMS, key_of_claim(&key, claim->node, claim->number, claim->seq[i]),
            xy_str_n(value, sizeof(value)));
    }
    for (size_t i = 0; i < claim->n_settled; i++)
        del(sink, STORE_CLAIMS, key_of_claim(&key, claim->node, claim->number, claim->settled[i]));
}

static void affiliation_put(const ProtobufCMessage *message, struct xy_str packed,
                            const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__AffiliationPut *affiliation = (const void *)message;
    struct key key;
    key_of_affiliation(&key, affiliation->node, affiliation->jid);
    if (strcmp(affiliation->affiliation, "none") == 0)
        del(sink, STORE_AFFILIATIONS, key_view(&key));
    else
        put(sink, STORE_AFFILIATIONS, key_view(&key), xy_str(affiliation->affiliation));
}

#define QUEUE_PARKED_BIT   1
#define QUEUE_TIMELESS_BIT 2

static void queue_state(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__QueueState *state = (const void *)message;
    struct key key;
    char value[13];
    bool even = state->n_attempts == state->n_seq && state->n_not_before_us == state->n_seq &&
                state->n_parked == state->n_seq &&
                (state->n_timeless == 0 || state->n_timeless == state->n_seq);
    for (size_t i = 0; even && i < state->n_seq; i++) {
        bool timeless = state->n_timeless > 0 && state->timeless[i];
        be32_put(value, state->attempts[i]);
        value[4] = (char)((state->parked[i] ? QUEUE_PARKED_BIT : 0) | (timeless ? QUEUE_TIMELESS_BIT : 0));
        be64_put(value + 5, state->not_before_us[i]);
        put(sink, STORE_QUEUE, key_of_item(&key, state->node, state->seq[i]), xy_str_n(value, sizeof(value)));
    }
    for (size_t i = 0; i < state->n_ended; i++)
        del(sink, STORE_QUEUE, key_of_item(&key, state->node, state->ended[i]));
}

bool store_queue_value(struct xy_str value, uint32_t *attempts, bool *parked, uint64_t *not_before_us)
{
    if (value.len != 13)
        return false;
    *attempts = be32_get(value.data);
    *parked = (value.data[4] & QUEUE_PARKED_BIT) != 0;
    *not_before_us = be64_get(value.data + 5);
    return true;
}

bool store_queue_timeless(struct xy_str value)
{
    return value.len == 13 && (value.data[4] & QUEUE_TIMELESS_BIT) != 0;
}

static struct xy_str key_of_session(struct key *key, ProtobufCBinaryData id)
{
    key->len = 0;
    for (size_t i = 0; i < id.len && i < STORE_SESSION_ID_BYTES; i++)
        key_byte(key, (char)id.data[i]);
    return key_view(key);
}

static void session_put(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    const Xylem__Store__V1__SessionPut *session = (const void *)message;
    struct key key;
    put(sink, STORE_SESSIONS, key_of_session(&key, session->id), packed);
}

/* Its rows in STORE_SESSION_IN, which other shards write, are swept. */
static void session_remove(const ProtobufCMessage *message, struct xy_str packed,
                           const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__SessionRemove *session = (const void *)message;
    struct key key;
    del(sink, STORE_SESSIONS, key_of_session(&key, session->id));
}

static void session_in(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__SessionIn *in = (const void *)message;
    struct key key;
    char value[16];
    key_of_session(&key, in->id);
    key_u64(&key, in->number);
    if (in->number == 0) {
        be64_put(value, in->handled);
        be64_put(value + 8, in->answered);
        put(sink, STORE_SESSION_IN, key_view(&key), xy_str_n(value, 16));
        return;
    }
    be32_put(value, in->what);
    sink->put(sink->ctx, STORE_SESSION_IN, key_view(&key), xy_str_n(value, 4),
              xy_str_n((const char *)in->answer.data, in->answer.len), false);
}

static void session_out(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    const Xylem__Store__V1__SessionOut *session = (const void *)message;
    struct key key;
    key_of_session(&key, session->id);
    key_u64(&key, STORE_SESSION_OUT);
    put(sink, STORE_SESSION_IN, key_view(&key), packed);
}

static void item_seen(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__ItemSeen *seen = (const void *)message;
    char value[16];
    be64_put(value, STORE_DEDUP_WHOLE);
    be64_put(value + 8, seen->until_us > STORE_DEDUP_KEEP_US ? seen->until_us - STORE_DEDUP_KEEP_US : 0);
    for (size_t i = 0; i < seen->n_id; i++) {
        struct key key;
        key_of_node(&key, seen->node);
        key_byte(&key, 0);
        key_name(&key, xy_str(seen->id[i]), STORE_PUBLISH_ID_KEY_MAX);
        put(sink, STORE_DEDUP, key_view(&key), xy_str_n(value, sizeof(value)));
    }
}

static struct xy_str key_of_look(struct key *key, uint64_t second, uint64_t node)
{
    key->len = 0;
    key_u64(key, second);
    key_u64(key, node);
    return key_view(key);
}

static void node_look(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink)
{
    (void)packed;
    const Xylem__Store__V1__NodeLook *look = (const void *)message;
    struct key key;
    if (look->was_s != 0)
        del(sink, STORE_EXPIRY, key_of_look(&key, look->was_s, look->node));
    if (look->due_s == 0) {
        del(sink, STORE_EXPIRY, key_of_look(&key, UINT64_MAX, look->node));
        return;
    }
    put(sink, STORE_EXPIRY, key_of_look(&key, look->due_s, look->node), xy_str(look->name));
    put_u64(sink, STORE_EXPIRY, key_of_look(&key, UINT64_MAX, look->node), look->due_s);
}

static const struct record_type {
    const ProtobufCMessageDescriptor *descriptor;
    void (*apply)(const ProtobufCMessage *message, struct xy_str packed, const struct apply_sink *sink);
} record_types[RECORD_COUNT] = {
    /* holes are numbers that nobody uses */
    [RECORD_ACCOUNT_PUT] = { &xylem__store__v1__account_put__descriptor, account_put },
    [RECORD_ACCOUNT_REMOVE] = { &xylem__store__v1__account_remove__descriptor, account_remove },
    [RECORD_MAILBOX_ADD] = { &xylem__store__v1__mailbox_add__descriptor, mailbox_add },
    [RECORD_MAILBOX_REMOVE] = { &xylem__store__v1__mailbox_remove__descriptor, mailbox_remove },
    [RECORD_NODE_PUT] = { &xylem__store__v1__node_put__descriptor, node_put },
    [RECORD_NODE_REMOVE] = { &xylem__store__v1__node_remove__descriptor, node_remove },
    [RECORD_NODE_PURGE] = { &xylem__store__v1__node_purge__descriptor, node_purge },
    [RECORD_ITEM_PUT] = { &xylem__store__v1__item_put__descriptor, item_put },
    [RECORD_ITEM_REMOVE] = { &xylem__store__v1__item_remove__descriptor, item_remove },
    [RECORD_ITEM_UNRETAIN] = { &xylem__store__v1__item_unretain__descriptor, item_unretain },
    [RECORD_SUBSCRIPTION_PUT] = { &xylem__store__v1__subscription_put__descriptor, subscription_put },
    [RECORD_SUBSCRIPTION_REMOVE] = { &xylem__store__v1__subscription_remove__descriptor,
                                     subscription_remove },
    [RECORD_CURSOR_MOVE] = { &xylem__store__v1__cursor_move__descriptor, cursor_move },
    [RECORD_CLAIM_STATE] = { &xylem__store__v1__claim_state__descriptor, claim_state },
    [RECORD_AFFILIATION_PUT] = { &xylem__store__v1__affiliation_put__descriptor, affiliation_put },
    [RECORD_QUEUE_STATE] = { &xylem__store__v1__queue_state__descriptor, queue_state },
    [RECORD_ITEM_SEEN] = { &xylem__store__v1__item_seen__descriptor, item_seen },
    [RECORD_NODE_LOOK] = { &xylem__store__v1__node_look__descriptor, node_look },
    [RECORD_SESSION_PUT] = { &xylem__store__v1__session_put__descriptor, session_put },
    [RECORD_SESSION_REMOVE] = { &xylem__store__v1__session_remove__descriptor, session_remove },
    [RECORD_SESSION_IN] = { &xylem__store__v1__session_in__descriptor, session_in },
    [RECORD_SESSION_OUT] = { &xylem__store__v1__session_out__descriptor, session_out },
};

void apply_record(enum store_record type, const ProtobufCMessage *message, struct xy_str packed,
                  const struct apply_sink *sink)
{
    xy_assert(apply_descriptor(type) != NULL);
    xy_assert(message->descriptor == record_types[type].descriptor);
    record_types[type].apply(message, packed, sink);
}

const ProtobufCMessageDescriptor *apply_descriptor(unsigned type)
{
    return type < RECORD_COUNT ? record_types[type].descriptor : NULL;
}

struct store_dedup store_dedup_parse(struct xy_str id)
{
    struct store_dedup whole = { .prefix = id, .number = STORE_DEDUP_WHOLE };
    size_t digits = 0;
    while (digits < id.len && id.data[id.len - 1 - digits] >= '0' && id.data[id.len - 1 - digits] <= '9')
        digits++;
    struct xy_str number = xy_str_n(id.data + id.len - digits, digits);
    if (digits == 0 || digits == id.len || id.data[id.len - digits - 1] != ':' || digits + 1 == id.len ||
        (digits > 1 && number.data[0] == '0'))
        return whole;
    struct store_dedup stream = { .prefix = xy_str_n(id.data, id.len - digits - 1) };
    if (!xy_str_u64(number, &stream.number) || stream.number == STORE_DEDUP_WHOLE)
        return whole;
    return stream;
}

bool store_dedup_value(struct xy_str value, uint64_t *number, uint64_t *time_us, struct xy_str *seen)
{
    if (value.len < 16 || value.len > 16 + STORE_DEDUP_SEEN_MAX)
        return false;
    *seen = xy_str_n(value.data + 16, value.len - 16);
    *number = be64_get(value.data);
    *time_us = be64_get(value.data + 8);
    return true;
}

bool store_claim_value(struct xy_str value, struct store_claim *out)
{
    if (value.len != STORE_CLAIM_BYTES)
        return false;
    out->attempts = be32_get(value.data);
    out->not_before_us = be64_get(value.data + 4);
    out->parked = value.data[12] != 0;
    return true;
}

bool store_session_in(struct xy_str key, struct xy_str value, struct store_session_in *out)
{
    if (key.len != STORE_SESSION_ID_BYTES + 8)
        return false;
    *out = (struct store_session_in){ .number = be64_get(key.data + STORE_SESSION_ID_BYTES) };
    if (out->number == STORE_SESSION_OUT || value.len < (out->number == 0 ? 16 : 4))
        return false;
    if (out->number == 0) {
        out->handled = be64_get(value.data);
        out->answered = be64_get(value.data + 8);
    } else {
        out->what = be32_get(value.data);
        out->answer = xy_str_n(value.data + 4, value.len - 4);
    }
    return true;
}
