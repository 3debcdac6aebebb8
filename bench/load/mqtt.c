/* MQTT 3.1.1: quality of service 0 where nodes keep nothing, 1 both ways otherwise. A node is a topic. */
#include <stdio.h>
#include <unistd.h>

#include "bench/load/load.h"

enum { CONNECT = 1, CONNACK, PUBLISH, PUBACK, SUBSCRIBE = 8, SUBACK, DISCONNECT = 14 };
enum { CLEAN_SESSION = 2, PROTOCOL_LEVEL = 4, FAILURE = 0x80 };

/* Packet identifiers have 16 bits, not 0; this many keep number % LOAD_WINDOW_MAX. */
enum { IDENTIFIERS = 63 * LOAD_WINDOW_MAX };

static unsigned quality(const struct client *client)
{
    return client->load->scenario->persist ? 1 : 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put_u16(struct xy_buf *out, unsigned value)
{
    xy_buf_char(out, (char)(value >> 8));
    xy_buf_char(out, (char)value);
}

static void put_string(struct xy_buf *out, struct xy_str text)
{
    put_u16(out, (unsigned)text.len);
    xy_buf_str(out, text);
}

/* `len`: of all that follows. */
static void put_header(struct xy_buf *out, unsigned kind, unsigned flags, size_t len)
{
    xy_buf_char(out, (char)(kind << 4 | flags));
    do {
        xy_buf_char(out, (char)(len % 128 | (len >= 128 ? 128 : 0)));
        len /= 128;
    } while (len > 0);
}

static void mqtt_open(struct client *client)
{
    char name[64];
    int len = snprintf(name, sizeof(name), "load-%ld-%u", (long)getpid(), client->number);
    put_header(&client->out, CONNECT, 0, 12 + (size_t)len);
    put_string(&client->out, XY_STR("MQTT"));
    xy_buf_char(&client->out, PROTOCOL_LEVEL);
    xy_buf_char(&client->out, CLEAN_SESSION);
    put_u16(&client->out, 0); /* no keep-alive */
    put_string(&client->out, xy_str(name));
}

static void mqtt_close(struct client *client)
{
    put_header(&client->out, DISCONNECT, 0, 0);
}

/* Topics need no making. */
static void mqtt_node(struct client *owner, const char *node)
{
    (void)owner;
    (void)node;
}

static void mqtt_subscribe(struct client *client, const char *node)
{
    put_header(&client->out, SUBSCRIBE, 2, 5 + xy_str(node).len);
    put_u16(&client->out, 1);
    put_string(&client->out, xy_str(node));
    xy_buf_char(&client->out, (char)quality(client));
    client->load->waiting++;
    client_dirty(client);
}

static void mqtt_publish(struct client *client, const char *node, uint64_t number, uint64_t time_us)
{
    unsigned qos = quality(client);
    put_header(&client->out, PUBLISH, qos << 1, 2 + xy_str(node).len + 2 * qos + LOAD_PAYLOAD_BYTES);
    put_string(&client->out, xy_str(node));
    if (qos > 0)
        put_u16(&client->out, (unsigned)(number % IDENTIFIERS) + 1);
    payload_put(&client->out, number, time_us);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static unsigned get_u16(const char *at)
{
    return (unsigned)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

static void on_publish(struct client *client, unsigned flags, struct xy_str body)
{
    size_t before = body.len < 2 ? SIZE_MAX : 2 + get_u16(body.data);
    unsigned qos = flags >> 1 & 3;
    if (before > body.len || body.len - before < 2 * qos)
        load_fail("a malformed PUBLISH came");
    if (qos > 0) {
        put_header(&client->out, PUBACK, 0, 2);
        xy_buf_add(&client->out, body.data + before, 2);
        client_dirty(client);
        before += 2;
    }
    client_delivered(client, xy_str_n(body.data + before, body.len - before));
}

static void on_packet(struct client *client, unsigned kind, unsigned flags, struct xy_str body)
{
    if (kind == PUBLISH)
        on_publish(client, flags, body);
    else if (kind == PUBACK && body.len >= 2)
        client_answered(client, get_u16(body.data) - 1);
    else if (kind == CONNACK && body.len == 2 && body.data[1] == 0)
        client->ready = true;
    else if (kind == SUBACK && body.len == 3 && (unsigned char)body.data[2] < FAILURE)
        client->load->waiting--;
    else
        load_fail("an MQTT packet of type %u that refuses or is not known", kind);
}

/* The length of the header, and of what follows; 0: it is not all there. */
static size_t header(struct xy_str bytes, size_t *len)
{
    *len = 0;
    for (unsigned i = 1; i < bytes.len && i <= 4; i++) {
        *len |= (size_t)(bytes.data[i] & 127) << (7 * (i - 1));
        if (!(bytes.data[i] & 128))
            return i + 1;
    }
    return 0;
}

static void mqtt_take(struct client *client)
{
    struct xy_str rest = xy_buf_view(&client->in);
    size_t head, len;
    while ((head = header(rest, &len)) > 0 && rest.len - head >= len) {
        unsigned first = (unsigned char)rest.data[0];
        on_packet(client, first >> 4, first & 15, xy_str_n(rest.data + head, len));
        rest = xy_str_n(rest.data + head + len, rest.len - head - len);
    }
    xy_buf_consume(&client->in, client->in.len - rest.len);
}

const struct protocol protocol_mqtt = { .name = "mqtt",
                                        .open = mqtt_open,
                                        .take = mqtt_take,
                                        .close = mqtt_close,
                                        .node_make = mqtt_node,
                                        .node_delete = mqtt_node,
                                        .subscribe = mqtt_subscribe,
                                        .publish = mqtt_publish };
