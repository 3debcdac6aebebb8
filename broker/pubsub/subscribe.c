/* Subscribing and unsubscribing, options in the same request or later. XEP-0060 6.1 - 6.4; called through the table of
 * pubsub.c. A JID holds one subscription unless the node allows several; subscribing again returns it, with new options
 * if some are given. */
#include "broker/pubsub/call.h"

#include "broker/config.h"
#include "broker/pubsub/queue/queue.h"
#include "broker/pubsub/quota/quota.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

#define OPTIONS_FORM    NS_PUBSUB_SUBSCRIBE_OPTIONS
#define RECORD_OVERHEAD 512u
#define QUEUE_REQUESTS  "pubsub#queue_requests"

/* --- what is said about a subscription ------------------------------------------------------------------------------- */

struct xy_elem *subscription_elem(struct xy_arena *arena, struct xy_elem *parent,
                                  const struct subscription *subscription, bool with_node)
{
    struct xy_str ns = parent->ns;
    struct xy_elem *elem = xy_elem_new(arena, XY_STR("subscription"), ns);
    if (with_node)
        xy_elem_set(arena, elem, "node", xy_arena_str(arena, subscription->subscriber->node->name));
    xy_elem_set(arena, elem, "jid", xy_arena_str(arena, subscription->jid));
    xy_elem_set(arena, elem, "subid", xy_arena_str(arena, xy_str(subscription->subid)));
    xy_elem_set(arena, elem, "subscription", XY_STR("subscribed"));
    xy_elem_append(parent, elem);
    return elem;
}

struct notice {
    struct session_ref session;
    struct event *event;
};

static void on_notice_due(struct shard *shard, void *payload)
{
    const struct notice *notice = payload;
    delivery_notify(shard, notice->session, notice->event);
}

void subscription_notify(struct node *node, const struct subscriber *subscriber, struct xy_str jid,
                         struct xy_str subid, const char *state)
{
    struct xy_arena *arena = xy_arena_pool_take(node->pubsub->shard->arenas);
    if (arena == NULL)
        return;
    struct xy_elem *elem = xy_elem_new(arena, XY_STR("subscription"), XY_STR(NS_PUBSUB_EVENT));
    xy_elem_set(arena, elem, "node", node->name);
    xy_elem_set(arena, elem, "jid", jid);
    xy_elem_set(arena, elem, "subscription", xy_str(state));
    if (subid.len > 0)
        xy_elem_set(arena, elem, "subid", subid);
    struct event *event = event_for_elem(node, elem);
    for (size_t i = 0; event != NULL && i < subscriber->reached_count; i++) {
        struct notice notice = { subscriber->reached[i].session, event_ref(event) };
        shard_when_committed(node->pubsub->shard, node->ticket, on_notice_due, &notice, sizeof(notice));
    }
    event_unref(&event);
    xy_arena_pool_give(node->pubsub->shard->arenas, &arena);
}

/* pubsub#notify_sub: owners learn of subscribers who come and go (12.14). */
static void notify_owners(struct node *node, struct xy_str jid, const char *state)
{
    struct pubsub *pubsub = node->pubsub;
    struct xy_arena *arena = xy_arena_pool_take(pubsub->shard->arenas);
    size_t position = 0;
    if (!node->config.notify_sub || arena == NULL) {
        if (arena != NULL)
            xy_arena_pool_give(pubsub->shard->arenas, &arena);
        return;
    }
    struct xy_elem *message = xy_stanza_new(arena, XY_MESSAGE, XY_HEADLINE);
    xy_elem_set(arena, message, "from", pubsub->service);
    struct xy_elem *container = xy_elem_add(arena, message, "pubsub", NS_PUBSUB);
    struct xy_elem *elem = xy_elem_add(arena, container, "subscription", NS_PUBSUB);
    xy_elem_set(arena, elem, "node", node->name);
    xy_elem_set(arena, elem, "jid", jid);
    xy_elem_set(arena, elem, "subscription", xy_str(state));
    for (const struct affiliated *a; (a = xy_table_next(node->affiliations, &position, NULL)) != NULL;)
        if (a->affiliation == AFFILIATION_OWNER)
            router_send(pubsub->shard, xy_jid_canonical(a->jid), message, node->ticket);
    xy_arena_pool_give(pubsub->shard->arenas, &arena);
}

