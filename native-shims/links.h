/* See links.c. */
#ifndef PILOT_LINKS_H
#define PILOT_LINKS_H

#include <node_api.h>
#include <stdbool.h>

/* Adds these functions to the module. */
bool links_export(napi_env env, napi_value exports);

#endif
