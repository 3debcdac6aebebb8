/* TLS below a client: core/tls between its buffers and the socket. The server's certificate is not judged, for it was made for
 * the run; every connection makes a full handshake. OpenSSL does it where it is built in, whatever the server uses: it is the
 * cheapest, and both share the machine. */
#include <stdlib.h>

#include "bench/load/socket.h"

enum { PLAIN_BYTES = 16 * 1024 };

void tls_begin(struct client *client)
{
    struct load *load = client->load;
    struct xy_tls_error error;
    if (load->tls == NULL) {
        struct xy_tls_client_options options = { .library = xy_tls_library(XY_STR("openssl")),
                                                 .trust = XY_TLS_TRUST_INSECURE };
        xy_tls_warm_up();
        load->tls = xy_tls_config_client(&options, &error);
        if (load->tls == NULL)
            load_fail("TLS: %s", error.text);
    }
    client->tls = xy_tls_new(load->tls, load->domain);
    if (client->tls == NULL)
        load_fail("no memory");
    tls_received(client, "", 0); /* says hello */
}

static _Noreturn void fail(const struct client *client)
{
    load_fail("TLS of u%u: %s", client->number, xy_tls_error(client->tls));
}

static void shake_hands(struct client *client)
{
    enum xy_tls_status status;
    while ((status = xy_tls_handshake(client->tls)) == XY_TLS_AGAIN)
        continue;
    if (status == XY_TLS_CLOSED)
        load_fail("the server ended the TLS handshake of u%u", client->number);
    if (status == XY_TLS_FAILED)
        fail(client);
}

void tls_received(struct client *client, const void *data, size_t len)
{
    enum xy_tls_status status;
    if (!xy_tls_receive(client->tls, data, len))
        fail(client);
    client_dirty(client);
    if (!xy_tls_established(client->tls))
        shake_hands(client);
    if (!xy_tls_established(client->tls))
        return;
    do {
        char *room = xy_buf_reserve(&client->in, PLAIN_BYTES);
        size_t got = 0;
        if (room == NULL)
            load_fail("no memory");
        status = xy_tls_read(client->tls, room, PLAIN_BYTES, &got);
        client->in.len += got;
    } while (status == XY_TLS_DONE || status == XY_TLS_AGAIN);
    if (status == XY_TLS_FAILED)
        fail(client);
}

struct xy_str tls_output(struct client *client)
{
    while (client->out.len > 0 && xy_tls_established(client->tls)) {
        size_t taken = xy_tls_write(client->tls, client->out.data, client->out.len);
        if (taken == 0)
            break;
        xy_buf_consume(&client->out, taken);
    }
    return xy_tls_output(client->tls);
}
