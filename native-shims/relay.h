/* The relay of a beacon as JavaScript sees it; see relay.c. */
#ifndef PILOT_RELAY_H
#define PILOT_RELAY_H

#include <node_api.h>
#include <stdbool.h>

/* Adds the relay's functions to the addon. */
bool relay_export(napi_env env, napi_value exports);

#endif
