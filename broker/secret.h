/* The broker's own secret: random bytes made at first start and kept in data_dir, so that what is derived from them
 * stays the same over restarts (the salts shown for accounts that do not exist). */
#pragma once

#include "core/base/buf.h"
#include "core/base/env.h"

#define SECRET_BYTES 32u

/* false: prose in `error`. `data_dir` exists. */
bool secret_load(const char *data_dir, const struct xy_env *env, unsigned char out[SECRET_BYTES],
                 struct xy_buf *error);
