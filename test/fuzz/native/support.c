/*
 * The plane of the harnesses, and AES-GCM replaced by something that is no secret: a stream that is its own inverse and a
 * tag over all bytes, so that the fuzzer can make frames that open, and does not spend its time in OpenSSL.
 */
#include "support.h"

static const uint8_t KEY[32] = {7};
static const uint8_t PREFIX[4] = {1, 2, 3, 4};
/* Version 1, datagram, from node 1 to node 1, port 41 on both sides. */
static const uint8_t HEADER[VIRTUAL_HEADER] = {0x10, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 41, 0, 41};

void OPENSSL_cleanse(void *bytes, size_t length) { memset(bytes, 0, length); }

cipher_ctx *aead_new(const uint8_t key[32], bool seal) {
  (void)seal;
  uint8_t *ctx = malloc(1);
  *ctx = key[0];
  return (cipher_ctx *)ctx;
}

void aead_free(cipher_ctx *ctx) { free(ctx); }

static void stream(const cipher_ctx *ctx, uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) bytes[i] ^= *(const uint8_t *)ctx;
}

static void tag_of(const uint8_t *aad, size_t aad_length, const uint8_t *bytes, size_t length, uint8_t tag[TAG_BYTES]) {
  uint32_t sum = 0x811c9dc5;
  for (size_t i = 0; i < aad_length; i++) sum = (sum ^ aad[i]) * 0x01000193;
  for (size_t i = 0; i < length; i++) sum = (sum ^ bytes[i]) * 0x01000193;
  for (int i = 0; i < TAG_BYTES; i++) tag[i] = (uint8_t)(sum >> (i % 4 * 8));
}

bool aead_seal(cipher_ctx *ctx, const uint8_t nonce[12], const uint8_t *aad, size_t aad_length, uint8_t *bytes,
               size_t length, uint8_t tag[TAG_BYTES]) {
  (void)nonce;
  stream(ctx, bytes, length);
  tag_of(aad, aad_length, bytes, length, tag);
  return true;
}

bool aead_open(cipher_ctx *ctx, const uint8_t nonce[12], const uint8_t *aad, size_t aad_length, uint8_t *bytes,
               size_t length, const uint8_t tag[TAG_BYTES]) {
  (void)nonce;
  uint8_t right[TAG_BYTES];
  tag_of(aad, aad_length, bytes, length, right);
  stream(ctx, bytes, length);
  return memcmp(right, tag, TAG_BYTES) == 0;
}

static void install(struct plane *plane) {
  struct key_spec spec = {.key = KEY, .send_prefix = PREFIX, .send_header = HEADER, .receive_header = HEADER};
  spec.first_counter = 1;
  spec.local_node = spec.peer_node = 1;
  spec.bind_sender = true;
  DEMAND(key_install(plane, 0, &spec) == 0, "a key can be installed");
}

struct plane *fuzz_plane(void) {
  struct plane *plane = plane_create();
  plane->in_bytes = (size_t)RECEIVE_SLOTS * RECEIVE_STRIDE;
  plane->out_bytes = 1 << 17;
  plane->in_arena = calloc(1, plane->in_bytes);
  plane->out_arena = calloc(1, plane->out_bytes);
  plane->in_rows = calloc(MAX_ROWS * ROW_WORDS, sizeof(int32_t));
  plane->out_rows = calloc(MAX_ROWS * ROW_WORDS, sizeof(int32_t));
  plane->counters = calloc(COUNTER_COUNT, sizeof(double));
  plane->key_stats = calloc((size_t)MAX_KEY_SLOTS * KEY_STAT_COUNT, sizeof(double));
  plane->status = calloc(STATUS_WORDS, sizeof(int32_t));
  plane->has_uso = true;
  plane->endpoints[0].used = true;
  udp_parse_address("192.0.2.1", 4000, &plane->endpoints[0].address);
  udp_parse_address("192.0.2.9", 9001, &plane->relay);
  plane->has_relay = true;
  install(plane);
  return plane;
}

void fuzz_plane_reset(struct plane *plane) {
  key_remove(plane, 0);
  install(plane);
  plane->send.head = plane->send.count = 0;
  plane->send.used = 0;
  plane->rows_filled = plane->segments_filled = plane->slots_filled = plane->slot_next = 0;
  plane->slot_offset = 0;
  memset(plane->counters, 0, COUNTER_COUNT * sizeof(double));
}
