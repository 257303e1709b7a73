/*
 * Datagrams of the underlay: unwrapped, opened, checked, coalesced and gathered for the TUN. What was sealed by the peer
 * must come out as it went in: a run, cut again by segment.c, is the packets that it was made of.
 */
#include "support.h"

enum { MOST = 24, ROOM = 2048 };

static struct {
  uint8_t bytes[ROOM];
  size_t length;
  bool seen;
} sealed[MOST];
static int sealed_count;

/* A frame of the peer around `length` bytes that follow the bridge's virtual header; returns its length. */
static size_t seal(struct plane *plane, uint8_t *frame, const uint8_t *bytes, size_t length) {
  struct key *key = key_at(plane, 0);
  uint8_t *virtual = frame + FRAME_HEADER;
  memcpy(virtual, key->send_header, VIRTUAL_HEADER);
  write_u16(virtual + 2, (uint32_t)length);
  memcpy(virtual + VIRTUAL_HEADER, bytes, length);
  memset(virtual + 30, 0, 4);
  write_u32(virtual + 30, crc32_of(virtual, VIRTUAL_HEADER + length));
  DEMAND(seal_frame(plane, key, frame, VIRTUAL_HEADER + length), "what is sealed is sealed");
  return FRAME_OVERHEAD + VIRTUAL_HEADER + length;
}

static void note(const uint8_t *bytes, size_t length) {
  if (length < IPV6_HEADER || bytes[0] >> 4 != 6 || read_u16(bytes + 4) != length - IPV6_HEADER) return;
  memcpy(sealed[sealed_count].bytes, bytes, length);
  sealed[sealed_count].length = length;
  sealed[sealed_count++].seen = false;
}

/* A segment of a stream that goes on where the one before ended, so that runs come of it. */
static void make_tcp_follow(uint8_t *packet, size_t length, uint32_t *sequence) {
  if (length < IPV6_HEADER + TCP_HEADER + 1) return;
  packet[0] = 0x60;
  memset(packet + 1, 0, 3);
  write_u16(packet + 4, (uint32_t)length - IPV6_HEADER);
  packet[6] = PROTOCOL_TCP;
  memset(packet + 7, 9, 37);
  write_u32(packet + 44, *sequence);
  memset(packet + 48, 1, 4);
  packet[52] = 0x50;
  packet[53] = TCP_ACK;
  memset(packet + 54, 0, 6);
  uint16_t sum = (uint16_t)~checksum_fold(checksum_add(checksum_pseudo(packet, (uint32_t)length - IPV6_HEADER, PROTOCOL_TCP),
                                                       packet + IPV6_HEADER, length - IPV6_HEADER));
  memcpy(packet + 56, &sum, 2);
  *sequence += (uint32_t)length - IPV6_HEADER - TCP_HEADER;
}

static size_t make_datagram(struct plane *plane, struct input *input, uint8_t *into, uint32_t *sequence) {
  uint32_t kind = take_u8(input) % 6;
  size_t length = take_u8(input) * (kind == 5 ? 5u : 1u), wrapper = 0;
  uint8_t copy[ROOM] = {0};
  const uint8_t *bytes = take_bytes(input, &length);
  memcpy(copy, bytes, length);
  if (kind == 0) return memcpy(into, copy, length), length;
  if (kind == 1) {
    static const uint8_t relayed[9] = {9, 0, 0, 0, 1, 0, 0, 0, 1};
    memcpy(into, relayed, wrapper = sizeof relayed);
  }
  if (kind == 3 || kind == 4) {
    if (length > 0 && copy[0] % 8 == 0) *sequence += copy[0]; /* a hole */
    if (kind == 4) length = 100;
    make_tcp_follow(copy, length, sequence);
  }
  uint8_t change = kind == 5 && length > 0 ? copy[length - 1] : 0;
  if (change == 0) note(copy, length);
  size_t frame = seal(plane, into + wrapper, copy, length);
  into[wrapper + 20 + copy[0] % (frame - 20)] ^= change;
  return wrapper + frame;
}

static void must_be_sealed(const uint8_t *packet, size_t length) {
  for (int i = 0; i < sealed_count; i++) {
    if (sealed[i].seen || sealed[i].length != length || memcmp(sealed[i].bytes, packet, length) != 0) continue;
    sealed[i].seen = true;
    return;
  }
  DEMAND(false, "a packet for the TUN is one that the peer sealed, each once");
}

static void check_run(struct plane *plane, int row, int segments) {
  static uint8_t whole[VNET_HEADER + MAX_IP_PACKET];
  int length = tun_take_run(plane, row, whole, sizeof whole);
  DEMAND(length > VNET_HEADER, "a row can be taken");
  uint16_t words[4];
  memcpy(words, whole + 2, sizeof words);
  struct packet packet = {whole + VNET_HEADER, (uint32_t)length - VNET_HEADER, whole[1], words[1], words[2], words[3], words[0]};
  if (segments == 1) return must_be_sealed(packet.bytes, packet.length);
  DEMAND(segment_valid(&packet), "a run is a superpacket");
  DEMAND(segment_count(&packet) == (uint32_t)segments, "a run is cut into as many packets as it was made of");
  for (int i = 0; i < segments; i++) {
    uint8_t out[ROOM];
    DEMAND(segment_length(&packet, (uint32_t)i) <= sizeof out, "segments are as long as packets");
    must_be_sealed(out, segment_write(&packet, (uint32_t)i, out));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct plane *plane;
  if (plane == NULL) plane = fuzz_plane();
  fuzz_plane_reset(plane);
  sealed_count = 0;
  struct input input = {data, data + size};
  uint32_t sequence = 0xfffffe00;
  int slots = 0;
  for (; slots < MOST && input.at < input.end; slots++) {
    struct receive_slot *slot = &plane->slots[slots];
    slot->from = take_u8(&input) % 4 == 0 ? plane->relay : plane->endpoints[0].address;
    slot->bytes = (uint32_t)make_datagram(plane, &input, receive_slot_bytes(plane, slots), &sequence);
    slot->segment_bytes = slot->bytes; /* a run of datagrams is looked at one after the other, too */
    if (slot->bytes == 0) slots--;
  }
  plane->slots_filled = slots;
  int rows = slots == 0 ? 0 : receive_and_open(plane);
  DEMAND(rows <= slots, "there are no more rows than datagrams");
  for (int i = 0; i < rows; i++) {
    const int32_t *row = plane->in_rows + (size_t)i * ROW_WORDS;
    DEMAND(row[IN_OFFSET] >= 0 && row[IN_LENGTH] >= 0 && (size_t)row[IN_OFFSET] + (size_t)row[IN_LENGTH] <= plane->in_bytes, "a row lies in the arena");
    DEMAND(row[IN_SOURCE] >= 0 && row[IN_SOURCE] < slots, "a row has a source");
    if (row[IN_KIND] == ROW_PACKET) check_run(plane, i, row[IN_SEGMENTS]);
  }
  return 0;
}
