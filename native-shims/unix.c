/*
 * What a unix socket can do and Node does not offer: datagrams, with a descriptor in them (the protocol of sd_notify(3),
 * by which a service manager is told and keeps the TUN device over a restart), and who is at the other end of a
 * connection, as the kernel saw it when it was made.
 */
#include "unix.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static int parse_path(const char *path, struct sockaddr_un *address, socklen_t *length) {
  size_t bytes = strlen(path);
  if ((path[0] != '/' && path[0] != '@') || bytes >= sizeof address->sun_path) return -EINVAL;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, bytes);
  if (path[0] == '@') address->sun_path[0] = 0;
  *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes + (path[0] == '/'));
  return 0;
}

static void enclose(struct msghdr *message, void *control, size_t size, int fd) {
  message->msg_control = control;
  message->msg_controllen = size;
  struct cmsghdr *header = CMSG_FIRSTHDR(message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
}

int unix_send(const char *path, const char *text, int fd) {
  struct sockaddr_un address;
  struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
  struct msghdr message = {.msg_name = &address, .msg_iov = &part, .msg_iovlen = 1};
  union {
    struct cmsghdr aligned;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  int error = parse_path(path, &address, &message.msg_namelen);
  if (error < 0) return error;
  if (fd >= 0) enclose(&message, control.bytes, sizeof control.bytes, fd);
  int from = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (from < 0) return -errno;
  error = sendmsg(from, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
  close(from);
  return error;
}

int unix_peer(int fd, uint32_t *ids, int most) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (most < PEER_IDS) return -EINVAL;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
  ids[PEER_PID] = (uint32_t)peer.pid;
  ids[PEER_UID] = peer.uid;
  ids[PEER_GID] = peer.gid;
  length = (socklen_t)((size_t)(most - PEER_IDS) * sizeof *ids);
  /* More groups than there is room for: none is told, so that nobody is let in by a part of the truth. */
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, ids + PEER_IDS, &length) < 0) return PEER_IDS;
  return PEER_IDS + (int)(length / sizeof *ids);
}
