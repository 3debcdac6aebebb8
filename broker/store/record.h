/* One durable change on disk: a protobuf message in an envelope of twelve bytes,
 *
 *     length of the message (4) | version (1) | type (1) | 0 (2) | CRC-32C of what stands before and after it (4)
 *
 * A log entry is any number of these, end to end. The store packs them when they are appended and recovery reads them
 * back; the CRC is ours because LMDB has none. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "broker/store/store.h"
#include "core/base/arena.h"
#include "core/base/buf.h"

#define RECORD_HEADER_BYTES 12u

/* Appends one record; *payload is the packed message inside the buffer, valid until the buffer grows. false: memory is
 * short or the message is above STORE_RECORD_BYTES_MAX, and nothing was appended. */
bool record_pack(struct xy_buf *out, enum store_record type, const ProtobufCMessage *message,
                 struct xy_str *payload);

struct record_view {
    unsigned type; /* enum store_record; one that apply_descriptor knows if RECORD_OK */
    struct xy_str payload;
};

enum record_status { RECORD_OK, RECORD_SHORT, RECORD_VERSION_UNKNOWN, RECORD_TYPE_UNKNOWN, RECORD_DAMAGED };

/* Takes the first record off *rest, which is not empty. On failure *rest is untouched. */
enum record_status record_parse(struct xy_str *rest, struct record_view *out);
const char *record_status_text(enum record_status status);

/* The message of a record, in `arena` and within a budget that follows from its size; NULL: malformed or too large. */
ProtobufCMessage *record_unpack(const ProtobufCMessageDescriptor *descriptor, struct xy_str payload,
                                struct xy_arena *arena);
