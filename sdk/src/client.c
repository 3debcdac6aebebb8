/* The life of a client: attempts to connect, backoff, keepalive, stopping. What happens inside a session is session.c;
 * who gives turns is driver.h.
 *
 *     STOPPED -start-> CONNECTING -logged in-> ONLINE
 *                       ^   | failed or lost     |
 *                       |   v                    |
 *                      WAITING <-----------------+      a refusal that repeating cannot change: STOPPED */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/namespaces.h"
#include "sdk/src/client.h"

void xy_client_error(struct xylem_client *c, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(c->error, sizeof c->error, format, list);
    va_end(list);
}

static void report_state(struct xylem_client *c)
{
    if (c->depth == 0 || !c->unreported || c->doomed)
        return;
    c->unreported = false;
    if (c->config.o.on_state)
        c->config.o.on_state(c, c->state, c->why, c->config.o.ctx);
}

static void set_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why)
{
    c->state = state;
    c->why = why;
    c->unreported = true;
    report_state(c);
}

void xy_client_wake(struct xylem_client *c)
{
    c->dirty = true;
    if (c->depth == 0 && c->driver && c->driver->turn)
        c->driver->turn(c->driver_ctx);
}

/* --- made and freed --- */

static void client_destroy(struct xylem_client *c)
{
    if (c->driver)
        c->driver->freed(c->driver_ctx);
    xy_link_free(&c->link);
    xy_bytestreams_free(c);
    xy_requests_free(c);
    xy_publish_free(c);
    xy_spooling_free(c);
    xy_subs_free(c);
    xy_session_free(c);
    for (unsigned i = 0; i < c->handlers_count; i++) {
        free(c->handlers[i].name);
        free(c->handlers[i].ns);
    }
    while (c->posts) {
        struct xy_post *next = c->posts->next;
        free(c->posts);
        c->posts = next;
    }
    pthread_mutex_destroy(&c->posts_lock);
    xy_arena_pool_free(&c->arenas);
    xy_config_free(&c->config);
    free(c->redirect_host);
    free(c->jid);
    free(c->service);
    free(c);
}

enum xylem_status xy_client_new(struct xylem_client **out, const struct xylem_options *options,
                                const struct xy_env *env, char *error, size_t error_size)
{
    *out = NULL;
    struct xylem_client *c = calloc(1, sizeof *c);
    if (!c)
        return XYLEM_NO_MEMORY;
    enum xylem_status status = xy_config_init(&c->config, options, env, error, error_size);
    if (status != XYLEM_OK) {
        free(c);
        return status;
    }
    c->env = env;
    struct xy_str domain = xy_jid_domain(c->config.jid);
    c->domain = domain.data ? xy_arena_str(c->config.arena, domain).data : NULL;
    c->posts_tail = &c->posts;
    pthread_mutex_init(&c->posts_lock, NULL);
    xy_backoff_init(&c->backoff, c->config.o.backoff_min_ms, c->config.o.backoff_max_ms);
    c->arenas = xy_arena_pool_new(XY_CLIENT_ARENAS);
    xy_session_init(c);
    if (c->config.o.service)
        c->service = strdup(c->config.o.service);
    bool ok = c->arenas && xy_requests_init(c) && (!c->config.o.service || c->service);
    status = ok ? xy_subs_init(c, error, error_size) : XYLEM_NO_MEMORY;
    if (status == XYLEM_OK)
        status = xy_spooling_open(c, error, error_size);
    if (status != XYLEM_OK) {
        client_destroy(c);
        return status;
    }
    *out = c;
    return XYLEM_OK;
}

void xylem_client_free(struct xylem_client *c)
{
    if (!c)
        return;
    if (c->depth > 0)
        c->doomed = true; /* the turn's end frees it */
    else
        client_destroy(c);
}

void xy_client_enter(struct xylem_client *c)
{
    c->depth++;
}

