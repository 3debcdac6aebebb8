/* Which libraries this build has, the default first, and how a configuration finds one. The only file that knows; CMake's
 * XYLEM_TLS decides (core/CMakeLists.txt). */
#include "core/tls/library.h"

static const struct xy_tls_library *const libraries[] = {
#ifdef XYLEM_TLS_HAS_MBEDTLS
    &tls_mbedtls,
#endif
#ifdef XYLEM_TLS_HAS_OPENSSL
    &tls_openssl,
#endif
};

#define COUNT (sizeof libraries / sizeof libraries[0])

const struct xy_tls_library *xy_tls_library_at(size_t index)
{
    return index < COUNT ? libraries[index] : NULL;
}

const struct xy_tls_library *xy_tls_library(struct xy_str name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (xy_str_is(name, libraries[i]->name))
            return libraries[i];
    return NULL;
}

const char *xy_tls_library_name(const struct xy_tls_library *library)
{
    return library->name;
}

const char *xy_tls_library_release(const struct xy_tls_library *library, char out[XY_TLS_RELEASE_BYTES])
{
    library->release(out);
    return out;
}

const char *xy_tls_newest(const struct xy_tls_library *library)
{
    return library->newest;
}

void xy_tls_warm_up(void)
{
    for (size_t i = 0; i < COUNT; i++)
        if (libraries[i]->warm_up != NULL)
            libraries[i]->warm_up();
}
