/* The streaming parser: feeds expat in bounded pieces, stops it after each event, and maps its errors. See
 * parser.h.
 *
 * Text is most of what comes, and expat looks at each of its bytes twice and at none of them for more than what it is. So
 * plain text goes straight into the tree, where expat said that all it was given ends with a tag (take_text).
 *
 * Positions are counted from where the current expat parser began: its byte indexes, and what went past it. `base` is where
 * the last event (or white space between stanzas) ended; what was fed beyond it belongs to the next element and
 * counts against the limit before expat sees it. An expat parser never forgets a name it saw, so it is
 * replaced now and then: it gets a copy of the stream header (name and namespace declarations only) to start
 * from, as it does after sleeping. */
#include "core/xml/parser.h"

#include <expat.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/buf.h"
#include "core/base/limits.h"
#include "core/namespaces.h"
#include "core/xml/builder.h"
#include "core/xml/memory.h"
#include "core/xml/text.h"
#include "core/xml/writer.h"

#define EXPAT_BYTES_ABOUT (12u << 10) /* what one expat parser takes, without its input buffer */
#define RESCAN_FREE_BYTES 1024u /* an unfinished tag up to this size is looked at again with every feed */

struct xy_xml_parser {
    struct xy_xml_options options;
    XML_Parser expat; /* NULL: asleep, or nothing fed yet */
    struct xml_memory memory;
    struct xml_builder builder;

    const char *input; /* fed, not given to expat */
    size_t input_len;
    size_t fed;       /* bytes given to this expat parser or past it */
    size_t past;      /* of these, past it */
    size_t tag_end;   /* where the last tag within an element ended, or text that went past expat */
    size_t base;      /* where the last event ended */
    size_t start;     /* where the current first-level element began */
    size_t rescanned; /* bytes of unfinished tokens since the last event, each time they were looked at */
    size_t piece_max; /* largest piece given to this expat parser: its buffer is about twice that */

    bool split;     /* what was fed ends in front of plain text, and no tag ended there so far */
    bool in_stream; /* the header was read */
    bool suspended;
    bool open_ready, element_ready, close_ready;
    bool closed;
    int error;             /* enum xy_xml_error or 0; final */
    unsigned declarations; /* of namespaces, on the element to come */

    struct xy_buf header;     /* the stream header to start a new expat parser from */
    struct xy_str default_ns; /* in `header_ns` */
    char *header_ns;
};

static const struct {
    enum XML_Error expat;
    enum xy_xml_error ours;
} errors[] = {
    { XML_ERROR_NO_MEMORY, XY_XML_NO_MEMORY },
    { XML_ERROR_UNBOUND_PREFIX, XY_XML_BAD_PREFIX },
    { XML_ERROR_UNDECLARING_PREFIX, XY_XML_BAD_PREFIX },
    { XML_ERROR_RESERVED_PREFIX_XML, XY_XML_BAD_PREFIX },
    { XML_ERROR_RESERVED_PREFIX_XMLNS, XY_XML_BAD_PREFIX },
    { XML_ERROR_RESERVED_NAMESPACE_URI, XY_XML_BAD_PREFIX },
    { XML_ERROR_UNDEFINED_ENTITY, XY_XML_RESTRICTED },
    { XML_ERROR_RECURSIVE_ENTITY_REF, XY_XML_RESTRICTED },
    { XML_ERROR_ATTRIBUTE_EXTERNAL_ENTITY_REF, XY_XML_RESTRICTED },
    { XML_ERROR_EXTERNAL_ENTITY_HANDLING, XY_XML_RESTRICTED },
    { XML_ERROR_AMPLIFICATION_LIMIT_BREACH, XY_XML_RESTRICTED },
    { XML_ERROR_UNKNOWN_ENCODING, XY_XML_UNSUPPORTED_ENCODING },
    { XML_ERROR_INCORRECT_ENCODING, XY_XML_UNSUPPORTED_ENCODING },
};

static int map_error(enum XML_Error expat)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        if (errors[i].expat == expat)
            return (int)errors[i].ours;
    }
    return XY_XML_NOT_WELL_FORMED;
}

