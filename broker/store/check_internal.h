/* What the two halves of the check share: check.c reads the log and every table, check_rows.c judges one row. */
#pragma once

#include "broker/store/check.h"
#include "broker/store/internal.h"
#include "core/xml/parser.h"

struct checker {
    struct store_check *out;
    struct store *store;
    struct store_shard *shard;     /* its active memory table holds what the tables lack */
    struct xy_arena *row, *looked; /* of one row; of one look into another table */
    struct xy_buf nodes;           /* uint64_t each: numbers of all nodes, ascending */
    struct xy_xml_parser *parser;  /* inside a stream, or NULL */
    uint64_t node, node_seq;       /* the last node that was looked up, and its last seq; 0: none yet */
    bool node_known;
    unsigned lines; /* said about the table at hand */
};

void check_problem(struct checker *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_row(struct checker *c, enum store_table table, struct xy_str key, struct xy_str value);
