/* See ed25519.c. */
#ifndef PILOT_ED25519_H
#define PILOT_ED25519_H

#include <node_api.h>
#include <stdbool.h>

bool ed25519_export(napi_env env, napi_value exports);

#endif
