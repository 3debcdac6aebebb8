/* Any bytes to a stream, as its first input, as a client's behind a login, and as a server's. Whole and in pieces they
 * must make the same events; every event keeps its promises; nothing comes after the end. The first byte chooses. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/stream/stream.h"

#define HEADER                                                                                               \
    "<stream:stream to='example.org' version='1.0' xmlns='jabber:client' "                                   \
    "xmlns:stream='http://etherx.jabber.org/streams'>"
#define LOGIN HEADER "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHUAcA==</auth>" HEADER
#define BOUND LOGIN "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"

static void same_bytes(void *ctx, void *out, size_t len)
{
    (void)ctx;
    memset(out, 7, len);
}

static const struct xy_env env = { .random = same_bytes };
static const struct xy_stream_options options = { .env = &env,
                                                  .sasl_secret = { "sixteen bytes or more", 21 } };

/* What a run did, in numbers that two runs can be compared by. */
struct trace {
    unsigned counts[XY_STREAM_EVENT_FAILED + 1];
    uint64_t bytes;
};

static void answer(struct xy_stream *stream, const struct xy_stream_event *e)
{
    struct xy_stream_offer offer = { .domain = XY_STR("example.org"),
                                     .mechanisms = XY_SASL_PLAIN,
                                     .sm = true };
    offer.mechanisms |= XY_SASL_SCRAM_SHA_1 | XY_SASL_EXTERNAL;
    offer.starttls = true;
    switch (e->kind) {
    case XY_STREAM_EVENT_OPENED:
        xy_stream_accept(stream, &offer);
        break;
    case XY_STREAM_EVENT_SASL_KEYS:
        xy_stream_sasl_keys(stream, NULL);
        break;
    case XY_STREAM_EVENT_SASL_PASSWORD:
        xy_assert(xy_jid_present(e->jid) && xy_jid_is_bare(e->jid));
        xy_stream_sasl_verdict(stream, XY_SASL_NO_FAILURE);
        break;
    case XY_STREAM_EVENT_SASL_EXTERNAL:
        if (e->authzid.len % 2 == 0)
            xy_stream_sasl_external(stream,
                                    xy_jid_canonical(e->authzid.len ? XY_STR("u@example.org") : XY_STR_NONE));
        else
            xy_stream_sasl_verdict(stream, XY_SASL_INVALID_AUTHZID);
        break;
    case XY_STREAM_EVENT_BIND:
        xy_stream_bound(stream, xy_jid_canonical(XY_STR("u@example.org/r")));
        break;
    case XY_STREAM_EVENT_SM_ENABLE:
        xy_stream_sm_enabled(stream, XY_STR("id"), e->max_seconds, XY_STR_NONE);
        break;
    case XY_STREAM_EVENT_SM_RESUME:
        xy_stream_sm_failed(stream, XY_ITEM_NOT_FOUND, &e->h);
        break;
    case XY_STREAM_EVENT_STARTTLS:
        xy_stream_tls_started(stream, NULL, 0);
        break;
    default:
        break;
    }
}

static void run_events(struct xy_stream *stream, struct trace *trace)
{
    struct xy_stream_event event;
    while (xy_stream_next(stream, &event)) {
        xy_assert(event.kind >= XY_STREAM_EVENT_OPENED && event.kind <= XY_STREAM_EVENT_FAILED);
        xy_assert(trace->counts[XY_STREAM_EVENT_FAILED] == 0);
        trace->counts[event.kind]++;
        trace->bytes += event.stanza.bytes;
        if (event.kind == XY_STREAM_EVENT_STANZA) {
            xy_assert(event.verdict != XY_STANZA_UNKNOWN && event.stanza.arena != NULL);
            xy_arena_free(&event.stanza.arena);
        }
        xy_assert(event.kind != XY_STREAM_EVENT_FAILED || xy_stream_is_over(stream));
        answer(stream, &event);
    }
}

static struct xy_stream *make(uint8_t choice)
{
    struct xy_stream_client_options client = { .jid = xy_jid_canonical(XY_STR("u@example.org")) };
    client.password = XY_STR("p");
    client.tls = choice & 4 ? XY_STREAM_TLS_PREFERRED : XY_STREAM_TLS_NONE;
    client.plain_without_tls = client.sm = client.sm_resume = true;
    if (choice & 8)
        client.previd = XY_STR("old");
    bool is_server = (choice & 3) != 3;
    struct xy_stream *stream =
        is_server ? xy_stream_server_new(&options) : xy_stream_client_new(&options, &client);
    if (stream == NULL)
        abort();
    if (!is_server)
        xy_stream_client_open(stream);
    return stream;
}

static struct trace run(uint8_t choice, const uint8_t *data, size_t size, size_t piece)
{
    static const char *const befores[] = { "", HEADER, BOUND, "" };
    struct trace trace = { 0 };
    struct xy_stream *stream = make(choice);
    const char *before = befores[choice & 3];
    xy_stream_feed(stream, before, strlen(before));
    run_events(stream, &trace);
    for (size_t i = 0; i < size; i += piece) {
        xy_stream_feed(stream, data + i, size - i < piece ? size - i : piece);
        run_events(stream, &trace);
        xy_stream_sleep(stream);
        xy_stream_sent(stream, xy_stream_output(stream).len / 2);
    }
    xy_assert(!xy_stream_is_over(stream) || !xy_stream_wants_input(stream));
    xy_stream_free(&stream);
    return trace;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct trace whole = run(data[0], data + 1, size - 1, size);
    struct trace pieces = run(data[0], data + 1, size - 1, 1 + data[0] / 16);
    /* what comes in clear behind STARTTLS is dropped, and how much that is depends on the pieces */
    if (whole.counts[XY_STREAM_EVENT_STARTTLS] == 0 && pieces.counts[XY_STREAM_EVENT_STARTTLS] == 0)
        xy_assert(whole.counts[XY_STREAM_EVENT_STANZA] == pieces.counts[XY_STREAM_EVENT_STANZA] &&
                  whole.bytes == pieces.bytes);
    return 0;
}
