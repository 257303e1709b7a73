/*
 * Messages to unix sockets and who is at their other end: paths and texts of every length and content, and a kernel that
 * answers as it likes. What is sent must be addressed as unix(7) says, with the descriptor that was given and no other.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support.h"
#include "unix.h"

static struct input *input;
static const char *given_path, *given_text;
static int descriptor;
static bool was_sent;

static ssize_t check_message(const struct msghdr *message) {
  struct sockaddr_un address = {0};
  DEMAND(message->msg_namelen <= sizeof address, "an address is no longer than there is room for");
  memcpy(&address, message->msg_name, message->msg_namelen);
  size_t length = strlen(given_path), told = message->msg_namelen - offsetof(struct sockaddr_un, sun_path);
  DEMAND(address.sun_family == AF_UNIX && (given_path[0] == '/' || given_path[0] == '@'), "it goes to a unix socket that has a name");
  DEMAND(told == (given_path[0] == '/' ? length + 1 : length), "the name has its length");
  DEMAND(address.sun_path[0] == (given_path[0] == '@' ? 0 : '/'), "an abstract name begins with a zero");
  DEMAND(length == 0 || memcmp(address.sun_path + 1, given_path + 1, length - 1) == 0, "the name is the one that was given");
  DEMAND(message->msg_iovlen == 1 && message->msg_iov->iov_len == strlen(given_text), "the text is sent whole");
  DEMAND(memcmp(message->msg_iov->iov_base, given_text, message->msg_iov->iov_len) == 0, "and as it was");
  struct cmsghdr *header = message->msg_controllen == 0 ? NULL : CMSG_FIRSTHDR(message);
  DEMAND((header != NULL) == (descriptor >= 0), "a descriptor goes along if there is one");
  if (header != NULL) {
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    DEMAND(fd == descriptor && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof fd), "the one that was given");
  }
  was_sent = true;
  return take_u8(input) % 4 == 0 ? (errno = EAGAIN, -1) : (ssize_t)message->msg_iov->iov_len;
}

static int option(int fd, int name, void *value, socklen_t *length) {
  uint32_t mood = take_u8(input), tells = name == SO_PEERGROUPS ? take_u8(input) * 4u : *length;
  if (fd < 0 || mood % 8 == 0) return errno = mood == 0 ? ERANGE : EINVAL, -1;
  if (tells > *length) return *length = tells, errno = ERANGE, -1;
  memset(value, (int)mood, tells);
  *length = tells;
  return 0;
}

static int closed(int fd) { return fd < 0 ? -1 : 0; }

#define socket(family, type, protocol) (take_u8(input) == 255 ? (errno = EMFILE, -1) : 3)
#define sendmsg(fd, message, flags) check_message(message)
#define getsockopt(fd, level, name, value, length) option(fd, name, value, length)
#define close(fd) closed(fd)
#include "../../../native-shims/unix.c"

static char *text_of_input(size_t most) {
  size_t length = take_u8(input) % 16 == 0 ? take_u16(input) % most : take_u8(input) % 128;
  const uint8_t *bytes = take_bytes(input, &length);
  char *text = malloc(length + 1); /* of this very size */
  memcpy(text, bytes, length);
  text[length] = 0;
  return text;
}

static void ask_for_peer(void) {
  int most = (int)take_u8(input) % 64;
  uint32_t *ids = malloc(most == 0 ? 1 : (size_t)most * sizeof *ids);
  int count = unix_peer(3, ids, most);
  DEMAND(count <= most && (count < 0 || count >= PEER_IDS), "a peer has its three numbers, and no more groups than there is room for");
  uint32_t sum = 0;
  for (int i = 0; i < count; i++) sum += ids[i];
  DEMAND(count >= 0 || sum == 0, "who is not known has none");
  free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input at = {data, data + size};
  input = &at;
  for (int turn = 0; turn < 4 && at.at < at.end; turn++) {
    char *to = text_of_input(4096), *text = text_of_input(4096);
    given_path = to;
    given_text = text;
    descriptor = (int)take_u8(input) % 8 - 2;
    was_sent = false;
    int result = unix_send(to, text, descriptor);
    bool is_name = (to[0] == '/' || to[0] == '@') && strlen(to) < sizeof ((struct sockaddr_un *)0)->sun_path;
    DEMAND(is_name || (result == -EINVAL && !was_sent), "what is no name is refused");
    ask_for_peer();
    free(to);
    free(text);
  }
  return 0;
}
