/* What is there beside the load: sessions that only sit there, nodes, and subscriptions at nodes to which nobody publishes.
 * bench/growth.py asks for more and more of it, to see whether the load pays for it. It stays when the run is over. */
#include <stdio.h>
#include <unistd.h>

#include "bench/load/load.h"

enum { ACCOUNTS_FIRST = 1000, ACCOUNTS = 1000, AT_ONCE = 500, SUBSCRIBERS = 10, SETTLE_S = 3 };

static unsigned at_most(unsigned count, unsigned limit)
{
    return count < limit ? count : limit;
}

/* A thousand accounts at first, for a server derives a key for each, then further sessions of the same ones. */
static void sessions_open(struct load *load)
{
    unsigned left = load->beside.sessions;
    for (load->round = 0; left > 0; load->round++) {
        unsigned count = at_most(left, ACCOUNTS);
        (void)clients_open(load, ACCOUNTS_FIRST, count, true);
        left -= count;
    }
}

void beside_node(struct beside_name *name, uint64_t number)
{
    (void)snprintf(name->text, sizeof(name->text), "beside-%ld-%llu", (long)getpid(),
                   (unsigned long long)number);
}

static void nodes_make(struct load *load, unsigned count)
{
    struct client *owner = clients_open(load, 0, 1, false)[0];
    for (unsigned i = 0; i < count; i++) {
        struct beside_name name;
        beside_node(&name, i);
        load->protocol->node_make(owner, name.text);
        if (i % AT_ONCE == AT_ONCE - 1)
            clients_answered(load);
    }
    clients_answered(load);
}

/* Of the accounts that the load's first subscribers have, at as many nodes as that takes. */
static void subscribe(struct load *load, unsigned count)
{
    unsigned subscribers = at_most(count, SUBSCRIBERS);
    nodes_make(load, (count + SUBSCRIBERS - 1) / SUBSCRIBERS);
    struct client **clients = clients_open(load, 1, subscribers, false);
    for (unsigned i = 0; i < count; i++) {
        struct beside_name name;
        beside_node(&name, i / SUBSCRIBERS);
        load->protocol->subscribe(clients[i % SUBSCRIBERS], name.text);
        if (i % AT_ONCE == AT_ONCE - 1)
            clients_answered(load);
    }
    clients_answered(load);
}

void beside_make(struct load *load)
{
    uint64_t before_kb = server_private_kb(load);
    sessions_open(load);
    load->round = 1; /* the load has the sessions of round 0 */
    if (load->beside.subscriptions > 0)
        subscribe(load, load->beside.subscriptions);
    else if (load->beside.nodes > 0)
        nodes_make(load, load->beside.nodes);
    load->round = 0;
    loop_for(load, SETTLE_S);
    if (load->pid > 0)
        xy_buf_printf(&load->figures.more, ",\"beside_kib\":%.0f",
                      (double)server_private_kb(load) - (double)before_kb);
}
