/* See host.c. */
#ifndef PILOT_HOST_H
#define PILOT_HOST_H

#include <node_api.h>
#include <stdbool.h>

/* Adds these functions to the module. */
bool host_export(napi_env env, napi_value exports);

#endif
