/*
 * Whose sockets are whose. Two questions that JavaScript cannot ask by itself:
 *
 *   sockDiag(request, reply)        bytes of the kernel's answer to one netlink message (sock_diag(7)), or -errno. The
 *                                   kernel answers while it takes the request, so this does not wait.
 *   socketHolders(inodes, pairs)    a promise of how many pairs were written: place of the inode, process number. A
 *                                   walk over the descriptors of all processes takes milliseconds, so it has a thread.
 *
 * What the bytes mean, and what follows, TypeScript knows (src/io/socket-diag.ts, src/io/socket-holders.ts).
 */
#include "owners.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "call.h"

enum { PATIENCE_US = 100000, LINK_BYTES = 64, HELD_ARRAYS = 2 };

/* ---- one question to the kernel ---- */

static int ask_kernel(const uint8_t *request, size_t length, uint8_t *reply, size_t room) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return -errno;
  struct timeval patience = {.tv_usec = PATIENCE_US};
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  int result = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (result == 0) result = (int)sendto(fd, request, length, 0, (struct sockaddr *)&kernel, sizeof kernel);
  if (result >= 0) result = (int)recv(fd, reply, room, 0);
  if (result < 0) result = -errno;
  close(fd);
  return result;
}

static napi_value sock_diag(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct bytes request = bytes_of(&call, 0, 0), reply = bytes_of(&call, 1, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, ask_kernel(request.at, request.length, reply.at, reply.length));
}

/* ---- a walk over all processes ---- */

static const char SOCKET[] = "socket:["; /* proc_pid_fd(5) */

struct search {
  napi_async_work work;
  napi_deferred deferred;
  napi_ref arrays[HELD_ARRAYS];
  const double *inodes; /* rising */
  size_t inode_count;
  int32_t *pairs;
  size_t most_pairs, found;
  int error;
};

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void note_if_wanted(struct search *search, const char *link, int32_t pid) {
  if (strncmp(link, SOCKET, sizeof SOCKET - 1) != 0) return;
  double inode = (double)strtoull(link + sizeof SOCKET - 1, NULL, 10);
  const double *place = bsearch(&inode, search->inodes, search->inode_count, sizeof inode, compare);
  if (place == NULL || search->found == search->most_pairs) return;
  search->pairs[2 * search->found] = (int32_t)(place - search->inodes);
  search->pairs[2 * search->found + 1] = pid;
  search->found++;
}

static bool is_number(const char *name) { return name[0] >= '0' && name[0] <= '9'; }

/* A process that ends meanwhile holds nothing any more. */
static void look_through(struct search *search, int proc, const char *pid) {
  char path[NAME_MAX + 4], link[LINK_BYTES];
  snprintf(path, sizeof path, "%s/fd", pid);
  int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *descriptors = fd < 0 ? NULL : fdopendir(fd);
  if (descriptors == NULL) {
    if (fd >= 0) close(fd);
    return;
  }
  for (struct dirent *entry = readdir(descriptors); entry != NULL; entry = readdir(descriptors)) {
    if (!is_number(entry->d_name)) continue;
    ssize_t length = readlinkat(fd, entry->d_name, link, sizeof link - 1);
    if (length <= 0) continue;
    link[length] = 0;
    note_if_wanted(search, link, atoi(pid));
  }
  closedir(descriptors);
}

static void search_processes(napi_env env, void *data) {
  struct search *search = data;
  (void)env;
  DIR *proc = opendir("/proc");
  if (proc == NULL) {
    search->error = errno;
    return;
  }
  for (struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc))
    if (is_number(entry->d_name)) look_through(search, dirfd(proc), entry->d_name);
  closedir(proc);
}

static void search_ended(napi_env env, napi_status status, void *data) {
  struct search *search = data;
  napi_value result = NULL;
  if (status != napi_ok) search->error = ECANCELED;
  napi_create_int32(env, search->error != 0 ? -search->error : (int32_t)search->found, &result);
  napi_resolve_deferred(env, search->deferred, result);
  for (int i = 0; i < HELD_ARRAYS; i++) napi_delete_reference(env, search->arrays[i]);
  napi_delete_async_work(env, search->work);
  free(search);
}

static napi_value socket_holders(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct search *search = calloc(1, sizeof *search);
  napi_value promise = NULL;
  if (search == NULL) return bad_call(&call);
  search->inodes = array_of(&call, 0, napi_float64_array, 0, &search->inode_count);
  search->pairs = array_of(&call, 1, napi_int32_array, 0, &search->most_pairs);
  search->most_pairs /= 2;
  for (int i = 0; i < HELD_ARRAYS && !call.bad; i++)
    call.bad = napi_create_reference(env, call.argv[i], 1, &search->arrays[i]) != napi_ok;
  if (call.bad) {
    free(search);
    return bad_call(&call);
  }
  napi_create_promise(env, &search->deferred, &promise);
  napi_create_async_work(env, NULL, text(&call, "socketHolders"), search_processes, search_ended, search, &search->work);
  napi_queue_async_work(env, search->work);
  return promise;
}

bool owners_export(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"sockDiag", sock_diag}, {"socketHolders", socket_holders}};
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
