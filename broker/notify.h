/* Tells the service manager how the broker is doing (sd_notify protocol: a datagram to $NOTIFY_SOCKET). */
#pragma once

void notify(
    const char *state); /* "READY=1", "STOPPING=1", "RELOADING=1"; nothing happens without a manager */
