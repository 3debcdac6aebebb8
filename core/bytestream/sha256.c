/* SHA-256 over mbedTLS, with its context hidden in the caller's struct. Called by file transfers for every piece. */
#include "core/bytestream/sha256.h"

#include <mbedtls/sha256.h>
#include <mbedtls/version.h>

#include "core/base/assert.h"

#if MBEDTLS_VERSION_MAJOR >= 3
#define sha256_starts mbedtls_sha256_starts
#define sha256_update mbedtls_sha256_update
#define sha256_finish mbedtls_sha256_finish
#else
#define sha256_starts mbedtls_sha256_starts_ret
#define sha256_update mbedtls_sha256_update_ret
#define sha256_finish mbedtls_sha256_finish_ret
#endif

_Static_assert(sizeof(mbedtls_sha256_context) <= sizeof(struct xy_sha256), "the opaque state is too small");
_Static_assert(_Alignof(mbedtls_sha256_context) <= _Alignof(struct xy_sha256),
               "the opaque state is misaligned");

static mbedtls_sha256_context *context(struct xy_sha256 *hash)
{
    return (mbedtls_sha256_context *)(void *)hash->opaque;
}

void xy_sha256_start(struct xy_sha256 *hash)
{
    mbedtls_sha256_init(context(hash));
    int failed = sha256_starts(context(hash), 0);
    xy_assert(failed == 0);
}

void xy_sha256_add(struct xy_sha256 *hash, const void *data, size_t len)
{
    int failed = sha256_update(context(hash), data, len);
    xy_assert(failed == 0);
}

void xy_sha256_end(struct xy_sha256 *hash, unsigned char out[XY_SHA256_BYTES])
{
    int failed = sha256_finish(context(hash), out);
    xy_assert(failed == 0);
    mbedtls_sha256_free(context(hash));
}

void xy_sha256_of(struct xy_str data, unsigned char out[XY_SHA256_BYTES])
{
    struct xy_sha256 hash;
    xy_sha256_start(&hash);
    xy_sha256_add(&hash, data.data, data.len);
    xy_sha256_end(&hash, out);
}
