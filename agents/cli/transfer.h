/* What sending and receiving files have in common: the offer that goes before the bytestream, and the progress bar.
 *
 * urn:xylem:file:0 (docs/protocol.md): <offer sid name size sha256/> announces, the bytestream with the same sid carries
 * the bytes, <done sid/> asks whether they arrived whole. A client that does not know it gets a plain XEP-0047 stream. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define NS_XYLEM_FILE     "urn:xylem:file:0"
#define TRANSFER_RESOURCE "xylem-recv"
#define TRANSFER_NAME_MAX 200u

struct transfer_progress {
    const char *name;
    uint64_t size; /* 0: not known */
    uint64_t begun_us, shown_us;
    bool tty;
};

void transfer_begin(struct transfer_progress *progress, const char *name, uint64_t size);
void transfer_show(struct transfer_progress *progress, uint64_t bytes);
/* Clears the bar; seconds since the beginning. */
double transfer_end(struct transfer_progress *progress);
