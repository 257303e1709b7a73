/*
 * TCP sockets by descriptor, for the daemon's ends of connections with plain agents: thousands, most of them idle, and some
 * that carry hundreds of megabytes a second. Node's own sockets allocate for every read and keep kilobytes for each
 * connection; here JavaScript reads into and writes from memory that it uses again, and an idle socket is a descriptor.
 *
 * One epoll descriptor watches all of them, edge-triggered, so that a socket nobody reads wakes nobody; libuv watches that
 * one. tcpPoll tells which have changed. IPv6 only, as the overlay is. Results below zero are -errno.
 */
#include "tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "call.h"
#include "callback.h"
#include "plane.h"

/* Numbers repeated from src/io/native.ts. */
enum { TCP_ROW_WORDS = 2, TCP_ROWS = 256, TCP_READABLE = 1, TCP_WRITABLE = 2, TCP_GONE = 4, TCP_PEER_BYTES = 18 };

struct tcp {
  napi_env env;
  struct callback on_ready;
  napi_ref rows_array;
  uv_poll_t poll;
  int epoll_fd;
  bool closing;
  int32_t *rows;
};

/* ---- wake-ups ---- */

static void ready(uv_poll_t *handle, int status, int events) {
  (void)status;
  (void)events;
  callback_run(&((struct tcp *)handle->data)->on_ready);
}

static void freed(uv_handle_t *handle) {
  struct tcp *tcp = handle->data;
  close(tcp->epoll_fd);
  free(tcp);
}

static void tcp_end(void *data) {
  struct tcp *tcp = data;
  if (tcp->closing) return;
  tcp->closing = true;
  napi_remove_env_cleanup_hook(tcp->env, tcp_end, tcp);
  if (tcp->rows_array != NULL) napi_delete_reference(tcp->env, tcp->rows_array);
  callback_drop(&tcp->on_ready);
  uv_close((uv_handle_t *)&tcp->poll, freed);
}

static struct tcp *tcp_of(struct call *call) {
  void *tcp = NULL;
  if (napi_get_value_external(call->env, call->argv[0], &tcp) != napi_ok || tcp == NULL || ((struct tcp *)tcp)->closing)
    call->bad = true;
  return tcp;
}

/* tcpOpen(rows, onReady): what watches sockets, or -errno */
static napi_value tcp_open(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int32_t *rows = array_of(&call, 0, napi_int32_array, (size_t)TCP_ROWS * TCP_ROW_WORDS, NULL);
  uv_loop_t *loop;
  if (call.bad || napi_get_uv_event_loop(env, &loop) != napi_ok) return bad_call(&call);
  struct tcp *tcp = calloc(1, sizeof *tcp);
  int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  int error = tcp == NULL ? -ENOMEM : epoll_fd < 0 ? -errno : uv_poll_init(loop, &tcp->poll, epoll_fd);
  if (error < 0) {
    if (epoll_fd >= 0) close(epoll_fd);
    free(tcp);
    return integer(&call, error);
  }
  tcp->env = env;
  tcp->rows = rows;
  tcp->epoll_fd = epoll_fd;
  tcp->poll.data = tcp;
  napi_add_env_cleanup_hook(env, tcp_end, tcp);
  napi_value external = NULL;
  if (napi_create_reference(env, call.argv[0], 1, &tcp->rows_array) != napi_ok ||
      !callback_keep(&tcp->on_ready, env, call.argv[1], "pilot-tcp") ||
      uv_poll_start(&tcp->poll, UV_READABLE, ready) < 0 ||
      napi_create_external(env, tcp, NULL, NULL, &external) != napi_ok) {
    tcp_end(tcp);
    return integer(&call, -ENOMEM);
  }
  return external;
}

/* tcpEnd(tcp): its sockets stay open, and nobody watches them */
static napi_value end(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct tcp *tcp = tcp_of(&call);
  if (call.bad) return bad_call(&call);
  tcp_end(tcp);
  return NULL;
}

/* tcpWatch(tcp, fd): begins to watch, or tells again what is so now */
static napi_value watch(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct tcp *tcp = tcp_of(&call);
  int fd = int_of(&call, 1);
  if (call.bad) return bad_call(&call);
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
  int result = epoll_ctl(tcp->epoll_fd, EPOLL_CTL_ADD, fd, &event);
  if (result < 0 && errno == EEXIST) result = epoll_ctl(tcp->epoll_fd, EPOLL_CTL_MOD, fd, &event);
  return integer(&call, result < 0 ? -errno : 0);
}

