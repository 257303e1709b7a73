/*
 * One call from JavaScript: its arguments taken apart, its result put together. A wrong argument only marks the call as
 * bad; the function looks once, before it does anything.
 */
#ifndef PILOT_CALL_H
#define PILOT_CALL_H

#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_ARGUMENTS = 12 };

struct call {
  napi_env env;
  napi_value argv[MAX_ARGUMENTS];
  bool bad;
};

struct bytes {
  uint8_t *at;
  size_t length;
};

/* ---- arguments ---- */

static inline struct call call_of(napi_env env, napi_callback_info info) {
  struct call call = {.env = env};
  size_t count = MAX_ARGUMENTS;
  call.bad = napi_get_cb_info(env, info, &count, call.argv, NULL, NULL) != napi_ok;
  return call;
}

static inline int32_t int_of(struct call *call, int i) {
  int32_t value = 0;
  if (napi_get_value_int32(call->env, call->argv[i], &value) != napi_ok) call->bad = true;
  return value;
}

static inline uint32_t uint_of(struct call *call, int i) {
  uint32_t value = 0;
  if (napi_get_value_uint32(call->env, call->argv[i], &value) != napi_ok) call->bad = true;
  return value;
}

static inline double double_of(struct call *call, int i) {
  double value = 0;
  if (napi_get_value_double(call->env, call->argv[i], &value) != napi_ok) call->bad = true;
  return value;
}

static inline bool bool_of(struct call *call, int i) {
  bool value = false;
  if (napi_get_value_bool(call->env, call->argv[i], &value) != napi_ok) call->bad = true;
  return value;
}

static inline const char *text_of(struct call *call, int i, char *buffer, size_t size) {
  size_t length = 0;
  buffer[0] = 0;
  if (napi_get_value_string_utf8(call->env, call->argv[i], buffer, size, &length) != napi_ok) call->bad = true;
  if (length + 1 >= size) call->bad = true;
  return buffer;
}

/* A typed array of `type` with at least `least` elements. */
static inline void *array_of(struct call *call, int i, napi_typedarray_type type, size_t least, size_t *length) {
  napi_typedarray_type actual;
  void *data = NULL;
  size_t count = 0;
  if (napi_get_typedarray_info(call->env, call->argv[i], &actual, &count, &data, NULL, NULL) != napi_ok ||
      actual != type || count < least)
    call->bad = true;
  if (length != NULL) *length = count;
  return data;
}

static inline struct bytes bytes_of(struct call *call, int i, size_t least) {
  struct bytes bytes;
  bytes.at = array_of(call, i, napi_uint8_array, least, &bytes.length);
  return bytes;
}

static inline const uint8_t *bytes_exactly(struct call *call, int i, size_t length) {
  struct bytes bytes = bytes_of(call, i, length);
  if (bytes.length != length) call->bad = true;
  return bytes.at;
}

/* ---- what JavaScript sees ---- */

struct function {
  const char *name;
  napi_callback call;
};

static inline bool export_functions(napi_env env, napi_value exports, const struct function *functions, size_t count) {
  napi_value value;
  for (size_t i = 0; i < count; i++)
    if (napi_create_function(env, NULL, 0, functions[i].call, NULL, &value) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, value) != napi_ok)
      return false;
  return true;
}

/* ---- results ---- */

static inline napi_value bad_call(struct call *call) {
  napi_throw_type_error(call->env, NULL, "wrong arguments for the native shim");
  return NULL;
}

static inline napi_value number(struct call *call, double value) {
  napi_value result = NULL;
  napi_create_double(call->env, value, &result);
  return result;
}

static inline napi_value integer(struct call *call, int32_t value) {
  napi_value result = NULL;
  napi_create_int32(call->env, value, &result);
  return result;
}

static inline napi_value text(struct call *call, const char *value) {
  napi_value result = NULL;
  napi_create_string_utf8(call->env, value, NAPI_AUTO_LENGTH, &result);
  return result;
}

#endif
