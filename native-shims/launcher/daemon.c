/* The connection to the daemon: a request in HTTP, as its socket speaks it, and after the answer packets both ways. */
#include "launcher.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int open_socket(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct timeval patience = {.tv_sec = 5};
  if (strlen(path) >= sizeof address.sun_path) return errno = ENAMETOOLONG, -1;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

/* The head of the answer, byte by byte, because what follows is packets. */
static bool read_head(int fd, char *head, size_t room) {
  size_t length = 0;
  while (length + 1 < room && recv(fd, head + length, 1, 0) == 1) {
    head[++length] = '\0';
    if (length >= 4 && memcmp(head + length - 4, "\r\n\r\n", 4) == 0) return true;
  }
  return false;
}

int daemon_connect(const struct plan *plan, char *refusal, size_t refusal_bytes) {
  char head[2048] = "";
  refusal[0] = '\0';
  int fd = open_socket(plan->control);
  if (fd < 0) return -1;
  size_t length = strlen(plan->request);
  if (send(fd, plan->request, length, MSG_NOSIGNAL) == (ssize_t)length && read_head(fd, head, sizeof head)) {
    if (strncmp(head, "HTTP/1.1 101", 12) == 0) return fd;
    ssize_t body = recv(fd, refusal, refusal_bytes - 1, 0);
    refusal[body > 0 ? body : 0] = '\0';
  }
  close(fd);
  errno = ECONNREFUSED;
  return -1;
}
