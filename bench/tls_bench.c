/* What TLS costs with each library that this build has: handshakes per second of one core, full and resumed, for either
 * side; memory of a connection that idles; processor time per GiB. Run by hand:  tls_bench [SECONDS]
 * and by bench/direct.py with --json [LIBRARY], for what concerns a server with this one. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/tls/tls.h"

enum { IDLE_CONNECTIONS = 500, RECORD_BYTES = 16384, BULK_BYTES = 256 << 20 };

struct ends {
    struct xy_tls_config *server_config, *client_config;
    struct xy_tls *server, *client;
    double server_seconds, client_seconds; /* of the processor */
};

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    return clock_seconds(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t wall_us(void *ctx)
{
    (void)ctx;
    return (uint64_t)(clock_seconds(CLOCK_REALTIME) * 1e6);
}

static void stop(const char *why)
{
    (void)fprintf(stderr, "tls_bench: %s\n", why);
    exit(1);
}

static void configure(struct ends *ends, const struct xy_tls_library *library)
{
    static const struct xy_env env = { .wall_us = wall_us };
    static const char *const domains[] = { "example.org" };
    struct xy_buf chain = { 0 }, key = { 0 };
    struct xy_tls_error error;
    if (!xy_tls_self_signed(library, &env, domains, 1, &chain, &key, &error))
        stop(error.text);
    struct xy_tls_certificate own = { .chain_pem = xy_buf_view(&chain), .key_pem = xy_buf_view(&key) };
    struct xy_tls_server_options s = { .library = library, .certificates = &own, .certificate_count = 1 };
    struct xy_tls_client_options c = { .library = library, .ca_pem = xy_buf_view(&chain) };
    if ((ends->server_config = xy_tls_config_server(&s, &error)) == NULL ||
        (ends->client_config = xy_tls_config_client(&c, &error)) == NULL)
        stop(error.text);
    xy_buf_free(&chain);
    xy_buf_free(&key);
}

/* All that can be done at one end without the other. */
static enum xy_tls_status step(struct xy_tls *tls, double *seconds)
{
    enum xy_tls_status status;
    double before = cpu_seconds();
    while ((status = xy_tls_handshake(tls)) == XY_TLS_AGAIN)
        continue;
    *seconds += cpu_seconds() - before;
    if (status == XY_TLS_FAILED)
        stop(xy_tls_error(tls));
    return status;
}

static void carry(struct xy_tls *from, struct xy_tls *to)
{
    struct xy_str out = xy_tls_output(from);
    if (out.len > 0 && !xy_tls_receive(to, out.data, out.len))
        stop(xy_tls_error(to));
    xy_tls_output_consumed(from, out.len);
}

static void shake_hands(struct ends *ends, struct xy_str ticket)
{
    bool client_done = false, server_done = false;
    double before = cpu_seconds();
    ends->client = xy_tls_new(ends->client_config, "example.org");
    ends->client_seconds += cpu_seconds() - before;
    before = cpu_seconds();
    ends->server = xy_tls_new(ends->server_config, NULL);
    ends->server_seconds += cpu_seconds() - before;
    if (ends->client == NULL || ends->server == NULL)
        stop("no memory");
    if (ticket.len > 0 && !xy_tls_session_restore(ends->client, ticket))
        stop("the session cannot be restored");
    while (!client_done || !server_done) {
        client_done = step(ends->client, &ends->client_seconds) == XY_TLS_DONE;
        carry(ends->client, ends->server);
        server_done = step(ends->server, &ends->server_seconds) == XY_TLS_DONE;
        carry(ends->server, ends->client);
    }
    if (xy_tls_resumed(ends->server) != (ticket.len > 0))
        stop("not resumed, or resumed without a ticket");
}

/* After a first read: TLS 1.3 brings tickets behind the handshake. */
static void take_ticket(struct ends *ends, struct xy_buf *ticket)
{
    char plain[16];
    size_t len;
    shake_hands(ends, XY_STR_NONE);
    enum xy_tls_status status = xy_tls_read(ends->client, plain, sizeof plain, &len);
    if (status != XY_TLS_WANT_MORE || !xy_tls_session_save(ends->client, ticket))
        stop("no ticket");
}

static void part(struct ends *ends)
{
    xy_tls_free(&ends->server);
    xy_tls_free(&ends->client);
}

/* Returns those of the server. */
static double measure_handshakes(struct ends *ends, const char *kind, struct xy_str ticket, double seconds,
                                 FILE *out)
{
    size_t count = 0;
    ends->server_seconds = ends->client_seconds = 0;
    for (double start = cpu_seconds(); cpu_seconds() - start < seconds; count++) {
        shake_hands(ends, ticket);
        part(ends);
    }
    (void)fprintf(out, "%-8s handshakes/s of one core: server %8.0f, client %8.0f\n", kind,
                  (double)count / ends->server_seconds, (double)count / ends->client_seconds);
    return (double)count / ends->server_seconds;
}

/* Each end has spoken once and sleeps. Returns the bytes of a server's. */
static size_t measure_memory(struct ends *ends, FILE *out)
{
    static struct xy_tls *servers[IDLE_CONNECTIONS], *clients[IDLE_CONNECTIONS];
    char plain[16];
    size_t len;
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    for (size_t i = 0; i < IDLE_CONNECTIONS; i++) {
        shake_hands(ends, XY_STR_NONE);
        xy_tls_write(ends->client, "<presence/>", 11);
        carry(ends->client, ends->server);
        while (xy_tls_read(ends->server, plain, sizeof plain, &len) == XY_TLS_DONE)
            continue;
        xy_tls_write(ends->server, "<presence/>", 11);
        carry(ends->server, ends->client);
        while (xy_tls_read(ends->client, plain, sizeof plain, &len) == XY_TLS_DONE)
            continue;
        xy_tls_sleep(servers[i] = ends->server);
        xy_tls_sleep(clients[i] = ends->client);
    }
    size_t both = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    for (size_t i = 0; i < IDLE_CONNECTIONS; i++)
        xy_tls_free(&clients[i]);
    size_t server = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    for (size_t i = 0; i < IDLE_CONNECTIONS; i++)
        xy_tls_free(&servers[i]);
    (void)fprintf(out, "idle connection: server %zu bytes, client %zu bytes\n", server / IDLE_CONNECTIONS,
                  (both - server) / IDLE_CONNECTIONS);
    return server / IDLE_CONNECTIONS;
}

static void measure_bulk(struct ends *ends, size_t piece)
{
    static char plain[RECORD_BYTES], out[RECORD_BYTES];
    double write = 0, read = 0;
    size_t len;
    shake_hands(ends, XY_STR_NONE);
    for (size_t sent = 0; sent < BULK_BYTES;) {
        double before = cpu_seconds();
        size_t batch = 0;
        while (batch < 65536) {
            size_t taken = xy_tls_write(ends->server, plain, piece);
            if (taken == 0)
                break;
            batch += taken;
        }
        write += cpu_seconds() - before;
        carry(ends->server, ends->client);
        before = cpu_seconds();
        while (xy_tls_read(ends->client, out, sizeof out, &len) == XY_TLS_DONE)
            continue;
        read += cpu_seconds() - before;
        sent += batch;
    }
    part(ends);
    double gib = (double)BULK_BYTES / (double)(1 << 30);
    printf("records of %5zu bytes: encrypting %.2f s/GiB, decrypting %.2f s/GiB\n", piece, write / gib,
           read / gib);
}

static void measure(const struct xy_tls_library *library, double seconds, bool json)
{
    FILE *out = json ? stderr : stdout;
    struct ends ends = { 0 };
    struct xy_buf ticket = { 0 };
    char release[XY_TLS_RELEASE_BYTES];
    configure(&ends, library);
    take_ticket(&ends, &ticket);
    (void)fprintf(out, "%s: %s, %s\n", xy_tls_library_release(library, release), xy_tls_version(ends.server),
                  xy_tls_cipher(ends.server));
    part(&ends);
    double full = measure_handshakes(&ends, "full", XY_STR_NONE, seconds, out);
    double resumed = measure_handshakes(&ends, "resumed", xy_buf_view(&ticket), seconds, out);
    size_t bytes = measure_memory(&ends, out);
    if (json) {
        printf("{\"full_per_s\":%.1f,\"resumed_per_s\":%.1f,\"library_kib\":%.2f}\n", full, resumed,
               (double)bytes / 1024);
    } else {
        measure_bulk(&ends, 300);
        measure_bulk(&ends, RECORD_BYTES);
    }
    xy_buf_free(&ticket);
    xy_tls_config_unref(&ends.server_config);
    xy_tls_config_unref(&ends.client_config);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 3;
    bool json = argc > 2 && strcmp(argv[2], "--json") == 0;
    const struct xy_tls_library *library = argc > 3 ? xy_tls_library(xy_str(argv[3])) : xy_tls_library_at(0);
    xy_tls_warm_up();
    if (library == NULL)
        stop("this build is without that library");
    if (json)
        measure(library, seconds, true);
    for (size_t i = 0; !json && (library = xy_tls_library_at(i)) != NULL; i++)
        measure(library, seconds, false);
    return 0;
}
