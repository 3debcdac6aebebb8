/* A broker without sockets for the tests of pubsub: real shards, store (in memory), router and addresses on a virtual
 * clock; sessions are played by the test. What sessions are told is recorded as it comes, line by line. */
#pragma once

#include "tests/unit/unit.h"

#include <string.h>

#include "broker/config.h"
#include "broker/delivery/delivery.h"
#include "broker/delivery/sessions.h"
#include "broker/pubsub/node/node.h"
#include "broker/router/address.h"
#include "broker/router/router.h"
#include "broker/store/backend.h"
#include "core/namespaces.h"
#include "core/xml/parser.h"
#include "core/xml/writer.h"

#define RIG_SEEN_MAX 4096
#define RIG_SESSIONS 64

/* What a session was told about events. */
struct seen {
    const char *what; /* publish, notify, one, attach, detach */
    uint32_t session, claim, attempt;
    unsigned flags; /* attach: CLAIM_*; publish: ROUTE_* */
    uint16_t run;
    uint64_t seq;
    bool page_end, delayed;
    struct claim_key key;
    char body[512];
};

struct rig {
    struct xy_env env;
    uint64_t now_us, random;
    struct config *config;
    struct store_memory *memory;
    struct store *store;
    struct shard_group *group;
    unsigned shards;
    struct seen seen[RIG_SEEN_MAX];
    size_t seen_count;
    char answer[64 * 1024]; /* the last stanza sent to a session */
    uint32_t answers;
    bool recorded;   /* a crash would remember that what the last one answers was handled */
    bool kept;       /* sessions outlive a restart */
    uint64_t number; /* of the last stanza of theirs */
};

static struct rig *the_rig; /* calls of sessions come without a context */

static inline struct shard *rig_shard(struct rig *rig, unsigned index)
{
    return shard_group_get(rig->group, index);
}

/* --- the world ----------------------------------------------------------------------------------------------------- */

static uint64_t rig_now(void *ctx)
{
    return ((struct rig *)ctx)->now_us;
}

static uint64_t rig_wall(void *ctx)
{
    return 1700000000000000ull + ((struct rig *)ctx)->now_us;
}

static void rig_random(void *ctx, void *out, size_t len)
{
    struct rig *rig = ctx;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)out)[i] = (unsigned char)unit_random(&rig->random);
}

