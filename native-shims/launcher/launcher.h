/*
 * `pilot-tun-run`: starts a program in namespaces of its own, whose one network interface is a TUN device that is carried
 * to the daemon. Three processes: the launcher, which is what the caller started and signals; the keeper, first in a new PID
 * namespace, which makes the device and carries its packets; the program. It decides nothing: what is on the command line
 * was decided by `pilot-tun run` (src/cli/run.ts). See docs/run.md.
 */
#ifndef PILOT_LAUNCHER_H
#define PILOT_LAUNCHER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { MAX_ADDRESSES = 64, MAX_GROUPS = 1024, EXIT_REFUSED = 1, EXIT_NOT_RUNNABLE = 126, EXIT_NOT_FOUND = 127 };

struct plan {
  const char *control;   /* the daemon's socket */
  const char *request;   /* what is said there to have packets carried */
  const char *interface; /* its name inside */
  const char *addresses[MAX_ADDRESSES];
  int address_count;
  const char *prefix; /* the one route: an address and a length */
  int mtu;
  const char *ports;    /* "first last": what the kernel may choose from */
  const char *hostname; /* NULL: as outside */
  const char *names;    /* text of the program's resolv.conf */
  uid_t own_uid; /* the caller's */
  gid_t own_gid;
  bool becomes_user;
  uid_t uid;
  gid_t gid;
  gid_t groups[MAX_GROUPS];
  int group_count;
  bool only_checks; /* makes everything, and ends before the program would start */
  char **command;
  sigset_t inherited_mask;
};

/* Says which step failed, and why by errno, and ends this process. */
_Noreturn void fail(const char *step);

/* keeper.c: runs the program to its end; returns its exit code. `lifeline` ends when the launcher does. */
int keep(const struct plan *plan, int lifeline, bool has_user_namespace);

/* enclosure.c: becomes the program, never to return. */
_Noreturn void enclose_and_run(const struct plan *plan);

/* device.c */
int device_open(const struct plan *plan); /* the TUN device, not yet up, and the namespace's settings */
bool device_up(const struct plan *plan);
void device_down(const struct plan *plan);

/* daemon.c: a connection that carries packets; or -1, with errno and, if the daemon said why, its words. */
int daemon_connect(const struct plan *plan, char *refusal, size_t refusal_bytes);

#endif