/* --- options --------------------------------------------------------------------------------------------------------- */

static bool fail_options(struct call *call, struct xy_str field, const char *what)
{
    struct xy_str shown = xy_str_n(field.data, field.len < 128 ? field.len : 128);
    struct xy_str text = xy_arena_printf(call->arena, "%.*s: %s", XY_ARG(shown), what);
    call_fail(call, XY_BAD_REQUEST, "invalid-options",
              text.data != NULL && xy_str_utf8(text) ? text.data : what);
    return false;
}

/* Applies `form` to options; false: refused. */
static bool read_options(struct call *call, struct subscription_options *options, const struct xy_form *form)
{
    struct xy_str field = XY_STR_NONE;
    struct start start;
    switch (options_read(subscription_options, options, form, &field)) {
    case OPTION_UNKNOWN:
        return fail_options(call, field, "this service has no such option");
    case OPTION_INVALID:
        if (xy_str_is(field, "{" NS_XYLEM_DELIVERY "}ack"))
            return fail_options(call, field, "use stream (XEP-0198), receipt (XEP-0184) or explicit");
        return fail_options(call, field, "not a value this service supports");
    case OPTION_NO_MEMORY:
        call_no_room(call);
        return false;
    case OPTION_ACCEPTED:
        break;
    }
    if (options->mode == MODE_AT_LEAST_ONCE && node_is_memory(call->node))
        return fail_options(
            call, XY_STR("{" NS_XYLEM_DELIVERY "}mode"),
            "this node keeps its items in memory only (durability), at-least-once needs them on disk");
    uint64_t backlog = options->max_backlog_bytes;
    if (backlog != OPTION_COUNT_MAX && backlog != BACKLOG_BYTES_USUAL &&
        backlog > call->shard->config->limits.backlog_bytes)
        return fail_options(call, XY_STR("{" NS_XYLEM_DELIVERY "}max_backlog_bytes"),
                            "larger than this service allows");
    if (!start_parse(options->start, &start))
        return fail_options(call, XY_STR("{" NS_XYLEM_DELIVERY "}start"),
                            "use new, all, last, seq:N or time:ISO8601");
    if (call->node->queue == NULL && options->queue_requests != 0)
        return fail_options(call, XY_STR(QUEUE_REQUESTS), "this node is no queue");
    if (options->queue_requests > QUEUE_REQUESTS_MAX)
        return fail_options(call, XY_STR(QUEUE_REQUESTS), "10000 at most");
    struct xy_str what = XY_STR_NONE;
    const char *why = delivery_options_wrong(options, call->name, &what);
    if (why == NULL)
        return true;
    struct xy_str name = xy_arena_printf(call->arena, "{" NS_XYLEM_DELIVERY "}%.*s", XY_ARG(what));
    return fail_options(call, name.data != NULL ? name : what, why);
}

