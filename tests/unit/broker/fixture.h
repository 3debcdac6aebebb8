/* A broker without sockets for tests of its rooms: shards driven by hand, a store in memory, a clock that the test
 * moves, and sessions that are nothing but a record of what reached them. */
#pragma once

#include "tests/unit/unit.h"

#include "broker/config.h"
#include "broker/delivery/delivery.h"
#include "broker/delivery/sessions.h"
#include "broker/router/accounts.h"
#include "broker/router/address.h"
#include "broker/router/router.h"
#include "broker/shard/shard.h"
#include "broker/shard/stats.h"
#include "broker/shard/workers.h"
#include "broker/store/backend.h"
#include "broker/store/store.h"
#include "core/xml/parser.h"
#include "xylem/store/v1/records.pb-c.h"

#define FIXTURE_SHARDS_MAX   4
#define FIXTURE_SESSIONS_MAX 64
#define FIXTURE_EVENTS_MAX   4096

/* What reached a session. */
struct fixture_event {
    struct session_ref session;
    enum { SENT = 1, MESSAGE, BOUND, REFUSED, CLOSED, HANDLED, KEPT, RESUMPTION } kind;
    char *text;   /* stanza, full JID, or name of the condition */
    uint64_t seq; /* MESSAGE: mailbox number; HANDLED: inbound */
};

struct fixture {
    unsigned count;
    struct config *config;
    struct store_memory *memory;
    struct store *store;
    struct shard_group *group;
    struct workers *workers;
    uint64_t now_us, wall_us, random;
    struct xy_env env;
    struct fixture_event events[FIXTURE_EVENTS_MAX];
    size_t events_count;
    size_t looked_at;                  /* by fixture_next */
    bool copied[FIXTURE_SESSIONS_MAX]; /* what session_set_copied said last */
    struct session_ref live;           /* of the newest RESUMPTION: */
    struct session_past *past;
    uint32_t sessions;           /* indexes given out */
    enum session_verdict offers; /* what sessions say to an offer */
    bool hold_commits;           /* fixture_run commits nothing */
};

static struct fixture *fixture_now; /* the callbacks have no context */

/* --- world ---------------------------------------------------------------------------------------------------------- */

static uint64_t fixture_now_us(void *ctx)
{
    return ((struct fixture *)ctx)->now_us;
}

static uint64_t fixture_wall_us(void *ctx)
{
    struct fixture *f = ctx;
    return f->wall_us + f->now_us;
}

static void fixture_random(void *ctx, void *out, size_t len)
{
    struct fixture *f = ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)unit_below(&f->random, 256);
}

