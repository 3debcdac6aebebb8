/* Publishes one item and waits until the broker has it on disk.
 *
 *   cc publish.c $(pkg-config --cflags --libs xylem) -o publish
 *   ./publish alice@example.org secret weather "rain"     (or, on the broker's machine: ./publish - - weather "rain") */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xylem/xylem.h>

static void on_published(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    *(enum xylem_status *)ctx = result->status;
    if (result->status == XYLEM_OK)
        printf("on disk, as item %s\n", result->item_id ? result->item_id : "?");
    else
        fprintf(stderr, "not published: %s\n", result->text);
    xylem_client_stop(client, 1000);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: publish JID PASSWORD NODE TEXT\n");
        return 2;
    }
    struct xylem_options options = XYLEM_OPTIONS;
    if (strcmp(argv[1], "-") == 0) {
        options.socket_path = getenv("XYLEM_SOCKET") ? getenv("XYLEM_SOCKET") : "/run/xylem/control.sock";
    } else {
        options.jid = argv[1];
        options.password = argv[2];
    }
    options.retry = XYLEM_RETRY_ONCE_ONLINE;
    struct xylem_client *client;
    char error[300];
    if (xylem_client_new(&client, &options, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    enum xylem_status status = XYLEM_UNREACHABLE;
    struct xylem_item item = { .node = argv[3], .data = argv[4], .len = strlen(argv[4]) };
    /* The item waits in the queue until the client is online. */
    if (xylem_publish(client, &item, on_published, &status) == XYLEM_OK)
        xylem_client_start(client);
    while (xylem_client_run(client, -1) == XYLEM_OK)
        continue;
    if (status == XYLEM_UNREACHABLE)
        fprintf(stderr, "%s\n", xylem_client_error(client));
    xylem_client_free(client);
    return status == XYLEM_OK ? 0 : 1;
}
