/* What the harnesses for the shim's packet functions share; see scripts/fuzz-native. */
#ifndef FUZZ_SUPPORT_H
#define FUZZ_SUPPORT_H

#include "plane.h"

#include <stdio.h>
#include <stdlib.h>

/* A finding: the fuzzer keeps the input of whoever aborts. */
#define DEMAND(holds, claim) \
  do { \
    if (!(holds)) { \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, claim); \
      abort(); \
    } \
  } while (0)

/* Values out of the fuzzer's bytes; zeros when they end. */
struct input {
  const uint8_t *at, *end;
};

static inline uint32_t take_u8(struct input *input) { return input->at < input->end ? *input->at++ : 0; }
static inline uint32_t take_u16(struct input *input) {
  uint32_t high = take_u8(input);
  return high << 8 | take_u8(input);
}
static inline const uint8_t *take_bytes(struct input *input, size_t *length) {
  size_t left = (size_t)(input->end - input->at);
  const uint8_t *bytes = input->at;
  if (*length > left) *length = left;
  input->at += *length;
  return bytes;
}

/* A plane with arenas of its own, no descriptors, and a key in slot 0 that opens what it seals: node 1 talks to node 1. */
struct plane *fuzz_plane(void);
/* As it was, without the memory. */
void fuzz_plane_reset(struct plane *plane);

#endif
