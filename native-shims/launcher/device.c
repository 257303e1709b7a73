/* The interface inside: a TUN device, its addresses and one route. What the namespace does not have, nobody can use. */
#include "launcher.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* linux/ipv6.h and linux/ipv6_route.h, which cannot be included beside netinet/in.h everywhere. */
struct in6_ifreq {
  struct in6_addr address;
  uint32_t prefix_length;
  int interface;
};

struct in6_rtmsg {
  struct in6_addr destination, source, gateway;
  uint32_t type;
  uint16_t destination_length, source_length;
  uint32_t metric;
  unsigned long info;
  uint32_t flags;
  int interface;
};

enum { ROUTE_UP = 1, METRIC = 1024 };

/* ---- settings of the namespace ---- */

/* What a kernel does not have, it does not need. */
static void set(const char *name, const char *value) {
  char path[128];
  snprintf(path, sizeof path, "/proc/sys/net/%s", name);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t written = write(fd, value, strlen(value));
  (void)written;
  close(fd);
}

static void settle(const struct plan *plan) {
  char group[32];
  gid_t gid = plan->becomes_user ? plan->gid : getegid();
  snprintf(group, sizeof group, "%u %u", gid, gid);
  set("ipv6/conf/all/disable_ipv6", "0");
  set("ipv6/conf/default/disable_ipv6", "0");
  set("ipv6/conf/default/addr_gen_mode", "1"); /* no link-local address: there is no link */
  set("ipv4/ip_local_port_range", plan->ports);
  set("ipv4/ping_group_range", group); /* ping without privilege */
  set("ipv4/tcp_tw_reuse", "1");       /* the ports are few */
}

/* ---- the device ---- */

static int control_socket(void) {
  int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  return fd;
}

static bool set_flags(int fd, const char *name, bool is_up) {
  struct ifreq request = {0};
  snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
  if (ioctl(fd, SIOCGIFFLAGS, &request) < 0) return false;
  if (is_up) request.ifr_flags |= IFF_UP;
  else request.ifr_flags &= ~IFF_UP;
  return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

static bool set_mtu(int fd, const struct plan *plan) {
  struct ifreq request = {.ifr_mtu = plan->mtu};
  snprintf(request.ifr_name, IFNAMSIZ, "%s", plan->interface);
  return ioctl(fd, SIOCSIFMTU, &request) == 0;
}

static int open_tun(const struct plan *plan) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  snprintf(request.ifr_name, IFNAMSIZ, "%s", plan->interface);
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fail("/dev/net/tun");
  if (ioctl(fd, TUNSETIFF, &request) < 0) fail("interface");
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) fail("offloads");
  return fd;
}

int device_open(const struct plan *plan) {
  settle(plan);
  int control = control_socket();
  if (!set_flags(control, "lo", true)) fail("loopback");
  int fd = open_tun(plan);
  if (!set_mtu(control, plan)) fail("mtu");
  close(control);
  return fd;
}

/* The kernel looks for duplicates in its own time, also where there can be none; until then it would send from another. */
static bool wait_until_usable(const struct in6_addr *address) {
  struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_addr = *address};
  struct timespec pause = {.tv_nsec = 1000000};
  for (int tries = 0; tries < 2000; tries++) {
    int fd = control_socket();
    bool is_bound = bind(fd, (struct sockaddr *)&name, sizeof name) == 0;
    close(fd);
    if (is_bound) return true;
    nanosleep(&pause, NULL);
  }
  return errno = EADDRNOTAVAIL, false;
}

static bool add_address(int fd, const char *text, int interface) {
  struct in6_ifreq request = {.prefix_length = 128, .interface = interface};
  if (inet_pton(AF_INET6, text, &request.address) != 1) return errno = EINVAL, false;
  if (ioctl(fd, SIOCSIFADDR, &request) < 0 && errno != EEXIST) return false;
  return wait_until_usable(&request.address);
}

static bool add_route(int fd, const char *prefix, int interface) {
  struct in6_rtmsg request = {.flags = ROUTE_UP, .metric = METRIC, .interface = interface};
  char address[INET6_ADDRSTRLEN];
  const char *slash = strchr(prefix, '/');
  if (slash == NULL || (size_t)(slash - prefix) >= sizeof address) return errno = EINVAL, false;
  memcpy(address, prefix, (size_t)(slash - prefix));
  address[slash - prefix] = '\0';
  request.destination_length = (uint16_t)atoi(slash + 1);
  if (inet_pton(AF_INET6, address, &request.destination) != 1) return errno = EINVAL, false;
  return ioctl(fd, SIOCADDRT, &request) == 0 || errno == EEXIST;
}

bool device_up(const struct plan *plan) {
  int fd = control_socket();
  int interface = (int)if_nametoindex(plan->interface);
  bool is_up = set_flags(fd, plan->interface, true);
  for (int i = 0; is_up && i < plan->address_count; i++) is_up = add_address(fd, plan->addresses[i], interface);
  is_up = is_up && add_route(fd, plan->prefix, interface);
  int error = errno;
  close(fd);
  errno = error;
  return is_up;
}

/* Addresses and routes go with it: programs are told at once that there is no way. */
void device_down(const struct plan *plan) {
  int fd = control_socket();
  set_flags(fd, plan->interface, false);
  close(fd);
}
