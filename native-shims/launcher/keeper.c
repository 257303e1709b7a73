/*
 * The keeper: first process of the PID namespace, so that nothing in it outlives this one. Carries packets between the
 * device and the daemon, as `length 4 | virtio_net_hdr 10 | packet`, passes signals to the program, and collects those that
 * have ended. While no daemon answers, the device is down.
 */
#include "launcher.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LENGTH_BYTES = 4, MAX_FRAME = 10 + 65535, ROOM = 4 * (LENGTH_BYTES + MAX_FRAME), RETRY_MS = 250 };

struct carrier {
  const struct plan *plan;
  int tun, daemon, signals, lifeline;
  pid_t program;
  /* To the daemon: what was read from the device, from `sent` to `filled`. From it: what is no whole frame yet. */
  uint8_t outward[ROOM], inward[ROOM];
  size_t filled, sent, received;
};

/* ---- packets ---- */

static void lose_daemon(struct carrier *carrier) {
  close(carrier->daemon);
  carrier->daemon = -1;
  carrier->filled = carrier->sent = carrier->received = 0;
  device_down(carrier->plan);
}

static void find_daemon(struct carrier *carrier) {
  char refusal[512];
  int fd = daemon_connect(carrier->plan, refusal, sizeof refusal);
  if (fd < 0) return;
  fcntl(fd, F_SETFL, O_NONBLOCK);
  carrier->daemon = fd;
  if (!device_up(carrier->plan)) lose_daemon(carrier);
}

static void read_device(struct carrier *carrier) {
  while (carrier->filled + LENGTH_BYTES + MAX_FRAME <= ROOM) {
    uint8_t *at = carrier->outward + carrier->filled;
    ssize_t bytes = read(carrier->tun, at + LENGTH_BYTES, MAX_FRAME);
    if (bytes <= 0) return;
    uint32_t length = htonl((uint32_t)bytes);
    memcpy(at, &length, LENGTH_BYTES);
    carrier->filled += LENGTH_BYTES + (size_t)bytes;
  }
}

static void write_daemon(struct carrier *carrier) {
  while (carrier->sent < carrier->filled) {
    ssize_t bytes = send(carrier->daemon, carrier->outward + carrier->sent, carrier->filled - carrier->sent, MSG_NOSIGNAL);
    if (bytes < 0 && errno == EAGAIN) return;
    if (bytes < 0) return lose_daemon(carrier);
    carrier->sent += (size_t)bytes;
  }
  carrier->filled = carrier->sent = 0;
}

/* Writes the whole frames among what was received; false when it is no frame. */
static bool write_device(struct carrier *carrier) {
  size_t at = 0;
  while (carrier->received - at >= LENGTH_BYTES) {
    uint32_t length;
    memcpy(&length, carrier->inward + at, LENGTH_BYTES);
    length = ntohl(length);
    if (length > MAX_FRAME) return false;
    if (carrier->received - at - LENGTH_BYTES < length) break;
    /* What the kernel does not take is lost, as on any link. */
    ssize_t written = write(carrier->tun, carrier->inward + at + LENGTH_BYTES, length);
    (void)written;
    at += LENGTH_BYTES + length;
  }
  carrier->received -= at;
  memmove(carrier->inward, carrier->inward + at, carrier->received);
  return true;
}

static void read_daemon(struct carrier *carrier) {
  ssize_t bytes = recv(carrier->daemon, carrier->inward + carrier->received, ROOM - carrier->received, 0);
  if (bytes < 0 && errno == EAGAIN) return;
  if (bytes > 0) carrier->received += (size_t)bytes;
  if (bytes <= 0 || !write_device(carrier)) lose_daemon(carrier);
}

/* ---- processes ---- */

/* The program's exit code when it has ended; -1. Orphans of the namespace come here too. */
static int collect(struct carrier *carrier) {
  int status, code = -1;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == carrier->program) code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return code;
}

static int take_signals(struct carrier *carrier) {
  struct signalfd_siginfo signal;
  while (read(carrier->signals, &signal, sizeof signal) == sizeof signal) {
    int code = signal.ssi_signo == SIGCHLD ? collect(carrier) : -1;
    if (code >= 0) return code;
    if (signal.ssi_signo != SIGCHLD && signal.ssi_code != SI_KERNEL) kill(carrier->program, (int)signal.ssi_signo);
  }
  return -1;
}

static int carry(struct carrier *carrier) {
  for (;;) {
    bool has_daemon = carrier->daemon >= 0, is_behind = carrier->sent < carrier->filled;
    struct pollfd fds[] = {
      {carrier->signals, POLLIN, 0},
      {carrier->lifeline, POLLIN, 0},
      {carrier->daemon, POLLIN | (is_behind ? POLLOUT : 0), 0},
      {has_daemon && !is_behind ? carrier->tun : -1, POLLIN, 0},
    };
    if (poll(fds, 4, has_daemon ? -1 : RETRY_MS) < 0 && errno != EINTR) return EXIT_REFUSED;
    int code = take_signals(carrier);
    if (code >= 0) return code;
    if (fds[1].revents != 0) return EXIT_REFUSED; /* the launcher is gone */
    if (!has_daemon) {
      find_daemon(carrier);
      continue;
    }
    if (fds[2].revents & (POLLIN | POLLHUP | POLLERR)) read_daemon(carrier);
    if (carrier->daemon >= 0 && fds[3].revents != 0) read_device(carrier);
    if (carrier->daemon >= 0 && carrier->filled > 0) write_daemon(carrier);
  }
}

/* ---- start ---- */

static void write_file(const char *path, const char *text, const char *step) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(step);
  close(fd);
}

/* One user and one group, the same inside as outside; asked inside, both would be nobody by now. */
static void map_ids(const struct plan *plan) {
  char text[64];
  if (plan->becomes_user) {
    errno = EPERM;
    fail("another user without root's privileges");
  }
  write_file("/proc/self/setgroups", "deny", "groups of the user namespace");
  snprintf(text, sizeof text, "%u %u 1", plan->own_uid, plan->own_uid);
  write_file("/proc/self/uid_map", text, "users of the user namespace");
  snprintf(text, sizeof text, "%u %u 1", plan->own_gid, plan->own_gid);
  write_file("/proc/self/gid_map", text, "groups of the user namespace");
}

static void reach_daemon(struct carrier *carrier) {
  char refusal[512];
  carrier->daemon = daemon_connect(carrier->plan, refusal, sizeof refusal);
  if (carrier->daemon < 0) {
    if (refusal[0] == '\0') fail("daemon");
    fprintf(stderr, "pilot-tun run: the daemon refused: %s\n", refusal);
    _exit(EXIT_REFUSED);
  }
  fcntl(carrier->daemon, F_SETFL, O_NONBLOCK);
  if (!device_up(carrier->plan)) fail("addresses");
}

static pid_t start_program(const struct plan *plan) {
  pid_t program = fork();
  if (program < 0) fail("fork");
  if (program == 0) enclose_and_run(plan);
  /* A terminal's signals, and those to the caller's group, are for the program; it stays in that group. */
  setpgid(0, 0);
  return program;
}

int keep(const struct plan *plan, int lifeline, bool has_user_namespace) {
  static struct carrier carrier;
  sigset_t all;
  if (has_user_namespace) map_ids(plan);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  carrier = (struct carrier){.plan = plan, .daemon = -1, .lifeline = lifeline};
  carrier.tun = device_open(plan);
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  carrier.signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
  if (carrier.signals < 0) fail("signals");
  if (!plan->only_checks) reach_daemon(&carrier);
  carrier.program = start_program(plan);
  return carry(&carrier);
}
