/* What the tests of sessions share: a broker without sockets. Shards are driven by hand, the store is in memory, the
 * clock is the test's; router, addresses and sessions are the real ones. Clients are wires: links that record what was
 * written to them and can refuse to take it. They log in by SASL EXTERNAL on the local socket, which costs nothing. */
#pragma once

#include "tests/unit/unit.h"

#include <string.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/delivery/delivery.h"
#include "broker/net/link.h"
#include "broker/router/accounts.h"
#include "broker/router/router.h"
#include "broker/session/session_internal.h"
#include "broker/shard/stats.h"
#include "broker/shard/workers.h"
#include "broker/store/backend.h"
#include "broker/store/store.h"
#include "core/base/encoding.h"
#include "core/namespaces.h"
#include "xylem/store/v1/records.pb-c.h"

#define RIG_WIRES 64
#define RIG_TOLD  4096

struct wire {
    struct link link;
    struct rig *rig;
    struct xy_buf out;  /* reached the client */
    struct xy_buf kept; /* refused, kept by the link */
    unsigned writes;
    bool refuse;        /* takes nothing for now */
    bool refuse_attach; /* no memory on the next shard */
    bool paused, closed, asleep, tls;
};

/* What owners of nodes were told about a claim. */
struct told {
    enum { ATTACHED = 1, ACKED, STALLED, READY, RELEASED, RECEIVED_BEFORE } what;
    struct claim_key key;
    struct session_ref session;
    uint64_t number;
    uint16_t run;
};

struct rig {
    unsigned count;
    struct config *config;
    struct store_memory *memory;
    struct store *store;
    struct shard_group *group;
    struct workers *workers;
    uint64_t now_us, random;
    struct xy_env env;
    struct wire *wires[RIG_WIRES];
    unsigned wires_count;
    struct told told[RIG_TOLD];
    unsigned told_count, told_looked;
    bool hold_commits;
    uint64_t log_max; /* of the store, from the next start on; 0: plenty */
};

static struct rig *the_rig; /* the callbacks of owners have no context */

/* --- the world ------------------------------------------------------------------------------------------------------ */

static uint64_t rig_now_us(void *ctx)
{
    return ((struct rig *)ctx)->now_us;
}

static uint64_t rig_wall_us(void *ctx)
{
    return UINT64_C(1767225600000000) + ((struct rig *)ctx)->now_us; /* 2026-01-01T00:00:00Z */
}

static void rig_random(void *ctx, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)unit_below(&((struct rig *)ctx)->random, 256);
}

static void rig_wake(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void rig_failed(void *ctx, const char *why)
{
    (void)ctx;
    fail_msg("the store failed: %s", why);
}

static inline struct shard *rig_shard(struct rig *rig, unsigned index)
{
    return shard_group_get(rig->group, index);
}

/* --- the owners of nodes -------------------------------------------------------------------------------------------- */

static void rig_tell(struct shard *shard, int what, struct claim_key key, struct session_ref session,
                     uint64_t number, uint16_t run)
{
    assert_int_equal(shard->index, key.owner);
    assert_true(the_rig->told_count < RIG_TOLD);
    struct told *told = &the_rig->told[the_rig->told_count++];
    *told = (struct told){ .key = key, .session = session, .number = number, .run = run };
    told->what = what;
}

static void rig_attached(struct shard *shard, struct claim_key key, struct session_ref session,
                         uint32_t claim)
{
    rig_tell(shard, ATTACHED, key, session, claim, 0);
}

static void rig_acked(struct shard *shard, struct claim_key key, struct session_ref session, uint64_t seq)
{
    rig_tell(shard, ACKED, key, session, seq, 0);
}

static void rig_stalled(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run,
                        uint64_t unsent)
{
    rig_tell(shard, STALLED, key, session, unsent, run);
}

static void rig_ready(struct shard *shard, struct claim_key key, struct session_ref session, uint16_t run)
{
    rig_tell(shard, READY, key, session, 0, run);
}

static void rig_released(struct shard *shard, struct claim_key key, struct session_ref session,
                         uint64_t acked)
{
    rig_tell(shard, RELEASED, key, session, acked, 0);
}

static void rig_received_before(struct shard *shard, struct xy_str node, struct claim_key key, uint64_t seq)
{
    assert_int_equal(shard->index, shard_owner(shard, node));
    rig_tell(shard, RECEIVED_BEFORE, key, SESSION_NONE, seq, 0);
}

static const struct delivery_owner rig_owner = { rig_attached, rig_acked,    rig_stalled,
                                                 rig_ready,    rig_released, rig_received_before };

/* The next thing told; fails if there is none. */
static inline struct told *rig_next_told(struct rig *rig, int what)
{
    assert_true(rig->told_looked < rig->told_count);
    struct told *told = &rig->told[rig->told_looked++];
    assert_int_equal(told->what, what);
    return told;
}

#define assert_told_all(rig) assert_int_equal((rig)->told_looked, (rig)->told_count)

/* --- beginning and end ---------------------------------------------------------------------------------------------- */

static inline void rig_start(struct rig *rig)
{
    struct xy_buf errors = { 0 };
    rig->store = store_open(&(struct store_options){ .backend = store_memory_backend(rig->memory),
                                                     .shards = rig->count,
                                                     .env = &rig->env,
                                                     .committed = rig_wake,
                                                     .log_bytes_max = rig->log_max,
                                                     .failed = rig_failed },
                            &errors);
    assert_non_null(rig->store);
    rig->group = shard_group_new(&(struct shard_group_options){ .count = rig->count,
                                                                .env = &rig->env,
                                                                .config = rig->config,
                                                                .store = rig->store,
                                                                .hash_seed = 7,
                                                                .wake = rig_wake });
    rig->workers = workers_new(rig->group, 0);
    for (unsigned i = 0; i < rig->count; i++) {
        struct shard *shard = rig_shard(rig, i);
        shard->workers = rig->workers;
        assert_true(sessions_init(shard));
        assert_true(router_init(shard));
        delivery_set_owner(shard, &rig_owner);
    }
}

static inline struct rig *rig_new(unsigned count, const char *config)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    struct xy_buf errors = { 0 };
    char text[1024];
    the_rig = rig;
    rig->count = count;
    rig->now_us = 1000000;
    rig->random = 42;
    rig->env = (struct xy_env){ rig_now_us, rig_wall_us, rig_random, rig };
    (void)snprintf(text, sizeof(text), "domain = \"example.org\"; data_dir = \"/nowhere\"; %s", config);
    if (!config_parse("test", xy_str(text), &rig->config, &errors))
        fail_msg("%.*s", XY_ARG(xy_buf_view(&errors)));
    rig->memory = store_memory_new();
    rig_start(rig);
    return rig;
}