static void rig_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void rig_committed(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void rig_store_failed(void *ctx, const char *why)
{
    (void)ctx;
    fail_msg("store failed: %s", why);
}

/* --- sessions: what they are told ---------------------------------------------------------------------------------- */

static struct seen *rig_see(const char *what, const struct event *event)
{
    assert_true(the_rig->seen_count < RIG_SEEN_MAX);
    struct seen *seen = &the_rig->seen[the_rig->seen_count++];
    *seen = (struct seen){ .what = what };
    if (event != NULL) {
        struct xy_str body = event_body(event);
        (void)snprintf(seen->body, sizeof(seen->body), "%.*s", XY_ARG(body));
        seen->seq = event->seq;
        seen->delayed = event->delay_us != 0;
    }
    return seen;
}

static void rig_on_send(struct shard *shard, struct session_ref session, struct xy_bytes **stanza)
{
    (void)shard;
    if (session.index == 0) { /* who asks in these tests */
        (void)snprintf(the_rig->answer, sizeof(the_rig->answer), "%.*s", (int)(*stanza)->len,
                       (*stanza)->data);
        the_rig->answers++;
    }
    xy_bytes_unref(stanza);
}

static void rig_on_message(struct shard *shard, struct session_ref session, struct xy_str bare,
                           struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    (void)bare;
    (void)mailbox_seq;
    rig_on_send(shard, session, stanza);
}

static enum session_verdict rig_on_offer(struct shard *shard, struct session_ref session,
                                         struct session_offer *offer)
{
    rig_on_send(shard, session, &offer->stanza);
    return SESSION_TOOK;
}

static void rig_on_bound(struct shard *shard, struct session_ref session, struct xy_jid jid,
                         const struct xy_error *error)
{
    (void)shard;
    (void)session;
    assert_non_null(jid.data);
    (void)error;
}

static void rig_on_close(struct shard *shard, struct session_ref session, enum xy_stream_error error,
                         const char *text)
{
    (void)shard;
    (void)session;
    (void)error;
    (void)text;
}

static void rig_on_handled(struct shard *shard, struct session_ref session, struct session_inbound inbound)
{
    (void)shard;
    (void)session;
    (void)inbound;
}

static void rig_on_answer(struct shard *shard, struct session_ref session, struct xy_bytes **stanza,
                          struct session_inbound inbound)
{
    the_rig->recorded = inbound.recorded;
    rig_on_send(shard, session, stanza);
}

static void rig_on_publish(struct shard *shard, struct event *event, struct routes *routes)
{
    (void)shard;
    for (uint32_t i = 0; i < routes->count; i++) {
        struct seen *seen = rig_see("publish", event);
        seen->session = routes->route[i].session;
        seen->claim = routes->route[i].claim;
        seen->run = routes->route[i].run;
        seen->flags = routes->route[i].flags;
        seen->attempt = 1;
    }
}

static void rig_on_notify(struct shard *shard, struct session_ref session, struct event *event)
{
    (void)shard;
    rig_see("notify", event)->session = session.index;
}

static void rig_on_attach(struct shard *shard, struct session_ref session, const struct claim_key *key,
                          unsigned flags, struct xy_str subid)
{
    (void)shard;
    assert_int_equal(subid.len, SUBID_LEN);
    struct seen *seen = rig_see("attach", NULL);
    seen->session = session.index;
    seen->key = *key;
    seen->flags = flags;
}

static void rig_on_one(struct shard *shard, struct session_ref session, uint32_t claim, uint16_t run,
                       struct event *event, uint32_t attempt, bool page_end)
{
    (void)shard;
    struct seen *seen = rig_see("one", event);
    seen->session = session.index;
    seen->claim = claim;
    seen->run = run;
    seen->attempt = attempt;
    seen->page_end = page_end;
}

static void rig_on_detach(struct shard *shard, struct session_ref session, uint32_t claim)
{
    (void)shard;
    struct seen *seen = rig_see("detach", NULL);
    seen->session = session.index;
    seen->claim = claim;
}

static void rig_on_copied(struct shard *shard, struct session_ref session, bool copied)
{
    (void)shard;
    (void)session;
    (void)copied;
}

static const struct session_calls rig_calls = {
    .send = rig_on_send,
    .send_message = rig_on_message,
    .send_presence = rig_on_send,
    .offer = rig_on_offer,
    .bound = rig_on_bound,
    .close = rig_on_close,
    .handled = rig_on_handled,
    .answer = rig_on_answer,
    .copied = rig_on_copied,
    .publish = rig_on_publish,
    .notify = rig_on_notify,
    .attach = rig_on_attach,
    .one = rig_on_one,
    .detach = rig_on_detach,
};

/* --- start and stop -------------------------------------------------------------------------------------------------- */

static inline void rig_start(struct rig *rig)
{
    struct xy_buf error = { 0 };
    struct store_options options = { .backend = store_memory_backend(rig->memory),
                                     .shards = rig->shards,
                                     .env = &rig->env,
                                     .log_bytes_max = 1u << 28,
                                     .checkpoint_bytes = 1u << 26,
                                     .checkpoint_records = 200000,
                                     .map_bytes = 1u << 30,
                                     .committed = rig_committed,
                                     .failed = rig_store_failed,
                                     .ctx = rig };
    rig->store = store_open(&options, &error);
    if (rig->store == NULL)
        fail_msg("store_open: %.*s", (int)error.len, error.data);
    struct shard_group_options group = { .count = rig->shards,
                                         .env = &rig->env,
                                         .config = rig->config,
                                         .store = rig->store,
                                         .hash_seed = 7,
                                         .wake = rig_wake,
                                         .ctx = rig };
    rig->group = shard_group_new(&group);
    assert_non_null(rig->group);
    for (unsigned i = 0; i < rig->shards; i++) {
        session_set_calls(rig_shard(rig, i), &rig_calls);
        assert_true(router_init(rig_shard(rig, i)));
        assert_true(pubsub_init(rig_shard(rig, i)));
    }
}

/* Everything that can happen without new input happens; commits included. */
static inline void rig_run(struct rig *rig)
{
    for (unsigned quiet = 0; quiet < 3;) {
        bool any = false;
        for (unsigned i = 0; i < rig->shards; i++)
            any |= shard_turn(rig_shard(rig, i)) == 0;
        any |= store_step_commit(rig->store);
        rig->now_us += 100 * 1000;
        quiet = any ? 0 : quiet + 1;
    }
}

/* Turns without a commit. */
static inline void rig_turns(struct rig *rig)
{
    for (unsigned n = 0; n < 20; n++)
        for (unsigned i = 0; i < rig->shards; i++)
            (void)shard_turn(rig_shard(rig, i));
}

static inline void rig_account(struct rig *rig, const char *jid)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t)jid;
    (void)store_append(rig_shard(rig, shard_owner(rig_shard(rig, 0), xy_str(jid)))->store, RECORD_ACCOUNT_PUT,
                       &put.base);
}