/* XEP-0254 2.1: a consumer says how much it takes. true: this one did not, and is refused with the form to fill in. */
static bool unconfigured(struct call *call, const struct subscription_options *options)
{
    if (call->node->queue == NULL || options->queue_requests != 0)
        return false;
    struct xy_error error = xy_error_make(XY_NOT_ACCEPTABLE, "say how many items you take at a time");
    error.app = "configuration-required";
    error.app_ns = NS_PUBSUB_ERRORS;
    struct xy_elem *reply = xy_error_reply(call->arena, &(*call->request)->stanza, &error);
    struct xy_elem *pubsub = xy_elem_new(call->arena, XY_STR("pubsub"), XY_STR(NS_PUBSUB));
    static const char *const parts[] = { "subscribe", "options" };
    for (size_t i = 0; i < 2; i++) {
        struct xy_elem *part = xy_elem_add(call->arena, pubsub, parts[i], NS_PUBSUB);
        xy_elem_set(call->arena, part, "jid", xy_elem_attr(call->action, "jid"));
        xy_elem_set(call->arena, part, "node", call->name);
        if (i == 0)
            continue;
        struct xy_elem *x = xy_form_new(call->arena, "form", OPTIONS_FORM);
        struct xy_elem *field = xy_form_add(call->arena, x, XY_STR(QUEUE_REQUESTS), "text-single",
                                            "How many items are processed at a time", XY_STR_NONE);
        (void)xy_elem_add(call->arena, field, "required", NULL);
        xy_elem_append(part, x);
    }
    if (reply == NULL || xy_arena_failed(call->arena)) {
        call_no_room(call);
        return true;
    }
    xy_elem_append(reply, pubsub);
    call_reply(call, reply);
    return true;
}

/* The <options/> beside <subscribe/> (6.3.7). *given: there is a form. */
static bool read_companion(struct call *call, struct xy_form *form, bool *given)
{
    const struct xy_elem *options = xy_elem_next_is(call->action, "options", NS_PUBSUB);
    bool cancelled = true;
    *form = (struct xy_form){ 0 };
    if (options != NULL &&
        (xy_str_present(xy_elem_attr(options, "node")) || xy_str_present(xy_elem_attr(options, "jid")))) {
        call_fail(call, XY_BAD_REQUEST, NULL, "<options/> beside <subscribe/> must not have node or jid");
        return false;
    }
    if (options != NULL && !call_form(call, options, OPTIONS_FORM, form, &cancelled))
        return false;
    *given = !cancelled;
    return true;
}

/* --- subscribe ------------------------------------------------------------------------------------------------------- */

static bool may_subscribe(struct call *call, struct xy_jid *jid)
{
    enum affiliation affiliation = call_affiliation(call);
    if (!call_jid(call, call->action, jid)) {
        call_fail(call, XY_BAD_REQUEST, "invalid-jid",
                  "say who subscribes: jid='user@domain' or with a resource");
    } else if (!xy_str_eq(xy_jid_bare(*jid), call->who)) {
        call_fail(call, XY_BAD_REQUEST, "invalid-jid", "you may subscribe your own JID only");
    } else if (affiliation == AFFILIATION_OUTCAST || affiliation == AFFILIATION_PUBLISH_ONLY) {
        call_fail(call, XY_FORBIDDEN, NULL, "you may not subscribe to this node");
    } else if (!node_may_read(call->node, affiliation)) {
        call_fail(call, XY_NOT_ALLOWED, "closed-node", "this node is open to those on its whitelist only");
    } else if (!call->node->config.subscribe) {
        call_unsupported(call, "subscribe", "this node takes no subscriptions (pubsub#subscribe)");
    } else {
        return true;
    }
    return false;
}

static struct subscription *existing(const struct node *node, struct xy_jid jid)
{
    const struct subscriber *subscriber = node_subscriber(node, xy_jid_bare(jid));
    for (struct subscription *s = subscriber != NULL ? subscriber->subscriptions : NULL; s != NULL;
         s = s->next)
        if (xy_str_eq(s->jid, xy_jid_full(jid)))
            return s;
    return NULL;
}

/* Its record is on disk: from here on it gets events. */
struct activation {
    uint64_t node;
    uint64_t ticket;
    uint32_t number;
};

static void on_active(struct shard *shard, void *payload)
{
    const struct activation *activation = payload;
    struct node *node = node_by_number(shard->pubsub, activation->node);
    struct subscription *subscription = node != NULL ? node_subscription(node, activation->number) : NULL;
    if (subscription == NULL || subscription->active || subscription->ticket != activation->ticket)
        return; /* ended, or changed since: a later call is due */
    struct subscriber *subscriber = subscription->subscriber;
    subscription->active = true;
    routes_changed_for(node, subscriber);
    for (size_t i = 0;
         subscription->last_wanted && !subscription_claims(subscription) && i < subscriber->reached_count;
         i++)
        if (subscription_reaches(subscription, &subscriber->reached[i]))
            routes_send_last(node, &subscriber->reached[i]);
    if (subscriber->heard)
        subscription->last_wanted = false;
    claim_sessions_changed(subscription);
}

