/*
 * Generic receive offload for inner packets: consecutive segments of one flow become one superpacket for the TUN.
 *
 * Opened packets become rows in order of arrival. A packet joins the latest row of its flow if cutting the superpacket
 * again would give back exactly the same packets: same addresses, ports, traffic class, flow label and hop limit, no
 * extension header; for TCP the next sequence number, same acknowledgement, window and options, no flags but ACK and PSH,
 * PSH on the last only; payloads of one size except a shorter last. Both checksums must be right, since the superpacket's
 * is left to the kernel; a packet that fails is written alone, unchanged, for the kernel to judge. If the latest row of
 * its flow does not take it, a packet starts a new row, so order within a flow is kept. Nothing is held for a later
 * batch.
 *
 * The same for the segments of a Pilot stream, which have no checksum but the virtual packet's, checked before. A segment joins
 * the last row of the batch and no other: then the bytes behind that row are free, and its payload is moved there.
 */
#include "plane.h"

#include <linux/virtio_net.h>

enum { LOOK_BACK = 16, RUN_SEGMENTS = 64, MAX_STREAM_PAYLOAD = 65437 };
enum { TCP_SEQ = 4, TCP_ACKNOWLEDGEMENT = 8, TCP_FLAGS = 13, TCP_WINDOW = 14, TCP_CSUM = 16, UDP_CSUM = 6 };

/* ---- reading a packet ---- */

/* Fills protocol, ports, header and payload; `closed` when the packet cannot take part in a run. */
static struct run describe(const uint8_t *packet, uint32_t length) {
  struct run run = {.closed = true, .total = length};
  if (length < IPV6_HEADER + UDP_HEADER || IPV6_HEADER + (uint32_t)read_u16(packet + 4) != length) return run;
  uint8_t protocol = packet[6];
  const uint8_t *transport = packet + IPV6_HEADER;
  if (protocol == PROTOCOL_UDP) {
    run.header = IPV6_HEADER + UDP_HEADER;
    run.closed = read_u16(transport + 4) != length - IPV6_HEADER || length == run.header;
  } else if (protocol == PROTOCOL_TCP && length >= IPV6_HEADER + TCP_HEADER) {
    uint32_t header = IPV6_HEADER + (uint32_t)(transport[12] >> 4) * 4, flags = transport[TCP_FLAGS];
    if (header < IPV6_HEADER + TCP_HEADER || header > length) return run;
    run.header = (uint8_t)header;
    run.pushed = flags & TCP_PSH;
    run.next_seq = read_u32(transport + TCP_SEQ) + (length - header) + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
    run.closed = (flags & ~(uint32_t)TCP_PSH) != TCP_ACK || (transport[12] & 0x0f) != 0 || length == header;
  } else {
    return run;
  }
  run.protocol = protocol;
  run.payload = (uint16_t)(length - run.header);
  memcpy(&run.ports, transport, 4);
  return run;
}

static bool checksum_right(const uint8_t *packet, uint32_t length, uint8_t protocol) {
  const uint8_t *transport = packet + IPV6_HEADER;
  if (protocol == PROTOCOL_UDP && transport[UDP_CSUM] == 0 && transport[UDP_CSUM + 1] == 0) return false;
  uint64_t sum = checksum_pseudo(packet, length - IPV6_HEADER, protocol);
  return checksum_fold(checksum_add(sum, transport, length - IPV6_HEADER)) == 0xffff;
}

static bool same_flow(const struct run *a, const uint8_t *first, const struct run *b, const uint8_t *packet) {
  return a->protocol == b->protocol && a->ports == b->ports && memcmp(first + 8, packet + 8, 32) == 0;
}

/* Everything that every segment of a run repeats, beside the flow itself. */
static bool same_headers(const struct run *run, const uint8_t *first, const uint8_t *packet) {
  if (memcmp(first, packet, 4) != 0 || first[7] != packet[7]) return false;
  if (run->protocol == PROTOCOL_UDP) return true;
  const uint8_t *a = first + IPV6_HEADER, *b = packet + IPV6_HEADER;
  return memcmp(a + TCP_ACKNOWLEDGEMENT, b + TCP_ACKNOWLEDGEMENT, 4) == 0 &&
         memcmp(a + TCP_WINDOW, b + TCP_WINDOW, 2) == 0 &&
         memcmp(a + 18, b + 18, run->header - IPV6_HEADER - 18u) == 0;
}