bool xy_client_leave(struct xylem_client *c)
{
    xy_assert(c->depth > 0);
    if (--c->depth > 0 || !c->doomed)
        return true;
    client_destroy(c);
    return false;
}

void xy_client_set_driver(struct xylem_client *c, const struct xy_driver *driver, void *ctx)
{
    c->driver = driver;
    c->driver_ctx = ctx;
}

void *xy_client_driver(const struct xylem_client *c)
{
    return c->driver ? c->driver_ctx : NULL;
}

/* --- what the application asks --- */

enum xylem_state xylem_client_state(const struct xylem_client *c)
{
    return c->state;
}

const char *xylem_client_error(const struct xylem_client *c)
{
    return c->error;
}

const char *xylem_client_jid(const struct xylem_client *c)
{
    return c->jid ? c->jid : "";
}

const char *xylem_client_service(const struct xylem_client *c)
{
    return c->service ? c->service : "";
}

void xylem_client_stats(const struct xylem_client *c, struct xylem_stats *out)
{
    size_t size = out->size < sizeof *out ? out->size : sizeof *out;
    struct xylem_stats now = c->stats;
    now.size = size;
    now.queued += xy_spooling_pending(c);
    now.queued_bytes += xy_spooling_bytes(c);
    memcpy(out, &now, size);
}

enum xylem_status xylem_client_post(struct xylem_client *c, xylem_client_fn *fn, void *ctx)
{
    struct xy_post *post = malloc(sizeof *post);
    if (!post)
        return XYLEM_NO_MEMORY;
    *post = (struct xy_post){ .fn = fn, .ctx = ctx };
    pthread_mutex_lock(&c->posts_lock);
    *c->posts_tail = post;
    c->posts_tail = &post->next;
    pthread_mutex_unlock(&c->posts_lock);
    if (c->driver)
        c->driver->wake(c->driver_ctx);
    return XYLEM_OK;
}

static void run_posts(struct xylem_client *c)
{
    pthread_mutex_lock(&c->posts_lock);
    struct xy_post *posts = c->posts;
    c->posts = NULL;
    c->posts_tail = &c->posts;
    pthread_mutex_unlock(&c->posts_lock);
    while (posts) {
        struct xy_post *next = posts->next;
        if (!c->doomed)
            posts->fn(c, posts->ctx);
        free(posts);
        posts = next;
    }
}

/* --- attempts --- */

static void begin_attempt(struct xylem_client *c)
{
    c->attempt = ++c->attempts;
    c->connect_deadline_us = xy_client_now(c) + (uint64_t)c->config.o.connect_timeout_ms * 1000;
    if (!c->stopping)
        set_state(c, XYLEM_STATE_CONNECTING, XYLEM_OK);
}

enum xylem_status xylem_client_start(struct xylem_client *c)
{
    if (c->state != XYLEM_STATE_STOPPED)
        return XYLEM_WRONG_STATE;
    c->stopping = c->closing = c->was_online = false;
    xy_backoff_reset(&c->backoff);
    begin_attempt(c);
    xy_client_wake(c);
    return XYLEM_OK;
}

enum xylem_status xylem_client_stop(struct xylem_client *c, uint32_t drain_ms)
{
    if (c->state == XYLEM_STATE_STOPPED)
        return XYLEM_OK;
    if (!c->stopping) {
        c->stopping = true;
        c->drain_deadline_us = xy_client_now(c) + (uint64_t)drain_ms * 1000;
    }
    xy_client_wake(c);
    return XYLEM_OK;
}

static void teardown(struct xylem_client *c)
{
    xy_link_free(&c->link);
    c->attempt = 0;
    c->pinged_us = 0;
    c->more = false;
}

static void stopped(struct xylem_client *c, enum xylem_status why)
{
    c->closing = true; /* giving up meanwhile only says why */
    xy_subs_flush(c);
    teardown(c);
    if (why == XYLEM_OK)
        why = c->gave_up;
    c->stopping = c->closing = false;
    c->gave_up = XYLEM_OK;
    xy_session_end(c, why == XYLEM_OK ? XYLEM_STOPPED : why);
    set_state(c, XYLEM_STATE_STOPPED, why);
}

