/* Works through a queue: has a program do what each item says. What is not finished, because that fails or a
 * worker dies, is done again, here or by another worker.
 *
 *   cc worker.c $(pkg-config --cflags --libs xylem) -o worker
 *   ./worker alice@example.org secret jobs ./do-job          (on the broker's machine: ./worker - - jobs ./do-job) */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xylem/xylem.h>

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* Runs the program with the item's data as its argument. 0: done; 75 (EX_TEMPFAIL): try again; else: never. */
static int do_job(const char *program, const struct xylem_msg_view *view)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, (const char *)view->data, (char *)NULL);
        _exit(75);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 75;
}

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *program)
{
    struct xylem_msg_view view;
    (void)sub, xylem_msg_view(msg, &view);
    int outcome = view.event == XYLEM_EVENT_ITEM ? do_job(program, &view) : 0;
    if (outcome == 0)
        xylem_ack(&msg);
    else if (outcome == 75)
        xylem_nack(&msg, 5); /* seconds */
    else
        xylem_term(&msg); /* to the dead letters */
}

int main(int argc, char **argv)
{
    struct xylem_options options = XYLEM_OPTIONS;
    struct xylem_sub_options sub = XYLEM_SUB_OPTIONS;
    struct xylem_client *client;
    char error[300] = "usage: worker JID PASSWORD QUEUE PROGRAM";
    if (argc == 5 && strcmp(argv[1], "-") == 0) {
        options.socket_path = getenv("XYLEM_SOCKET") ? getenv("XYLEM_SOCKET") : "/run/xylem/control.sock";
    } else if (argc == 5) {
        options.jid = argv[1];
        options.password = argv[2];
    }
    if (argc != 5 || xylem_client_new(&client, &options, error, sizeof error) != XYLEM_OK) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    signal(SIGINT, on_signal);
    sub.queue_requests = 1; /* one at a time: a job that takes long holds up no other */
    sub.manual_ack = true;
    sub.temporary = true;
    sub.on_message = on_message;
    sub.ctx = argv[4];
    xylem_subscribe(client, argv[3], &sub, NULL);
    xylem_client_start(client);
    while (xylem_client_run(client, 1000) == XYLEM_OK)
        if (interrupted)
            xylem_client_stop(client, 1000);
    xylem_client_free(client);
    return interrupted ? 0 : 1;
}
