/* What the files of core/stream share. stream.c moves bytes and events, server.c and client.c are the two roles,
 * server_sasl.c the server's logins, features.c headers and stream features, errors.c the ways to end. */
#pragma once

#include "core/base/limits.h"
#include "core/namespaces.h"
#include "core/stream/stream.h"
#include "core/xml/parser.h"
#include "core/xml/writer.h"

#define NS_XML "http://www.w3.org/XML/1998/namespace"
#define STREAM_BIND_TRIES                                                                                    \
    10u /* RFC 6120 7.7.3: bindings, resumptions and misplaced requests before the stream ends */
#define STREAM_BUF_KEEP 4096u /* buffers larger than this are given back when empty */

enum stream_state {
    STREAM_NEW,             /* no header yet */
    STREAM_AWAIT_ACCEPT,    /* server: the owner looks at the header */
    STREAM_UNAUTHENTICATED, /* server: features sent */
    STREAM_AWAIT_TLS,
    STREAM_AUTHENTICATED, /* server: waits for the header after <success/> */
    STREAM_BINDING,       /* server: features sent, no resource yet */
    STREAM_AWAIT_HEADER,  /* client, and so on */
    STREAM_AWAIT_FEATURES,
    STREAM_AWAIT_PROCEED,
    STREAM_AWAIT_SASL,
    STREAM_AWAIT_BIND,
    STREAM_AWAIT_SESSION,
    STREAM_AWAIT_RESUMED,
    STREAM_AWAIT_ENABLED,
    STREAM_BOUND, /* both: stanzas flow */
    STREAM_OVER,
};

/* Which answer the owner owes. */
enum stream_wait {
    WAIT_NONE,
    WAIT_ACCEPT,
    WAIT_KEYS,
    WAIT_PASSWORD,
    WAIT_EXTERNAL,
    WAIT_BIND,
    WAIT_ENABLE,
    WAIT_RESUME
};

struct stream_binding {
    char type[32];
    char data[XY_SASL_BINDING_MAX];
    size_t len;
};
struct xy_sasl_binding stream_binding_view(const struct stream_binding *binding);

/* What the server's features said; strings live in the negotiation's arena. */
struct stream_features {
    bool starttls, starttls_required, bind, session, sm;
    unsigned mechanisms;
    bool binding_types_known;
    unsigned binding_types; /* bit i: our binding i is listed */
};

/* Everything that is only needed until the stream is bound. */
struct stream_negotiation {
    struct xy_arena *arena;
    struct stream_binding bindings[XY_SASL_BINDINGS_MAX];
    size_t bindings_count;
    struct xy_stream_event queued; /* the consequence of an answer; kind 0: none */

    /* server */
    struct xy_stream_offer offer; /* domain in the arena */
    struct xy_str peer_from;      /* of the header, for `to` in ours */
    bool host_named;              /* the header had a `to` */
    struct xy_sasl_server *sasl;
    enum xy_sasl_mechanism mechanism;
    struct xy_str authzid;
    struct xy_jid jid; /* whom the peer claims to be, then is; client: ours */
    unsigned auth_tries;
    struct xy_stanza bind_request;

    /* client */
    struct xy_stream_client_options client; /* strings in the arena */
    struct xy_sasl_client *sasl_client;
    struct stream_features features;
    struct xy_stream_event ready; /* gathers what READY will say */
    bool authenticated;
};

struct stream_role {
    /* A parsed element or header, whose arena is stream->scratch. true: `event` is filled. */
    bool (*on_header)(struct xy_stream *stream, const struct xy_elem *header, struct xy_stream_event *event);
    bool (*on_element)(struct xy_stream *stream, struct xy_xml_event *xml, struct xy_stream_event *event);
};

struct xy_stream {
    const struct xy_stream_options *options;
    const struct stream_role *role;
    struct xy_xml_parser *parser;
    struct stream_negotiation *negotiation; /* NULL once bound */
    struct xy_buf output;
    size_t output_sent;       /* of output, from its front */
    struct xy_buf window;     /* what the parser works on: must not move until it is done */
    struct xy_buf pending;    /* fed meanwhile */
    struct xy_str lent;       /* what the parser works on instead of `window`; absent: nothing lent */
    struct xy_arena *scratch; /* of the last element that was no stanza: the event's strings */
    enum stream_state state;
    enum stream_wait wait;
    unsigned tries; /* of binding and the like */
    bool is_server, tls, header_sent, sm, sm_tried, sm_offered, stanza_seen;
    bool closed_in, closed_out, parsing;
};

/* stream.c */
void stream_restart(struct xy_stream *stream, bool keep_rest);
void stream_bound(struct xy_stream *stream); /* stanzas flow from now on */
void stream_negotiation_free(struct xy_stream *stream);
bool stream_stanza(struct xy_stream *stream, struct xy_xml_event *xml, struct xy_stream_event *event);
bool stream_sm_element(struct xy_stream *stream, const struct xy_elem *elem, struct xy_stream_event *event);
struct xy_stream *stream_new(const struct xy_stream_options *options, const struct stream_role *role,
                             bool is_server);

/* errors.c */
bool stream_fail(struct xy_stream *stream, struct xy_stream_event *event, enum xy_stream_failure failure,
                 enum xy_stream_error error, const char *text);
bool stream_fail_parser(struct xy_stream *stream, struct xy_stream_event *event, enum xy_xml_error error);
bool stream_fail_by_peer(struct xy_stream *stream, struct xy_stream_event *event, const struct xy_elem *elem);
/* An element that has no place here: the stream error RFC 6120 wants for it. */
bool stream_fail_misplaced(struct xy_stream *stream, struct xy_stream_event *event,
                           const struct xy_elem *elem);
void stream_fail_ack_unreadable(struct xy_stream *stream);
void stream_over(struct xy_stream *stream);
void stream_write_close(struct xy_stream *stream);

/* features.c */
void stream_write_server_header(struct xy_stream *stream);
void stream_write_server_features(struct xy_stream *stream);
void stream_write_client_header(struct xy_stream *stream);
void stream_features_read(struct xy_stream *stream, const struct xy_elem *elem, struct stream_features *out);
/* 1.0 or a later 1.x or major: usable. */
bool stream_version_ok(const struct xy_elem *header);
unsigned stream_mechanisms_offered(const struct xy_stream *stream);

/* server_sasl.c */
bool stream_server_sasl(struct xy_stream *stream, const struct xy_elem *elem, struct xy_stream_event *event);

/* A stanza-error condition in a <failed/> of XEP-0198. */
void stream_write_sm_failed(struct xy_stream *stream, enum xy_condition condition, const uint32_t *h);
