/* A link: the bytes between a session and its peer, whatever carries them (TCP, TLS, a Unix socket, a simulated wire).
 *
 * The room above (broker/session) gives each link an owner and a table of what to call; the link calls it from its
 * shard's loop only. A link belongs to one shard, but may be packed up and continued on another (XEP-0198 resumption of
 * a session that lives there). */
#pragma once

#include <sys/types.h>

#include "broker/shard/shard.h"
#include "core/sasl/sasl.h"

#define LINK_PEER_MAX 64 /* text of an address and a NUL */

enum link_kind {
    LINK_C2S,     /* TCP, STARTTLS offered */
    LINK_C2S_TLS, /* TCP, TLS from the first byte */
    LINK_LOCAL,   /* Unix socket; uid is known */
};

struct link;

/* What a kind of link can do. */
struct link_calls {
    /* Takes all of it: what the peer cannot take now is kept. Returns false when something is kept: the link says
     * `writable` once it is gone; write nothing more before that. */
    bool (*write)(struct link *link, struct xy_str bytes);
    void (*read_pause)(struct link *link, bool paused);
    void (*start_tls)(struct link *link); /* after everything written so far */
    void (*close)(struct link *link);     /* flushes what is kept, then ends; the owner hears nothing more */
    void (*sleep)(struct link *link);     /* idle: give memory back */
    /* Packs the link up for another shard: detached from its loop, without an owner; what it kept goes along. Then `attach`
     * there continues it; false: no memory, and the link is gone. */
    void (*detach)(struct link *link);
    bool (*attach)(struct link *link, struct shard *shard, void *owner);
};

/* What the owner wants to hear. In `input` and `secured` the owner may close or detach the link. */
struct link_events {
    void (*opened)(struct link *link); /* accepted: set link->owner, or close it */
    void (*input)(struct link *link, const void *bytes, size_t len);
    void (*writable)(struct link *link);
    void (*secured)(struct link *link, const struct xy_sasl_binding *bindings, size_t count); /* TLS is on */
    void (*gone)(struct link *link); /* the peer left or the network failed; close() is still to be called */
};

struct link {
    const struct link_calls *calls;
    struct shard *shard;
    void *owner;
    enum link_kind kind;
    bool loopback; /* the peer is on this machine */
    bool secure;   /* TLS is on */
    uid_t uid;     /* LINK_LOCAL */
    /* DER of the certificate the peer showed, when it leads to tls.client_ca and is valid now; else absent. Set before
     * `secured`; lives as long as the link. */
    struct xy_str certificate;
    char peer[LINK_PEER_MAX]; /* address without port; empty for LINK_LOCAL */
};
