/*
 * The beacon's relay over a kernel that says what the input says: messages with any bytes, sizes of datagrams and ancillary
 * data come in; what goes out again must be the datagrams that came, each whole and once, with nothing changed but their
 * beginning. Then rows that only a bug could write, and functions called with anything.
 */
#include <errno.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "datagram.h"
#include "napi.h"

static int kernel_receive(int fd, struct mmsghdr *headers, unsigned count);
static int kernel_send(struct mmsghdr *headers, unsigned count);
static ssize_t kernel_send_one(const struct msghdr *header);

static int no_socket(int receive_buffer, int send_buffer) { return receive_buffer + send_buffer; }
static int no_bind(int fd, const struct sockaddr_in6 *address) { return fd == address->sin6_port ? -EADDRINUSE : 4000; }
static uint32_t no_overflow(int fd) { return (uint32_t)fd; }
static int no_option(int fd, const void *value, const socklen_t *length) { return fd < 0 || value == NULL || length == NULL ? -1 : 0; }
static int no_name(int fd, struct sockaddr *address, socklen_t length) { return fd < 0 ? -1 : (memset(address, 0, length), 0); }

#define recvmmsg(fd, headers, count, flags, timeout) kernel_receive(fd, headers, count)
#define sendmmsg(fd, headers, count, flags) kernel_send(headers, count)
#define sendmsg(fd, header, flags) kernel_send_one(header)
#define datagram_socket(receive, send) no_socket(receive, send)
#define datagram_bind(fd, address) no_bind(fd, address)
#define datagram_overflow(fd) no_overflow(fd)
#define setsockopt(fd, level, name, value, length) no_option(fd, value, &(socklen_t){length})
#define getsockopt(fd, level, name, value, length) no_option(fd, value, length)
#define getsockname(fd, address, length) no_name(fd, address, *(length))
#define close(fd) no_option(fd, "", &(socklen_t){0})
#include "../../../native-shims/relay.c"

enum { SLOTS = 8, MOST_DATAGRAMS = 4096 };

static struct input *input;
static struct relay *relay;
static bool trusts_rows; /* they are made of what came, so that what goes out is known */
/* What came last into each slot. */
static struct {
  uint32_t bytes, segment;
  struct sockaddr_in6 from;
} messages[SLOTS];
static int message_count;
static struct {
  uint8_t *bytes;
  uint32_t length, port;
} expected[MOST_DATAGRAMS];
static int expected_count, expected_next;

/* ---- the kernel ---- */

/* Mostly relay messages between a few nodes, in datagrams of one size. */
static uint32_t make_message(uint8_t *into, uint32_t *segment) {
  uint32_t shape = take_u8(input), most = shape % 8 == 0 ? 65535 : 2048;
  uint32_t length = take_u16(input) % (most + 1), pairs = take_u8(input);
  *segment = shape % 16 == 1 ? take_u16(input) % 4 + 1 : take_u8(input) + 1;
  for (uint32_t at = 0, n = 0; at < length; at += *segment, n++) {
    uint32_t left = length - at < *segment ? length - at : *segment;
    memset(into + at, (int)n, left);
    uint8_t prefix[RELAY_PREFIX] = {pairs >> n % 8 & 1 && shape & 16 ? TYPE_DELIVER : TYPE_RELAY, 0, 0, 0, 1, 0, 0, 0, 2};
    if (pairs >> (n + 3) % 8 & 1 && shape & 32) prefix[8] = 3;
    memcpy(into + at, prefix, left < sizeof prefix ? left : sizeof prefix);
  }
  size_t noise = take_u8(input) % 16;
  const uint8_t *bytes = take_bytes(input, &noise);
  if (noise > 0 && noise <= length) memcpy(into + length - noise, bytes, noise);
  return length;
}

static void tell_segment(struct msghdr *header, uint32_t segment) {
  int size = (int)segment;
  struct cmsghdr told = {.cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_GRO};
  if (take_u8(input) % 8 == 0) told.cmsg_type = UDP_GRO + 1;
  memcpy(header->msg_control, &told, sizeof told);
  memcpy(CMSG_DATA((struct cmsghdr *)header->msg_control), &size, sizeof size);
  header->msg_controllen = CMSG_SPACE(sizeof size);
}

static int kernel_receive(int fd, struct mmsghdr *headers, unsigned count) {
  (void)fd;
  uint32_t wanted = take_u8(input);
  if (wanted == 255) return errno = EAGAIN, -1;
  message_count = 0;
  for (unsigned i = 0; i < count && i < wanted % (SLOTS + 1); i++) {
    struct msghdr *header = &headers[i].msg_hdr;
    uint32_t segment, length = make_message(header->msg_iov->iov_base, &segment);
    struct sockaddr_in6 from = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(take_u8(input) + 1))};
    memcpy(header->msg_name, &from, sizeof from);
    header->msg_controllen = 0;
    if (segment < length) tell_segment(header, segment);
    headers[i].msg_len = length;
    messages[i].bytes = length;
    messages[i].segment = datagram_run_size(header, length);
    messages[i].from = from;
    message_count++;
  }
  return message_count;
}

