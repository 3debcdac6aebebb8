/* AMQP 0-9-1: a node is a fanout exchange, a subscriber a queue bound to it. Where nodes keep items, queues are durable (quorum
 * queues with --quorum), messages persistent, publishes confirmed and deliveries acknowledged; where they do not, none of it. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/load/socket.h"

#define METHOD(class, number) ((unsigned)(class) << 16 | (unsigned)(number))

/* clang-format off */
enum {
    START = METHOD(10, 10), START_OK, TUNE = METHOD(10, 30), TUNE_OK, OPEN = METHOD(10, 40), OPEN_OK,
    CLOSE = METHOD(10, 50), CLOSE_OK, CHANNEL_OPEN = METHOD(20, 10), CHANNEL_OPEN_OK,
    CHANNEL_CLOSE = METHOD(20, 40), EXCHANGE_DECLARE = METHOD(40, 10), EXCHANGE_DECLARE_OK,
    EXCHANGE_DELETE = METHOD(40, 20), EXCHANGE_DELETE_OK, QUEUE_DECLARE = METHOD(50, 10), QUEUE_DECLARE_OK,
    QUEUE_BIND = METHOD(50, 20), QUEUE_BIND_OK, QUEUE_DELETE = METHOD(50, 40), QUEUE_DELETE_OK,
    QOS = METHOD(60, 10), QOS_OK, CONSUME = METHOD(60, 20), CONSUME_OK, SEND = METHOD(60, 40),
    DELIVER = METHOD(60, 60), ACK = METHOD(60, 80), CONFIRM = METHOD(85, 10), CONFIRM_OK
};
/* clang-format on */

enum { FRAME_METHOD = 1, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT = 8, FRAME_END = 0xce, FRAME_AROUND = 8 };
enum {
    DURABLE = 2,
    AUTO_DELETE = 8,
    EXCLUSIVE = 4,
    NO_ACK = 2,
    MULTIPLE = 1,
    PREFETCH = 1000,
    NAME_BYTES = 64
};

static bool keeps(const struct client *client)
{
    return client->load->scenario->persist;
}

