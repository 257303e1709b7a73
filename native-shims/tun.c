/*
 * The TUN device. IFF_VNET_HDR puts a 10-byte virtio_net_hdr before every packet, through which the kernel hands over
 * and takes superpackets of up to 64 KiB whose segmentation and checksum are left to us (TSO, USO).
 *
 * Reading fills the outbound arena packet by packet until the device is empty, the rows of one batch are used up, or
 * another superpacket might not fit. Writing takes what JavaScript accepted: a lone packet as it came, a run as one
 * superpacket gathered from where its pieces lie. The vnet header of a write overlays bytes before the packet, which
 * belong to the frame it came in and are of no more use.
 */
#include "plane.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

/* Since Linux 6.2; headers of older systems lack them. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum { READ_ROWS = 64, WRITE_PARTS = 128, OUT_ALIGN = 64 };

/* ---- opening ---- */

static int set_offloads(int fd, bool *has_uso) {
  unsigned basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  *has_uso = ioctl(fd, TUNSETOFFLOAD, basic | TUN_F_USO4 | TUN_F_USO6) == 0;
  if (*has_uso) return 0;
  return ioctl(fd, TUNSETOFFLOAD, basic) == 0 ? 0 : -errno;
}

static int configure(int fd, char name[IFNAMSIZ], bool *has_uso) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
  int header = VNET_HEADER;
  memcpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) return -errno;
  memcpy(name, request.ifr_name, IFNAMSIZ);
  return set_offloads(fd, has_uso);
}

int tun_open(struct plane *plane, char name[IFNAMSIZ]) {
  if (plane->tun_fd >= 0) return -EBUSY;
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -errno;
  int error = configure(fd, name, &plane->has_uso);
  if (error < 0) {
    close(fd);
    return error;
  }
  plane->tun_fd = fd;
  plane->status[STATUS_HAS_USO] = plane->has_uso;
  return 0;
}

/* The device as it was opened, perhaps by an earlier version: what it cannot do like ours is refused, not guessed. */
static int adopt(int fd, const char *name, bool *has_uso) {
  struct ifreq request = {0};
  int header = VNET_HEADER;
  if (ioctl(fd, TUNGETIFF, &request) < 0) return -errno;
  if (strncmp(request.ifr_name, name, IFNAMSIZ) != 0) return -ENODEV;
  if (!(request.ifr_flags & IFF_TUN) || !(request.ifr_flags & IFF_NO_PI) || !(request.ifr_flags & IFF_VNET_HDR))
    return -EINVAL;
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) return -errno;
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) return -errno;
  return set_offloads(fd, has_uso);
}

int tun_adopt(struct plane *plane, int fd, const char *name) {
  if (plane->tun_fd >= 0) return -EBUSY;
  int error = adopt(fd, name, &plane->has_uso);
  if (error < 0) return error;
  plane->tun_fd = fd;
  plane->status[STATUS_HAS_USO] = plane->has_uso;
  return 0;
}

/* ---- reading ---- */

static uint16_t host_u16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, 2);
  return value;
}

static bool checksum_inside(const int32_t *row) {
  return row[OUT_CSUM_START] + row[OUT_CSUM_OFFSET] + 2 <= row[OUT_LENGTH];
}

/* Bytes of headers before the payload of a superpacket; the kernel's own hdr_len may be that of a whole fragment. */
static int32_t header_length(const int32_t *row, const uint8_t *packet) {
  int32_t start = row[OUT_CSUM_START];
  if (row[OUT_GSO_TYPE] == GSO_UDP_L4) return start + UDP_HEADER;
  if (start + TCP_HEADER > row[OUT_LENGTH]) return 0;
  return start + (packet[start + 12] >> 4) * 4;
}

/* The vnet header is in the machine's byte order: flags 1, gso type 1, header length 2, gso size 2, checksum start 2 and offset 2. */
static bool fill_row(int32_t *row, const uint8_t *vnet, int32_t offset, int32_t length) {
  const uint8_t *packet = vnet + VNET_HEADER;
  bool partial = vnet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM;
  memset(row, 0, ROW_WORDS * sizeof *row);
  row[OUT_OFFSET] = offset;
  row[OUT_LENGTH] = length;
  row[OUT_KEY_SLOT] = DROP;
  row[OUT_ENDPOINT_SLOT] = NONE;
  if (partial) {
    row[OUT_CSUM_START] = host_u16(vnet + 6);
    row[OUT_CSUM_OFFSET] = host_u16(vnet + 8);
    if (!checksum_inside(row)) return false;
  }
  row[OUT_GSO_TYPE] = vnet[1] & ~GSO_ECN;
  if (row[OUT_GSO_TYPE] == GSO_NONE) return length > 0;
  row[OUT_GSO_SIZE] = host_u16(vnet + 4);
  row[OUT_HEADER_LENGTH] = header_length(row, packet);
  return partial && row[OUT_GSO_SIZE] > 0 && row[OUT_HEADER_LENGTH] > 0 && row[OUT_HEADER_LENGTH] < length;
}

