/* A simulated client: core/stream and core/sm in the client's role, with an application that remembers.
 *
 * It logs in, sends messages, publishes and subscribes, acknowledges in its own time, loses its connection, resumes or
 * begins a new session, and sends again what it was not told was handled. What it was told and what it got goes to the
 * model. */
#pragma once

#include "core/sm/queue.h"
#include "core/stream/stream.h"
#include "tests/sim/wire.h"

#define SIM_PENDING_MAX 32u         /* requests without an answer */
#define SIM_CLAIM_SAID  0x80000000u /* and above: which acknowledgement of sim_client.said a message is */

enum sim_client_state { SIM_CLIENT_OFF, SIM_CLIENT_LOGIN, SIM_CLIENT_READY };

struct sim_request;

struct sim_pending {
    bool used;
    const struct sim_request *request;
    unsigned id;
    unsigned token, number; /* PUBLISH: which item, and the number in its publish-id */
    unsigned node;
    uint64_t asked_moment; /* the first time … */
    uint64_t asked_us;     /* … by the clock */
    uint64_t seq;          /* ACK: which item of which subscription */
    char epoch[20], subid[20];
};

struct sim_client {
    struct sim_world *world;
    unsigned index, account;
    bool wants_sm;
    bool asks_resume;               /* of the session that is being made */
    bool subscriber, durable, bare; /* has subscriptions; at-least-once ones; of its bare JID */
    bool publisher;
    bool consumer; /* of queues */
    enum sim_client_state state;
    struct sim_wire *wire;
    struct xy_stream_options stream_options;
    struct xy_stream *stream;
    uint64_t try_us;   /* OFF: when to connect again */
    uint64_t login_us; /* LOGIN: when it began */
    uint64_t busy_us;  /* does not read until then */
    bool unwell;       /* unavailable, or of negative priority */
    bool sm;           /* of this session */
    /* What the world had seen when it connected, now and the last time that it became ready: what it reads after a crash
     * may still be of the broker before. */
    unsigned crashes, restarts, ready_crashes, ready_restarts;
    struct xy_sm counters;
    struct xy_sm_pool chunks;
    struct xy_sm_queue queue; /* entry.claim: token of a message plus one; 0: none; or see SIM_CLAIM_SAID */
    char resume_id[80];
    size_t resume_id_len; /* 0: nothing to resume */
    bool ack_owed, asked;
    uint32_t received_since_ack;
    unsigned session, serial; /* of the model: numbers what is sent */
    uint64_t left_moment;     /* of the bytes being handled */
    uint64_t bound_moment;    /* when the session began */
    struct sim_pending pending[SIM_PENDING_MAX];
    unsigned next_id;
    unsigned publish_number;
    struct xy_buf again; /* unsigned each: tokens of messages to send once more */
    bool queue_created[SIM_QUEUES], queue_joined[SIM_QUEUES];
    bool one_by_one;     /* acknowledges items itself */
    struct xy_buf said;  /* of app_ack.c: what it acknowledged in messages */
    struct xy_buf outs;  /* of app_ack.c: items it has */
    struct xy_buf jobs;  /* unsigned each: tokens of those it has */
    bool letters_joined; /* reads dead letters … */
    uint64_t letters_us; /* … or asks for them again then */
    bool burials_joined; /* the same of those of queues */
    uint64_t burials_us;
    bool created[SIM_NODES_MAX], subscribed[SIM_NODES_MAX];
    char subid[SIM_NODES_MAX][64];
    unsigned pings_first, pings_next; /* numbers of this session's pings */
    struct xy_buf answered;           /* a byte per ping of this session */
};

struct sim_client *sim_client_new(struct sim_world *world, unsigned index, unsigned account);
void sim_client_free(struct sim_client **client);

void sim_client_act(struct sim_client *client);     /* something of its own will */
bool sim_client_receive(struct sim_client *client); /* some bytes that arrived; false: there are none */
bool sim_client_satisfied(const struct sim_client *client); /* nothing is owed to it or by it */
uint64_t sim_client_due(const struct sim_client *client);

/* client.c for app*.c */
void sim_client_push(struct sim_client *client, struct xy_str stanza, unsigned claim);
/* app.c: what the application says and hears */
void sim_app_session_new(struct sim_client *client); /* nothing that was under way is known to have come */
void sim_app_act(struct sim_client *client);
void sim_app_stanza(struct sim_client *client, const struct xy_stanza *stanza);
bool sim_app_satisfied(const struct sim_client *client);
