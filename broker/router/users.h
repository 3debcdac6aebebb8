/* Accounts of a stopped broker: `xylemd --config FILE --users add|import|list|passwd|remove …`.
 *
 * Opens the store itself, so it refuses to work while a broker holds the data directory. The same operations on a
 * running broker are ad-hoc commands (broker/admin). Called by main. */
#pragma once

#include <stdio.h>

#include "broker/config.h"

struct xy_env;

/* argv[0] is the verb: `add NAME [PASSWORD on in]`, `import [FILE]` (lines NAME:PASSWORD; FILE absent or `-`: in),
 * `list`, `passwd NAME`, `remove NAME…`. NAME is a localpart of the first domain or a bare JID of any local domain; the
 * password is one line of `in`. Returns the exit code: 0, 1 failed, 2 wrong usage. Prose goes to `err`. */
int users_command(const struct config *config, const struct xy_env *env, int argc, char **argv, FILE *in,
                  FILE *out, FILE *err);
