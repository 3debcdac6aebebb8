/* The load generator: many clients of one server in one thread, and what they got.
 *
 *   main.c      scenarios as a table, options, the result as one line of JSON
 *   client.c    connections, and what they got
 *   xmpp.c      login by core/stream, then whole elements as bytes (scan.c), XEP-0198;  mqtt.c, nats.c, amqp.c  the same for these
 *   tls.c       STARTTLS, by core/tls
 *   loop.c      epoll, the clock, waiting for something
 *   figures.c   counts, spreads, processor time of both sides;  machine.c  what others took, the server's memory
 *   nodes.c     publishing and fan-out;  messages.c  messages;  logins.c  sessions;  sdk.c  the same through libxylem
 *   beside.c    what is there beside the load
 *
 * After the login stanzas are not parsed into trees: the generator shares the machine with what it measures, and only looks
 * for the mark that every payload begins with. Anything a server does wrong ends the run with its own words. */
#pragma once

#include "core/base/buf.h"
#include "core/base/env.h"
#include "core/stream/stream.h"
#include "core/tls/tls.h"

#define LOAD_PAYLOAD_BYTES 256u
#define LOAD_MARK_BYTES    33u /* of the payload: '@', then number and time in hexadecimal */
#define LOAD_WINDOW_MAX    1024u
#define LOAD_LAG_MAX       2000u /* items ahead of the average subscriber */
#define LOAD_ACK_EVERY     20u   /* stanzas between two <a/> or <r/> */
#define LOAD_WAIT_S        60u   /* for one step of the preparation, or the end of a run */
#define LOAD_DRAIN_S       20u   /* for what is still on its way when publishing ends */

struct load;
struct client;

/* --- scenarios ---------------------------------------------------------------------------------------------------- */

struct scenario {
    const char *name;
    const char *counts; /* what an operation is */
    void (*run)(struct load *load);
    unsigned sources; /* publishers, each with a node of its own; 0: one */
    unsigned sinks;   /* subscribers, recipients, sessions */
    unsigned window;  /* unanswered publishes of one source, messages on their way */
    unsigned rate;    /* publishes per second at fixed times; 0: as fast as it goes */
    unsigned total;   /* operations; 0: for the time of the run */
    bool persist;     /* the node keeps its newest ten items, or all of `total`, and stays */
    bool in_turn;     /* publishes to each of the nodes that are there beside */
    bool tls;         /* STARTTLS on every connection */
    bool sm; /* XEP-0198 on every session, and at-least-once subscriptions where the server has them */
    bool explicitly; /* at-least-once subscriptions, each item acknowledged by name (urn:xylem:delivery:0) */
};

void nodes_run(struct load *load);
void messages_run(struct load *load);
void offline_run(struct load *load);
void logins_run(struct load *load);
void idle_run(struct load *load);
void sdk_run(struct load *load);

/* --- protocols ---------------------------------------------------------------------------------------------------- */

/* What is said is put into client->out; what is asked for and awaited (clients_answered) counts in load->waiting. */
struct protocol {
    const char *name;
    bool answers_all;                    /* publishes to nodes that keep nothing, too */
    void (*open)(struct client *client); /* connected: log in; client->ready says when that is done */
    void (*take)(struct client *client); /* what is whole out of client->in */
    void (*close)(struct client *client);
    void (*node_make)(struct client *owner, const char *node);
    void (*node_delete)(struct client *owner, const char *node);
    void (*subscribe)(struct client *client, const char *node);
    void (*publish)(struct client *client, const char *node, uint64_t number, uint64_t time_us);
};
extern const struct protocol protocol_xmpp, protocol_mqtt, protocol_nats, protocol_amqp;

/* --- figures ------------------------------------------------------------------------------------------------------ */

#define SPREAD_BUCKETS 4096u

struct spread { /* of microseconds; buckets a sixty-fourth of a power of two wide */
    uint64_t count, bucket[SPREAD_BUCKETS];
};
void spread_add(struct spread *spread, uint64_t us);
uint64_t spread_quantile(const struct spread *spread, unsigned permille); /* 0: there are none */

/* Sums up to some moment. */
struct sums {
    uint64_t time_us, done, answered, covered;
    uint64_t server_cpu_us, client_cpu_us, others_cpu_us;
};

struct figures {
    uint64_t done;     /* operations: what the scenario counts */
    uint64_t answered; /* publishes acknowledged */
    uint64_t covered;  /* messages acknowledged by XEP-0198 */
    uint64_t lost, repeated, corrupt;
    struct spread answer, delivery; /* how long each took */
    struct sums begin, end;         /* of the time that counts */
    struct xy_buf more;             /* further members of the JSON object */
};
void figures_mark(struct load *load, struct sums *sums);
void figures_print(struct load *load);

/* machine.c: what /proc says. */
uint64_t others_cpu_us(const struct load *load); /* processor time of all but the server and the generator */
uint64_t server_private_kb(const struct load *load); /* resident, without what is mapped from files */