/* A row has one key, one source and one set of flags. Without MOVED the source is the endpoint bound to the key. */
static bool same_origin(const struct plane *plane, const int32_t *row, const int32_t *added) {
  return row[IN_KEY_SLOT] == added[IN_KEY_SLOT] && row[IN_FLAGS] == added[IN_FLAGS] &&
         (row[IN_SOURCE] == added[IN_SOURCE] || !(row[IN_FLAGS] & ROW_MOVED) ||
          udp_same_address(&plane->slots[row[IN_SOURCE]].from, &plane->slots[added[IN_SOURCE]].from));
}

/* ---- the segments of a Pilot stream ---- */

enum { STREAM_DATA = 0x12 /* version 1, ACK and no other flag */, PROTOCOL_STREAM = 1 };
enum { STREAM_LENGTH = 2, STREAM_ADDRESSES = 4, STREAM_SEQUENCE = 20, STREAM_ACKNOWLEDGEMENT = 24, STREAM_CRC = 30 };

/* Data and nothing else. What may be a SACK, which is told from data by its first bytes alone, stays by itself. */
static bool is_stream_data(const uint8_t *packet, int32_t length) {
  return length > VIRTUAL_HEADER && packet[0] == STREAM_DATA && packet[1] == PROTOCOL_STREAM &&
         (length < VIRTUAL_HEADER + 4 || memcmp(packet + VIRTUAL_HEADER, "SACK", 4) != 0);
}

static bool continues_stream(const uint8_t *first, const int32_t *run, const uint8_t *packet, int32_t length) {
  int32_t payload = length - VIRTUAL_HEADER, joined = run[IN_LENGTH] - VIRTUAL_HEADER;
  int32_t each = run[IN_SEGMENTS] == 1 ? joined : run[IN_SEGMENT_BYTES];
  return is_stream_data(first, run[IN_LENGTH]) && is_stream_data(packet, length) && payload <= each &&
         joined == run[IN_SEGMENTS] * each && joined + payload <= MAX_STREAM_PAYLOAD && run[IN_SEGMENTS] < RUN_SEGMENTS &&
         memcmp(first + STREAM_ADDRESSES, packet + STREAM_ADDRESSES, STREAM_SEQUENCE - STREAM_ADDRESSES) == 0 &&
         memcmp(first + STREAM_ACKNOWLEDGEMENT, packet + STREAM_ACKNOWLEDGEMENT,
                STREAM_CRC - STREAM_ACKNOWLEDGEMENT) == 0 &&
         read_u32(packet + STREAM_SEQUENCE) == read_u32(first + STREAM_SEQUENCE) + (uint32_t)joined;
}

/* Moves the payload behind the last row's, if it continues that. The row's length field grows; its CRC is right no more. */
static bool join_stream(struct plane *plane, const int32_t *row) {
  if (plane->rows_filled == 0) return false;
  int32_t *run = plane->in_rows + (size_t)(plane->rows_filled - 1) * ROW_WORDS;
  uint8_t *first = plane->in_arena + run[IN_OFFSET], *packet = plane->in_arena + row[IN_OFFSET];
  if (run[IN_KIND] != ROW_VIRTUAL || !same_origin(plane, run, row) || !continues_stream(first, run, packet, row[IN_LENGTH]))
    return false;
  if (run[IN_SEGMENTS] == 1) run[IN_SEGMENT_BYTES] = run[IN_LENGTH] - VIRTUAL_HEADER;
  int32_t payload = row[IN_LENGTH] - VIRTUAL_HEADER;
  memmove(first + run[IN_LENGTH], packet + VIRTUAL_HEADER, (size_t)payload);
  run[IN_LENGTH] += payload;
  run[IN_TOTAL_BYTES] += row[IN_LENGTH];
  run[IN_SEGMENTS]++;
  write_u16(first + STREAM_LENGTH, (uint32_t)(run[IN_LENGTH] - VIRTUAL_HEADER));
  return true;
}

/* ---- the rows ---- */

static bool fits(const struct plane *plane, const struct run *run, const int32_t *row, const struct run *added,
                 const uint8_t *packet) {
  if (run->closed || added->closed || run->pushed || run->header != added->header || added->payload > run->payload)
    return false;
  if (run->total + added->payload > MAX_IP_PACKET || row[IN_SEGMENTS] >= RUN_SEGMENTS) return false;
  if (run->protocol == PROTOCOL_UDP && !plane->has_uso) return false;
  if (run->protocol == PROTOCOL_TCP && run->next_seq != read_u32(packet + IPV6_HEADER + TCP_SEQ)) return false;
  return same_headers(run, plane->in_arena + row[IN_OFFSET], packet);
}

