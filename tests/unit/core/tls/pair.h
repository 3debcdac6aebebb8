/* A client and a server joined by memory, for the tests of core/tls: certificates made on the spot, ciphertext carried
 * in pieces of a chosen size, each end on any library that the build has. */
#pragma once

#include "tests/unit/unit.h"

#include <time.h>

#include "core/tls/names.h"
#include "core/tls/tls.h"

/* What the two ends use; NULL: the first that the build has. */
static const struct xy_tls_library *client_library, *server_library;

/* The next two libraries, each with each. false: there are no more. */
static inline bool libraries_next(void)
{
    static size_t client, server;
    client_library = xy_tls_library_at(client);
    server_library = xy_tls_library_at(server);
    client = xy_tls_library_at(server + 1) != NULL ? client : client + 1;
    server = xy_tls_library_at(server + 1) != NULL ? server + 1 : 0;
    return client_library != NULL;
}

static inline const char *libraries_name(void)
{
    static char name[64];
    snprintf(name, sizeof name, "%s to %s", xy_tls_library_name(client_library),
             xy_tls_library_name(server_library));
    return name;
}

/* The newest version that both speak. */
static inline bool libraries_have_13(void)
{
    return strcmp(xy_tls_newest(client_library), "TLSv1.3") == 0 &&
           strcmp(xy_tls_newest(server_library), "TLSv1.3") == 0;
}

struct pair_env {
    struct xy_env env;
    uint64_t wall_us;
};

static inline uint64_t pair_wall(void *ctx)
{
    return ((struct pair_env *)ctx)->wall_us;
}

/* A certificate in memory. */
struct made {
    struct xy_buf chain, key;
    struct xy_tls_certificate certificate;
};

static inline void made_at(struct made *made, const char *domain, uint64_t wall_us)
{
    struct pair_env env = { .wall_us = wall_us };
    env.env = (struct xy_env){ .wall_us = pair_wall, .ctx = &env };
    struct xy_tls_error error;
    *made = (struct made){ 0 };
    const char *domains[] = { domain, "second.example.org" };
    if (!xy_tls_self_signed(server_library, &env.env, domains, 2, &made->chain, &made->key, &error))
        fail_msg("%s", error.text);
    made->certificate = (struct xy_tls_certificate){ .chain_pem = xy_buf_view(&made->chain),
                                                     .key_pem = xy_buf_view(&made->key) };
}

static inline void made_now(struct made *made, const char *domain)
{
    made_at(made, domain, (uint64_t)time(NULL) * 1000000);
}

static inline void made_free(struct made *made)
{
    xy_buf_free(&made->chain);
    xy_buf_free(&made->key);
}

static inline struct xy_tls_config *config_server(const struct made *made)
{
    struct xy_tls_error error;
    struct xy_tls_server_options options = { .library = server_library,
                                             .certificates = &made->certificate,
                                             .certificate_count = 1 };
    struct xy_tls_config *config = xy_tls_config_server(&options, &error);
    if (config == NULL)
        fail_msg("%s", error.text);
    return config;
}

static inline struct xy_tls_config *config_client(const struct made *trusted)
{
    struct xy_tls_error error;
    struct xy_tls_client_options options = { .library = client_library,
                                             .ca_pem = xy_buf_view(&trusted->chain) };
    struct xy_tls_config *config = xy_tls_config_client(&options, &error);
    if (config == NULL)
        fail_msg("%s", error.text);
    return config;
}

/* How many bytes travel at once: fixed, or random below 600 when 0. */
struct pair {
    struct xy_tls *client, *server;
    size_t piece;
    uint64_t seed;
    enum xy_tls_status client_status, server_status;
};

static inline void pair_open(struct pair *pair, struct xy_tls_config *client, struct xy_tls_config *server,
                             const char *hostname)
{
    *pair = (struct pair){ .client = xy_tls_new(client, hostname),
                           .server = xy_tls_new(server, NULL),
                           .piece = 1500,
                           .seed = 7,
                           .client_status = XY_TLS_AGAIN,
                           .server_status = XY_TLS_AGAIN };
    assert_non_null(pair->client);
    assert_non_null(pair->server);
}

static inline void pair_close(struct pair *pair)
{
    xy_tls_free(&pair->client);
    xy_tls_free(&pair->server);
}

/* One piece from one end to the other; false: there was nothing. */
static inline bool pair_carry(struct pair *pair, struct xy_tls *from, struct xy_tls *to)
{
    struct xy_str out = xy_tls_output(from);
    size_t n = pair->piece != 0 ? pair->piece : 1 + unit_below(&pair->seed, 600);
    if (out.len == 0)
        return false;
    if (n > out.len)
        n = out.len;
    xy_tls_receive(to, out.data, n);
    xy_tls_output_consumed(from, n);
    return true;
}

static inline void pair_step(struct xy_tls *tls, enum xy_tls_status *status)
{
    if (*status == XY_TLS_AGAIN || *status == XY_TLS_WANT_MORE)
        *status = xy_tls_handshake(tls);
}

/* Until both are done, or one failed and the other heard of it, or nothing moves. */
static inline bool pair_handshake(struct pair *pair)
{
    bool moved = true;
    while (moved) {
        pair_step(pair->client, &pair->client_status);
        pair_step(pair->server, &pair->server_status);
        moved = pair_carry(pair, pair->client, pair->server);
        moved = pair_carry(pair, pair->server, pair->client) || moved;
        moved = moved || pair->client_status == XY_TLS_AGAIN || pair->server_status == XY_TLS_AGAIN;
    }
    pair_step(pair->client, &pair->client_status);
    pair_step(pair->server, &pair->server_status);
    return pair->client_status == XY_TLS_DONE && pair->server_status == XY_TLS_DONE;
}

static inline void pair_line(struct pair *pair, struct xy_tls *from, struct xy_tls *to, const char *line)
{
    char got[64];
    size_t len, have = 0;
    assert_int_equal(xy_tls_write(from, line, strlen(line)), strlen(line));
    while (have < strlen(line)) {
        enum xy_tls_status status = xy_tls_read(to, got + have, sizeof got - have, &len);
        have += len;
        if (status == XY_TLS_WANT_MORE)
            assert_true(pair_carry(pair, from, to));
        else
            assert_int_equal(status, XY_TLS_DONE);
    }
    assert_memory_equal(got, line, have);
    assert_int_equal(xy_tls_read(to, got, sizeof got, &len), XY_TLS_WANT_MORE);
    assert_int_equal(len, 0);
}
