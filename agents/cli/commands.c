/* The table of subcommands: name, what it takes, one line of help, function. A new command is a row here and a file. */
#include <stddef.h>

#include "agents/cli/cli.h"

#define OFFLINE (CLI_BIT(OPT_OFFLINE))

const struct cli_command cli_commands[] = {
    { "pub", NULL, "NODE [FILE|-]", "publish a file, or standard input, as one item",
      "Text travels as it is; one well-formed XML element becomes the payload itself. Returns when the "
      "broker has the\n"
      "item on disk. With --spool DIR the item is safe in DIR first: if the broker cannot be reached, it "
      "stays there "
      "until\n"
      "the next `xylem pub` with the same DIR. Without NODE only what is there is sent.",
      0, 2,
      CLI_BIT(OPT_ID) | CLI_BIT(OPT_TYPE) | CLI_BIT(OPT_CREATE) | CLI_BIT(OPT_SPOOL) | CLI_BIT(OPT_TIMEOUT) |
          CLI_BIT(OPT_HEADER),
      cli_pub },
    { "sub", NULL, "NODE ...", "print the items of nodes as they come",
      "With --durable nothing is missed, also while this command does not run: the broker keeps what was not "
      "printed,\n"
      "for the resource NAME of this account (default: this machine's name), until --forget ends it. One "
      "NAME, one set\n"
      "of nodes: another set needs another NAME. --ack says what tells the broker that an item was handled; "
      "with "
      "manual the\n"
      "items come as JSON lines and a program says about each, on standard input: ack REF, nack REF "
      "[SECONDS], "
      "term REF,\n"
      "working REF. See xylem(1).",
      1, -1,
      CLI_BIT(OPT_ACK) | CLI_BIT(OPT_MAX_INFLIGHT) | CLI_BIT(OPT_ACK_WAIT) | CLI_BIT(OPT_MAX_DELIVER) |
          CLI_BIT(OPT_BACKOFF) | CLI_BIT(OPT_DEAD_LETTER) | CLI_BIT(OPT_QUEUE) | CLI_BIT(OPT_REPLAY) |
          CLI_BIT(OPT_DURABLE) | CLI_BIT(OPT_FORGET) | CLI_BIT(OPT_JSON) | CLI_BIT(OPT_COUNT) |
          CLI_BIT(OPT_TIMEOUT) | CLI_BIT(OPT_STATE) | CLI_BIT(OPT_START),
      cli_sub },
    { "node", "create", "NODE", "create a node",
      "--set NAME=VALUE gives it options, as in `xylem node config`.", 1, 1, CLI_BIT(OPT_SET),
      cli_node_create },
    { "node", "delete", "NODE", "delete a node and all its items", NULL, 1, 1, 0, cli_node_delete },
    { "node", "list", "", "list the nodes of the service", NULL, 0, 0, CLI_BIT(OPT_JSON), cli_node_list },
    { "node", "info", "NODE", "describe a node", NULL, 1, 1, CLI_BIT(OPT_JSON), cli_node_info },
    { "node", "config", "NODE [NAME=VALUE ...]", "show or change a node's configuration",
      "NAME is a field as shown, e.g. pubsub#max_items, or {urn:xylem:node:0}durability.", 1, -1,
      CLI_BIT(OPT_JSON), cli_node_config },
    { "queue", "list", "", "list the queues of the service with their figures", NULL, 0, 0, CLI_BIT(OPT_JSON),
      cli_queue_list },
    { "queue", "info", "NODE", "how a queue and its consumers stand, or the subscriptions of another node",
      NULL, 1, 1, CLI_BIT(OPT_JSON), cli_queue_info },
    { "queue", "peek", "NODE", "print the oldest items and leave them where they are", NULL, 1, 1,
      CLI_BIT(OPT_JSON) | CLI_BIT(OPT_COUNT), cli_queue_peek },
    { "queue", "purge", "NODE", "delete all items of a node", NULL, 1, 1, 0, cli_queue_purge },
    { "queue", "move", "NODE TARGET", "move items to another node, oldest first; prints how many",
      "Dead letters go back into their queue this way.", 2, 2, CLI_BIT(OPT_COUNT), cli_queue_move },
    { "queue", "redrive", "NODE", "make parked items ready again; prints how many", NULL, 1, 1, 0,
      cli_queue_redrive },
    { "user", "add", "JID", "create an account",
      "Asks for the password, or reads one line with --password-stdin.", 1, 1,
      OFFLINE | CLI_BIT(OPT_PASSWORD_STDIN), cli_user_add },
    { "user", "import", "FILE", "create accounts from lines of name:password",
      "The password is everything after the first colon.", 1, 1, OFFLINE, cli_user_import },
    { "user", "list", "", "list the accounts", NULL, 0, 0, OFFLINE | CLI_BIT(OPT_JSON), cli_user_list },
    { "user", "passwd", "JID", "change a password", NULL, 1, 1, OFFLINE | CLI_BIT(OPT_PASSWORD_STDIN),
      cli_user_passwd },
    { "user", "remove", "JID ...", "remove accounts and all they own", NULL, 1, -1, OFFLINE,
      cli_user_remove },
    { "send", NULL, "FILE JID", "send a file to a client that runs `xylem recv`", NULL, 2, 2,
      CLI_BIT(OPT_BLOCK), cli_send },
    { "recv", NULL, "", "receive files, check their hashes, and put them into a folder", NULL, 0, 0,
      CLI_BIT(OPT_INTO) | CLI_BIT(OPT_ONCE) | CLI_BIT(OPT_RESOURCE) | CLI_BIT(OPT_TIMEOUT), cli_recv },
    { "ping", NULL, "[JID]", "measure the way to the broker, or to an address", NULL, 0, 1,
      CLI_BIT(OPT_COUNT), cli_ping },
    { "admin", "stats", "", "print the broker's figures", NULL, 0, 0, CLI_BIT(OPT_JSON), cli_admin_stats },
    { "admin", "backup", "DIR", "copy the broker's data while it works",
      "DIR is a new directory on the broker's machine, made by the broker. A broker that starts on it, or on "
      "a copy of\n"
      "it, goes on from there.",
      1, 1, CLI_BIT(OPT_RATE), cli_admin_backup },
    { NULL, NULL, NULL, NULL, NULL, 0, 0, 0, NULL },
};
