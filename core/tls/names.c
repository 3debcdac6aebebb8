/* Walks the DER of a certificate for its names and its signature's hash. Every length is checked against what encloses
 * it before it is believed; nothing is copied. Called when a peer's certificate is judged and for channel binding. */
#include "core/tls/names.h"

#include "core/base/assert.h"

#define LABELS_UNDER_WILDCARD_MIN 2

enum {
    DER_BOOLEAN = 0x01,
    DER_OCTETS = 0x04,
    DER_OID = 0x06,
    DER_UTF8 = 0x0c,
    DER_SEQUENCE = 0x30,
    DER_EXPLICIT_0 = 0xa0,
    DER_EXTENSIONS = 0xa3, /* [3] in TBSCertificate */
    DER_SAN_OTHER = 0xa0,  /* [0] in GeneralName */
    DER_SAN_DNS = 0x82,    /* [2] */
};

struct der {
    unsigned char tag;
    struct xy_str body;
};

/* The next element of *rest; false: nothing left, or its length does not fit. One-byte tags and up to four bytes of
 * length are all that certificates need. */
static bool der_next(struct xy_str *rest, struct der *out)
{
    const unsigned char *p = (const unsigned char *)rest->data;
    size_t left = rest->len;
    if (left < 2 || (p[0] & 0x1f) == 0x1f)
        return false;
    size_t header = 2, len = p[1];
    if (len >= 0x80) {
        size_t count = len & 0x7f;
        if (count == 0 || count > 4 || left < 2 + count)
            return false;
        len = 0;
        for (size_t i = 0; i < count; i++)
            len = len << 8 | p[2 + i];
        header += count;
    }
    if (len > left - header)
        return false;
    out->tag = p[0];
    out->body = xy_str_n(rest->data + header, len);
    *rest = xy_str_n(rest->data + header + len, left - header - len);
    return true;
}

static bool der_expect(struct xy_str *rest, unsigned char tag, struct xy_str *body)
{
    struct der element;
    if (!der_next(rest, &element) || element.tag != tag)
        return false;
    *body = element.body;
    return true;
}

/* The two parts of a certificate that matter here: the fields signed, and the algorithm that signed them. */
static bool certificate_open(struct xy_str der, struct xy_str *tbs, struct xy_str *algorithm)
{
    struct xy_str body;
    return xy_str_present(der) && der_expect(&der, DER_SEQUENCE, &body) &&
           der_expect(&body, DER_SEQUENCE, tbs) && der_expect(&body, DER_SEQUENCE, algorithm);
}

/* The value of the subjectAltName extension: the contents of its GeneralNames. Two of them make none. */
static bool san_find(struct xy_str tbs, struct xy_str *names)
{
    static const char oid_san[] = "\x55\x1d\x11";
    struct der field;
    struct xy_str extensions = XY_STR_NONE;
    while (der_next(&tbs, &field))
        if (field.tag == DER_EXTENSIONS && !der_expect(&field.body, DER_SEQUENCE, &extensions))
            return false;

    size_t found = 0;
    struct xy_str extension, oid, value;
    while (extensions.len > 0) {
        if (!der_expect(&extensions, DER_SEQUENCE, &extension) || !der_expect(&extension, DER_OID, &oid))
            return false;
        if (!xy_str_is(oid, oid_san))
            continue;
        if (!der_next(&extension, &field))
            return false;
        if (field.tag == DER_BOOLEAN && !der_next(&extension, &field))
            return false;
        value = field.body;
        if (field.tag != DER_OCTETS || !der_expect(&value, DER_SEQUENCE, names) || value.len != 0)
            return false;
        found++;
    }
    return found == 1;
}

static bool dns_name_ok(struct xy_str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] <= 0x20 || name.data[i] >= 0x7f)
            return false;
    return name.len > 0;
}

/* OtherName: type-id OID, [0] EXPLICIT value. Other types than id-on-xmppAddr are well-formed but no name to us. */
static bool other_name_read(struct xy_str body, bool *is_name, struct xy_tls_name *out)
{
    static const char oid_xmpp[] = "\x2b\x06\x01\x05\x05\x07\x08\x05"; /* 1.3.6.1.5.5.7.8.5 */
    struct xy_str oid, value, text;
    if (!der_expect(&body, DER_OID, &oid) || !der_expect(&body, DER_EXPLICIT_0, &value) || body.len != 0)
        return false;
    *is_name = xy_str_is(oid, oid_xmpp);
    if (!*is_name)
        return true;
    if (!der_expect(&value, DER_UTF8, &text) || value.len != 0 || text.len == 0 || !xy_str_utf8(text))
        return false;
    *out = (struct xy_tls_name){ .kind = XY_TLS_NAME_XMPP, .value = text };
    return true;
}

/* One GeneralName; *is_name says whether it was one of the kinds we know. */
static bool general_name_read(struct xy_str *rest, bool *is_name, struct xy_tls_name *out)
{
    struct der element;
    if (!der_next(rest, &element))
        return false;
    *is_name = false;
    if (element.tag == DER_SAN_OTHER)
        return other_name_read(element.body, is_name, out);
    if (element.tag != DER_SAN_DNS)
        return true;
    *is_name = true;
    *out = (struct xy_tls_name){ .kind = XY_TLS_NAME_DNS, .value = element.body };
    return dns_name_ok(element.body);
}

