/*
 * The sockets of a beacon that relays: batches of datagrams in, batches out, and between the two JavaScript decides.
 *
 * One port, many sockets in two groups: a program that JavaScript makes, and the kernel runs for each datagram, says into
 * which of them it goes. Those of a group are read in turn, and JavaScript says which group. When more comes than can be
 * read, the buffer that overflows is the one of whoever sends too much: others, but for the few that share it, lose
 * nothing and do not wait behind it.
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
#include <linux/filter.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "call.h"
#include "callback.h"
#include "datagram.h"
#include "plane.h"

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
enum { MAX_RUN_FRAMES = 64, MAX_RUN_BYTES = 65000, SEND_BATCH = 32 };
/* Group sockets: repeated from src/rendezvous/source-sorting.ts. The sockets of one group follow each other. */
enum { GROUPS = 2, GROUP_SOCKETS = 16, SOCKETS = GROUPS * GROUP_SOCKETS, MAX_STEPS = 4096 };
/* Enough for what one source sends in some ten milliseconds at full speed; only the first socket sends. */
enum { SEND_SOCKET_BUFFER = 8 << 20 };
static const int receive_buffers[GROUPS] = {2 << 20, 512 << 10};
enum { HELD_ARRAYS = 3 };

struct relay_socket {
  struct relay *relay;
  uv_poll_t poll;
  int fd;
  bool readable;
};

struct relay {
  struct relay_socket sockets[SOCKETS];
  int next[GROUPS]; /* whose turn it is to be read */
  int open_polls;
  bool watches_writable, closing;
  napi_env env;
  struct callback on_ready;
  napi_ref arrays[HELD_ARRAYS];
  uint8_t *arena;
  size_t slots;
  int32_t *rows, *free_slots;
  double failed; /* datagrams the kernel refused to send */
};

/* ---- receiving ---- */

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

/* Fills the first `count` slots that free_slots names from one socket; the number of messages or -errno. */
static int receive_from(struct relay *relay, struct relay_socket *one, int count, int *rows) {
  struct mmsghdr headers[RELAY_BATCH];
  struct iovec parts[RELAY_BATCH];
  struct sockaddr_in6 from[RELAY_BATCH];
  _Alignas(struct cmsghdr) char controls[RELAY_BATCH][64];
  for (int i = 0; i < count; i++) {
    parts[i] = (struct iovec){relay->arena + (size_t)relay->free_slots[i] * RELAY_SLOT_BYTES, RELAY_SLOT_BYTES};
    headers[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i],
                                         .msg_iovlen = 1, .msg_control = controls[i], .msg_controllen = 64};
  }
  int received = recvmmsg(one->fd, headers, (unsigned)count, MSG_DONTWAIT, NULL);
  if (received < 0) return -errno;
  *rows = 0;
  for (int i = 0; i < received; i++)
    *rows += describe(relay, relay->free_slots[i], &from[i], headers[i].msg_len,
                      datagram_run_size(&headers[i].msg_hdr, headers[i].msg_len), *rows);
  return received;
}

/* One batch of the group's next socket that has something; the number of rows. *used: slots that were filled. */
static int receive(struct relay *relay, int group, int count, int *used) {
  int rows = 0, *next = &relay->next[group];
  *used = 0;
  for (int tries = 0; tries < GROUP_SOCKETS && *used == 0; tries++) {
    struct relay_socket *one = &relay->sockets[group * GROUP_SOCKETS + *next];
    *next = (*next + 1) % GROUP_SOCKETS;
    if (!one->readable) continue;
    int received = receive_from(relay, one, count, &rows);
    one->readable = received == count || received == -EINTR; /* else the event loop tells when there is more */
    if (received > 0) *used = received;
  }
  return rows;
}

/* ---- sending ---- */

struct outgoing {
  struct sockaddr_in6 to;
  struct iovec parts[MAX_RUN_FRAMES]; /* one frame each */
  struct iovec whole; /* all of them, where nothing is left out between them */
  int frames;
  union run_size control;
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
  out->whole = (struct iovec){bytes, length};
  *header = (struct msghdr){.msg_name = &out->to, .msg_namelen = sizeof out->to,
                            .msg_iov = skip == 0 ? &out->whole : out->parts,
                            .msg_iovlen = skip == 0 ? 1 : (size_t)out->frames};
  if (out->frames > 1) datagram_send_as_run(header, &out->control, (uint16_t)(segment - skip));
}

