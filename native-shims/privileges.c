/*
 * Less than this process has, for the program that it becomes next: another user with his groups, few capabilities in every
 * set, and no way to get more by running something.
 *
 * Credentials belong to threads, and Node has several. The calls here are the kernel's own, for the calling thread alone;
 * execve(2) ends all others, and every thread of the new program descends from this one. So nothing may come after but execve.
 */
#include "privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CAPABILITY_WORDS = 2 };

static int capabilities(long call, struct __user_cap_data_struct sets[CAPABILITY_WORDS]) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  return syscall(call, &header, sets) < 0 ? -errno : 0;
}

static bool is_kept(uint32_t keep, unsigned long capability) { return capability < 32 && (keep >> capability & 1) != 0; }

/* Who may not narrow this set leaves it as it is: without new privileges nothing is ever taken from it. */
static int narrow_bounding_set(uint32_t keep) {
  struct __user_cap_data_struct sets[CAPABILITY_WORDS];
  int error = capabilities(SYS_capget, sets);
  if (error < 0 || !is_kept(sets[0].effective, CAP_SETPCAP)) return error;
  for (unsigned long one = 0; prctl(PR_CAPBSET_READ, one, 0, 0, 0) >= 0; one++)
    if (!is_kept(keep, one) && prctl(PR_CAPBSET_DROP, one, 0, 0, 0) < 0) return -errno;
  return 0;
}

static int become(const struct identity *to) {
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) return -errno; /* those permitted; until execve */
  if (syscall(SYS_setgroups, to->group_count, to->groups) < 0) return -errno;
  if (syscall(SYS_setresgid, to->gid, to->gid, to->gid) < 0) return -errno;
  return syscall(SYS_setresuid, to->uid, to->uid, to->uid) < 0 ? -errno : 0;
}

/* Ambient, so that a user other than root still has them in the next program. */
static int keep_only(uint32_t keep) {
  struct __user_cap_data_struct sets[CAPABILITY_WORDS];
  int error = capabilities(SYS_capget, sets);
  if (error < 0) return error;
  uint32_t kept = sets[0].permitted & keep;
  sets[0] = (struct __user_cap_data_struct){.effective = kept, .permitted = kept, .inheritable = kept};
  sets[1] = (struct __user_cap_data_struct){0};
  error = capabilities(SYS_capset, sets);
  if (error < 0) return error;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return -errno;
  for (unsigned long one = 0; one < 32; one++)
    if (is_kept(kept, one) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, one, 0, 0) < 0) return -errno;
  return 0;
}

int privileges_reduce(const struct identity *to, uint32_t keep) {
  int error = narrow_bounding_set(keep);
  if (error == 0 && to != NULL) error = become(to);
  if (error == 0) error = keep_only(keep);
  if (error == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) error = -errno;
  return error;
}