static inline struct rig *rig_new(unsigned shards)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    struct xy_buf errors = { 0 };
    assert_non_null(rig);
    the_rig = rig;
    rig->random = 88172645463325252u;
    rig->now_us = 1000000;
    rig->shards = shards;
    rig->env = (struct xy_env){ rig_now, rig_wall, rig_random, rig };
    rig->memory = store_memory_new();
    if (!config_parse("test",
                      XY_STR("domain = \"example.org\"; limits { subscriptions_per_node = 50; "
                             "nodes_per_account = 100; payload_size = 10kb; }"),
                      &rig->config, &errors))
        fail_msg("config: %.*s", (int)errors.len, errors.data);
    rig_start(rig);
    for (const char *const *name =
             (const char *const[]){ "alice@example.org", "bob@example.org", "carol@example.org", NULL };
         *name != NULL; name++)
        rig_account(rig, *name);
    rig_run(rig);
    return rig;
}

static inline void rig_stop(struct rig *rig, bool crash)
{
    for (unsigned i = 0; i < rig->shards; i++) {
        pubsub_free(rig_shard(rig, i));
        router_free(rig_shard(rig, i));
    }
    shard_group_free(&rig->group);
    if (crash)
        store_crash(&rig->store);
    else
        store_close(&rig->store);
}

static inline void rig_restart(struct rig *rig, bool crash)
{
    rig_stop(rig, crash);
    rig->seen_count = 0;
    rig_start(rig);
}

static inline void rig_free(struct rig **rig)
{
    rig_stop(*rig, false);
    store_memory_free(&(*rig)->memory);
    config_free(&(*rig)->config);
    free(*rig);
    *rig = NULL;
}

/* --- what sessions do -------------------------------------------------------------------------------------------------- */

static inline struct session_ref rig_session(uint32_t index)
{
    return (struct session_ref){ .index = index, .generation = 1, .shard = index % the_rig->shards };
}

static inline void rig_stanza(struct rig *rig, uint32_t session, const char *from, const char *xml)
{
    struct shard *shard = rig_shard(rig, rig_session(session).shard);
    struct xy_xml_options options = { .stanza_bytes_max = 1u << 20 };
    struct xy_xml_parser *parser = xy_xml_new(&options);
    struct xy_xml_event event;
    struct xy_stanza stanza;
    struct xy_jid jid;
    struct xy_buf text = { 0 };
    xy_buf_printf(&text,
                  "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>%s",
                  xml);
    xy_xml_feed(parser, text.data, text.len);
    xy_xml_next(parser, &event);
    assert_int_equal(event.kind, XY_XML_OPEN);
    if (event.arena != NULL)
        xy_arena_free(&event.arena);
    xy_xml_next(parser, &event);
    assert_int_equal(event.kind, XY_XML_ELEMENT);
    enum xy_stanza_verdict verdict = xy_stanza_read(event.arena, event.elem, &stanza);
    assert_int_equal(verdict, XY_STANZA_OK);
    stanza.bytes = strlen(xml);
    assert_true(xy_jid_parse(event.arena, xy_str(from), &jid));
    xy_stanza_set_from(&stanza, jid);
    struct session_inbound inbound = { .bytes = 1, .number = rig->kept ? ++rig->number : 0 };
    struct request *request = request_new(stanza, rig_session(session), inbound);
    assert_non_null(request);
    request->kept = rig->kept;
    router_route(shard, &request);
    xy_buf_free(&text);
    xy_xml_free(&parser);
}

