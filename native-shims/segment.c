/*
 * Cutting a superpacket of the TUN into the packets it stands for (what a network card does for TSO and USO), and
 * completing the checksum of a single packet that the kernel left partial.
 *
 * Every segment repeats the headers; the IP and UDP lengths, the TCP sequence number and the checksums are its own. Of
 * the TCP flags FIN and PSH belong to the last segment only and CWR to the first only (RFC 3168 §6.1.2). Only IPv6 is
 * cut: the overlay carries nothing else.
 *
 * Sums run over the bytes as the TUN gave them, not over the copy: reading what was just written stalls the processor.
 * Headers are of even length, so the sums of header and payload may simply be added.
 */
#include "plane.h"

enum { IPV6_LENGTH = 4, TCP_SEQ = 4, TCP_FLAGS = 13, TCP_CSUM = 16, UDP_LENGTH = 4, UDP_CSUM = 6 };

static bool is_tcp(const struct packet *packet) { return packet->gso_type == GSO_TCPV6; }

static bool single_valid(int64_t length, int64_t start, int64_t offset) {
  return length > 0 && (start == 0 || (start > 0 && offset >= 0 && start + offset + 2 <= length));
}

static bool super_valid(const struct packet *packet, int32_t csum_offset, int32_t least) {
  int64_t length = packet->length, start = packet->csum_start, header = packet->header_length, size = packet->gso_size;
  if (start < IPV6_HEADER || packet->csum_offset != csum_offset || size < 1) return false;
  if (header + (size < length ? size : length) - IPV6_HEADER > 0xffff) return false; /* does not fit a segment's header */
  return start + least <= length && header <= length && packet->bytes[0] >> 4 == 6;
}

static bool tcp_valid(const struct packet *packet) {
  if (!super_valid(packet, TCP_CSUM, TCP_HEADER)) return false;
  int32_t header = (packet->bytes[packet->csum_start + 12] >> 4) * 4;
  return header >= TCP_HEADER && packet->header_length == packet->csum_start + header;
}

bool segment_valid(const struct packet *packet) {
  switch (packet->gso_type) {
    case GSO_NONE:
      return single_valid(packet->length, packet->csum_start, packet->csum_offset);
    case GSO_TCPV6:
      return tcp_valid(packet);
    case GSO_UDP_L4:
      return super_valid(packet, UDP_CSUM, UDP_HEADER) && packet->header_length == packet->csum_start + UDP_HEADER;
    default:
      return false;
  }
}

uint32_t segment_count(const struct packet *packet) {
  if (packet->gso_type == GSO_NONE) return 1;
  uint32_t payload = packet->length - (uint32_t)packet->header_length, size = (uint32_t)packet->gso_size;
  return payload == 0 ? 1 : (payload + size - 1) / size;
}

uint32_t segment_length(const struct packet *packet, uint32_t index) {
  if (packet->gso_type == GSO_NONE) return packet->length;
  uint32_t header = (uint32_t)packet->header_length, size = (uint32_t)packet->gso_size;
  uint32_t left = packet->length - header - index * size;
  return header + (left < size ? left : size);
}

/* Zero means "no checksum" in UDP, which IPv6 does not allow (RFC 8200 §8.1). */
static void store_checksum(uint8_t *at, uint64_t sum, bool udp) {
  uint16_t checksum = (uint16_t)~checksum_fold(sum);
  if (udp && checksum == 0) checksum = 0xffff;
  memcpy(at, &checksum, 2);
}

static uint32_t write_single(const struct packet *packet, uint8_t *out) {
  memcpy(out, packet->bytes, packet->length);
  if (packet->csum_start == 0) return packet->length;
  uint32_t start = (uint32_t)packet->csum_start; /* the field holds the pseudo header's sum */
  uint64_t sum = checksum_add(0, packet->bytes + start, packet->length - start);
  store_checksum(out + start + packet->csum_offset, sum, packet->csum_offset == UDP_CSUM);
  return packet->length;
}

static void fix_tcp(const struct packet *packet, uint32_t index, bool last, uint8_t *tcp) {
  write_u32(tcp + TCP_SEQ, read_u32(tcp + TCP_SEQ) + index * (uint32_t)packet->gso_size);
  if (!last) tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
  if (index > 0) tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
}

uint32_t segment_write(const struct packet *packet, uint32_t index, uint8_t *out) {
  if (packet->gso_type == GSO_NONE) return write_single(packet, out);
  uint32_t header = (uint32_t)packet->header_length, start = (uint32_t)packet->csum_start;
  uint32_t length = segment_length(packet, index), from = header + index * (uint32_t)packet->gso_size;
  memcpy(out, packet->bytes, header);
  memcpy(out + header, packet->bytes + from, length - header);
  write_u16(out + IPV6_LENGTH, length - IPV6_HEADER);

  uint8_t *transport = out + start;
  uint8_t *checksum = transport + (is_tcp(packet) ? TCP_CSUM : UDP_CSUM);
  if (is_tcp(packet)) fix_tcp(packet, index, from + (length - header) == packet->length, transport);
  else write_u16(transport + UDP_LENGTH, length - start);
  memset(checksum, 0, 2);
  uint64_t sum = checksum_pseudo(out, length - start, is_tcp(packet) ? PROTOCOL_TCP : PROTOCOL_UDP);
  sum = checksum_add(sum, transport, header - start);
  store_checksum(checksum, checksum_add(sum, packet->bytes + from, length - header), !is_tcp(packet));
  return length;
}