static bool session_up(const struct xylem_client *c)
{
    return c->link && xy_stream_is_bound(xy_link_stream(((struct xylem_client *)(uintptr_t)c)->link));
}

/* A session that merely loses its connection waits to be resumed, and what it has not handled waits with it. So the stream is
 * ended in order: the broker gives it to somebody else at once. */
void xy_client_give_up(struct xylem_client *c, enum xylem_status why)
{
    if (c->gave_up == XYLEM_OK)
        c->gave_up = why;
    if (c->closing)
        return;
    if (!session_up(c)) {
        stopped(c, why);
        return;
    }
    xy_subs_flush(c); /* what was handled before */
    if (c->closing)
        return; /* that failed, too */
    xy_session_farewell(c);
    c->closing = true;
    c->close_deadline_us = xy_client_now(c) + XY_CLIENT_CLOSE_US;
    set_state(c, XYLEM_STATE_STOPPING, why);
}

/* The connection is gone, for a reason that may pass. */
static void retry_later(struct xylem_client *c, enum xylem_status why)
{
    teardown(c);
    enum xylem_retry retry = c->config.o.retry;
    if (c->closing || (c->stopping && xy_publish_idle(c))) {
        stopped(c, XYLEM_OK);
    } else if (retry == XYLEM_RETRY_NEVER || (retry == XYLEM_RETRY_ONCE_ONLINE && !c->was_online)) {
        stopped(c, why);
    } else {
        c->retry_at_us = xy_client_now(c) + xy_backoff_next_us(&c->backoff, c->env);
        if (!c->stopping)
            set_state(c, XYLEM_STATE_WAITING, why);
    }
}

void xy_client_lost(struct xylem_client *c, const char *why)
{
    if (c->attempt == 0)
        return;
    if (!c->closing)
        xy_client_error(c, "%s", why);
    retry_later(c, c->was_online ? XYLEM_DISCONNECTED : XYLEM_UNREACHABLE);
}

uint64_t xy_client_attempt(const struct xylem_client *c)
{
    return c->attempt;
}

void xy_client_target(const struct xylem_client *c, struct xy_target *out)
{
    const struct xylem_options *o = &c->config.o;
    *out = (struct xy_target){
        .socket_path = o->socket_path,
        .host = c->redirect_host ? c->redirect_host : o->host,
        .port = c->redirect_host ? c->redirect_port : o->port,
        .direct_tls = o->tls == XYLEM_TLS_DIRECT,
    };
    if (!o->socket_path)
        out->domain = c->domain;
}

void xy_client_connected(struct xylem_client *c)
{
    xy_assert(c->attempt != 0 && !c->link);
    c->heard_us = xy_client_now(c);
    c->link = xy_session_link(c);
    if (!c->link) {
        xy_client_error(
            c, "no memory for a connection, or characters in user name or password that SASLprep refuses");
        stopped(c, XYLEM_AUTH);
    }
}

void xy_client_online(struct xylem_client *c)
{
    c->was_online = true;
    xy_backoff_reset(&c->backoff);
    if (!c->stopping)
        set_state(c, XYLEM_STATE_ONLINE, XYLEM_OK);
}

/* --- how streams end --- */

