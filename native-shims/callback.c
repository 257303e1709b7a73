/* Calls from the event loop into JavaScript; see callback.h. */
#include "callback.h"

#include <stddef.h>

bool callback_keep(struct callback *callback, napi_env env, napi_value function, const char *name) {
  napi_value text;
  *callback = (struct callback){.env = env};
  return napi_create_reference(env, function, 1, &callback->function) == napi_ok &&
         napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text) == napi_ok &&
         napi_async_init(env, NULL, text, &callback->context) == napi_ok;
}

static void report_exception(napi_env env) {
  napi_value error;
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

void callback_run(const struct callback *callback) {
  napi_env env = callback->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value receiver, function;
  if (napi_get_global(env, &receiver) == napi_ok &&
      napi_get_reference_value(env, callback->function, &function) == napi_ok && function != NULL &&
      napi_make_callback(env, callback->context, receiver, function, 0, NULL, NULL) != napi_ok)
    report_exception(env);
  napi_close_handle_scope(env, scope);
}

void callback_drop(struct callback *callback) {
  if (callback->function != NULL) napi_delete_reference(callback->env, callback->function);
  if (callback->context != NULL) napi_async_destroy(callback->env, callback->context);
  *callback = (struct callback){0};
}
