/* What clients say, and the payload that everything carries. */
#include "bench/load/load.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/encoding.h"
#include "core/namespaces.h"

#define FILL "................................................................"

struct mark {
    uint64_t number, time_us;
};

_Static_assert(sizeof(struct mark) * 2 + 1 == LOAD_MARK_BYTES, "the mark in hexadecimal");
_Static_assert(LOAD_PAYLOAD_BYTES - LOAD_MARK_BYTES < 4 * (sizeof(FILL) - 1), "enough to fill a payload");

static const char fill[] = FILL FILL FILL FILL;

void payload_put(struct xy_buf *out, uint64_t number, uint64_t time_us)
{
    struct mark mark = { number, time_us };
    char digits[sizeof(mark) * 2];
    xy_hex_encode(digits, &mark, sizeof(mark));
    xy_buf_char(out, '@');
    xy_buf_add(out, digits, sizeof(digits));
    xy_buf_add(out, fill, LOAD_PAYLOAD_BYTES - LOAD_MARK_BYTES);
}

bool payload_get(struct xy_str text, uint64_t *number, uint64_t *time_us)
{
    struct mark mark;
    if (text.len < LOAD_PAYLOAD_BYTES || !xy_hex_decode(&mark, xy_str_n(text.data + 1, sizeof(mark) * 2)) ||
        memcmp(text.data + LOAD_MARK_BYTES, fill, LOAD_PAYLOAD_BYTES - LOAD_MARK_BYTES) != 0)
        return false;
    *number = mark.number;
    *time_us = mark.time_us;
    return true;
}

static void ask(struct client *client, const char *type, const char *to, const char *payload)
{
    static uint64_t asked;
    struct xy_buf stanza = { 0 };
    xy_buf_printf(&stanza, "<iq type='%s' to='%s' id='s%" PRIu64 "'>%s</iq>", type, to, ++asked, payload);
    client->load->waiting++;
    client_raw(client, xy_buf_view(&stanza));
    xy_buf_free(&stanza);
}

void client_ask(struct client *client, const char *payload, ...)
{
    char text[2048];
    va_list arguments;
    va_start(arguments, payload);
    (void)vsnprintf(text, sizeof(text), payload, arguments);
    va_end(arguments);
    ask(client, "set", client->load->service, text);
}

void client_ping(struct client *client)
{
    ask(client, "get", client->load->domain, "<ping xmlns='" NS_PING "'/>");
}

static bool none_waits(struct load *load)
{
    return load->waiting == 0;
}

void clients_answered(struct load *load)
{
    if (!loop_until(load, LOAD_WAIT_S, none_waits))
        load_fail("%u requests without an answer after %u s", load->waiting, LOAD_WAIT_S);
}

void client_publish(struct client *client, const char *node, uint64_t number, uint64_t time_us)
{
    struct xy_buf *out = &client->out;
    xy_buf_lit(out, "<iq type='set' to='");
    xy_buf_str(out, xy_str(client->load->service));
    xy_buf_lit(out, "' id='p");
    xy_buf_u64(out, number);
    xy_buf_lit(out, "'><pubsub xmlns='" NS_PUBSUB "'><publish node='");
    xy_buf_str(out, xy_str(node));
    xy_buf_lit(out, "'><item><load xmlns='urn:example:load'>");
    payload_put(out, number, time_us);
    xy_buf_lit(out, "</load></item></publish></pubsub></iq>");
    client_raw(client, XY_STR(""));
}

void client_message(struct client *client, struct xy_str to, uint64_t number, uint64_t time_us)
{
    struct xy_buf *out = &client->out;
    xy_buf_lit(out, "<message type='chat' to='");
    xy_buf_str(out, to);
    xy_buf_lit(out, "' id='m");
    xy_buf_u64(out, number);
    xy_buf_lit(out, "'><body>");
    payload_put(out, number, time_us);
    xy_buf_lit(out, "</body></message>");
    client_raw(client, XY_STR(""));
}