bool xy_tls_names_open(struct xy_tls_names *names, struct xy_str certificate_der)
{
    struct xy_str tbs, algorithm, all;
    *names = (struct xy_tls_names){ .rest = XY_STR_NONE };
    if (!certificate_open(certificate_der, &tbs, &algorithm) || !san_find(tbs, &all))
        return false;
    struct xy_str check = all;
    struct xy_tls_name name;
    bool is_name;
    while (check.len > 0)
        if (!general_name_read(&check, &is_name, &name))
            return false;
    names->rest = all;
    return true;
}

bool xy_tls_names_next(struct xy_tls_names *names, struct xy_tls_name *out)
{
    while (names->rest.len > 0) {
        bool is_name;
        bool well_formed = general_name_read(&names->rest, &is_name, out);
        xy_assert(well_formed); /* xy_tls_names_open walked over it before */
        if (is_name)
            return true;
    }
    return false;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool same_name(struct xy_str a, struct xy_str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.data[i]) != lower(b.data[i]))
            return false;
    return true;
}

bool xy_tls_name_covers(struct xy_str pattern, struct xy_str host)
{
    if (pattern.len == 0 || host.len == 0)
        return false;
    if (!xy_str_starts(pattern, XY_STR("*.")))
        return memchr(pattern.data, '*', pattern.len) == NULL && same_name(pattern, host);

    const char *dot = memchr(host.data, '.', host.len);
    if (dot == NULL || dot == host.data)
        return false;
    struct xy_str parent = xy_str_n(dot, host.len - (size_t)(dot - host.data));
    struct xy_str suffix = xy_str_n(pattern.data + 1, pattern.len - 1);
    size_t labels = 0;
    for (size_t i = 0; i < suffix.len; i++)
        labels += suffix.data[i] == '.';
    return labels >= LABELS_UNDER_WILDCARD_MIN && memchr(suffix.data, '*', suffix.len) == NULL &&
           same_name(suffix, parent);
}

bool xy_tls_certificate_covers(struct xy_str certificate_der, struct xy_str host)
{
    struct xy_tls_names names;
    struct xy_tls_name name;
    if (!xy_tls_names_open(&names, certificate_der))
        return false;
    while (xy_tls_names_next(&names, &name))
        if (name.kind == XY_TLS_NAME_DNS && xy_tls_name_covers(name.value, host))
            return true;
    return false;
}

struct oid_hash {
    const char *oid;
    enum xy_tls_hash hash;
};

static const struct oid_hash signature_hashes[] = {
    { "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04",
      XY_TLS_HASH_SHA256 }, /* md5WithRSAEncryption: RFC 5929 says SHA-256 */
    { "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", XY_TLS_HASH_SHA256 }, /* sha1WithRSAEncryption: likewise */
    { "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e", XY_TLS_HASH_SHA224 },
    { "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", XY_TLS_HASH_SHA256 },
    { "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", XY_TLS_HASH_SHA384 },
    { "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", XY_TLS_HASH_SHA512 },
    { "\x2a\x86\x48\xce\x3d\x04\x01", XY_TLS_HASH_SHA256 }, /* ecdsa-with-SHA1 */
    { "\x2a\x86\x48\xce\x3d\x04\x03\x01", XY_TLS_HASH_SHA224 },
    { "\x2a\x86\x48\xce\x3d\x04\x03\x02", XY_TLS_HASH_SHA256 },
    { "\x2a\x86\x48\xce\x3d\x04\x03\x03", XY_TLS_HASH_SHA384 },
    { "\x2a\x86\x48\xce\x3d\x04\x03\x04", XY_TLS_HASH_SHA512 },
    { NULL, XY_TLS_HASH_NONE },
};

static const struct oid_hash digest_hashes[] = {
    { "\x2b\x0e\x03\x02\x1a", XY_TLS_HASH_SHA256 }, /* sha1 */
    { "\x60\x86\x48\x01\x65\x03\x04\x02\x04", XY_TLS_HASH_SHA224 },
    { "\x60\x86\x48\x01\x65\x03\x04\x02\x01", XY_TLS_HASH_SHA256 },
    { "\x60\x86\x48\x01\x65\x03\x04\x02\x02", XY_TLS_HASH_SHA384 },
    { "\x60\x86\x48\x01\x65\x03\x04\x02\x03", XY_TLS_HASH_SHA512 },
    { NULL, XY_TLS_HASH_NONE },
};

static enum xy_tls_hash hash_find(const struct oid_hash *table, struct xy_str oid)
{
    for (; table->oid != NULL; table++)
        if (xy_str_is(oid, table->oid))
            return table->hash;
    return XY_TLS_HASH_NONE;
}

/* RSASSA-PSS names its hash in the parameters (RFC 4055 3.1); left out, it is SHA-1. */
static enum xy_tls_hash pss_hash(struct xy_str parameters)
{
    struct xy_str fields, algorithm, oid;
    struct der first;
    if (!der_expect(&parameters, DER_SEQUENCE, &fields))
        return XY_TLS_HASH_NONE;
    if (!der_next(&fields, &first) || first.tag != DER_EXPLICIT_0)
        return XY_TLS_HASH_SHA256;
    if (!der_expect(&first.body, DER_SEQUENCE, &algorithm) || !der_expect(&algorithm, DER_OID, &oid))
        return XY_TLS_HASH_NONE;
    return hash_find(digest_hashes, oid);
}

enum xy_tls_hash xy_tls_certificate_hash(struct xy_str certificate_der)
{
    static const char oid_pss[] = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    struct xy_str tbs, algorithm, oid;
    if (!certificate_open(certificate_der, &tbs, &algorithm) || !der_expect(&algorithm, DER_OID, &oid))
        return XY_TLS_HASH_NONE;
    if (xy_str_is(oid, oid_pss))
        return pss_hash(algorithm);
    return hash_find(signature_hashes, oid);
}
