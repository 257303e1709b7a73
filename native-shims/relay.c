/*
 * The socket of a beacon that relays: batches of datagrams in, batches out, and between the two JavaScript decides.
 *
 * relayReceive fills slots of an arena (one message of the kernel's each, up to 64 KB when UDP_GRO joined datagrams of
 * one source) and describes them in rows: a run of relay messages (first byte 05) with equal sender and destination, or
 * any other datagram by itself. relaySend takes rows that JavaScript gave a destination and sends each as one message
 * (UDP_SEGMENT), rewriting the bytes in front of each frame in place: 05 becomes 09 of the same length, or 06, whose
 * four bytes less are left out by scattered parts. A row may be handed over again after a full socket: the rewriting can
 * be repeated. JavaScript owns arena and rows and knows which slots are free. Nothing is allocated per packet.
 */
#include "relay.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "plane.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* Numbers repeated from src/io/native-relay.ts, which is the source. */
enum { RELAY_SLOT_BYTES = 65536, RELAY_BATCH = 32, RELAY_ROWS = 2112, RELAY_ROW_WORDS = 12 };
enum relay_word {
  RELAY_SLOT, /* in: which slot */
  RELAY_OFFSET, /* in the arena */
  RELAY_LENGTH,
  RELAY_SEGMENT, /* bytes of each datagram but the last */
  RELAY_SENDER, /* of a relay message; in a row to send: written into the frames of the short form */
  RELAY_DESTINATION,
  RELAY_FORM, /* in: 5 or 0 for any other; to send: 6, 9, or 0 for the bytes as they are */
  RELAY_ADDRESS, /* 4 words, as they stand in memory */
  RELAY_PORT = 11,
};
enum { TYPE_RELAY = 0x05, TYPE_DELIVER = 0x06, TYPE_DELIVER_TO = 0x09, RELAY_PREFIX = 9, SHORTER = 4 };
enum { SOCKET_BUFFER = 8 << 20, MAX_RUN_FRAMES = 64, MAX_RUN_BYTES = 65000, SEND_BATCH = 32 };

struct relay {
  int fd;
  bool has_poll, watches_writable, closing;
  napi_env env;
  napi_async_context context;
  napi_ref on_ready, arrays[3];
  uv_poll_t poll;
  uint8_t *arena;
  size_t slots;
  int32_t *rows, *free_slots;
  double failed; /* datagrams the kernel refused to send */
};

/* ---- receiving ---- */

static uint32_t gro_size(struct msghdr *header, uint32_t bytes) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
    int size;
    memcpy(&size, CMSG_DATA(c), sizeof size);
    if (size > 0) return (uint32_t)size;
  }
  return bytes;
}

static bool is_relay(const uint8_t *bytes, uint32_t length) { return length >= RELAY_PREFIX && bytes[0] == TYPE_RELAY; }

/* Describes one message of the kernel's; the number of rows written. */
static int describe(struct relay *relay, int slot, const struct sockaddr_in6 *from, uint32_t bytes, uint32_t segment,
                    int row_index) {
  uint32_t base = (uint32_t)slot * RELAY_SLOT_BYTES, at = 0;
  int first = row_index;
  int32_t *row = NULL;
  while (at < bytes && row_index < RELAY_ROWS) {
    uint32_t length = bytes - at < segment ? bytes - at : segment;
    const uint8_t *datagram = relay->arena + base + at;
    bool relayed = is_relay(datagram, length);
    bool joins = relayed && row != NULL && row[RELAY_FORM] == TYPE_RELAY &&
                 memcmp(datagram, relay->arena + row[RELAY_OFFSET], RELAY_PREFIX) == 0 &&
                 (uint32_t)row[RELAY_LENGTH] + length <= MAX_RUN_BYTES &&
                 (uint32_t)row[RELAY_LENGTH] < MAX_RUN_FRAMES * segment;
    if (joins) {
      row[RELAY_LENGTH] += (int32_t)length;
    } else {
      row = relay->rows + (size_t)row_index++ * RELAY_ROW_WORDS;
      row[RELAY_SLOT] = slot;
      row[RELAY_OFFSET] = (int32_t)(base + at);
      row[RELAY_LENGTH] = (int32_t)length;
      row[RELAY_SEGMENT] = (int32_t)length;
      row[RELAY_FORM] = relayed ? TYPE_RELAY : 0;
      row[RELAY_SENDER] = relayed ? (int32_t)read_u32(datagram + 1) : 0;
      row[RELAY_DESTINATION] = relayed ? (int32_t)read_u32(datagram + 5) : 0;
      memcpy(&row[RELAY_ADDRESS], &from->sin6_addr, 16);
      row[RELAY_PORT] = ntohs(from->sin6_port);
    }
    at += length;
  }
  return row_index - first;
}

