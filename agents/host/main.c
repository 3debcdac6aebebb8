/* xylem-host: publishes the state of this machine to a node of the broker, once per interval, until it is stopped. A thin
 * daemon over the SDK: state.c reads, libxylem queues, publishes, reconnects and repeats what was not acknowledged. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xylem/proto.h>
#include <xylem/uv.h>

#include "agents/host/state.h"
#include "sdk/drivers/system.h"

#define DRAIN_MS        5000u
#define INTERVAL_MIN_MS 10u
#define INTERVAL_MAX_MS (24u * 3600u * 1000u)

struct host {
    uv_loop_t loop;
    uv_timer_t timer;
    uv_signal_t interrupt, terminate;
    struct xylem_client *client;
    struct host_reader *reader;
    struct xy_arena *arena;
    const char *node;
    uint64_t dropped; /* states that did not fit into the queue: the broker was away too long */
    int status;
    bool stopping;
};

static void close_all(struct host *h)
{
    uv_close((uv_handle_t *)&h->timer, NULL);
    uv_close((uv_handle_t *)&h->interrupt, NULL);
    uv_close((uv_handle_t *)&h->terminate, NULL);
}

static void on_state(struct xylem_client *c, enum xylem_state state, enum xylem_status why, void *ctx)
{
    struct host *h = ctx;
    if (state == XYLEM_STATE_ONLINE) {
        fprintf(stderr, "xylem-host: publishing to %s of %s\n", h->node, xylem_client_service(c));
    } else if (state == XYLEM_STATE_WAITING) {
        fprintf(stderr, "xylem-host: %s; trying again\n", xylem_client_error(c));
    } else if (state == XYLEM_STATE_STOPPED) {
        if (why != XYLEM_OK) {
            fprintf(stderr, "xylem-host: %s\n", xylem_client_error(c));
            h->status = 1;
        }
        close_all(h);
    }
}

static void stop(struct host *h, int status)
{
    h->status = h->stopping ? h->status : status;
    h->stopping = true;
    uv_timer_stop(&h->timer);
    xylem_client_stop(h->client, DRAIN_MS);
}

static void on_published(struct xylem_client *c, const struct xylem_result *result, void *ctx)
{
    (void)c;
    struct host *h = ctx;
    if (result->status == XYLEM_OK || h->stopping)
        return;
    fprintf(stderr, "xylem-host: a state was refused: %s\n", result->text);
    if (!xylem_status_retriable(result->status))
        stop(h, 1); /* the next one would be refused as well */
}

static void on_created(struct xylem_client *c, const struct xylem_result *result, void *ctx)
{
    (void)c;
    struct host *h = ctx;
    if (result->status == XYLEM_OK || result->status == XYLEM_CONFLICT ||
        xylem_status_retriable(result->status))
        return;
    fprintf(stderr, "xylem-host: the node %s cannot be created: %s\n", h->node, result->text);
    stop(h, 1);
}

static void on_timer(uv_timer_t *timer)
{
    struct host *h = timer->data;
    Xylem__V1__HostState state;
    xy_arena_reset(h->arena);
    if (!host_reader_read(h->reader, h->arena, &state)) {
        fprintf(stderr, "xylem-host: /proc cannot be read\n");
        stop(h, 1);
        return;
    }
    enum xylem_status status = xylem_publish_proto(h->client, h->node, NULL, &state.base, on_published, h);
    if (status == XYLEM_FULL && h->dropped++ == 0)
        fprintf(
            stderr,
            "xylem-host: the broker is away and the queue is full: states are dropped until it is back\n");
}

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    stop(handle->data, 0);
}

/* "1s", "500ms", "2m", or plain seconds. */
static bool parse_interval(const char *text, uint64_t *ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = { { "", 1000 }, { "s", 1000 }, { "ms", 1 }, { "m", 60000 } };
    size_t digits = strspn(text, "0123456789");
    uint64_t value;
    if (!xy_str_u64(xy_str_n(text, digits), &value) || value > INTERVAL_MAX_MS)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(units[i].unit, text + digits) != 0)
            continue;
        *ms = value * units[i].ms;
        return *ms >= INTERVAL_MIN_MS && *ms <= INTERVAL_MAX_MS;
    }
    return false;
}

static void usage(FILE *out)
{
    fprintf(out,
            "usage: xylem-host [OPTION ...]\n\nPublishes the state of this machine until it is stopped.\n\n"
            "  --node NODE            default hosts/ and the name of this machine\n"
            "  --interval TIME        how often: 1s, 500ms, 2m; default 1s\n"
            "  --socket PATH          the broker's local socket; also XYLEM_SOCKET; default "
            "/run/xylem/control.sock\n"
            "  --as JID               act as this account (local socket)\n"
            "  --jid JID              log in over the network as this account\n"
            "  --password-file FILE   its first line is the password; also XYLEM_PASSWORD\n"
            "  --host NAME            connect here instead of asking DNS\n"
            "  --port NUMBER          default 5222\n"
            "  --ca FILE              trust these certificates (PEM)\n"
            "  --insecure             accept any certificate: for tests only\n");
}

struct arguments {
    struct xylem_options client;
    char node[512];
    char password[1024];
    uint64_t interval_ms;
    int exit; /* -1: go on */
};

