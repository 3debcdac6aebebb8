/* One connection of a client: TLS and XML stream put together, without I/O. Made when a transport stands, freed when it
 * is gone; the client drains its events. */
#pragma once

#include "core/stream/stream.h"
#include "core/tls/tls.h"

struct xy_link;

struct xy_link_options {
    struct xy_stream_options stream;
    struct xy_stream_client_options client;
    struct xy_tls_config *tls; /* NULL: never */
    bool direct_tls;
};

struct xy_link *
xy_link_new(const struct xy_link_options *options); /* NULL: memory, or SASLprep refused the password */
void xy_link_free(struct xy_link **link);
struct xy_stream *xy_link_stream(struct xy_link *link);

void xy_link_receive(struct xy_link *link, const void *data, size_t len);
/* The next event of the stream. STARTTLS is done in here and never seen by the caller. */
bool xy_link_next(struct xy_link *link, struct xy_stream_event *event);
bool xy_link_wants_input(const struct xy_link *link);

struct xy_str xy_link_output(struct xy_link *link);
void xy_link_sent(struct xy_link *link, size_t len);
size_t xy_link_backlog(const struct xy_link *link); /* bytes not yet taken by the transport */

/* TLS failed: why, in prose; NULL: it did not. */
const char *xy_link_failed(const struct xy_link *link);
bool xy_link_untrusted(const struct xy_link *link); /* and the server's certificate was the reason */
/* Whether more can be done without new bytes: a handshake step, or plaintext that waits. */
bool xy_link_pending(const struct xy_link *link);