/* --- the run ------------------------------------------------------------------------------------------------------ */

struct load {
    const struct scenario *scenario;
    const struct protocol *protocol;
    const char *host, *domain, *service, *password;
    uint16_t port;
    bool at_least_once;    /* the server knows urn:xylem:delivery:0 */
    bool quorum;           /* AMQP: queues that keep messages are quorum queues */
    unsigned sinks, total; /* 0: as many as the scenario says */
    unsigned burst;        /* publishes as fast as it goes, before warm-up */
    unsigned stopped;      /* further subscribers of the node, who read nothing once they are */
    double seconds, warmup_s;
    long pid; /* of the server; 0: no figures of it */
    struct {
        unsigned sessions, nodes, subscriptions;
    } beside;

    const struct xy_env *env;
    struct xy_stream_options stream;
    struct xy_tls_config *tls; /* NULL: not used yet */
    int epoll;
    uint64_t now_us;
    struct client **clients;
    unsigned clients_count;
    unsigned round; /* of the sessions that are opened: so many of each account are there already */
    struct client *dirty;
    unsigned waiting; /* requests without an answer */
    uint64_t acks_us; /* when sessions were last asked to acknowledge what they have */

    /* What the scenario wants to hear; may be NULL. */
    void (*on_answer)(struct client *client, uint64_t number); /* to client_publish */
    void (*on_delivery)(struct client *client);
    void (*on_turn)(struct load *load); /* before waiting; sets wake_us */
    uint64_t wake_us;
    void *ctx;
    struct figures figures;
};

_Noreturn void load_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- loop --------------------------------------------------------------------------------------------------------- */

uint64_t clock_us(void);
void loop_turn(struct load *load, uint64_t until_us); /* waits at most that long */
/* Until `done` says so; false: it did not within `seconds`. */
bool loop_until(struct load *load, double seconds, bool (*done)(struct load *load));
void loop_for(struct load *load, double seconds);
/* `step` in each turn, with figures.begin and .end marked after warm-up and at the end. */
void loop_measure(struct load *load, void (*step)(struct load *load));

/* --- clients ------------------------------------------------------------------------------------------------------ */

struct client {
    struct load *load;
    unsigned number; /* of the user */
    int fd;
    struct xy_stream *stream; /* XMPP: until it is ready */
    struct xy_tls *tls;       /* NULL: in clear */
    bool secure;              /* and the stream knows that TLS is on */
    bool available;           /* says presence when it is in */
    bool sm, ready, closing, wants_write, stopped;
    struct client *dirty_next;
    bool is_dirty;

    struct xy_buf in, out;
    size_t scanned; /* of the first element in `in`: up to here it was looked at … */
    unsigned depth; /* … and is so deep */

    uint32_t h, h_told;     /* stanzas that came; acknowledged */
    uint64_t sent, covered; /* stanzas sent since XEP-0198 is on; acknowledged by the server */
    uint64_t asked;         /* of `sent` when the last <r/> went */
    struct xy_buf acks;     /* explicit ones that wait to be sent, and how many */
    unsigned acks_count;
    uint64_t published, answered;
    uint64_t delivered; /* each number once: they come from one source, from 1 on */
    uint64_t sent_us[LOAD_WINDOW_MAX];
};

/* Logs in `count` users from u<first>@domain on, and makes them available (presence) if wanted. Memory, and the array that
 * is returned, stay until the next call. */
struct client **clients_open(struct load *load, unsigned first, unsigned count, bool available);
void clients_close(struct load *load, struct client **clients, unsigned count); /* the memory stays */

void client_stop_reading(struct client *client); /* for good */
void client_dirty(struct client *client);        /* client->out has something new */
void clients_answered(struct load *load);        /* waits for the answers to all that load->waiting counts */

/* What a protocol tells: the answer to a publish, and a payload with whatever follows it. */
void client_answered(struct client *client, uint64_t number);
void client_delivered(struct client *client, struct xy_str payload);

/* XMPP only. */
void client_acknowledge_item(struct client *client, struct xy_str node, struct xy_str epoch,
                             struct xy_str seq);
void client_raw(struct client *client, struct xy_str stanza); /* counted for XEP-0198 */
void client_ping(struct client *client); /* the server: everything before has been looked at */
void client_message(struct client *client, struct xy_str to, uint64_t number, uint64_t time_us);
void client_request_ack(struct client *client); /* <r/> */

/* beside.c: XMPP only, before the scenario. */
struct beside_name {
    char text[48];
};
void beside_make(struct load *load);
void beside_node(struct beside_name *name, uint64_t number); /* of those that beside_make made, from 0 on */

/* nodes.c: as the scenario wants it. */
void node_make(struct client *owner, const char *node);
void node_delete(struct client *owner, const char *node);

void payload_put(struct xy_buf *out, uint64_t number, uint64_t time_us);
/* Reads a payload that begins at text.data and is followed by whatever; false: it is not one. */
bool payload_get(struct xy_str text, uint64_t *number, uint64_t *time_us);
