/*
 * Birth and death of a data plane. Everything it will ever use is allocated here (big tables are zero pages until they
 * are touched). Closing wipes the keys and closes both descriptors; it may be called twice. The memory itself goes when
 * JavaScript has dropped the plane and libuv has let go of the wake-ups.
 */
#include "plane.h"

#include <stdlib.h>
#include <unistd.h>

static bool allocate(struct plane *plane) {
  plane->keys = calloc(MAX_KEY_SLOTS, sizeof *plane->keys);
  plane->node_heads = malloc(NODE_BUCKETS * sizeof *plane->node_heads);
  plane->endpoints = calloc(MAX_ENDPOINT_SLOTS, sizeof *plane->endpoints);
  plane->send.buffer = malloc(SEND_BUFFER);
  plane->send.messages = calloc(SEND_MESSAGES, sizeof *plane->send.messages);
  plane->segments = calloc(MAX_SEGMENTS, sizeof *plane->segments);
  plane->runs = calloc(MAX_ROWS, sizeof *plane->runs);
  return plane->keys && plane->node_heads && plane->endpoints && plane->send.buffer && plane->send.messages &&
         plane->segments && plane->runs;
}

struct plane *plane_create(void) {
  struct plane *plane = calloc(1, sizeof *plane);
  if (plane == NULL) return NULL;
  plane->tun_fd = plane->udp_fd = plane->aside_fd = -1;
  if (!allocate(plane)) {
    plane_free(plane);
    return NULL;
  }
  for (int i = 0; i < NODE_BUCKETS; i++) plane->node_heads[i] = NONE;
  for (int i = 0; i < WARM_KEYS; i++) plane->warm[i] = NONE;
  return plane;
}

void plane_close(struct plane *plane) {
  if (plane->tun_fd >= 0) close(plane->tun_fd);
  if (plane->udp_fd >= 0) close(plane->udp_fd);
  if (plane->aside_fd >= 0) close(plane->aside_fd);
  plane->tun_fd = plane->udp_fd = plane->aside_fd = -1;
  keys_wipe(plane);
}

void plane_free(struct plane *plane) {
  free(plane->keys);
  free(plane->node_heads);
  free(plane->endpoints);
  free(plane->send.buffer);
  free(plane->send.messages);
  free(plane->segments);
  free(plane->runs);
  free(plane);
}
