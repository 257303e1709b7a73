/*
 * What JavaScript sees of this machine beside packets: the lock of a state directory, unix sockets, ports kept free, what this
 * process may do, when it gets its turn, and who may look into it.
 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "call.h"
#include "lock.h"
#include "ports.h"
#include "privileges.h"
#include "turn.h"
#include "unix.h"

enum { MAX_PEER_GROUPS = 1024 };

/* lockFile(path): the locked descriptor, or -errno */
static napi_value lock_path(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  char path[4096];
  text_of(&call, 0, path, sizeof path);
  if (call.bad) return bad_call(&call);
  return integer(&call, lock_file(path));
}

/* unixSend(path, text, fd): fd -1 for none */
static napi_value unix_send_text(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  char path[128], message[1024];
  text_of(&call, 0, path, sizeof path);
  text_of(&call, 1, message, sizeof message);
  int fd = int_of(&call, 2);
  if (call.bad) return bad_call(&call);
  return integer(&call, unix_send(path, message, fd));
}

/* unixPeer(fd): [pid, uid, gid, group...], or -errno */
static napi_value unix_peer_ids(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  uint32_t ids[PEER_IDS + MAX_PEER_GROUPS];
  napi_value list = NULL;
  int fd = int_of(&call, 0);
  if (call.bad) return bad_call(&call);
  int count = unix_peer(fd, ids, PEER_IDS + MAX_PEER_GROUPS);
  if (count < 0) return integer(&call, count);
  napi_create_array(env, &list);
  for (uint32_t i = 0; i < (uint32_t)count; i++) napi_set_element(env, list, i, number(&call, ids[i]));
  return list;
}

/* reservePorts(interface, first, fds): 0, or -errno; two descriptors for each port */
static napi_value reserve_ports(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  char interface[16];
  size_t length = 0;
  text_of(&call, 0, interface, sizeof interface);
  int first = int_of(&call, 1);
  int32_t *fds = array_of(&call, 2, napi_int32_array, 0, &length);
  if (call.bad || first < 1 || length / 2 > 65536 || first + (int)(length / 2) > 65536) return bad_call(&call);
  return integer(&call, ports_reserve(interface, first, (int)(length / 2), fds));
}

/* forbidDumps(): 0, or -errno. The limit is a second lock, for what this process starts; a sandbox may refuse it. */
static napi_value forbid_dumps(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  const struct rlimit none = {0, 0};
  (void)setrlimit(RLIMIT_CORE, &none);
  return integer(&call, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : -errno);
}

/* trimMemory(): what malloc keeps of freed memory goes back to the kernel, where the C library can do that */
static napi_value trim_memory(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
#ifdef __GLIBC__
  return integer(&call, malloc_trim(0));
#else
  return integer(&call, 0);
#endif
}

/* reducePrivileges(becomes, uid, gid, groups, keep): 0, or -errno; uid and groups matter only to who becomes somebody */
static napi_value reduce_privileges(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct identity to;
  bool becomes = bool_of(&call, 0);
  to.uid = uint_of(&call, 1);
  to.gid = uint_of(&call, 2);
  to.groups = array_of(&call, 3, napi_uint32_array, 0, &to.group_count);
  uint32_t keep = uint_of(&call, 4);
  if (call.bad) return bad_call(&call);
  return integer(&call, privileges_reduce(becomes ? &to : NULL, keep));
}

/* handOn(fd): 0, or -errno; the program that this process becomes has it too */
static napi_value hand_on(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, fcntl(fd, F_SETFD, 0) < 0 ? -errno : 0);
}

/* allowPreferred(): 0, or -errno */
static napi_value allow_preferred(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  return integer(&call, turn_allow_preferred());
}

/* isOrdinary(): 1 or 0, or -errno */
static napi_value is_ordinary(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  return integer(&call, turn_is_ordinary());
}

/* prefer(preferred): 0, or -errno */
static napi_value prefer(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  bool preferred = bool_of(&call, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, turn_prefer(preferred));
}

bool host_export(napi_env env, napi_value exports) {
  static const struct function functions[] = {
    {"lockFile", lock_path}, {"unixSend", unix_send_text}, {"unixPeer", unix_peer_ids}, {"reservePorts", reserve_ports},
    {"forbidDumps", forbid_dumps}, {"trimMemory", trim_memory}, {"reducePrivileges", reduce_privileges},
    {"handOn", hand_on}, {"allowPreferred", allow_preferred}, {"isOrdinary", is_ordinary}, {"prefer", prefer}};
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
