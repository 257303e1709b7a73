/* See turn.c. All are for the calling thread, or its process; 0 or 1, or -errno. */
#ifndef PILOT_TURN_H
#define PILOT_TURN_H

#include <stdbool.h>

/* Raises RLIMIT_RTPRIO to the least that `turn_prefer` takes, unless it is there. */
int turn_allow_preferred(void);

/* Whether nobody gave this thread a policy of his own. */
int turn_is_ordinary(void);

int turn_prefer(bool preferred);

#endif
