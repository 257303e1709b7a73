/*
 * Inbound: datagrams of the underlay become rows.
 *
 * A datagram is unwrapped (types 06 and 09 of the beacon, only when it comes from the relay's endpoint), and if it is a
 * PILS frame of a node we hold a key for, opened where it lies. The order is fixed: tag, then the virtual packet's own
 * shape, then the replay window, then who it says it is from and to. So a forged frame costs one decryption and changes
 * nothing. What opens and carries the peer's bridge header in front of an IPv6 packet is a PACKET row and may be
 * coalesced; what opens otherwise is a VIRTUAL row; everything that is not for a key of ours is an OTHER row, as it came.
 *
 * A batch that runs out of rows stops between two datagrams and goes on there at the next call, before it receives more.
 */
#include "plane.h"

enum { VIRTUAL_LENGTH = 2, VIRTUAL_SOURCE = 6, VIRTUAL_DESTINATION = 12, VIRTUAL_CRC = 30, VIRTUAL_VERSION = 1 };
enum { RELAY_DELIVER = 0x06, RELAY_DELIVER_TO = 0x09, RELAY_HEADER = 5, RELAY_TO_HEADER = 9 };
enum { KEYS_TRIED = 4, RECEIVE_AT_ONCE = 8, RECEIVE_BYTES = 384 << 10 };

/* One datagram on its way in. */
struct datagram {
  uint8_t *bytes;
  uint32_t length;
  int slot;
  int32_t flags;
  int64_t relay_sender; /* as the wrapper says, or NONE */
};

static bool is_frame(const struct datagram *d) { return d->length >= 8 && memcmp(d->bytes, "PILS", 4) == 0; }

static void unwrap(const struct plane *plane, struct datagram *d) {
  uint32_t header = d->bytes[0] == RELAY_DELIVER ? RELAY_HEADER : d->bytes[0] == RELAY_DELIVER_TO ? RELAY_TO_HEADER : 0;
  if (header == 0 || d->length <= header || !plane->has_relay) return;
  if (!udp_same_address(&plane->slots[d->slot].from, &plane->relay)) return;
  d->relay_sender = read_u32(d->bytes + 1);
  d->flags |= ROW_RELAYED;
  d->bytes += header;
  d->length -= header;
}

/* ---- opening ---- */

static bool open_with(struct key *key, const struct datagram *d, uint8_t *bytes, size_t length) {
  const uint8_t *tag = d->bytes + d->length - TAG_BYTES;
  return aead_open(key->open, d->bytes + 8, d->bytes + 4, key->bind_sender ? 4 : 0, bytes, length, tag);
}

/*
 * The key that opens the frame, which is then plain text in place; NULL when none does. A prefix seen before names its
 * key. Otherwise each key of the node is tried on a copy, since a failed attempt leaves garbage.
 */
static struct key *open_frame(struct plane *plane, struct key *first, const struct datagram *d) {
  uint8_t *bytes = d->bytes + FRAME_HEADER;
  size_t length = d->length - FRAME_OVERHEAD;
  int tried = 0;
  for (struct key *key = first; key != NULL && tried < KEYS_TRIED; key = key_next_of(plane, key), tried++)
    if (key_window(key, d->bytes + 8) != NULL) return open_with(key, d, bytes, length) ? key : NULL;
  tried = 0;
  for (struct key *key = first; key != NULL && tried < KEYS_TRIED; key = key_next_of(plane, key), tried++) {
    memcpy(plane->scratch, bytes, length);
    if (!open_with(key, d, plane->scratch, length)) continue;
    memcpy(bytes, plane->scratch, length);
    return key;
  }
  return NULL;
}

/* Bytes of the virtual packet without what may follow it; 0 when it is none. */
static uint32_t virtual_length(uint8_t *bytes, uint32_t length) {
  if (length < VIRTUAL_HEADER || bytes[0] >> 4 != VIRTUAL_VERSION) return 0;
  uint32_t used = VIRTUAL_HEADER + (uint32_t)read_u16(bytes + VIRTUAL_LENGTH);
  if (used > length) return 0;
  uint8_t stored[4];
  memcpy(stored, bytes + VIRTUAL_CRC, 4);
  memset(bytes + VIRTUAL_CRC, 0, 4);
  bool right = crc32_of(bytes, used) == read_u32(stored);
  memcpy(bytes + VIRTUAL_CRC, stored, 4);
  return right ? used : 0;
}

static bool replay_ok(struct key *key, const uint8_t *nonce) {
  struct replay_window *window = key_window(key, nonce);
  uint64_t counter = read_u64(nonce + 4);
  if (window == NULL) {
    if (counter == 0) return false;
    window = key_new_window(key, nonce);
  }
  window->last_use = ++key->use_clock;
  return replay_accept(window, counter);
}

static bool is_bridge_data(const struct key *key, const uint8_t *bytes, uint32_t length) {
  return memcmp(bytes, key->receive_header, 2) == 0 && memcmp(bytes + 4, key->receive_header + 4, 16) == 0 &&
         length > VIRTUAL_HEADER && bytes[VIRTUAL_HEADER] >> 4 == 6;
}

static bool is_moved(const struct plane *plane, const struct key *key, int slot) {
  if (key->endpoint_slot == NONE) return true;
  const struct endpoint *endpoint = &plane->endpoints[key->endpoint_slot];
  return !endpoint->used || !udp_same_address(&plane->slots[slot].from, &endpoint->address);
}

/* ---- rows ---- */

