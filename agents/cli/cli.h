/* What the subcommands of `xylem` share: their table, options, the connection, and how they end.
 *
 * A subcommand is one row of the table in commands.c and one function. It parses nothing itself: options are in
 * cli->option[], the rest in cli->argument[]. It returns an exit status; messages for people go to stderr through
 * cli_error, results to stdout. */
#pragma once

#include <xylem/stanza.h>
#include <xylem/xylem.h>

#include "core/base/buf.h"
#include "core/xml/elem.h"

#define CLI_ARGUMENTS_MAX 64
#define CLI_INFLIGHT_MAX  1000 /* as the library's */
#define CLI_SOCKET        "/run/xylem/control.sock"

enum cli_exit { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_TIMED_OUT = 3 };

/* Every option of every command, once. Global ones are taken anywhere. */
enum cli_option_id {
    OPT_HELP,
    OPT_VERSION,
    OPT_AS,
    OPT_SOCKET,
    OPT_HOST,
    OPT_PORT,
    OPT_JID,
    OPT_PASSWORD_FILE,
    OPT_CA,
    OPT_INSECURE,
    OPT_DIRECT_TLS,
    OPT_NO_TLS,
    OPT_TLS_LIBRARY,
    OPT_CONFIG,
    OPT_GLOBAL_COUNT,
    OPT_ID = OPT_GLOBAL_COUNT,
    OPT_TYPE,
    OPT_CREATE,
    OPT_DURABLE,
    OPT_FORGET,
    OPT_JSON,
    OPT_COUNT,
    OPT_TIMEOUT,
    OPT_STATE,
    OPT_START,
    OPT_OFFLINE,
    OPT_PASSWORD_STDIN,
    OPT_SET,
    OPT_INTO,
    OPT_ONCE,
    OPT_RESOURCE,
    OPT_BLOCK,
    OPT_ACK,
    OPT_MAX_INFLIGHT,
    OPT_ACK_WAIT,
    OPT_MAX_DELIVER,
    OPT_BACKOFF,
    OPT_DEAD_LETTER,
    OPT_QUEUE,
    OPT_SPOOL,
    OPT_HEADER,
    OPT_RATE,
    OPT_REPLAY,
    OPT_COUNT_ALL,
};
#define CLI_BIT(id) (1ull << (id))

struct cli {
    const char
        *option[OPT_COUNT_ALL]; /* NULL: not given; flags and optional values: ""; given twice: the last */
    struct cli_given {
        enum cli_option_id id;
        const char *value;
    } given[CLI_ARGUMENTS_MAX]; /* every one in order, for those that may be given several times */
    int given_count;
    const char *argument[CLI_ARGUMENTS_MAX];
    int argument_count;
    const struct cli_command *command;

    struct xylem_client *client;
    bool only_asks; /* it does not become available, so that nothing comes */
    bool over;      /* the client stopped: `why` */
    enum xylem_status why;
    bool interrupted; /* SIGINT, SIGTERM */
};

struct cli_command {
    const char *name, *sub;           /* sub NULL: none */
    const char *arguments;            /* for the usage line */
    const char *help;                 /* one line */
    const char *more;                 /* NULL, or further lines for --help */
    int arguments_min, arguments_max; /* -1: any number */
    unsigned long long options;       /* bits of those it takes besides the global ones */
    int (*run)(struct cli *cli);
};
extern const struct cli_command cli_commands[]; /* ended by name NULL */

/* options.c */
int cli_parse(struct cli *cli, int argc, char **argv); /* -1: go on; otherwise the exit status */
bool cli_number(struct cli *cli, enum cli_option_id id, uint64_t max,
                uint64_t *out); /* false: not one, said so */
/* The next value of an option that may be given several times, from *at (0 first); NULL: no more. */
const char *cli_each(const struct cli *cli, enum cli_option_id id, int *at);

/* connect.c */
void cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Fills in how to reach the broker; resource NULL: random. */
int cli_client(struct cli *cli, const char *resource, enum xylem_retry retry, const char *state_dir);
/* cli_client for what only asks, start, and online; then CLI_DONE. */
int cli_connect(struct cli *cli, const char *resource);
int cli_turn(struct cli *cli, int timeout_ms); /* CLI_DONE: go on; else the client is over and it was said */
/* The same, and ends as well when `fd` can be read: *readable then. */
int cli_turn_or_read(struct cli *cli, int timeout_ms, int fd, bool *readable);
void cli_close(struct cli *cli); /* orderly; NULL client is fine */
const char *cli_host_name(void);

/* One request and its answer, in order. `answer` may be NULL; else the tree of the answer, *arena to be freed. What went
 * wrong is said unless `quiet`. */
enum xylem_status cli_ask(struct cli *cli, const char *to, bool set, const struct xy_buf *payload,
                          struct xy_arena **arena, struct xy_elem **answer, bool quiet);
int cli_exit_of(enum xylem_status status);
/* The domain of the account we are. Lives until the next call. */
const char *cli_domain(struct cli *cli);

/* print.c */
struct cli_print {
    bool json;
    bool several;               /* nodes: say which */
    uint64_t ref;               /* JSON: the name for verdicts; 0: none */
    struct xylem_msg *msg;      /* JSON: for its headers … */
    const struct xy_elem *item; /* … or where there is no message, but an item; both NULL: without */
    struct xy_arena *arena;     /* of item */
};
void cli_print_message(const struct xylem_msg_view *view, const struct cli_print *how);
void cli_json_string(struct xy_buf *out, struct xy_str text);
/* As a number where it is written like one in JSON ("7", not "007"), else as a string. */
void cli_json_value(struct xy_buf *out, struct xy_str text);

/* commands: one file per group */
int cli_pub(struct cli *cli);
int cli_sub(struct cli *cli);
int cli_node_create(struct cli *cli);
int cli_node_delete(struct cli *cli);
int cli_node_list(struct cli *cli);
int cli_node_info(struct cli *cli);
int cli_node_config(struct cli *cli);
int cli_user_add(struct cli *cli);
int cli_user_import(struct cli *cli);
int cli_user_list(struct cli *cli);
int cli_user_passwd(struct cli *cli);
int cli_user_remove(struct cli *cli);
int cli_queue_list(struct cli *cli);
int cli_queue_info(struct cli *cli);
int cli_queue_peek(struct cli *cli);
int cli_queue_purge(struct cli *cli);
int cli_queue_move(struct cli *cli);
int cli_queue_redrive(struct cli *cli);
int cli_ping(struct cli *cli);
int cli_admin_stats(struct cli *cli);
int cli_admin_backup(struct cli *cli);
int cli_send(struct cli *cli);
int cli_recv(struct cli *cli);