static bool is_quorum(const struct client *client)
{
    return keeps(client) && client->load->quorum;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put(struct xy_buf *out, uint64_t value, unsigned bytes)
{
    while (bytes-- > 0)
        xy_buf_char(out, (char)(value >> (8 * bytes)));
}

static void put_short(struct xy_buf *out, const char *text)
{
    put(out, strlen(text), 1);
    xy_buf_str(out, xy_str(text));
}

/* Returns where the frame's length is to be put by frame_end. */
static size_t frame_begin(struct xy_buf *out, unsigned kind, unsigned channel)
{
    put(out, kind, 1);
    put(out, channel, 2);
    put(out, 0, 4);
    return out->len;
}

static void frame_end(struct xy_buf *out, size_t begin)
{
    size_t len = out->len - begin;
    if (xy_buf_failed(out))
        load_fail("no memory");
    for (unsigned i = 0; i < 4; i++)
        out->data[begin - 1 - i] = (char)(len >> (8 * i));
    put(out, FRAME_END, 1);
}

/* Of the connection (class 10) on channel 0, all others on 1. */
static size_t method_begin(struct client *client, unsigned method)
{
    size_t begin = frame_begin(&client->out, FRAME_METHOD, method >> 16 == 10 ? 0 : 1);
    put(&client->out, method, 4);
    client_dirty(client);
    return begin;
}

/* Tables of arguments, each behind its length: none, and what kind of queue it is to be. */
#define EMPTY  XY_STR("\0\0\0\0")
#define QUORUM XY_STR("\0\0\0\x18\x0cx-queue-typeS\0\0\0\x06quorum")

/* Reserved, name, up to two more names, bits, and a table where the method has one: the shape of most methods. */
static void ask(struct client *client, unsigned method, const char *const names[], unsigned bits,
                struct xy_str table)
{
    size_t begin = method_begin(client, method);
    put(&client->out, 0, 2);
    for (; *names != NULL; names++)
        put_short(&client->out, *names);
    put(&client->out, bits, 1);
    xy_buf_str(&client->out, table);
    frame_end(&client->out, begin);
    client->load->waiting++;
}

#define NAMES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void make_queue(struct client *client, const char *queue, const char *node, unsigned bits)
{
    ask(client, QUEUE_DECLARE, NAMES(queue), bits, is_quorum(client) ? QUORUM : EMPTY);
    ask(client, QUEUE_BIND, NAMES(queue, node, ""), 0, EMPTY);
}

struct queue_name {
    char text[NAME_BYTES];
};

static struct queue_name queue_of(const char *node, unsigned subscriber)
{
    struct queue_name name;
    (void)snprintf(name.text, sizeof(name.text), "%s-%u", node, subscriber);
    return name;
}

static void amqp_node_make(struct client *owner, const char *node)
{
    ask(owner, EXCHANGE_DECLARE, NAMES(node, "fanout"), keeps(owner) ? DURABLE : 0, EMPTY);
    if (owner->load->scenario->sinks == 0) /* a message that has nowhere to go would be confirmed at once */
        make_queue(owner, node, node, DURABLE);
}

static void amqp_node_delete(struct client *owner, const char *node)
{
    unsigned sinks = owner->load->scenario->sinks;
    if (sinks == 0)
        ask(owner, QUEUE_DELETE, NAMES(node), 0, XY_STR_NONE);
    for (unsigned i = 1; is_quorum(owner) && i <= sinks; i++) /* the others go with their consumers */
        ask(owner, QUEUE_DELETE, NAMES(queue_of(node, i).text), 0, XY_STR_NONE);
    ask(owner, EXCHANGE_DELETE, NAMES(node), 0, XY_STR_NONE);
}

static unsigned queue_bits(const struct client *client)
{
    if (!keeps(client))
        return EXCLUSIVE | AUTO_DELETE;
    return is_quorum(client) ? DURABLE : DURABLE | AUTO_DELETE;
}

static void amqp_subscribe(struct client *client, const char *node)
{
    struct queue_name queue = queue_of(node, client->number);
    make_queue(client, queue.text, node, queue_bits(client));
    if (keeps(client)) {
        size_t begin = method_begin(client, QOS);
        put(&client->out, 0, 4);
        put(&client->out, PREFETCH, 2);
        put(&client->out, 0, 1);
        frame_end(&client->out, begin);
        client->load->waiting++;
    }
    ask(client, CONSUME, NAMES(queue.text, ""), keeps(client) ? 0 : NO_ACK, EMPTY);
}

static void amqp_publish(struct client *client, const char *node, uint64_t number, uint64_t time_us)
{
    struct xy_buf *out = &client->out;
    size_t begin = method_begin(client, SEND);
    put(out, 0, 2);
    put_short(out, node);
    put_short(out, "");
    put(out, 0, 1);
    frame_end(out, begin);
    begin = frame_begin(out, FRAME_HEADER, 1);
    put(out, 60, 2);
    put(out, 0, 2);
    put(out, LOAD_PAYLOAD_BYTES, 8);
    put(out, 0x1000, 2); /* of the properties, only the delivery mode */
    put(out, keeps(client) ? 2 : 1, 1);
    frame_end(out, begin);
    begin = frame_begin(out, FRAME_BODY, 1);
    payload_put(out, number, time_us);
    frame_end(out, begin);
}

/* --- the beginning ------------------------------------------------------------------------------------------------ */

static void amqp_open(struct client *client)
{
    xy_buf_add(&client->out, "AMQP\0\0\x09\x01", 8);
}

static void amqp_close(struct client *client)
{
    size_t begin = method_begin(client, CLOSE);
    put(&client->out, 200, 2);
    put_short(&client->out, "");
    put(&client->out, 0, 4);
    frame_end(&client->out, begin);
}

static void on_start(struct client *client)
{
    static const char guest[] = "\0guest\0guest";
    size_t begin = method_begin(client, START_OK);
    put(&client->out, 0, 4);
    put_short(&client->out, "PLAIN");
    put(&client->out, sizeof(guest) - 1, 4);
    xy_buf_add(&client->out, guest, sizeof(guest) - 1);
    put_short(&client->out, "en_US");
    frame_end(&client->out, begin);
}

/* As many channels and as large frames as the server wants; no heartbeat. */
static void on_tune(struct client *client, struct xy_str arguments)
{
    size_t begin = method_begin(client, TUNE_OK);
    xy_buf_add(&client->out, arguments.data, 6);
    put(&client->out, 0, 2);
    frame_end(&client->out, begin);
    begin = method_begin(client, OPEN);
    put_short(&client->out, "/");
    put(&client->out, 0, 2);
    frame_end(&client->out, begin);
}

static void one_byte(struct client *client, unsigned method)
{
    size_t begin = method_begin(client, method);
    put(&client->out, 0, 1);
    frame_end(&client->out, begin);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static uint64_t get(const char *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | (unsigned char)at[i];
    return value;
}

/* One publish, or all up to it; sent_us is 0 once it is answered. */
static void on_ack(struct client *client, struct xy_str arguments)
{
    uint64_t number = get(arguments.data, 8), first = number;
    if (arguments.data[8] & MULTIPLE)
        first = number < LOAD_WINDOW_MAX ? 1 : number - LOAD_WINDOW_MAX + 1;
    for (; first <= number; first++) {
        uint64_t *sent_us = &client->sent_us[first % LOAD_WINDOW_MAX];
        if (*sent_us == 0)
            continue;
        client_answered(client, first);
        *sent_us = 0;
    }
}

static void on_method(struct client *client, unsigned method, struct xy_str arguments)
{
    switch (method) {
    case START:
        on_start(client);
        break;
    case TUNE:
        on_tune(client, arguments);
        break;
    case OPEN_OK:
        one_byte(client, CHANNEL_OPEN);
        break;
    case CHANNEL_OPEN_OK:
        if (keeps(client))
            one_byte(client, CONFIRM);
        else
            client->ready = true;
        break;
    case CONFIRM_OK:
        client->ready = true;
        break;
    case DELIVER: /* consumer's name, number; the payload comes in frames of its own */
        client->covered = get(arguments.data + 1 + (unsigned char)arguments.data[0], 8);
        break;
    case ACK:
        on_ack(client, arguments);
        break;
    case EXCHANGE_DECLARE_OK:
    case EXCHANGE_DELETE_OK:
    case QUEUE_DECLARE_OK:
    case QUEUE_BIND_OK:
    case QUEUE_DELETE_OK:
    case QOS_OK:
    case CONSUME_OK:
        client->load->waiting--;
        break;
    case CLOSE_OK: /* the server waits for the client to go first */
        (void)shutdown(client->fd, SHUT_WR);
        break;
    default:
        load_fail("refused (%u.%u): %.*s", method >> 16, method & 0xffff,
                  arguments.len < 3 ? 0 : (int)(unsigned char)arguments.data[2], arguments.data + 3);
    }
}

/* What was delivered up to now, all at once. */
static void acknowledge(struct client *client)
{
    if (!keeps(client) || client->covered == client->asked)
        return;
    client->asked = client->covered;
    size_t begin = method_begin(client, ACK);
    put(&client->out, client->covered, 8);
    put(&client->out, MULTIPLE, 1);
    frame_end(&client->out, begin);
}

static void amqp_take(struct client *client)
{
    struct xy_str rest = xy_buf_view(&client->in);
    while (rest.len >= FRAME_AROUND) {
        unsigned kind = (unsigned char)rest.data[0];
        size_t len = get(rest.data + 3, 4);
        if (rest.len < len + FRAME_AROUND)
            break;
        struct xy_str body = xy_str_n(rest.data + 7, len);
        if (kind == FRAME_METHOD && len >= 4)
            on_method(client, (unsigned)get(body.data, 4), xy_str_n(body.data + 4, len - 4));
        else if (kind == FRAME_BODY)
            client_delivered(client, body);
        else if (kind != FRAME_HEADER && kind != FRAME_HEARTBEAT)
            load_fail("an AMQP frame of kind %u came", kind);
        rest = xy_str_n(rest.data + len + FRAME_AROUND, rest.len - len - FRAME_AROUND);
    }
    xy_buf_consume(&client->in, client->in.len - rest.len);
    acknowledge(client);
}

const struct protocol protocol_amqp = { .name = "amqp",
                                        .open = amqp_open,
                                        .take = amqp_take,
                                        .close = amqp_close,
                                        .node_make = amqp_node_make,
                                        .node_delete = amqp_node_delete,
                                        .subscribe = amqp_subscribe,
                                        .publish = amqp_publish };
