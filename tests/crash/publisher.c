/* The publisher of the crash test: numbers from FIRST upwards, each filled up to so many bytes, as fast as the broker
 * takes them. Prints each number once the broker acknowledged it; on SIGTERM waits for the answers it is owed and ends. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <xylem/xylem.h>

#define WINDOW         32u
#define TEXT_BYTES_MAX 8192

static volatile sig_atomic_t stop;
static unsigned long long next_number;
static unsigned outstanding;
static unsigned failed;
static unsigned busy;  /* refused because the broker was short of room */
static bool breathing; /* after such a refusal */

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void on_done(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    (void)client;
    outstanding--;
    if (result->status == XYLEM_OK) {
        printf("%llu\n", (unsigned long long)(uintptr_t)ctx);
        fflush(stdout);
    } else if (result->status == XYLEM_BUSY) {
        busy++;
        breathing = true;
    } else {
        fprintf(stderr, "publisher: %llu: %s\n", (unsigned long long)(uintptr_t)ctx, result->text);
        failed++;
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: publisher PORT JID PASSWORD NODE FIRST BYTES\n");
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
    int width = (int)(strtoul(argv[6], NULL, 10) % TEXT_BYTES_MAX);
    next_number = strtoull(argv[5], NULL, 10);
    struct xylem_client *client;
    char error[300];
    if (xylem_client_new(&client, &o, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "publisher: %s\n", error);
        return 2;
    }
    signal(SIGTERM, on_signal);
    xylem_client_start(client);
    bool stopping = false;
    for (;;) {
        while (!stop && !breathing && outstanding < WINDOW) {
            char text[TEXT_BYTES_MAX];
            int len = snprintf(text, sizeof text, "%-*llu", width, next_number);
            struct xylem_item item = { .node = argv[4], .data = text, .len = (size_t)len };
            if (xylem_publish(client, &item, on_done, (void *)(uintptr_t)next_number) != XYLEM_OK)
                break;
            next_number++;
            outstanding++;
        }
        if (stop && !stopping) {
            stopping = true;
            xylem_client_stop(client, 20000);
        }
        breathing = false;
        if (xylem_client_run(client, 100) != XYLEM_OK)
            break;
    }
    if (!stop)
        fprintf(stderr, "publisher: %s\n", xylem_client_error(client));
    fprintf(stderr, "publisher: refused for want of room %u\n", busy);
    xylem_client_free(client);
    return stop && failed == 0 ? 0 : 1;
}
