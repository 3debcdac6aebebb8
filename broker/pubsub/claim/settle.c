/* Acknowledging items one by one: <ack/>, <nack/>, <term/> and <working/> of docs/protocol.md 1.5, in messages and IQs, and
 * XEP-0184 receipts. Called by pubsub.c with what is addressed to the service.
 *
 * One stanza may speak about several nodes. It travels to the shards that own them, in turn, and goes on when what it
 * changed there is on disk; so when it ends, all of it is. */
#include "broker/pubsub/claim/acked.h"
#include "broker/pubsub/call.h"
#include "broker/pubsub/node/resident.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

#define VERDICTS_MAX 4096u /* in one stanza */
#define ANY_SHARD    UINT32_MAX
#define LOADING_US   2000u /* a node that is being loaded is looked at again after this */

enum verdict_kind { VERDICT_ACK, VERDICT_NACK, VERDICT_TERM, VERDICT_WORKING, VERDICT_RECEIVED };

struct verdict {
    enum verdict_kind kind;
    uint32_t owner;     /* shard of the node; ANY_SHARD: a receipt, which does not say */
    uint32_t number;    /* receipts: of the subscription */
    struct xy_str node; /* name */
    uint64_t node_number;
    struct xy_str subid, id; /* empty: not given */
    uint64_t epoch, seq;     /* seq 0: by id */
    uint64_t delay_us;
    bool delayed, cumulative, done;
};

/* In the request's arena. */
struct settling {
    struct request *request;
    struct verdict *verdicts;
    size_t count;
    const struct verdict *unknown; /* the first that found nothing */
    bool no_room, asked;           /* asked: an IQ, somebody waits */
    uint32_t shard;                /* the next to visit */
    struct shard_timer timer;      /* a node is being loaded */
};

/* --- reading --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *ns;
    enum verdict_kind kind;
} kinds[] = {
    { "ack", NS_XYLEM_DELIVERY, VERDICT_ACK },     { "nack", NS_XYLEM_DELIVERY, VERDICT_NACK },
    { "term", NS_XYLEM_DELIVERY, VERDICT_TERM },   { "working", NS_XYLEM_DELIVERY, VERDICT_WORKING },
    { "received", NS_RECEIPTS, VERDICT_RECEIVED },
};

static bool kind_of(const struct xy_elem *elem, enum verdict_kind *kind)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (!xy_elem_is(elem, kinds[i].name, kinds[i].ns))
            continue;
        *kind = kinds[i].kind;
        return true;
    }
    return false;
}

static bool read_epoch(struct xy_str text, uint64_t *epoch)
{
    unsigned char bytes[8];
    if (text.len != 2 * sizeof(bytes) || !xy_hex_decode(bytes, text))
        return false;
    *epoch = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        *epoch = *epoch << 8 | bytes[i];
    return true;
}

static const char *read_what(const struct xy_elem *elem, struct verdict *out)
{
    struct xy_str seq = xy_elem_attr(elem, "seq"), delay = xy_elem_attr(elem, "delay"),
                  cumulative = xy_elem_attr(elem, "cumulative");
    uint32_t delay_s;
    out->id = xy_elem_attr(elem, "id");
    if (seq.len > 0) {
        if (!xy_str_u64(seq, &out->seq) || out->seq == 0 ||
            !read_epoch(xy_elem_attr(elem, "epoch"), &out->epoch))
            return "say which item by epoch and seq as its <delivery/> has them";
    } else if (out->id.len == 0) {
        return "say which item: epoch='…' seq='…', or id='…'";
    }
    if (cumulative.len > 0 &&
        (!xy_str_bool(cumulative, &out->cumulative) || (out->cumulative && out->seq == 0)))
        return "cumulative is true or false, and needs seq";
    if (delay.len > 0 && (!xy_str_u32(delay, &delay_s) || delay_s > ACK_WAIT_S_MAX))
        return "delay is a number of seconds, at most 604800";
    out->delayed = delay.len > 0;
    out->delay_us = out->delayed ? (uint64_t)delay_s * 1000000 : 0;
    return NULL;
}

/* SUBID-SEQ-NODE-SUBSCRIPTION, as the event's id was. Any other is a receipt for something else. */
static bool read_receipt(struct xy_str id, struct verdict *out)
{
    uint64_t numbers[3];
    if (id.len <= SUBID_LEN || id.data[SUBID_LEN] != '-')
        return false;
    out->subid = xy_str_n(id.data, SUBID_LEN);
    const char *at = id.data + SUBID_LEN + 1, *end = id.data + id.len;
    for (size_t i = 0; i < 3; i++) {
        const char *dash = i < 2 ? memchr(at, '-', (size_t)(end - at)) : end;
        if (dash == NULL || !xy_str_u64(xy_str_n(at, (size_t)(dash - at)), &numbers[i]))
            return false;
        at = dash + (i < 2);
    }
    out->seq = numbers[0];
    out->node_number = numbers[1];
    out->number = (uint32_t)numbers[2];
    out->owner = ANY_SHARD;
    return out->seq > 0 && numbers[2] <= UINT32_MAX;
}

