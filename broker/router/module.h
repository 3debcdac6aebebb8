/* The one way protocol features plug in: a module is a name, the features it adds to disco and a table of IQ handlers.
 *
 * Each module is one file in broker/modules and one line in the registry (broker/modules/registry.c). */
#pragma once

#include "broker/router/request.h"

/* Where the IQ was addressed. */
enum module_scope {
    MODULE_SERVER = 1,  /* the broker's domain; runs on the sender's shard */
    MODULE_ACCOUNT = 2, /* an account's bare JID, or no `to`; runs on the shard that owns the account */
    MODULE_BOTH = 3,
};

typedef void module_iq_fn(struct shard *shard, struct request **request); /* must end the request */

struct module_iq {
    enum xy_stanza_type type; /* XY_GET or XY_SET; XY_TYPE_NONE ends the table */
    const char *name;
    const char *ns;
    enum module_scope scope;
    module_iq_fn *fn;
    bool others; /* MODULE_ACCOUNT: other accounts may ask too; else they get what an unknown account gives */
};

struct module {
    const char *name;
    const char *const *features;         /* of the server; NULL-terminated */
    const char *const *account_features; /* of accounts; may be NULL */
    const struct module_iq *iq;
    /* Answer a disco query about a node of the server. false: not one of its nodes, nothing was done. May be NULL. */
    bool (*disco_info)(struct shard *shard, struct request **request);
    bool (*disco_items)(struct shard *shard, struct request **request);
    bool (*init)(struct shard *shard); /* may be NULL */
    void (*free)(struct shard *shard); /* may be NULL */
};

extern const struct module *const module_registry[]; /* NULL-terminated; broker/modules/registry.c */

/* The handler for this IQ in this scope, or NULL. */
const struct module_iq *module_find(const struct xy_stanza *iq, enum module_scope scope);

/* Begins the answer: an IQ result with one child of that name and namespace. */
struct xy_elem *module_result(struct request *request, const char *name, const char *ns,
                              struct xy_elem **child);

#define XYLEM_VERSION "0.1.0" /* what the broker says of itself */
