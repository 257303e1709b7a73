/*
 * Takes ports of one interface away from this host's programs: a TCP and a UDP socket for each, bound and never used. What
 * arrives for them is taken before the kernel sees it.
 */
#include "ports.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int bind_port(const char *interface, int type, int port) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  int fd = socket(AF_INET6, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), only_ipv6 = 1, least = 1;
  if (fd < 0) return -errno;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
  if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_ipv6, sizeof only_ipv6) == 0 &&
      setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) == 0 &&
      bind(fd, (struct sockaddr *)&address, sizeof address) == 0)
    return fd;
  int error = -errno;
  close(fd);
  return error;
}

int ports_reserve(const char *interface, int first, int count, int32_t *fds) {
  for (int i = 0; i < 2 * count; i++) {
    fds[i] = bind_port(interface, i % 2 == 0 ? SOCK_STREAM : SOCK_DGRAM, first + i / 2);
    if (fds[i] >= 0) continue;
    int error = fds[i];
    while (i-- > 0) close(fds[i]);
    return error;
  }
  return 0;
}