/* host, host:port, [v6], [v6]:port (RFC 6120 4.9.3.19, XEP-0198 location). */
static void redirect(struct xylem_client *c, struct xy_str where)
{
    struct xy_str host = where;
    uint64_t port = c->config.o.port;
    const char *colon = where.len ? memrchr(where.data, ':', where.len) : NULL;
    const char *bracket = where.len ? memchr(where.data, ']', where.len) : NULL;
    bool one_colon = colon && memchr(where.data, ':', where.len) == colon;
    if (colon && (bracket ? colon > bracket : one_colon)) {
        struct xy_str digits = xy_str_n(colon + 1, (size_t)(where.data + where.len - colon - 1));
        if (!xy_str_u64(digits, &port) || port == 0 || port > UINT16_MAX)
            return;
        host.len = (size_t)(colon - where.data);
    }
    if (bracket && host.len >= 2 && host.data[0] == '[') {
        host.data++;
        host.len -= 2;
    }
    if (host.len == 0)
        return;
    free(c->redirect_host);
    c->redirect_host = strndup(host.data, host.len);
    c->redirect_port = (uint16_t)port;
}

static enum xylem_status permanent(const struct xy_stream_event *event)
{
    switch (event->failure) {
    case XY_STREAM_FAILED_AUTH:
        return event->sasl == XY_SASL_TEMPORARY_AUTH_FAILURE ? XYLEM_OK : XYLEM_AUTH;
    case XY_STREAM_FAILED_MECHANISM:
        return XYLEM_AUTH;
    case XY_STREAM_FAILED_SERVER_PROOF:
    case XY_STREAM_FAILED_TLS:
        return XYLEM_UNTRUSTED;
    case XY_STREAM_FAILED_BIND:
        return event->condition == XY_CONFLICT ? XYLEM_REPLACED : XYLEM_OK;
    case XY_STREAM_FAILED_BY_PEER:
        if (event->error == XY_STREAM_CONFLICT)
            return XYLEM_REPLACED;
        return event->error == XY_STREAM_NOT_AUTHORIZED ? XYLEM_AUTH : XYLEM_OK;
    default:
        return XYLEM_OK;
    }
}

void xy_client_stream_failed(struct xylem_client *c, const struct xy_stream_event *event)
{
    if (event->error == XY_STREAM_SEE_OTHER_HOST)
        redirect(c, event->location);
    const char *condition = event->error ? xy_stream_error_name(event->error) : "";
    if (event->failure == XY_STREAM_FAILED_AUTH)
        condition = xy_sasl_condition_name(event->sasl);
    xy_client_error(c, "%s%s%.*s", condition, *condition && event->text.len ? ": " : "", XY_ARG(event->text));
    enum xylem_status why = permanent(event);
    if (why != XYLEM_OK)
        stopped(c, why);
    else
        retry_later(c, c->was_online ? XYLEM_DISCONNECTED : XYLEM_UNREACHABLE);
}

void xy_client_peer_closed(struct xylem_client *c)
{
    xy_client_lost(c, "the server closed the stream");
}

static void check_link(struct xylem_client *c)
{
    const char *why = c->link ? xy_link_failed(c->link) : NULL;
    if (!why)
        return;
    xy_client_error(c, "TLS: %s", why);
    if (xy_link_untrusted(c->link))
        stopped(c, XYLEM_UNTRUSTED);
    else
        retry_later(c, c->was_online ? XYLEM_DISCONNECTED : XYLEM_UNREACHABLE);
}

/* --- bytes --- */

static bool blocked(const struct xylem_client *c)
{
    return xy_subs_full(c) || (c->sm_on && xy_sm_in_full(&c->sm));
}

bool xy_client_wants_input(const struct xylem_client *c)
{
    return c->link && !c->more && xy_link_wants_input(c->link);
}

void xy_client_receive(struct xylem_client *c, const void *data, size_t len)
{
    if (!c->link)
        return;
    c->heard_us = xy_client_now(c);
    c->pinged_us = 0;
    xy_link_receive(c->link, data, len);
    xy_session_events(c);
    check_link(c);
}

struct xy_str xy_client_output(struct xylem_client *c)
{
    return c->link ? xy_link_output(c->link) : XY_STR_NONE;
}

void xy_client_sent(struct xylem_client *c, size_t len)
{
    if (c->link)
        xy_link_sent(c->link, len);
}

/* --- time --- */

