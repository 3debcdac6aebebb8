/* Administration as ad-hoc commands (XEP-0050, XEP-0133) of the server, for administrators only (router_is_admin): what
 * the files of broker/admin share, the table of commands and how a command answers. */
#pragma once

#include "broker/config.h"
#include "broker/router/accounts.h"
#include "broker/router/module.h"
#include "broker/router/router.h"
#include "core/base/assert.h"
#include "core/dataform.h"
#include "core/namespaces.h"

#define NS_ADMIN "http://jabber.org/protocol/admin" /* FORM_TYPE of XEP-0133 */

/* One field of the form a command asks for. */
struct command_field {
    const char *var;
    const char *type; /* XEP-0004; required unless `optional` */
    const char *label;
    bool optional;
};

struct command {
    const char *node;
    const char *name;
    /* var NULL ends; NULL: no form is asked for, the command runs at once */
    const struct command_field *fields;
    /* Runs it; `form` is what was submitted, or NULL. Takes the request and answers now or later. */
    void (*run)(struct shard *shard, struct request **request, const struct xy_form *form);
};

extern const struct module module_commands; /* in the registry of broker/modules */

/* One table per group, ended by node NULL. */
extern const struct command admin_stats_commands[];
extern const struct command admin_backup_commands[];
extern const struct command admin_user_commands[];

/* What that is: `completed` … */
struct xy_elem *command_completed(struct shard *shard, struct request *request, struct xy_elem *form,
                                  const char *note);
/* Answers `completed` with an optional form (NULL: none) and a note (NULL: none). */
void command_complete(struct shard *shard, struct request **request, struct xy_elem *form, const char *note);
/* The command cannot be done that way: a plain stanza error. */
void command_refuse(struct shard *shard, struct request **request, enum xy_condition condition,
                    const char *text);
