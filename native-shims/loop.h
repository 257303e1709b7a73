/* Wake-ups of JavaScript by Node's event loop; see loop.c. */
#ifndef PILOT_LOOP_H
#define PILOT_LOOP_H

#include <node_api.h>

#include "plane.h"

/* 0 or -errno. The callbacks take no arguments. */
int wakeups_start(napi_env env, struct plane *plane, napi_value on_tun, napi_value on_udp, napi_value on_writable);
/* Looks whether the socket must be watched for writing; call it after anything that may have filled the queue. */
void wakeups_watch_writable(struct plane *plane);
/* Frees the wake-ups when libuv has let go of them; before the descriptors are closed. */
void wakeups_stop(struct plane *plane);

#endif
