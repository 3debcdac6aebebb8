/* The broker's TLS identity: the configured certificate, or one it makes for itself at first start. */
#pragma once

#include "broker/config.h"
#include "core/tls/tls.h"

/* One reference; NULL with prose in `error`. A self-signed certificate is kept in data_dir, which must exist. */
struct xy_tls_config *certificate_load(const struct config *config, const struct xy_env *env,
                                       struct xy_buf *error);
