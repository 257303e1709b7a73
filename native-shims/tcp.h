/* TCP sockets as JavaScript sees them; see tcp.c. */
#ifndef PILOT_TCP_H
#define PILOT_TCP_H

#include <node_api.h>
#include <stdbool.h>

/* Adds their functions to the addon. */
bool tcp_export(napi_env env, napi_value exports);

#endif