/* tcpPoll(tcp): rows filled, each a descriptor and what is so; it may be called until it fills none */
static napi_value poll_sockets(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct tcp *tcp = tcp_of(&call);
  if (call.bad) return bad_call(&call);
  struct epoll_event events[TCP_ROWS];
  int count = epoll_wait(tcp->epoll_fd, events, TCP_ROWS, 0);
  if (count < 0) return integer(&call, errno == EINTR ? 0 : -errno);
  for (int i = 0; i < count; i++) {
    uint32_t is = events[i].events;
    int32_t *row = tcp->rows + (size_t)i * TCP_ROW_WORDS;
    row[0] = events[i].data.fd;
    row[1] = (is & (EPOLLIN | EPOLLRDHUP) ? TCP_READABLE : 0) | (is & EPOLLOUT ? TCP_WRITABLE : 0) |
             (is & (EPOLLERR | EPOLLHUP | EPOLLRDHUP) ? TCP_GONE : 0);
  }
  return integer(&call, count);
}

/* ---- sockets ---- */

static int bound_socket(const char *address) {
  struct sockaddr_in6 here;
  int on = 1, error = udp_parse_address(address, 0, &here);
  if (error < 0) return error;
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&here, sizeof here) == 0) return fd;
  error = -errno;
  close(fd);
  return error;
}

/* tcpBind(address): a socket with a port that nobody on this host has */
static napi_value bind_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  char address[64];
  text_of(&call, 0, address, sizeof address);
  return call.bad ? bad_call(&call) : integer(&call, bound_socket(address));
}

/* tcpListen(fd, backlog) */
static napi_value listen_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0), backlog = int_of(&call, 1);
  if (call.bad) return bad_call(&call);
  return integer(&call, listen(fd, backlog) < 0 ? -errno : 0);
}

/* tcpPort(fd): its own */
static napi_value port_of(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0);
  if (call.bad) return bad_call(&call);
  struct sockaddr_in6 bound;
  socklen_t length = sizeof bound;
  int result = getsockname(fd, (struct sockaddr *)&bound, &length);
  return integer(&call, result < 0 ? -errno : ntohs(bound.sin6_port));
}

/* tcpAccept(fd, peer): the next connection; `peer` gets the far end's address, 16 bytes, and port */
static napi_value accept_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int listener = int_of(&call, 0), on = 1;
  struct bytes peer = bytes_of(&call, 1, TCP_PEER_BYTES);
  if (call.bad) return bad_call(&call);
  struct sockaddr_in6 from;
  socklen_t length = sizeof from;
  int fd = accept4(listener, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return integer(&call, -errno);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  memcpy(peer.at, &from.sin6_addr, 16);
  write_u16(peer.at + 16, ntohs(from.sin6_port));
  return integer(&call, fd);
}

/* tcpConnect(fd, address, port): begins; writable or gone says how it went */
static napi_value connect_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0), port = int_of(&call, 2);
  const uint8_t *address = bytes_exactly(&call, 1, 16);
  if (call.bad) return bad_call(&call);
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  memcpy(&to.sin6_addr, address, 16);
  int result = connect(fd, (struct sockaddr *)&to, sizeof to);
  return integer(&call, result < 0 && errno != EINPROGRESS ? -errno : 0);
}

/* tcpError(fd): what went wrong since the last question; 0 for nothing */
static napi_value error_of(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0), error = 0;
  if (call.bad) return bad_call(&call);
  socklen_t length = sizeof error;
  int result = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return integer(&call, result < 0 ? -errno : -error);
}

/* tcpRead(fd, bytes): how many; 0 when the far end ended its direction */
static napi_value read_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0);
  struct bytes into = bytes_of(&call, 1, 1);
  if (call.bad) return bad_call(&call);
  ssize_t count = recv(fd, into.at, into.length, MSG_DONTWAIT);
  return integer(&call, count < 0 ? -errno : (int32_t)count);
}

/* tcpWrite(fd, bytes): how many were taken */
static napi_value write_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0);
  struct bytes from = bytes_of(&call, 1, 0);
  if (call.bad) return bad_call(&call);
  ssize_t count = send(fd, from.at, from.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  return integer(&call, count < 0 ? -errno : (int32_t)count);
}

/* tcpShutdown(fd): nothing more will be written */
static napi_value shutdown_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, shutdown(fd, SHUT_WR) < 0 ? -errno : 0);
}

/* tcpClose(fd, reset): `reset` breaks off with RST, whatever waits */
static napi_value close_socket(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fd = int_of(&call, 0);
  bool reset = bool_of(&call, 1);
  if (call.bad) return bad_call(&call);
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  if (reset) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  return integer(&call, close(fd) < 0 ? -errno : 0);
}

bool tcp_export(napi_env env, napi_value exports) {
  static const struct function functions[] = {
    {"tcpOpen", tcp_open},           {"tcpEnd", end},
    {"tcpWatch", watch},             {"tcpPoll", poll_sockets},
    {"tcpBind", bind_socket},        {"tcpListen", listen_socket},
    {"tcpPort", port_of},            {"tcpAccept", accept_socket},
    {"tcpConnect", connect_socket},  {"tcpError", error_of},
    {"tcpRead", read_socket},        {"tcpWrite", write_socket},
    {"tcpShutdown", shutdown_socket}, {"tcpClose", close_socket},
  };
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
