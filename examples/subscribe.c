/* Prints the items of a node and misses none, also while it does not run: a durable subscription.
 *
 *   cc subscribe.c $(pkg-config --cflags --libs xylem) -o subscribe
 *   ./subscribe alice@example.org secret weather my-screen    (on the broker's machine: ./subscribe - - weather my-screen) */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xylem/xylem.h>

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    struct xylem_msg_view view;
    (void)sub, (void)ctx;
    xylem_msg_view(msg, &view);
    printf("#%llu: %.*s\n", (unsigned long long)view.seq, (int)view.len, (const char *)view.data);
    fflush(stdout);
} /* returning acknowledges it: now the broker may forget it */

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: subscribe JID PASSWORD NODE NAME\n");
        return 2;
    }
    struct xylem_options options = XYLEM_OPTIONS;
    if (strcmp(argv[1], "-") == 0) {
        options.socket_path = getenv("XYLEM_SOCKET");
    } else {
        options.jid = argv[1];
        options.password = argv[2];
    }
    options.resource = argv[4]; /* the broker keeps what this name has not acknowledged */
    struct xylem_client *client;
    char error[300];
    if (xylem_client_new(&client, &options, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    signal(SIGINT, on_signal);
    struct xylem_sub_options sub = XYLEM_SUB_OPTIONS;
    sub.durable = true;
    sub.on_message = on_message;
    xylem_subscribe(client, argv[3], &sub, NULL);
    xylem_client_start(client);
    while (xylem_client_run(client, 1000) == XYLEM_OK)
        if (interrupted)
            xylem_client_stop(client, 1000); /* the last acknowledgement leaves with it */
    xylem_client_free(client);
    return 0;
}
