/* Packing and parsing of record envelopes; see record.h for their layout. Packing writes straight into the shard's open
 * batch, so a record is serialised once and never copied on its way to the log. */
#include "broker/store/record.h"

#include "broker/store/apply.h"
#include "broker/store/bigendian.h"
#include "broker/store/limits.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

enum { AT_VERSION = 4, AT_TYPE = 5, AT_CRC = 8 };

static uint32_t checksum(const char *header, struct xy_str payload)
{
    return xy_crc32c(xy_crc32c(0, header, AT_CRC), payload.data, payload.len);
}

bool record_pack(struct xy_buf *out, enum store_record type, const ProtobufCMessage *message,
                 struct xy_str *payload)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    if (len > STORE_RECORD_BYTES_MAX)
        return false;
    char *header = xy_buf_reserve(out, RECORD_HEADER_BYTES + len);
    if (header == NULL)
        return false;
    size_t packed = protobuf_c_message_pack(message, (uint8_t *)header + RECORD_HEADER_BYTES);
    xy_assert(packed == len);
    *payload = xy_str_n(header + RECORD_HEADER_BYTES, len);
    be32_put(header, (uint32_t)len);
    header[AT_VERSION] = (char)STORE_RECORD_VERSION;
    header[AT_TYPE] = (char)type;
    header[AT_TYPE + 1] = header[AT_TYPE + 2] = 0;
    be32_put(header + AT_CRC, checksum(header, *payload));
    out->len += RECORD_HEADER_BYTES + len;
    return true;
}

enum record_status record_parse(struct xy_str *rest, struct record_view *out)
{
    if (rest->len < RECORD_HEADER_BYTES)
        return RECORD_SHORT;
    const char *header = rest->data;
    size_t len = be32_get(header);
    if (len > rest->len - RECORD_HEADER_BYTES)
        return RECORD_SHORT;
    struct xy_str payload = xy_str_n(header + RECORD_HEADER_BYTES, len);
    if (be32_get(header + AT_CRC) != checksum(header, payload))
        return RECORD_DAMAGED;
    if ((unsigned char)header[AT_VERSION] != STORE_RECORD_VERSION)
        return RECORD_VERSION_UNKNOWN;
    out->type = (unsigned char)header[AT_TYPE];
    if (apply_descriptor(out->type) == NULL)
        return RECORD_TYPE_UNKNOWN;
    out->payload = payload;
    rest->data += RECORD_HEADER_BYTES + len;
    rest->len -= RECORD_HEADER_BYTES + len;
    return RECORD_OK;
}

const char *record_status_text(enum record_status status)
{
    static const char *const text[] = {
        [RECORD_OK] = "intact",
        [RECORD_SHORT] = "it ends before its stated length",
        [RECORD_VERSION_UNKNOWN] = "it was written by a newer version",
        [RECORD_TYPE_UNKNOWN] = "this program does not know records of its type, a newer one wrote it",
        [RECORD_DAMAGED] = "its checksum does not match: the disk or memory damaged it",
    };
    return text[status];
}

struct budget {
    struct xy_arena *arena;
    size_t left;
};

static void *budget_alloc(void *ctx, size_t size)
{
    struct budget *budget = ctx;
    if (size > budget->left)
        return NULL;
    budget->left -= size;
    return xy_arena_alloc(budget->arena, size);
}

static void budget_free(void *ctx, void *pointer)
{
    (void)ctx, (void)pointer; /* the arena is returned as a whole */
}

ProtobufCMessage *record_unpack(const ProtobufCMessageDescriptor *descriptor, struct xy_str payload,
                                struct xy_arena *arena)
{
    struct budget budget = { .arena = arena, .left = STORE_UNPACK_BASE + payload.len * STORE_UNPACK_FACTOR };
    ProtobufCAllocator allocator = { .alloc = budget_alloc, .free = budget_free, .allocator_data = &budget };
    return protobuf_c_message_unpack(descriptor, &allocator, payload.len, (const uint8_t *)payload.data);
}
