/* A running SHA-256, for contents that pass by in pieces (files over a bytestream, XEP-0300). No allocation; the library
 * behind it does not show. */
#pragma once

#include "core/base/str.h"

#define XY_SHA256_BYTES 32

struct xy_sha256 {
    uint64_t opaque[32];
};

void xy_sha256_start(struct xy_sha256 *hash);
void xy_sha256_add(struct xy_sha256 *hash, const void *data, size_t len);
void xy_sha256_end(struct xy_sha256 *hash, unsigned char out[XY_SHA256_BYTES]); /* and forgets the state */
void xy_sha256_of(struct xy_str data, unsigned char out[XY_SHA256_BYTES]);
