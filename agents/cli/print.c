/* How `xylem sub` shows an item: as text for people, as one JSON object per line for programs. Payloads whose protobuf
 * type is known here are decoded by their descriptor, whatever the type; others are shown in base64. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agents/cli/cli.h"
#include "core/base/encoding.h"
#include "sdk/src/view.h"
#include "xylem/v1/host.pb-c.h"

#define MESSAGE_DEPTH_MAX 16 /* no schema of ours nests deeper; none contains itself */

static const ProtobufCMessageDescriptor *const known_types[] = { &xylem__v1__host_state__descriptor };

void cli_json_string(struct xy_buf *out, struct xy_str text)
{
    xy_buf_char(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c == '"' || c == '\\')
            xy_buf_printf(out, "\\%c", c);
        else if (c == '\n')
            xy_buf_lit(out, "\\n");
        else if (c < 0x20 || c == 0x7f)
            xy_buf_printf(out, "\\u%04x", c);
        else
            xy_buf_char(out, (char)c);
    }
    xy_buf_char(out, '"');
}

void cli_json_value(struct xy_buf *out, struct xy_str text)
{
    uint64_t number;
    bool padded = text.len > 1 && text.data[0] == '0';
    if (xy_str_u64(text, &number) && !padded)
        xy_buf_str(out, text);
    else
        cli_json_string(out, text);
}

static void write_message(struct xy_buf *out, const ProtobufCMessage *message, bool json, unsigned depth);

/* One value of a field; `at` points at it in the message's struct. */
static void write_value(struct xy_buf *out, const ProtobufCFieldDescriptor *field, const void *at, bool json,
                        unsigned depth)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_ENUM:
        xy_buf_printf(out, "%" PRId32, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        xy_buf_printf(out, "%" PRIu32, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        xy_buf_printf(out, "%" PRId64, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        xy_buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        xy_buf_str(out, xy_str(*(const protobuf_c_boolean *)at ? "true" : "false"));
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        xy_buf_printf(out, "%.9g", (double)*(const float *)at);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        xy_buf_printf(out, "%.17g", *(const double *)at);
        break;
    case PROTOBUF_C_TYPE_STRING:
        if (json)
            cli_json_string(out, xy_str(*(char *const *)at));
        else
            xy_buf_str(out, xy_str(*(char *const *)at));
        break;
    case PROTOBUF_C_TYPE_BYTES:
        xy_buf_char(out, '"');
        xy_base64_encode(out, xy_str_n((const char *)((const ProtobufCBinaryData *)at)->data,
                                       ((const ProtobufCBinaryData *)at)->len));
        xy_buf_char(out, '"');
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        write_message(out, *(ProtobufCMessage *const *)at, json, depth + 1);
        break;
    }
}

static size_t value_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static void write_field(struct xy_buf *out, const ProtobufCFieldDescriptor *field, const char *base,
                        bool json, unsigned depth)
{
    if (json)
        xy_buf_printf(out, "\"%s\":", field->name);
    else
        xy_buf_printf(out, "%s=", field->name);
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        write_value(out, field, base + field->offset, json, depth);
        return;
    }
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    const char *values = *(char *const *)(const void *)(base + field->offset);
    if (!json && field->type == PROTOBUF_C_TYPE_MESSAGE) { /* a line is for reading: --json has them all */
        xy_buf_printf(out, "[%zu]", count);
        return;
    }
    xy_buf_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            xy_buf_str(out, xy_str(json ? "," : " "));
        write_value(out, field, values + i * value_size(field), json, depth);
    }
    xy_buf_char(out, ']');
}

/* proto3: what is not said is zero, empty or absent; it is not printed either. */
static bool is_set(const ProtobufCFieldDescriptor *field, const char *base)
{
    const void *at = base + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)(const void *)(base + field->quantifier_offset) > 0;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)at != NULL;
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return *(char *const *)at && **(char *const *)at;
    if (field->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)at)->len > 0;
    return true;
}

static void write_message(struct xy_buf *out, const ProtobufCMessage *message, bool json, unsigned depth)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    bool first = true;
    if (json || depth > 0)
        xy_buf_char(out, '{');
    for (unsigned i = 0; i < type->n_fields && depth < MESSAGE_DEPTH_MAX; i++) {
        if (!is_set(&type->fields[i], (const char *)message))
            continue;
        if (!first)
            xy_buf_str(out, xy_str(json ? "," : " "));
        first = false;
        write_field(out, &type->fields[i], (const char *)message, json, depth);
    }
    if (json || depth > 0)
        xy_buf_char(out, '}');
}

