/*
 * What every UDP socket of the shim has: one IPv6 socket serves both families (IPv4 endpoints are written
 * ::ffff:a.b.c.d), and a run of equal datagrams is one message in both directions (UDP_SEGMENT, UDP_GRO).
 */
#include "datagram.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* SO_RCVBUFFORCE passes the system's limit, but asks for CAP_NET_ADMIN; the plain option takes what is allowed. */
static void set_buffer(int fd, int forced, int plain, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) < 0)
    setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

int datagram_socket(int receive_buffer, int send_buffer) {
  int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, off = 0;
  if (fd < 0) return -errno;
  set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, receive_buffer);
  set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, send_buffer);
  setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on); /* an older kernel hands over single datagrams */
  if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

int datagram_bind(int fd, const struct sockaddr_in6 *address) {
  struct sockaddr_in6 bound;
  socklen_t length = sizeof bound;
  if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0) return -errno;
  return getsockname(fd, (struct sockaddr *)&bound, &length) < 0 ? -errno : ntohs(bound.sin6_port);
}

uint32_t datagram_overflow(int fd) {
  uint32_t counts[SK_MEMINFO_VARS] = {0};
  socklen_t length = sizeof counts;
  return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, counts, &length) < 0 ? 0 : counts[SK_MEMINFO_DROPS];
}

void datagram_send_as_run(struct msghdr *message, union run_size *control, uint16_t bytes) {
  message->msg_control = control;
  message->msg_controllen = sizeof *control;
  control->header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof bytes), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
  memcpy(CMSG_DATA(&control->header), &bytes, sizeof bytes);
}

uint32_t datagram_run_size(struct msghdr *message, uint32_t bytes) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
    int size;
    memcpy(&size, CMSG_DATA(c), sizeof size);
    if (size > 0) return (uint32_t)size;
  }
  return bytes;
}