/* NULL: good. */
static const char *read_verdict(const struct shard *shard, const struct xy_elem *elem, struct verdict *out)
{
    if (out->kind == VERDICT_RECEIVED) {
        out->done = !read_receipt(xy_elem_attr(elem, "id"), out);
        return NULL;
    }
    out->node = xy_elem_attr(elem, "node");
    out->subid = xy_elem_attr(elem, "subid");
    if (out->node.len == 0 || out->node.len > NODE_NAME_MAX)
        return "say which node: node='…'";
    out->owner = shard_owner(shard, out->node);
    return read_what(elem, out);
}

static const char *read_all(const struct shard *shard, const struct xy_elem *parent,
                            struct settling *settling)
{
    struct xy_arena *arena = settling->request->stanza.arena;
    enum verdict_kind kind;
    size_t count = 0;
    for (const struct xy_elem *e = xy_elem_first(parent); e != NULL; e = xy_elem_next(e))
        count += kind_of(e, &kind);
    if (count > VERDICTS_MAX)
        return "too many acknowledgements in one stanza; send several";
    settling->verdicts = xy_arena_zalloc(arena, (count + 1) * sizeof(*settling->verdicts));
    settling->no_room = settling->verdicts == NULL;
    const char *wrong = NULL;
    for (const struct xy_elem *e = xy_elem_first(parent); e != NULL && wrong == NULL && !settling->no_room;
         e = xy_elem_next(e)) {
        if (!kind_of(e, &kind))
            continue;
        struct verdict *verdict = &settling->verdicts[settling->count++];
        verdict->kind = kind;
        wrong = read_verdict(shard, e, verdict);
    }
    return wrong;
}

/* --- whose subscription ---------------------------------------------------------------------------------------------- */

struct subscription *subscription_of(const struct node *node, struct xy_jid who, struct xy_str subid,
                                     bool *several)
{
    const struct subscriber *subscriber = node_subscriber(node, xy_jid_bare(who));
    struct subscription *found = NULL, *own = NULL;
    size_t count = 0, own_count = 0;
    *several = false;
    for (struct subscription *s = subscriber != NULL ? subscriber->subscriptions : NULL; s != NULL;
         s = s->next) {
        if (subid.len > 0 ? !xy_str_is(subid, s->subid) : s->claim.ops == NULL)
            continue;
        found = s;
        count++;
        if (!xy_str_eq(s->jid, xy_jid_full(who)))
            continue;
        own = s;
        own_count++;
    }
    if (count > 1 && own_count == 1)
        return own;
    *several = count > 1;
    return count == 1 ? found : NULL;
}

static struct subscription *find_subscription(struct pubsub *pubsub, struct xy_jid who,
                                              const struct verdict *verdict)
{
    bool several;
    if (verdict->kind == VERDICT_RECEIVED) {
        struct node *node = node_by_number(pubsub, verdict->node_number);
        struct subscription *s = node != NULL ? node_subscription(node, verdict->number) : NULL;
        bool theirs = s != NULL && xy_str_is(verdict->subid, s->subid) &&
                      xy_str_eq(s->subscriber->bare, xy_jid_bare(who));
        return theirs ? s : NULL;
    }
    struct node *node = node_get(pubsub, verdict->node);
    if (node == NULL || (verdict->seq != 0 && verdict->epoch != node->epoch))
        return NULL;
    return subscription_of(node, who, verdict->subid, &several);
}

/* --- doing ------------------------------------------------------------------------------------------------------------- */

