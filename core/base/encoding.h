/* Base64 (RFC 4648, strict: canonical padding, no line breaks), hexadecimal and CRC32C. */
#pragma once

#include "core/base/arena.h"
#include "core/base/buf.h"

void xy_base64_encode(struct xy_buf *out, struct xy_str in);
/* false: not base64 (white space, bad padding, foreign characters); nothing is appended then. */
bool xy_base64_decode(struct xy_buf *out, struct xy_str in);
struct xy_str xy_base64_encode_arena(struct xy_arena *arena, struct xy_str in);
bool xy_base64_decode_arena(struct xy_arena *arena, struct xy_str in, struct xy_str *out);

void xy_hex_encode(char *out, const void *data, size_t len); /* 2 * len digits, no NUL */
bool xy_hex_decode(void *out, struct xy_str hex);            /* hex.len / 2 bytes */

/* CRC-32C (Castagnoli); hardware where the CPU has it. Start with 0, chain by passing the former result. */
uint32_t xy_crc32c(uint32_t crc, const void *data, size_t len);
uint32_t xy_crc32c_portable(uint32_t crc, const void *data, size_t len); /* the same without that hardware */
