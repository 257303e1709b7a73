/* What a process gives up before it becomes another program; see privileges.c. */
#ifndef PILOT_PRIVILEGES_H
#define PILOT_PRIVILEGES_H

#include <stddef.h>
#include <stdint.h>

struct identity {
  uint32_t uid, gid;
  const uint32_t *groups;
  size_t group_count;
};

/*
 * `to`: NULL to stay who this is. `keep`: bits of capabilities below 32 (capabilities(7)); what this thread does not have it
 * does not get. 0, or -errno, after which part of it may be done: the process must end.
 */
int privileges_reduce(const struct identity *to, uint32_t keep);

#endif
