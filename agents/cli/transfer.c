/* xylem send and recv come with the files that follow. */
#include "agents/cli/cli.h"

int cli_send(struct cli *cli)
{
    (void)cli;
    cli_error("not part of this build");
    return CLI_FAILED;
}

int cli_recv(struct cli *cli)
{
    (void)cli;
    cli_error("not part of this build");
    return CLI_FAILED;
}