static void must_be_next(const uint8_t *bytes, uint32_t length, const struct msghdr *header) {
  DEMAND(expected_next < expected_count, "no more goes out than came");
  uint32_t port = ntohs(((const struct sockaddr_in6 *)header->msg_name)->sin6_port);
  DEMAND(expected[expected_next].length == length && expected[expected_next].port == port, "a datagram keeps its length, and goes where it should");
  DEMAND(memcmp(expected[expected_next].bytes, bytes, length) == 0, "a datagram keeps its bytes");
  expected_next++;
}

/* One message: gathered, then cut as the kernel would. */
static uint32_t frames_of(const struct msghdr *header) {
  static uint8_t whole[1 << 17];
  size_t length = 0;
  for (size_t i = 0; i < header->msg_iovlen; i++) {
    DEMAND(length + header->msg_iov[i].iov_len <= sizeof whole, "a message is no longer than a slot");
    memcpy(whole + length, header->msg_iov[i].iov_base, header->msg_iov[i].iov_len);
    length += header->msg_iov[i].iov_len;
  }
  uint16_t segment = 0;
  struct cmsghdr *told = header->msg_controllen == 0 ? NULL : CMSG_FIRSTHDR(header);
  if (told != NULL) memcpy(&segment, CMSG_DATA(told), sizeof segment);
  uint32_t frames = 0;
  for (size_t at = 0; at < length; frames++) {
    size_t size = segment == 0 || length - at < segment ? length - at : segment;
    if (trusts_rows) must_be_next(whole + at, (uint32_t)size, header);
    at += size;
  }
  return frames;
}

static bool is_run(const struct msghdr *header) { return header->msg_controllen > 0; }

static int kernel_send(struct mmsghdr *headers, unsigned count) {
  uint32_t mood = take_u8(input);
  if (mood == 254) return errno = EAGAIN, -1;
  if (mood == 253 && is_run(&headers[0].msg_hdr)) return errno = EMSGSIZE, -1;
  unsigned taken = mood % 4 == 0 && count > 1 ? 1 + mood % count : count;
  for (unsigned i = 0; i < taken; i++) frames_of(&headers[i].msg_hdr);
  return (int)taken;
}

static ssize_t kernel_send_one(const struct msghdr *header) {
  DEMAND(frames_of(header) <= 1, "what goes singly is one datagram");
  return 1;
}

/* ---- what comes ---- */

/* Every byte of every message is in one row, in order. */
static void check_rows(int rows) {
  int32_t *row = relay->rows;
  for (int i = 0; i < message_count; i++) {
    uint32_t base = (uint32_t)relay->free_slots[i] * RELAY_SLOT_BYTES, at = 0, segment = messages[i].segment;
    for (; at < messages[i].bytes && rows > 0; rows--, row += RELAY_ROW_WORDS) {
      uint32_t length = (uint32_t)row[RELAY_LENGTH];
      DEMAND(row[RELAY_SLOT] == relay->free_slots[i] && (uint32_t)row[RELAY_OFFSET] == base + at, "rows follow each other");
      DEMAND(length > 0 && at + length <= messages[i].bytes, "a row lies in its message");
      DEMAND((uint32_t)row[RELAY_SEGMENT] <= segment && row[RELAY_PORT] == ntohs(messages[i].from.sin6_port), "a row says what the kernel said");
      DEMAND(length <= (uint32_t)row[RELAY_SEGMENT] || at % segment == 0, "a run begins with a datagram");
      for (uint32_t k = 0; k < length; k += (uint32_t)row[RELAY_SEGMENT]) {
        uint32_t left = length - k < (uint32_t)row[RELAY_SEGMENT] ? length - k : (uint32_t)row[RELAY_SEGMENT];
        const uint8_t *datagram = relay->arena + base + at + k;
        DEMAND(is_relay(datagram, left) == (row[RELAY_FORM] == TYPE_RELAY), "a row is of one kind");
        DEMAND(k == 0 || memcmp(datagram, relay->arena + base + at, RELAY_PREFIX) == 0, "a run is of one pair");
      }
      at += length;
    }
    DEMAND(at == messages[i].bytes || row == relay->rows + RELAY_ROWS * RELAY_ROW_WORDS, "nothing is left out, unless rows run out");
  }
}

static void expect_row(int32_t *row) {
  uint32_t segment = (uint32_t)row[RELAY_SEGMENT], length = (uint32_t)row[RELAY_LENGTH];
  for (uint32_t at = 0; at < length; at += segment) {
    uint32_t size = length - at < segment ? length - at : segment, skip = row[RELAY_FORM] == TYPE_DELIVER ? SHORTER : 0;
    DEMAND(expected_count < MOST_DATAGRAMS, "there is room for one more");
    uint8_t *bytes = malloc(size);
    memcpy(bytes, relay->arena + row[RELAY_OFFSET] + at, size);
    if (row[RELAY_FORM] != 0) bytes[skip] = (uint8_t)row[RELAY_FORM];
    if (skip != 0) write_u32(bytes + skip + 1, (uint32_t)row[RELAY_SENDER]);
    memmove(bytes, bytes + skip, size - skip);
    expected[expected_count].bytes = bytes;
    expected[expected_count].length = size - skip;
    expected[expected_count++].port = (uint32_t)row[RELAY_PORT];
  }
}