/* Everything until nothing moves any more. */
static inline void rig_run(struct rig *rig)
{
    for (int round = 0; round < 10000; round++) {
        bool moved = false;
        for (unsigned i = 0; i < rig->count; i++)
            moved |= shard_turn(rig_shard(rig, i)) == 0;
        while (workers_step(rig->workers))
            moved = true;
        if (!rig->hold_commits)
            moved |= store_step_commit(rig->store);
        for (unsigned i = 0; i < rig->count; i++)
            moved |= shard_has_mail(rig_shard(rig, i));
        if (!moved)
            return;
    }
    fail_msg("the shards do not come to rest");
}

static inline void rig_sleep(struct rig *rig, uint64_t us)
{
    rig->now_us += us;
    rig_run(rig);
}

static inline uint64_t rig_sum(struct rig *rig, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < rig->count; i++)
        sum += atomic_load((atomic_uint_fast64_t *)(void *)((char *)rig_shard(rig, i)->stats + offset));
    return sum;
}

#define rig_stat(rig, name) rig_sum((rig), offsetof(struct shard_stats, name))

static inline void rig_take_apart(struct rig *rig)
{
    for (unsigned i = 0; i < rig->count; i++) {
        router_free(rig_shard(rig, i));
        sessions_free(rig_shard(rig, i));
    }
    workers_free(&rig->workers);
    shard_group_free(&rig->group);
}

/* A wire that is closed: its place is for the next one. */
static inline void wire_free(struct wire **pointer)
{
    struct wire *wire = *pointer;
    struct rig *rig = wire->rig;
    unsigned i = 0;
    *pointer = NULL;
    assert_true(wire->closed);
    while (rig->wires[i] != wire)
        i++;
    rig->wires[i] = rig->wires[--rig->wires_count];
    xy_buf_free(&wire->out);
    xy_buf_free(&wire->kept);
    free(wire);
}

static inline void rig_free(struct rig **pointer)
{
    struct rig *rig = *pointer;
    *pointer = NULL;
    rig->hold_commits = false;
    rig_run(rig);
    for (unsigned i = 0; i < rig->count; i++)
        sessions_end_all(rig_shard(rig, i));
    rig_run(rig);
    assert_int_equal(rig_stat(rig, sessions), 0);
    assert_int_equal(rig_stat(rig, sessions_detached), 0);
    rig_take_apart(rig);
    store_close(&rig->store);
    store_memory_free(&rig->memory);
    config_free(&rig->config);
    while (rig->wires_count > 0) {
        struct wire *wire = rig->wires[0];
        wire_free(&wire);
    }
    free(rig);
}

