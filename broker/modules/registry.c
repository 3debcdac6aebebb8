/* The list of modules: a protocol feature is a file and a line here. The router walks it at start and for every IQ that is
 * addressed to the server or to an account. */
#include "broker/modules/modules.h"

const struct module *const module_registry[] = {
    &module_ping, &module_disco, &module_carbons,  &module_version,
    &module_last, &module_time,  &module_commands, NULL,
};
