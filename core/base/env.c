/* Identifiers made of the environment's randomness. */
#include "core/base/env.h"

#include "core/base/encoding.h"

void xy_random_id(const struct xy_env *env, char out[XY_ID_LEN + 1])
{
    unsigned char random[XY_ID_LEN / 2];
    xy_random(env, random, sizeof(random));
    xy_hex_encode(out, random, sizeof(random));
    out[XY_ID_LEN] = '\0';
}