/* The broker stops, or crashes with everything committed so far, and starts again with so many shards. */
static inline void rig_restart(struct rig *rig, unsigned count, bool crash)
{
    rig_run(rig);
    rig->hold_commits = crash;
    for (unsigned i = 0; !crash && i < rig->count; i++)
        sessions_quiesce(rig_shard(rig, i));
    rig_run(rig);
    for (unsigned i = 0; !crash && i < rig->count; i++) {
        assert_true(sessions_quiet(rig_shard(rig, i)));
        sessions_shutdown(rig_shard(rig, i));
    }
    for (unsigned i = 0; i < rig->count; i++)
        sessions_end_all(rig_shard(rig, i));
    rig_run(rig);
    rig_take_apart(rig);
    if (crash)
        store_crash(&rig->store);
    else
        store_close(&rig->store);
    rig->hold_commits = false;
    rig->count = count;
    rig_start(rig);
}

/* --- wires ---------------------------------------------------------------------------------------------------------- */

static inline struct wire *wire_of(struct link *link)
{
    return xy_container_of(link, struct wire, link);
}

static bool wire_write(struct link *link, struct xy_str bytes)
{
    struct wire *wire = wire_of(link);
    assert_false(wire->closed);
    wire->writes++;
    xy_buf_str(wire->refuse ? &wire->kept : &wire->out, bytes);
    return !wire->refuse;
}

static void wire_read_pause(struct link *link, bool paused)
{
    wire_of(link)->paused = paused;
}

static void wire_start_tls(struct link *link)
{
    wire_of(link)->tls = true;
}

static void wire_close(struct link *link)
{
    struct wire *wire = wire_of(link);
    assert_false(wire->closed);
    wire->closed = true;
    link->owner = NULL;
}

static void wire_sleep(struct link *link)
{
    wire_of(link)->asleep = true;
}

static void wire_detach(struct link *link)
{
    assert_false(wire_of(link)->closed);
    link->owner = NULL;
}

static bool wire_attach(struct link *link, struct shard *shard, void *owner)
{
    struct wire *wire = wire_of(link);
    link->shard = shard;
    link->owner = owner;
    if (wire->refuse_attach)
        wire->closed = true;
    return !wire->refuse_attach;
}

static const struct link_calls wire_calls = {
    .write = wire_write,
    .read_pause = wire_read_pause,
    .start_tls = wire_start_tls,
    .close = wire_close,
    .sleep = wire_sleep,
    .detach = wire_detach,
    .attach = wire_attach,
};

static inline struct wire *wire_new(struct rig *rig, unsigned shard, enum link_kind kind)
{
    struct wire *wire = calloc(1, sizeof(*wire));
    assert_true(rig->wires_count < RIG_WIRES);
    rig->wires[rig->wires_count++] = wire;
    wire->rig = rig;
    wire->link = (struct link){
        .calls = &wire_calls, .shard = rig_shard(rig, shard), .kind = kind, .loopback = true, .uid = geteuid()
    };
    if (kind != LINK_LOCAL)
        (void)snprintf(wire->link.peer, sizeof(wire->link.peer), "192.0.2.1");
    wire->link.shard->link_events->opened(&wire->link);
    return wire;
}

static inline struct session *wire_session(struct wire *wire)
{
    assert_non_null(wire->link.owner);
    return wire->link.owner;
}

/* From the client; nothing is run. */
static inline void wire_feed(struct wire *wire, struct xy_str bytes)
{
    assert_false(wire->closed);
    wire->link.shard->link_events->input(&wire->link, bytes.data, bytes.len);
}

static inline void wire_say(struct wire *wire, const char *xml)
{
    wire_feed(wire, xy_str(xml));
    rig_run(wire->rig);
}

/* The link can write again: what it kept goes out. */
static inline void wire_accept(struct wire *wire)
{
    wire->refuse = false;
    xy_buf_str(&wire->out, xy_buf_view(&wire->kept));
    xy_buf_reset(&wire->kept);
    wire->link.shard->link_events->writable(&wire->link);
    rig_run(wire->rig);
}

/* The network fails. */
static inline void wire_vanish(struct wire *wire)
{
    wire->link.shard->link_events->gone(&wire->link);
    assert_true(wire->closed);
    rig_run(wire->rig);
}

/* What reached the client since the last time; valid until the next call for this wire. */
static inline const char *wire_heard(struct wire *wire)
{
    static struct xy_buf heard[4];
    static unsigned next;
    struct xy_buf *buf = &heard[next++ % 4];
    xy_buf_free(buf);
    xy_buf_str(buf, xy_buf_view(&wire->out));
    xy_buf_char(buf, '\0');
    xy_buf_reset(&wire->out);
    return buf->data;
}

#define assert_contains(text, what)                                                                          \
    do {                                                                                                     \
        const char *text_ = (text);                                                                          \
        if (!strstr(text_, (what)))                                                                          \
            fail_msg("\"%s\" is not in \"%s\"", (what), text_);                                              \
    } while (0)
