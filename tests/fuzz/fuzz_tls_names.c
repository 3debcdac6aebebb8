/* Any bytes as a certificate: names are inside it, without NUL, and the walk over them ends. */
#include "tests/fuzz/fuzz.h"

#include "core/base/assert.h"
#include "core/tls/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xy_str der = xy_str_n((const char *)data, size);
    struct xy_tls_names names;
    struct xy_tls_name name;
    xy_tls_certificate_hash(der);
    if (!xy_tls_names_open(&names, der))
        return 0;
    while (xy_tls_names_next(&names, &name)) {
        xy_assert(name.value.len > 0 && name.value.data >= der.data &&
                  name.value.data + name.value.len <= der.data + der.len);
        xy_assert(memchr(name.value.data, '\0', name.value.len) == NULL);
    }
    return 0;
}
