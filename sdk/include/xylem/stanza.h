/* Stanzas as XML text: the way out for protocols that libxylem has no calls for.
 *
 * Ownership, threading and callbacks as in <xylem/xylem.h>. XML passed in is checked: what is not one
 * well-formed element is XYLEM_INVALID and never reaches the stream. */
#pragma once

#include <xylem/xylem.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A whole <message/> or <presence/>. Messages that were not acknowledged (XEP-0198) when a session is lost are
 * sent again in the next one. XYLEM_FULL: queue_bytes_max
 * of stanzas wait already; nothing was taken. */
XYLEM_API enum xylem_status xylem_stanza_send(struct xylem_client *client, const char *xml, size_t len);

/* An IQ around `payload`, of type set or get, to `to` (NULL: the own account). The completion has the whole
 * answer in `xml`. timeout_ms 0: reply_timeout_ms. A request that is unanswered when its session is lost ends
 * with XYLEM_DISCONNECTED. */
XYLEM_API enum xylem_status xylem_request(struct xylem_client *client, const char *to, bool set,
                                          const char *payload, size_t len, uint32_t timeout_ms,
                                          xylem_done_fn *done, void *ctx);

/* A stanza that came in. Strings are borrowed until the callback returns. */
struct xylem_stanza {
    const char *kind;      /* message, presence, iq */
    const char *type;      /* "": none */
    const char *from, *id; /* "": none */
    const char *xml;
    size_t len;
};
/* true: taken. For an IQ that means an answer was or will be sent with xylem_reply. */
typedef bool xylem_stanza_fn(struct xylem_client *client, const struct xylem_stanza *stanza, void *ctx);

/* Every message and presence that the library does not use itself. One handler; NULL: none. Without one the client's
 * priority is -1 (RFC 6121 8.5), so messages to its account go to other sessions or wait for one; with one it is 0. A message with a body for
 * the very address of a client without one is answered with <service-unavailable/>. */
XYLEM_API void xylem_on_stanza(struct xylem_client *client, xylem_stanza_fn *fn, void *ctx);
/* IQ requests whose payload is <name xmlns='ns'>; strings are copied. At most 16 handlers. */
XYLEM_API enum xylem_status xylem_on_request(struct xylem_client *client, const char *name, const char *ns,
                                             xylem_stanza_fn *fn, void *ctx);
/* condition NULL: a result around `payload` (may be NULL); else an error with this condition and text. */
XYLEM_API enum xylem_status xylem_reply(struct xylem_client *client, const char *to, const char *id,
                                        const char *payload, const char *condition, const char *text);

#ifdef __cplusplus
}
#endif
