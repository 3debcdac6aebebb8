/* Sessions: how fast they log in, and what those that only sit there cost. */
#include <unistd.h>

#include "bench/load/load.h"

enum { SETTLE_S = 4, IDLE_S = 2 };

/* By the strongest SASL mechanism that server and client have in common. */
void logins_run(struct load *load)
{
    figures_mark(load, &load->figures.begin);
    (void)clients_open(load, 0, load->scenario->sinks, false);
    load->figures.done = load->scenario->sinks;
    figures_mark(load, &load->figures.end);
}

/* What is mapped from files does not count: it is the system's cache of them, and grows with whatever the server does beside. */
void idle_run(struct load *load)
{
    uint64_t before_kb = server_private_kb(load);
    (void)clients_open(load, 0, load->scenario->sinks, true);
    loop_for(load, SETTLE_S);
    figures_mark(load, &load->figures.begin);
    loop_for(load, IDLE_S);
    figures_mark(load, &load->figures.end);
    if (load->pid > 0)
        xy_buf_printf(&load->figures.more, ",\"kib_per_session\":%.2f",
                      ((double)server_private_kb(load) - (double)before_kb) / load->scenario->sinks);
}
