/* See ports.c. */
#ifndef PILOT_PORTS_H
#define PILOT_PORTS_H

#include <stdint.h>

/* Fills `fds` with 2 * count descriptors; 0, or -errno and none. */
int ports_reserve(const char *interface, int first, int count, int32_t *fds);

#endif
