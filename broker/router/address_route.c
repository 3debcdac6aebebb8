/* What is addressed to an account or one of its sessions, RFC 6121 section 8, by kind of stanza.
 *
 * All kinds take one path: they wait until the newest change of the address is on disk, in the order they came, so one
 * sender's stanzas to one account never overtake each other (RFC 6120 10.1). */
#include "broker/router/address_internal.h"
#include "broker/router/module.h"

/* --- IQ ----------------------------------------------------------------------------------------------------------- */

static bool iq_asks(const struct xy_stanza *iq)
{
    return iq->type == XY_GET || iq->type == XY_SET;
}

static void iq_unavailable(struct shard *shard, struct request **request)
{
    request_fail_with(shard, request, XY_SERVICE_UNAVAILABLE, NULL);
}

/* On the session's shard: it took the stanza or not. */
static void iq_offered(struct shard *shard, enum session_verdict verdict, void *ctx)
{
    struct request *request = ctx;
    if (verdict == SESSION_TOOK)
        request_end(shard, &request, 0);
    else if (verdict == SESSION_FULL)
        request_fail_with(shard, &request, XY_RESOURCE_CONSTRAINT,
                          "the recipient does not keep up; try again later");
    else
        iq_unavailable(shard, &request);
}

/* 8.5.3.1, 8.5.3.2.3 */
static void iq_to_resource(struct address *address, struct request **request)
{
    struct resource *resource = address_resource(address, xy_jid_resource((*request)->stanza.to));
    struct xy_bytes *bytes = resource ? xy_xml_bytes((*request)->stanza.elem, XY_STR(NS_CLIENT)) : NULL;
    if (!bytes) {
        iq_unavailable(address->shard, request);
        return;
    }
    struct session_offer offer = {
        .stanza = bytes, .done = iq_offered, .ctx = *request, .patient = !(*request)->awaited
    };
    *request = NULL;
    session_offer(address->shard, resource->session, &offer);
}

/* 8.5.2.1.3: the broker answers on behalf of the account. Strangers learn nothing, not even that it exists. */
static void iq_to_account(struct address *address, struct request **request)
{
    const struct xy_stanza *iq = &(*request)->stanza;
    const struct module_iq *handler = iq_asks(iq) ? module_find(iq, MODULE_ACCOUNT) : NULL;
    bool own = !xy_jid_present(iq->to) || xy_jid_same_bare(iq->to, iq->from);
    if (handler && (own || handler->others))
        handler->fn(address->shard, request);
    else
        iq_unavailable(address->shard, request);
}

static void iq_handle(struct address *address, struct request **request)
{
    const struct xy_stanza *iq = &(*request)->stanza;
    if (xy_jid_present(iq->to) && !xy_jid_is_bare(iq->to))
        iq_to_resource(address, request);
    else if (iq_asks(iq))
        iq_to_account(address, request);
    else
        request_end(address->shard, request, 0); /* a result nobody here asked for */
}

/* --- dispatch ----------------------------------------------------------------------------------------------------- */

/* 8.5.1: no such account. */
void address_refuse_unknown(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    bool silent = stanza->kind == XY_PRESENCE ||
                  (stanza->kind == XY_MESSAGE && stanza->type == XY_HEADLINE && xy_jid_is_bare(stanza->to));
    if (silent)
        request_end(shard, request, 0);
    else
        iq_unavailable(shard, request);
}

struct passage {
    struct address *address;
    struct request *request;
};

static void passage_run(struct shard *shard, void *payload)
{
    struct passage *passage = payload;
    struct address *address = passage->address;
    if (!address->exists)
        address_refuse_unknown(shard, &passage->request);
    else if (passage->request->stanza.kind == XY_IQ)
        iq_handle(address, &passage->request);
    else
        presence_handle(address, &passage->request);
    address_unpin(address);
}

void address_handle(struct shard *shard, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    struct xy_jid account = xy_jid_present(stanza->to) ? stanza->to : stanza->from;
    struct address *address = address_touch(shard, xy_jid_bare(account));
    if (!address) {
        address_refuse_unknown(shard, request);
        return;
    }
    if (stanza->kind == XY_MESSAGE) { /* may have to be stored before it waits */
        message_handle(address, request);
        return;
    }
    struct passage passage = { address, *request };
    *request = NULL;
    address_pin(address);
    shard_when_committed(shard, address->ticket, passage_run, &passage, sizeof(passage));
}
