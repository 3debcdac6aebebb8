/* The modules, one file each, and what they share. A new one is a file, a line here and a line in registry.c. */
#pragma once

#include "broker/router/address.h"
#include "broker/router/module.h"
#include "broker/router/router.h"
#include "core/namespaces.h"
#include "core/stanza.h"

extern const struct module module_carbons;
extern const struct module module_disco;
extern const struct module module_last;
extern const struct module module_ping;
extern const struct module module_time;
extern const struct module module_version;
extern const struct module module_commands; /* broker/admin */
