/* The names a certificate carries: a walk over the DER of its subjectAltName, independent of the TLS library.
 *
 * Only SAN entries count: dNSName, and id-on-xmppAddr (RFC 6120 13.7.1.4) which SASL EXTERNAL maps to JIDs (XEP-0178).
 * The subject's common name is never looked at. A SAN that is malformed anywhere, or a name with an embedded NUL, makes
 * the whole certificate nameless. */
#pragma once

#include "core/base/str.h"

enum xy_tls_name_kind { XY_TLS_NAME_DNS, XY_TLS_NAME_XMPP };

struct xy_tls_name {
    enum xy_tls_name_kind kind;
    struct xy_str value; /* inside the certificate; UTF-8 for XMPP (unprepared JID), ASCII for DNS */
};

struct xy_tls_names {
    struct xy_str rest;
};

/* false: not a certificate, no SAN, or a malformed one; then there are no names. */
bool xy_tls_names_open(struct xy_tls_names *names, struct xy_str certificate_der);
bool xy_tls_names_next(struct xy_tls_names *names, struct xy_tls_name *out); /* false: no more */

/* Does dNSName `pattern` cover `host` (RFC 6125 6.4): without regard to ASCII case; `*` only as the whole left-most
 * label, for exactly one label, and never for a name of fewer than three labels. */
bool xy_tls_name_covers(struct xy_str pattern, struct xy_str host);

/* Does any dNSName of the certificate cover the host? */
bool xy_tls_certificate_covers(struct xy_str certificate_der, struct xy_str host);

/* What a certificate was signed with, for tls-server-end-point (RFC 5929 4.1): MD5 and SHA-1 already replaced. */
enum xy_tls_hash {
    XY_TLS_HASH_NONE,
    XY_TLS_HASH_SHA224,
    XY_TLS_HASH_SHA256,
    XY_TLS_HASH_SHA384,
    XY_TLS_HASH_SHA512
};
enum xy_tls_hash xy_tls_certificate_hash(struct xy_str certificate_der);