/* The latest row of the packet's flow, or NONE. */
static int find_row(const struct plane *plane, const struct run *added, const int32_t *row, const uint8_t *packet) {
  if (added->protocol == 0) return NONE;
  int end = plane->rows_filled > LOOK_BACK ? plane->rows_filled - LOOK_BACK : 0;
  for (int i = plane->rows_filled - 1; i >= end; i--) {
    const int32_t *earlier = plane->in_rows + (size_t)i * ROW_WORDS;
    if (!same_flow(&plane->runs[i], plane->in_arena + earlier[IN_OFFSET], added, packet)) continue;
    return same_origin(plane, earlier, row) ? i : NONE;
  }
  return NONE;
}

static bool verified(struct plane *plane, struct run *run, const int32_t *row) {
  if (run->verified) return true;
  run->verified = checksum_right(plane->in_arena + row[IN_OFFSET], (uint32_t)row[IN_LENGTH], run->protocol);
  run->closed = !run->verified;
  return run->verified;
}

static int new_segment(struct plane *plane, uint32_t offset, uint32_t length) {
  int index = plane->segments_filled++;
  plane->segments[index] = (struct segment){.offset = offset, .length = (uint16_t)length, .next = NONE};
  return index;
}

static void append(struct plane *plane, int at, const struct run *added, const int32_t *row) {
  int32_t *target = plane->in_rows + (size_t)at * ROW_WORDS;
  struct run *run = &plane->runs[at];
  int index = new_segment(plane, (uint32_t)row[IN_OFFSET] + added->header, added->payload);
  plane->segments[run->last].next = (int16_t)index;
  run->last = (int16_t)index;
  run->total += added->payload;
  run->next_seq = added->next_seq;
  run->pushed = added->pushed;
  run->closed = added->payload < run->payload;
  target[IN_SEGMENTS]++;
  target[IN_TOTAL_BYTES] += row[IN_LENGTH];
  target[IN_NEXT_SEQ] = (int32_t)added->next_seq;
}

static void begin(struct plane *plane, struct run *added, const int32_t *row) {
  int32_t *target = plane->in_rows + (size_t)plane->rows_filled * ROW_WORDS;
  memcpy(target, row, ROW_WORDS * sizeof *row);
  target[IN_SEGMENTS] = 1;
  target[IN_TOTAL_BYTES] = row[IN_LENGTH];
  target[IN_NEXT_SEQ] = (int32_t)added->next_seq;
  added->first = added->last = (int16_t)new_segment(plane, (uint32_t)row[IN_OFFSET], (uint32_t)row[IN_LENGTH]);
  plane->runs[plane->rows_filled++] = *added;
}

bool coalesce_add(struct plane *plane, const int32_t row[ROW_WORDS]) {
  if (row[IN_KIND] == ROW_VIRTUAL && join_stream(plane, row)) return true;
  if (plane->rows_filled == MAX_ROWS || plane->segments_filled == MAX_SEGMENTS) return false;
  const uint8_t *packet = plane->in_arena + row[IN_OFFSET];
  uint32_t length = (uint32_t)row[IN_LENGTH];
  struct run added = row[IN_KIND] == ROW_PACKET ? describe(packet, length) : (struct run){.closed = true};
  int at = find_row(plane, &added, row, packet);
  if (at != NONE) {
    struct run *run = &plane->runs[at];
    const int32_t *target = plane->in_rows + (size_t)at * ROW_WORDS;
    if (fits(plane, run, target, &added, packet) && verified(plane, run, target)) {
      added.verified = checksum_right(packet, length, added.protocol);
      if (added.verified) {
        append(plane, at, &added, row);
        return true;
      }
      added.closed = true;
    }
  }
  begin(plane, &added, row);
  return true;
}

/* ---- writing ---- */

static void host_u16(uint8_t *at, uint32_t value) {
  uint16_t narrow = (uint16_t)value;
  memcpy(at, &narrow, 2);
}

void coalesce_finish(const struct run *run, uint8_t *packet, uint8_t vnet[VNET_HEADER]) {
  uint8_t *transport = packet + IPV6_HEADER;
  bool tcp = run->protocol == PROTOCOL_TCP;
  uint32_t length = run->total - IPV6_HEADER, checksum_at = tcp ? TCP_CSUM : UDP_CSUM;
  write_u16(packet + 4, length);
  if (tcp && run->pushed) transport[TCP_FLAGS] |= TCP_PSH;
  if (!tcp) write_u16(transport + 4, length);
  uint16_t partial = checksum_fold(checksum_pseudo(packet, length, run->protocol));
  memcpy(transport + checksum_at, &partial, 2);

  vnet[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  vnet[1] = tcp ? GSO_TCPV6 : GSO_UDP_L4;
  host_u16(vnet + 2, run->header);
  host_u16(vnet + 4, run->payload);
  host_u16(vnet + 6, IPV6_HEADER);
  host_u16(vnet + 8, checksum_at);
}
