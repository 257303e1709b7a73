/*
 * What the files of the shim share: one `struct plane` per data plane, and the functions each file offers.
 *
 * The shim knows lengths, keys by slot and endpoints by slot; it knows no policy, no trust, no address mapping and no
 * timers. JavaScript owns the arenas and the rows (they are handed over once, in plane_create) and decides between the
 * two halves of each direction:
 *
 *   outbound: tun_read -> rows -> JavaScript writes key and endpoint slots -> seal_and_send
 *   inbound:  receive_and_open -> rows -> JavaScript writes verdicts -> tun_write
 *
 * Numbers that JavaScript also knows (words of a row, counters) are repeated from src/tunnel/data-plane.ts, which is the
 * source. Nothing is allocated per packet. Functions that can fail return a count or -errno.
 */
#ifndef PILOT_PLANE_H
#define PILOT_PLANE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* ---- numbers shared with src/tunnel/data-plane.ts ---- */

enum { ROW_WORDS = 12, MAX_ROWS = 512, MAX_KEY_SLOTS = 32768, MAX_ENDPOINT_SLOTS = 32768 };
enum { NONE = -1, DROP = -1, LOOPBACK = -2, ACCEPT = 1 };

enum out_word {
  OUT_OFFSET,
  OUT_LENGTH,
  OUT_GSO_TYPE,
  OUT_GSO_SIZE,
  OUT_CSUM_START,
  OUT_CSUM_OFFSET,
  OUT_HEADER_LENGTH,
  OUT_KEY_SLOT,
  OUT_ENDPOINT_SLOT,
};

enum in_word {
  IN_OFFSET,
  IN_LENGTH,
  IN_KIND,
  IN_KEY_SLOT,
  IN_SOURCE,
  IN_FLAGS,
  IN_SEGMENTS,
  IN_TOTAL_BYTES,
  IN_SENDER,
  IN_VERDICT,
  IN_NEXT_SEQ,
  IN_SEGMENT_BYTES,
};

enum row_kind { ROW_PACKET, ROW_VIRTUAL, ROW_OTHER };
enum row_flag { ROW_RELAYED = 1, ROW_MOVED = 2 };

enum counter {
  DATAGRAM_TOO_SHORT,
  BAD_TAG,
  REPLAYED,
  BAD_VIRTUAL_PACKET,
  INNER_MISMATCH,
  MALFORMED_PACKET,
  TUN_WRITE_FAILED,
  SEND_FAILED,
  RX_DATAGRAMS,
  TX_DATAGRAMS,
  RX_PACKETS,
  TX_PACKETS,
  SEND_WAITS,
  SOCKET_FULL,
  SECOND_SOCKET_FULL,
  COUNTER_COUNT = 16,
};

enum key_stat { RX_BYTES, TX_BYTES, KEY_RX_PACKETS, KEY_TX_PACKETS, KEY_STAT_COUNT };

/* Words of the small array in which the shim shows its state to JavaScript without a call. */
enum status_word { STATUS_SEND_BLOCKED, STATUS_HAS_USO, STATUS_RECEIVE_LEFT, STATUS_TOO_LONG, STATUS_UNSENT, STATUS_WORDS };

/* ---- formats ---- */

enum {
  VIRTUAL_HEADER = 34,
  FRAME_HEADER = 20, /* magic 4, sender node 4, nonce 12 */
  TAG_BYTES = 16,
  FRAME_OVERHEAD = FRAME_HEADER + TAG_BYTES,
  VNET_HEADER = 10,
  IPV6_HEADER = 40,
  TCP_HEADER = 20,
  UDP_HEADER = 8,
  MAX_PREFIX = 16,
  MAX_DATAGRAM = 65507,
  MAX_IP_PACKET = 65535,
};
enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_CWR = 0x80 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };

