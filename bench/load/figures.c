/* What a run counts, and the line of JSON it ends with. Processor time of the server is that of its one process. */
#include "bench/load/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FINE_BITS = 6 }; /* buckets per power of two: 64 */

static unsigned bucket_of(uint64_t us)
{
    if (us < 1u << FINE_BITS)
        return (unsigned)us;
    unsigned power = 63u - (unsigned)__builtin_clzll(us);
    unsigned fine = (unsigned)(us >> (power - FINE_BITS)) & ((1u << FINE_BITS) - 1);
    unsigned bucket = ((power - FINE_BITS + 1) << FINE_BITS) + fine;
    return bucket < SPREAD_BUCKETS ? bucket : SPREAD_BUCKETS - 1;
}

static uint64_t bucket_low(unsigned bucket)
{
    if (bucket < 1u << FINE_BITS)
        return bucket;
    unsigned power = (bucket >> FINE_BITS) + FINE_BITS - 1, fine = bucket & ((1u << FINE_BITS) - 1);
    return (UINT64_C(1) << power) + ((uint64_t)fine << (power - FINE_BITS));
}

void spread_add(struct spread *spread, uint64_t us)
{
    spread->count++;
    spread->bucket[bucket_of(us)]++;
}

uint64_t spread_quantile(const struct spread *spread, unsigned permille)
{
    uint64_t rank = (spread->count * permille + 999) / 1000, seen = 0;
    for (unsigned i = 0; i < SPREAD_BUCKETS && rank > 0; i++) {
        seen += spread->bucket[i];
        if (seen >= rank)
            return bucket_low(i);
    }
    return 0;
}

/* --- marks ------------------------------------------------------------------------------------------------------- */

static uint64_t cpu_us(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Looking at all processes takes some milliseconds: first, so that the rest belongs to one moment. */
void figures_mark(struct load *load, struct sums *sums)
{
    clockid_t server;
    uint64_t others_us = others_cpu_us(load);
    *sums = (struct sums){ .time_us = clock_us(),
                           .done = load->figures.done,
                           .answered = load->figures.answered,
                           .covered = load->figures.covered,
                           .client_cpu_us = cpu_us(CLOCK_PROCESS_CPUTIME_ID),
                           .others_cpu_us = others_us };
    if (load->pid > 0 && clock_getcpuclockid((pid_t)load->pid, &server) == 0)
        sums->server_cpu_us = cpu_us(server);
}

/* --- the result --------------------------------------------------------------------------------------------------- */

static void print_spread(const char *name, const struct spread *spread)
{
    if (spread->count > 0)
        printf(",\"%s_p50_us\":%" PRIu64 ",\"%s_p99_us\":%" PRIu64 ",\"%s_p999_us\":%" PRIu64, name,
               spread_quantile(spread, 500), name, spread_quantile(spread, 990), name,
               spread_quantile(spread, 999));
}

void figures_print(struct load *load)
{
    const struct figures *f = &load->figures;
    double took_us = (double)(f->end.time_us - f->begin.time_us);
    uint64_t done = f->end.done - f->begin.done;
    double server_us = (double)(f->end.server_cpu_us - f->begin.server_cpu_us);
    double client_us = (double)(f->end.client_cpu_us - f->begin.client_cpu_us);
    double other_us = (double)f->end.others_cpu_us - (double)f->begin.others_cpu_us;
    printf("{\"scenario\":\"%s\",\"counts\":\"%s\",\"seconds\":%.3f,\"operations\":%" PRIu64
           ",\"operations_per_s\":%.1f",
           load->scenario->name, load->scenario->counts, took_us / 1e6, done, (double)done / took_us * 1e6);
    if (load->pid > 0 && done > 0)
        printf(",\"server_cpu_s_per_million\":%.3f,\"server_cpu_share\":%.3f", server_us / (double)done,
               server_us / took_us);
    printf(",\"client_cpu_share\":%.3f,\"other_cpu_share\":%.3f", client_us / took_us,
           other_us > 0 ? other_us / took_us : 0);
    print_spread("answer", &f->answer);
    print_spread("delivery", &f->delivery);
    printf(",\"lost\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"corrupt\":%" PRIu64, f->lost, f->repeated,
           f->corrupt);
    printf("%.*s}\n", XY_ARG(xy_buf_view(&f->more)));
}
