/*
 * Inbound: datagrams of the underlay become rows.
 *
 * A datagram is unwrapped (types 06 and 09 of the beacon, only when it comes from the relay's endpoint), and if it is a
 * PILS frame of a node we hold a key for, opened where it lies. The order is fixed: tag, then the virtual packet's own
 * shape, then who it says it is from and to, then the replay window. So nothing is remembered of a frame that fails. What opens and carries the peer's bridge header in front of an IPv6 packet is a PACKET row and may be
 * coalesced; what opens otherwise is a VIRTUAL row; everything that is not for a key of ours is an OTHER row, as it came.
 *
 * A batch that runs out of rows stops between two datagrams and goes on there at the next call, before it receives more.
 */
#include "plane.h"

enum { VIRTUAL_LENGTH = 2, VIRTUAL_SOURCE = 6, VIRTUAL_DESTINATION = 12, VIRTUAL_CRC = 30, VIRTUAL_VERSION = 1 };
enum { RELAY_DELIVER = 0x06, RELAY_DELIVER_TO = 0x09, RELAY_HEADER = 5, RELAY_TO_HEADER = 9 };
enum { FIRST_MAGIC_BYTE = 0x10, MAGIC_BYTES = 4 };
enum { KEYS_TRIED = 4, RECEIVE_AT_ONCE = 8, RECEIVE_BYTES = 384 << 10 };

/* One datagram on its way in. */
struct datagram {
  uint8_t *bytes;
  uint32_t length;
  int slot;
  int32_t flags;
  uint32_t relay_sender; /* as the wrapper says, or 0 */
};

/* ---- taking apart ---- */

static uint32_t wrapper_length(const struct plane *plane, const struct datagram *d) {
  if (d->length == 0 || !plane->has_relay) return 0;
  if (d->bytes[0] != RELAY_DELIVER && d->bytes[0] != RELAY_DELIVER_TO) return 0;
  if (!udp_same_address(&plane->slots[d->slot].from, &plane->relay)) return 0;
  return d->bytes[0] == RELAY_DELIVER ? RELAY_HEADER : RELAY_TO_HEADER;
}

/* False when the wrapper is cut short. */
static bool unwrap(const struct plane *plane, struct datagram *d) {
  uint32_t header = wrapper_length(plane, d);
  if (header == 0) return true;
  if (d->length <= header) return false;
  d->relay_sender = read_u32(d->bytes + 1);
  d->flags |= ROW_RELAYED;
  d->bytes += header;
  d->length -= header;
  return true;
}

static bool is_frame(const struct datagram *d) { return d->length >= 4 && memcmp(d->bytes, "PILS", 4) == 0; }

/* Messages of the beacon (first byte below 0x10) have no magic; everything else has one, and a frame nonce and tag. */
static bool is_too_short(const struct datagram *d) {
  if (d->length == 0) return true;
  if (d->bytes[0] < FIRST_MAGIC_BYTE) return false;
  return d->length < (is_frame(d) ? FRAME_OVERHEAD : MAGIC_BYTES);
}

/* ---- opening ---- */

static bool open_with(struct plane *plane, struct key *key, const struct datagram *d) {
  const uint8_t *tag = d->bytes + d->length - TAG_BYTES;
  cipher_ctx *ctx = key_open_ctx(plane, key);
  return ctx != NULL && aead_open(ctx, d->bytes + 8, d->bytes + 4, key->bind_sender ? 4 : 0, d->bytes + FRAME_HEADER,
                                  d->length - FRAME_OVERHEAD, tag);
}

static bool may_open(const struct key *key, const struct datagram *d) {
  return !key->has_receive_prefix || memcmp(key->receive_prefix, d->bytes + 8, 4) == 0;
}

/*
 * The key that opens the frame, which is then plain text in place; NULL when none does. Keys that know the frame's prefix
 * come first, so that at most one is tried in all but a peer's first frame. A failed attempt leaves the bytes combined
 * with the wrong key's stream; a second one takes that stream out again.
 */
