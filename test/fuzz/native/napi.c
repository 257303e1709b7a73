/* See napi.h. */
#include "napi.h"

#include <uv.h>

#include "callback.h"

enum { MOST_VALUES = 256, MOST_HOOKS = 8 };
enum kind { NOTHING, NUMBER, TEXT, ARRAY, EXTERNAL, FLAG };

struct napi_value__ {
  enum kind kind;
  double number;
  void *bytes;
  size_t count;
  napi_typedarray_type type;
  bool owned;
};

struct fuzz_function fuzz_functions[FUZZ_FUNCTIONS];
int fuzz_function_count;
static struct napi_value__ values[MOST_VALUES];
static int value_count;
static const napi_value *arguments;
static int argument_count;
static bool threw;
static struct {
  napi_cleanup_hook run;
  void *data;
} hooks[MOST_HOOKS];

static napi_value value_of(struct napi_value__ value) {
  DEMAND(value_count < MOST_VALUES, "there is room for one more value");
  values[value_count] = value;
  return &values[value_count++];
}

napi_value fuzz_exports(void) { return value_of((struct napi_value__){.kind = NOTHING}); }
void fuzz_begin(void) { value_count = 0; }
void fuzz_end(void) {
  for (int i = 0; i < value_count; i++)
    if (values[i].owned) free(values[i].bytes);
  value_count = 0;
}
napi_value fuzz_number(double value) { return value_of((struct napi_value__){.kind = NUMBER, .number = value}); }
napi_value fuzz_array(napi_typedarray_type type, void *bytes, size_t count) {
  return value_of((struct napi_value__){.kind = ARRAY, .type = type, .bytes = bytes, .count = count});
}
napi_value fuzz_text(const uint8_t *bytes, size_t length) {
  uint8_t *copy = malloc(length + 1);
  memcpy(copy, bytes, length);
  return value_of((struct napi_value__){.kind = TEXT, .bytes = copy, .count = length, .owned = true});
}

static size_t element_bytes(napi_typedarray_type type) {
  return type == napi_uint8_array ? 1 : type == napi_float64_array ? 8 : 4;
}

static napi_value any_array(struct input *input) {
  static const napi_typedarray_type types[] = {napi_uint8_array, napi_int32_array, napi_uint32_array, napi_float64_array};
  napi_typedarray_type type = types[take_u8(input) % 4];
  size_t count = take_u8(input) % 4 == 0 ? take_u16(input) : take_u8(input);
  uint8_t *bytes = calloc(count == 0 ? 1 : count, element_bytes(type));
  size_t given = count * element_bytes(type);
  const uint8_t *from = take_bytes(input, &given);
  if (given > 0) memcpy(bytes, from, given);
  napi_value value = fuzz_array(type, bytes, count);
  value->owned = true;
  return value;
}

napi_value fuzz_anything(struct input *input, napi_value handle) {
  size_t length;
  switch (take_u8(input) % 8) {
    case 0: return fuzz_number((int8_t)take_u8(input));
    case 1: return fuzz_number((double)(int32_t)(take_u16(input) << 16 | take_u16(input)));
    case 2: return value_of((struct napi_value__){.kind = FLAG, .number = take_u8(input) % 2});
    case 3: length = take_u8(input); break;
    case 4:
    case 5: return any_array(input);
    case 6: return handle == NULL ? value_of((struct napi_value__){.kind = NOTHING}) : handle;
    default: return value_of((struct napi_value__){.kind = NOTHING});
  }
  const uint8_t *text = take_bytes(input, &length);
  return fuzz_text(text, length);
}

struct fuzz_result fuzz_call_at(int function, int count, const napi_value *given) {
  arguments = given;
  argument_count = count;
  threw = false;
  napi_value result = fuzz_functions[function].call(NULL, NULL);
  struct fuzz_result said = {.threw = threw};
  if (result != NULL && result->kind == NUMBER) said.number = result->number;
  if (result != NULL && result->kind == EXTERNAL) said.external = result;
  return said;
}