/* Fills the first `count` slots that free_slots names; the number of rows or -errno. *used: slots that were filled. */
static int receive(struct relay *relay, int count, int *used) {
  struct mmsghdr headers[RELAY_BATCH];
  struct iovec parts[RELAY_BATCH];
  struct sockaddr_in6 from[RELAY_BATCH];
  _Alignas(struct cmsghdr) char controls[RELAY_BATCH][64];
  for (int i = 0; i < count; i++) {
    parts[i] = (struct iovec){relay->arena + (size_t)relay->free_slots[i] * RELAY_SLOT_BYTES, RELAY_SLOT_BYTES};
    headers[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i],
                                         .msg_iovlen = 1, .msg_control = controls[i], .msg_controllen = 64};
  }
  int received = recvmmsg(relay->fd, headers, (unsigned)count, MSG_DONTWAIT, NULL), rows = 0;
  *used = received < 0 ? 0 : received;
  if (received < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
  for (int i = 0; i < received; i++)
    rows += describe(relay, relay->free_slots[i], &from[i], headers[i].msg_len,
                     gro_size(&headers[i].msg_hdr, headers[i].msg_len), rows);
  return rows;
}

/* ---- sending ---- */

struct outgoing {
  struct sockaddr_in6 to;
  struct iovec parts[MAX_RUN_FRAMES];
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))];
  int frames;
};

/* Rewrites what stands before each frame and lays out the parts of one message. */
static void prepare(struct relay *relay, const int32_t *row, struct outgoing *out, struct msghdr *header) {
  uint8_t *bytes = relay->arena + row[RELAY_OFFSET];
  uint32_t length = (uint32_t)row[RELAY_LENGTH], segment = (uint32_t)row[RELAY_SEGMENT];
  uint32_t skip = row[RELAY_FORM] == TYPE_DELIVER ? SHORTER : 0;
  out->frames = 0;
  for (uint32_t at = 0; at < length && out->frames < MAX_RUN_FRAMES; at += segment) {
    uint8_t *frame = bytes + at;
    uint32_t size = length - at < segment ? length - at : segment;
    if (skip != 0) {
      write_u32(frame + 5, (uint32_t)row[RELAY_SENDER]);
      frame[4] = TYPE_DELIVER;
    } else if (row[RELAY_FORM] == TYPE_DELIVER_TO) {
      frame[0] = TYPE_DELIVER_TO;
    }
    out->parts[out->frames++] = (struct iovec){frame + skip, size - skip};
  }
  memset(&out->to, 0, sizeof out->to);
  out->to.sin6_family = AF_INET6;
  out->to.sin6_port = htons((uint16_t)row[RELAY_PORT]);
  memcpy(&out->to.sin6_addr, &row[RELAY_ADDRESS], 16);
  *header = (struct msghdr){.msg_name = &out->to, .msg_namelen = sizeof out->to, .msg_iov = out->parts,
                            .msg_iovlen = (size_t)out->frames};
  if (out->frames < 2) return;
  header->msg_control = out->control;
  header->msg_controllen = sizeof out->control;
  struct cmsghdr *c = CMSG_FIRSTHDR(header);
  uint16_t size = (uint16_t)(segment - skip);
  c->cmsg_level = IPPROTO_UDP;
  c->cmsg_type = UDP_SEGMENT;
  c->cmsg_len = CMSG_LEN(sizeof size);
  memcpy(CMSG_DATA(c), &size, sizeof size);
}

