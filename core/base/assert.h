/* Invariants that stay checked in release builds.
 *
 * xy_assert is for what our own code guarantees; it is never reachable by a peer's input. Bad input is an error
 * value, not an assertion. */
#pragma once

_Noreturn void xy_assert_failed(const char *expression, const char *file, int line);

#define xy_assert(expression) ((expression) ? (void)0 : xy_assert_failed(#expression, __FILE__, __LINE__))
