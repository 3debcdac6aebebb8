/* Affiliations and subscriptions of a node, for its owners and for the entity itself. XEP-0060 5.6, 5.7, 8.8, 8.9;
 * called through the table of pubsub.c. Changes of a list are made where they are possible; what could not be changed
 * comes back in the error as it is. */
#include "broker/pubsub/call.h"

#include "core/base/assert.h"

#define RECORD_OVERHEAD    256u
#define AFFILIATED_JID_MAX 255u /* bytes: the store finds affiliations by JID */

/* --- of the entity itself ---------------------------------------------------------------------------------------------- */

void subscriptions_get(struct call *call)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *list = xy_elem_add(call->arena, pubsub, "subscriptions", NS_PUBSUB);
    xy_elem_set(call->arena, list, "node", call->name);
    const struct subscriber *subscriber = node_subscriber(call->node, call->who);
    for (const struct subscription *s = subscriber != NULL ? subscriber->subscriptions : NULL; s != NULL;
         s = s->next)
        (void)subscription_elem(call->arena, list, s, true);
    call_reply(call, result);
}

void affiliations_get(struct call *call)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *list = xy_elem_add(call->arena, pubsub, "affiliations", NS_PUBSUB);
    xy_elem_set(call->arena, list, "node", call->name);
    enum affiliation affiliation = node_affiliation(call->node, call->who);
    if (affiliation != AFFILIATION_NONE) {
        struct xy_elem *elem = xy_elem_add(call->arena, list, "affiliation", NS_PUBSUB);
        xy_elem_set(call->arena, elem, "node", call->name);
        xy_elem_set(call->arena, elem, "affiliation", xy_str(affiliation_name(affiliation)));
    }
    call_reply(call, result);
}

/* --- lists for owners -------------------------------------------------------------------------------------------------- */

void owner_subscriptions_get(struct call *call)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB_OWNER, &pubsub);
    struct xy_elem *list = xy_elem_add(call->arena, pubsub, "subscriptions", NS_PUBSUB_OWNER);
    xy_elem_set(call->arena, list, "node", call->name);
    size_t position = 0;
    for (const struct subscription *s; (s = node_next_subscription(call->node, &position)) != NULL;)
        (void)subscription_elem(call->arena, list, s, false);
    call_reply(call, result);
}

static void add_affiliation(struct call *call, struct xy_elem *list, struct xy_str jid,
                            enum affiliation affiliation)
{
    struct xy_elem *elem = xy_elem_add(call->arena, list, "affiliation", NS_PUBSUB_OWNER);
    xy_elem_set(call->arena, elem, "jid", jid);
    xy_elem_set(call->arena, elem, "affiliation", xy_str(affiliation_name(affiliation)));
}

void owner_affiliations_get(struct call *call)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB_OWNER, &pubsub);
    struct xy_elem *list = xy_elem_add(call->arena, pubsub, "affiliations", NS_PUBSUB_OWNER);
    xy_elem_set(call->arena, list, "node", call->name);
    size_t position = 0;
    for (const struct affiliated *a; (a = xy_table_next(call->node->affiliations, &position, NULL)) != NULL;)
        add_affiliation(call, list, a->jid, a->affiliation);
    call_reply(call, result);
}

/* --- changes ------------------------------------------------------------------------------------------------------------- */

/* <not-acceptable/> with what stayed as it was (8.8.2.4, 8.9.2.4), or success. */
static void answer_changes(struct call *call, struct xy_elem *list, const char *text)
{
    if (list->child == NULL) {
        call_reply(call, NULL);
        return;
    }
    struct xy_error error = xy_error_make(XY_NOT_ACCEPTABLE, text);
    struct xy_elem *reply = xy_error_reply(call->arena, &(*call->request)->stanza, &error);
    if (reply == NULL) {
        call_no_room(call);
        return;
    }
    struct xy_elem *pubsub = xy_elem_add(call->arena, reply, "pubsub", NS_PUBSUB_OWNER);
    xy_elem_append(pubsub, list);
    call_reply(call, reply);
}

static void notify_affiliation(struct call *call, struct xy_jid jid, enum affiliation affiliation)
{
    struct xy_elem *message = xy_stanza_new(call->arena, XY_MESSAGE, XY_HEADLINE);
    xy_elem_set(call->arena, message, "from", call->pubsub->service);
    struct xy_elem *pubsub = xy_elem_add(call->arena, message, "pubsub", NS_PUBSUB);
    struct xy_elem *list = xy_elem_add(call->arena, pubsub, "affiliations", NS_PUBSUB);
    xy_elem_set(call->arena, list, "node", call->name);
    struct xy_elem *elem = xy_elem_add(call->arena, list, "affiliation", NS_PUBSUB);
    xy_elem_set(call->arena, elem, "jid", xy_jid_full(jid));
    xy_elem_set(call->arena, elem, "affiliation", xy_str(affiliation_name(affiliation)));
    router_send(call->shard, jid, message, call->node->ticket);
}

/* false: it stays as it is. */
static bool change_affiliation(struct call *call, struct xy_jid jid, enum affiliation wanted)
{
    struct node *node = call->node;
    struct xy_str bare = xy_jid_bare(jid);
    enum affiliation is = node_affiliation(node, bare);
    if (is == wanted)
        return true;
    if (is == AFFILIATION_OWNER && node_owners(node) == 1)
        return false; /* a node keeps an owner */
    if (bare.len > AFFILIATED_JID_MAX || !node_set_affiliation(node, bare, wanted))
        return false;
    record_affiliation(node, bare, wanted);
    if (router_is_local_domain(call->shard, xy_jid_domain(jid)))
        notify_affiliation(call, jid, wanted);
    return true;
}

