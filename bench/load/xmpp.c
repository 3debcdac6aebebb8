/* XMPP: the login through core/stream, what is said afterwards, XEP-0198. What comes is looked at in scan.c. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/scan.h"
#include "bench/load/socket.h"
#include "core/namespaces.h"

#define FIELD(name, value) "<field var='pubsub#" name "'><value>" value "</value></field>"

void client_raw(struct client *client, struct xy_str stanza)
{
    xy_buf_str(&client->out, stanza);
    client->sent += client->sm;
    client_dirty(client);
}

/* --- XEP-0198 ----------------------------------------------------------------------------------------------------- */

static void send_acks(struct client *client)
{
    struct xy_buf *out = &client->out;
    xy_buf_lit(out, "<message to='");
    xy_buf_str(out, xy_str(client->load->service));
    xy_buf_lit(out, "'>");
    xy_buf_str(out, xy_buf_view(&client->acks));
    xy_buf_lit(out, "</message>");
    xy_buf_reset(&client->acks);
    client->acks_count = 0;
    client_dirty(client);
}

void client_acknowledge_item(struct client *client, struct xy_str node, struct xy_str epoch,
                             struct xy_str seq)
{
    struct xy_buf *acks = &client->acks;
    xy_buf_lit(acks, "<ack xmlns='" NS_XYLEM_DELIVERY "' node='");
    xy_buf_str(acks, node);
    xy_buf_lit(acks, "' epoch='");
    xy_buf_str(acks, epoch);
    xy_buf_lit(acks, "' seq='");
    xy_buf_str(acks, seq);
    xy_buf_lit(acks, "'/>");
    if (++client->acks_count == LOAD_ACK_EVERY)
        send_acks(client);
}

