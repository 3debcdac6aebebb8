/* The command line of `xylem`: one table of options, and the help made of it and of the table of commands. */
#include <stdio.h>
#include <string.h>

#include "agents/cli/cli.h"

enum kind { FLAG, VALUE, OPTIONAL };

static const struct {
    const char *name;
    enum kind kind;
    const char *argument, *help;
} options[OPT_COUNT_ALL] = {
    [OPT_HELP] = { "help", FLAG, NULL, "say what a command does and takes" },
    [OPT_VERSION] = { "version", FLAG, NULL, "print the version" },
    [OPT_AS] = { "as", VALUE, "JID", "act as this account (local socket)" },
    [OPT_SOCKET] = { "socket", VALUE, "PATH",
                     "the broker's local socket; also XYLEM_SOCKET; default " CLI_SOCKET },
    [OPT_HOST] = { "host", VALUE, "NAME", "connect here instead of asking DNS for the domain of --jid" },
    [OPT_PORT] = { "port", VALUE, "NUMBER", "default 5222; 5223 with --direct-tls" },
    [OPT_JID] = { "jid", VALUE, "JID", "log in over the network as this account" },
    [OPT_PASSWORD_FILE] = { "password-file", VALUE, "FILE",
                            "its first line is the password; also XYLEM_PASSWORD" },
    [OPT_CA] = { "ca", VALUE, "FILE", "trust these certificates (PEM) instead of the system's" },
    [OPT_INSECURE] = { "insecure", FLAG, NULL, "accept any certificate: for tests only" },
    [OPT_DIRECT_TLS] = { "direct-tls", FLAG, NULL, "TLS from the first byte" },
    [OPT_NO_TLS] = { "no-tls", FLAG, NULL, "no TLS: for loopback only" },
    [OPT_TLS_LIBRARY] = { "tls-library", VALUE, "NAME",
                          "mbedtls or openssl, where it is built in; also XYLEM_TLS_LIBRARY" },
    [OPT_CONFIG] = { "config", VALUE, "FILE", "the broker's configuration, for --offline" },
    [OPT_ID] = { "id", VALUE, "ID", "the item's id; the same id overwrites" },
    [OPT_TYPE] = { "type", VALUE, "MIME|xml", "what it is; default text/plain, or xml if it is one element" },
    [OPT_CREATE] = { "create", FLAG, NULL, "create the node if it does not exist" },
    [OPT_DURABLE] = { "durable", OPTIONAL, "NAME", "miss nothing" },
    [OPT_FORGET] = { "forget", FLAG, NULL, "end the durable subscription, print nothing" },
    [OPT_JSON] = { "json", FLAG, NULL, "one JSON object per line" },
    [OPT_COUNT] = { "count", VALUE, "N", "end after so many" },
    [OPT_TIMEOUT] = { "timeout", VALUE, "SECONDS",
                      "end after this time; exit status 3 if --count was not reached" },
    [OPT_STATE] = { "state", VALUE, "DIR", "remember here what was printed: nothing is printed twice" },
    [OPT_START] = { "start", VALUE, "WHERE",
                    "where a new durable subscription begins: new, all, last, seq:N, time:…" },
    [OPT_OFFLINE] = { "offline", FLAG, NULL, "work on the store of a stopped broker; needs --config" },
    [OPT_PASSWORD_STDIN] = { "password-stdin", FLAG, NULL, "read the password from standard input" },
    [OPT_SET] = { "set", VALUE, "NAME=VALUE", "an option of the node; may be repeated" },
    [OPT_INTO] = { "into", VALUE, "DIR", "the folder for what comes; default ." },
    [OPT_ONCE] = { "once", FLAG, NULL, "end after one file" },
    [OPT_RESOURCE] = { "resource", VALUE, "NAME", "listen as this resource; default xylem-recv" },
    [OPT_ACK] = { "ack", VALUE, "HOW",
                  "stream, receipt, explicit, or manual: verdicts come on standard input" },
    [OPT_MAX_INFLIGHT] = { "max-inflight", VALUE, "N", "items that may be out at a time; default 256" },
    [OPT_ACK_WAIT] = { "ack-wait", VALUE, "SECONDS", "until an item without a verdict is sent again" },
    [OPT_MAX_DELIVER] = { "max-deliver", VALUE, "N", "send an item so many times at most" },
    [OPT_BACKOFF] = { "backoff", VALUE, "SECONDS,...", "wait before sending again; the last repeats" },
    [OPT_DEAD_LETTER] = { "dead-letter", VALUE, "NODE", "where items go that were given up" },
    [OPT_QUEUE] = { "queue", VALUE, "N", "consume a queue, N items at a time" },
    [OPT_SPOOL] = { "spool", VALUE, "DIR", "keep the item here until the broker has it" },
    [OPT_REPLAY] = { "replay", VALUE, "WHERE",
                     "what was handled once more, from all, last, seq:N or time:…" },
    [OPT_HEADER] = { "header", VALUE, "NAME=VALUE", "a header of the item; may be repeated" },
    [OPT_BLOCK] = { "block", VALUE, "BYTES", "block size; default 32768" },
    [OPT_RATE] = { "rate", VALUE, "SIZE", "bytes per second, such as 20mb; default 50mb, 0 is unlimited" },
};