static inline uint16_t read_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t read_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return __builtin_bswap32(v);
}
static inline uint64_t read_u64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, 8);
  return __builtin_bswap64(v);
}
static inline void write_u16(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 8);
  p[1] = (uint8_t)v;
}
static inline void write_u32(uint8_t *p, uint32_t v) {
  v = __builtin_bswap32(v);
  memcpy(p, &v, 4);
}
static inline void write_u64(uint8_t *p, uint64_t v) {
  v = __builtin_bswap64(v);
  memcpy(p, &v, 8);
}

/* ---- crc32.c, checksum.c, replay.c ---- */

uint32_t crc32_of(const uint8_t *bytes, size_t length);

/* The ones' complement sum of `bytes` added to `sum`, not folded and not inverted, in the machine's byte order. */
uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length);
/* The 16-bit sum of a pseudo header and nothing else, in the machine's byte order (RFC 8200 §8.1). */
uint64_t checksum_pseudo(const uint8_t *ipv6, uint32_t length, uint8_t protocol);
/* Folds to 16 bits; the result can be stored with memcpy. Not inverted. */
uint16_t checksum_fold(uint64_t sum);

enum { REPLAY_WORDS = 64, REPLAY_WINDOW = 2048, PREFIXES_PER_KEY = 5 };

struct replay_window {
  uint8_t prefix[4];
  uint64_t last_use; /* of key.use_clock: the smallest is evicted */
  uint64_t greatest;
  uint64_t bitmap[REPLAY_WORDS];
};

/* False when the counter was seen before, is too old, or is zero. Records it otherwise: call it after the tag. */
bool replay_accept(struct replay_window *window, uint64_t counter);

/* ---- keys.c ---- */

typedef struct evp_cipher_ctx_st cipher_ctx;

struct key {
  int32_t slot;
  int32_t next; /* slot of the next key in the same bucket of the node table, or NONE */
  uint32_t local_node, peer_node;
  int32_t endpoint_slot;
  bool bind_sender;
  bool has_receive_prefix; /* the peer's nonces have this prefix and no other */
  uint8_t send_prefix[4], receive_prefix[4];
  uint64_t send_counter;
  uint8_t seal_key[32], open_key[32];
  cipher_ctx *seal, *open; /* NULL until a frame needs them, and again when the key is cool */
  int32_t warm_place;      /* in plane.warm, or NONE: a cool key has no contexts */
  bool used_lately;
  uint8_t send_header[VIRTUAL_HEADER];
  uint8_t receive_header[VIRTUAL_HEADER];
  uint64_t use_clock;
  struct replay_window *windows[PREFIXES_PER_KEY]; /* NULL until a prefix needs it: most peers use one */
};

enum { NODE_BUCKETS = 32768, WARM_KEYS = 1024 };

#define MAX_COUNTER ((uint64_t)9007199254740991) /* Number.MAX_SAFE_INTEGER */

struct plane;

struct key_spec {
  const uint8_t *key, *send_prefix;
  const uint8_t *receive_key, *receive_prefix; /* NULL: one key for both directions, and any prefix of the peer's */
  const uint8_t *send_header, *receive_header;
  uint64_t first_counter;
  uint32_t local_node, peer_node;
  bool bind_sender;
};

int key_install(struct plane *plane, int32_t slot, const struct key_spec *spec);
uint64_t key_remove(struct plane *plane, int32_t slot);
void keys_wipe(struct plane *plane);
/* NULL without memory. */
cipher_ctx *key_seal_ctx(struct plane *plane, struct key *key);
cipher_ctx *key_open_ctx(struct plane *plane, struct key *key);
struct key *key_at(struct plane *plane, int32_t slot);
struct key *key_first_of(struct plane *plane, uint32_t node);
struct key *key_next_of(struct plane *plane, struct key *key);
struct replay_window *key_window(struct key *key, const uint8_t prefix[4]);
/* NULL without memory: the frame is then as good as lost. */
struct replay_window *key_new_window(struct key *key, const uint8_t prefix[4]);

/* ---- aead.c ---- */

