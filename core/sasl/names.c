/* Mechanisms and failure conditions by name. */
#include "core/sasl/internal.h"

#include "core/base/assert.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct {
    enum xy_sasl_mechanism mechanism;
    const char *name;
} mechanisms[] = {
    { XY_SASL_EXTERNAL, "EXTERNAL" },
    { XY_SASL_SCRAM_SHA_256_PLUS, "SCRAM-SHA-256-PLUS" },
    { XY_SASL_SCRAM_SHA_1_PLUS, "SCRAM-SHA-1-PLUS" },
    { XY_SASL_SCRAM_SHA_256, "SCRAM-SHA-256" },
    { XY_SASL_SCRAM_SHA_1, "SCRAM-SHA-1" },
    { XY_SASL_PLAIN, "PLAIN" },
};

static const char *const conditions[XY_SASL_CONDITION_COUNT] = {
    [XY_SASL_NO_FAILURE] = "",
    [XY_SASL_ABORTED] = "aborted",
    [XY_SASL_ACCOUNT_DISABLED] = "account-disabled",
    [XY_SASL_CREDENTIALS_EXPIRED] = "credentials-expired",
    [XY_SASL_ENCRYPTION_REQUIRED] = "encryption-required",
    [XY_SASL_INCORRECT_ENCODING] = "incorrect-encoding",
    [XY_SASL_INVALID_AUTHZID] = "invalid-authzid",
    [XY_SASL_INVALID_MECHANISM] = "invalid-mechanism",
    [XY_SASL_MALFORMED_REQUEST] = "malformed-request",
    [XY_SASL_MECHANISM_TOO_WEAK] = "mechanism-too-weak",
    [XY_SASL_NOT_AUTHORIZED] = "not-authorized",
    [XY_SASL_TEMPORARY_AUTH_FAILURE] = "temporary-auth-failure",
};

const char *xy_sasl_mechanism_name(enum xy_sasl_mechanism mechanism)
{
    for (size_t i = 0; i < COUNT(mechanisms); i++)
        if (mechanisms[i].mechanism == mechanism)
            return mechanisms[i].name;
    return "";
}

enum xy_sasl_mechanism xy_sasl_mechanism_find(struct xy_str name)
{
    for (size_t i = 0; i < COUNT(mechanisms); i++)
        if (xy_str_is(name, mechanisms[i].name))
            return mechanisms[i].mechanism;
    return XY_SASL_NONE;
}

const char *xy_sasl_condition_name(enum xy_sasl_condition condition)
{
    xy_assert((unsigned)condition < XY_SASL_CONDITION_COUNT);
    return conditions[condition];
}

enum xy_sasl_condition xy_sasl_condition_find(struct xy_str name)
{
    for (unsigned i = XY_SASL_ABORTED; i < XY_SASL_CONDITION_COUNT; i++)
        if (xy_str_is(name, conditions[i]))
            return (enum xy_sasl_condition)i;
    return XY_SASL_NOT_AUTHORIZED;
}

bool sasl_is_scram(enum xy_sasl_mechanism mechanism)
{
    return ((unsigned)mechanism & XY_SASL_SCRAM_ALL) != 0;
}

bool sasl_is_plus(enum xy_sasl_mechanism mechanism)
{
    return ((unsigned)mechanism & XY_SASL_PLUS_ALL) != 0;
}

enum xy_scram_hash scram_hash_of(enum xy_sasl_mechanism mechanism)
{
    bool sha_1 = mechanism == XY_SASL_SCRAM_SHA_1 || mechanism == XY_SASL_SCRAM_SHA_1_PLUS;
    return sha_1 ? XY_SCRAM_SHA_1 : XY_SCRAM_SHA_256;
}
