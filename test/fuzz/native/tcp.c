/*
 * The functions over TCP sockets, called with anything, over a kernel that fills whatever it is given to the last byte and
 * answers as it likes. What is told of sockets must be what the kernel told.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "napi.h"

static struct input *input;
static struct epoll_event told[256];
static int told_count;

/* Success as often as not. */
static int result(void) {
  static const int errors[] = {EAGAIN, EINTR, ECONNRESET, EINPROGRESS, EEXIST, EBADF};
  uint32_t mood = take_u8(input);
  if (mood % 2 == 0) return (int)mood / 2;
  errno = errors[mood / 2 % 6];
  return -1;
}

/* What a descriptor or another number is does not matter to this kernel. */
static int at(int fd, int what) { return fd == what ? 0 : result(); }

static int fill(int fd, void *bytes, size_t length) {
  int said = at(fd, -2);
  memset(bytes, (int)take_u8(input), length);
  return said < 0 ? -1 : (int)(length < 0x7fffffff ? length : 0x7fffffff);
}

static int wait_for(int fd, struct epoll_event *events, int most) {
  int count = at(fd, -2);
  for (int i = 0; i < count && i < most; i++) {
    events[i].events = take_u16(input);
    events[i].data.fd = (int)take_u8(input);
    told[i] = events[i];
  }
  return told_count = count < most ? count : most;
}

static int look(int fd, const void *bytes, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i < length; i++) sum += ((const uint8_t *)bytes)[i];
  return sum == 0xffffffff ? -1 : at(fd, -2);
}

#define epoll_create1(flags) 100
#define epoll_ctl(epoll, what, fd, event) look((epoll) + (fd), event, sizeof *(event))
#define epoll_wait(epoll, events, most, timeout) wait_for(epoll, events, most)
#define socket(family, type, protocol) result()
#define setsockopt(fd, level, name, value, length) look(fd, value, length)
#define getsockopt(fd, level, name, value, length) fill(fd, value, *(length))
#define getsockname(fd, address, length) fill(fd, address, *(length))
#define accept4(fd, address, length, flags) fill(fd, address, *(length))
#define bind(fd, address, length) look(fd, address, length)
#define connect(fd, address, length) look(fd, address, length)
#define listen(fd, backlog) at(fd, backlog)
#define shutdown(fd, how) at(fd, how)
#define recv(fd, bytes, length, flags) fill(fd, bytes, length)
#define send(fd, bytes, length, flags) look(fd, bytes, length)
#define close(fd) at(fd, -2)
#include "../../../native-shims/tcp.c"

static void check_poll(const int32_t *rows, struct fuzz_result said) {
  if (said.threw || said.number <= 0) return;
  DEMAND(said.number == told_count, "as many rows as the kernel told of");
  for (int i = 0; i < told_count; i++) {
    const int32_t *row = rows + (size_t)i * TCP_ROW_WORDS;
    DEMAND(row[0] == told[i].data.fd, "a row is of the socket that the kernel told of");
    DEMAND(((row[1] & TCP_WRITABLE) != 0) == ((told[i].events & EPOLLOUT) != 0), "writable is what the kernel calls so");
    DEMAND((row[1] & ~(TCP_READABLE | TCP_WRITABLE | TCP_GONE)) == 0, "nothing else is told");
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input bytes = {data, data + size};
  input = &bytes;
  fuzz_begin();
  if (fuzz_function_count == 0) tcp_export(NULL, fuzz_exports());
  int32_t *rows = calloc((size_t)TCP_ROWS * TCP_ROW_WORDS, sizeof *rows);
  napi_value given[] = {fuzz_array(napi_int32_array, rows, (size_t)TCP_ROWS * TCP_ROW_WORDS), fuzz_number(0)};
  napi_value handle = fuzz_call("tcpOpen", 2, given).external;
  DEMAND(handle != NULL, "what watches sockets opens");
  for (int calls = 0; calls < 16 && bytes.at < bytes.end; calls++) {
    int function = (int)take_u8(input) % (fuzz_function_count + 4);
    if (function >= fuzz_function_count) {
      check_poll(rows, fuzz_call("tcpPoll", 1, &handle));
      continue;
    }
    bool frees = strcmp(fuzz_functions[function].name, "tcpEnd") == 0, opens = strcmp(fuzz_functions[function].name, "tcpOpen") == 0;
    if (frees || opens) continue;
    napi_value anything[4];
    for (int i = 0; i < 4; i++) anything[i] = fuzz_anything(input, handle);
    fuzz_call_at(function, 4, anything);
  }
  fuzz_end_environment();
  fuzz_end();
  free(rows);
  return 0;
}