/* There is nothing of a gap that could go to the dead letters: who wants no more of it is done with it. */
static bool apply_to_gap(struct subscription *subscription, const struct verdict *verdict, uint64_t seq)
{
    switch (verdict->kind) {
    case VERDICT_ACK:
    case VERDICT_RECEIVED:
    case VERDICT_TERM:
        return gap_settled(subscription, seq, verdict->cumulative);
    case VERDICT_NACK:
        return gap_returned(subscription, seq, verdict->delayed ? &verdict->delay_us : NULL);
    case VERDICT_WORKING:
        return gap_extended(subscription, seq);
    }
    return false;
}

static enum claim_verdict apply_to_item(struct subscription *subscription, const struct verdict *verdict,
                                        uint64_t seq)
{
    const struct claim_ops *ops = subscription->claim.ops;
    switch (verdict->kind) {
    case VERDICT_ACK:
    case VERDICT_RECEIVED:
        return ops->ack(subscription, seq, verdict->cumulative);
    case VERDICT_NACK:
        return ops->nack(subscription, seq, verdict->delayed ? &verdict->delay_us : NULL);
    case VERDICT_TERM:
        return ops->term(subscription, seq);
    case VERDICT_WORKING:
        return ops->working(subscription, seq);
    }
    return CLAIM_UNKNOWN;
}

/* A gap goes under the number of an item, and after a replay that item may be out as well: then both are meant. */
static enum claim_verdict apply(struct subscription *subscription, const struct verdict *verdict)
{
    const struct claim_ops *ops = subscription->claim.ops;
    if (ops == NULL || ops->ack == NULL)
        return CLAIM_UNKNOWN; /* acknowledged by XEP-0198, or not at all */
    uint64_t seq = verdict->seq != 0 ? verdict->seq : ops->seq_of(subscription, verdict->id);
    if (seq == 0)
        return CLAIM_UNKNOWN;
    bool gap = apply_to_gap(subscription, verdict, seq);
    enum claim_verdict item = apply_to_item(subscription, verdict, seq);
    return gap && item == CLAIM_UNKNOWN ? CLAIM_DONE : item;
}

/* Everything said about one subscription is recorded together. Returns the ticket to wait for. */
static uint64_t conclude(struct settling *settling, struct subscription *subscription)
{
    if (subscription == NULL || subscription->claim.ops == NULL || subscription->claim.ops->ack == NULL)
        return 0;
    const struct node *node = subscription->subscriber->node;
    if (!claim_record(subscription, !settling->asked))
        settling->no_room = true;
    uint64_t ticket = settling->asked ? node->ticket : node->claims_ticket;
    claim_settled(subscription);
    return ticket;
}

static uint64_t visit(struct shard *shard, struct settling *settling)
{
    struct subscription *current = NULL;
    uint64_t ticket = 0, newest;
    for (size_t i = 0; i < settling->count; i++) {
        struct verdict *verdict = &settling->verdicts[i];
        if (verdict->done || (verdict->owner != ANY_SHARD && verdict->owner != shard->index))
            continue;
        struct subscription *subscription =
            find_subscription(shard->pubsub, settling->request->stanza.from, verdict);
        if (subscription == NULL && verdict->owner == ANY_SHARD)
            continue;
        verdict->done = true;
        if (subscription != current) {
            newest = conclude(settling, current);
            ticket = newest > ticket ? newest : ticket;
        }
        current = subscription;
        enum claim_verdict done = subscription != NULL ? apply(subscription, verdict) : CLAIM_UNKNOWN;
        settling->no_room |= done == CLAIM_NO_ROOM;
        if (done == CLAIM_UNKNOWN && settling->unknown == NULL)
            settling->unknown = verdict;
    }
    newest = conclude(settling, current);
    return newest > ticket ? newest : ticket;
}

/* --- the way ----------------------------------------------------------------------------------------------------------- */

static void answer(struct shard *shard, struct settling *settling, uint64_t ticket)
{
    struct request *request = settling->request;
    struct xy_error error = { 0 };
    if (settling->no_room) {
        error = xy_error_make(XY_RESOURCE_CONSTRAINT, "memory is short; acknowledge again");
    } else if (settling->asked && settling->unknown != NULL) {
        const struct verdict *unknown = settling->unknown;
        struct xy_str text = xy_arena_printf(
            request->stanza.arena,
            "nothing is out under seq %llu, id '%.*s': acknowledged already, or never sent to you; "
            "everything else was done",
            (unsigned long long)unknown->seq, (int)(unknown->id.len < 128 ? unknown->id.len : 128),
            unknown->id.data != NULL ? unknown->id.data : "");
        error = xy_error_make(XY_ITEM_NOT_FOUND, text.data != NULL && xy_str_utf8(text)
                                                     ? text.data
                                                     : "acknowledged already, or never sent to you");
    }
    if (error.condition == XY_ITEM_NOT_FOUND) /* what comes again later is not settled by this */
        request_fail_finally(shard, &request, &error, ticket);
    else if (error.condition != XY_NO_ERROR)
        request_fail_after(shard, &request, &error, ticket);
    else
        request_reply(shard, &request, NULL, ticket);
}