static struct fuzz_result call_relay(const char *name, napi_value handle, int number) {
  napi_value given[2] = {handle, fuzz_number(number)};
  return fuzz_call(name, 2, given);
}

static struct fuzz_result receive_from_group(napi_value handle, int group) {
  napi_value given[3] = {handle, fuzz_number(group), fuzz_number(SLOTS)};
  return fuzz_call("relayReceive", 3, given);
}

/* What came goes out in the form that the input says, in as many calls as the kernel's moods make of it. */
static void send_on(napi_value handle, int rows) {
  int count = 0;
  for (int i = 0, datagrams = 0; i < rows; i++) {
    int32_t *row = relay->rows + (size_t)i * RELAY_ROW_WORDS, *to = relay->rows + (size_t)count * RELAY_ROW_WORDS;
    if (row[RELAY_FORM] == TYPE_RELAY) row[RELAY_FORM] = take_u8(input) % 2 ? TYPE_DELIVER : TYPE_DELIVER_TO;
    row[RELAY_PORT] = (int32_t)take_u8(input) + 1;
    memmove(to, row, RELAY_ROW_WORDS * sizeof *row);
    if (!valid_row(relay, to)) continue; /* a datagram of a few bytes at the end of a run */
    datagrams += (to[RELAY_LENGTH] - 1) / to[RELAY_SEGMENT] + 1;
    if (datagrams > MOST_DATAGRAMS) break;
    expect_row(to);
    count++;
  }
  for (int sent = 0, tries = 0; sent < count && tries < 64; tries++) {
    struct fuzz_result said = call_relay("relaySend", handle, count - sent);
    DEMAND(!said.threw, "rows of what came can be sent");
    sent += (int)said.number;
    memmove(relay->rows, relay->rows + (size_t)said.number * RELAY_ROW_WORDS, (size_t)(count - sent) * RELAY_ROW_WORDS * sizeof(int32_t));
    if (sent == count) DEMAND(expected_next == expected_count, "all that came goes out");
  }
}

static void send_anything(napi_value handle) {
  int count = (int)take_u8(input) % 4;
  for (int32_t *word = relay->rows; word < relay->rows + (size_t)count * RELAY_ROW_WORDS; word++) {
    uint32_t mood = take_u8(input);
    *word = mood < 200 ? (int32_t)mood : (int32_t)(take_u16(input) << 16 | take_u16(input));
  }
  call_relay("relaySend", handle, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input at = {data, data + size};
  input = &at;
  fuzz_begin();
  if (fuzz_function_count == 0) relay_export(NULL, fuzz_exports());
  static uint8_t *arena;
  static int32_t *rows, *slots;
  if (arena == NULL) { /* of these very sizes, and once: they are large */
    arena = malloc((size_t)SLOTS * RELAY_SLOT_BYTES);
    rows = malloc((size_t)RELAY_ROWS * RELAY_ROW_WORDS * sizeof *rows);
    slots = malloc(RELAY_BATCH * sizeof *slots);
    for (int i = 0; i < RELAY_BATCH; i++) slots[i] = (i * 5 + 2) % SLOTS;
  }
  napi_value given[] = {fuzz_text((const uint8_t *)"::", 2), fuzz_number(0), fuzz_array(napi_uint8_array, arena, (size_t)SLOTS * RELAY_SLOT_BYTES),
                        fuzz_array(napi_int32_array, rows, (size_t)RELAY_ROWS * RELAY_ROW_WORDS), fuzz_array(napi_int32_array, slots, RELAY_BATCH), fuzz_number(0)};
  napi_value handle = fuzz_call("relayOpen", 6, given).external;
  DEMAND(handle != NULL, "a relay opens");
  napi_get_value_external(NULL, handle, (void **)&relay);
  for (int i = 0; i < SOCKETS; i++) relay->sockets[i].readable = true;
  for (int turn = 0; turn < 4 && at.at < at.end; turn++) {
    expected_count = expected_next = message_count = 0;
    struct fuzz_result said = receive_from_group(handle, turn % GROUPS);
    int filled = (int)said.number & 0xffff;
    DEMAND((int)said.number >> 16 == message_count, "as many slots are used as there were messages");
    check_rows(filled);
    trusts_rows = true;
    send_on(handle, filled);
    trusts_rows = false;
    for (int i = 0; i < expected_count; i++) free(expected[i].bytes);
  }
  send_anything(handle);
  for (int calls = 0; calls < 8 && at.at < at.end; calls++) {
    napi_value anything[6];
    for (int i = 0; i < 6; i++) anything[i] = fuzz_anything(input, handle);
    int function = (int)take_u8(input) % fuzz_function_count;
    if (strcmp(fuzz_functions[function].name, "relayClose") != 0) fuzz_call_at(function, 6, anything);
  }
  fuzz_end_environment();
  fuzz_end();
  return 0;
}
