/* Publishes lines of standard input and loses none, with or without a network: each is on this machine's disk before the next
 * is read, and on the broker's, once, sooner or later.
 *
 *   cc spool.c $(pkg-config --cflags --libs xylem) -o spool
 *   sensors | ./spool alice@example.org secret measurements /var/lib/sensors  (on the broker's machine: ./spool - - ...) */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xylem/xylem.h>

static void on_published(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client, (void)ctx;
    if (result->status != XYLEM_OK)
        fprintf(stderr, "refused: %s\n", result->text);
}

static void on_earlier(struct xylem_client *client, const struct xylem_item *item,
                       const struct xylem_result *result, void *ctx)
{
    fprintf(stderr, "of an earlier run, for %s: ", item->node);
    fprintf(stderr, "%s\n", result->status == XYLEM_OK ? "published" : "");
    on_published(client, result, ctx);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: spool JID PASSWORD NODE DIR\n");
        return 2;
    }
    struct xylem_options options = XYLEM_OPTIONS;
    if (strcmp(argv[1], "-") == 0) {
        options.socket_path = getenv("XYLEM_SOCKET") ? getenv("XYLEM_SOCKET") : "/run/xylem/control.sock";
    } else {
        options.jid = argv[1];
        options.password = argv[2];
    }
    options.spool_dir = argv[4];
    options.on_spooled = on_earlier;
    struct xylem_client *client;
    char error[300], line[4096];
    if (xylem_client_new(&client, &options, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .events = POLLIN } };
    bool more = true, full = false;
    setvbuf(stdin, NULL, _IONBF, 0); /* poll shall see what is left */
    xylem_client_start(client);
    while (xylem_client_process(client) == XYLEM_OK) {
        struct xylem_stats now = { .size = sizeof now };
        xylem_client_stats(client, &now);
        if (!more && now.queued == 0)
            xylem_client_stop(client, 1000);
        fds[0].fd = more && !full ? STDIN_FILENO : -1; /* a full spool: whoever writes to us waits */
        fds[1].fd = xylem_client_fd(client);
        poll(fds, 2, xylem_client_timeout_ms(client));
        if (full || (fds[0].fd >= 0 && fds[0].revents)) {
            more = full || fgets(line, sizeof line, stdin);
            struct xylem_item item = { .node = argv[3], .data = line, .len = strcspn(line, "\n") };
            enum xylem_status status = more ? xylem_publish(client, &item, on_published, NULL) : XYLEM_OK;
            full = status == XYLEM_FULL;
            if (status == XYLEM_OK && more)
                printf("taken: %.*s\n", (int)item.len, line), fflush(stdout);
        }
    }
    fprintf(stderr, "%s\n", xylem_client_error(client));
    xylem_client_free(client);
    return 0;
}