void subscription_activate(struct subscription *subscription)
{
    struct node *node = subscription->subscriber->node;
    struct activation activation = { node->number, node->ticket, subscription->number };
    subscription->active = false;
    subscription->ticket = node->ticket;
    shard_when_committed(node->pubsub->shard, node->ticket, on_active, &activation, sizeof(activation));
}

static void make_subid(struct shard *shard, char subid[SUBID_LEN + 1])
{
    unsigned char random[SUBID_LEN / 2];
    xy_random(shard->env, random, sizeof(random));
    xy_hex_encode(subid, random, sizeof(random));
    subid[SUBID_LEN] = '\0';
}

static void begin(struct subscription *subscription)
{
    struct node *node = subscription->subscriber->node;
    struct start start;
    if (!start_parse(subscription->options.start, &start))
        start.kind = START_NEW;
    subscription->start_seq = claim_first_seq(node, &start);
    claim_begin(subscription, subscription->start_seq);
}

/* As a consumer, if the node is a queue. NULL: memory is short. */
static struct subscription *join(struct node *node, struct xy_jid jid, struct subscription_options *options)
{
    struct subscription *subscription = node_add_subscription(node, jid, 0, options);
    if (subscription == NULL || node->queue == NULL || queue_join(subscription))
        return subscription;
    node_drop_subscription(node, subscription);
    return NULL;
}

struct subscription *subscription_add(struct call *call, struct xy_jid jid,
                                      struct subscription_options *options, bool *full)
{
    struct node *node = call->node;
    uint32_t number = node->next_number;
    enum quota_verdict verdict = quota_add_subscription(node, xy_jid_bare(jid));
    *full = verdict == QUOTA_FULL;
    struct subscription *subscription = verdict == QUOTA_TAKEN ? join(node, jid, options) : NULL;
    if (verdict == QUOTA_TAKEN && subscription == NULL)
        quota_drop_subscription(node, xy_jid_bare(jid), number);
    if (subscription == NULL)
        return NULL;
    make_subid(call->shard, subscription->subid);
    subscription->last_wanted = node->config.send_last != SEND_LAST_NEVER;
    if (subscription_durable(subscription))
        begin(subscription);
    record_subscription(node, subscription);
    if (!subscription->subscriber->heard && subscription->next == NULL)
        routes_watch(subscription->subscriber);
    subscription_activate(subscription);
    notify_owners(node, subscription->jid, "subscribed");
    return subscription;
}

/* It stays, at most once: the store must forget what it owed. */
static void end_claim(struct subscription *subscription)
{
    const struct claim_ops *ops = subscription->claim.ops;
    claim_end(subscription);
    if (ops->record != NULL)
        (void)ops->record(subscription, false);
}

/* New options for one that is there. Its mode may change: then it starts anew, or its claims end. */
static bool change(struct call *call, struct subscription *subscription, const struct xy_form *form)
{
    struct node *node = call->node;
    struct subscription_options options;
    if (!options_copy(subscription_options, &options, &subscription->options)) {
        call_no_room(call);
        return false;
    }
    if (!read_options(call, &options, form) || unconfigured(call, &options)) {
        options_free(subscription_options, &options);
        return false;
    }
    if (!claim_prepare(subscription, &options)) {
        options_free(subscription_options, &options);
        call_no_room(call);
        return false;
    }
    bool was = subscription_durable(subscription);
    if (was && options.mode != MODE_AT_LEAST_ONCE)
        end_claim(subscription);
    options_free(subscription_options, &subscription->options);
    subscription->options = options;
    if (!was && subscription_durable(subscription)) {
        begin(subscription);
        record_cursor(node, subscription);
    } else if (was && subscription_durable(subscription)) {
        claim_configured(subscription);
    }
    if (subscription->worker != NULL)
        queue_worker_changed(subscription);
    record_subscription(node, subscription);
    routes_changed_for(node, subscription->subscriber);
    if (!was && subscription_durable(subscription))
        subscription_activate(subscription); /* nothing is sent under options that a crash would take back */
    else
        claim_sessions_changed(subscription);
    return true;
}

