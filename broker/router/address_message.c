/* Messages to an account: the table of RFC 6121 section 8.5.4, and which messages are kept until somebody acknowledged
 * them (section 6 of the design). Called by address_route.c. */
#include "broker/router/address_internal.h"
#include "broker/router/kept.h"

/* --- what is worth keeping ---------------------------------------------------------------------------------------- */

/* Payloads that say nothing once they are late. */
static bool is_transient(const struct xy_elem *e)
{
    return xy_str_is(e->ns, NS_CHATSTATES) || xy_str_is(e->ns, NS_CHAT_MARKERS) ||
           xy_str_is(e->ns, NS_HINTS) || xy_str_is(e->ns, NS_RECEIPTS) ||
           xy_elem_is(e, "thread", NS_CLIENT) || xy_elem_is(e, "subject", NS_CLIENT);
}

bool message_is_assured(const struct xy_stanza *message)
{
    const struct xy_elem *m = message->elem;
    if (message->type == XY_GROUPCHAT || message->type == XY_HEADLINE || message->type == XY_ERROR)
        return false;
    if (xy_elem_child(m, "no-store", NS_HINTS) || xy_elem_child(m, "no-permanent-store", NS_HINTS))
        return false;
    if (xy_elem_child(m, "body", NULL) || xy_elem_child(m, "store", NS_HINTS))
        return true;
    if (xy_elem_child(m, "data", NS_IBB))
        return false;
    for (const struct xy_elem *e = xy_elem_first(m); e; e = xy_elem_next(e))
        if (!is_transient(e) || xy_elem_is(e, "subject", NS_CLIENT) || xy_elem_is(e, "received", NS_RECEIPTS))
            return true;
    return false;
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

enum plan {
    PLAN_RESOURCE, /* D: the session it is addressed to */
    PLAN_BEST,     /* D, M: the available sessions of highest priority */
    PLAN_ALL,      /* A: every available session of priority >= 0 */
    PLAN_OFFLINE,  /* O: kept, or refused if not worth it */
    PLAN_IGNORE,   /* S */
    PLAN_REFUSE,   /* E */
};

enum column { NORMAL, CHAT, GROUPCHAT, HEADLINE, ERROR, COLUMNS };

/* Rows: is there a session of priority >= 0? (A resource that matches takes everything.) */
static const enum plan bare_plan[2][COLUMNS] = {
    { PLAN_OFFLINE, PLAN_OFFLINE, PLAN_REFUSE, PLAN_IGNORE, PLAN_IGNORE },
    { PLAN_BEST, PLAN_BEST, PLAN_REFUSE, PLAN_ALL, PLAN_IGNORE },
};
static const enum plan full_plan[2][COLUMNS] = {
    { PLAN_REFUSE, PLAN_OFFLINE, PLAN_REFUSE, PLAN_REFUSE, PLAN_IGNORE },
    { PLAN_REFUSE, PLAN_BEST, PLAN_REFUSE, PLAN_REFUSE, PLAN_IGNORE },
};

static enum column column_of(enum xy_stanza_type type)
{
    switch (type) {
    case XY_CHAT:
        return CHAT;
    case XY_GROUPCHAT:
        return GROUPCHAT;
    case XY_HEADLINE:
        return HEADLINE;
    case XY_ERROR:
        return ERROR;
    default:
        return NORMAL;
    }
}

static enum plan plan_make(const struct address *address, const struct xy_stanza *message)
{
    bool online = address_best(address) != NULL;
    enum column column = column_of(message->type);
    if (!xy_jid_present(message->to) || xy_jid_is_bare(message->to))
        return bare_plan[online][column];
    if (address_resource(address, xy_jid_resource(message->to)))
        return PLAN_RESOURCE;
    if (message_is_assured(message) && dormant_has(address, xy_jid_resource(message->to)))
        return PLAN_OFFLINE; /* for when it is resumed */
    return full_plan[online][column];
}

/* --- delivery ----------------------------------------------------------------------------------------------------- */

struct message_passage {
    struct address *address;
    struct request *request;
    struct xy_bytes *bytes; /* serialised when it was stored; else NULL */
    uint64_t seq;           /* 0: not stored */
};

static void send_copy(struct address *address, struct resource *resource, struct xy_bytes *bytes,
                      bool returns)
{
    struct xy_bytes *copy = xy_bytes_ref(bytes);
    stat_add(address->shard, messages_delivered, 1);
    if (returns)
        session_send_message(address->shard, resource->session, address->bare_bytes, &copy, 0);
    else
        session_send(address->shard, resource->session, &copy);
}

/* An assured message for several sessions is stored first, whoever sent it: only an entry of the mailbox knows who has it, so that what
 * one of them gives back does not come to another twice. */
static bool is_shared(const struct address *address, enum plan plan)
{
    const struct resource *best = plan == PLAN_BEST ? address_best(address) : NULL;
    for (size_t i = 0; best && i < address->resources_count; i++) {
        const struct resource *r = address->resources[i];
        if (r != best && r->available && r->priority == best->priority)
            return true;
    }
    return false;
}

/* Not stored: handed over at once. An assured one has one recipient, also if there are more by now, and comes back
 * (address_returned) if that cannot take it. */
static void deliver(struct address *address, const struct xy_stanza *message, enum plan plan, bool assured)
{
    struct xy_bytes *bytes = xy_xml_bytes(message->elem, XY_STR(NS_CLIENT));
    if (!bytes)
        return;
    struct resource *first = plan == PLAN_RESOURCE ? address_resource(address, xy_jid_resource(message->to))
                                                   : address_best(address);
    xy_assert(first != NULL);
    send_copy(address, first, bytes, assured);
    for (size_t i = 0; plan != PLAN_RESOURCE && !assured && i < address->resources_count; i++) {
        struct resource *r = address->resources[i];
        int least = plan == PLAN_ALL ? 0 : first->priority;
        if (r != first && r->available && r->priority >= least)
            send_copy(address, r, bytes, false);
    }
    xy_bytes_unref(&bytes);
}

static void message_run(struct shard *shard, void *payload);

static void passage_start(const struct message_passage *passage)
{
    address_pin(passage->address);
    shard_when_committed(passage->address->shard, passage->address->ticket, message_run, passage,
                         sizeof(*passage));
}

static void refuse_full(struct shard *shard, struct request **request, enum mailbox_verdict verdict)
{
    static const char *const why[] = {
        [MAILBOX_QUOTA] = "the recipient's mailbox is full; try again later",
        [MAILBOX_NO_ROOM] = "the broker has no room to store it; try again later",
        [MAILBOX_NO_MEMORY] = "the broker is short of memory; try again later",
    };
    if (verdict == MAILBOX_QUOTA)
        stat_add(shard, messages_refused_full, 1);
    if (verdict == MAILBOX_NO_MEMORY)
        stat_add(shard, messages_refused_memory, 1);
    request_fail_with(shard, request, XY_RESOURCE_CONSTRAINT, why[verdict]);
}

/* Appends it to the mailbox; it is handed over, or left there, once that is on disk. */
static void store(struct address *address, struct request **request)
{
    struct message_passage passage = { .address = address, .request = *request };
    passage.bytes = xy_xml_bytes((*request)->stanza.elem, XY_STR(NS_CLIENT));
    enum mailbox_verdict verdict =
        passage.bytes ? mailbox_add(address, passage.bytes, &passage.seq) : MAILBOX_NO_ROOM;
    if (verdict != MAILBOX_STORED) {
        xy_bytes_unref(&passage.bytes);
        refuse_full(address->shard, request, verdict);
        return;
    }
    request_record(address->shard, *request);
    *request = NULL;
    passage_start(&passage);
}

static void message_now(struct address *address, struct request **request)
{
    const struct xy_stanza *message = &(*request)->stanza;
    struct shard *shard = address->shard;
    enum plan plan = plan_make(address, message);
    bool assured = message_is_assured(message);
    switch (plan) {
    case PLAN_REFUSE:
        request_fail_with(shard, request, XY_SERVICE_UNAVAILABLE, NULL);
        return;
    case PLAN_OFFLINE:
        if (assured)
            store(address, request);
        else /* XEP-0160 3: chat states and the like are dropped */
            request_end(shard, request, 0);
        return;
    case PLAN_IGNORE:
        break;
    default:
        if (assured && mailbox_behind(address)) {
            store(address, request);
            return;
        }
        deliver(address, message, plan, assured);
        carbons_copy(address, *request);
    }
    request_end(shard, request, 0);
}

/* Everything the address depended on when the message came is on disk. */
static void message_run(struct shard *shard, void *payload)
{
    struct message_passage *passage = payload;
    struct address *address = passage->address;
    const struct xy_stanza *message = &passage->request->stanza;
    if (!address->exists) {
        address_refuse_unknown(shard, &passage->request);
    } else if (passage->seq != 0) {
        struct xy_str resource = xy_jid_resource(message->to);
        carbons_copy(address, passage->request); /* before it is known who takes the original */
        mailbox_added(address, passage->bytes, passage->seq, resource);
        request_end(shard, &passage->request, 0);
    } else {
        message_now(address, &passage->request);
    }
    xy_bytes_unref(&passage->bytes);
    address_unpin(address);
}

void message_handle(struct address *address, struct request **request)
{
    const struct xy_stanza *message = &(*request)->stanza;
    enum plan plan = plan_make(address, message);
    bool kept = plan == PLAN_RESOURCE || plan == PLAN_BEST || plan == PLAN_OFFLINE;
    bool committed_first = (*request)->assured || plan == PLAN_OFFLINE || is_shared(address, plan);
    if (kept && committed_first && message_is_assured(message)) {
        store(address, request);
        return;
    }
    struct message_passage passage = { .address = address, .request = *request };
    *request = NULL;
    passage_start(&passage);
}
