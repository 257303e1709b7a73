/*
 * As much of Node's C interface as the shim's functions for JavaScript need, without Node: the harness is JavaScript, and may
 * call them with anything. Arrays have exactly the length that was said, so that a byte too far is seen.
 */
#ifndef FUZZ_NAPI_H
#define FUZZ_NAPI_H

#include <node_api.h>
#include <stdbool.h>

#include "support.h"

enum { FUZZ_ARGUMENTS = 12, FUZZ_FUNCTIONS = 32 };

/* What was exported, in that order. */
extern struct fuzz_function {
  const char *name;
  napi_callback call;
} fuzz_functions[FUZZ_FUNCTIONS];
extern int fuzz_function_count;
napi_value fuzz_exports(void);

/* ---- arguments; all are gone after fuzz_end ---- */
void fuzz_begin(void);
void fuzz_end(void);
napi_value fuzz_number(double value);
napi_value fuzz_text(const uint8_t *bytes, size_t length);
/* `bytes` stays the caller's. */
napi_value fuzz_array(napi_typedarray_type type, void *bytes, size_t count);
/* Something of any kind, perhaps `handle`, out of the input. */
napi_value fuzz_anything(struct input *input, napi_value handle);

/* ---- a call ---- */
struct fuzz_result {
  bool threw;
  double number;
  napi_value external; /* NULL for anything else */
};
struct fuzz_result fuzz_call(const char *name, int count, const napi_value *arguments);
struct fuzz_result fuzz_call_at(int function, int count, const napi_value *arguments);
/* What the last promise was resolved with. */
double fuzz_resolved(void);
/* What the environment calls when it ends, as far as it was not taken back: all of it, now. */
void fuzz_end_environment(void);

#endif
