/* See lock.c. */
#ifndef PILOT_LOCK_H
#define PILOT_LOCK_H

/* The locked descriptor (close it to unlock), or -errno: EWOULDBLOCK when another process holds the lock. */
int lock_file(const char *path);

#endif
