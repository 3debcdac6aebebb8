/* xylem: publish, subscribe and administer from the command line. Finds the command and runs it; see commands.c. */
#include <signal.h>

#include "agents/cli/cli.h"

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    struct cli cli = { 0 };
    int status = cli_parse(&cli, argc, argv);
    if (status < 0)
        status = cli.command->run(&cli);
    cli_close(&cli);
    xylem_client_free(cli.client);
    return status;
}