static struct key *open_frame(struct plane *plane, struct key *first, const struct datagram *d) {
  struct key *failed = NULL;
  for (int known = 1; known >= 0; known--) {
    int tried = 0;
    for (struct key *key = first; key != NULL && tried < KEYS_TRIED; key = key_next_of(plane, key)) {
      if (!may_open(key, d)) continue;
      tried++;
      if ((key_window(key, d->bytes + 8) != NULL) != known) continue;
      if (failed != NULL) open_with(plane, failed, d);
      if (open_with(plane, key, d)) return key;
      failed = key;
    }
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
  if (counter == 0) return false;
  if (window == NULL) window = key_new_window(key, nonce);
  if (window == NULL || !replay_accept(window, counter)) return false;
  window->last_use = ++key->use_clock;
  return true;
}

static bool is_bridge_data(const struct key *key, const uint8_t *bytes, uint32_t length) {
  return memcmp(bytes, key->receive_header, 2) == 0 && memcmp(bytes + 4, key->receive_header + 4, 16) == 0 &&
         length > VIRTUAL_HEADER && bytes[VIRTUAL_HEADER] >> 4 == 6;
}

static bool is_for_us(const struct key *key, const uint8_t *bytes) {
  return read_u32(bytes + VIRTUAL_SOURCE) == key->peer_node && read_u32(bytes + VIRTUAL_DESTINATION) == key->local_node;
}

static bool is_whole_ipv6(const struct datagram *d) {
  return d->length >= IPV6_HEADER && (uint32_t)read_u16(d->bytes + 4) == d->length - IPV6_HEADER;
}

static bool is_moved(const struct plane *plane, const struct key *key, int slot) {
  if (key->endpoint_slot == NONE) return true;
  const struct endpoint *endpoint = &plane->endpoints[key->endpoint_slot];
  return !endpoint->used || !udp_same_address(&plane->slots[slot].from, &endpoint->address);
}

/* ---- rows ---- */

static void fill_row(const struct plane *plane, int32_t *row, const struct datagram *d, int kind, uint32_t sender) {
  memset(row, 0, ROW_WORDS * sizeof *row);
  row[IN_OFFSET] = (int32_t)(d->bytes - plane->in_arena);
  row[IN_LENGTH] = (int32_t)d->length;
  row[IN_KIND] = kind;
  row[IN_KEY_SLOT] = NONE;
  row[IN_SOURCE] = d->slot;
  row[IN_FLAGS] = d->flags;
  row[IN_SENDER] = (int32_t)sender;
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
  if (data && !is_whole_ipv6(d)) return count_of(plane, MALFORMED_PACKET, 1);

  int32_t row[ROW_WORDS];
  fill_row(plane, row, d, data ? ROW_PACKET : ROW_VIRTUAL, key->peer_node);
  row[IN_KEY_SLOT] = key->slot;
  coalesce_add(plane, row);
  if (!data) return;
  count_of(plane, RX_PACKETS, 1);
  double *stats = plane->key_stats + (size_t)key->slot * KEY_STAT_COUNT;
  stats[RX_BYTES] += d->length;
  stats[KEY_RX_PACKETS]++;
}

static void handle_datagram(struct plane *plane, struct datagram *d) {
  if (!unwrap(plane, d) || is_too_short(d)) return count_of(plane, DATAGRAM_TOO_SHORT, 1);
  struct key *first = is_frame(d) ? key_first_of(plane, read_u32(d->bytes + 4)) : NULL;
  if (first == NULL) return add_other(plane, d);

  struct key *key = open_frame(plane, first, d);
  if (key == NULL) return count_of(plane, BAD_TAG, 1);
  uint8_t *virtual = d->bytes + FRAME_HEADER;
  uint32_t used = virtual_length(virtual, d->length - FRAME_OVERHEAD);
  if (used == 0) return count_of(plane, BAD_VIRTUAL_PACKET, 1);
  if (!is_for_us(key, virtual)) return count_of(plane, INNER_MISMATCH, 1);
  if (!replay_ok(key, d->bytes + 8)) return count_of(plane, REPLAYED, 1);
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
      };
      plane->slot_offset += d.length;
      count_of(plane, RX_DATAGRAMS, 1);
      handle_datagram(plane, &d);
    } while (plane->slot_offset < slot->bytes);
  }
  return true;
}

/* Receives and opens; true when both the socket and the rows may have more to give. */
static bool receive_some(struct plane *plane, int fd, uint32_t *bytes) {
  int free_slots = RECEIVE_SLOTS - plane->slots_filled;
  int wanted = free_slots < RECEIVE_AT_ONCE ? free_slots : RECEIVE_AT_ONCE;
  int received = wanted > 0 && fd >= 0 ? udp_receive(plane, fd, plane->slots_filled, wanted) : 0;
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
    /*
     * A few of the others every other time, in a batch of their own: however many they are, frames of peers have their turn,
     * and a frame that came behind the exchange of its key is opened when the key is there.
     */
    plane->aside_turn = !plane->aside_turn;
    if (plane->aside_turn) receive_some(plane, plane->aside_fd, &bytes);
    bool is_free = plane->slots_filled == 0;
    while (is_free && more && bytes < RECEIVE_BYTES) more = receive_some(plane, plane->udp_fd, &bytes);
    if (plane->slots_filled == 0) receive_some(plane, plane->aside_fd, &bytes);
  }
  plane->status[STATUS_RECEIVE_LEFT] = plane->slot_next < plane->slots_filled;
  return plane->rows_filled;
}