#define assert_lacks(text, what)                                                                             \
    do {                                                                                                     \
        const char *lacks_ = (text);                                                                         \
        if (strstr(lacks_, (what)))                                                                          \
            fail_msg("\"%s\" is in \"%s\"", (what), lacks_);                                                 \
    } while (0)
#define assert_heard(wire, what)   assert_contains(wire_heard(wire), what)
#define assert_heard_nothing(wire) assert_string_equal(wire_heard(wire), "")

/* How often `what` occurs. */
static inline unsigned text_count(const char *text, const char *what)
{
    unsigned count = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        count++;
    return count;
}

/* --- logging in ----------------------------------------------------------------------------------------------------- */

#define RIG_HEADER                                                                                           \
    "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' "              \
    "xmlns:stream='http://etherx.jabber.org/streams'>"

/* Without keys: nobody logs in with a password. */
static inline void rig_account(struct rig *rig, const char *bare)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    struct shard *owner = rig_shard(rig, shard_owner(rig_shard(rig, 0), xy_str(bare)));
    put.jid = (char *)(uintptr_t)bare;
    put.created_us = 1;
    store_append(owner->store, RECORD_ACCOUNT_PUT, &put.base);
    rig_run(rig);
}

/* Up to and including <success/> and the second header. */
static inline struct wire *rig_authenticated(struct rig *rig, unsigned shard, const char *bare)
{
    struct wire *wire = wire_new(rig, shard, LINK_LOCAL);
    struct xy_buf auth = { 0 };
    xy_buf_lit(&auth, RIG_HEADER "<auth xmlns='" NS_SASL "' mechanism='EXTERNAL'>");
    xy_base64_encode(&auth, xy_str(bare));
    xy_buf_lit(&auth, "</auth>");
    wire_feed(wire, xy_buf_view(&auth));
    xy_buf_free(&auth);
    rig_run(rig);
    assert_heard(wire, "<success");
    wire_say(wire, RIG_HEADER);
    assert_heard(wire, "urn:ietf:params:xml:ns:xmpp-bind");
    return wire;
}

static inline struct wire *rig_bound(struct rig *rig, unsigned shard, const char *bare, const char *resource)
{
    struct wire *wire = rig_authenticated(rig, shard, bare);
    char bind[256];
    (void)snprintf(bind, sizeof(bind),
                   "<iq type='set' id='b'><bind xmlns='" NS_BIND "'><resource>%s</resource></bind></iq>",
                   resource);
    wire_say(wire, bind);
    assert_heard(wire, "type='result'");
    return wire;
}

/* Bound and available. */
static inline struct wire *rig_online(struct rig *rig, unsigned shard, const char *bare, const char *resource)
{
    struct wire *wire = rig_bound(rig, shard, bare, resource);
    wire_say(wire, "<presence/>");
    wire_heard(wire);
    return wire;
}

/* With XEP-0198, resumable; `id`: what to resume with. Not available yet. */
static inline struct wire *rig_managed(struct rig *rig, unsigned shard, const char *bare,
                                       const char *resource, char id[80])
{
    struct wire *wire = rig_bound(rig, shard, bare, resource);
    wire_say(wire, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    const char *heard = wire_heard(wire);
    const char *at = strstr(heard, " id='");
    assert_non_null(at);
    (void)snprintf(id, 80, "%.*s", (int)strcspn(at + 5, "'"), at + 5);
    return wire;
}

static inline void wire_resume(struct wire *wire, const char *id, unsigned h)
{
    char resume[160];
    (void)snprintf(resume, sizeof(resume), "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%u'/>", id, h);
    wire_say(wire, resume);
}

static inline void wire_ack(struct wire *wire, unsigned h)
{
    char ack[64];
    (void)snprintf(ack, sizeof(ack), "<a xmlns='urn:xmpp:sm:3' h='%u'/>", h);
    wire_say(wire, ack);
}

/* Which h a <resume/> that comes too late is told; absent: none. */
static inline const char *rig_too_late(struct rig *rig, unsigned shard, const char *bare, const char *id,
                                       unsigned h)
{
    static char told[16];
    struct wire *late = rig_authenticated(rig, shard, bare);
    wire_resume(late, id, h);
    const char *heard = wire_heard(late), *at = strstr(heard, " h='");
    assert_contains(heard, "<item-not-found");
    (void)snprintf(told, sizeof(told), "%.*s", at ? (int)strcspn(at + 4, "'") : 0, at ? at + 4 : "");
    wire_say(late, "<iq type='set' id='b'><bind xmlns='" NS_BIND "'/></iq>");
    assert_heard(late, "type='result'");
    wire_say(late, "</stream:stream>");
    wire_free(&late);
    return told;
}
