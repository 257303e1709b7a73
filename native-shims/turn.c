/*
 * When this thread gets its turn among the programs of the host. Ordinary (SCHED_OTHER), it takes what its share comes to and waits for
 * others some milliseconds; preferred (SCHED_RR, the lowest priority of sched(7)), it runs when it has something to do. The
 * kernel keeps a twentieth of each processor for ordinary programs whatever this thread does. Threads and programs that it
 * starts are ordinary again.
 *
 * The right to it is RLIMIT_RTPRIO, which outlives the privileges that set it: where it can be set, none need be kept for this.
 */
#include "turn.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/resource.h>

enum { LOWEST_PRIORITY = 1 };

int turn_allow_preferred(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_RTPRIO, &limit) < 0) return -errno;
  if (limit.rlim_cur >= LOWEST_PRIORITY) return 0;
  limit.rlim_cur = LOWEST_PRIORITY;
  if (limit.rlim_max < LOWEST_PRIORITY) limit.rlim_max = LOWEST_PRIORITY;
  return setrlimit(RLIMIT_RTPRIO, &limit) < 0 ? -errno : 0;
}

int turn_is_ordinary(void) {
  int policy = sched_getscheduler(0);
  return policy < 0 ? -errno : policy == SCHED_OTHER;
}

int turn_prefer(bool preferred) {
  const struct sched_param param = {.sched_priority = preferred ? LOWEST_PRIORITY : 0};
  int policy = preferred ? SCHED_RR : SCHED_OTHER;
  return sched_setscheduler(0, policy | SCHED_RESET_ON_FORK, &param) < 0 ? -errno : 0;
}