cipher_ctx *aead_new(const uint8_t key[32], bool seal);
void aead_free(cipher_ctx *ctx);
bool aead_seal(cipher_ctx *ctx, const uint8_t nonce[12], const uint8_t *aad, size_t aad_length, uint8_t *bytes,
               size_t length, uint8_t tag[TAG_BYTES]);
bool aead_open(cipher_ctx *ctx, const uint8_t nonce[12], const uint8_t *aad, size_t aad_length, uint8_t *bytes,
               size_t length, const uint8_t tag[TAG_BYTES]);

/* ---- udp.c ---- */

struct endpoint {
  struct sockaddr_in6 address; /* IPv4 is written as ::ffff:a.b.c.d */
  uint8_t prefix[MAX_PREFIX];
  uint8_t prefix_length;
  bool used;
  uint16_t largest_run; /* frames larger than this are not sent as a run: the path's MTU refused them; 0 = no limit */
};

enum { SEND_MESSAGES = 1024, SEND_BUFFER = 2 << 20, SEND_VECTOR = 64, RUN_FRAMES = 64 };

/* Frames of one size for one endpoint, one behind the other in the send buffer; the last may be shorter. */
struct send_message {
  uint32_t offset, bytes;
  uint16_t frame_bytes, frames;
  bool closed, may_break;
  int32_t endpoint_slot; /* NONE for a datagram to an address */
  struct sockaddr_in6 to;
};

struct send_queue {
  uint8_t *buffer;
  size_t used;
  struct send_message *messages;
  int head, count;
  int refusals; /* ENOBUFS in a row */
  bool run_refused; /* the kernel or the device has no UDP_SEGMENT */
  bool breaks;      /* the socket lets datagrams be fragmented at the moment */
};

enum { RECEIVE_SLOTS = 32, RECEIVE_STRIDE = 65536 + 1088, RECEIVE_CONTROL = 64 };

struct receive_slot {
  struct sockaddr_in6 from;
  uint32_t bytes, segment_bytes;
};

int udp_parse_address(const char *text, int port, struct sockaddr_in6 *out);
bool udp_same_address(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b);
int udp_open(struct plane *plane, const struct sockaddr_in6 *bind_to);
/* Room for one frame of `bytes` at the end of the queue, after the endpoint's prefix; NULL when the queue is full. */
uint8_t *udp_reserve(struct plane *plane, int32_t endpoint_slot, size_t bytes);
/* The frame just reserved is complete. */
void udp_commit(struct plane *plane, int32_t endpoint_slot, size_t bytes);
bool udp_queue_datagram(struct plane *plane, const struct sockaddr_in6 *to, const uint8_t *bytes, size_t length,
                        bool may_break);
void udp_flush(struct plane *plane);
/* From how many bytes on, as the kernel counts them, the socket takes no more; 0 or -errno. */
int udp_limit_unsent(struct plane *plane, int bytes);
/* Tells JavaScript how many it holds. */
void udp_note_unsent(struct plane *plane);
/* Brings the counters of what the sockets had no room for up to date. */
void udp_count_overflow(struct plane *plane);
/* Fills slots from `first`; the number filled or -errno. */
int udp_receive(struct plane *plane, int fd, int first, int count);

/* ---- tun.c, segment.c, seal.c, open.c, coalesce.c ---- */

/* One packet or superpacket on its way out. */
struct packet {
  const uint8_t *bytes;
  uint32_t length;
  int32_t gso_type, gso_size, csum_start, csum_offset, header_length;
};

int tun_open(struct plane *plane, char name[16]);
int tun_adopt(struct plane *plane, int fd, const char *name);
int tun_read(struct plane *plane);
void tun_write(struct plane *plane, int count);
int tun_write_packet(struct plane *plane, const uint8_t *bytes, size_t length);
int tun_take_run(struct plane *plane, int row, uint8_t *into, size_t room);
/* Gives an outbound row back to the kernel, which takes it for a packet that arrived. */
void tun_write_back(struct plane *plane, const int32_t *row);