static size_t aligned(size_t offset) { return (offset + OUT_ALIGN - 1) & ~(size_t)(OUT_ALIGN - 1); }

int tun_read(struct plane *plane) {
  int rows = 0;
  size_t at = OUT_ALIGN; /* packets lie aligned, their vnet headers just before them */
  while (rows < READ_ROWS && at + MAX_IP_PACKET <= plane->out_bytes) {
    uint8_t *vnet = plane->out_arena + at - VNET_HEADER;
    ssize_t n = read(plane->tun_fd, vnet, VNET_HEADER + MAX_IP_PACKET);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || rows > 0)) break;
    if (n < 0) return -errno;
    if (n <= VNET_HEADER || !fill_row(plane->out_rows + (size_t)rows * ROW_WORDS, vnet, (int32_t)at, (int32_t)n - VNET_HEADER)) {
      count_of(plane, MALFORMED_PACKET, 1);
      if (n == 0) break;
      continue;
    }
    rows++;
    at = aligned(at + (size_t)n) + OUT_ALIGN;
  }
  return rows;
}

/* ---- writing ---- */

static bool write_parts(struct plane *plane, struct iovec *parts, int count) {
  ssize_t n;
  do n = writev(plane->tun_fd, parts, count);
  while (n < 0 && errno == EINTR);
  return n >= 0;
}

/* By the shim's own tables, since JavaScript may write to the row. */
static int gather(struct plane *plane, const struct run *run, struct iovec *parts) {
  int count = 1, next = plane->segments[run->first].next;
  uint8_t *first = plane->in_arena + plane->segments[run->first].offset;
  parts[0] = (struct iovec){first - VNET_HEADER, VNET_HEADER + (size_t)plane->segments[run->first].length};
  for (; next != NONE && count < WRITE_PARTS; next = plane->segments[next].next) {
    const struct segment *segment = &plane->segments[next];
    parts[count++] = (struct iovec){plane->in_arena + segment->offset, segment->length};
  }
  uint8_t *vnet = first - VNET_HEADER;
  memset(vnet, 0, VNET_HEADER);
  if (count > 1) coalesce_finish(run, first, vnet);
  return count;
}

void tun_write(struct plane *plane, int count) {
  struct iovec parts[WRITE_PARTS];
  for (int i = 0; i < count && i < plane->rows_filled; i++) {
    int32_t *row = plane->in_rows + (size_t)i * ROW_WORDS;
    if (row[IN_VERDICT] != ACCEPT || row[IN_KIND] != ROW_PACKET) continue;
    int pieces = gather(plane, &plane->runs[i], parts);
    if (!write_parts(plane, parts, pieces)) count_of(plane, TUN_WRITE_FAILED, (uint32_t)row[IN_SEGMENTS]);
    row[IN_VERDICT] = DROP; /* a second call must not write it again: its header has changed */
  }
}

/* What tun_write would write for one row, with its vnet header, for another device; its length, or -errno. */
int tun_take_run(struct plane *plane, int row, uint8_t *into, size_t room) {
  struct iovec parts[WRITE_PARTS];
  size_t length = 0;
  if (row < 0 || row >= plane->rows_filled || plane->in_rows[(size_t)row * ROW_WORDS + IN_KIND] != ROW_PACKET) return -EINVAL;
  int count = gather(plane, &plane->runs[row], parts);
  for (int i = 0; i < count; i++) {
    if (length + parts[i].iov_len > room) return -EMSGSIZE;
    memcpy(into + length, parts[i].iov_base, parts[i].iov_len);
    length += parts[i].iov_len;
  }
  return (int)length;
}

int tun_write_packet(struct plane *plane, const uint8_t *bytes, size_t length) {
  uint8_t vnet[VNET_HEADER] = {0};
  struct iovec parts[2] = {{vnet, sizeof vnet}, {(void *)bytes, length}};
  if (length > 0 && length <= MAX_IP_PACKET && write_parts(plane, parts, 2)) return 0;
  count_of(plane, TUN_WRITE_FAILED, 1);
  return -EIO;
}

/* With the vnet header it was read with, so that a superpacket stays one and a partial checksum stays partial. */
void tun_write_back(struct plane *plane, const int32_t *row) {
  int64_t offset = row[OUT_OFFSET], length = row[OUT_LENGTH];
  if (offset < VNET_HEADER || length <= 0 || offset + length > (int64_t)plane->out_bytes)
    return count_of(plane, MALFORMED_PACKET, 1);
  struct iovec part = {plane->out_arena + offset - VNET_HEADER, VNET_HEADER + (size_t)length};
  if (!write_parts(plane, &part, 1)) count_of(plane, TUN_WRITE_FAILED, 1);
}