static void fixture_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void fixture_committed(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void fixture_failed(void *ctx, const char *why)
{
    (void)ctx;
    fail_msg("the store failed: %s", why);
}

/* --- sessions ------------------------------------------------------------------------------------------------------- */

static void fixture_record(struct session_ref session, int kind, struct xy_str text, uint64_t seq)
{
    struct fixture *f = fixture_now;
    assert_true(f->events_count < FIXTURE_EVENTS_MAX);
    struct fixture_event *event = &f->events[f->events_count++];
    event->session = session;
    event->kind = kind;
    event->text = strndup(text.data ? text.data : "", text.len);
    event->seq = seq;
}

static void fixture_send(struct shard *shard, struct session_ref session, struct xy_bytes **stanza)
{
    assert_int_equal(shard->index, session.shard);
    fixture_record(session, SENT, xy_bytes_view(*stanza), 0);
    xy_bytes_unref(stanza);
}

static void fixture_send_message(struct shard *shard, struct session_ref session, struct xy_str bare,
                                 struct xy_bytes **stanza, uint64_t mailbox_seq)
{
    assert_int_equal(shard->index, session.shard);
    assert_true(bare.len > 0);
    fixture_record(session, MESSAGE, xy_bytes_view(*stanza), mailbox_seq);
    xy_bytes_unref(stanza);
}

static enum session_verdict fixture_offer(struct shard *shard, struct session_ref session,
                                          struct session_offer *offer)
{
    assert_int_equal(shard->index, session.shard);
    if (fixture_now->offers == SESSION_TOOK) {
        fixture_record(session, SENT, xy_bytes_view(offer->stanza), 0);
        xy_bytes_unref(&offer->stanza);
    }
    return fixture_now->offers;
}

static void fixture_bound(struct shard *shard, struct session_ref session, struct xy_jid jid,
                          const struct xy_error *error)
{
    assert_int_equal(shard->index, session.shard);
    if (xy_jid_present(jid))
        fixture_record(session, BOUND, xy_jid_full(jid), 0);
    else
        fixture_record(session, REFUSED, xy_str(xy_condition_name(error->condition)), 0);
}

static void fixture_close(struct shard *shard, struct session_ref session, enum xy_stream_error error,
                          const char *text)
{
    (void)shard;
    (void)text;
    fixture_record(session, CLOSED, xy_str(xy_stream_error_name(error)), 0);
}

static void fixture_handled(struct shard *shard, struct session_ref session, struct session_inbound inbound)
{
    (void)shard;
    fixture_record(session, HANDLED, XY_STR(inbound.recorded ? "recorded" : ""), inbound.number);
}

static void fixture_answer(struct shard *shard, struct session_ref session, struct xy_bytes **stanza,
                           struct session_inbound inbound)
{
    fixture_send(shard, session, stanza);
    if (inbound.number != 0)
        fixture_handled(shard, session, inbound);
}

static void fixture_kept(struct shard *shard, struct session_ref session, bool kept)
{
    assert_int_equal(shard->index, session.shard);
    fixture_record(session, KEPT, XY_STR(kept ? "kept" : ""), 0);
}

static void fixture_resumption(struct shard *shard, struct session_ref session,
                               struct session_resumption *resumption)
{
    assert_int_equal(shard->index, session.shard);
    fixture_record(session, RESUMPTION, XY_STR(""), 0);
    session_past_free(&fixture_now->past);
    fixture_now->live = resumption->live;
    fixture_now->past = resumption->past;
    resumption->past = NULL;
}

static void fixture_copied(struct shard *shard, struct session_ref session, bool copied)
{
    assert_int_equal(shard->index, session.shard);
    assert_true(session.index < FIXTURE_SESSIONS_MAX);
    fixture_now->copied[session.index] = copied;
}

static const struct session_calls fixture_calls = {
    .send = fixture_send,
    .send_message = fixture_send_message,
    .send_presence = fixture_send,
    .offer = fixture_offer,
    .bound = fixture_bound,
    .close = fixture_close,
    .handled = fixture_handled,
    .answer = fixture_answer,
    .kept = fixture_kept,
    .resumption = fixture_resumption,
    .copied = fixture_copied,
};

/* --- beginning and end ---------------------------------------------------------------------------------------------- */

static inline void fixture_start(struct fixture *f)
{
    struct xy_buf error = { 0 };
    struct store_options store = {
        .backend = store_memory_backend(f->memory),
        .shards = f->count,
        .env = &f->env,
        .committed = fixture_committed,
        .failed = fixture_failed,
    };
    f->store = store_open(&store, &error);
    if (!f->store)
        fail_msg("store_open: %.*s", XY_ARG(xy_buf_view(&error)));
    xy_buf_free(&error);
    struct shard_group_options group = {
        .count = f->count,
        .env = &f->env,
        .config = f->config,
        .store = f->store,
        .hash_seed = 7,
        .wake = fixture_wake,
    };
    f->group = shard_group_new(&group);
    f->workers = workers_new(f->group, 0);
    for (unsigned i = 0; i < f->count; i++) {
        struct shard *shard = shard_group_get(f->group, i);
        shard->workers = f->workers;
        session_set_calls(shard, &fixture_calls);
        assert_true(router_init(shard));
    }
}

static inline struct fixture *fixture_new(unsigned count, const char *config)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct xy_buf errors = { 0 };
    fixture_now = f;
    f->count = count;
    f->now_us = 1000000;
    f->wall_us = UINT64_C(1767225600000000); /* 2026-01-01T00:00:00Z */
    f->random = 42;
    f->offers = SESSION_TOOK;
    f->env = (struct xy_env){ fixture_now_us, fixture_wall_us, fixture_random, f };
    char text[1024];
    (void)snprintf(text, sizeof(text), "%s data_dir = \"/nowhere\"; %s",
                   strstr(config, "domains") ? "" : "domain = \"example.org\";", config);
    if (!config_parse("test", xy_str(text), &f->config, &errors))
        fail_msg("%.*s", XY_ARG(xy_buf_view(&errors)));
    f->memory = store_memory_new();
    fixture_start(f);
    return f;
}

/* Everything until nothing moves any more. */
static inline void fixture_run(struct fixture *f)
{
    for (int round = 0; round < 10000; round++) {
        bool moved = false;
        for (unsigned i = 0; i < f->count; i++)
            moved |= shard_turn(shard_group_get(f->group, i)) == 0;
        while (workers_step(f->workers))
            moved = true;
        if (!f->hold_commits)
            moved |= store_step_commit(f->store);
        for (unsigned i = 0; i < f->count; i++)
            moved |= shard_has_mail(shard_group_get(f->group, i));
        if (!moved)
            return;
    }
    fail_msg("the shards do not come to rest");
}

static inline void fixture_sleep(struct fixture *f, uint64_t us)
{
    f->now_us += us;
    fixture_run(f);
}

static inline void fixture_stop(struct fixture *f)
{
    fixture_run(f);
    for (unsigned i = 0; i < f->count; i++)
        router_free(shard_group_get(f->group, i));
    workers_free(&f->workers);
    shard_group_free(&f->group);
    store_close(&f->store);
}

