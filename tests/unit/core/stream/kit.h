/* What the tests of streams share: a seeded world, a server with one account (juliet@example.org, password r0m30) that
 * answers every question, and a log of events as text, so that two runs can be compared. */
#pragma once

#include "tests/unit/unit.h"

#include "core/base/encoding.h"
#include "core/base/limits.h"
#include "core/namespaces.h"
#include "core/stream/stream.h"
#include "core/xml/writer.h"

static inline void kit_random(void *ctx, void *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)out)[i] = (uint8_t)(unit_random(ctx) >> 32);
}

static uint64_t kit_seed = 11;
static const struct xy_env kit_env = { .random = kit_random, .ctx = &kit_seed };

#define KIT_OPTIONS                                                                                          \
    {                                                                                                        \
        .env = &kit_env, .sasl_secret = { "sixteen bytes or more", 21 }                                      \
    }
#define KIT_BINDING ((struct xy_sasl_binding){ "tls-exporter", XY_STR("thirty-two bytes of a tls channel") })

/* How the server of a test behaves. */
struct kit_server {
    struct xy_stream *stream;
    struct xy_stream_offer offer;
    struct xy_buf log;
    struct xy_scram_keys keys[2];
    bool late;  /* answers later: see kit_answer */
    bool asked; /* a question is open, in `question` */
    struct xy_stream_event question;
    const char *resumable;                   /* the previd that can be resumed */
    const char *external;                    /* whom EXTERNAL lets in */
    enum xy_sasl_condition external_refused; /* nobody, with this condition */
    bool refuse_bind;
    bool refuse_enable;
    bool no_accept;
    bool any_host; /* a header without `to` is welcome */
    unsigned stanzas;
};

static inline void kit_log_str(struct xy_buf *log, const char *name, struct xy_str value)
{
    if (xy_str_present(value))
        xy_buf_printf(log, " %s=%.*s", name, XY_ARG(value));
}

/* One line per event. */
static inline void kit_log(struct xy_buf *log, struct xy_stream_event *e)
{
    static const char *const names[] = {
        "?",           "OPENED",        "STARTTLS", "KEYS",         "PASSWORD",  "EXTERNAL",
        "SASL_FAILED", "AUTHENTICATED", "BIND",     "SM_ENABLE",    "SM_RESUME", "READY",
        "STANZA",      "SM_REQUEST",    "SM_ACK",   "CLIENT_STATE", "CLOSED",    "FAILED",
    };
    xy_buf_str(log, xy_str(names[e->kind]));
    kit_log_str(log, "to", e->to);
    kit_log_str(log, "from", e->from);
    kit_log_str(log, "lang", e->lang);
    kit_log_str(log, "user", e->user);
    kit_log_str(log, "password", e->password);
    kit_log_str(log, "authzid", e->authzid);
    kit_log_str(log, "jid", xy_jid_present(e->jid) ? xy_jid_full(e->jid) : XY_STR_NONE);
    kit_log_str(log, "resource", e->resource);
    kit_log_str(log, "sm_id", e->sm_id);
    kit_log_str(log, "location", e->location);
    if (e->mechanism)
        kit_log_str(log, "mechanism", xy_str(xy_sasl_mechanism_name(e->mechanism)));
    if (e->sasl)
        kit_log_str(log, "sasl", xy_str(xy_sasl_condition_name(e->sasl)));
    if (e->error)
        kit_log_str(log, "error", xy_str(xy_stream_error_name(e->error)));
    if (e->kind == XY_STREAM_EVENT_FAILED)
        xy_buf_printf(log, " failure=%d", e->failure);
    if (e->kind == XY_STREAM_EVENT_READY || e->kind == XY_STREAM_EVENT_SM_ENABLE)
        xy_buf_printf(log, " sm=%d resume=%d resumed=%d h=%d:%u max=%u", e->sm, e->resume, e->resumed,
                      e->h_known, e->h, e->max_seconds);
    if (e->kind == XY_STREAM_EVENT_SM_ACK || e->kind == XY_STREAM_EVENT_SM_RESUME)
        xy_buf_printf(log, " h=%u", e->h);
    if (e->kind == XY_STREAM_EVENT_STANZA) {
        xy_buf_printf(log, " verdict=%d answered=%d bytes=%zu ", e->verdict, e->answered, e->stanza.bytes);
        xy_xml_write(log, e->stanza.elem, XY_STR(NS_CLIENT));
        xy_arena_free(&e->stanza.arena);
    }
    if (e->active)
        xy_buf_lit(log, " active");
    xy_buf_char(log, '\n');
}

static inline void kit_server_start(struct kit_server *k, const struct xy_stream_options *options)
{
    k->offer.domain = XY_STR("example.org");
    k->stream = xy_stream_server_new(options);
    assert_non_null(k->stream);
    struct xy_str salt = XY_STR("saltsaltsaltsalt"), password = XY_STR("r0m30");
    assert_true(xy_scram_keys_derive(XY_SCRAM_SHA_1, password, salt, 4096, &k->keys[0]));
    assert_true(xy_scram_keys_derive(XY_SCRAM_SHA_256, password, salt, 4096, &k->keys[1]));
}

static inline void kit_server_end(struct kit_server *k)
{
    xy_stream_free(&k->stream);
    xy_buf_free(&k->log);
}