/* The next shard that may know something; the number of shards: none. */
static uint32_t next_shard(const struct settling *settling, unsigned shards)
{
    uint32_t next = shards;
    for (size_t i = 0; i < settling->count; i++) {
        const struct verdict *verdict = &settling->verdicts[i];
        if (verdict->done)
            continue;
        if (verdict->owner == ANY_SHARD)
            return settling->shard;
        if (verdict->owner >= settling->shard && verdict->owner < next)
            next = verdict->owner;
    }
    return next;
}

static void on_visit(struct shard *shard, void *payload);

static void travel(struct shard *shard, void *payload)
{
    struct settling *settling = *(struct settling **)payload;
    uint32_t next =
        settling->shard < shard_count(shard) ? next_shard(settling, shard_count(shard)) : shard_count(shard);
    if (next >= shard_count(shard)) {
        answer(shard, settling, 0);
        return;
    }
    settling->shard = next;
    shard_mail(shard, next, on_visit, &settling, sizeof(settling));
}

/* Large nodes take several turns to load: until then nobody knows what is out. */
static bool all_here(struct shard *shard, struct settling *settling)
{
    for (size_t i = 0; i < settling->count; i++) {
        const struct verdict *verdict = &settling->verdicts[i];
        struct node *node;
        if (verdict->done || verdict->owner != shard->index)
            continue;
        enum resident resident = resident_find(shard->pubsub, verdict->node, &node);
        if (resident == RESIDENT_LOADING)
            return false;
        settling->no_room |= resident == RESIDENT_FAILED;
    }
    return true;
}

static void on_loaded(struct shard *shard, struct shard_timer *timer)
{
    struct settling *settling = xy_container_of(timer, struct settling, timer);
    on_visit(shard, &settling);
}

static void on_visit(struct shard *shard, void *payload)
{
    struct settling *settling = *(struct settling **)payload;
    unsigned shards = shard_count(shard);
    xy_assert(settling->shard == shard->index);
    if (!all_here(shard, settling)) {
        settling->timer.fn = on_loaded;
        shard_timer_set(shard, &settling->timer, xy_now_us(shard->env) + LOADING_US);
        return;
    }
    uint64_t ticket = visit(shard, settling);
    settling->shard++;
    if (settling->shard >= shards || next_shard(settling, shards) >= shards)
        answer(shard, settling, ticket);
    else
        shard_when_committed(shard, ticket, travel, &settling, sizeof(settling));
}

bool settle_is(const struct xy_stanza *stanza)
{
    enum verdict_kind kind;
    if (stanza->kind == XY_IQ)
        return kind_of(xy_elem_first(stanza->elem), &kind) ||
               xy_elem_is(xy_elem_first(stanza->elem), "settle", NS_XYLEM_DELIVERY);
    for (const struct xy_elem *e = xy_elem_first(stanza->elem); e != NULL; e = xy_elem_next(e))
        if (kind_of(e, &kind))
            return true;
    return false;
}

void settle(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    const struct xy_elem *first = xy_elem_first(stanza->elem);
    struct settling *settling = xy_arena_zalloc(stanza->arena, sizeof(*settling));
    if (settling == NULL) {
        request_fail_with(shard, request, XY_RESOURCE_CONSTRAINT, "memory is short; acknowledge again");
        return;
    }
    settling->request = *request;
    settling->asked = stanza->kind == XY_IQ;
    bool several = xy_elem_is(first, "settle", NS_XYLEM_DELIVERY);
    const char *wrong = read_all(shard, settling->asked && several ? first : stanza->elem, settling);
    if (wrong == NULL && settling->count == 0 && !settling->no_room)
        wrong = "<settle/> holds <ack/>, <nack/>, <term/> or <working/>";
    *request = NULL;
    if (wrong != NULL) {
        struct request *bad = settling->request;
        request_fail_with(shard, &bad, XY_BAD_REQUEST, wrong);
        return;
    }
    travel(shard, &settling);
}
