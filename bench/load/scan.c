/* Cuts what comes into first-level elements and looks at each as far as a run needs it, without a parser: the server's XML
 * is taken to be well-formed, and only tags and quotes are looked at. */
#include "bench/load/scan.h"

#include <stdlib.h>
#include <string.h>

#include "bench/load/socket.h"

/* --- what an element says ----------------------------------------------------------------------------------------- */

/* Of the first tag; absent: it has none. `name` with blank and '='. */
static struct xy_str attribute(struct xy_str element, struct xy_str name)
{
    const char *end = memchr(element.data, '>', element.len);
    const char *at = memmem(element.data, (size_t)(end - element.data), name.data, name.len);
    if (at == NULL)
        return XY_STR_NONE;
    at += name.len;
    const char *close = memchr(at + 1, *at, (size_t)(end - at) - 1);
    return close == NULL ? XY_STR_NONE : xy_str_n(at + 1, (size_t)(close - at) - 1);
}

static bool is_error(struct xy_str element)
{
    return xy_str_is(attribute(element, XY_STR(" type=")), "error");
}

static void on_iq(struct client *client, struct xy_str element)
{
    struct xy_str id = attribute(element, XY_STR(" id="));
    uint64_t number;
    if (is_error(element))
        load_fail("refused: %.*s", XY_ARG(element));
    if (id.len < 2 || !xy_str_u64(xy_str_n(id.data + 1, id.len - 1), &number))
        return; /* something that the server asks */
    if (id.data[0] == 's')
        client->load->waiting--;
    else if (id.data[0] == 'p')
        client_answered(client, number);
}

/* The first element of that name within `element`, from its beginning on; absent: there is none. `name` with '<' and blank. */
static struct xy_str child(struct xy_str element, struct xy_str name)
{
    const char *at = memmem(element.data, element.len, name.data, name.len);
    return at == NULL ? XY_STR_NONE : xy_str_n(at, element.len - (size_t)(at - element.data));
}

static void acknowledge_item(struct client *client, struct xy_str event)
{
    struct xy_str delivery = child(event, XY_STR("<delivery ")), items = child(event, XY_STR("<items "));
    if (delivery.len > 0 && items.len > 0)
        client_acknowledge_item(client, attribute(items, XY_STR(" node=")),
                                attribute(delivery, XY_STR(" epoch=")), attribute(delivery, XY_STR(" seq=")));
}

/* What begins like a payload in a message: text that is the first of its element. */
static void on_message(struct client *client, struct xy_str element)
{
    const char *end = element.data + element.len, *at = element.data;
    if (is_error(element))
        load_fail("a message came back: %.*s", XY_ARG(element));
    while ((at = memmem(at, (size_t)(end - at), ">@", 2)) != NULL) {
        at++;
        client_delivered(client, xy_str_n(at, (size_t)(end - at)));
    }
    if (client->load->scenario->explicitly)
        acknowledge_item(client, element);
}

static void on_ack(struct client *client, struct xy_str element)
{
    uint32_t h = 0;
    if (!xy_str_u32(attribute(element, XY_STR(" h=")), &h) || h < client->covered || h > client->sent)
        load_fail("an impossible acknowledgement: %.*s", XY_ARG(element));
    client->load->figures.covered += h - client->covered;
    client->covered = h;
}

static void on_stanza(struct client *client, struct xy_str element,
                      void (*look)(struct client *, struct xy_str))
{
    client->h++;
    if (look != NULL)
        look(client, element);
    if (client->h - client->h_told >= LOAD_ACK_EVERY)
        client_acknowledge(client);
}

static void on_element(struct client *client, struct xy_str element)
{
    if (xy_str_starts(element, XY_STR("<message")))
        on_stanza(client, element, on_message);
    else if (xy_str_starts(element, XY_STR("<iq")))
        on_stanza(client, element, on_iq);
    else if (xy_str_starts(element, XY_STR("<presence")))
        on_stanza(client, element, NULL);
    else if (xy_str_starts(element, XY_STR("<r ")))
        client_acknowledge(client);
    else if (xy_str_starts(element, XY_STR("<a ")))
        on_ack(client, element);
    else
        load_fail("u%u got %.*s", client->number, XY_ARG(element));
}

/* --- where an element ends ---------------------------------------------------------------------------------------- */

/* Behind the tag that begins at `at`; NULL: it is not all there. */
static const char *tag_end(const char *at, const char *end)
{
    for (at++; at < end && *at != '>'; at++) {
        if (*at != '\'' && *at != '"')
            continue;
        at = memchr(at + 1, *at, (size_t)(end - at) - 1);
        if (at == NULL)
            return NULL;
    }
    return at < end ? at + 1 : NULL;
}

/* The length of the first element of client->in; 0: it is not all there, and looking goes on where it ended. */
static size_t element_len(struct client *client, const char *begin, const char *end)
{
    for (;;) {
        const char *tag = begin + client->scanned;
        tag = memchr(tag, '<', (size_t)(end - tag));
        if (tag == NULL) {
            client->scanned = (size_t)(end - begin);
            return 0;
        }
        const char *next = tag_end(tag, end);
        if (next == NULL) {
            client->scanned = (size_t)(tag - begin);
            return 0;
        }
        client->scanned = (size_t)(next - begin);
        if (tag[1] == '/')
            client->depth--;
        else if (next[-2] != '/')
            client->depth++;
        if (client->depth == 0 || client->depth > (1u << 20)) /* the end of an element, or of the stream */
            return client->scanned;
    }
}

void client_scan(struct client *client)
{
    const char *at = client->in.data, *end = at + client->in.len;
    size_t len;
    while ((len = element_len(client, at, end)) > 0) {
        bool stream_ends = client->depth != 0;
        client->scanned = client->depth = 0;
        if (!stream_ends)
            on_element(client, xy_str_n(at, len));
        else if (client->ready)
            load_fail("the server ended the stream of u%u", client->number);
        at += len;
    }
    xy_buf_consume(&client->in, (size_t)(at - client->in.data));
}
