/* Packets of the TUN with any offload fields: cut, completed, and sealed into the send queue. */
#include "support.h"

static uint16_t rest_of(const uint8_t *packet, uint32_t length, uint8_t protocol) {
  return checksum_fold(checksum_add(checksum_pseudo(packet, length - IPV6_HEADER, protocol), packet + IPV6_HEADER, length - IPV6_HEADER));
}

static void cut(const struct packet *packet) {
  uint32_t count = segment_count(packet), payload = 0;
  DEMAND(count >= 1 && count <= packet->length + 1, "there are no more segments than bytes");
  for (uint32_t i = 0; i < count; i++) {
    uint32_t length = segment_length(packet, i);
    DEMAND(length <= packet->length, "no segment is longer than what it was cut from");
    uint8_t *out = malloc(length); /* of this very size: a byte more is seen */
    DEMAND(segment_write(packet, i, out) == length, "a segment is as long as was said");
    if (packet->gso_type != GSO_NONE) {
      uint32_t header = (uint32_t)packet->header_length;
      DEMAND(memcmp(out + header, packet->bytes + header + payload, length - header) == 0, "the payload is kept");
      payload += length - header;
      if (packet->csum_start == IPV6_HEADER)
        DEMAND(rest_of(out, length, packet->gso_type == GSO_TCPV6 ? PROTOCOL_TCP : PROTOCOL_UDP) == 0xffff, "the checksum is right");
    }
    free(out);
  }
  if (packet->gso_type != GSO_NONE)
    DEMAND(payload == packet->length - (uint32_t)packet->header_length, "all of the payload is sent");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct plane *plane;
  static const int32_t types[] = {GSO_NONE, GSO_NONE, GSO_TCPV6, GSO_UDP_L4, GSO_TCPV4, -1};
  if (plane == NULL) plane = fuzz_plane();
  struct input input = {data, data + size};
  struct packet packet = {.gso_type = types[take_u8(&input) % 6]};
  packet.gso_size = (int32_t)take_u16(&input) - 8;
  packet.csum_start = (int32_t)take_u8(&input) - 4;
  packet.csum_offset = (int32_t)take_u8(&input) - 4;
  packet.header_length = (int32_t)take_u16(&input) - 8;
  size_t length = size, repeat = 1 + take_u8(&input) % 64;
  const uint8_t *bytes = take_bytes(&input, &length);
  size_t total = length * repeat > MAX_IP_PACKET ? length : length * repeat;
  uint8_t *copy = malloc(total == 0 ? 1 : total);
  for (size_t i = 0; i < total; i++) copy[i] = bytes[i % length];
  packet.bytes = copy;
  packet.length = (uint32_t)total;
  if (total > 0 && segment_valid(&packet)) cut(&packet);

  fuzz_plane_reset(plane);
  memcpy(plane->out_arena, copy, total);
  int32_t row[ROW_WORDS] = {0, (int32_t)total, packet.gso_type, packet.gso_size, packet.csum_start, packet.csum_offset,
                            packet.header_length, (int32_t)take_u8(&input) % 3 - 1, (int32_t)take_u8(&input) % 2};
  memcpy(plane->out_rows, row, sizeof row);
  seal_and_send(plane, 1);
  free(copy);
  return 0;
}