bool subscription_room(const struct call *call, struct xy_str bare)
{
    const struct config_limits *limits = &call->shard->config->limits;
    const struct subscriber *subscriber = node_subscriber(call->node, bare);
    return call->node->subscriptions_count < limits->subscriptions_per_node &&
           (subscriber == NULL || subscriber->subscriptions_count < limits->subscriptions_per_subscriber);
}

/* Who was told that it is subscribed gets what is published next, so the answer waits until its sessions are known. */
static void answer(struct call *call, struct subscription *subscription, bool with_options)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    (void)subscription_elem(call->arena, pubsub, subscription, true);
    if (with_options) {
        struct xy_elem *options = xy_elem_add(call->arena, pubsub, "options", NS_PUBSUB);
        xy_elem_append(options, options_form(call->arena, subscription_options, &subscription->options,
                                             "result", OPTIONS_FORM));
    }
    if (subscription->subscriber->heard || subscription->asked != NULL) {
        call_reply(call, result);
        return;
    }
    request_record_answer(call->shard, *call->request, result);
    subscription->asked = *call->request;
    subscription->answer = result;
    *call->request = NULL;
}

static void fail_too_many(struct call *call, const char *text)
{
    stat_add(call->shard, subscriptions_refused, 1);
    call_fail_type(call, XY_POLICY_VIOLATION, XY_ERROR_WAIT, "too-many-subscriptions", text);
}

void subscribe(struct call *call)
{
    struct xy_jid jid;
    struct xy_form form;
    struct subscription_options options;
    bool given;
    if (!may_subscribe(call, &jid) || !read_companion(call, &form, &given) ||
        !call_room(call, RECORD_OVERHEAD + (*call->request)->stanza.bytes))
        return;
    struct subscription *subscription = call->node->config.multi_subscribe ? NULL : existing(call->node, jid);
    if (subscription != NULL) {
        if (!given || change(call, subscription, &form))
            answer(call, subscription, given);
        return;
    }
    if (!subscription_room(call, xy_jid_bare(jid))) {
        fail_too_many(call,
                      "this node has as many subscriptions, of all or of yours, as it may; end one first");
        return;
    }
    if (!options_init(subscription_options, &options)) {
        call_no_room(call);
        return;
    }
    if ((given && !read_options(call, &options, &form)) || unconfigured(call, &options)) {
        options_free(subscription_options, &options);
        return;
    }
    bool full;
    subscription = subscription_add(call, jid, &options, &full);
    if (subscription == NULL) {
        options_free(subscription_options, &options);
        if (full)
            fail_too_many(call,
                          "this account has as many subscriptions as it may, over all nodes; end one first");
        else
            call_no_room(call);
        return;
    }
    answer(call, subscription, given);
}

/* --- the subscription a request means -------------------------------------------------------------------------------- */

