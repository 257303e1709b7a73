/*
 * Anti-replay window (RFC 4303 §3.4.3): a counter passes once, and only if it is less than REPLAY_WINDOW below the
 * greatest seen. The bits lie in a ring of words that is cleared word by word as the greatest moves on (RFC 6479); it is
 * twice as long as the window, so that clearing a whole word never forgets a counter inside the window.
 *
 * The invariant that matters is the caller's: a counter comes here only after its frame's tag was good, so a forged
 * frame with a high counter cannot move the window.
 */
#include "plane.h"

_Static_assert((REPLAY_WORDS - 1) * 64 >= REPLAY_WINDOW, "the ring holds the window and one word more");

static void slide(struct replay_window *window, uint64_t counter) {
  uint64_t from = window->greatest / 64, to = counter / 64;
  uint64_t words = to - from < REPLAY_WORDS ? to - from : REPLAY_WORDS;
  for (uint64_t i = 1; i <= words; i++) window->bitmap[(from + i) % REPLAY_WORDS] = 0;
  window->greatest = counter;
}

bool replay_accept(struct replay_window *window, uint64_t counter) {
  if (counter == 0) return false;
  if (counter > window->greatest) slide(window, counter);
  else if (window->greatest - counter >= REPLAY_WINDOW) return false;
  uint64_t *word = &window->bitmap[counter / 64 % REPLAY_WORDS], bit = (uint64_t)1 << counter % 64;
  if (*word & bit) return false;
  *word |= bit;
  return true;
}
