/*
 * The underlay socket.
 *
 * Sending: frames are appended to one buffer. Consecutive frames of one size for one endpoint form a run, which the
 * kernel takes as one message (UDP_SEGMENT): at most 64 frames and 65,507 bytes, all but the last of equal size. The
 * queue is sent when a good run has gathered and at the end of each batch, so that the bytes are still in cache.
 *
 * A full socket (EAGAIN, ENOBUFS) leaves the rest in the queue until the socket is writable; meanwhile JavaScript seals
 * no more. It says how much the socket may hold, and learns how much there was when it became full and when it had room
 * again. The queue is bounded: what finds no room is dropped by the caller and counted. A message that the
 * kernel refuses for a reason of its own (no route, too big) is counted and skipped. Where runs are refused, frames
 * go one by one: for good if the device cannot do them (EIO), for frames of that size if the device's MTU is smaller
 * (EINVAL). Nothing is fragmented on the way: JavaScript finds the path's MTU by probes (so ICMP, which anybody can forge,
 * has no say), and is told which endpoint's frame the kernel refused as too long (EMSGSIZE). The exception are single
 * datagrams that JavaScript says may break; the socket changes its ways for them and back.
 *
 * Receiving: the port has two sockets. The kernel puts sealed frames, and what the beacon relays, into the first; all
 * else, which anybody can send and which takes more work to judge, into a second one with a small buffer. So a flood of
 * that pushes out no frame of a peer, and waits behind them. recvmmsg fills slots of the inbound arena, each big enough
 * for the largest datagram; UDP_GRO lets the kernel hand over a run as one message with the segment size beside it.
 */
#include "plane.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "datagram.h"

/* The socket may hold a burst on its way in; what it may hold on its way out, JavaScript says later. */
enum { RECEIVE_BUFFER = 8 << 20, SEND_SOCKET_BUFFER = 2 << 20 };
/* Some hundred datagrams: who waits longer for an answer has asked again. */
enum { ASIDE_BUFFER = 512 << 10 };
enum { SEALED_MAGIC = 0x50494c53, RELAYED = 0x06, RELAYED_TO = 0x09 };
enum { FLUSH_BYTES = 48 << 10, FLUSH_MESSAGES = 32, MAX_REFUSALS = 64 };

int udp_parse_address(const char *text, int port, struct sockaddr_in6 *out) {
  struct in_addr v4;
  memset(out, 0, sizeof *out);
  out->sin6_family = AF_INET6;
  out->sin6_port = htons((uint16_t)port);
  if (port < 0 || port > 65535) return -EINVAL;
  if (inet_pton(AF_INET6, text, &out->sin6_addr) == 1) return 0;
  if (inet_pton(AF_INET, text, &v4) != 1) return -EINVAL;
  out->sin6_addr.s6_addr[10] = out->sin6_addr.s6_addr[11] = 0xff;
  memcpy(out->sin6_addr.s6_addr + 12, &v4, 4);
  return 0;
}

bool udp_same_address(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b) {
  return a->sin6_port == b->sin6_port && memcmp(&a->sin6_addr, &b->sin6_addr, sizeof a->sin6_addr) == 0;
}

/* ---- opening ---- */

/* DF, or not. A kernel that cannot set it fragments, which costs the probes their meaning but no packet. */
static void allow_fragments(int fd, bool allowed) {
  int v4 = allowed ? IP_PMTUDISC_DONT : IP_PMTUDISC_PROBE, v6 = allowed ? IPV6_PMTUDISC_DONT : IPV6_PMTUDISC_PROBE;
  setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof v4);
  setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof v6);
}

/* The number of the socket, in the order of binding. What is too short to have a magic goes to the first. */
static int share_by_kind(int fd) {
  struct sock_filter steps[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RELAYED, 4, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RELAYED_TO, 3, 0),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SEALED_MAGIC, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, 1),
    BPF_STMT(BPF_RET | BPF_K, 0),
  };
  struct sock_fprog program = {.len = sizeof steps / sizeof *steps, .filter = steps};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}