/* Reads every entry before the first is changed: a request that makes no sense changes nothing. */
static bool check_affiliations(struct call *call)
{
    struct xy_jid jid, other;
    enum affiliation affiliation;
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        struct xy_str wanted = xy_elem_attr(e, "affiliation");
        if (!xy_elem_is(e, "affiliation", NS_PUBSUB_OWNER) || !call_jid(call, e, &jid)) {
            call_fail(call, XY_BAD_REQUEST, NULL, "each entry is an <affiliation/> with the JID it is about");
            return false;
        }
        if (xy_str_present(wanted) && !affiliation_parse(wanted, &affiliation)) {
            call_fail(call, XY_BAD_REQUEST, NULL,
                      "an affiliation is owner, publisher, publish-only, member, none or outcast");
            return false;
        }
        for (const struct xy_elem *o = xy_elem_first(call->action); o != e; o = xy_elem_next(o)) {
            if (call_jid(call, o, &other) && xy_jid_same_bare(jid, other)) {
                call_fail(call, XY_BAD_REQUEST, NULL, "one entity is named twice");
                return false;
            }
        }
    }
    return true;
}

#define CHANGES_MAX 512u

static size_t count_children(const struct xy_elem *elem)
{
    size_t count = 0;
    for (const struct xy_elem *e = xy_elem_first(elem); e != NULL; e = xy_elem_next(e))
        count++;
    return count;
}

static bool changes_fit(struct call *call)
{
    size_t count = count_children(call->action);
    if (count > CHANGES_MAX) {
        call_fail(call, XY_NOT_ACCEPTABLE, NULL, "too many changes in one request");
        return false;
    }
    return call_room(call, (count + 1) * RECORD_OVERHEAD + (*call->request)->stanza.bytes);
}

void owner_affiliations_set(struct call *call)
{
    struct xy_elem *failed = xy_elem_new(call->arena, XY_STR("affiliations"), XY_STR(NS_PUBSUB_OWNER));
    xy_elem_set(call->arena, failed, "node", call->name);
    if (!changes_fit(call) || !check_affiliations(call))
        return;
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        struct xy_jid jid;
        enum affiliation wanted;
        if (!affiliation_parse(xy_elem_attr(e, "affiliation"), &wanted) || !call_jid(call, e, &jid))
            continue; /* without the attribute nothing is changed */
        jid = xy_jid_to_bare(jid);
        if (!change_affiliation(call, jid, wanted))
            add_affiliation(call, failed, xy_jid_bare(jid), node_affiliation(call->node, xy_jid_bare(jid)));
    }
    subscriptions_recheck(call->node);
    answer_changes(call, failed, "a node keeps at least one owner");
}

/* --- subscriptions ------------------------------------------------------------------------------------------------------- */

static struct subscription *find(const struct node *node, struct xy_jid jid, struct xy_str subid)
{
    const struct subscriber *subscriber = node_subscriber(node, xy_jid_bare(jid));
    for (struct subscription *s = subscriber != NULL ? subscriber->subscriptions : NULL; s != NULL;
         s = s->next)
        if (xy_str_eq(s->jid, xy_jid_full(jid)) && (subid.len == 0 || xy_str_is(subid, s->subid)))
            return s;
    return NULL;
}

static bool subscribe_other(struct call *call, struct xy_jid jid)
{
    struct subscription_options options;
    bool full;
    if (call->node->queue != NULL)
        return false; /* only a consumer knows how much it takes */
    if (!node_may_read(call->node, node_affiliation(call->node, xy_jid_bare(jid))) ||
        !subscription_room(call, xy_jid_bare(jid)) || !options_init(subscription_options, &options))
        return false;
    struct subscription *subscription = subscription_add(call, jid, &options, &full);
    if (subscription == NULL) {
        options_free(subscription_options, &options);
        return false;
    }
    return true;
}

static bool change_subscription(struct call *call, struct xy_jid jid, struct xy_str subid,
                                struct xy_str wanted)
{
    struct subscription *subscription = find(call->node, jid, subid);
    if (xy_str_is(wanted, "none")) {
        if (subscription != NULL)
            subscription_end(call->node, subscription, true);
        return subscription != NULL;
    }
    if (!xy_str_is(wanted, "subscribed"))
        return false;
    return subscription != NULL || (subid.len == 0 && subscribe_other(call, jid));
}

void owner_subscriptions_set(struct call *call)
{
    struct xy_elem *failed = xy_elem_new(call->arena, XY_STR("subscriptions"), XY_STR(NS_PUBSUB_OWNER));
    struct xy_jid jid;
    xy_elem_set(call->arena, failed, "node", call->name);
    if (!changes_fit(call))
        return;
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        if (!xy_elem_is(e, "subscription", NS_PUBSUB_OWNER) || !call_jid(call, e, &jid)) {
            call_fail(call, XY_BAD_REQUEST, NULL, "each entry is a <subscription/> with the JID it is about");
            return;
        }
    }
    for (const struct xy_elem *e = xy_elem_first(call->action); e != NULL; e = xy_elem_next(e)) {
        struct xy_str wanted = xy_elem_attr(e, "subscription"), subid = xy_elem_attr(e, "subid");
        if (!xy_str_present(wanted) || !call_jid(call, e, &jid) ||
            change_subscription(call, jid, subid, wanted))
            continue;
        struct xy_elem *elem = xy_elem_add(call->arena, failed, "subscription", NS_PUBSUB_OWNER);
        xy_elem_set(call->arena, elem, "jid", xy_jid_full(jid));
        xy_elem_set(call->arena, elem, "subscription",
                    find(call->node, jid, subid) != NULL ? XY_STR("subscribed") : XY_STR("none"));
    }
    answer_changes(call, failed, "these subscriptions could not be changed; states are subscribed and none");
}
