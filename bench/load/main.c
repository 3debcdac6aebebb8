/* Runs one scenario against a server and prints what came of it as a line of JSON. Accounts u0@domain, u1@domain ... with
 * one password must be there; scripts/bench sees to that. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "bench/load/load.h"
#include "sdk/drivers/system.h"

static const struct scenario scenarios[] = {
    /* name, counts, run, .. */
    { "fan1", "deliveries", nodes_run, .sinks = 1, .window = 16 },
    { "fan10", "deliveries", nodes_run, .sinks = 10, .window = 16 },
    { "fan100", "deliveries", nodes_run, .sinks = 100, .window = 16 },
    { "fan1000", "deliveries", nodes_run, .sinks = 1000, .window = 16 },
    { "afan100", "deliveries", nodes_run, .sinks = 100, .window = 16, .persist = true, .sm = true },
    { "afan1000", "deliveries", nodes_run, .sinks = 1000, .window = 16, .persist = true, .sm = true },
    { "efan100", "deliveries", nodes_run, .sinks = 100, .window = 16, .persist = true, .explicitly = true },
    { "pub1", "publishes", nodes_run, .window = 1, .persist = true },
    { "pub100", "publishes", nodes_run, .window = 100, .persist = true },
    { "pub100x10", "publishes", nodes_run, .sources = 10, .window = 100, .persist = true },
    { "fill", "publishes", nodes_run, .sources = 10, .window = 100, .total = 1000000, .persist = true },
    { "turn100", "publishes", nodes_run, .window = 100, .persist = true, .in_turn = true },
    { "msg50", "messages", messages_run, .sinks = 50, .window = 16 },
    { "amsg50", "messages", messages_run, .sinks = 50, .window = 16, .sm = true },
    { "aoffline", "messages stored", offline_run, .sinks = 20, .window = 200, .total = 10000, .sm = true },
    { "rate1000", "deliveries", nodes_run, .sinks = 10, .window = LOAD_WINDOW_MAX, .rate = 1000 },
    { "arate1000", "deliveries", nodes_run, .sinks = 10, .window = LOAD_WINDOW_MAX, .rate = 1000,
      .persist = true, .sm = true },
    { "logins", "logins", logins_run, .sinks = 500 },
    { "idle", "sessions", idle_run, .sinks = 2000 },
    { "tls-fan100", "deliveries", nodes_run, .sinks = 100, .window = 16, .tls = true },
    { "tls-pub100", "publishes", nodes_run, .window = 100, .persist = true, .tls = true },
    { "tls-msg50", "messages", messages_run, .sinks = 50, .window = 16, .tls = true },
    { "tls-logins", "logins", logins_run, .sinks = 500, .tls = true },
    { "tls-idle", "sessions", idle_run, .sinks = 2000, .tls = true },
    { "sdk-fan1", "deliveries", sdk_run, .sinks = 1, .window = 16 },
    { "sdk-fan100", "deliveries", sdk_run, .sinks = 100, .window = 16 },
    { "sdk-afan100", "deliveries", sdk_run, .sinks = 100, .window = 16, .persist = true, .sm = true },
    { "sdk-pub1", "publishes", sdk_run, .window = 1, .persist = true },
    { "sdk-pub100", "publishes", sdk_run, .window = 100, .persist = true },
};

enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

static const struct option long_options[] = {
    { "host", required_argument, NULL, 'h' },
    { "port", required_argument, NULL, 'p' },
    { "domain", required_argument, NULL, 'd' },
    { "service", required_argument, NULL, 's' },
    { "password", required_argument, NULL, 'w' },
    { "pid", required_argument, NULL, 'i' },
    { "seconds", required_argument, NULL, 't' },
    { "warmup", required_argument, NULL, 'u' },
    { "at-least-once", no_argument, NULL, 'a' },
    { "protocol", required_argument, NULL, 'o' },
    { "quorum", no_argument, NULL, 'q' },
    { "stopped", required_argument, NULL, 'r' },
    { "burst", required_argument, NULL, 'f' },
    { "sinks", required_argument, NULL, 'n' },
    { "total", required_argument, NULL, 'l' },
    { "beside-sessions", required_argument, NULL, 'S' },
    { "beside-nodes", required_argument, NULL, 'N' },
    { "beside-subscriptions", required_argument, NULL, 'B' },
    { 0 },
};

static _Noreturn void usage(void)
{
    (void)fprintf(
        stderr, "usage: load --port PORT --domain DOMAIN [--host ADDRESS] [--service JID] [--password TEXT]\n"
                "            [--pid SERVER] [--seconds N] [--warmup N] [--at-least-once]\n"
                "            [--protocol xmpp|mqtt|nats|amqp] [--quorum] [--stopped N] [--burst N] [--sinks "
                "N] [--total N]\n"
                "            [--beside-sessions N] [--beside-nodes N] [--beside-subscriptions N] SCENARIO\n"
                "scenarios:");
    for (unsigned i = 0; i < SCENARIOS; i++)
        (void)fprintf(stderr, " %s", scenarios[i].name);
    (void)fprintf(stderr, "\n");
    exit(2);
}

