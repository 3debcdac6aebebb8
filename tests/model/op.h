/* One operation of the model test: what is done, in small numbers that mean the same whatever was done before, so that a
 * sequence can be shortened, printed as a script and read back. main.c makes and replays sequences, shrink.c shortens
 * them, check.c does them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "tests/sim/random.h"

#define OP_ARGS_MAX 8u

enum op_kind {
    OP_CONNECT,   /* session, sm, priority: a new session of that slot, available */
    OP_CLOSE,     /* session */
    OP_DROP,      /* session: its connection is gone */
    OP_RESUME,    /* session, back: the client has forgotten its last `back` stanzas; also after a restart */
    OP_PRESENCE,  /* session, priority; 9: unavailable */
    OP_ACK,       /* session, back: all but the last `back` */
    OP_CREATE,    /* session, node, max_items (0: max), access, publish */
    OP_CONFIGURE, /* session, node, field, value */
    OP_DELETE,    /* session, node */
    OP_PURGE,     /* session, node */
    OP_PUBLISH,   /* session, node, id, token, once, number, more: items behind the first */
    OP_RETRACT,   /* session, node, id, notify */
    OP_SUBSCRIBE, /* session, node, bare, durable, start, number, ack (0: stream; else one by one),
                     * backlog (0: no bound; 1: bytes, 2: age) */
    OP_UNSUBSCRIBE, /* session, node, bare */
    OP_AFFILIATE,   /* session, node, account, affiliation */
    OP_SETTLE,      /* session, node, bare, verb, which, delay (-1: none) */
    OP_ITEMS,       /* session, node, max (0: all) */
    OP_TIME,        /* milliseconds */
    OP_CRASH,       /* shards */
    OP_STOP,        /* shards */
    OP_CHECKPOINT,
    OP_QUEUE_MAKE,  /* session, queue */
    OP_QUEUE_JOIN,  /* session, queue, requests, bare */
    OP_QUEUE_LEAVE, /* session, queue, bare */
    OP_QUEUE_PUT, /* session, queue, id, token, group (0: none), urgency (0: none), delay and ttl in seconds */
    OP_QUEUE_DONE,  /* session, queue, verb, own, which, delay (-1: none); own: one that it has */
    OP_QUEUE_LOOK,  /* session, queue */
    OP_QUEUE_DRIVE, /* session, queue: parked items are ready again */
    OP_QUEUE_MOVE,  /* session, queue: dead letters go back into it */
    OP_KIND_COUNT
};

struct op {
    enum op_kind kind;
    bool lost; /* the power fails before its commit */
    int args[OP_ARGS_MAX];
};

/* Short for the arguments, in the order above. */
#define OP_SESSION 0
#define OP_NODE    1

struct op_shape {
    const char *name;
    const char *args[OP_ARGS_MAX + 1]; /* NULL-terminated */
    bool request;                      /* an IQ of a session to the service */
};
extern const struct op_shape op_shapes[OP_KIND_COUNT];

/* `queues`: half of them are about queues. */
struct op op_random(struct sim_random *random, int token, bool queues);
void op_print(const struct op *op, char *out, size_t size);
bool op_parse(const char *line, struct op *op);
