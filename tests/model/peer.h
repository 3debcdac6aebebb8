/* A client of the model test: a stream in the client's role on a link that passes bytes at once. It answers nothing by
 * itself; it writes down every stanza that comes, by its number in the XEP-0198 count. check.c tells it what to say. */
#pragma once

#include "core/stream/stream.h"
#include "tests/model/rig.h"

enum heard_kind {
    HEARD_OTHER,  /* presence and the like: counted only */
    HEARD_ANSWER, /* to the IQ asked last */
    HEARD_ITEM,
    HEARD_GAP,
    HEARD_NOTICE, /* of a node: retract, purge, delete, configuration, subscription */
};

#define HEARD_ITEMS_MAX 64u
#define HEARD_QUEUES    100u /* node of an event: from here on it is a queue */
#define HEARD_FIGURES   6u   /* of a queue */
extern const char *const heard_figures[HEARD_FIGURES];

/* One stanza. Names are short in this test; what does not fit is a defect of it. */
struct heard {
    enum heard_kind kind;
    uint64_t at_us;
    bool claimed; /* with <delivery/> */
    bool delayed, headline;
    char what;            /* NOTICE: first letter of its element; retract: 'r' */
    uint64_t first, last; /* GAP, with its reason */
    bool age;
    unsigned node;
    unsigned id, token, publisher; /* of the item */
    uint64_t epoch, seq;
    uint32_t attempt;
    uint64_t subid;
};

struct answer {
    bool came, result;
    enum xy_condition condition;
    uint64_t subid;
    unsigned figures[HEARD_FIGURES];
    unsigned moved; /* items, of <redrive/> and <move/> */
    unsigned count; /* of <item/> */
    unsigned ids[HEARD_ITEMS_MAX], tokens[HEARD_ITEMS_MAX], publishers[HEARD_ITEMS_MAX];
};

struct peer {
    struct link link;
    struct rig *rig;
    unsigned slot, account;
    bool linked;  /* the link is open at both ends */
    bool dropped; /* by the broker */
    bool in_transit;
    bool ready, sm, resumed, restored;
    uint32_t said;    /* stanzas since XEP-0198 was enabled … */
    uint32_t handled; /* … and what a resumption was told of them */
    struct xy_stream_options options;
    struct xy_stream *stream;
    struct xy_buf down; /* written by the broker, not read yet */
    char resume_id[80];
    size_t resume_id_len;
    uint32_t first; /* number of log[0] in the session's count, less one */
    struct heard *log;
    size_t count, cap;
    unsigned asked; /* number of the last IQ */
    struct answer answer;
    char trouble[200]; /* what broke; empty: nothing */
};

void peer_init(struct peer *peer, struct rig *rig, unsigned slot);
void peer_free(struct peer *peer);
/* A new session, or with `back` >= 0 the resumption of the last one by a client that has forgotten its last `back`
 * stanzas. */
void peer_connect(struct peer *peer, bool sm);
void peer_resume(struct peer *peer, uint32_t h);
void peer_close(struct peer *peer); /* </stream:stream> */
void peer_drop(struct peer *peer);  /* the connection is gone */
void peer_say(struct peer *peer, struct xy_str stanza);
void peer_ask(struct peer *peer, const char *type, struct xy_str payload); /* an IQ to the service */
void peer_ack(struct peer *peer, uint32_t h);
void peer_ask_ack(struct peer *peer);
bool peer_pump(struct peer *peer); /* true: something came */