static inline void kit_answer_sm(struct kit_server *k, const struct xy_stream_event *e)
{
    uint32_t h = 5;
    if (e->kind == XY_STREAM_EVENT_SM_ENABLE && k->refuse_enable)
        xy_stream_sm_failed(k->stream, XY_RESOURCE_CONSTRAINT, NULL);
    else if (e->kind == XY_STREAM_EVENT_SM_ENABLE)
        xy_stream_sm_enabled(k->stream, e->resume ? XY_STR("id-'1'") : XY_STR_NONE, e->resume ? 300 : 0,
                             e->resume ? XY_STR("[::1]:5222") : XY_STR_NONE);
    else if (k->resumable && xy_str_is(e->sm_id, k->resumable))
        xy_stream_sm_resumed(k->stream, e->sm_id, 7, false);
    else
        xy_stream_sm_failed(k->stream, XY_ITEM_NOT_FOUND, &h);
}

static inline void kit_answer_bind(struct kit_server *k, const struct xy_stream_event *e)
{
    struct xy_arena *arena = xy_arena_new();
    struct xy_error error = xy_error_make(XY_RESOURCE_CONSTRAINT, NULL);
    struct xy_jid full;
    struct xy_str resource = xy_str_present(e->resource) ? e->resource : XY_STR("made-by-server");
    assert_true(xy_jid_with_resource(arena, e->jid, resource, &full));
    if (k->refuse_bind)
        xy_stream_bind_failed(k->stream, &error);
    else
        xy_stream_bound(k->stream, full);
    k->refuse_bind = false;
    xy_arena_free(&arena);
}

static inline void kit_answer(struct kit_server *k, const struct xy_stream_event *e)
{
    bool known = xy_str_is(e->user, "juliet");
    k->asked = false;
    switch (e->kind) {
    case XY_STREAM_EVENT_OPENED:
        if (!k->no_accept && (xy_str_is(e->to, "example.org") || (k->any_host && !xy_str_present(e->to))))
            xy_stream_accept(k->stream, &k->offer);
        else
            xy_stream_fail(k->stream, XY_STREAM_HOST_UNKNOWN, NULL);
        break;
    case XY_STREAM_EVENT_SASL_KEYS:
        xy_stream_sasl_keys(k->stream, known ? &k->keys[e->hash - 1] : NULL);
        break;
    case XY_STREAM_EVENT_SASL_PASSWORD:
        xy_stream_sasl_verdict(k->stream, known && xy_str_is(e->password, "r0m30") ? XY_SASL_NO_FAILURE
                                                                                   : XY_SASL_NOT_AUTHORIZED);
        break;
    case XY_STREAM_EVENT_SASL_EXTERNAL:
        if (k->external_refused != XY_SASL_NO_FAILURE)
            xy_stream_sasl_verdict(k->stream, k->external_refused);
        else
            xy_stream_sasl_external(k->stream, xy_jid_canonical(xy_str(k->external)));
        break;
    case XY_STREAM_EVENT_BIND:
        kit_answer_bind(k, e);
        break;
    case XY_STREAM_EVENT_SM_ENABLE:
    case XY_STREAM_EVENT_SM_RESUME:
        kit_answer_sm(k, e);
        break;
    default:
        break;
    }
}

/* Takes every event there is; answers, or puts the answer off until the next call. */
static inline void kit_server_run(struct kit_server *k)
{
    struct xy_stream_event event;
    if (k->asked)
        kit_answer(k, &k->question);
    while (xy_stream_next(k->stream, &event)) {
        kit_log(&k->log, &event);
        k->stanzas += event.kind == XY_STREAM_EVENT_STANZA;
        if (!k->late || event.kind == XY_STREAM_EVENT_OPENED) {
            kit_answer(k, &event);
        } else {
            k->question = event;
            k->asked = true;
        }
        if (k->asked && event.kind >= XY_STREAM_EVENT_SASL_KEYS && event.kind <= XY_STREAM_EVENT_SM_RESUME)
            assert_false(event.kind != XY_STREAM_EVENT_AUTHENTICATED &&
                         event.kind != XY_STREAM_EVENT_SASL_FAILED && xy_stream_wants_input(k->stream));
    }
}

/* Lent or copied, in turn; what was lent is gone afterwards. */
static inline void kit_server_feed(struct kit_server *k, struct xy_str bytes)
{
    static unsigned turn;
    if (turn++ % 2) {
        xy_stream_feed(k->stream, bytes.data, bytes.len);
        kit_server_run(k);
        return;
    }
    char *lent = malloc(bytes.len + 1);
    assert_non_null(lent);
    memcpy(lent, bytes.data, bytes.len);
    xy_stream_lend(k->stream, lent, bytes.len);
    kit_server_run(k);
    xy_stream_keep(k->stream);
    memset(lent, '!', bytes.len);
    free(lent);
}

/* The output so far, taken. */
static inline struct xy_str kit_take(struct xy_stream *stream, struct xy_buf *into)
{
    struct xy_str out = xy_stream_output(stream);
    xy_buf_reset(into);
    xy_buf_str(into, out);
    xy_buf_char(into, '\0');
    into->len--;
    xy_stream_sent(stream, out.len);
    return xy_buf_view(into);
}

#define KIT_HEADER                                                                                           \
    "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' "              \
    "xmlns:stream='http://etherx.jabber.org/streams'>"
#define KIT_AUTH                                                                                             \
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGp1bGlldAByMG0zMA==</auth>"
#define KIT_BIND                                                                                             \
    "<iq type='set' id='b'><bind "                                                                           \
    "xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balcony</resource></bind></iq>"
