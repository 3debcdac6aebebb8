/* The one function a fuzz target defines: called by libFuzzer, or by replay.c with the files of a corpus. */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