/* From a handler: the first error counts, and expat stops for good. */
static void fail(struct xy_xml_parser *p, int error)
{
    if (p->error != 0)
        return;
    p->error = error;
    XML_StopParser(p->expat, XML_FALSE);
}

static void suspend(struct xy_xml_parser *p)
{
    p->suspended = true;
    XML_StopParser(p->expat, XML_TRUE);
}

/* Where the token begins that the running handler is about. */
static size_t token_start(const struct xy_xml_parser *p)
{
    return p->past + (size_t)XML_GetCurrentByteIndex(p->expat);
}

static size_t token_end(const struct xy_xml_parser *p)
{
    return token_start(p) + (size_t)XML_GetCurrentByteCount(p->expat);
}

static void tag_ended(struct xy_xml_parser *p)
{
    p->tag_end = token_end(p);
    p->split = false;
}

static bool begin_tree(struct xy_xml_parser *p)
{
    struct xy_arena *arena =
        p->options.arenas != NULL ? xy_arena_pool_take(p->options.arenas) : xy_arena_new();
    if (arena == NULL)
        return false;
    xml_builder_begin(&p->builder, arena);
    return true;
}

static void drop_tree(struct xy_xml_parser *p)
{
    if (p->builder.arena != NULL && p->options.arenas != NULL)
        xy_arena_pool_give(p->options.arenas, &p->builder.arena);
    xy_arena_free(&p->builder.arena);
    p->builder = (struct xml_builder){ 0 };
}

/* --- the stream header
 * ------------------------------------------------------------------------------------------ */

/* Declarations come before the start tag they stand in. */
static void on_namespace(void *ctx, const XML_Char *prefix, const XML_Char *uri)
{
    struct xy_xml_parser *p = ctx;
    if (p->error != 0)
        return;
    if (++p->declarations > XY_XML_NAMESPACES_MAX || (uri != NULL && strlen(uri) > XY_XML_NAMESPACE_MAX) ||
        (prefix != NULL && strlen(prefix) > XY_XML_NAME_MAX)) {
        fail(p, XY_XML_TOO_DEEP);
        return;
    }
    if (p->in_stream)
        return;
    if (prefix == NULL && uri != NULL) {
        p->header_ns = strdup(uri);
        if (p->header_ns == NULL)
            fail(p, XY_XML_NO_MEMORY);
        p->default_ns = xy_str(p->header_ns);
    }
    xy_buf_lit(&p->header, " xmlns");
    if (prefix != NULL) {
        xy_buf_char(&p->header, ':');
        xy_buf_str(&p->header, xy_str(prefix));
    }
    xy_buf_lit(&p->header, "='");
    xy_xml_escape(&p->header, xy_str(uri));
    xy_buf_char(&p->header, '\'');
}

/* The name as it stands in the start tag, with its prefix: the end tag will have to match it. */
static struct xy_str raw_name(XML_Parser expat)
{
    int offset = 0, size = 0;
    const char *context = XML_GetInputContext(expat, &offset, &size);
    if (context == NULL || offset >= size || context[offset] != '<')
        return XY_STR_NONE;
    struct xy_str name = xy_str_n(context + offset + 1, 0);
    size_t left = (size_t)(size - offset - 1);
    while (name.len < left && strchr(" \t\r\n/>", name.data[name.len]) == NULL)
        name.len++;
    return name;
}

/* Completes the saved header: it has the declarations, the name goes in front. */
static void save_header(struct xy_xml_parser *p)
{
    struct xy_buf declarations = p->header;
    struct xy_str name = raw_name(p->expat);
    p->header = (struct xy_buf){ 0 };
    if (name.len > 0) {
        char *exact = malloc(name.len + declarations.len + 2);
        if (exact == NULL) {
            fail(p, XY_XML_NO_MEMORY);
        } else {
            p->header = (struct xy_buf){ .data = exact, .cap = name.len + declarations.len + 2 };
            xy_buf_char(&p->header, '<');
            xy_buf_str(&p->header, name);
            xy_buf_str(&p->header, xy_buf_view(&declarations));
            xy_buf_char(&p->header, '>');
        }
    }
    if (xy_buf_failed(&declarations))
        fail(p, XY_XML_NO_MEMORY);
    xy_buf_free(&declarations);
}

