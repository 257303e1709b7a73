/*
 * Wake-ups: three moments at which JavaScript must act - the TUN is readable, the socket is readable, the socket is
 * writable again after it was full - become calls from Node's own event loop (uv_poll, level-triggered).
 *
 * JavaScript may leave work behind: what the descriptors still hold raises the next wake-up by itself; datagrams already
 * received but not yet opened for want of rows would not, so an idle handle runs while there are any. When the socket is
 * full it is also watched for writing; the queue is flushed here and JavaScript is told when it is empty.
 *
 * The handles live in one block that outlives the plane until libuv has closed all of them.
 */
#include "loop.h"

#include <stdlib.h>
#include <uv.h>

#include "callback.h"

enum handle_index { TUN_POLL, UDP_POLL, ASIDE_POLL, LEFT_IDLE, HANDLE_COUNT };
enum callback_index { ON_TUN, ON_UDP, ON_WRITABLE, CALLBACK_COUNT };

struct wakeups {
  napi_env env;
  struct callback callbacks[CALLBACK_COUNT];
  struct plane *plane;
  union uv_any_handle handles[HANDLE_COUNT];
  int open_handles;
  bool has_udp, watches_writable;
};

static void call(const struct wakeups *wakeups, enum callback_index which) { callback_run(&wakeups->callbacks[which]); }

/* ---- the handles ---- */

static void tun_ready(uv_poll_t *handle, int status, int events) {
  (void)status;
  (void)events;
  call(handle->data, ON_TUN);
}

static void left_ready(uv_idle_t *handle);

static void watch_left(struct wakeups *wakeups) {
  uv_idle_t *idle = &wakeups->handles[LEFT_IDLE].idle;
  if (wakeups->plane == NULL || !wakeups->has_udp || uv_is_closing((uv_handle_t *)idle)) return;
  if (wakeups->plane->status[STATUS_RECEIVE_LEFT]) uv_idle_start(idle, left_ready);
  else uv_idle_stop(idle);
}

static void left_ready(uv_idle_t *handle) {
  struct wakeups *wakeups = handle->data;
  call(wakeups, ON_UDP);
  watch_left(wakeups);
}

static void udp_ready(uv_poll_t *handle, int status, int events);

static void poll_udp(struct wakeups *wakeups) {
  int events = wakeups->watches_writable ? UV_READABLE | UV_WRITABLE : UV_READABLE;
  uv_poll_start(&wakeups->handles[UDP_POLL].poll, events, udp_ready);
}

static void watch_writable(struct wakeups *wakeups, bool watch) {
  if (watch == wakeups->watches_writable) return;
  wakeups->watches_writable = watch;
  poll_udp(wakeups);
}

static void socket_writable(struct wakeups *wakeups) {
  struct plane *plane = wakeups->plane;
  udp_note_unsent(plane);
  udp_flush(plane);
  if (plane->status[STATUS_SEND_BLOCKED]) return;
  watch_writable(wakeups, false);
  call(wakeups, ON_WRITABLE);
}

/* An error that some datagram left on the socket makes libuv stop watching it; it is no reason to go deaf. */
static void resume_after_error(struct wakeups *wakeups) {
  int error;
  socklen_t length = sizeof error;
  getsockopt(wakeups->plane->udp_fd, SOL_SOCKET, SO_ERROR, &error, &length);
  poll_udp(wakeups);
}

static void udp_ready(uv_poll_t *handle, int status, int events) {
  struct wakeups *wakeups = handle->data;
  if (status < 0) return resume_after_error(wakeups);
  if (events & UV_WRITABLE) socket_writable(wakeups);
  if (wakeups->plane == NULL) return; /* closed by the callback */
  if (events & UV_READABLE) call(wakeups, ON_UDP);
  watch_left(wakeups);
}

static void aside_ready(uv_poll_t *handle, int status, int events) {
  struct wakeups *wakeups = handle->data;
  (void)events;
  if (status < 0) uv_poll_start(handle, UV_READABLE, aside_ready);
  else call(wakeups, ON_UDP);
  watch_left(wakeups);
}