static struct subscription *meant(struct call *call, enum xy_error_type no_subscriber)
{
    struct xy_jid jid;
    struct subscription *found = NULL;
    struct xy_str subid = xy_elem_attr(call->action, "subid");
    if (!xy_str_present(xy_elem_attr(call->action, "jid"))) {
        call_fail(call, XY_BAD_REQUEST, "jid-required", "say whose subscription: jid='…'");
        return NULL;
    }
    if (!call_jid(call, call->action, &jid)) {
        call_fail(call, XY_BAD_REQUEST, "invalid-jid", "that is not a JID");
        return NULL;
    }
    if (!xy_str_eq(xy_jid_bare(jid), call->who)) {
        call_fail(call, XY_FORBIDDEN, NULL, "that is somebody else's subscription");
        return NULL;
    }
    size_t count = 0;
    const struct subscriber *subscriber = node_subscriber(call->node, xy_jid_bare(jid));
    for (struct subscription *s = subscriber != NULL ? subscriber->subscriptions : NULL; s != NULL;
         s = s->next) {
        if (!xy_str_eq(s->jid, xy_jid_full(jid)))
            continue;
        count++;
        if (found == NULL || xy_str_is(subid, s->subid))
            found = s;
    }
    if (count == 0)
        call_fail_type(call, XY_UNEXPECTED_REQUEST, no_subscriber, "not-subscribed",
                       "there is no such subscription");
    else if (subid.len == 0 && count > 1)
        call_fail(call, XY_BAD_REQUEST, "subid-required", "there are several: say which by subid='…'");
    else if (subid.len > 0 && !xy_str_is(subid, found->subid))
        call_fail(call, XY_NOT_ACCEPTABLE, "invalid-subid", "there is no subscription of that subid");
    else
        return found;
    return NULL;
}

void subscription_end(struct node *node, struct subscription *subscription, bool notify)
{
    record_subscription_remove(node, subscription);
    quota_drop_subscription(node, subscription->subscriber->bare, subscription->number);
    if (notify)
        subscription_notify(node, subscription->subscriber, subscription->jid, xy_str(subscription->subid),
                            "none");
    notify_owners(node, subscription->jid, "none");
    routes_changed_for(node, subscription->subscriber);
    if (subscription->claim.ops != NULL)
        claim_end(subscription);
    node_drop_subscription(node, subscription);
}

void subscriptions_recheck(struct node *node)
{
    size_t position = 0;
    for (struct subscription *s; (s = node_next_subscription(node, &position)) != NULL;)
        if (!node_may_read(node, node_affiliation(node, s->subscriber->bare)))
            subscription_end(node, s, true);
}

void unsubscribe(struct call *call)
{
    struct subscription *subscription = meant(call, XY_ERROR_CANCEL);
    if (subscription == NULL)
        return;
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    xy_elem_set(call->arena, subscription_elem(call->arena, pubsub, subscription, true), "subscription",
                XY_STR("none"));
    subscription_end(call->node, subscription, false);
    call_reply(call, result);
}

/* --- options of a subscription ----------------------------------------------------------------------------------------- */

static void answer_options(struct call *call, const char *name, const struct subscription_options *options,
                           const struct subscription *subscription)
{
    struct xy_elem *pubsub;
    struct xy_elem *result = call_result(call, NS_PUBSUB, &pubsub);
    struct xy_elem *elem = xy_elem_add(call->arena, pubsub, name, NS_PUBSUB);
    if (call->name.len > 0)
        xy_elem_set(call->arena, elem, "node", call->name);
    if (subscription != NULL) {
        xy_elem_set(call->arena, elem, "jid", subscription->jid);
        xy_elem_set(call->arena, elem, "subid", xy_str(subscription->subid));
    }
    xy_elem_append(elem, options_form(call->arena, subscription_options, options, "form", OPTIONS_FORM));
    call_reply(call, result);
}

void options_get(struct call *call)
{
    const struct subscription *subscription = meant(call, XY_ERROR_MODIFY);
    if (subscription != NULL)
        answer_options(call, "options", &subscription->options, subscription);
}

void options_set(struct call *call)
{
    struct subscription *subscription = meant(call, XY_ERROR_MODIFY);
    struct xy_form form;
    bool cancelled;
    if (subscription == NULL || !call_form(call, call->action, OPTIONS_FORM, &form, &cancelled) ||
        !call_room(call, RECORD_OVERHEAD + (*call->request)->stanza.bytes))
        return;
    if (cancelled || change(call, subscription, &form))
        call_reply(call, NULL);
}

void default_options_get(struct call *call)
{
    struct subscription_options options;
    if (!options_init(subscription_options, &options)) {
        call_no_room(call);
        return;
    }
    answer_options(call, "default", &options, NULL);
    options_free(subscription_options, &options);
}