static void on_header(struct xy_xml_parser *p, const XML_Char *name, const XML_Char **attrs)
{
    p->start = token_start(p);
    save_header(p);
    int error = begin_tree(p) ? xml_builder_open(&p->builder, name, attrs, 1) : XY_XML_NO_MEMORY;
    if (error != 0)
        fail(p, error);
    if (p->error != 0)
        return;
    xml_builder_close(&p->builder);
    p->in_stream = true;
    p->open_ready = true;
    p->base = token_end(p);
    suspend(p);
}

/* --- expat's handlers
 * -------------------------------------------------------------------------------------------- */

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attrs)
{
    struct xy_xml_parser *p = ctx;
    p->declarations = 0;
    if (p->error != 0)
        return;
    if (!p->in_stream) {
        on_header(p, name, attrs);
        return;
    }
    if (p->builder.arena == NULL) {
        if (!begin_tree(p)) {
            fail(p, XY_XML_NO_MEMORY);
            return;
        }
        p->start = token_start(p);
    }
    int error = xml_builder_open(&p->builder, name, attrs, p->options.depth_max);
    if (error == 0 && p->builder.depth == 1 && xy_elem_is(p->builder.top, "stream", NS_STREAM))
        error = XY_XML_NOT_WELL_FORMED; /* a second header would swallow everything after it */
    if (error != 0)
        fail(p, error);
    tag_ended(p);
}

static void on_end(void *ctx, const XML_Char *name)
{
    struct xy_xml_parser *p = ctx;
    (void)name;
    if (p->error != 0)
        return;
    if (p->builder.arena == NULL || p->open_ready) { /* the latter: the header was an empty-element tag */
        p->close_ready = true;
        XML_StopParser(p->expat, XML_FALSE);
        return;
    }
    if (xml_builder_close(&p->builder)) {
        p->element_ready = true;
        p->base = token_end(p);
        suspend(p);
    }
    tag_ended(p);
}

