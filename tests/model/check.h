/* One sequence of operations, put to the broker and to the model at once. The first difference is the verdict. */
#pragma once

#include "tests/model/model.h"

struct check_options {
    uint64_t seed;   /* of the broker's own random numbers */
    unsigned shards; /* to begin with */
    bool trace;
    const char *fault; /* planted: see check.c; NULL: none */
};

struct check_result {
    bool failed;
    unsigned done;      /* operations; where it failed: its number, from 1 */
    unsigned effective; /* those that had anything to do: who is offline says nothing */
    uint64_t events;    /* heard */
    unsigned restarts;
    char verdict[400];
};

void check_run(const struct check_options *options, const struct op *ops, unsigned count,
               struct check_result *result);