static void print_option(int id)
{
    char left[60];
    snprintf(left, sizeof left, "--%s%s%s%s", options[id].name,
             options[id].kind == OPTIONAL ? "[="
             : options[id].kind == VALUE  ? " "
                                          : "",
             options[id].argument ? options[id].argument : "", options[id].kind == OPTIONAL ? "]" : "");
    printf("  %-28s %s\n", left, options[id].help);
}

static void print_name(const struct cli_command *command)
{
    printf("xylem %s%s%s", command->name, command->sub ? " " : "", command->sub ? command->sub : "");
}

static void help_command(const struct cli_command *command)
{
    printf("usage: ");
    print_name(command);
    printf("%s%s [OPTION ...]\n\n%s\n", *command->arguments ? " " : "", command->arguments, command->help);
    if (command->more)
        printf("%s\n", command->more);
    printf("\n");
    for (int id = OPT_GLOBAL_COUNT; id < OPT_COUNT_ALL; id++)
        if (command->options & CLI_BIT(id))
            print_option(id);
    for (int id = 0; id < OPT_GLOBAL_COUNT; id++)
        print_option(id);
}

static void help_all(void)
{
    printf("usage: xylem COMMAND [ARGUMENT ...] [OPTION ...]\n\n");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        char left[60];
        snprintf(left, sizeof left, "%s%s%s %s", c->name, c->sub ? " " : "", c->sub ? c->sub : "",
                 c->arguments);
        printf("  %-36s %s\n", left, c->help);
    }
    printf("\nOptions of all commands:\n");
    for (int id = 0; id < OPT_GLOBAL_COUNT; id++)
        print_option(id);
    printf("\nWithout --jid the broker of this machine is used, over its local socket. xylem COMMAND --help "
           "says more.\n");
}

static bool take_option(struct cli *cli, int argc, char **argv, int *at)
{
    const char *text = argv[*at] + 2;
    const char *value = strchr(text, '=');
    size_t len = value ? (size_t)(value - text) : strlen(text);
    for (int id = 0; id < OPT_COUNT_ALL; id++) {
        if (strlen(options[id].name) != len || memcmp(options[id].name, text, len) != 0)
            continue;
        if (options[id].kind == FLAG && value) {
            cli_error("--%s takes no value", options[id].name);
            return false;
        }
        if (options[id].kind == VALUE && !value && *at + 1 >= argc) {
            cli_error("--%s needs a value: --%s %s", options[id].name, options[id].name,
                      options[id].argument);
            return false;
        }
        cli->option[id] = value ? value + 1 : options[id].kind == VALUE ? argv[++*at] : "";
        if (cli->given_count == CLI_ARGUMENTS_MAX) {
            cli_error("more than %d options", CLI_ARGUMENTS_MAX);
            return false;
        }
        cli->given[cli->given_count++] =
            (struct cli_given){ .id = (enum cli_option_id)id, .value = cli->option[id] };
        return true;
    }
    cli_error("there is no option --%.*s; see xylem --help", (int)len, text);
    return false;
}

