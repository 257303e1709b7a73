/* Checksum, CRC and replay window against the plainest way to say what they are. */
#include "support.h"

static uint16_t plain_sum(const uint8_t *bytes, size_t length) {
  uint64_t sum = 0;
  for (size_t i = 0; i < length; i++) sum += i % 2 == 0 ? (uint64_t)bytes[i] << 8 : bytes[i];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

static uint32_t plain_crc(const uint8_t *bytes, size_t length) {
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < length; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
  }
  return ~crc;
}

static void windows(struct input *input) {
  enum { MOST = 512 };
  struct replay_window window = {0};
  uint64_t seen[MOST], greatest = 0, at = 3000;
  for (int count = 0; count < MOST && input->at < input->end; count++) {
    uint32_t step = take_u8(input);
    at = step < 200 ? at + step - 100 : at + (step - 199) * 700;
    bool was = at == 0 || (greatest >= REPLAY_WINDOW && at <= greatest - REPLAY_WINDOW);
    for (int i = 0; i < count; i++) was = was || seen[i] == at;
    bool accepted = replay_accept(&window, at);
    DEMAND(!(accepted && was), "no counter is accepted twice, or when it is too old");
    seen[count] = accepted ? at : 0;
    if (accepted && at > greatest) greatest = at;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size == 0 ? 1 : size); /* of this very size, so that reading further is seen */
  memcpy(copy, data, size);
  uint16_t sum = checksum_fold(checksum_add(0, copy, size)), right = plain_sum(copy, size);
  sum = (uint16_t)(sum << 8 | sum >> 8);
  DEMAND(sum == right || (sum % 0xffff == 0 && right % 0xffff == 0), "the sum is the plain sum");
  DEMAND(crc32_of(copy, size) == plain_crc(copy, size), "the CRC is the plain CRC");
  struct input input = {copy, copy + size};
  windows(&input);
  free(copy);
  return 0;
}