static const struct protocol *protocol_named(const char *name)
{
    static const struct protocol *const protocols[] = { &protocol_xmpp, &protocol_mqtt, &protocol_nats,
                                                        &protocol_amqp };
    for (unsigned i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
        if (strcmp(protocols[i]->name, name) == 0)
            return protocols[i];
    usage();
}

static bool has_beside(const struct load *load)
{
    return load->beside.sessions > 0 || load->beside.nodes > 0 || load->beside.subscriptions > 0;
}

/* Messages, logins, STARTTLS, libxylem and acknowledgements one by one are XMPP, and so is what is there beside. */
static bool speaks(const struct load *load)
{
    const struct scenario *scenario = load->scenario;
    return load->protocol == &protocol_xmpp || ((scenario->run == nodes_run || scenario->run == idle_run) &&
                                                !scenario->tls && !scenario->explicitly && !has_beside(load));
}

static void set_option(struct load *load, int option)
{
    switch (option) {
    case 'h':
        load->host = optarg;
        break;
    case 'p':
        load->port = (uint16_t)strtoul(optarg, NULL, 10);
        break;
    case 'd':
        load->domain = optarg;
        break;
    case 's':
        load->service = optarg;
        break;
    case 'w':
        load->password = optarg;
        break;
    case 'i':
        load->pid = strtol(optarg, NULL, 10);
        break;
    case 't':
        load->seconds = strtod(optarg, NULL);
        break;
    case 'u':
        load->warmup_s = strtod(optarg, NULL);
        break;
    case 'a':
        load->at_least_once = true;
        break;
    case 'r':
        load->stopped = (unsigned)strtoul(optarg, NULL, 10);
        break;
    case 'f':
        load->burst = (unsigned)strtoul(optarg, NULL, 10);
        break;
    case 'q':
        load->quorum = true;
        break;
    case 'n':
        load->sinks = (unsigned)strtoul(optarg, NULL, 10);
        break;
    case 'l':
        load->total = (unsigned)strtoul(optarg, NULL, 10);
        break;
    case 'o':
        load->protocol = protocol_named(optarg);
        break;
    case 'S':
        load->beside.sessions = (unsigned)strtoul(optarg, NULL, 10);
        break;
    case 'N':
        load->beside.nodes = (unsigned)strtoul(optarg, NULL, 10);
        break;
    case 'B':
        load->beside.subscriptions = (unsigned)strtoul(optarg, NULL, 10);
        break;
    default:
        usage();
    }
}

/* The scenario of that name, with the --sinks and --total that were asked for. */
static void choose_scenario(struct load *load, const char *name)
{
    static struct scenario chosen;
    for (unsigned i = 0; i < SCENARIOS; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            chosen = scenarios[i];
    if (chosen.name == NULL)
        usage();
    if (load->sinks > 0 && chosen.sinks == 0)
        load_fail("%s has nobody who receives: --sinks is for others", chosen.name);
    if (load->total > 0 && chosen.total == 0)
        load_fail("%s runs for a time: --total is for others", chosen.name);
    chosen.sinks = load->sinks > 0 ? load->sinks : chosen.sinks;
    chosen.total = load->total > 0 ? load->total : chosen.total;
    load->scenario = &chosen;
}

static void read_options(struct load *load, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        set_option(load, option);
    if (optind != argc - 1 || load->port == 0 || load->domain == NULL)
        usage();
    choose_scenario(load, argv[optind]);
    if (load->scenario->in_turn && load->beside.nodes == 0)
        load_fail("%s publishes to --beside-nodes: say how many", load->scenario->name);
    if (load->stopped + load->burst > 0 && (load->scenario->run != nodes_run || load->scenario->sinks == 0))
        load_fail("%s is no fan-out: --stopped and --burst are for fan and rate", load->scenario->name);
    if (!speaks(load))
        load_fail("%s is for XMPP only", load->scenario->name);
}

static void many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    static struct load load = {
        .protocol = &protocol_xmpp, .host = "127.0.0.1", .password = "secret", .seconds = 3, .warmup_s = 1
    };
    char service[256];
    read_options(&load, argc, argv);
    many_files();
    if (load.service == NULL) {
        (void)snprintf(service, sizeof(service), "pubsub.%s", load.domain);
        load.service = service;
    }
    load.env = xy_env_system();
    load.stream = (struct xy_stream_options){ .env = load.env };
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (has_beside(&load))
        beside_make(&load);
    load.scenario->run(&load);
    figures_print(&load);
    load.on_turn = NULL;
    load.on_delivery = NULL;
    clients_close(&load, load.clients, load.clients_count);
    return 0;
}
