/* TLS between transport and stream; see link.h. Without TLS it passes bytes straight to the stream. */
#include "sdk/src/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"

#define PLAIN_CHUNK (16u << 10)

struct xy_link {
    struct xy_stream *stream;
    struct xy_stream_options options; /* the stream borrows them */
    struct xy_tls *tls;               /* NULL: off */
    struct xy_tls_config *config;
    char *domain;
    bool direct_tls;
    bool pending; /* TLS may have more to give */
    bool failed;
    char why[400];
    char plain[PLAIN_CHUNK]; /* what the stream is being fed with */
};

static void link_fail(struct xy_link *link, const char *why)
{
    if (link->failed)
        return;
    link->failed = true;
    link->pending = false;
    snprintf(link->why, sizeof link->why, "%s", why);
}

static void tls_established(struct xy_link *link)
{
    unsigned char exporter[XY_TLS_BINDING_MAX], end_point[XY_TLS_BINDING_MAX];
    size_t exporter_len = xy_tls_exporter(link->tls, exporter);
    size_t end_point_len = xy_tls_server_end_point(link->tls, end_point);
    struct xy_sasl_binding bindings[XY_SASL_BINDINGS_MAX];
    size_t count = 0;
    if (exporter_len > 0)
        bindings[count++] =
            (struct xy_sasl_binding){ "tls-exporter", xy_str_n((const char *)exporter, exporter_len) };
    if (end_point_len > 0)
        bindings[count++] = (struct xy_sasl_binding){ "tls-server-end-point",
                                                      xy_str_n((const char *)end_point, end_point_len) };
    xy_stream_tls_started(link->stream, bindings, count);
    if (link->direct_tls)
        xy_stream_client_open(link->stream);
}

static void tls_handshake(struct xy_link *link)
{
    switch (xy_tls_handshake(link->tls)) {
    case XY_TLS_DONE:
        link->pending = true;
        tls_established(link);
        break;
    case XY_TLS_AGAIN:
        link->pending = true;
        break;
    case XY_TLS_WANT_MORE:
        link->pending = false;
        break;
    case XY_TLS_CLOSED:
        link_fail(link, "the server ended the TLS handshake");
        break;
    case XY_TLS_FAILED:
        link_fail(link, xy_tls_error(link->tls));
        break;
    }
}

static void tls_start(struct xy_link *link)
{
    xy_assert(!link->tls);
    link->tls = link->config ? xy_tls_new(link->config, link->domain) : NULL;
    if (!link->tls)
        link_fail(link, "TLS could not be started");
    else
        tls_handshake(link);
}

struct xy_link *xy_link_new(const struct xy_link_options *options)
{
    struct xy_link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    struct xy_str domain = xy_jid_domain(options->client.jid);
    link->options = options->stream;
    link->stream = xy_stream_client_new(&link->options, &options->client);
    link->domain = domain.data ? strndup(domain.data, domain.len) : strdup("");
    if (!link->stream || !link->domain) {
        xy_link_free(&link);
        return NULL;
    }
    link->direct_tls = options->direct_tls;
    if (options->tls)
        link->config = xy_tls_config_ref(options->tls);
    if (link->direct_tls)
        tls_start(link);
    else
        xy_stream_client_open(link->stream);
    return link;
}

void xy_link_free(struct xy_link **link)
{
    if (!*link)
        return;
    xy_tls_free(&(*link)->tls);
    xy_tls_config_unref(&(*link)->config);
    xy_stream_free(&(*link)->stream);
    free((*link)->domain);
    free(*link);
    *link = NULL;
}

struct xy_stream *xy_link_stream(struct xy_link *link)
{
    return link->stream;
}

void xy_link_receive(struct xy_link *link, const void *data, size_t len)
{
    if (link->failed)
        return;
    if (!link->tls) {
        xy_stream_feed(link->stream, data, len);
        return;
    }
    if (!xy_tls_receive(link->tls, data, len))
        link_fail(link, xy_tls_error(link->tls));
    link->pending = !link->failed;
}

/* More plaintext for the stream; false: none now. */
static bool tls_feed(struct xy_link *link)
{
    while (link->tls && link->pending && !link->failed) {
        if (!xy_tls_established(link->tls)) {
            tls_handshake(link);
            continue;
        }
        if (!xy_stream_wants_input(link->stream))
            return false;
        size_t len = 0;
        switch (xy_tls_read(link->tls, link->plain, sizeof link->plain, &len)) {
        case XY_TLS_DONE:
            xy_stream_feed(link->stream, link->plain, len);
            return true;
        case XY_TLS_AGAIN:
            break;
        case XY_TLS_WANT_MORE:
            link->pending = false;
            break;
        case XY_TLS_CLOSED:
            link_fail(link, "the server closed the TLS connection");
            break;
        case XY_TLS_FAILED:
            link_fail(link, xy_tls_error(link->tls));
            break;
        }
    }
    return false;
}

bool xy_link_next(struct xy_link *link, struct xy_stream_event *event)
{
    for (;;) {
        while (xy_stream_next(link->stream, event)) {
            if (event->kind != XY_STREAM_EVENT_STARTTLS)
                return true;
            tls_start(link);
        }
        if (!tls_feed(link))
            return false;
    }
}

bool xy_link_wants_input(const struct xy_link *link)
{
    return !link->failed && xy_stream_wants_input(link->stream);
}

struct xy_str xy_link_output(struct xy_link *link)
{
    if (!link->tls)
        return xy_stream_output(link->stream);
    while (xy_tls_established(link->tls)) {
        struct xy_str plain = xy_stream_output(link->stream);
        size_t taken = plain.len ? xy_tls_write(link->tls, plain.data, plain.len) : 0;
        if (taken == 0)
            break;
        xy_stream_sent(link->stream, taken);
    }
    return xy_tls_output(link->tls);
}

void xy_link_sent(struct xy_link *link, size_t len)
{
    if (link->tls)
        xy_tls_output_consumed(link->tls, len);
    else
        xy_stream_sent(link->stream, len);
}

size_t xy_link_backlog(const struct xy_link *link)
{
    return xy_stream_output(link->stream).len + (link->tls ? xy_tls_output(link->tls).len : 0);
}

const char *xy_link_failed(const struct xy_link *link)
{
    return link->failed ? link->why : NULL;
}

bool xy_link_untrusted(const struct xy_link *link)
{
    return link->failed && link->tls && !xy_tls_established(link->tls) &&
           xy_tls_peer_problem(link->tls) != NULL;
}

bool xy_link_pending(const struct xy_link *link)
{
    return link->tls && link->pending && !link->failed &&
           (!xy_tls_established(link->tls) || xy_stream_wants_input(link->stream));
}