bool segment_valid(const struct packet *packet);
uint32_t segment_count(const struct packet *packet);
uint32_t segment_length(const struct packet *packet, uint32_t index);
/* Writes the segment's bytes, lengths and checksums complete; returns their number, segment_length. */
uint32_t segment_write(const struct packet *packet, uint32_t index, uint8_t *out);

void seal_and_send(struct plane *plane, int count);
void seal_packet(struct plane *plane, int32_t key_slot, int32_t endpoint_slot, const struct packet *packet);
/* Virtual packets that follow each other: length, sequence number and CRC are filled in for each. */
struct virtual_run {
  const uint8_t *header, *payload;
  size_t length, segment_bytes; /* each but the last carries segment_bytes of the payload, which is not 0 */
};

/* They go to the end of the send queue; udp_flush sends them. A run without payload is one packet. */
void seal_virtual_run(struct plane *plane, int32_t key_slot, int32_t endpoint_slot, const struct virtual_run *run);
/* `frame` has FRAME_HEADER free bytes, the virtual packet, and room for the tag. */
bool seal_frame(struct plane *plane, struct key *key, uint8_t *frame, size_t virtual_length);

int receive_and_open(struct plane *plane);

enum { MAX_SEGMENTS = 4096 };

/* One inner packet of a run, or its payload, in the inbound arena. */
struct segment {
  uint32_t offset; /* of its payload, except in the first of a run */
  uint16_t length;
  int16_t next; /* index of the next segment of the run, or NONE */
};

/* What coalesce.c remembers of an inbound row while the batch grows; beside the row with the same index. */
struct run {
  uint32_t ports; /* both, as they stand in the packet */
  uint32_t next_seq;
  uint32_t total; /* bytes of the IP packet that the run would be written as */
  int16_t first, last; /* indexes of its first and last segments */
  uint16_t payload; /* bytes of each segment's payload but the last's */
  uint8_t header; /* bytes of IP and transport headers */
  uint8_t protocol; /* 0: not TCP or UDP directly behind the IP header */
  bool closed; /* takes no more segments */
  bool verified; /* the first segment's checksum was checked */
  bool pushed; /* the last segment carried PSH */
};

/* Adds a row, or what it holds to an earlier row whose run it continues. False when a table is full. */
bool coalesce_add(struct plane *plane, const int32_t row[ROW_WORDS]);
/* Turns the run that begins at `packet` into one superpacket; the header is rewritten in place. */
void coalesce_finish(const struct run *run, uint8_t *packet, uint8_t vnet[VNET_HEADER]);

/* ---- the whole ---- */

struct wakeups;

struct plane {
  int tun_fd, udp_fd;
  bool aside_turn; /* the next batch is of aside_fd, if that has something */
  int aside_fd; /* the same port, for what is no sealed frame; NONE where the kernel gives only one (udp.c) */
  bool has_uso;

  uint8_t *out_arena, *in_arena;
  size_t out_bytes, in_bytes;
  int32_t *out_rows, *in_rows;
  double *counters, *key_stats;
  int32_t *status;

  struct key **keys; /* by slot */
  int32_t *node_heads; /* slot of the first key by hash of the peer's node */
  int32_t warm[WARM_KEYS]; /* slots of keys that have contexts, or NONE */
  int32_t warm_next;
  struct endpoint *endpoints; /* by slot */
  struct sockaddr_in6 relay;
  bool has_relay;

  struct send_queue send;

  struct receive_slot slots[RECEIVE_SLOTS];
  int slots_filled, slot_next; /* slots before slot_next are done */
  uint32_t slot_offset; /* bytes of slot_next that are done */
  int rows_filled, segments_filled;
  struct segment *segments;
  struct run *runs;

  struct wakeups *wakeups;
};

struct plane *plane_create(void);
void plane_close(struct plane *plane);
void plane_free(struct plane *plane);

static inline void count_of(struct plane *plane, enum counter which, uint32_t n) { plane->counters[which] += n; }
static inline uint8_t *receive_slot_bytes(struct plane *plane, int slot) {
  return plane->in_arena + (size_t)slot * RECEIVE_STRIDE;
}

#endif
