/*
 * Sends UDP datagrams over IPv4 as fast as asked, from sources that it makes up. In C, so that a flood leaves processors to
 * what is flooded. Only for network namespaces that a test made: it needs CAP_NET_RAW there.
 *
 *   flood TARGET PORT RATE SECONDS SOURCE < DATAGRAMS
 *
 * RATE in datagrams a second; 0: as fast as it goes. SOURCE is `address:port`, or `address/bits` for a random address of
 * that prefix and a random port in each datagram. DATAGRAMS are lines `FROM BYTES HEX`, sent in turn: the bytes of HEX, of
 * which BYTES from FROM on are random each time. On stdout: "flooding", and at the end (SIGTERM ends it sooner) how many
 * were sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_TEMPLATES = 64, MAX_PAYLOAD = 1400, HEADERS = sizeof(struct iphdr) + sizeof(struct udphdr), BATCH = 32 };
enum { MAX_SECONDS = 120, SECOND_NS = 1000000000 };

struct datagram {
  size_t length, random_from, random_bytes;
  uint8_t bytes[MAX_PAYLOAD];
};
struct source {
  uint32_t address, mask; /* mask: what is random */
  uint16_t port; /* 0: random */
};

static struct datagram templates[MAX_TEMPLATES];
static size_t template_count;
static uint64_t state;
static volatile sig_atomic_t is_over;

static void end(int signal) {
  (void)signal;
  is_over = 1;
}

static void fail(const char *what) {
  fprintf(stderr, "flood: %s: %s\n", what, errno == 0 ? "unexpected" : strerror(errno));
  exit(1);
}

/* xorshift64* */
static uint64_t random64(void) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 0x2545f4914f6cdd1dull;
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

static void read_templates(void) {
  static char hex[2 * MAX_PAYLOAD + 2];
  struct datagram *d = templates;
  while (template_count < MAX_TEMPLATES && scanf("%zu %zu %2800s", &d->random_from, &d->random_bytes, hex) == 3) {
    d->length = strlen(hex) / 2;
    for (size_t i = 0; i < d->length; i++) {
      unsigned byte;
      if (sscanf(hex + 2 * i, "%2x", &byte) != 1) fail("a datagram");
      d->bytes[i] = (uint8_t)byte;
    }
    if (d->random_from + d->random_bytes > d->length) fail("a datagram");
    d = &templates[++template_count];
  }
  if (template_count == 0) fail("no datagrams");
}

static struct source source_of(char *text) {
  struct source source = {0};
  char *rest = strpbrk(text, ":/");
  if (rest == NULL) fail("a source");
  bool is_prefix = *rest == '/';
  *rest = '\0';
  int number = atoi(rest + 1);
  struct in_addr address;
  if (inet_pton(AF_INET, text, &address) != 1 || number < 1) fail("a source");
  source.address = ntohl(address.s_addr);
  if (!is_prefix) source.port = (uint16_t)number;
  else source.mask = number >= 32 ? 0 : 0xffffffffu >> number;
  return source;
}

/* The kernel fills in the header's checksum and length; a UDP checksum of 0 means none. */
static size_t build(uint8_t *packet, const struct datagram *d, const struct source *source, struct sockaddr_in to) {
  uint64_t random = random64();
  uint32_t from = (source->address & ~source->mask) | ((uint32_t)random & source->mask);
  uint16_t port = source->port != 0 ? source->port : (uint16_t)(1024 + (random >> 32) % 60000);
  struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = htonl(from),
                     .daddr = to.sin_addr.s_addr};
  struct udphdr udp = {.source = htons(port), .dest = to.sin_port, .len = htons((uint16_t)(sizeof udp + d->length))};
  memcpy(packet, &ip, sizeof ip);
  memcpy(packet + sizeof ip, &udp, sizeof udp);
  memcpy(packet + HEADERS, d->bytes, d->length);
  for (size_t i = 0; i < d->random_bytes; i++) {
    if (i % 8 == 0) random = random64();
    packet[HEADERS + d->random_from + i] = (uint8_t)(random >> 8 * (i % 8));
  }
  return HEADERS + d->length;
}

int main(int argc, char **argv) {
  if (argc != 6) fail("usage: flood TARGET PORT RATE SECONDS SOURCE < DATAGRAMS");
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* it must not outlive who started it */
  signal(SIGTERM, end);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
  if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) fail("the target");
  double rate = atof(argv[3]), seconds = atof(argv[4]);
  if (seconds > MAX_SECONDS) seconds = MAX_SECONDS;
  struct source source = source_of(argv[5]);
  read_templates();
  int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  if (fd < 0) fail("a raw socket");
  int64_t started = now_ns(), until = started + (int64_t)(seconds * SECOND_NS);
  state = (uint64_t)started | 1;

  static uint8_t packets[BATCH][HEADERS + MAX_PAYLOAD];
  struct mmsghdr messages[BATCH];
  struct iovec parts[BATCH];
  uint64_t sent = 0, next = 0;
  puts("flooding");
  fflush(stdout);
  for (int64_t now = started; now < until && !is_over; now = now_ns()) {
    int64_t due = rate > 0 ? started + (int64_t)((double)sent * SECOND_NS / rate) : now;
    if (due > now) {
      nanosleep(&(struct timespec){.tv_nsec = due - now < SECOND_NS ? due - now : SECOND_NS - 1}, NULL);
      continue;
    }
    for (int i = 0; i < BATCH; i++) {
      parts[i] = (struct iovec){packets[i], build(packets[i], &templates[next++ % template_count], &source, to)};
      messages[i].msg_hdr =
        (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int count = sendmmsg(fd, messages, BATCH, 0);
    if (count > 0) sent += (uint64_t)count;
    else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR) fail("sending");
  }
  printf("%llu\n", (unsigned long long)sent);
  return 0;
}