static uint64_t keepalive_deadline_us(const struct xylem_client *c)
{
    if (!session_up(c) || c->more)
        return UINT64_MAX; /* who does not read cannot say that nothing came */
    if (c->pinged_us)
        return c->pinged_us + (uint64_t)c->config.o.ping_timeout_ms * 1000;
    return c->heard_us + (uint64_t)c->config.o.keepalive_ms * 1000;
}

static void keepalive(struct xylem_client *c)
{
    uint64_t now = xy_client_now(c);
    if (keepalive_deadline_us(c) > now)
        return;
    if (c->pinged_us) {
        xy_client_lost(c, "the server does not answer: the connection is dead");
        return;
    }
    c->pinged_us = now;
    struct xy_request_spec spec = { .payload = XY_STR("<ping xmlns='" NS_PING "'/>") };
    xy_request(c, &spec);
}

static void continue_stopping(struct xylem_client *c)
{
    uint64_t now = xy_client_now(c);
    if (c->closing) {
        if (now >= c->close_deadline_us)
            stopped(c, XYLEM_OK);
        return;
    }
    if (!c->stopping)
        return;
    if (c->state != XYLEM_STATE_STOPPING)
        set_state(c, XYLEM_STATE_STOPPING, XYLEM_OK);
    bool idle = xy_publish_idle(c) && xy_list_empty(&c->waiting) && !xy_sm_peek_unsent(&c->sm_queue);
    if (!idle && now < c->drain_deadline_us)
        return;
    if (!session_up(c)) {
        stopped(c, XYLEM_OK);
        return;
    }
    xy_subs_flush(c);
    xy_requests_pump(c);
    xy_session_farewell(c);
    c->closing = true;
    c->close_deadline_us = now + XY_CLIENT_CLOSE_US;
}

static uint64_t state_deadline_us(const struct xylem_client *c)
{
    if (c->closing)
        return c->close_deadline_us;
    uint64_t due = UINT64_MAX;
    if (c->attempt == 0 && c->state != XYLEM_STATE_STOPPED)
        due = c->retry_at_us;
    else if (c->attempt != 0 && !session_up(c))
        due = c->connect_deadline_us;
    if (c->stopping && c->drain_deadline_us < due)
        due = c->drain_deadline_us;
    return due;
}

uint64_t xy_client_deadline_us(struct xylem_client *c)
{
    if (c->dirty || c->unreported || (c->more && !blocked(c)) || (c->link && xy_link_pending(c->link)))
        return 0;
    uint64_t due = state_deadline_us(c);
    uint64_t others[] = { xy_requests_deadline_us(c), xy_session_deadline_us(c), keepalive_deadline_us(c),
                          xy_bytestreams_deadline_us(c), xy_spooling_deadline_us(c) };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i] < due)
            due = others[i];
    return due;
}

static void check_attempt(struct xylem_client *c)
{
    uint64_t now = xy_client_now(c);
    if (c->state == XYLEM_STATE_STOPPED || c->closing)
        return;
    if (c->attempt == 0 && now >= c->retry_at_us)
        begin_attempt(c);
    else if (c->attempt != 0 && !session_up(c) && now >= c->connect_deadline_us)
        xy_client_lost(c, c->link ? "the server did not finish the login in time" : "no connection in time");
}

void xy_client_tick(struct xylem_client *c)
{
    xy_assert(c->depth > 0);
    c->dirty = false;
    report_state(c);
    run_posts(c);
    check_attempt(c);
    if (c->link && (c->more || xy_link_pending(c->link)))
        xy_session_events(c);
    check_link(c);
    xy_requests_tick(c);
    xy_bytestreams_tick(c);
    xy_publish_tick(c);
    keepalive(c);
    xy_subs_flush(c);
    continue_stopping(c);
    xy_spooling_sync_if_due(c);
    if (session_up(c) && !c->closing) {
        xy_spooling_pump(c);
        xy_requests_pump(c);
        xy_session_flush(c);
    }
}
