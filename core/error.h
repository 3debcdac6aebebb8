/* Stanza errors (RFC 6120 8.3) and stream errors (4.9): conditions by name, and the elements that carry them. */
#pragma once

#include "core/stanza.h"

enum xy_error_type { XY_ERROR_CANCEL, XY_ERROR_WAIT, XY_ERROR_MODIFY, XY_ERROR_AUTH, XY_ERROR_CONTINUE };

enum xy_condition {
    XY_NO_ERROR = 0,
    XY_BAD_REQUEST,
    XY_CONFLICT,
    XY_FEATURE_NOT_IMPLEMENTED,
    XY_FORBIDDEN,
    XY_GONE,
    XY_INTERNAL_SERVER_ERROR,
    XY_ITEM_NOT_FOUND,
    XY_JID_MALFORMED,
    XY_NOT_ACCEPTABLE,
    XY_NOT_ALLOWED,
    XY_NOT_AUTHORIZED,
    XY_POLICY_VIOLATION,
    XY_RECIPIENT_UNAVAILABLE,
    XY_REDIRECT,
    XY_REGISTRATION_REQUIRED,
    XY_REMOTE_SERVER_NOT_FOUND,
    XY_REMOTE_SERVER_TIMEOUT,
    XY_RESOURCE_CONSTRAINT,
    XY_SERVICE_UNAVAILABLE,
    XY_SUBSCRIPTION_REQUIRED,
    XY_UNDEFINED_CONDITION,
    XY_UNEXPECTED_REQUEST,
    XY_CONDITION_COUNT
};

/* What a handler says when it refuses. Zero-initialised: no error. Strings are literals or live in the stanza's arena. */
struct xy_error {
    enum xy_condition condition;
    enum xy_error_type type; /* chosen by xy_error_make unless set */
    const char *app;         /* application condition, e.g. "nodeid-required" */
    const char *app_ns;      /* its namespace */
    const char *app_feature; /* its feature='…' attribute (XEP-0060 <unsupported/>), or NULL */
    const char *text;        /* what to do about it, in plain words; NULL: none */
};

/* The error with the type that RFC 6120 8.3.3 recommends for the condition. */
struct xy_error xy_error_make(enum xy_condition condition, const char *text);
const char *xy_condition_name(enum xy_condition condition);
enum xy_condition xy_condition_find(struct xy_str name);

/* The error reply to `request`: addressed back, same id; never made for errors and results (returns NULL then), and the
 * offending payload is not echoed. */
struct xy_elem *xy_error_reply(struct xy_arena *arena, const struct xy_stanza *request,
                               const struct xy_error *error);

/* Reads the <error/> of a stanza of type error: condition (XY_UNDEFINED_CONDITION if unknown), type, text, app. */
struct xy_error xy_error_read(const struct xy_stanza *stanza);

/* Stream errors, RFC 6120 4.9.3. */
enum xy_stream_error {
    XY_STREAM_NO_ERROR = 0,
    XY_STREAM_BAD_FORMAT,
    XY_STREAM_BAD_NAMESPACE_PREFIX,
    XY_STREAM_CONFLICT,
    XY_STREAM_CONNECTION_TIMEOUT,
    XY_STREAM_HOST_GONE,
    XY_STREAM_HOST_UNKNOWN,
    XY_STREAM_IMPROPER_ADDRESSING,
    XY_STREAM_INTERNAL_SERVER_ERROR,
    XY_STREAM_INVALID_FROM,
    XY_STREAM_INVALID_NAMESPACE,
    XY_STREAM_INVALID_XML,
    XY_STREAM_NOT_AUTHORIZED,
    XY_STREAM_NOT_WELL_FORMED,
    XY_STREAM_POLICY_VIOLATION,
    XY_STREAM_REMOTE_CONNECTION_FAILED,
    XY_STREAM_RESET,
    XY_STREAM_RESOURCE_CONSTRAINT,
    XY_STREAM_RESTRICTED_XML,
    XY_STREAM_SEE_OTHER_HOST,
    XY_STREAM_SYSTEM_SHUTDOWN,
    XY_STREAM_UNDEFINED_CONDITION,
    XY_STREAM_UNSUPPORTED_ENCODING,
    XY_STREAM_UNSUPPORTED_FEATURE,
    XY_STREAM_UNSUPPORTED_STANZA_TYPE,
    XY_STREAM_UNSUPPORTED_VERSION,
    XY_STREAM_ERROR_COUNT
};
const char *xy_stream_error_name(enum xy_stream_error error);
enum xy_stream_error xy_stream_error_find(struct xy_str name);