/*
 * Only begins to watch. A later send may empty the queue by itself, but JavaScript, which stopped sending, must still
 * hear of it.
 */
void wakeups_watch_writable(struct plane *plane) {
  struct wakeups *wakeups = plane->wakeups;
  if (wakeups != NULL && wakeups->has_udp && plane->status[STATUS_SEND_BLOCKED]) watch_writable(wakeups, true);
}

/* ---- starting and stopping ---- */

static int add_poll(struct wakeups *wakeups, uv_loop_t *loop, enum handle_index which, int fd, uv_poll_cb ready) {
  uv_poll_t *handle = &wakeups->handles[which].poll;
  int error = uv_poll_init(loop, handle, fd);
  if (error < 0) return error;
  handle->data = wakeups;
  wakeups->open_handles++;
  if (which == UDP_POLL) wakeups->has_udp = true;
  return uv_poll_start(handle, UV_READABLE, ready);
}

static int add_idle(struct wakeups *wakeups, uv_loop_t *loop) {
  uv_idle_t *handle = &wakeups->handles[LEFT_IDLE].idle;
  int error = uv_idle_init(loop, handle);
  if (error < 0) return error;
  handle->data = wakeups;
  wakeups->open_handles++;
  return 0;
}

static int add_handles(struct wakeups *wakeups, uv_loop_t *loop) {
  struct plane *plane = wakeups->plane;
  int error = 0;
  if (plane->udp_fd >= 0) error = add_idle(wakeups, loop);
  if (error == 0 && plane->udp_fd >= 0) error = add_poll(wakeups, loop, UDP_POLL, plane->udp_fd, udp_ready);
  if (error == 0 && plane->aside_fd >= 0) error = add_poll(wakeups, loop, ASIDE_POLL, plane->aside_fd, aside_ready);
  if (error == 0 && plane->tun_fd >= 0) error = add_poll(wakeups, loop, TUN_POLL, plane->tun_fd, tun_ready);
  return error;
}

static bool keep_callbacks(struct wakeups *wakeups, napi_value functions[CALLBACK_COUNT]) {
  for (int i = 0; i < CALLBACK_COUNT; i++)
    if (!callback_keep(&wakeups->callbacks[i], wakeups->env, functions[i], "pilot-tun")) return false;
  return true;
}

static void env_ends(void *data) { wakeups_stop(data); }

int wakeups_start(napi_env env, struct plane *plane, napi_value on_tun, napi_value on_udp, napi_value on_writable) {
  uv_loop_t *loop;
  if (plane->wakeups != NULL) return -EBUSY;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return -EINVAL;
  struct wakeups *wakeups = calloc(1, sizeof *wakeups);
  if (wakeups == NULL) return -ENOMEM;
  wakeups->env = env;
  wakeups->plane = plane;
  plane->wakeups = wakeups;
  napi_add_env_cleanup_hook(env, env_ends, plane);
  int error = keep_callbacks(wakeups, (napi_value[]){on_tun, on_udp, on_writable}) ? add_handles(wakeups, loop) : -EINVAL;
  if (error < 0) wakeups_stop(plane);
  else wakeups_watch_writable(plane);
  return error;
}

static void handle_closed(uv_handle_t *handle) {
  struct wakeups *wakeups = handle->data;
  if (--wakeups->open_handles == 0) free(wakeups);
}

void wakeups_stop(struct plane *plane) {
  struct wakeups *wakeups = plane->wakeups;
  if (wakeups == NULL) return;
  plane->wakeups = NULL;
  wakeups->plane = NULL;
  napi_remove_env_cleanup_hook(wakeups->env, env_ends, plane);
  for (int i = 0; i < CALLBACK_COUNT; i++) callback_drop(&wakeups->callbacks[i]);
  if (wakeups->open_handles == 0) return free(wakeups);
  for (int i = 0; i < HANDLE_COUNT; i++) {
    uv_handle_t *handle = (uv_handle_t *)&wakeups->handles[i];
    if (handle->data != NULL) uv_close(handle, handle_closed);
  }
}
