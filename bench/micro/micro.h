/* A micro-benchmark: one small piece of the hot path, done again and again on the same input, so that the instructions it
 * takes can be counted and are the same each time. cases_*.c have the cases, micro.c the table of them, check.py compares.
 *
 * A case knows no clock, no thread and no randomness. What it holds lives until the program ends. */
#pragma once

#define MICRO_PAYLOAD_BYTES 256u

struct micro_case {
    const char *name;
    unsigned operations;    /* how many are counted; a multiple of what the case does at a time */
    void *(*prepare)(void); /* not counted */
    void (*run)(void *state, unsigned operations);
};

extern const struct micro_case micro_parse, micro_write;                    /* cases_xml.c */
extern const struct micro_case micro_store;                                 /* cases_store.c */
extern const struct micro_case micro_message, micro_publish, micro_fan_out; /* cases_broker.c */
