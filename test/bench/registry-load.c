/*
 * Asks a registry on loopback at a fixed rate, and writes down how long each answer took. In C, so that the one who
 * measures takes little of the processors that are measured.
 *
 *   registry-load PORT CONNECTIONS RATE < FRAMES > RESULTS
 *
 * FRAMES is what to send, `length 4 | payload` each, made and signed beforehand. Request i is due i/RATE seconds after the
 * start and goes over connection i % CONNECTIONS, whether or not earlier ones were answered. RESULTS has three 32-bit
 * words for each request: microseconds from when it was due (not from when it was sent) to its answer, microseconds that
 * it was sent late, and 1 if the answer was a refusal.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 4096, REPLY_BYTES = 1 << 16, EVENTS = 256, PATIENCE_NS = 2000000000 };

struct connection {
  int fd;
  size_t awaits; /* index of the request whose answer comes next */
  size_t used;
  uint8_t bytes[REPLY_BYTES];
};
struct result {
  uint32_t latency_us, late_us, refused;
};

static struct connection *connections;
static size_t connection_count, answered;
static uint8_t **frames;
static size_t frame_count;
static int64_t started_ns, interval_ns;
static struct result *results;

static void fail(const char *what) {
  fprintf(stderr, "registry-load: %s: %s\n", what, errno == 0 ? "unexpected" : strerror(errno));
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint32_t length_at(const uint8_t *bytes) {
  uint32_t length;
  memcpy(&length, bytes, 4);
  return ntohl(length);
}

static void read_frames(void) {
  size_t room = 0;
  uint8_t head[4];
  while (fread(head, 4, 1, stdin) == 1) {
    size_t length = 4 + (size_t)length_at(head);
    uint8_t *frame = malloc(length);
    if (frame_count == room) frames = realloc(frames, (room = room * 2 + 1024) * sizeof *frames);
    if (frame == NULL || frames == NULL) fail("memory");
    memcpy(frame, head, 4);
    if (fread(frame + 4, length - 4, 1, stdin) != 1) fail("a frame is cut off");
    frames[frame_count++] = frame;
  }
}

/* Each from an address of its own, as far as the last byte goes: a limit per source is not what is measured. */
static void open_connection(size_t index, uint16_t port, int poll) {
  struct connection *connection = &connections[index];
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + (uint32_t)index % 250)};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  connection->awaits = index;
  connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection->fd < 0 || bind(connection->fd, (struct sockaddr *)&from, sizeof from) < 0 ||
      connect(connection->fd, (struct sockaddr *)&to, sizeof to) < 0 ||
      setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
    fail("connect");
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = index};
  if (epoll_ctl(poll, EPOLL_CTL_ADD, connection->fd, &event) < 0) fail("epoll");
}

static int64_t due_ns(size_t request) { return started_ns + (int64_t)request * interval_ns; }

/* Answers come in order on each connection. */
static void take_answers(struct connection *connection) {
  ssize_t got = recv(connection->fd, connection->bytes + connection->used, REPLY_BYTES - connection->used, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) fail("the registry closed a connection");
  int64_t now = now_ns();
  size_t at = 0;
  connection->used += (size_t)got;
  while (connection->used - at >= 4) {
    size_t length = 4 + (size_t)length_at(connection->bytes + at);
    if (length > REPLY_BYTES) fail("a reply too long");
    if (connection->used - at < length) break;
    if (connection->awaits >= frame_count) fail("a reply that nobody asked for");
    struct result *result = &results[connection->awaits];
    result->latency_us = (uint32_t)((now - due_ns(connection->awaits)) / 1000);
    result->refused = memmem(connection->bytes + at, length, "\"error\"", 7) != NULL;
    connection->awaits += connection_count;
    answered++;
    at += length;
  }
  memmove(connection->bytes, connection->bytes + at, connection->used - at);
  connection->used -= at;
}

static void send_request(size_t request) {
  size_t length = 4 + (size_t)length_at(frames[request]);
  if (send(connections[request % connection_count].fd, frames[request], length, MSG_DONTWAIT | MSG_NOSIGNAL) !=
      (ssize_t)length)
    fail("the registry reads nothing any more");
  results[request].late_us = (uint32_t)((now_ns() - due_ns(request)) / 1000);
}

static void run(int poll) {
  struct epoll_event events[EVENTS];
  size_t sent = 0;
  started_ns = now_ns();
  while (answered < frame_count) {
    int64_t now = now_ns();
    while (sent < frame_count && due_ns(sent) <= now) send_request(sent++);
    int64_t wait = sent < frame_count ? due_ns(sent) - now_ns() : PATIENCE_NS;
    struct timespec timeout = {.tv_sec = wait < 0 ? 0 : wait / 1000000000, .tv_nsec = wait < 0 ? 0 : wait % 1000000000};
    int ready = epoll_pwait2(poll, events, EVENTS, &timeout, NULL);
    if (ready < 0 && errno != EINTR) fail("epoll");
    if (ready == 0 && sent == frame_count) fail("requests were not answered");
    for (int i = 0; i < ready; i++) take_answers(&connections[events[i].data.u64]);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return fprintf(stderr, "Usage: registry-load PORT CONNECTIONS RATE < FRAMES > RESULTS\n"), 2;
  connection_count = strtoul(argv[2], NULL, 10);
  interval_ns = 1000000000 / (int64_t)strtoul(argv[3], NULL, 10);
  if (connection_count < 1 || connection_count > MAX_CONNECTIONS) return 2;
  read_frames();
  connections = calloc(connection_count, sizeof *connections);
  results = calloc(frame_count, sizeof *results);
  int poll = epoll_create1(EPOLL_CLOEXEC);
  if (connections == NULL || results == NULL || poll < 0) fail("start");
  prctl(PR_SET_TIMERSLACK, 1UL);
  for (size_t i = 0; i < connection_count; i++) open_connection(i, (uint16_t)strtoul(argv[1], NULL, 10), poll);
  run(poll);
  if (fwrite(results, sizeof *results, frame_count, stdout) != frame_count) fail("output");
  return 0;
}