void client_acknowledge(struct client *client)
{
    if (client->acks_count > 0)
        send_acks(client);
    if (!client->ready || !client->sm || client->h == client->h_told)
        return;
    client->h_told = client->h;
    xy_buf_printf(&client->out, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", client->h);
    client_dirty(client);
}

void client_request_ack(struct client *client)
{
    client->asked = client->sent;
    xy_buf_lit(&client->out, "<r xmlns='urn:xmpp:sm:3'/>");
    client_dirty(client);
}

/* --- login -------------------------------------------------------------------------------------------------------- */

static void take_output(struct client *client)
{
    struct xy_str output = xy_stream_output(client->stream);
    xy_buf_str(&client->out, output);
    xy_stream_sent(client->stream, output.len);
    client_dirty(client);
}

/* Nothing can follow before we say something, so the stream is not needed any more. */
static void logged_in(struct client *client)
{
    xy_stream_free(&client->stream);
    client->ready = true;
    if (!client->available)
        return;
    client_raw(client, XY_STR("<presence/>"));
    client_ping(client);
}

/* Without channel binding: servers name -PLUS mechanisms and do not all take tls-server-end-point. */
static void tell_of_tls(struct client *client)
{
    xy_stream_tls_started(client->stream, NULL, 0);
    client->secure = true;
}

static void login_go_on(struct client *client)
{
    struct xy_stream_event event;
    bool is_in = false;
    if (client->tls != NULL && !client->secure && xy_tls_established(client->tls))
        tell_of_tls(client);
    xy_stream_feed(client->stream, client->in.data, client->in.len);
    xy_buf_reset(&client->in);
    while (xy_stream_next(client->stream, &event)) {
        is_in |= event.kind == XY_STREAM_EVENT_READY;
        if (event.kind == XY_STREAM_EVENT_STARTTLS)
            tls_begin(client);
        if (event.kind == XY_STREAM_EVENT_READY && client->sm && !event.sm)
            load_fail("the server does not enable XEP-0198");
        if (event.kind == XY_STREAM_EVENT_STANZA)
            load_fail("a stanza came to u%u before it was there", client->number);
        if (event.kind == XY_STREAM_EVENT_FAILED || event.kind == XY_STREAM_EVENT_CLOSED)
            load_fail("login of u%u: %.*s", client->number, XY_ARG(event.text));
    }
    take_output(client);
    if (is_in)
        logged_in(client);
}

/* Only the scenario that counts logins pays for SCRAM. */
static unsigned mechanisms(const struct load *load)
{
    return load->scenario->run == logins_run ? 0 : XY_SASL_PLAIN;
}

static void xmpp_open(struct client *client)
{
    const struct load *load = client->load;
    bool tls = load->scenario->tls;
    char jid[256];
    (void)snprintf(jid, sizeof(jid), "u%u@%s/load%.0u", client->number, load->domain,
                   load->round); /* 0: no digit */
    client->stream = xy_stream_client_new(
        &load->stream,
        &(struct xy_stream_client_options){ .jid = xy_jid_canonical(xy_str(jid)),
                                            .password = xy_str(load->password),
                                            .mechanisms = mechanisms(load),
                                            .plain_without_tls = true,
                                            .tls = tls ? XY_STREAM_TLS_REQUIRED : XY_STREAM_TLS_NONE,
                                            .sm = client->sm });
    if (client->stream == NULL)
        load_fail("no memory");
    xy_stream_client_open(client->stream);
    take_output(client);
}

static void xmpp_take(struct client *client)
{
    if (client->stream != NULL)
        login_go_on(client);
    else
        client_scan(client);
}

static void xmpp_close(struct client *client)
{
    client_acknowledge(client);
    xy_buf_lit(&client->out, "</stream:stream>");
}

/* --- stanzas ------------------------------------------------------------------------------------------------------ */

static void ask(struct client *client, const char *type, const char *to, const char *payload)
{
    static uint64_t asked;
    struct xy_buf stanza = { 0 };
    xy_buf_printf(&stanza, "<iq type='%s' to='%s' id='s%" PRIu64 "'>%s</iq>", type, to, ++asked, payload);
    client->load->waiting++;
    client_raw(client, xy_buf_view(&stanza));
    xy_buf_free(&stanza);
}

static __attribute__((format(printf, 2, 3))) void ask_service(struct client *client, const char *payload, ...)
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

static void xmpp_node_make(struct client *owner, const char *node)
{
    const struct scenario *scenario = owner->load->scenario;
    ask_service(owner,
                "<pubsub xmlns='" NS_PUBSUB "'><create node='%s'/><configure>"
                "<x xmlns='" NS_DATA_FORM
                "' type='submit'><field var='FORM_TYPE' type='hidden'><value>" NS_PUBSUB
                "#node_config</value></field>%s" FIELD("send_last_published_item",
                                                       "never") "</x></configure></pubsub>",
                node,
                !scenario->persist    ? FIELD("persist_items", "0")
                : scenario->total > 0 ? FIELD("persist_items", "1") FIELD("max_items", "max")
                                      : FIELD("persist_items", "1") FIELD("max_items", "10")
                                            FIELD("notify_retract", "0"));
}

static void xmpp_node_delete(struct client *owner, const char *node)
{
    ask_service(owner, "<pubsub xmlns='" NS_PUBSUB_OWNER "'><delete node='%s'/></pubsub>", node);
}

static void xmpp_subscribe(struct client *client, const char *node)
{
    static const char at_least_once[] =
        "<options><x xmlns='" NS_DATA_FORM
        "' type='submit'><field var='FORM_TYPE' type='hidden'><value>" NS_PUBSUB
        "#subscribe_options</value></field><field var='{" NS_XYLEM_DELIVERY "}mode'>"
        "<value>at-least-once</value></field><field var='{" NS_XYLEM_DELIVERY "}ack'>"
        "<value>%s</value></field></x></options>";
    const struct load *load = client->load;
    bool owed = load->scenario->explicitly || (load->scenario->sm && load->at_least_once);
    char options[sizeof(at_least_once) + 16] = "";
    if (owed)
        (void)snprintf(options, sizeof(options), at_least_once,
                       load->scenario->explicitly ? "explicit" : "stream");
    ask_service(client, "<pubsub xmlns='" NS_PUBSUB "'><subscribe node='%s' jid='u%u@%s'/>%s</pubsub>", node,
                client->number, load->domain, options);
}

static void xmpp_publish(struct client *client, const char *node, uint64_t number, uint64_t time_us)
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

const struct protocol protocol_xmpp = { .name = "xmpp",
                                        .answers_all = true,
                                        .open = xmpp_open,
                                        .take = xmpp_take,
                                        .close = xmpp_close,
                                        .node_make = xmpp_node_make,
                                        .node_delete = xmpp_node_delete,
                                        .subscribe = xmpp_subscribe,
                                        .publish = xmpp_publish };
