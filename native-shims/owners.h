/* Who holds which sockets, as JavaScript asks for it; see owners.c. */
#ifndef PILOT_OWNERS_H
#define PILOT_OWNERS_H

#include <node_api.h>
#include <stdbool.h>

/* Adds sockDiag and socketHolders to the addon. */
bool owners_export(napi_env env, napi_value exports);

#endif
