/* The launcher: reads what was decided, makes the namespaces, and passes signals in and the exit code out. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void fail(const char *step) {
  /* One line that `pilot-tun run` can read when it checks, and a person when it does not. */
  fprintf(stderr, "pilot-tun run: %s: %s\n", step, strerror(errno));
  _exit(EXIT_REFUSED);
}

/* ---- what is to be done ---- */

static _Noreturn void misuse(const char *what) {
  fprintf(stderr, "pilot-tun-run: %s; it is started by `pilot-tun run`\n", what);
  exit(2);
}

static unsigned long number(const char *text) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value > 0xffffffffUL) misuse("not a number");
  return value;
}

/* "uid:gid:group,group" */
static void read_identity(struct plan *plan, char *text) {
  char *uid = strsep(&text, ":"), *gid = strsep(&text, ":");
  if (uid == NULL || gid == NULL || text == NULL) misuse("not an identity");
  plan->becomes_user = true;
  plan->uid = (uid_t)number(uid);
  plan->gid = (gid_t)number(gid);
  for (char *group; (group = strsep(&text, ",")) != NULL;) {
    if (*group == '\0') continue;
    if (plan->group_count == MAX_GROUPS) misuse("too many groups");
    plan->groups[plan->group_count++] = (gid_t)number(group);
  }
}

static void read_plan(struct plan *plan, int argc, char **argv) {
  static const struct option options[] = {
    {"control", 1, NULL, 'c'}, {"request", 1, NULL, 'r'}, {"interface", 1, NULL, 'i'}, {"address", 1, NULL, 'a'},
    {"prefix", 1, NULL, 'p'},  {"mtu", 1, NULL, 'm'},     {"ports", 1, NULL, 'o'},     {"hostname", 1, NULL, 'h'},
    {"names", 1, NULL, 'n'},   {"identity", 1, NULL, 'u'}, {"check", 0, NULL, 'k'},    {NULL, 0, NULL, 0},
  };
  for (int option; (option = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
    switch (option) {
      case 'c': plan->control = optarg; break;
      case 'r': plan->request = optarg; break;
      case 'i': plan->interface = optarg; break;
      case 'a':
        if (plan->address_count == MAX_ADDRESSES) misuse("too many addresses");
        plan->addresses[plan->address_count++] = optarg;
        break;
      case 'p': plan->prefix = optarg; break;
      case 'm': plan->mtu = (int)number(optarg); break;
      case 'o': plan->ports = optarg; break;
      case 'h': plan->hostname = optarg; break;
      case 'n': plan->names = optarg; break;
      case 'u': read_identity(plan, optarg); break;
      case 'k': plan->only_checks = true; break;
      default: misuse("unknown option");
    }
  }
  plan->command = argv + optind;
  if (!plan->control || !plan->request || !plan->interface || !plan->prefix || !plan->ports || !plan->names ||
      plan->address_count == 0 || plan->mtu == 0 || (*plan->command == NULL && !plan->only_checks))
    misuse("something is missing");
}

/* ---- namespaces ---- */

/* As fork, but into namespaces. Nothing that glibc keeps about this process matters to what the child does. */
static pid_t fork_into(int namespaces) {
  return (pid_t)syscall(SYS_clone, (unsigned long)namespaces | SIGCHLD, 0UL, 0UL, 0UL, 0UL);
}

/* Root needs no user namespace, and may have none; for everybody else it is what makes the others possible. */
static pid_t start_keeper(bool *has_user_namespace) {
  pid_t child = -1;
  *has_user_namespace = false;
  if (geteuid() == 0) child = fork_into(CLONE_NEWNET | CLONE_NEWPID);
  if (child != -1) return child;
  *has_user_namespace = true;
  return fork_into(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID);
}

/* ---- signals in, exit code out ---- */

static int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

/*
 * What a terminal sends (the kernel itself) reaches the program directly, which is in the same process group; what another
 * process sends reaches only this one and is passed on. Stopping is left to the kernel: the shell sees this process stop.
 */
static int attend(pid_t keeper, const sigset_t *signals) {
  for (;;) {
    siginfo_t signal;
    int status;
    if (sigwaitinfo(signals, &signal) < 0) continue;
    if (signal.si_signo == SIGCHLD) {
      pid_t ended = waitpid(keeper, &status, WNOHANG);
      if (ended == keeper) return exit_code(status);
    } else if (signal.si_code != SI_KERNEL) {
      kill(keeper, signal.si_signo);
    }
  }
}

int main(int argc, char **argv) {
  struct plan plan = {.own_uid = geteuid(), .own_gid = getegid()};
  int lifeline[2];
  bool has_user_namespace;
  sigset_t waited;
  read_plan(&plan, argc, argv);

  sigfillset(&waited);
  sigdelset(&waited, SIGTSTP);
  sigdelset(&waited, SIGTTIN);
  sigdelset(&waited, SIGTTOU);
  sigprocmask(SIG_SETMASK, &waited, &plan.inherited_mask);
  signal(SIGCHLD, SIG_DFL); /* if it was ignored, nobody could wait */
  signal(SIGPIPE, SIG_DFL); /* Node ignores it, and so would the program */
  for (int fd = 0; fd < 3; fd++) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* Node's too, and shared */

  if (pipe2(lifeline, O_CLOEXEC) < 0) fail("pipe");
  pid_t keeper = start_keeper(&has_user_namespace);
  if (keeper < 0) fail("namespaces");
  if (keeper == 0) {
    close(lifeline[1]);
    _exit(keep(&plan, lifeline[0], has_user_namespace));
  }
  close(lifeline[0]);
  return attend(keeper, &waited);
}