static bool read_password_file(struct arguments *a, const char *file)
{
    FILE *in = fopen(file, "re");
    bool ok = in && fgets(a->password, sizeof a->password, in);
    a->password[strcspn(a->password, "\r\n")] = '\0';
    if (in)
        fclose(in);
    if (!ok)
        fprintf(stderr, "xylem-host: no password in %s\n", file);
    return ok;
}

static bool take_option(struct arguments *a, int option, const char *value)
{
    uint64_t port;
    switch (option) {
    case 'n':
        snprintf(a->node, sizeof a->node, "%s", value);
        return true;
    case 'i':
        return parse_interval(value, &a->interval_ms);
    case 's':
        a->client.socket_path = value;
        return true;
    case 'a':
        a->client.as = value;
        return true;
    case 'j':
        a->client.jid = value;
        return true;
    case 'p':
        return read_password_file(a, value);
    case 'h':
        a->client.host = value;
        return true;
    case 'P':
        if (!xy_str_u64(xy_str(value), &port) || port == 0 || port > UINT16_MAX)
            return false;
        a->client.port = (uint16_t)port;
        return true;
    case 'c':
        a->client.ca_file = value;
        return true;
    case 'k':
        a->client.insecure = true;
        return true;
    default:
        return false;
    }
}

static void parse(struct arguments *a, int argc, char **argv)
{
    static const struct option options[] = {
        { "node", required_argument, NULL, 'n' },
        { "interval", required_argument, NULL, 'i' },
        { "socket", required_argument, NULL, 's' },
        { "as", required_argument, NULL, 'a' },
        { "jid", required_argument, NULL, 'j' },
        { "password-file", required_argument, NULL, 'p' },
        { "host", required_argument, NULL, 'h' },
        { "port", required_argument, NULL, 'P' },
        { "ca", required_argument, NULL, 'c' },
        { "insecure", no_argument, NULL, 'k' },
        { "help", no_argument, NULL, '?' + 1 },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    int option;
    while (a->exit < 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == '?' + 1) {
            usage(stdout);
            a->exit = 0;
        } else if (option == 'v') {
            printf("xylem-host %s\n", xylem_version());
            a->exit = 0;
        } else if (!take_option(a, option, optarg)) {
            if (option != '?')
                fprintf(stderr, "xylem-host: '%s' is not a value for this option\n", optarg);
            a->exit = 2;
        }
    }
    if (a->exit < 0 && optind < argc) {
        fprintf(stderr, "xylem-host: '%s' is not an option; see --help\n", argv[optind]);
        a->exit = 2;
    }
}

static void fill_defaults(struct arguments *a)
{
    char name[256] = "localhost";
    const char *variable = getenv("XYLEM_SOCKET"), *password = getenv("XYLEM_PASSWORD");
    (void)gethostname(name, sizeof name - 1);
    if (!a->node[0])
        snprintf(a->node, sizeof a->node, "hosts/%s", name);
    if (!a->client.jid && !a->client.socket_path)
        a->client.socket_path = variable && *variable ? variable : "/run/xylem/control.sock";
    if (a->client.jid && !a->password[0] && password)
        snprintf(a->password, sizeof a->password, "%s", password);
    a->client.password = a->password;
}

static void run(struct host *h, uint64_t interval_ms)
{
    uv_timer_init(&h->loop, &h->timer);
    uv_signal_init(&h->loop, &h->interrupt);
    uv_signal_init(&h->loop, &h->terminate);
    h->timer.data = h->interrupt.data = h->terminate.data = h;
    uv_signal_start(&h->interrupt, on_signal, SIGINT);
    uv_signal_start(&h->terminate, on_signal, SIGTERM);
    uv_timer_start(&h->timer, on_timer, 0, interval_ms);
    xylem_node_create(h->client, h->node, on_created, h);
    xylem_client_start(h->client);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    struct xylem_stats stats = { .size = sizeof stats };
    xylem_client_stats(h->client, &stats);
    fprintf(stderr, "xylem-host: published %llu, acknowledged %llu, refused %llu, dropped %llu\n",
            (unsigned long long)stats.published, (unsigned long long)stats.acknowledged,
            (unsigned long long)stats.refused, (unsigned long long)h->dropped);
}

int main(int argc, char **argv)
{
    struct arguments a = { .client = XYLEM_OPTIONS, .interval_ms = 1000, .exit = -1 };
    struct host h = { .node = a.node };
    char error[600];
    parse(&a, argc, argv);
    if (a.exit >= 0)
        return a.exit;
    fill_defaults(&a);
    a.client.on_state = on_state;
    a.client.ctx = &h;
    signal(SIGPIPE, SIG_IGN);
    if (xylem_client_new(&h.client, &a.client, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "xylem-host: %s\n", error);
        return 2;
    }
    memset(a.password, 0, sizeof a.password);
    h.reader = host_reader_new(xy_env_system(), "/proc");
    h.arena = xy_arena_new();
    uv_loop_init(&h.loop);
    if (h.reader && h.arena && xylem_uv_attach(h.client, &h.loop) == XYLEM_OK)
        run(&h, a.interval_ms);
    else
        h.status = 1;
    xylem_client_free(h.client);
    uv_run(&h.loop, UV_RUN_DEFAULT); /* the client's handles close */
    uv_loop_close(&h.loop);
    host_reader_free(&h.reader);
    xy_arena_free(&h.arena);
    return h.status;
}