static bool all_space(const char *data, size_t len)
{
    size_t i = 0;
    while (i < len && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r'))
        i++;
    return i == len;
}

static void on_text(void *ctx, const XML_Char *data, int len)
{
    struct xy_xml_parser *p = ctx;
    if (p->error != 0)
        return;
    int error = 0;
    if (p->builder.arena != NULL)
        error = xml_builder_text(&p->builder, data, (size_t)len);
    else if (!all_space(data, (size_t)len))
        error = XY_XML_TEXT_AT_TOP;
    else
        p->base = token_end(p); /* keepalives do not count against the next stanza */
    if (error != 0)
        fail(p, error);
}

static void on_declaration(void *ctx, const XML_Char *version, const XML_Char *encoding, int standalone)
{
    (void)version;
    (void)standalone;
    if (encoding != NULL && strcasecmp(encoding, "UTF-8") != 0)
        fail(ctx, XY_XML_UNSUPPORTED_ENCODING);
}

static void on_doctype(void *ctx, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
                       int internal)
{
    (void)name;
    (void)sysid;
    (void)pubid;
    (void)internal;
    fail(ctx, XY_XML_RESTRICTED);
}

static void on_instruction(void *ctx, const XML_Char *target, const XML_Char *data)
{
    (void)target;
    (void)data;
    fail(ctx, XY_XML_RESTRICTED);
}

static void on_comment(void *ctx, const XML_Char *data)
{
    (void)data;
    fail(ctx, XY_XML_RESTRICTED);
}

/* --- the life of an expat parser
 * --------------------------------------------------------------------------------- */

static void create_expat(struct xy_xml_parser *p)
{
    static const XML_Char separator[] = { XML_NAME_SEPARATOR, '\0' };
    xml_memory_take(&p->memory);
    struct xml_memory *before = xml_memory_enter(&p->memory);
    p->expat = XML_ParserCreate_MM("UTF-8", xml_memory_suite(&p->memory), separator);
    xml_memory_leave(before);
}

static enum XML_Status parse(struct xy_xml_parser *p, const char *data, size_t len)
{
    struct xml_memory *before = xml_memory_enter(&p->memory);
    enum XML_Status status = XML_Parse(p->expat, data, (int)len, 0);
    xml_memory_leave(before);
    return status;
}

static enum XML_Status resume(struct xy_xml_parser *p)
{
    struct xml_memory *before = xml_memory_enter(&p->memory);
    enum XML_Status status = XML_ResumeParser(p->expat);
    xml_memory_leave(before);
    return status;
}

static void free_expat(struct xy_xml_parser *p)
{
    struct xml_memory *before = xml_memory_enter(&p->memory);
    if (p->expat != NULL)
        XML_ParserFree(p->expat);
    xml_memory_leave(before);
    xml_memory_give(&p->memory);
    p->expat = NULL;
    p->suspended = false;
    p->fed = p->past = p->tag_end = p->base = p->start = p->rescanned = p->piece_max = 0;
    p->split = false;
}

/* A new expat parser: at the start of a document, or behind the header of the stream that goes on. */
static bool make_expat(struct xy_xml_parser *p)
{
    xy_assert(p->expat == NULL && p->builder.arena == NULL);
    create_expat(p);
    if (p->expat == NULL)
        return false;
    if (p->in_stream) {
        xy_assert(p->header.len > 0);
        if (parse(p, p->header.data, p->header.len) != XML_STATUS_OK)
            return false;
        p->fed = p->base = p->header.len;
    }
    XML_SetUserData(p->expat, p);
    XML_SetElementHandler(p->expat, on_start, on_end);
    XML_SetCharacterDataHandler(p->expat, on_text);
    XML_SetStartNamespaceDeclHandler(p->expat, on_namespace);
    XML_SetXmlDeclHandler(p->expat, on_declaration);
    XML_SetStartDoctypeDeclHandler(p->expat, on_doctype);
    XML_SetProcessingInstructionHandler(p->expat, on_instruction);
    XML_SetCommentHandler(p->expat, on_comment);
    return true;
}

struct xy_xml_parser *xy_xml_new(const struct xy_xml_options *options)
{
    struct xy_xml_parser *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->options = *options;
    p->memory.spans = options->spans;
    if (p->options.stanza_bytes_max == 0)
        p->options.stanza_bytes_max = XY_STANZA_BYTES_DEFAULT;
    if (p->options.depth_max == 0)
        p->options.depth_max = XY_XML_DEPTH_MAX;
    return p;
}

static void forget_stream(struct xy_xml_parser *p)
{
    free_expat(p);
    drop_tree(p);
    xy_buf_free(&p->header);
    free(p->header_ns);
    p->header_ns = NULL;
    p->default_ns = XY_STR_NONE;
    p->in_stream = p->open_ready = p->element_ready = p->close_ready = p->closed = false;
    p->error = 0;
    p->declarations = 0;
}

void xy_xml_free(struct xy_xml_parser **parser)
{
    if (*parser == NULL)
        return;
    forget_stream(*parser);
    free(*parser);
    *parser = NULL;
}

void xy_xml_adopt(struct xy_xml_parser *p, struct xy_arena_pool *arenas)
{
    p->options.arenas = arenas;
}

void xy_xml_set_max(struct xy_xml_parser *p, size_t stanza_bytes_max)
{
    xy_assert(stanza_bytes_max > 0);
    p->options.stanza_bytes_max = stanza_bytes_max;
}

struct xy_str xy_xml_default_ns(const struct xy_xml_parser *p)
{
    return p->in_stream ? p->default_ns : XY_STR_NONE;
}

/* Takes back from expat what was fed behind the last event. Only while suspended: that event, and so the
 * rest, then is part of the input that the caller still holds. */
static void take_back_rest(struct xy_xml_parser *p)
{
    if (!p->suspended)
        return;
    xy_assert(p->base <= p->fed);
    p->input -= p->fed - p->base;
    p->input_len += p->fed - p->base;
}

void xy_xml_restart(struct xy_xml_parser *p, bool keep_rest)
{
    if (keep_rest) {
        take_back_rest(p);
    } else {
        p->input = NULL;
        p->input_len = 0;
    }
    forget_stream(p);
}

static bool between_elements(const struct xy_xml_parser *p)
{
    return p->in_stream && p->builder.arena == NULL && p->error == 0 && !p->closed && !p->close_ready &&
           p->header.len > 0;
}

void xy_xml_sleep(struct xy_xml_parser *p)
{
    if (p->expat != NULL && p->input_len == 0 && p->fed == p->base && between_elements(p))
        free_expat(p);
}

size_t xy_xml_memory(const struct xy_xml_parser *p)
{
    size_t bytes = sizeof(*p) + p->header.cap + (p->header_ns != NULL ? p->default_ns.len + 1 : 0);
    if (p->expat != NULL)
        bytes += EXPAT_BYTES_ABOUT + 2 * p->piece_max;
    if (p->builder.arena != NULL)
        bytes += XY_ARENA_CHUNK_FIRST + xy_arena_used(p->builder.arena);
    return bytes;
}

/* --- feeding
 * ------------------------------------------------------------------------------------------------------ */

void xy_xml_feed(struct xy_xml_parser *p, const void *data, size_t len)
{
    xy_assert((p->input_len == 0 && !p->suspended) || p->error != 0 || p->closed);
    p->input = data;
    p->input_len = len;
}

void xy_xml_moved(struct xy_xml_parser *p, const char *from, const char *to)
{
    if (p->input != NULL)
        p->input = to + (p->input - from);
}

static void skip_space(struct xy_xml_parser *p)
{
    while (p->input_len > 0 && all_space(p->input, 1)) {
        p->input++;
        p->input_len--;
    }
}

/* Expat reports a token when it is complete and looks at an unfinished one again with each piece, which is
 * quadratic. It can put that off until the token has doubled, but then also does not see that a tag is
 * complete. So: put off only while a long tag is unfinished and the piece cannot end it. */
static bool may_put_off(const struct xy_xml_parser *p, size_t piece)
{
    return p->fed - p->base > RESCAN_FREE_BYTES && memchr(p->input, '>', piece) == NULL;
}

static void count_rescan(struct xy_xml_parser *p)
{
    XML_Index parsed = XML_GetCurrentByteIndex(p->expat);
    if (parsed >= 0 && p->past + (size_t)parsed < p->fed)
        p->rescanned += p->fed - p->past - (size_t)parsed;
    if (p->rescanned > XY_XML_RESCAN_MAX)
        p->error = XY_XML_TOO_BIG;
}

/* UTF-16 and UTF-32, by their byte order marks or by a zero in the first two bytes: expat would recognise and accept them
 * in spite of the encoding it was told. */
static bool wide_encoding(const struct xy_xml_parser *p)
{
    if (p->in_stream || p->fed >= 2)
        return false;
    const char *first = p->input, *second = p->fed == 0 && p->input_len > 1 ? p->input + 1 : p->input;
    return *first == '\0' || *second == '\0' || (p->fed == 0 && (*first == '\xfe' || *first == '\xff'));
}

/* As much of the input as may be fed at once: the limit of the element and of one call. */
static struct xy_str next_piece(const struct xy_xml_parser *p)
{
    size_t piece = p->options.stanza_bytes_max - (p->fed - p->base);
    if (piece > p->input_len)
        piece = p->input_len;
    return xy_str_n(p->input, piece < XY_XML_FEED_MAX ? piece : XY_XML_FEED_MAX);
}

static void fed(struct xy_xml_parser *p, size_t len)
{
    p->input += len;
    p->input_len -= len;
    p->fed += len;
}

static bool is_full(const struct xy_xml_parser *p)
{
    return p->fed - p->base >= p->options.stanza_bytes_max;
}

/* Plain text within an element, at a place where expat waits for nothing but the next token. */
static bool take_text(struct xy_xml_parser *p)
{
    if (p->builder.arena == NULL || p->fed != p->tag_end || is_full(p))
        return false;
    struct xy_str text = next_piece(p);
    text.len = xml_text_plain(text);
    if (text.len < XML_TEXT_MIN)
        return false;
    p->error = xml_builder_text(&p->builder, text.data, text.len);
    fed(p, text.len);
    p->past += text.len;
    p->tag_end = p->fed;
    return true;
}

/* Once in front of a text that stands in an attribute or a CDATA section, the rest goes without looking for more: expat
 * would have to look at an unfinished tag again each time. */
static struct xy_str split_piece(struct xy_xml_parser *p, struct xy_str piece)
{
    if (p->split)
        return piece;
    size_t len = xml_text_before(piece);
    p->split = len < piece.len;
    return xy_str_n(piece.data, len);
}

static enum XML_Status feed_piece(struct xy_xml_parser *p)
{
    if (wide_encoding(p)) {
        p->error = XY_XML_UNSUPPORTED_ENCODING;
        return XML_STATUS_ERROR;
    }
    if (is_full(p)) {
        p->error = XY_XML_TOO_BIG;
        return XML_STATUS_ERROR;
    }
    struct xy_str piece = split_piece(p, next_piece(p));
    bool put_off = may_put_off(p, piece.len);
    XML_SetReparseDeferralEnabled(p->expat, put_off ? XML_TRUE : XML_FALSE);
    fed(p, piece.len);
    if (piece.len > p->piece_max)
        p->piece_max = piece.len;
    enum XML_Status status = parse(p, piece.data, piece.len);
    if (status == XML_STATUS_OK && !put_off)
        count_rescan(p);
    return status;
}

/* Input for a document not begun, or a parser asleep: white space changes nothing, anything else needs expat.
 */
static bool wake(struct xy_xml_parser *p)
{
    skip_space(p);
    if (p->input_len == 0)
        return false;
    if (!make_expat(p))
        p->error = XY_XML_NO_MEMORY;
    return p->error == 0;
}

static void give_tree(struct xy_xml_parser *p, struct xy_xml_event *event, enum xy_xml_event_kind kind)
{
    *event = (struct xy_xml_event){
        .kind = kind, .elem = p->builder.top, .arena = p->builder.arena, .bytes = p->base - p->start
    };
    p->builder.arena = NULL;
    p->rescanned = 0;
    if (kind == XY_XML_ELEMENT && p->base > XY_XML_RECYCLE_BYTES && p->header.len > 0) {
        take_back_rest(p);
        free_expat(p);
    }
}

/* What is ready, in the order in which it came. */
static bool deliver(struct xy_xml_parser *p, struct xy_xml_event *event)
{
    if (p->open_ready) {
        p->open_ready = false;
        give_tree(p, event, XY_XML_OPEN);
    } else if (p->element_ready) {
        p->element_ready = false;
        give_tree(p, event, XY_XML_ELEMENT);
    } else if (p->close_ready) {
        p->close_ready = false;
        p->closed = true;
        *event = (struct xy_xml_event){ .kind = XY_XML_CLOSE };
    } else if (p->error != 0) {
        drop_tree(p);
        *event = (struct xy_xml_event){ .kind = XY_XML_ERROR, .error = (enum xy_xml_error)p->error };
    } else {
        return false;
    }
    return true;
}

void xy_xml_next(struct xy_xml_parser *p, struct xy_xml_event *event)
{
    while (!deliver(p, event)) {
        *event = (struct xy_xml_event){ .kind = XY_XML_MORE };
        if (p->closed) {
            p->input_len = 0;
            p->suspended = false;
        }
        if (!p->suspended && p->input_len == 0)
            return;
        if (p->expat == NULL && !wake(p))
            continue;
        if (!p->suspended && take_text(p))
            continue;
        enum XML_Status status;
        if (p->suspended) {
            p->suspended = false;
            status = resume(p);
        } else {
            status = feed_piece(p);
        }
        if (status == XML_STATUS_ERROR && p->error == 0 && !p->close_ready && !p->open_ready)
            p->error = map_error(XML_GetErrorCode(p->expat));
    }
}
