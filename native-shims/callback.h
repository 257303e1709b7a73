/* A function of JavaScript that Node's event loop calls, without arguments. */
#ifndef PILOT_CALLBACK_H
#define PILOT_CALLBACK_H

#include <node_api.h>
#include <stdbool.h>

struct callback {
  napi_env env;
  napi_async_context context;
  napi_ref function;
};

/* `name`: of what calls, for those who trace. After false, too, callback_drop has to be called. */
bool callback_keep(struct callback *callback, napi_env env, napi_value function, const char *name);
/* What it throws becomes an uncaught exception. */
void callback_run(const struct callback *callback);
/* A zeroed callback may be dropped, and one dropped before. */
void callback_drop(struct callback *callback);

#endif