static const struct cli_command *find_command(struct cli *cli, bool *known)
{
    *known = false;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (cli->argument_count == 0 || strcmp(c->name, cli->argument[0]) != 0)
            continue;
        *known = true;
        if (!c->sub || (cli->argument_count > 1 && strcmp(c->sub, cli->argument[1]) == 0))
            return c;
    }
    return NULL;
}

static int no_command(const struct cli *cli, bool known)
{
    if (cli->option[OPT_HELP] && !known) {
        help_all();
        return CLI_DONE;
    }
    if (!known && cli->argument_count > 0)
        cli_error("there is no command '%s'; see xylem --help", cli->argument[0]);
    else if (!known)
        help_all();
    for (const struct cli_command *c = cli_commands; known && c->name; c++)
        if (strcmp(c->name, cli->argument[0]) == 0)
            fprintf(cli->option[OPT_HELP] ? stdout : stderr, "usage: xylem %s %s %s\n", c->name, c->sub,
                    c->arguments);
    return cli->option[OPT_HELP] ? CLI_DONE : CLI_USAGE;
}

static int check(const struct cli *cli)
{
    const struct cli_command *c = cli->command;
    for (int id = OPT_GLOBAL_COUNT; id < OPT_COUNT_ALL; id++) {
        if (cli->option[id] && !(c->options & CLI_BIT(id))) {
            cli_error("%s%s%s does not take --%s", c->name, c->sub ? " " : "", c->sub ? c->sub : "",
                      options[id].name);
            return CLI_USAGE;
        }
    }
    bool few = cli->argument_count < c->arguments_min;
    if (few || (c->arguments_max >= 0 && cli->argument_count > c->arguments_max)) {
        cli_error("too %s arguments: xylem %s%s%s %s", few ? "few" : "many", c->name, c->sub ? " " : "",
                  c->sub ? c->sub : "", c->arguments);
        return CLI_USAGE;
    }
    return -1;
}

int cli_parse(struct cli *cli, int argc, char **argv)
{
    bool only_arguments = false;
    for (int i = 1; i < argc; i++) {
        if (!only_arguments && strcmp(argv[i], "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && strncmp(argv[i], "--", 2) == 0) {
            if (!take_option(cli, argc, argv, &i))
                return CLI_USAGE;
        } else if (cli->argument_count == CLI_ARGUMENTS_MAX) {
            cli_error("more than %d arguments", CLI_ARGUMENTS_MAX);
            return CLI_USAGE;
        } else {
            cli->argument[cli->argument_count++] = argv[i];
        }
    }
    if (cli->option[OPT_VERSION]) {
        printf("xylem %s\n", xylem_version());
        return CLI_DONE;
    }
    bool known;
    cli->command = find_command(cli, &known);
    if (!cli->command)
        return no_command(cli, known);
    if (cli->option[OPT_HELP]) {
        help_command(cli->command);
        return CLI_DONE;
    }
    int skip = cli->command->sub ? 2 : 1;
    cli->argument_count -= skip;
    memmove(cli->argument, cli->argument + skip, (size_t)cli->argument_count * sizeof cli->argument[0]);
    return check(cli);
}

bool cli_number(struct cli *cli, enum cli_option_id id, uint64_t max, uint64_t *out)
{
    uint64_t value;
    if (!cli->option[id])
        return true;
    if (xy_str_u64(xy_str(cli->option[id]), &value) && value > 0 && value <= max) {
        *out = value;
        return true;
    }
    cli_error("--%s takes a number from 1 to %llu", options[id].name, (unsigned long long)max);
    return false;
}

const char *cli_each(const struct cli *cli, enum cli_option_id id, int *at)
{
    while (*at < cli->given_count) {
        const struct cli_given *given = &cli->given[(*at)++];
        if (given->id == id)
            return given->value;
    }
    return NULL;
}
