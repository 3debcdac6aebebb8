/* The durable subscriber of the crash test: prints what the application is shown, one `SEQ NUMBER` per line. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <xylem/xylem.h>

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    struct xylem_msg_view view;
    (void)sub;
    (void)ctx;
    xylem_msg_view(msg, &view);
    printf("%llu %.*s\n", (unsigned long long)view.seq, (int)view.len, (const char *)view.data);
    fflush(stdout);
}

static void on_subscribed(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    (void)ctx;
    fprintf(stderr, "subscribed: %s\n", result->status == XYLEM_OK ? "yes" : result->text);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: subscriber PORT JID PASSWORD NODE STATE-DIR\n");
        return 2;
    }
    struct xylem_options o = XYLEM_OPTIONS;
    o.host = "127.0.0.1";
    o.port = (uint16_t)strtoul(argv[1], NULL, 10);
    o.jid = argv[2];
    o.password = argv[3];
    o.tls = XYLEM_TLS_NONE;
    o.plain_allowed = true;
    o.backoff_min_ms = 20;
    o.backoff_max_ms = 200;
    o.state_dir = argv[5];
    struct xylem_client *client;
    char error[300];
    if (xylem_client_new(&client, &o, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "subscriber: %s\n", error);
        return 2;
    }
    struct xylem_sub_options sub = XYLEM_SUB_OPTIONS;
    sub.durable = true;
    sub.on_message = on_message;
    sub.on_subscribed = on_subscribed;
    xylem_subscribe(client, argv[4], &sub, NULL);
    signal(SIGTERM, on_signal);
    xylem_client_start(client);
    while (xylem_client_run(client, 100) == XYLEM_OK)
        if (stop)
            xylem_client_stop(client, 2000);
    struct xylem_stats stats = { .size = sizeof stats };
    xylem_client_stats(client, &stats);
    fprintf(stderr, "subscriber: shown %llu, doubles recognised %llu, sessions %llu, resumed %llu%s%s\n",
            (unsigned long long)stats.received, (unsigned long long)stats.duplicates,
            (unsigned long long)stats.connects, (unsigned long long)stats.resumes, stop ? "" : ": ",
            stop ? "" : xylem_client_error(client));
    xylem_client_free(client);
    return stop ? 0 : 1;
}
