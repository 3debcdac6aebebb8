/* A streaming XML parser for one direction of an XMPP stream (RFC 6120 section 4 and 11), over libexpat.
 *
 * Pull-style and sans-IO: feed bytes, then take events until XY_XML_MORE. Each top-level child of the stream element
 * comes as a whole, as a tree in an arena of its own that the caller then owns. Comments, processing instructions and
 * DTDs are refused (RFC 6120 11.1). Limits: see core/base/limits.h and struct xy_xml_options.
 *
 * The parser is suspended after each event, so a stream restart (xy_xml_restart) between two events loses nothing.
 * An idle parser can give its expat memory back (xy_xml_sleep): it wakes by itself at the next feed. */
#pragma once

#include "core/base/arena.h"
#include "core/base/spans.h"
#include "core/xml/elem.h"

enum xy_xml_event_kind {
    XY_XML_MORE,    /* everything fed was consumed */
    XY_XML_OPEN,    /* the stream header: `elem` has its name, attributes, no children */
    XY_XML_ELEMENT, /* a complete first-level element */
    XY_XML_CLOSE,   /* the stream's end tag; nothing after it is looked at (XY_XML_MORE from then on) */
    XY_XML_ERROR,   /* `error` says what; the parser stays in this state */
};

/* Why a stream must be closed; each maps to a stream error condition of RFC 6120 4.9.3. */
enum xy_xml_error {
    XY_XML_NOT_WELL_FORMED = 1,
    XY_XML_BAD_PREFIX, /* bad-namespace-prefix */
    XY_XML_RESTRICTED, /* DTD, comment, processing instruction, entity */
    XY_XML_UNSUPPORTED_ENCODING,
    XY_XML_TOO_BIG,     /* policy-violation: stanza bytes, XEP-0478 */
    XY_XML_TOO_DEEP,    /* policy-violation: depth, attributes, names, namespaces */
    XY_XML_TEXT_AT_TOP, /* text between stanzas: invalid-xml */
    XY_XML_NO_MEMORY,   /* resource-constraint: this stream only */
};

struct xy_xml_event {
    enum xy_xml_event_kind kind;
    enum xy_xml_error error;
    struct xy_elem *elem;
    struct xy_arena *arena; /* owns elem; now the caller's (give it back to a pool, or free it) */
    size_t bytes;           /* size of this element on the wire */
};

struct xy_xml_options {
    struct xy_arena_pool *arenas; /* borrowed; NULL: plain xy_arena_new */
    const struct xy_spans *spans; /* for expat's memory; borrowed; NULL: malloc */
    size_t stanza_bytes_max;      /* 0: XY_STANZA_BYTES_DEFAULT; may be changed later: xy_xml_set_max */
    unsigned depth_max;           /* 0: XY_XML_DEPTH_MAX; a client allows more, for what a server wraps */
};

struct xy_xml_parser;

struct xy_xml_parser *xy_xml_new(const struct xy_xml_options *options);
void xy_xml_free(struct xy_xml_parser **parser);
void xy_xml_set_max(struct xy_xml_parser *parser, size_t stanza_bytes_max);

/* The parser moves to another thread: arenas come from that thread's pool from now on. Spans stay whose they are. */
void xy_xml_adopt(struct xy_xml_parser *parser, struct xy_arena_pool *arenas);

/* `data` must stay valid until xy_xml_next returned XY_XML_MORE, XY_XML_ERROR or XY_XML_CLOSE, or until the parser is
 * restarted without the rest; only then the next feed. Any length. */
void xy_xml_feed(struct xy_xml_parser *parser, const void *data, size_t len);
void xy_xml_next(struct xy_xml_parser *parser, struct xy_xml_event *event);
/* What was fed last stands at `to` now, all of it, instead of at `from`. */
void xy_xml_moved(struct xy_xml_parser *parser, const char *from, const char *to);

/* The default namespace declared on the stream header: what stanzas without xmlns are in. Absent: none declared, or no
 * header yet. Valid until the next restart. */
struct xy_str xy_xml_default_ns(const struct xy_xml_parser *parser);

/* Begin a new document (RFC 6120 4.3.3), as after SASL. keep_rest: what was fed behind the last event, up to which
 * XY_XML_MORE was not yet returned, belongs to the new stream; otherwise it is discarded, as it must be around STARTTLS.
 * White space before the new header is skipped. */
void xy_xml_restart(struct xy_xml_parser *parser, bool keep_rest);

/* Free what an idle stream does not need. A no-op in the middle of an element. */
void xy_xml_sleep(struct xy_xml_parser *parser);
size_t xy_xml_memory(const struct xy_xml_parser *parser); /* bytes held now, about */