/* The second socket of a port that is bound: only now may there be another one beside the first. Or NONE. */
static int open_aside(int first, const struct sockaddr_in6 *bind_to, int port) {
  struct sockaddr_in6 address = *bind_to;
  int fd = datagram_socket(ASIDE_BUFFER, 0), on = 1, off = 0;
  if (fd < 0) return NONE;
  address.sin6_port = htons((uint16_t)port);
  bool shared = setsockopt(first, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
                setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 && datagram_bind(fd, &address) == port;
  if (shared && share_by_kind(first) == 0) return fd;
  setsockopt(first, SOL_SOCKET, SO_REUSEPORT, &off, sizeof off);
  close(fd);
  return NONE;
}

int udp_open(struct plane *plane, const struct sockaddr_in6 *bind_to) {
  if (plane->udp_fd >= 0) return -EBUSY;
  int fd = datagram_socket(RECEIVE_BUFFER, SEND_SOCKET_BUFFER);
  if (fd < 0) return fd;
  allow_fragments(fd, false);
  int port = datagram_bind(fd, bind_to);
  if (port < 0) {
    close(fd);
    return port;
  }
  plane->udp_fd = fd;
  plane->aside_fd = open_aside(fd, bind_to, port);
  return port;
}

/* ---- the queue ---- */

int udp_limit_unsent(struct plane *plane, int bytes) {
  int half = bytes / 2; /* the kernel doubles what it is told, for its own needs, which it counts */
  if (setsockopt(plane->udp_fd, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof half) == 0) return 0;
  return setsockopt(plane->udp_fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof half) == 0 ? 0 : -errno;
}

void udp_note_unsent(struct plane *plane) {
  int bytes = 0;
  ioctl(plane->udp_fd, SIOCOUTQ, &bytes);
  plane->status[STATUS_UNSENT] = bytes;
}

void udp_count_overflow(struct plane *plane) {
  if (plane->udp_fd >= 0) plane->counters[SOCKET_FULL] = datagram_overflow(plane->udp_fd);
  if (plane->aside_fd >= 0) plane->counters[SECOND_SOCKET_FULL] = datagram_overflow(plane->aside_fd);
}

static void set_blocked(struct plane *plane, bool blocked) {
  if (blocked && !plane->status[STATUS_SEND_BLOCKED]) {
    count_of(plane, SEND_WAITS, 1);
    udp_note_unsent(plane);
  }
  plane->status[STATUS_SEND_BLOCKED] = blocked;
}

/* Moves what is unsent to the front of the buffer, to make room behind it. */
static void compact(struct send_queue *queue) {
  if (queue->head == 0) return;
  uint32_t from = queue->messages[queue->head].offset;
  memmove(queue->buffer, queue->buffer + from, queue->used - from);
  memmove(queue->messages, queue->messages + queue->head, (size_t)(queue->count - queue->head) * sizeof *queue->messages);
  queue->used -= from;
  queue->count -= queue->head;
  queue->head = 0;
  for (int i = 0; i < queue->count; i++) queue->messages[i].offset -= from;
}

static bool has_room(const struct send_queue *queue, size_t bytes) {
  return queue->used + bytes <= SEND_BUFFER && queue->count < SEND_MESSAGES;
}

static bool make_room(struct plane *plane, size_t bytes) {
  struct send_queue *queue = &plane->send;
  if (bytes > MAX_DATAGRAM) return false;
  bool is_due = queue->used >= FLUSH_BYTES || queue->count >= FLUSH_MESSAGES;
  if (is_due && !plane->status[STATUS_SEND_BLOCKED]) udp_flush(plane);
  if (!has_room(queue, bytes)) compact(queue);
  return has_room(queue, bytes);
}

/* The message at the end of the queue, if a frame of `bytes` may join it. */
static struct send_message *open_run(struct plane *plane, int32_t endpoint_slot, size_t bytes) {
  struct send_queue *queue = &plane->send;
  if (queue->count == queue->head || queue->used + bytes > SEND_BUFFER) return NULL;
  struct send_message *last = &queue->messages[queue->count - 1];
  const struct endpoint *endpoint = &plane->endpoints[endpoint_slot];
  bool joins = !last->closed && last->endpoint_slot == endpoint_slot && bytes <= last->frame_bytes &&
               last->frames < RUN_FRAMES && last->bytes + bytes <= MAX_DATAGRAM && !queue->run_refused &&
               (endpoint->largest_run == 0 || last->frame_bytes <= endpoint->largest_run) &&
               udp_same_address(&last->to, &endpoint->address);
  return joins ? last : NULL;
}

uint8_t *udp_reserve(struct plane *plane, int32_t endpoint_slot, size_t bytes) {
  if (endpoint_slot < 0 || endpoint_slot >= MAX_ENDPOINT_SLOTS) return NULL;
  const struct endpoint *endpoint = &plane->endpoints[endpoint_slot];
  if (!endpoint->used) return NULL;
  bytes += endpoint->prefix_length;
  if (open_run(plane, endpoint_slot, bytes) == NULL && !make_room(plane, bytes)) return NULL;
  uint8_t *at = plane->send.buffer + plane->send.used;
  memcpy(at, endpoint->prefix, endpoint->prefix_length);
  return at + endpoint->prefix_length;
}

static void begin_message(struct send_queue *queue, const struct sockaddr_in6 *to, int32_t endpoint_slot, size_t bytes) {
  queue->messages[queue->count++] = (struct send_message){
    .offset = (uint32_t)queue->used,
    .bytes = (uint32_t)bytes,
    .frame_bytes = (uint16_t)bytes,
    .frames = 1,
    .closed = endpoint_slot == NONE,
    .endpoint_slot = endpoint_slot,
    .to = *to,
  };
  queue->used += bytes;
}

void udp_commit(struct plane *plane, int32_t endpoint_slot, size_t bytes) {
  const struct endpoint *endpoint = &plane->endpoints[endpoint_slot];
  bytes += endpoint->prefix_length;
  struct send_message *run = open_run(plane, endpoint_slot, bytes);
  if (run == NULL) return begin_message(&plane->send, &endpoint->address, endpoint_slot, bytes);
  run->closed = bytes < run->frame_bytes;
  run->bytes += (uint32_t)bytes;
  run->frames++;
  plane->send.used += bytes;
}

bool udp_queue_datagram(struct plane *plane, const struct sockaddr_in6 *to, const uint8_t *bytes, size_t length,
                        bool may_break) {
  if (!make_room(plane, length)) {
    count_of(plane, SEND_FAILED, 1);
    return false;
  }
  memcpy(plane->send.buffer + plane->send.used, bytes, length);
  begin_message(&plane->send, to, NONE, length);
  plane->send.messages[plane->send.count - 1].may_break = may_break;
  udp_flush(plane);
  return true;
}

/* ---- sending ---- */

struct vector {
  int count;
  struct mmsghdr headers[SEND_VECTOR];
  struct iovec parts[SEND_VECTOR];
  union run_size controls[SEND_VECTOR];
  struct send_message *messages[SEND_VECTOR];
  uint16_t frames[SEND_VECTOR];
};

static bool goes_as_run(const struct plane *plane, const struct send_message *message) {
  if (message->frames < 2 || plane->send.run_refused) return false;
  uint16_t largest = plane->endpoints[message->endpoint_slot].largest_run;
  return largest == 0 || message->frame_bytes <= largest;
}

static void add_part(struct plane *plane, struct vector *vector, struct send_message *message, uint32_t from,
                     uint32_t bytes, uint16_t frames) {
  int i = vector->count++;
  vector->parts[i] = (struct iovec){plane->send.buffer + message->offset + from, bytes};
  vector->messages[i] = message;
  vector->frames[i] = frames;
  struct msghdr *header = &vector->headers[i].msg_hdr;
  *header = (struct msghdr){
    .msg_name = &message->to, .msg_namelen = sizeof message->to, .msg_iov = &vector->parts[i], .msg_iovlen = 1};
  if (frames > 1) datagram_send_as_run(header, &vector->controls[i], message->frame_bytes);
}

/* Messages that may all break, or none of them. */
static void fill_vector(struct plane *plane, struct vector *vector) {
  struct send_queue *queue = &plane->send;
  bool breaks = queue->messages[queue->head].may_break;
  vector->count = 0;
  for (int i = queue->head; i < queue->count && vector->count < SEND_VECTOR; i++) {
    struct send_message *message = &queue->messages[i];
    if (message->may_break != breaks) break;
    if (goes_as_run(plane, message)) {
      add_part(plane, vector, message, 0, message->bytes, message->frames);
      continue;
    }
    for (uint32_t at = 0; at < message->bytes && vector->count < SEND_VECTOR; at += message->frame_bytes) {
      uint32_t left = message->bytes - at;
      add_part(plane, vector, message, at, left < message->frame_bytes ? left : message->frame_bytes, 1);
    }
  }
}

/* One part of the vector is done with, sent or not. */
static void advance(struct plane *plane, const struct vector *vector, int i) {
  struct send_message *message = vector->messages[i];
  uint32_t bytes = (uint32_t)vector->parts[i].iov_len;
  message->offset += bytes;
  message->bytes -= bytes;
  message->frames -= vector->frames[i];
  message->closed = true;
  if (message->frames == 0) plane->send.head++;
}

/* What to do about the error of the first part: true to go on with the queue, false to wait for the socket. */
static bool after_error(struct plane *plane, const struct vector *vector, int error) {
  struct send_queue *queue = &plane->send;
  struct send_message *message = vector->messages[0];
  if (error == EINTR) return true;
  if (error == EAGAIN || error == EWOULDBLOCK || (error == ENOBUFS && ++queue->refusals < MAX_REFUSALS)) return false;
  queue->refusals = 0;
  if (vector->frames[0] > 1 && error == EIO) return queue->run_refused = true;
  if (vector->frames[0] > 1 && (error == EINVAL || error == EMSGSIZE)) {
    plane->endpoints[message->endpoint_slot].largest_run = (uint16_t)(message->frame_bytes - 1);
    return true;
  }
  if (error == EMSGSIZE) plane->status[STATUS_TOO_LONG] = message->endpoint_slot + 1;
  count_of(plane, SEND_FAILED, vector->frames[0]);
  advance(plane, vector, 0);
  return true;
}

/* Without a socket (tests) the queue only grows. */
void udp_flush(struct plane *plane) {
  struct send_queue *queue = &plane->send;
  struct vector vector;
  while (queue->head < queue->count && plane->udp_fd >= 0) {
    fill_vector(plane, &vector);
    if (queue->breaks != vector.messages[0]->may_break) {
      queue->breaks = !queue->breaks;
      allow_fragments(plane->udp_fd, queue->breaks);
    }
    int sent = sendmmsg(plane->udp_fd, vector.headers, (unsigned)vector.count, MSG_DONTWAIT);
    if (sent < 0 && !after_error(plane, &vector, errno)) return set_blocked(plane, true);
    for (int i = 0; i < sent; i++) {
      count_of(plane, TX_DATAGRAMS, vector.frames[i]);
      advance(plane, &vector, i);
    }
    if (sent > 0) queue->refusals = 0;
  }
  if (queue->head < queue->count) return;
  queue->used = 0;
  queue->head = queue->count = 0;
  set_blocked(plane, false);
}

/* ---- receiving ---- */

int udp_receive(struct plane *plane, int fd, int first, int count) {
  struct mmsghdr headers[RECEIVE_SLOTS];
  struct iovec parts[RECEIVE_SLOTS];
  _Alignas(struct cmsghdr) char controls[RECEIVE_SLOTS][RECEIVE_CONTROL];
  for (int i = 0; i < count; i++) {
    struct receive_slot *slot = &plane->slots[first + i];
    parts[i] = (struct iovec){receive_slot_bytes(plane, first + i), 65536};
    headers[i].msg_hdr = (struct msghdr){
      .msg_name = &slot->from, .msg_namelen = sizeof slot->from, .msg_iov = &parts[i], .msg_iovlen = 1,
      .msg_control = controls[i], .msg_controllen = RECEIVE_CONTROL};
  }
  int received = recvmmsg(fd, headers, (unsigned)count, MSG_DONTWAIT, NULL);
  if (received < 0) return -errno;
  for (int i = 0; i < received; i++) {
    struct receive_slot *slot = &plane->slots[first + i];
    slot->bytes = headers[i].msg_len;
    slot->segment_bytes = datagram_run_size(&headers[i].msg_hdr, slot->bytes);
  }
  return received;
}
