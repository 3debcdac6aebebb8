/* SASLprep (RFC 4013) by libidn, with a short way for printable ASCII, which it leaves alone. */
#include "core/sasl/internal.h"

#include <stringprep.h>

#include <mbedtls/platform_util.h>

#define PREP_BYTES_MAX 1024u
_Static_assert(XY_SASL_NAME_MAX <= PREP_BYTES_MAX && XY_SASL_PASSWORD_MAX <= PREP_BYTES_MAX,
               "one buffer for both");

void sasl_wipe(void *data, size_t len)
{
    mbedtls_platform_zeroize(data, len);
}

void sasl_buf_wipe(struct xy_buf *buf)
{
    if (buf->data)
        sasl_wipe(buf->data, buf->cap);
    xy_buf_free(buf);
}

static bool is_plain_ascii(struct xy_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] < 0x20 || s.data[i] > 0x7e)
            return false;
    return true;
}

bool sasl_prep(struct xy_buf *out, struct xy_str in, size_t len_max, bool stored)
{
    char work[PREP_BYTES_MAX + 1];
    if (in.len == 0 || in.len > len_max)
        return false;
    if (is_plain_ascii(in)) {
        xy_buf_str(out, in);
        return !xy_buf_failed(out);
    }
    if (!xy_str_utf8(in))
        return false;
    memcpy(work, in.data, in.len);
    work[in.len] = '\0';
    int flags = stored ? STRINGPREP_NO_UNASSIGNED : 0;
    bool ok =
        stringprep(work, len_max + 1, (Stringprep_profile_flags)flags, stringprep_saslprep) == STRINGPREP_OK;
    struct xy_str prepared = xy_str(work);
    ok = ok && prepared.len > 0;
    if (ok)
        xy_buf_str(out, prepared);
    sasl_wipe(work, sizeof work);
    return ok && !xy_buf_failed(out);
}