/* Where a run is refused (a path with a smaller MTU, a device without segmentation) its frames go one by one. */
static void send_singly(struct relay *relay, struct outgoing *out) {
  for (int i = 0; i < out->frames; i++) {
    struct msghdr header = {.msg_name = &out->to, .msg_namelen = sizeof out->to, .msg_iov = &out->parts[i], .msg_iovlen = 1};
    if (sendmsg(relay->sockets[0].fd, &header, MSG_DONTWAIT) < 0) relay->failed++;
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
    int sent = sendmmsg(relay->sockets[0].fd, headers, (unsigned)batch, MSG_DONTWAIT);
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

/* ---- the sockets and their wake-ups ---- */

static void ready(uv_poll_t *handle, int status, int events);

static void watch(struct relay_socket *one) {
  bool writable = one->relay->watches_writable && one == &one->relay->sockets[0];
  uv_poll_start(&one->poll, writable ? UV_READABLE | UV_WRITABLE : UV_READABLE, ready);
}

static void ready(uv_poll_t *handle, int status, int events) {
  struct relay_socket *one = handle->data;
  (void)events;
  if (status < 0) { /* an error that a datagram left on the socket; reading it clears it, and libuv stopped watching */
    int code;
    socklen_t length = sizeof code;
    getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &code, &length);
    return watch(one);
  }
  one->readable = true;
  callback_run(&one->relay->on_ready);
}

static void freed(uv_handle_t *handle) {
  struct relay_socket *one = handle->data;
  close(one->fd);
  if (--one->relay->open_polls == 0) free(one->relay);
}

/* The relay is freed with the last handle; sockets that have none yet are closed at once. */
static void close_sockets(struct relay *relay) {
  int polls = relay->open_polls;
  for (int i = polls; i < SOCKETS; i++)
    if (relay->sockets[i].fd >= 0) close(relay->sockets[i].fd);
  for (int i = 0; i < polls; i++) uv_close((uv_handle_t *)&relay->sockets[i].poll, freed);
  if (polls == 0) free(relay);
}

static void relay_end(void *data) {
  struct relay *relay = data;
  if (relay->closing) return;
  relay->closing = true;
  napi_remove_env_cleanup_hook(relay->env, relay_end, relay);
  for (int i = 0; i < HELD_ARRAYS; i++)
    if (relay->arrays[i] != NULL) napi_delete_reference(relay->env, relay->arrays[i]);
  callback_drop(&relay->on_ready);
  close_sockets(relay);
}

/*
 * 0 or -errno. The first socket is bound as if it were the only one, so that a port which another process has is
 * refused; only then does it allow the others beside it.
 */
static int open_sockets(struct relay *relay, const struct sockaddr_in6 *asked) {
  struct sockaddr_in6 address = *asked;
  int on = 1;
  for (int i = 0; i < SOCKETS; i++) {
    int fd = datagram_socket(receive_buffers[i / GROUP_SOCKETS], SEND_SOCKET_BUFFER);
    if (fd < 0) return fd;
    relay->sockets[i].fd = fd;
    if (i > 0) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    int port = datagram_bind(fd, &address);
    if (port < 0) return port;
    address.sin6_port = htons((uint16_t)port);
    if (i == 0) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  }
  return 0;
}

static int open_relay(struct relay *relay, uv_loop_t *loop, const struct sockaddr_in6 *address) {
  for (int i = 0; i < SOCKETS; i++) relay->sockets[i] = (struct relay_socket){.relay = relay, .fd = -1};
  int error = open_sockets(relay, address);
  for (int i = 0; i < SOCKETS && error == 0; i++) {
    struct relay_socket *one = &relay->sockets[i];
    error = uv_poll_init(loop, &one->poll, one->fd);
    if (error < 0) break;
    one->poll.data = one;
    relay->open_polls++;
  }
  return error;
}

/* ---- what JavaScript calls ---- */

static struct relay *relay_of(struct call *call) {
  void *relay = NULL;
  if (napi_get_value_external(call->env, call->argv[0], &relay) != napi_ok || relay == NULL ||
      ((struct relay *)relay)->closing)
    call->bad = true;
  return relay;
}

static bool keep(struct relay *relay, const napi_value arrays[HELD_ARRAYS], napi_value on_ready) {
  for (int i = 0; i < HELD_ARRAYS; i++)
    if (napi_create_reference(relay->env, arrays[i], 1, &relay->arrays[i]) != napi_ok) return false;
  return callback_keep(&relay->on_ready, relay->env, on_ready, "pilot-relay");
}

/* relayOpen(address, port, arena, rows, freeSlots, onReady): the relay, or -errno */
static napi_value relay_open(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  char address[64];
  text_of(&call, 0, address, sizeof address);
  int port = int_of(&call, 1);
  struct bytes arena = bytes_of(&call, 2, RELAY_SLOT_BYTES);
  int32_t *rows = array_of(&call, 3, napi_int32_array, RELAY_ROWS * RELAY_ROW_WORDS, NULL);
  int32_t *free_slots = array_of(&call, 4, napi_int32_array, RELAY_BATCH, NULL);
  uv_loop_t *loop;
  if (call.bad || napi_get_uv_event_loop(env, &loop) != napi_ok) return bad_call(&call);
  struct sockaddr_in6 bind_to;
  if (udp_parse_address(address, port, &bind_to) < 0) return integer(&call, -EINVAL);
  struct relay *relay = calloc(1, sizeof *relay);
  if (relay == NULL) return integer(&call, -ENOMEM);
  relay->env = env;
  relay->arena = arena.at;
  relay->slots = arena.length / RELAY_SLOT_BYTES;
  relay->rows = rows;
  relay->free_slots = free_slots;
  int error = open_relay(relay, loop, &bind_to);
  if (error < 0) {
    close_sockets(relay);
    return integer(&call, error);
  }
  napi_add_env_cleanup_hook(env, relay_end, relay);
  napi_value external = NULL;
  if (!keep(relay, call.argv + 2, call.argv[5]) || napi_create_external(env, relay, NULL, NULL, &external) != napi_ok) {
    relay_end(relay);
    return integer(&call, -ENOMEM);
  }
  for (int i = 0; i < SOCKETS; i++) watch(&relay->sockets[i]);
  return external;
}

/* relayPort(relay): the port bound, or -errno */
static napi_value relay_port(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  if (call.bad) return bad_call(&call);
  struct sockaddr_in6 bound;
  socklen_t length = sizeof bound;
  int error = getsockname(relay->sockets[0].fd, (struct sockaddr *)&bound, &length);
  return integer(&call, error < 0 ? -errno : ntohs(bound.sin6_port));
}

/* relaySort(relay, program): from now on these instructions (struct sock_filter) choose the socket; 0 or -errno */
static napi_value relay_sort(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  struct bytes steps = bytes_of(&call, 1, sizeof(struct sock_filter));
  if (call.bad || steps.length > MAX_STEPS * sizeof(struct sock_filter)) return bad_call(&call);
  struct sock_fprog program = {.len = (unsigned short)(steps.length / sizeof(struct sock_filter)), .filter = (void *)steps.at};
  int error = setsockopt(relay->sockets[0].fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
  return integer(&call, error < 0 ? -errno : 0);
}

static int group_of(struct call *call, int i) {
  int group = int_of(call, i);
  if (group < 0 || group >= GROUPS) call->bad = true;
  return group;
}

/* relayReceive(relay, group, count): rows filled, with slots used in the upper half (rows + 65536 * slots) */
static napi_value relay_receive(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  int group = group_of(&call, 1), wanted = int_of(&call, 2);
  if (wanted < 0 || wanted > RELAY_BATCH) call.bad = true;
  for (int i = 0; !call.bad && i < wanted; i++)
    if (relay->free_slots[i] < 0 || (size_t)relay->free_slots[i] >= relay->slots) call.bad = true;
  if (call.bad) return bad_call(&call);
  int used = 0, rows = wanted == 0 ? 0 : receive(relay, group, wanted, &used);
  return integer(&call, rows + (used << 16));
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
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  int rows = int_of(&call, 1);
  if (rows < 0 || rows > RELAY_ROWS) call.bad = true;
  for (int i = 0; !call.bad && i < rows; i++)
    if (!valid_row(relay, relay->rows + (size_t)i * RELAY_ROW_WORDS)) call.bad = true;
  if (call.bad) return bad_call(&call);
  int done = send_rows(relay, rows);
  bool is_full = done < rows;
  if (is_full != relay->watches_writable) {
    relay->watches_writable = is_full;
    watch(&relay->sockets[0]);
  }
  return integer(&call, done);
}

/* relayOverflow(relay, group): datagrams that the group's sockets had no room for so far */
static napi_value relay_overflow(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  int group = group_of(&call, 1);
  if (call.bad) return bad_call(&call);
  double sum = 0;
  for (int i = group * GROUP_SOCKETS; i < (group + 1) * GROUP_SOCKETS; i++) sum += datagram_overflow(relay->sockets[i].fd);
  return number(&call, sum);
}

/* relayFailed(relay): datagrams that the kernel refused to send so far */
static napi_value relay_failed(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  return call.bad ? bad_call(&call) : number(&call, relay->failed);
}

/* relayClose(relay): no other function may be called with it afterwards */
static napi_value relay_close(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct relay *relay = relay_of(&call);
  if (call.bad) return bad_call(&call);
  relay_end(relay);
  return NULL;
}

bool relay_export(napi_env env, napi_value exports) {
  static const struct function functions[] = {
    {"relayOpen", relay_open},     {"relayPort", relay_port},         {"relaySort", relay_sort},
    {"relayReceive", relay_receive}, {"relayOverflow", relay_overflow}, {"relaySend", relay_send},
    {"relayFailed", relay_failed}, {"relayClose", relay_close},
  };
  return export_functions(env, exports, functions, sizeof functions / sizeof *functions);
}
