/*
 * Outbound: rows that JavaScript has decided on become PILS frames in the send queue.
 *
 *   PILS | sender node 4 | prefix 4, counter 8 | virtual header 34, inner packet | tag 16
 *                                                \___________ sealed __________/
 *
 * Each packet is cut (segment.c) straight into its frame, the key's template supplies the virtual header, and the frame
 * is sealed where it lies, while it is still in the nearest cache. The queue sends as it fills (udp.c).
 * The counter rises with every frame and is never reset under one key. It ends where JavaScript's numbers stop being
 * exact, since JavaScript keeps it when the key is removed; it would take centuries to get there.
 */
#include "plane.h"

enum { VIRTUAL_LENGTH = 2, VIRTUAL_SEQUENCE = 20, VIRTUAL_CRC = 30 };
static const uint8_t MAGIC[4] = {'P', 'I', 'L', 'S'};

bool seal_frame(struct plane *plane, struct key *key, uint8_t *frame, size_t virtual_length) {
  cipher_ctx *ctx = key_seal_ctx(plane, key);
  if (ctx == NULL || key->send_counter >= MAX_COUNTER) return false;
  memcpy(frame, MAGIC, 4);
  write_u32(frame + 4, key->local_node);
  memcpy(frame + 8, key->send_prefix, 4);
  write_u64(frame + 12, key->send_counter++);
  uint8_t *bytes = frame + FRAME_HEADER;
  return aead_seal(ctx, frame + 8, frame + 4, key->bind_sender ? 4 : 0, bytes, virtual_length, bytes + virtual_length);
}

static bool seal_segment(struct plane *plane, struct key *key, const struct packet *packet, uint32_t index,
                         uint8_t *frame) {
  uint8_t *virtual = frame + FRAME_HEADER;
  memcpy(virtual, key->send_header, VIRTUAL_HEADER);
  uint32_t length = segment_write(packet, index, virtual + VIRTUAL_HEADER);
  write_u16(virtual + VIRTUAL_LENGTH, length);
  memset(virtual + VIRTUAL_CRC, 0, 4);
  write_u32(virtual + VIRTUAL_CRC, crc32_of(virtual, VIRTUAL_HEADER + length));
  return seal_frame(plane, key, frame, VIRTUAL_HEADER + length);
}

static void count_sent(struct plane *plane, const struct key *key, uint32_t packets, uint64_t bytes) {
  double *stats = plane->key_stats + (size_t)key->slot * KEY_STAT_COUNT;
  stats[TX_BYTES] += (double)bytes;
  stats[KEY_TX_PACKETS] += packets;
  count_of(plane, TX_PACKETS, packets);
}

void seal_packet(struct plane *plane, int32_t key_slot, int32_t endpoint_slot, const struct packet *packet) {
  struct key *key = key_at(plane, key_slot);
  if (!segment_valid(packet)) return count_of(plane, MALFORMED_PACKET, 1);
  uint32_t count = segment_count(packet), sent = 0;
  uint64_t bytes = 0;
  for (uint32_t index = 0; key != NULL && index < count; index++) {
    size_t length = segment_length(packet, index), frame_bytes = FRAME_OVERHEAD + VIRTUAL_HEADER + length;
    uint8_t *frame = udp_reserve(plane, endpoint_slot, frame_bytes);
    if (frame == NULL || !seal_segment(plane, key, packet, index, frame)) break;
    udp_commit(plane, endpoint_slot, frame_bytes);
    sent++;
    bytes += length;
  }
  if (key != NULL) count_sent(plane, key, sent, bytes);
  if (sent < count) count_of(plane, SEND_FAILED, count - sent);
}

static bool seal_virtual(struct plane *plane, struct key *key, int32_t endpoint_slot, const struct virtual_run *run,
                         size_t at, size_t length) {
  size_t bytes = VIRTUAL_HEADER + length;
  uint8_t *frame = key == NULL ? NULL : udp_reserve(plane, endpoint_slot, FRAME_OVERHEAD + bytes);
  if (frame == NULL) return false;
  uint8_t *virtual = frame + FRAME_HEADER;
  memcpy(virtual, run->header, VIRTUAL_HEADER);
  write_u16(virtual + VIRTUAL_LENGTH, (uint32_t)length);
  write_u32(virtual + VIRTUAL_SEQUENCE, read_u32(run->header + VIRTUAL_SEQUENCE) + (uint32_t)at);
  memset(virtual + VIRTUAL_CRC, 0, 4);
  if (length > 0) memcpy(virtual + VIRTUAL_HEADER, run->payload + at, length);
  write_u32(virtual + VIRTUAL_CRC, crc32_of(virtual, bytes));
  if (!seal_frame(plane, key, frame, bytes)) return false;
  udp_commit(plane, endpoint_slot, FRAME_OVERHEAD + bytes);
  return true;
}

void seal_virtual_run(struct plane *plane, int32_t key_slot, int32_t endpoint_slot, const struct virtual_run *run) {
  struct key *key = key_at(plane, key_slot);
  size_t at = 0;
  do {
    size_t left = run->length - at, length = left < run->segment_bytes ? left : run->segment_bytes;
    if (!seal_virtual(plane, key, endpoint_slot, run, at, length)) count_of(plane, SEND_FAILED, 1);
    at += length;
  } while (at < run->length);
}

static void seal_row(struct plane *plane, const int32_t *row) {
  int64_t offset = row[OUT_OFFSET], length = row[OUT_LENGTH];
  if (offset < 0 || length <= 0 || offset + length > (int64_t)plane->out_bytes)
    return count_of(plane, MALFORMED_PACKET, 1);
  struct packet packet = {
    .bytes = plane->out_arena + offset,
    .length = (uint32_t)length,
    .gso_type = row[OUT_GSO_TYPE],
    .gso_size = row[OUT_GSO_SIZE],
    .csum_start = row[OUT_CSUM_START],
    .csum_offset = row[OUT_CSUM_OFFSET],
    .header_length = row[OUT_HEADER_LENGTH],
  };
  seal_packet(plane, row[OUT_KEY_SLOT], row[OUT_ENDPOINT_SLOT], &packet);
}

void seal_and_send(struct plane *plane, int count) {
  for (int i = 0; i < count && i < MAX_ROWS; i++) {
    const int32_t *row = plane->out_rows + (size_t)i * ROW_WORDS;
    if (row[OUT_KEY_SLOT] >= 0) seal_row(plane, row);
    else if (row[OUT_KEY_SLOT] == LOOPBACK) tun_write_back(plane, row);
  }
  udp_flush(plane);
}
