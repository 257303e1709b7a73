/*
 * The kernel's notices (rtnetlink(7)) that something about interfaces, addresses or IPv4 routes has changed: JavaScript is
 * called, and looks for itself what it was. Nothing of a notice is read here.
 */
#include "links.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "call.h"
#include "callback.h"

enum { GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE, MAX_DRAINED = 256 };

struct links {
  napi_env env;
  struct callback on_change;
  uv_poll_t poll;
  int fd;
  bool closing;
};

static int open_notices(void) {
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = GROUPS};
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = -errno;
  close(fd);
  return error;
}

/* Messages are cut short. An overflow (ENOBUFS) is a notice too, and cleared by being received. */
static void drain(int fd) {
  char some[16];
  for (int i = 0; i < MAX_DRAINED; i++)
    if (recv(fd, some, sizeof some, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
}

static void ready(uv_poll_t *handle, int status, int events) {
  struct links *links = handle->data;
  (void)events;
  drain(links->fd);
  if (status < 0) uv_poll_start(handle, UV_READABLE, ready); /* after an error libuv watches no more */
  callback_run(&links->on_change);
}

static void freed(uv_handle_t *handle) {
  struct links *links = handle->data;
  close(links->fd);
  free(links);
}

static void links_end(void *data) {
  struct links *links = data;
  if (links->closing) return;
  links->closing = true;
  napi_remove_env_cleanup_hook(links->env, links_end, links);
  callback_drop(&links->on_change);
  uv_close((uv_handle_t *)&links->poll, freed);
}

/* linksWatch(onChange): what watches, or -errno. It keeps no process alive. */
static napi_value watch(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  uv_loop_t *loop;
  if (call.bad || napi_get_uv_event_loop(env, &loop) != napi_ok) return bad_call(&call);
  struct links *links = calloc(1, sizeof *links);
  int fd = open_notices();
  int error = links == NULL ? -ENOMEM : fd < 0 ? fd : uv_poll_init(loop, &links->poll, fd);
  if (error < 0) {
    if (fd >= 0) close(fd);
    free(links);
    return integer(&call, error);
  }
  links->env = env;
  links->fd = fd;
  links->poll.data = links;
  napi_add_env_cleanup_hook(env, links_end, links);
  uv_unref((uv_handle_t *)&links->poll);
  napi_value external = NULL;
  if (!callback_keep(&links->on_change, env, call.argv[0], "pilot-links") ||
      uv_poll_start(&links->poll, UV_READABLE, ready) < 0 ||
      napi_create_external(env, links, NULL, NULL, &external) != napi_ok) {
    links_end(links);
    return integer(&call, -ENOMEM);
  }
  return external;
}

/* linksEnd(links): no call comes after this */
static napi_value end(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  void *links = NULL;
  if (napi_get_value_external(env, call.argv[0], &links) != napi_ok || links == NULL) return bad_call(&call);
  links_end(links);
  return NULL;
}

bool links_export(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"linksWatch", watch}, {"linksEnd", end}};
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
