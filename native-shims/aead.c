/*
 * AES-256-GCM by the OpenSSL that Node carries and exports. A context keeps the expanded key of one direction (keys.c says for
 * how long); per frame only the nonce is set. Bytes are sealed and opened where they lie.
 */
#include "plane.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>

/* Looked up once: else each context looks it up for itself. JavaScript has one thread. */
static const EVP_CIPHER *aes_256_gcm(void) {
  static EVP_CIPHER *fetched;
  if (fetched == NULL) fetched = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
  return fetched;
}

cipher_ctx *aead_new(const uint8_t key[32], bool seal) {
  static const uint8_t no_nonce[12];
  const EVP_CIPHER *cipher = aes_256_gcm();
  EVP_CIPHER_CTX *ctx = cipher == NULL ? NULL : EVP_CIPHER_CTX_new();
  if (ctx == NULL) return NULL;
  if (EVP_CipherInit_ex(ctx, cipher, NULL, key, no_nonce, seal) == 1) return ctx;
  ERR_clear_error();
  EVP_CIPHER_CTX_free(ctx);
  return NULL;
}

/* Passed as a parameter, the tag costs a tenth of a short frame less than through EVP_CIPHER_CTX_ctrl. */
static OSSL_PARAM tag_parameter(uint8_t tag[TAG_BYTES]) {
  return OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, TAG_BYTES);
}

void aead_free(cipher_ctx *ctx) { EVP_CIPHER_CTX_free(ctx); /* also wipes the key */ }

bool aead_seal(cipher_ctx *ctx, const uint8_t nonce[12], const uint8_t *aad, size_t aad_length, uint8_t *bytes,
               size_t length, uint8_t tag[TAG_BYTES]) {
  int n;
  bool ok = EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce) == 1 &&
            (aad_length == 0 || EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_length) == 1) &&
            EVP_EncryptUpdate(ctx, bytes, &n, bytes, (int)length) == 1 &&
            EVP_EncryptFinal_ex(ctx, bytes + length, &n) == 1 &&
            EVP_CIPHER_CTX_get_params(ctx, (OSSL_PARAM[]){tag_parameter(tag), OSSL_PARAM_END}) == 1;
  if (!ok) ERR_clear_error();
  return ok;
}

bool aead_open(cipher_ctx *ctx, const uint8_t nonce[12], const uint8_t *aad, size_t aad_length, uint8_t *bytes,
               size_t length, const uint8_t tag[TAG_BYTES]) {
  int n;
  uint8_t expected[TAG_BYTES];
  memcpy(expected, tag, TAG_BYTES);
  bool ok = EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, nonce) == 1 &&
            (aad_length == 0 || EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_length) == 1) &&
            EVP_DecryptUpdate(ctx, bytes, &n, bytes, (int)length) == 1 &&
            EVP_CIPHER_CTX_set_params(ctx, (OSSL_PARAM[]){tag_parameter(expected), OSSL_PARAM_END}) == 1 &&
            EVP_DecryptFinal_ex(ctx, bytes + length, &n) == 1;
  if (!ok) ERR_clear_error(); /* else a later call of node:crypto would report it as its own */
  return ok;
}
