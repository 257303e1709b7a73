/* A dual-stack UDP socket, and messages of the kernel's that are runs of datagrams; see datagram.c. */
#ifndef PILOT_DATAGRAM_H
#define PILOT_DATAGRAM_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

/* What travels beside one run to send. */
union run_size {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(uint16_t))];
};

/* An unbound socket that does not block, or -errno. The kernel may give smaller buffers. */
int datagram_socket(int receive_buffer, int send_buffer);
/* The port bound, or -errno. */
int datagram_bind(int fd, const struct sockaddr_in6 *address);
/* Messages that came while the socket's buffer was full, modulo 2^32; 0 where the kernel does not tell. */
uint32_t datagram_overflow(int fd);

/* Lets the kernel cut the message into datagrams of `bytes`, the last of which may be shorter. */
void datagram_send_as_run(struct msghdr *message, union run_size *control, uint16_t bytes);
/* Length of each datagram but the last in a message received, which is `bytes` long. */
uint32_t datagram_run_size(struct msghdr *message, uint32_t bytes);

#endif