struct fuzz_result fuzz_call(const char *name, int count, const napi_value *given) {
  for (int i = 0; i < fuzz_function_count; i++)
    if (strcmp(fuzz_functions[i].name, name) == 0) return fuzz_call_at(i, count, given);
  DEMAND(false, "there is a function of this name");
  return (struct fuzz_result){0};
}

void fuzz_end_environment(void) {
  for (int i = 0; i < MOST_HOOKS; i++)
    if (hooks[i].run != NULL) hooks[i].run(hooks[i].data);
}

/* ---- what the shim calls ---- */

napi_status napi_get_cb_info(napi_env env, napi_callback_info info, size_t *count, napi_value *argv, napi_value *self, void **data) {
  static struct napi_value__ undefined = {.kind = NOTHING};
  (void)env, (void)info, (void)self, (void)data;
  for (size_t i = 0; i < *count; i++) argv[i] = i < (size_t)argument_count ? arguments[i] : &undefined;
  *count = (size_t)argument_count;
  return napi_ok;
}

/* As JavaScript's own: what is no whole number of 32 bits is cut down to one. */
napi_status napi_get_value_int32(napi_env env, napi_value value, int32_t *result) {
  (void)env;
  if (value->kind != NUMBER) return napi_number_expected;
  *result = (int32_t)(uint32_t)(int64_t)value->number;
  return napi_ok;
}

napi_status napi_get_value_uint32(napi_env env, napi_value value, uint32_t *result) {
  return napi_get_value_int32(env, value, (int32_t *)result);
}

napi_status napi_get_value_double(napi_env env, napi_value value, double *result) {
  (void)env;
  if (value->kind != NUMBER) return napi_number_expected;
  *result = value->number;
  return napi_ok;
}

napi_status napi_get_value_bool(napi_env env, napi_value value, bool *result) {
  (void)env;
  if (value->kind != FLAG) return napi_boolean_expected;
  *result = value->number != 0;
  return napi_ok;
}

/* Cut short to what fits, with an end mark. */
napi_status napi_get_value_string_utf8(napi_env env, napi_value value, char *buffer, size_t size, size_t *length) {
  (void)env;
  if (value->kind != TEXT) return napi_string_expected;
  *length = value->count < size ? value->count : size - 1;
  memcpy(buffer, value->bytes, *length);
  buffer[*length] = 0;
  return napi_ok;
}

napi_status napi_get_value_external(napi_env env, napi_value value, void **result) {
  (void)env;
  if (value->kind != EXTERNAL) return napi_invalid_arg;
  *result = value->bytes;
  return napi_ok;
}

napi_status napi_get_typedarray_info(napi_env env, napi_value value, napi_typedarray_type *type, size_t *count, void **data,
                                     napi_value *buffer, size_t *offset) {
  (void)env, (void)buffer, (void)offset;
  *type = napi_int8_array;
  if (value->kind != ARRAY) return napi_invalid_arg;
  *type = value->type;
  *count = value->count;
  *data = value->bytes;
  return napi_ok;
}

napi_status napi_create_double(napi_env env, double number, napi_value *result) {
  (void)env;
  *result = fuzz_number(number);
  return napi_ok;
}

napi_status napi_create_int32(napi_env env, int32_t number, napi_value *result) {
  return napi_create_double(env, number, result);
}

napi_status napi_create_external(napi_env env, void *data, napi_finalize finalize, void *hint, napi_value *result) {
  (void)env, (void)finalize, (void)hint;
  *result = value_of((struct napi_value__){.kind = EXTERNAL, .bytes = data});
  return napi_ok;
}

napi_status napi_create_string_utf8(napi_env env, const char *text, size_t length, napi_value *result) {
  (void)env, (void)length;
  *result = fuzz_text((const uint8_t *)text, strlen(text));
  return napi_ok;
}

napi_status napi_throw_type_error(napi_env env, const char *code, const char *message) {
  (void)env, (void)code, (void)message;
  threw = true;
  return napi_ok;
}

