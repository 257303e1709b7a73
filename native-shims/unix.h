/* See unix.c. */
#ifndef PILOT_UNIX_H
#define PILOT_UNIX_H

#include <stdint.h>

enum { PEER_PID, PEER_UID, PEER_GID, PEER_IDS };

/* One datagram to a unix socket, with a descriptor (-1: none); a path that begins with @ is an abstract name. 0 or -errno. */
int unix_send(const char *path, const char *text, int fd);
/* Process, user and group at the other end, then its further groups; how many numbers, or -errno. */
int unix_peer(int fd, uint32_t *ids, int most);

#endif
