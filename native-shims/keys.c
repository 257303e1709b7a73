/*
 * Keys by slot, and by the peer's node for frames that arrive. Both tables have MAX_KEY_SLOTS entries at most; JavaScript
 * hands out the slots and removes what it no longer needs. A node may own several keys (old, current, next): they hang
 * in one bucket, newest first, and at most KEYS_TRIED of them are tried by the caller.
 *
 * Where one key serves both directions, nonces are kept apart by the random prefix each side sends; where each has its own,
 * the peer's one prefix is known beforehand and tells which of several keys a frame is for. A prefix of the peer gets
 * a replay window when its first frame has passed the tag; the sixth evicts the one used longest ago.
 *
 * What OpenSSL keeps for a key is ten times the key. Of thousands of peers few talk at once: contexts are made when a frame needs
 * them, for WARM_KEYS keys at most, and taken from one that none needed for longest, roughly: a hand goes round over them
 * and passes over those that were used since it came by (a "clock").
 */
#include "plane.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

static uint32_t bucket_of(uint32_t node) { return node * 2654435761u >> 17; }
_Static_assert(NODE_BUCKETS == 1 << 15, "bucket_of keeps the top 15 bits");

static bool slot_valid(int32_t slot) { return slot >= 0 && slot < MAX_KEY_SLOTS; }

struct key *key_at(struct plane *plane, int32_t slot) { return slot_valid(slot) ? plane->keys[slot] : NULL; }

static struct key *of_node(struct plane *plane, int32_t slot, uint32_t node) {
  while (slot != NONE && plane->keys[slot]->peer_node != node) slot = plane->keys[slot]->next;
  return slot == NONE ? NULL : plane->keys[slot];
}

struct key *key_first_of(struct plane *plane, uint32_t node) {
  return of_node(plane, plane->node_heads[bucket_of(node)], node);
}

struct key *key_next_of(struct plane *plane, struct key *key) { return of_node(plane, key->next, key->peer_node); }

static void unlink_key(struct plane *plane, struct key *key) {
  int32_t *at = &plane->node_heads[bucket_of(key->peer_node)];
  while (*at != key->slot) at = &plane->keys[*at]->next;
  *at = key->next;
}

static void cool(struct plane *plane, struct key *key) {
  aead_free(key->seal);
  aead_free(key->open);
  key->seal = key->open = NULL;
  if (key->warm_place != NONE) plane->warm[key->warm_place] = NONE;
  key->warm_place = NONE;
}

/* Ends within two rounds: the first leaves nothing that was used lately. */
static int32_t free_warm_place(struct plane *plane) {
  for (;;) {
    int32_t place = plane->warm_next;
    plane->warm_next = (place + 1) % WARM_KEYS;
    struct key *there = key_at(plane, plane->warm[place]);
    if (there != NULL && there->used_lately) {
      there->used_lately = false;
      continue;
    }
    if (there != NULL) cool(plane, there);
    return place;
  }
}

static cipher_ctx *warm(struct plane *plane, struct key *key, cipher_ctx **ctx, const uint8_t bytes[32], bool seal) {
  key->used_lately = true;
  if (*ctx != NULL) return *ctx;
  if (key->warm_place == NONE) {
    key->warm_place = free_warm_place(plane);
    plane->warm[key->warm_place] = key->slot;
  }
  *ctx = aead_new(bytes, seal);
  return *ctx;
}

cipher_ctx *key_seal_ctx(struct plane *plane, struct key *key) {
  return warm(plane, key, &key->seal, key->seal_key, true);
}

cipher_ctx *key_open_ctx(struct plane *plane, struct key *key) {
  return warm(plane, key, &key->open, key->open_key, false);
}

static void free_key(struct plane *plane, struct key *key) {
  for (int i = 0; i < PREFIXES_PER_KEY; i++) free(key->windows[i]);
  cool(plane, key);
  OPENSSL_cleanse(key, sizeof *key);
  free(key);
}

uint64_t key_remove(struct plane *plane, int32_t slot) {
  struct key *key = key_at(plane, slot);
  if (key == NULL) return 0;
  uint64_t counter = key->send_counter;
  unlink_key(plane, key);
  plane->keys[slot] = NULL;
  free_key(plane, key);
  return counter;
}

int key_install(struct plane *plane, int32_t slot, const struct key_spec *spec) {
  if (!slot_valid(slot) || spec->first_counter < 1 || spec->first_counter > MAX_COUNTER) return -EINVAL;
  struct key *key = calloc(1, sizeof *key);
  if (key == NULL) return -ENOMEM;
  memcpy(key->seal_key, spec->key, sizeof key->seal_key);
  memcpy(key->open_key, spec->receive_key != NULL ? spec->receive_key : spec->key, sizeof key->open_key);
  key->warm_place = NONE;
  key->slot = slot;
  key->endpoint_slot = NONE;
  key->local_node = spec->local_node;
  key->peer_node = spec->peer_node;
  key->bind_sender = spec->bind_sender;
  key->send_counter = spec->first_counter;
  memcpy(key->send_prefix, spec->send_prefix, sizeof key->send_prefix);
  key->has_receive_prefix = spec->receive_prefix != NULL;
  if (key->has_receive_prefix) memcpy(key->receive_prefix, spec->receive_prefix, sizeof key->receive_prefix);
  memcpy(key->send_header, spec->send_header, VIRTUAL_HEADER);
  memcpy(key->receive_header, spec->receive_header, VIRTUAL_HEADER);
  key_remove(plane, slot);
  int32_t *head = &plane->node_heads[bucket_of(key->peer_node)];
  key->next = *head;
  *head = slot;
  plane->keys[slot] = key;
  memset(plane->key_stats + (size_t)slot * KEY_STAT_COUNT, 0, KEY_STAT_COUNT * sizeof(double));
  return 0;
}

void keys_wipe(struct plane *plane) {
  for (int32_t slot = 0; slot < MAX_KEY_SLOTS; slot++) key_remove(plane, slot);
}

struct replay_window *key_window(struct key *key, const uint8_t prefix[4]) {
  for (int i = 0; i < PREFIXES_PER_KEY && key->windows[i] != NULL; i++)
    if (memcmp(key->windows[i]->prefix, prefix, 4) == 0) return key->windows[i];
  return NULL;
}

/* A place of its own, or that of the window used longest ago. */
static struct replay_window **window_place(struct key *key) {
  struct replay_window **place = &key->windows[0];
  for (int i = 0; i < PREFIXES_PER_KEY; i++) {
    if (key->windows[i] == NULL) return &key->windows[i];
    if (key->windows[i]->last_use < (*place)->last_use) place = &key->windows[i];
  }
  return place;
}

struct replay_window *key_new_window(struct key *key, const uint8_t prefix[4]) {
  struct replay_window **place = window_place(key);
  if (*place == NULL) *place = malloc(sizeof **place);
  if (*place == NULL) return NULL;
  memset(*place, 0, sizeof **place);
  memcpy((*place)->prefix, prefix, 4);
  return *place;
}