napi_status napi_create_function(napi_env env, const char *name, size_t length, napi_callback call, void *data, napi_value *result) {
  (void)env, (void)name, (void)length, (void)data;
  DEMAND(fuzz_function_count < FUZZ_FUNCTIONS, "there is room for one more function");
  fuzz_functions[fuzz_function_count].call = call;
  *result = fuzz_exports();
  return napi_ok;
}

napi_status napi_set_named_property(napi_env env, napi_value object, const char *name, napi_value value) {
  (void)env, (void)object, (void)value;
  fuzz_functions[fuzz_function_count++].name = name;
  return napi_ok;
}

napi_status napi_create_reference(napi_env env, napi_value value, uint32_t count, napi_ref *result) {
  (void)env, (void)value, (void)count;
  *result = malloc(1);
  return napi_ok;
}

napi_status napi_delete_reference(napi_env env, napi_ref reference) {
  (void)env;
  free(reference);
  return napi_ok;
}

napi_status napi_add_env_cleanup_hook(napi_env env, napi_cleanup_hook run, void *data) {
  (void)env;
  for (int i = 0; i < MOST_HOOKS; i++) {
    if (hooks[i].run != NULL) continue;
    hooks[i].run = run;
    hooks[i].data = data;
    return napi_ok;
  }
  DEMAND(false, "there is room for one more hook");
  return napi_generic_failure;
}

napi_status napi_remove_env_cleanup_hook(napi_env env, napi_cleanup_hook run, void *data) {
  (void)env;
  for (int i = 0; i < MOST_HOOKS; i++)
    if (hooks[i].run == run && hooks[i].data == data) hooks[i].run = NULL;
  return napi_ok;
}

napi_status napi_get_uv_event_loop(napi_env env, uv_loop_t **loop) {
  static uv_loop_t none;
  (void)env;
  *loop = &none;
  return napi_ok;
}

/* ---- work in other threads: done at once ---- */

struct napi_async_work__ {
  napi_async_execute_callback execute;
  napi_async_complete_callback complete;
  void *data;
};

static double resolved;
double fuzz_resolved(void) { return resolved; }

napi_status napi_create_promise(napi_env env, napi_deferred *deferred, napi_value *promise) {
  (void)env;
  *deferred = NULL;
  *promise = fuzz_exports();
  return napi_ok;
}

napi_status napi_resolve_deferred(napi_env env, napi_deferred deferred, napi_value value) {
  (void)env, (void)deferred;
  resolved = value->number;
  return napi_ok;
}

napi_status napi_create_async_work(napi_env env, napi_value resource, napi_value name, napi_async_execute_callback execute,
                                   napi_async_complete_callback complete, void *data, napi_async_work *result) {
  (void)env, (void)resource, (void)name;
  *result = malloc(sizeof **result);
  **result = (struct napi_async_work__){execute, complete, data};
  return napi_ok;
}

napi_status napi_queue_async_work(napi_env env, napi_async_work work) {
  work->execute(env, work->data);
  work->complete(env, napi_ok, work->data);
  return napi_ok;
}

napi_status napi_delete_async_work(napi_env env, napi_async_work work) {
  (void)env;
  free(work);
  return napi_ok;
}

/* ---- the event loop: handles are closed at once, and nothing is ever ready by itself ---- */

bool callback_keep(struct callback *callback, napi_env env, napi_value function, const char *name) {
  (void)function, (void)name;
  *callback = (struct callback){.env = env};
  return true;
}

void callback_run(const struct callback *callback) { (void)callback; }
void callback_drop(struct callback *callback) { *callback = (struct callback){0}; }

int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd) {
  (void)loop, (void)handle, (void)fd;
  return 0;
}

int uv_poll_start(uv_poll_t *handle, int events, uv_poll_cb callback) {
  (void)handle, (void)events, (void)callback;
  return 0;
}

void uv_close(uv_handle_t *handle, uv_close_cb callback) {
  if (callback != NULL) callback(handle);
}
