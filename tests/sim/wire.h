/* A simulated connection: a link as broker/session knows it, two directions of bytes, and a network in between that
 * delays, splits, stalls and cuts.
 *
 * What the broker writes is `taken by the kernel` up to a capacity; above that the link keeps it and says writable
 * later, as broker/net does. Bytes remember when they left the broker, because what they say must have been true then. */
#pragma once

#include "broker/net/link.h"
#include "tests/sim/world.h"

struct sim_segment {
    struct sim_segment *next;
    uint64_t ready_us;    /* arrives then */
    uint64_t left_moment; /* was written then */
    bool counted;         /* by XEP-0198 */
    size_t len, taken;
    char data[];
};

struct sim_pipe {
    struct sim_segment *first, *last;
    size_t bytes;
};

struct sim_wire {
    struct link link;
    struct sim_world *world;
    unsigned client;
    unsigned number;
    struct sim_pipe up, down; /* client to broker, broker to client */
    size_t capacity;          /* of the kernel's buffer towards the client */
    uint64_t delay_us;
    bool kept;          /* more than that was written: the link owes `writable` */
    bool paused;        /* the broker does not read */
    bool counts;        /* the broker has said that XEP-0198 is on */
    bool in_transit;    /* detached from its shard, not yet attached */
    bool broker_closed; /* close() was called, or the process is dead */
    bool client_closed; /* the client will not look at it again */
    bool severed;       /* nothing passes any more */
    bool gone_told;
    uint64_t gone_us;        /* severed: when the broker notices; UINT64_MAX: never by itself */
    uint64_t client_gone_us; /* severed: when the client notices */
};

struct sim_wire *sim_wire_open(struct sim_world *world, unsigned client, unsigned shard, enum link_kind kind);
void sim_wire_send(struct sim_wire *wire, struct xy_str bytes); /* the client writes */
/* The next bytes that have arrived at the client, at most `len_max`: all of one write of the broker. 0: none. */
size_t sim_wire_receive(struct sim_wire *wire, char *out, size_t len_max, uint64_t *left_moment);
bool sim_wire_ended(const struct sim_wire *wire); /* the client sees the end of the connection */
void sim_wire_hang_up(struct sim_wire *wire);     /* by the client; nothing more arrives there */
void sim_wire_cut(struct sim_wire *wire);         /* by the network */
void sim_wire_broker_died(struct sim_wire *wire);

bool sim_wire_input_ready(const struct sim_wire *wire);
void sim_wire_deliver(struct sim_wire *wire); /* some bytes, or the news of its end, to the broker */
bool sim_wire_gone_due(const struct sim_wire *wire);
bool sim_wire_finished(const struct sim_wire *wire);
uint64_t sim_wire_due(const struct sim_wire *wire); /* when something arrives; UINT64_MAX: nothing will */
void sim_wire_free(struct sim_wire **wire);
