/* Every fixed bound of core, by name. What an operator may change comes from the broker's configuration instead. */
#pragma once

#define XY_JID_PART_MAX                 1023 /* bytes of a localpart, domainpart or resourcepart, RFC 7622 3 */
#define XY_JID_MAX                      (3 * XY_JID_PART_MAX + 2)
#define XY_ARENA_ALLOCATION_MAX         (64u << 20)
#define XY_ARENA_CHUNK_FIRST            4000u        /* bytes of a new arena, itself included */
#define XY_ARENA_CHUNK_MAX              (256u << 10) /* chunks double up to this, unless one allocation needs more */
#define XY_ARENA_KEEP_MAX               (32u << 10)  /* chunks that a reset arena keeps */
#define XY_BUF_FIRST                    256u         /* bytes of a buffer's first allocation */
#define XY_XML_DEPTH_MAX                64           /* nesting below the stream element */
#define XY_XML_ATTRIBUTES_MAX           64           /* per element */
#define XY_XML_NAMESPACES_MAX           16           /* declarations per element */
#define XY_XML_NAME_MAX                 256          /* bytes of a local name */
#define XY_XML_NAMESPACE_MAX            1024         /* bytes of a namespace name */
#define XY_XML_RECYCLE_BYTES            (512u << 10) /* read by one expat parser before it is replaced */
#define XY_XML_RESCAN_MAX               (8u << 20) /* bytes of unfinished tags looked at again, per element */
#define XY_XML_FEED_MAX                 (64u << 10) /* bytes given to the parser in one call */
#define XY_STANZA_BYTES_DEFAULT         (256u << 10)
#define XY_STANZA_BYTES_UNAUTHENTICATED (16u << 10)
#define XY_STANZA_BYTES_MIN             10000u /* RFC 6120 13.12: never advertise less */
#define XY_IBB_BLOCK_MAX                65535u /* XEP-0047: block-size is an unsignedShort */
