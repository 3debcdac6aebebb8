/* NATS: a subject where nodes keep nothing, otherwise a JetStream stream on disk, whose publishes are acknowledged and which
 * each subscriber has a consumer of, with explicit acknowledgements. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/load/socket.h"

/* Where answers to this client go: inbox.<user>.s to what is awaited, .p<number> to publishes. */
#define INBOX      "inbox.%u."
#define NAME_BYTES 64

static bool keeps(const struct client *client)
{
    return client->load->scenario->persist;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void nats_open(struct client *client)
{
    xy_buf_lit(&client->out,
               "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"0\"}\r\n");
    xy_buf_printf(&client->out, "SUB " INBOX "* 1\r\nPING\r\n", client->number);
}

/* The protocol has no word for it. */
static void nats_close(struct client *client)
{
    client_flush(client);
    (void)shutdown(client->fd, SHUT_WR);
}

static void ask(struct client *client, const char *what, const char *node, struct xy_str body)
{
    xy_buf_printf(&client->out, "PUB $JS.API.%s.%s " INBOX "s %zu\r\n%.*s\r\n", what, node, client->number,
                  body.len, XY_ARG(body));
    client->load->waiting++;
    client_dirty(client);
}

static void nats_node_make(struct client *owner, const char *node)
{
    struct xy_buf body = { 0 };
    xy_buf_printf(&body, "{\"name\":\"%s\",\"subjects\":[\"%s\"],\"storage\":\"file\",\"max_bytes\":%u}",
                  node, node, 1u << 30);
    if (keeps(owner))
        ask(owner, "STREAM.CREATE", node, xy_buf_view(&body));
    xy_buf_free(&body);
}

static void nats_node_delete(struct client *owner, const char *node)
{
    if (keeps(owner))
        ask(owner, "STREAM.DELETE", node, XY_STR(""));
}

static void nats_subscribe(struct client *client, const char *node)
{
    struct xy_buf body = { 0 };
    if (!keeps(client)) {
        xy_buf_printf(&client->out, "SUB %s 2\r\nPING\r\n", node);
        client->load->waiting++;
        client_dirty(client);
        return;
    }
    xy_buf_printf(&client->out, "SUB deliver.%u 2\r\n", client->number);
    xy_buf_printf(
        &body,
        "{\"stream_name\":\"%s\",\"config\":{\"deliver_subject\":\"deliver.%u\",\"deliver_policy\":\"new\","
        "\"ack_policy\":\"explicit\",\"max_ack_pending\":10000}}",
        node, client->number);
    ask(client, "CONSUMER.CREATE", node, xy_buf_view(&body));
    xy_buf_free(&body);
}

static void nats_publish(struct client *client, const char *node, uint64_t number, uint64_t time_us)
{
    char reply[NAME_BYTES] = "";
    if (keeps(client))
        (void)snprintf(reply, sizeof(reply), INBOX "p%" PRIu64 " ", client->number, number);
    xy_buf_printf(&client->out, "PUB %s %s%u\r\n", node, reply, LOAD_PAYLOAD_BYTES);
    payload_put(&client->out, number, time_us);
    xy_buf_lit(&client->out, "\r\n");
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void on_answer(struct client *client, struct xy_str subject, struct xy_str body)
{
    const char *name = memrchr(subject.data, '.', subject.len);
    uint64_t number;
    struct xy_str rest = xy_str_n(name + 2, (size_t)(subject.data + subject.len - name) - 2);
    if (memmem(body.data, body.len, "\"error\"", 7) != NULL)
        load_fail("refused: %.*s", XY_ARG(body));
    if (name[1] == 's')
        client->load->waiting--;
    else if (xy_str_u64(rest, &number))
        client_answered(client, number);
}

/* MSG subject sid [reply] bytes; the payload follows. false: it is not all there. */
static bool on_message(struct client *client, struct xy_str line, struct xy_str *rest)
{
    struct xy_str word[5] = { { 0 } };
    unsigned words = 0;
    uint64_t bytes = 0;
    for (const char *at = line.data, *end = at + line.len; at < end && words < 5; words++) {
        const char *blank = memchr(at, ' ', (size_t)(end - at));
        word[words] = xy_str_n(at, (size_t)((blank == NULL ? end : blank) - at));
        at = blank == NULL ? end : blank + 1;
    }
    if (words < 4 || !xy_str_u64(word[words - 1], &bytes))
        load_fail("a malformed message came: %.*s", XY_ARG(line));
    if (rest->len < bytes + 2)
        return false;
    struct xy_str body = xy_str_n(rest->data, bytes);
    *rest = xy_str_n(rest->data + bytes + 2, rest->len - bytes - 2);
    if (xy_str_is(word[2], "1")) {
        on_answer(client, word[1], body);
        return true;
    }
    client_delivered(client, body);
    if (words == 5) {
        xy_buf_printf(&client->out, "PUB %.*s 0\r\n\r\n", XY_ARG(word[3]));
        client_dirty(client);
    }
    return true;
}

static void on_pong(struct client *client)
{
    if (client->ready)
        client->load->waiting--;
    client->ready = true;
}

static void on_line(struct client *client, struct xy_str line)
{
    if (xy_str_is(line, "PING")) {
        xy_buf_lit(&client->out, "PONG\r\n");
        client_dirty(client);
    } else if (xy_str_is(line, "PONG")) {
        on_pong(client);
    } else if (xy_str_starts(line, XY_STR("-ERR"))) {
        load_fail("refused: %.*s", XY_ARG(line));
    } /* INFO, +OK */
}

static void nats_take(struct client *client)
{
    struct xy_str rest = xy_buf_view(&client->in);
    const char *end;
    while (rest.len > 0 && (end = memmem(rest.data, rest.len, "\r\n", 2)) != NULL) {
        struct xy_str line = xy_str_n(rest.data, (size_t)(end - rest.data));
        struct xy_str behind = xy_str_n(end + 2, rest.len - line.len - 2);
        if (!xy_str_starts(line, XY_STR("MSG ")))
            on_line(client, line);
        else if (!on_message(client, line, &behind))
            break;
        rest = behind;
    }
    xy_buf_consume(&client->in, client->in.len - rest.len);
}

const struct protocol protocol_nats = { .name = "nats",
                                        .open = nats_open,
                                        .take = nats_take,
                                        .close = nats_close,
                                        .node_make = nats_node_make,
                                        .node_delete = nats_node_delete,
                                        .subscribe = nats_subscribe,
                                        .publish = nats_publish };