/* Where a run is refused (a path with a smaller MTU, a device without segmentation) its frames go one by one. */
static void send_singly(struct relay *relay, struct outgoing *out) {
  for (int i = 0; i < out->frames; i++) {
    struct msghdr header = {.msg_name = &out->to, .msg_namelen = sizeof out->to, .msg_iov = &out->parts[i], .msg_iovlen = 1};
    if (sendmsg(relay->fd, &header, MSG_DONTWAIT) < 0) relay->failed++;
  }
}

/* Sends rows `first` to `count`; the number that are done with, sent or refused. Fewer: the socket is full. */
static int send_rows(struct relay *relay, int count) {
  static struct outgoing outgoing[SEND_BATCH]; /* one thread; too large for its stack */
  struct mmsghdr headers[SEND_BATCH];
  int done = 0;
  while (done < count) {
    int batch = count - done < SEND_BATCH ? count - done : SEND_BATCH;
    for (int i = 0; i < batch; i++)
      prepare(relay, relay->rows + (size_t)(done + i) * RELAY_ROW_WORDS, &outgoing[i], &headers[i].msg_hdr);
    int sent = sendmmsg(relay->fd, headers, (unsigned)batch, MSG_DONTWAIT);
    if (sent > 0) {
      done += sent;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return done;
    if (outgoing[0].frames > 1 && (errno == EINVAL || errno == EMSGSIZE || errno == EIO)) send_singly(relay, &outgoing[0]);
    else relay->failed += outgoing[0].frames;
    done++;
  }
  return done;
}

/* ---- the socket and its wake-ups ---- */

static void ready(uv_poll_t *handle, int status, int events) {
  struct relay *relay = handle->data;
  napi_handle_scope scope;
  napi_value receiver, function, error;
  bool pending = false;
  (void)events;
  if (status < 0) { /* an error that a datagram left on the socket; reading it clears it */
    int code;
    socklen_t length = sizeof code;
    getsockopt(relay->fd, SOL_SOCKET, SO_ERROR, &code, &length);
    return;
  }
  if (napi_open_handle_scope(relay->env, &scope) != napi_ok) return;
  if (napi_get_global(relay->env, &receiver) == napi_ok &&
      napi_get_reference_value(relay->env, relay->on_ready, &function) == napi_ok && function != NULL &&
      napi_make_callback(relay->env, relay->context, receiver, function, 0, NULL, NULL) != napi_ok &&
      napi_is_exception_pending(relay->env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(relay->env, &error) == napi_ok)
    napi_fatal_exception(relay->env, error);
  napi_close_handle_scope(relay->env, scope);
}

static void freed(uv_handle_t *handle) {
  struct relay *relay = handle->data;
  close(relay->fd);
  free(relay);
}

static void relay_end(void *data) {
  struct relay *relay = data;
  if (relay->closing) return;
  relay->closing = true;
  napi_remove_env_cleanup_hook(relay->env, relay_end, relay);
  for (int i = 0; i < 3; i++)
    if (relay->arrays[i] != NULL) napi_delete_reference(relay->env, relay->arrays[i]);
  if (relay->on_ready != NULL) napi_delete_reference(relay->env, relay->on_ready);
  if (relay->context != NULL) napi_async_destroy(relay->env, relay->context);
  uv_close((uv_handle_t *)&relay->poll, freed);
}

static int open_socket(const struct sockaddr_in6 *bind_to) {
  int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, off = 0, bytes = SOCKET_BUFFER;
  if (fd < 0) return -errno;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
  if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0 &&
      bind(fd, (const struct sockaddr *)bind_to, sizeof *bind_to) == 0)
    return fd;
  int error = errno;
  close(fd);
  return -error;
}

/* ---- what JavaScript calls ---- */

static napi_value integer(napi_env env, int32_t value) {
  napi_value result = NULL;
  napi_create_int32(env, value, &result);
  return result;
}

static void *array(napi_env env, napi_value value, napi_typedarray_type type, size_t least, size_t *length) {
  napi_typedarray_type actual;
  void *data = NULL;
  if (napi_get_typedarray_info(env, value, &actual, length, &data, NULL, NULL) != napi_ok || actual != type ||
      *length < least)
    return NULL;
  return data;
}

static struct relay *relay_of(napi_env env, napi_value value) {
  void *relay = NULL;
  if (napi_get_value_external(env, value, &relay) != napi_ok || relay == NULL || ((struct relay *)relay)->closing) {
    napi_throw_type_error(env, NULL, "no open relay");
    return NULL;
  }
  return relay;
}

/* relayOpen(address, port, arena, rows, freeSlots, onReady): the relay, or -errno */
static napi_value relay_open(napi_env env, napi_callback_info info) {
  napi_value argv[6], name, external = NULL;
  size_t count = 6, arena_bytes, length;
  char address[64];
  int32_t port;
  uv_loop_t *loop;
  struct sockaddr_in6 bind_to;
  struct relay *relay = calloc(1, sizeof *relay);
  if (relay == NULL) return integer(env, -ENOMEM);
  relay->env = env;
  if (napi_get_cb_info(env, info, &count, argv, NULL, NULL) != napi_ok || count < 6 ||
      napi_get_value_string_utf8(env, argv[0], address, sizeof address, &length) != napi_ok ||
      napi_get_value_int32(env, argv[1], &port) != napi_ok ||
      (relay->arena = array(env, argv[2], napi_uint8_array, RELAY_SLOT_BYTES, &arena_bytes)) == NULL ||
      (relay->rows = array(env, argv[3], napi_int32_array, RELAY_ROWS * RELAY_ROW_WORDS, &length)) == NULL ||
      (relay->free_slots = array(env, argv[4], napi_int32_array, RELAY_BATCH, &length)) == NULL ||
      napi_get_uv_event_loop(env, &loop) != napi_ok) {
    free(relay);
    napi_throw_type_error(env, NULL, "relayOpen: wrong arguments");
    return NULL;
  }
  relay->slots = arena_bytes / RELAY_SLOT_BYTES;
  relay->fd = udp_parse_address(address, port, &bind_to) < 0 ? -EINVAL : open_socket(&bind_to);
  int error = relay->fd < 0 ? relay->fd : uv_poll_init(loop, &relay->poll, relay->fd);
  if (error < 0) {
    if (relay->fd >= 0) close(relay->fd);
    free(relay);
    return integer(env, error);
  }
  relay->poll.data = relay;
  napi_add_env_cleanup_hook(env, relay_end, relay);
  for (int i = 0; i < 3; i++) napi_create_reference(env, argv[2 + i], 1, &relay->arrays[i]);
  napi_create_reference(env, argv[5], 1, &relay->on_ready);
  napi_create_string_utf8(env, "pilot-relay", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &relay->context);
  uv_poll_start(&relay->poll, UV_READABLE, ready);
  napi_create_external(env, relay, NULL, NULL, &external);
  return external;
}

/* relayPort(relay): the port bound, or -errno */
static napi_value relay_port(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  size_t count = 1;
  struct sockaddr_in6 bound;
  socklen_t length = sizeof bound;
  napi_get_cb_info(env, info, &count, argv, NULL, NULL);
  struct relay *relay = relay_of(env, argv[0]);
  if (relay == NULL) return NULL;
  if (getsockname(relay->fd, (struct sockaddr *)&bound, &length) < 0) return integer(env, -errno);
  return integer(env, ntohs(bound.sin6_port));
}

/* relayReceive(relay, count): rows filled, with slots used in the upper half (rows + 65536 * slots), or -errno */
static napi_value relay_receive(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  size_t count = 2;
  int32_t wanted = 0;
  int used;
  napi_get_cb_info(env, info, &count, argv, NULL, NULL);
  struct relay *relay = relay_of(env, argv[0]);
  if (relay == NULL) return NULL;
  bool valid = napi_get_value_int32(env, argv[1], &wanted) == napi_ok && wanted >= 0 && wanted <= RELAY_BATCH;
  for (int i = 0; valid && i < wanted; i++) valid = relay->free_slots[i] >= 0 && (size_t)relay->free_slots[i] < relay->slots;
  if (!valid) {
    napi_throw_type_error(env, NULL, "relayReceive: wrong arguments");
    return NULL;
  }
  if (wanted == 0) return integer(env, 0);
  int rows = receive(relay, wanted, &used);
  return integer(env, rows < 0 ? rows : rows + (used << 16));
}

static bool valid_row(const struct relay *relay, const int32_t *row) {
  int64_t end = (int64_t)row[RELAY_OFFSET] + row[RELAY_LENGTH];
  int32_t least = row[RELAY_FORM] == 0 ? 1 : RELAY_PREFIX;
  return row[RELAY_OFFSET] >= 0 && row[RELAY_LENGTH] > 0 && end <= (int64_t)(relay->slots * RELAY_SLOT_BYTES) &&
         row[RELAY_SEGMENT] >= least && (row[RELAY_LENGTH] - 1) / row[RELAY_SEGMENT] < MAX_RUN_FRAMES &&
         (row[RELAY_LENGTH] - 1) % row[RELAY_SEGMENT] + 1 >= least;
}

/* relaySend(relay, count): rows done with; fewer than count when the socket is full, which is then watched */
static napi_value relay_send(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  size_t count = 2;
  int32_t rows = 0;
  napi_get_cb_info(env, info, &count, argv, NULL, NULL);
  struct relay *relay = relay_of(env, argv[0]);
  if (relay == NULL) return NULL;
  bool valid = napi_get_value_int32(env, argv[1], &rows) == napi_ok && rows >= 0 && rows <= RELAY_ROWS;
  for (int32_t i = 0; valid && i < rows; i++) valid = valid_row(relay, relay->rows + (size_t)i * RELAY_ROW_WORDS);
  if (!valid) {
    napi_throw_type_error(env, NULL, "relaySend: wrong rows");
    return NULL;
  }
  int done = send_rows(relay, rows);
  bool is_full = done < rows;
  if (is_full != relay->watches_writable) {
    relay->watches_writable = is_full;
    uv_poll_start(&relay->poll, is_full ? UV_READABLE | UV_WRITABLE : UV_READABLE, ready);
  }
  return integer(env, done);
}

/* relayFailed(relay): datagrams that the kernel refused to send so far */
static napi_value relay_failed(napi_env env, napi_callback_info info) {
  napi_value argv[1], result = NULL;
  size_t count = 1;
  napi_get_cb_info(env, info, &count, argv, NULL, NULL);
  struct relay *relay = relay_of(env, argv[0]);
  if (relay != NULL) napi_create_double(env, relay->failed, &result);
  return result;
}

/* relayClose(relay): no other function may be called with it afterwards */
static napi_value relay_close(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  size_t count = 1;
  napi_get_cb_info(env, info, &count, argv, NULL, NULL);
  struct relay *relay = relay_of(env, argv[0]);
  if (relay != NULL) relay_end(relay);
  return NULL;
}

bool relay_export(napi_env env, napi_value exports) {
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {
    {"relayOpen", relay_open},       {"relayPort", relay_port},     {"relayReceive", relay_receive},
    {"relaySend", relay_send},       {"relayFailed", relay_failed}, {"relayClose", relay_close},
  };
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    napi_value function;
    if (napi_create_function(env, NULL, 0, functions[i].function, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
      return false;
  }
  return true;
}
