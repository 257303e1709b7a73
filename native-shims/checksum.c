/*
 * The Internet checksum (RFC 1071), in the machine's byte order: the ones' complement sum of 16-bit words does not
 * depend on byte order as long as the result is stored as it was added. 32-bit words are added into 64-bit sums, which
 * compilers turn into vector code; 64 KiB cannot overflow them.
 */
#include "plane.h"

#if defined(__x86_64__)
#define WIDE __attribute__((target("avx2")))
#else
#define WIDE
#endif

typedef uint64_t lanes __attribute__((vector_size(32)));
enum { BLOCK = 64 };

/* Each lane adds the low and the high 32 bits of its words by themselves. */
#define ADD_BLOCKS(bytes, blocks)                                     \
  do {                                                                \
    lanes low = {0}, high = {0}, first, second;                       \
    for (size_t block = 0; block < (blocks); block++) {               \
      memcpy(&first, (bytes) + block * BLOCK, sizeof first);          \
      memcpy(&second, (bytes) + block * BLOCK + sizeof first, sizeof second); \
      low += (first & 0xffffffff) + (second & 0xffffffff);            \
      high += (first >> 32) + (second >> 32);                         \
    }                                                                 \
    low += high;                                                      \
    return low[0] + low[1] + low[2] + low[3];                         \
  } while (0)

WIDE static uint64_t add_wide(const uint8_t *bytes, size_t blocks) { ADD_BLOCKS(bytes, blocks); }

#if defined(__x86_64__)
static uint64_t add_plain(const uint8_t *bytes, size_t blocks) { ADD_BLOCKS(bytes, blocks); }

static uint64_t add_blocks(const uint8_t *bytes, size_t blocks) {
  return __builtin_cpu_supports("avx2") ? add_wide(bytes, blocks) : add_plain(bytes, blocks);
}
#else
static uint64_t add_blocks(const uint8_t *bytes, size_t blocks) { return add_wide(bytes, blocks); }
#endif

uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length) {
  if (length >= BLOCK) {
    size_t blocks = length / BLOCK;
    sum += add_blocks(bytes, blocks);
    bytes += blocks * BLOCK;
    length -= blocks * BLOCK;
  }
  for (; length >= 4; bytes += 4, length -= 4) {
    uint32_t word;
    memcpy(&word, bytes, 4);
    sum += word;
  }
  if (length > 0) {
    uint8_t rest[4] = {0};
    memcpy(rest, bytes, length);
    uint32_t word;
    memcpy(&word, rest, 4);
    sum += word;
  }
  return sum;
}

uint64_t checksum_pseudo(const uint8_t *ipv6, uint32_t length, uint8_t protocol) {
  uint8_t tail[8] = {0};
  write_u32(tail, length);
  tail[7] = protocol;
  return checksum_add(checksum_add(0, ipv6 + 8, 32), tail, 8);
}

uint16_t checksum_fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}