/* false: no type of ours, or not what it says. */
static bool write_typed(struct xy_buf *out, const struct xylem_msg_view *view, bool json)
{
    for (size_t i = 0; i < sizeof known_types / sizeof known_types[0]; i++) {
        if (!view->type || strcmp(known_types[i]->name, view->type) != 0)
            continue;
        ProtobufCMessage *message = protobuf_c_message_unpack(known_types[i], NULL, view->len, view->data);
        if (!message)
            return false;
        write_message(out, message, json, 0);
        protobuf_c_message_free_unpacked(message, NULL);
        return true;
    }
    return false;
}

static const char *const event_names[] = { "item", "retract", "purge", "delete", "unlock", "gap" };

static bool header_at(const struct cli_print *how, size_t index, struct xylem_header *out)
{
    if (how->msg)
        return xylem_msg_header_at(how->msg, index, out);
    return how->item && xy_view_header(how->arena, how->item, &index, out);
}

static void write_headers(struct xy_buf *out, const struct cli_print *how)
{
    struct xylem_header header;
    size_t i = 0;
    for (; header_at(how, i, &header); i++) {
        xy_buf_str(out, xy_str(i ? "," : ",\"headers\":{"));
        cli_json_string(out, xy_str(header.name));
        xy_buf_char(out, ':');
        cli_json_string(out, xy_str(header.value));
    }
    if (i > 0)
        xy_buf_char(out, '}');
}

static void write_json(struct xy_buf *out, const struct xylem_msg_view *view, const struct cli_print *how)
{
    struct xy_str data = xy_str_n(view->data, view->len);
    xy_buf_char(out, '{');
    if (how->ref)
        xy_buf_printf(out, "\"ref\":%" PRIu64 ",", how->ref);
    xy_buf_lit(out, "\"node\":");
    cli_json_string(out, xy_str(view->node));
    if (view->event != XYLEM_EVENT_ITEM)
        xy_buf_printf(out, ",\"event\":\"%s\"", event_names[view->event]);
    if (view->id) {
        xy_buf_lit(out, ",\"id\":");
        cli_json_string(out, xy_str(view->id));
    }
    if (view->seq) {
        xy_buf_printf(out, ",\"seq\":%" PRIu64 ",\"attempt\":%" PRIu32 ",\"epoch\":", view->seq,
                      view->attempt);
        cli_json_string(out, xy_str(view->epoch));
    }
    if (view->gap_first) {
        xy_buf_printf(out, ",\"first\":%" PRIu64 ",\"reason\":", view->gap_first);
        cli_json_string(out, xy_str(view->gap_reason));
    }
    if (view->delay_us)
        xy_buf_printf(out, ",\"delay_us\":%" PRIu64, view->delay_us);
    write_headers(out, how);
    if (view->event == XYLEM_EVENT_ITEM) {
        xy_buf_lit(out, ",\"type\":");
        cli_json_string(out, xy_str(view->type ? view->type : "xml"));
        xy_buf_lit(out, ",\"data\":");
        bool text = view->payload != XYLEM_TYPED && xy_str_utf8(data);
        if (text) {
            cli_json_string(out, data);
        } else if (view->payload != XYLEM_TYPED || !write_typed(out, view, true)) {
            xy_buf_char(out, '"');
            xy_base64_encode(out, data);
            xy_buf_char(out, '"');
        }
    }
    xy_buf_lit(out, "}\n");
}

static void write_text(struct xy_buf *out, const struct xylem_msg_view *view, bool several)
{
    if (view->event == XYLEM_EVENT_GAP) {
        xy_buf_printf(out, "%s: gap %" PRIu64 "-%" PRIu64 " %s\n", view->node, view->gap_first, view->seq,
                      view->gap_reason);
        return;
    }
    if (view->event != XYLEM_EVENT_ITEM) {
        xy_buf_printf(out, "%s: %s%s%s\n", view->node, event_names[view->event], view->id ? " " : "",
                      view->id ? view->id : "");
        return;
    }
    if (several || view->payload == XYLEM_TYPED)
        xy_buf_printf(out, "%s: ", view->node);
    if (view->payload == XYLEM_TYPED && view->seq)
        xy_buf_printf(out, "#%" PRIu64 " ", view->seq);
    if (view->payload != XYLEM_TYPED) {
        xy_buf_add(out, view->data, view->len);
    } else if (!write_typed(out, view, false)) {
        xy_buf_printf(out, "%s ", view->type);
        xy_base64_encode(out, xy_str_n(view->data, view->len));
    }
    if (out->len == 0 || out->data[out->len - 1] != '\n')
        xy_buf_char(out, '\n');
}

void cli_print_message(const struct xylem_msg_view *view, const struct cli_print *how)
{
    struct xy_buf out = { 0 };
    if (how->json)
        write_json(&out, view, how);
    else
        write_text(&out, view, how->several);
    fwrite(out.data, 1, out.len, stdout);
    xy_buf_free(&out);
}
