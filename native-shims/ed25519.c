/*
 * Checks of Ed25519 signatures (RFC 8032) by libsodium, where this machine has it: with the 64-bit arithmetic it uses, a check
 * takes less than half of what it takes OpenSSL, whose Ed25519 is written for 32 bits. The library is looked for when
 * the first signature comes, not linked, so that a host without it is only slower: the caller then asks OpenSSL.
 *
 * Both refuse what is malleable (RFC 8032 §5.1.7: S < L). libsodium also refuses keys and R of small order and keys that are not
 * written canonically, which no honest signer makes.
 */
#include "ed25519.h"

#include "call.h"

#include <dlfcn.h>
#include <errno.h>

/* Of crypto_sign_ed25519.h: 0 for a valid signature. */
typedef int verify_detached(const unsigned char signature[64], const unsigned char *message,
                            unsigned long long length, const unsigned char key[32]);

/* By version of its interface; what is used here is the same in all. */
static const char *const LIBRARIES[] = {"libsodium.so.26", "libsodium.so.23"};

/* The library stays open for good. NULL where there is none, or one that does not start. */
static verify_detached *open_library(const char *name) {
  void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return NULL;
  int (*init)(void) = (int (*)(void))dlsym(library, "sodium_init");
  verify_detached *verify = (verify_detached *)dlsym(library, "crypto_sign_ed25519_verify_detached");
  return init != NULL && init() >= 0 ? verify : NULL;
}

/* Looked for once. JavaScript has one thread. */
static verify_detached *sodium(void) {
  static verify_detached *found;
  static bool looked;
  if (looked) return found;
  looked = true;
  for (size_t i = 0; i < sizeof LIBRARIES / sizeof *LIBRARIES && found == NULL; i++) found = open_library(LIBRARIES[i]);
  return found;
}

/* ed25519Verify(key, message, signature): 1, or 0 when it does not hold; -ENOSYS without the library */
static napi_value verify(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  const uint8_t *key = bytes_exactly(&call, 0, 32);
  struct bytes message = bytes_of(&call, 1, 0);
  const uint8_t *signature = bytes_exactly(&call, 2, 64);
  if (call.bad) return bad_call(&call);
  verify_detached *check = sodium();
  if (check == NULL) return integer(&call, -ENOSYS);
  return integer(&call, check(signature, message.at, message.length, key) == 0);
}

static const struct function FUNCTIONS[] = {{"ed25519Verify", verify}};

bool ed25519_export(napi_env env, napi_value exports) {
  return export_functions(env, exports, FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS);
}