/* The broker stops and starts again with what the store kept. */
static inline void fixture_restart(struct fixture *f)
{
    fixture_stop(f);
    fixture_start(f);
}

static inline void fixture_free(struct fixture **f)
{
    fixture_stop(*f);
    session_past_free(&(*f)->past);
    store_memory_free(&(*f)->memory);
    config_free(&(*f)->config);
    for (size_t i = 0; i < (*f)->events_count; i++)
        free((*f)->events[i].text);
    free(*f);
    *f = NULL;
}

/* --- accounts and sessions ------------------------------------------------------------------------------------------ */

static inline struct shard *fixture_owner(struct fixture *f, const char *bare)
{
    struct shard *first = shard_group_get(f->group, 0);
    return shard_group_get(f->group, shard_owner(first, xy_str(bare)));
}

/* Without keys: nobody logs in here. */
static inline void fixture_account(struct fixture *f, const char *bare)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t)bare;
    put.created_us = 1;
    store_append(fixture_owner(f, bare)->store, RECORD_ACCOUNT_PUT, &put.base);
    fixture_run(f);
}

static inline struct session_ref fixture_session(struct fixture *f)
{
    uint32_t index = f->sessions++;
    return (struct session_ref){ .index = index, .generation = 1, .shard = index % f->count };
}

static inline struct shard *fixture_home(struct fixture *f, struct session_ref session)
{
    return shard_group_get(f->group, session.shard);
}

static inline struct session_ref fixture_bind(struct fixture *f, const char *bare, const char *resource)
{
    struct session_ref session = fixture_session(f);
    address_bind(fixture_home(f, session), session, xy_str(bare), xy_str(resource));
    fixture_run(f);
    return session;
}

/* A session says something. `from` is its full JID; `inbound` != 0: it has XEP-0198. Not run yet. */
static inline void fixture_post(struct fixture *f, struct session_ref session, const char *from,
                                uint32_t inbound, const char *xml)
{
    struct shard *shard = fixture_home(f, session);
    struct xy_xml_parser *parser = xy_xml_new(&(struct xy_xml_options){ .stanza_bytes_max = 1u << 20 });
    struct xy_xml_event event;
    char text[16384];
    int len = snprintf(text, sizeof(text), "<stream xmlns='jabber:client'>%s", xml);
    assert_true(len > 0 && (size_t)len < sizeof(text));
    xy_xml_feed(parser, text, (size_t)len);
    xy_xml_next(parser, &event);
    assert_int_equal(event.kind, XY_XML_OPEN);
    xy_arena_free(&event.arena);
    xy_xml_next(parser, &event);
    assert_int_equal(event.kind, XY_XML_ELEMENT);
    struct xy_stanza stanza;
    assert_int_equal(xy_stanza_read(event.arena, event.elem, &stanza), XY_STANZA_OK);
    struct xy_jid jid;
    assert_true(xy_jid_parse(event.arena, xy_str(from), &jid));
    xy_stanza_set_from(&stanza, jid);
    struct request *request = request_new(stanza, session, (struct session_inbound){ .number = inbound });
    request->copied = session.index < FIXTURE_SESSIONS_MAX && f->copied[session.index];
    xy_xml_free(&parser);
    router_route(shard, &request);
}

static inline void fixture_say(struct fixture *f, struct session_ref session, const char *from,
                               uint32_t inbound, const char *xml)
{
    fixture_post(f, session, from, inbound, xml);
    fixture_run(f);
}

/* --- looking -------------------------------------------------------------------------------------------------------- */

/* The next event of this session not looked at; NULL: none. Events of others are passed over and stay. */
static inline struct fixture_event *fixture_event_of(struct fixture *f, struct session_ref session, int kind)
{
    for (size_t i = 0; i < f->events_count; i++) {
        struct fixture_event *event = &f->events[i];
        if ((int)event->kind == kind && session_ref_eq(event->session, session)) {
            event->kind = 0; /* looked at */
            return event;
        }
    }
    return NULL;
}

static inline void fixture_forget(struct fixture *f)
{
    for (size_t i = 0; i < f->events_count; i++)
        free(f->events[i].text);
    f->events_count = 0;
}

/* Stanzas of either kind that reached the session and were not looked at. */
static inline size_t fixture_stanzas(const struct fixture *f, struct session_ref session)
{
    size_t count = 0;
    for (size_t i = 0; i < f->events_count; i++)
        count += (f->events[i].kind == SENT || f->events[i].kind == MESSAGE) &&
                 session_ref_eq(f->events[i].session, session);
    return count;
}

#define assert_contains(text, what)                                                                          \
    do {                                                                                                     \
        const char *text_ = (text);                                                                          \
        if (!text_ || !strstr(text_, (what)))                                                                \
            fail_msg("\"%s\" is not in \"%s\"", (what), text_ ? text_ : "(nothing)");                        \
    } while (0)
