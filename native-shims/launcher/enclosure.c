/*
 * The last steps of the program's process before it is the program: its own view of files where the host's would lead out
 * (/run holds the sockets of services that would speak to the network in its name, /proc other processes), no privileges,
 * no way to get any, and no sockets of kinds that know no network namespaces.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the numbers of this architecture's system calls are not known here"
#endif

enum { MAX_CAPABILITY = 63, X32_BIT = 0x40000000 };

/* ---- files ---- */

static void make_folders(const char *file) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s", file);
  for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(path, 0755);
    *slash = '/';
  }
}

static void write_names(const char *path, const char *text) {
  make_folders(path);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fail("resolv.conf");
  fchmod(fd, 0644);
  close(fd);
}

/* /etc/resolv.conf as the program finds it; on many hosts a link into /run. */
static void give_names(const struct plan *plan, const char *real) {
  static const char own[] = "/run/pilot-tun/resolv.conf";
  if (strncmp(real, "/run/", 5) == 0) return write_names(real, plan->names);
  write_names(own, plan->names);
  if (mount(own, real, NULL, MS_BIND, NULL) < 0) fail("resolv.conf");
}

static void give_user_folder(const struct plan *plan) {
  char path[64];
  uid_t uid = plan->becomes_user ? plan->uid : getuid();
  gid_t gid = plan->becomes_user ? plan->gid : getgid();
  mkdir("/run/lock", 01777);
  mkdir("/run/user", 0755);
  snprintf(path, sizeof path, "/run/user/%u", uid);
  mkdir(path, 0700);
  if (plan->becomes_user && chown(path, uid, gid) < 0) fail("/run/user");
}

/* Set-user-ID bits and file capabilities count for nothing; on a kernel without the call, NO_NEW_PRIVS sees to that. */
static void forbid_set_user_id(void) {
  struct {
    uint64_t set, clear, propagation, user_namespace;
  } attributes = {.set = 2 /* MOUNT_ATTR_NOSUID */};
  enum { MOUNT_SETATTR = 442, RECURSIVE = 0x8000 };
  syscall(MOUNT_SETATTR, AT_FDCWD, "/", RECURSIVE, &attributes, sizeof attributes);
}

static void arrange_files(const struct plan *plan) {
  char real[PATH_MAX], here[PATH_MAX];
  if (realpath("/etc/resolv.conf", real) == NULL) {
    /* A link whose target is missing is one all the same. */
    ssize_t length = readlink("/etc/resolv.conf", real, sizeof real - 1);
    if (length <= 0 || real[0] != '/') fail("/etc/resolv.conf");
    real[length] = '\0';
  }
  bool has_folder = getcwd(here, sizeof here) != NULL;
  if (unshare(CLONE_NEWNS | CLONE_NEWUTS) < 0) fail("mount namespace");
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("mounts");
  if (mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") < 0) fail("/run");
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) fail("/proc");
  give_names(plan, real);
  give_user_folder(plan);
  forbid_set_user_id();
  /* The old folder, if it lay in what is hidden now, would still lead there. */
  if (!has_folder || chdir(here) < 0) {
    if (chdir("/") < 0) fail("/");
  }
  if (plan->hostname != NULL && sethostname(plan->hostname, strlen(plan->hostname)) < 0) fail("hostname");
}

/* ---- privileges ---- */

static void drop_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_capset, &header, none) < 0) fail("capabilities");
}

static void become_user(const struct plan *plan) {
  for (int capability = 0; capability <= MAX_CAPABILITY; capability++) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  if (plan->becomes_user) {
    if (setgroups((size_t)plan->group_count, plan->groups) < 0) fail("groups");
    if (setresgid(plan->gid, plan->gid, plan->gid) < 0) fail("group");
    if (setresuid(plan->uid, plan->uid, plan->uid) < 0) fail("user");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("no new privileges");
  drop_capabilities();
}

/* ---- system calls ---- */

#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset))
#define NUMBER LOAD(offsetof(struct seccomp_data, nr))
#define ARGUMENT(n) LOAD(offsetof(struct seccomp_data, args) + 8 * (n)) /* its lower half: both are little-endian */
#define SKIP_UNLESS(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (count))
#define SKIP_IF(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (count), 0)
#define ANSWER(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define PASS BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/*
 * Sockets of other families (to the hypervisor, to Bluetooth) know no network namespace; io_uring makes sockets that this
 * filter would not see; TIOCSTI would type into the caller's terminal, to be read when this program has ended.
 */
static void filter_calls(void) {
  struct sock_filter filter[] = {
    LOAD(offsetof(struct seccomp_data, arch)),
    SKIP_IF(ARCHITECTURE, 1),
    ANSWER(ENOSYS),
    NUMBER,
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
    ANSWER(ENOSYS),
    SKIP_UNLESS(SYS_io_uring_setup, 1),
    ANSWER(ENOSYS),
    SKIP_UNLESS(SYS_socket, 6),
    ARGUMENT(0),
    SKIP_IF(AF_UNIX, 10),
    SKIP_IF(AF_INET, 9),
    SKIP_IF(AF_INET6, 8),
    SKIP_IF(AF_NETLINK, 7),
    ANSWER(EAFNOSUPPORT),
    SKIP_UNLESS(SYS_ioctl, 5),
    ARGUMENT(1),
    SKIP_IF(TIOCSTI, 2),
    SKIP_IF(TIOCLINUX, 1),
    PASS,
    ANSWER(EPERM),
    PASS,
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) fail("system call filter");
}

/* ---- */

static void close_others(void) {
  if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0) return;
  for (int fd = 3; fd < sysconf(_SC_OPEN_MAX); fd++) close(fd);
}

void enclose_and_run(const struct plan *plan) {
  arrange_files(plan);
  become_user(plan);
  filter_calls();
  close_others();
  if (plan->only_checks) _exit(0);
  sigprocmask(SIG_SETMASK, &plan->inherited_mask, NULL);
  execvp(plan->command[0], plan->command);
  int error = errno;
  fprintf(stderr, "pilot-tun run: %s: %s\n", plan->command[0], strerror(error));
  _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE);
}