static void fill_row(const struct plane *plane, int32_t *row, const struct datagram *d, int kind, int64_t sender) {
  memset(row, 0, ROW_WORDS * sizeof *row);
  row[IN_OFFSET] = (int32_t)(d->bytes - plane->in_arena);
  row[IN_LENGTH] = (int32_t)d->length;
  row[IN_KIND] = kind;
  row[IN_KEY_SLOT] = NONE;
  row[IN_SOURCE] = d->slot;
  row[IN_FLAGS] = d->flags;
  row[IN_SENDER] = (int32_t)(uint32_t)sender;
  row[IN_VERDICT] = DROP;
}

static void add_other(struct plane *plane, const struct datagram *d) {
  int32_t row[ROW_WORDS];
  fill_row(plane, row, d, ROW_OTHER, d->relay_sender);
  coalesce_add(plane, row);
}

static void add_opened(struct plane *plane, struct key *key, struct datagram *d, uint32_t used) {
  uint8_t *virtual = d->bytes + FRAME_HEADER;
  bool data = is_bridge_data(key, virtual, used);
  uint32_t skip = data ? VIRTUAL_HEADER : 0;
  d->bytes = virtual + skip;
  d->length = used - skip;
  if (is_moved(plane, key, d->slot)) d->flags |= ROW_MOVED;
  if (data && d->length < IPV6_HEADER) return count_of(plane, MALFORMED_PACKET, 1);

  int32_t row[ROW_WORDS];
  fill_row(plane, row, d, data ? ROW_PACKET : ROW_VIRTUAL, key->peer_node);
  row[IN_KEY_SLOT] = key->slot;
  coalesce_add(plane, row);
  if (!data) return;
  double *stats = plane->key_stats + (size_t)key->slot * KEY_STAT_COUNT;
  stats[RX_BYTES] += d->length;
  stats[KEY_RX_PACKETS]++;
}

static void handle_datagram(struct plane *plane, struct datagram *d) {
  if (d->length == 0) return count_of(plane, DATAGRAM_TOO_SHORT, 1);
  unwrap(plane, d);
  struct key *first = is_frame(d) ? key_first_of(plane, read_u32(d->bytes + 4)) : NULL;
  if (first == NULL) return add_other(plane, d);
  if (d->length < FRAME_OVERHEAD) return count_of(plane, DATAGRAM_TOO_SHORT, 1);

  struct key *key = open_frame(plane, first, d);
  if (key == NULL) return count_of(plane, BAD_TAG, 1);
  uint8_t *virtual = d->bytes + FRAME_HEADER;
  uint32_t used = virtual_length(virtual, d->length - FRAME_OVERHEAD);
  if (used == 0) return count_of(plane, BAD_VIRTUAL_PACKET, 1);
  if (!replay_ok(key, d->bytes + 8)) return count_of(plane, REPLAYED, 1);
  if (read_u32(virtual + VIRTUAL_SOURCE) != key->peer_node || read_u32(virtual + VIRTUAL_DESTINATION) != key->local_node)
    return count_of(plane, INNER_MISMATCH, 1);
  add_opened(plane, key, d, used);
}

/* ---- the batch ---- */

static bool has_room(const struct plane *plane) {
  return plane->rows_filled < MAX_ROWS && plane->segments_filled < MAX_SEGMENTS;
}

/* Goes through the slots from where it stopped; true when all are done. */
static bool open_slots(struct plane *plane) {
  for (; plane->slot_next < plane->slots_filled; plane->slot_next++, plane->slot_offset = 0) {
    const struct receive_slot *slot = &plane->slots[plane->slot_next];
    do {
      if (!has_room(plane)) return false;
      uint32_t left = slot->bytes - plane->slot_offset;
      struct datagram d = {
        .bytes = receive_slot_bytes(plane, plane->slot_next) + plane->slot_offset,
        .length = left < slot->segment_bytes ? left : slot->segment_bytes,
        .slot = plane->slot_next,
        .relay_sender = NONE,
      };
      plane->slot_offset += d.length;
      count_of(plane, RX_DATAGRAMS, 1);
      handle_datagram(plane, &d);
    } while (plane->slot_offset < slot->bytes);
  }
  return true;
}

/* Receives and opens; true when both the socket and the rows may have more to give. */
static bool receive_some(struct plane *plane, uint32_t *bytes) {
  int free_slots = RECEIVE_SLOTS - plane->slots_filled;
  int wanted = free_slots < RECEIVE_AT_ONCE ? free_slots : RECEIVE_AT_ONCE;
  int received = wanted > 0 && plane->udp_fd >= 0 ? udp_receive(plane, plane->slots_filled, wanted) : 0;
  if (received <= 0) return false; /* an error of the socket is one of a datagram sent before, already counted */
  for (int i = 0; i < received; i++) *bytes += plane->slots[plane->slots_filled + i].bytes;
  plane->slots_filled += received;
  return open_slots(plane) && received == wanted;
}

int receive_and_open(struct plane *plane) {
  plane->rows_filled = plane->segments_filled = 0;
  if (plane->slot_next < plane->slots_filled) {
    open_slots(plane);
  } else {
    plane->slots_filled = plane->slot_next = 0;
    uint32_t bytes = 0;
    bool more = true;
    while (more && bytes < RECEIVE_BYTES) more = receive_some(plane, &bytes);
  }
  plane->status[STATUS_RECEIVE_LEFT] = plane->slot_next < plane->slots_filled;
  return plane->rows_filled;
}