/* Sends an IQ to the service and returns the answer. */
static inline const char *rig_iq(struct rig *rig, const char *from, const char *type, const char *payload)
{
    char xml[32 * 1024];
    uint32_t before = rig->answers;
    (void)snprintf(xml, sizeof(xml), "<iq type='%s' id='q' to='pubsub.example.org'>%s</iq>", type, payload);
    rig_stanza(rig, 0, from, xml);
    rig_run(rig);
    if (rig->answers != before + 1)
        fail_msg("%u answers to %s", rig->answers - before, xml);
    return rig->answer;
}

#define PUBSUB(inner) "<pubsub xmlns='" NS_PUBSUB "'>" inner "</pubsub>"
#define OWNER(inner)  "<pubsub xmlns='" NS_PUBSUB_OWNER "'>" inner "</pubsub>"

static inline void rig_has(const char *answer, const char *part, const char *file, int line)
{
    if (strstr(answer, part) != NULL)
        return;
    print_error("no %s in %s\n", part, answer);
    _fail(file, line);
}
#define assert_has(answer, part) rig_has((answer), (part), __FILE__, __LINE__)

static inline const char *rig_ok(struct rig *rig, const char *from, const char *type, const char *payload)
{
    const char *answer = rig_iq(rig, from, type, payload);
    rig_has(answer, "type='result'", payload, 0);
    return answer;
}

/* A session binds and becomes available. */
static inline void rig_online(struct rig *rig, uint32_t session, const char *bare, const char *resource,
                              int priority, bool sm)
{
    char xml[128], full[256];
    struct session_ref ref = rig_session(session);
    struct shard *shard = rig_shard(rig, ref.shard);
    address_bind(shard, ref, xy_str(bare), xy_str(resource));
    rig_run(rig);
    if (sm)
        address_set_sm(shard, ref, xy_str(bare), true);
    (void)snprintf(full, sizeof(full), "%s/%s", bare, resource);
    (void)snprintf(xml, sizeof(xml), "<presence><priority>%d</priority></presence>", priority);
    rig_stanza(rig, session, full, xml);
    rig_run(rig);
}

static inline void rig_offline(struct rig *rig, uint32_t session, const char *bare)
{
    struct session_ref ref = rig_session(session);
    address_unbind(rig_shard(rig, ref.shard), ref, xy_str(bare));
    rig_run(rig);
}

static inline struct node *rig_node(struct rig *rig, const char *name)
{
    unsigned owner = shard_owner(rig_shard(rig, 0), xy_str(name));
    return node_get(rig_shard(rig, owner)->pubsub, xy_str(name));
}

static inline void rig_publish(struct rig *rig, const char *node, const char *id)
{
    char xml[512];
    (void)snprintf(xml, sizeof(xml),
                   PUBSUB("<publish node='%s'><item id='%s'><e xmlns='urn:e'>%s</e></item></publish>"), node,
                   id, id);
    (void)rig_ok(rig, "alice@example.org/a", "set", xml);
}

/* How many of the recorded calls are `what`, and the last of them. */
static inline size_t rig_count(const struct rig *rig, const char *what, const struct seen **last)
{
    size_t count = 0;
    if (last != NULL)
        *last = NULL;
    for (size_t i = 0; i < rig->seen_count; i++) {
        if (strcmp(rig->seen[i].what, what) != 0)
            continue;
        count++;
        if (last != NULL)
            *last = &rig->seen[i];
    }
    return count;
}
